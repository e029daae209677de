import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import AttentionDynamics, masks, weights
from dynsim.masks.layout import CSR, Ranges
from dynsim.masks.networkx_view import compile_layout

SIZES = [3, 4, 7, 16]


def allowed(graph):
    """mask[i, j] from the networkx edges alone."""
    n = graph.number_of_nodes()
    out = np.zeros((n, n), bool)
    for j, i in graph.edges():
        out[i, j] = True
    return out


def written_out(name, n):
    """The masks again, entry by entry from their definitions (default parameters)."""
    block = stride = max(1, int(np.sqrt(n)))
    rules = {
        "complete": lambda i, j: True,
        "global": lambda i, j: True,
        "causal": lambda i, j: j <= i,
        "local": lambda i, j: abs(i - j) <= 1,
        "causal-local": lambda i, j: 0 <= i - j <= 1,
        "prefix": lambda i, j: j <= i or j < max(1, n // 4),
        "sinks": lambda i, j: abs(i - j) <= 1 or 0 in (i, j),
        "dilated": lambda i, j: i - j in (-2, 0, 2),
        "strided": lambda i, j: abs(i - j) <= 1 or (i - j) % stride == 0,
        "block-sparse": lambda i, j: (
            i // block == j // block or j % block == block - 1 or j == n - 1
        ),
        "ring": lambda i, j: min((i - j) % n, (j - i) % n) <= 1,
        "star": lambda i, j: i == j or 0 in (i, j),
    }
    return np.array([[rules[name](i, j) for j in range(n)] for i in range(n)])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", [name for name in masks.MASKS if name != "bigbird"])
def test_edges_follow_the_definition(name, n):
    assert np.array_equal(allowed(masks.MASKS[name](n)), written_out(name, n))


@pytest.mark.parametrize("name", masks.MASKS)
def test_every_mask_is_a_networkx_graph_with_self_loops(name):
    graph = masks.MASKS[name](9)
    assert isinstance(graph, nx.DiGraph)
    assert all(graph.has_edge(i, i) for i in range(9))
    assert {(j, i) for i in graph for j in graph.predecessors(i)} == set(graph.edges())
    copy = graph.copy()
    copy.remove_edge(0, 0)  # an ordinary graph that may be changed
    assert graph.has_edge(0, 0)
    with pytest.raises(nx.NetworkXError, match="Frozen"):
        graph.add_edge(0, 1)


@pytest.mark.parametrize("name", masks.MASKS)
def test_a_copied_graph_compiles_to_the_same_layout(name):
    graph = masks.MASKS[name](11)
    assert compile_layout(graph.copy()) == compile_layout(graph)


def test_layouts_are_the_cheapest():
    kinds = {
        "complete": masks.complete(8),
        "causal": masks.causal(8),
        "banded": masks.local(8, window=2),
        "csr": masks.star(8),
    }
    for kind, graph in kinds.items():
        assert compile_layout(graph).kind == kind
    assert compile_layout(masks.causal_local(8)).kind == "banded"


def test_a_long_window_holds_no_edges():
    layout = compile_layout(masks.local(100_000, window=1000))
    assert isinstance(layout, Ranges)
    assert layout.lo.nbytes + layout.hi.nbytes == 2 * 8 * 100_000


@given(st.integers(2, 12), st.integers(0, 2**16))
def test_attended_by_is_the_transpose(n, seed):
    mask = np.random.default_rng(seed).random((n, n)) < 0.4
    np.fill_diagonal(mask, True)
    for layout in (
        compile_layout(masks.from_array(mask)),
        compile_layout(masks.from_array(mask)).to_rows(),
    ):
        back = layout.attended_by
        for j in range(n):
            assert list(back.row(j)) == list(np.flatnonzero(mask[:, j]))
            assert list(layout.row(j)) == list(np.flatnonzero(mask[j]))


def test_bigbird_draw_depends_on_its_seed_only():
    assert set(masks.bigbird(20, seed=1).edges()) == set(masks.bigbird(20, seed=1).edges())
    assert set(masks.bigbird(20, seed=1).edges()) != set(masks.bigbird(20, seed=2).edges())
    mask = allowed(masks.bigbird(20, window=1, sinks=2, random=3))
    assert mask[:, :2].all()
    assert mask[:2].all()
    assert mask.sum(axis=1)[2:].max() <= 2 + 3 + 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: masks.local(8, window=0), "nothing mixes"),
        (lambda: masks.local(8, window=8), "complete or causal"),
        (lambda: masks.causal_local(8, window=-1), "window -1"),
        (lambda: masks.local(8, window=1.5), r"a window is a whole number of tokens; got 1\.5"),
        (lambda: masks.complete(0), "tokens of a mask is a whole number, at least 1"),
        (lambda: masks.prefix(4, length=9), "1..4"),
        (lambda: masks.from_array(np.ones((2, 3))), "square"),
        (lambda: masks.from_array([[1, np.nan], [1, 1]]), "finite"),
        (lambda: masks.from_array([[1, 0], [0, 0]]), "row 1 of the mask is empty"),
        (lambda: compile_layout(nx.path_graph(3)), "DiGraph"),
        (lambda: compile_layout(nx.DiGraph([("a", "b")])), "relabel"),
        (lambda: compile_layout(nx.DiGraph([(0, 1)])), "row 0 of the mask is empty"),
        (lambda: compile_layout(nx.DiGraph()), "no nodes"),
    ],
)
def test_bad_masks_are_refused_with_rule_and_remedy(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.fixture
def graph():
    return nx.DiGraph([(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (3, 3), (2, 3), (3, 0)])


def test_graph_files_of_every_kind_read_back(graph, tmp_path):
    mask = nx.to_numpy_array(graph, nodelist=range(4)).T  # rows are queries
    nx.write_graphml(graph, tmp_path / "g.graphml")
    nx.write_gml(graph, tmp_path / "g.gml")
    nx.write_edgelist(graph, tmp_path / "g.edgelist", data=False)
    (tmp_path / "g.csv").write_text("# j, i\n" + "\n".join(f"{j}, {i}" for j, i in graph.edges()))
    np.save(tmp_path / "g.npy", mask)
    np.savez(tmp_path / "g.npz", mask=mask)
    from scipy import sparse

    sparse.save_npz(tmp_path / "s.npz", sparse.csr_array(mask))
    for path in tmp_path.iterdir():
        read = masks.from_file(path)
        assert set(read.edges()) == set(graph.edges()), path.name


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.edgelist", "0 x\n", "line 1"),
        ("a.edgelist", "", "empty"),
        ("a.edgelist", "0 99999999\n", "number the tokens"),
        ("a.npy", "not numpy", "a.npy"),
        ("a.graphml", "<not xml", "not readable"),
        ("a.gml", "graph [", "a.gml"),
        ("a.gml", "graph [ ]", "a mask needs at least one token"),
    ],
)
def test_unreadable_graph_files_say_so(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        masks.from_file(tmp_path / name)


def test_missing_and_pickled_graph_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no graph file"):
        masks.from_file(tmp_path / "none.gml")
    np.save(tmp_path / "p.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"p\.npy"):
        masks.from_file(tmp_path / "p.npy")
    np.savez(tmp_path / "two.npz", a=np.eye(2), b=np.eye(2))
    with pytest.raises(ValueError, match=r"two\.npz: expected one array, found \['a', 'b'\]"):
        masks.from_file(tmp_path / "two.npz")


def test_a_single_token_has_a_window_of_any_size():
    assert set(masks.local(1, window=3).edges()) == {(0, 0)}


def test_an_undirected_graph_file_counts_both_ways(tmp_path):
    nx.write_gml(nx.Graph([(0, 1), (1, 2), (0, 0), (1, 1), (2, 2)]), tmp_path / "u.gml")
    assert (1, 0) in masks.from_file(tmp_path / "u.gml").edges()


def test_rows_keep_their_order():
    layout = compile_layout(masks.star(5))
    assert isinstance(layout, CSR)
    assert [list(layout.row(i)) for i in (0, 3)] == [[0, 1, 2, 3, 4], [0, 3]]


# --- arrays as masks ------------------------------------------------------------------------------


def test_arrays_have_queries_in_rows_as_torch_and_tril_have(tmp_path):
    tril = np.tril(np.ones((5, 5)))
    np.save(tmp_path / "tril.npy", tril)
    for graph in (masks.from_array(tril), masks.from_file(tmp_path / "tril.npy")):
        assert compile_layout(graph) == compile_layout(masks.causal(5))
    given = AttentionDynamics(tril, weights.Identity())
    assert given.layout == compile_layout(masks.causal(5))
    assert np.array_equal(given.allowed(), tril != 0)


def test_self_loops_are_added_where_asked_for(tmp_path):
    shift = np.eye(4, k=-1)
    np.save(tmp_path / "shift.npy", shift)
    (tmp_path / "shift.txt").write_text("0 1\n1 2\n2 3\n")
    with pytest.raises(ValueError, match="row 0 of the mask is empty"):
        masks.from_array(shift)
    for graph in (
        masks.from_array(shift, self_loops=True),
        masks.from_file(tmp_path / "shift.npy", self_loops=True),
        masks.from_file(tmp_path / "shift.txt", self_loops=True),
    ):
        assert compile_layout(graph) == compile_layout(masks.causal_local(4))


def test_signed_and_additive_arrays_are_refused():
    with pytest.raises(ValueError, match=r"holds 0 and 1, or booleans; got -1; .* `array != 0`"):
        masks.from_array(np.array([[1.0, -1.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="added to the scores"):
        masks.from_array(np.array([[0.0, -np.inf], [0.0, 0.0]]))
