"""Mask graphs: who may attend to whom.

A mask is a `networkx.DiGraph` on the tokens 0..N-1. An edge j -> i means that *token i attends to
token j*: information flows along the arrow (WU, arXiv 2405.18781, section 3). As a boolean matrix,
``mask[i, j]`` is True when i may attend to j, with queries in rows, as `numpy.tril` is the causal
mask. Every token attends at least to itself in all masks built here (WU's assumption A1).

The graphs made here are read-only and hold no edge list: a window over 10^5 tokens costs two
integers a token. ``graph.copy()`` gives an ordinary graph that may be changed. Any other DiGraph
on 0..N-1 serves as a mask as well, and `from_file` reads one.

All constructors raise ValueError for sizes that are no whole numbers or out of range, and TooLarge,
a MemoryError, for more tokens than this machine can hold.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from dynsim._files import as_path
from dynsim._memory import require_memory
from dynsim._values import check_instance, check_switch, shown, whole
from dynsim.masks.layout import Ranges, rows_from_pairs
from dynsim.masks.networkx_view import graph_from_layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike
    from scipy import sparse

__all__ = [
    "MASKS",
    "bigbird",
    "block_sparse",
    "causal",
    "causal_local",
    "complete",
    "dilated",
    "from_array",
    "from_file",
    "local",
    "prefix",
    "ring",
    "sinks",
    "star",
    "strided",
]


def _check_number(n: int) -> None:
    n = whole("number of tokens of a mask", n, least=1)
    require_memory(16.0 * n, f"the rows of a mask of {n} tokens", "use fewer tokens")


def _tokens(n: int) -> np.ndarray:
    _check_number(n)
    return np.arange(n)


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_window(window: int, n: int) -> None:
    if not _is_whole(window):
        raise ValueError(f"a window is a whole number of tokens; got {shown(window)}")
    if n == 1 and window >= 1:
        return
    if window < 1:
        raise ValueError(
            f"a window reaches at least one neighbour; got window {shown(window)}, with which "
            f"every token attends to itself alone and nothing mixes; use 1 to {n - 1}"
        )
    if window >= n:
        raise ValueError(
            f"a window is smaller than the number of tokens; got window {shown(window)} for {n} "
            f"tokens, which hides nothing; use 1 to {n - 1}, or the complete or causal mask"
        )


def _check_between(name: str, value: int, low: int, high: int) -> None:
    if not _is_whole(value) or not low <= value <= high:
        raise ValueError(f"{name} lies in {low}..{high} for this mask; got {shown(value)}")


def _from_offsets(
    n: int,
    offsets: Sequence[int],
    extra: Iterable[tuple[np.ndarray, np.ndarray]] = (),
    name: str = "",
) -> nx.DiGraph:
    """Token i attends to i + offset for every offset that stays inside, and to `extra` pairs."""
    i = _tokens(n)
    attending = [i[(i + k >= 0) & (i + k < n)] for k in offsets]
    attended = [rows + k for rows, k in zip(attending, offsets, strict=True)]
    for rows, columns in extra:
        rows, columns = np.broadcast_arrays(rows, columns)
        attending.append(rows.ravel())
        attended.append(columns.ravel())
    layout = rows_from_pairs(n, np.concatenate(attending), np.concatenate(attended))
    return graph_from_layout(layout, name)


def _both_ways(rows: np.ndarray, columns: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(rows, columns), (columns, rows)]


def complete(n: int) -> nx.DiGraph:
    """Every token attends to every token (global attention). Radius 1, lambda_2 = 0.

    >>> sorted(complete(3).predecessors(0))
    [0, 1, 2]
    """
    i = _tokens(n)
    return graph_from_layout(Ranges(np.zeros(n), np.full(n, len(i))), f"complete({n})")


def causal(n: int) -> nx.DiGraph:
    """Token i attends to 0..i. Token 0 is the only center node; radius 1; lambda_2 = 1/2.

    >>> sorted(causal(3).predecessors(1))
    [0, 1]
    """
    i = _tokens(n)
    return graph_from_layout(Ranges(np.zeros(n), i + 1), f"causal({n})")


def local(n: int, window: int = 1) -> nx.DiGraph:
    """Sliding window: token i attends to i-window..i+window. Radius ceil(floor(N/2) / window).

    >>> sorted(local(5, window=1).predecessors(2))
    [1, 2, 3]
    """
    i = _tokens(n)
    _check_window(window, n)
    lo, hi = np.maximum(i - window, 0), np.minimum(i + window + 1, n)
    return graph_from_layout(Ranges(lo, hi), f"local({n}, window={window})")


def causal_local(n: int, window: int = 1) -> nx.DiGraph:
    """Uni-directional window: token i attends to i-window..i. Radius ceil((N-1) / window).

    >>> sorted(causal_local(5, window=1).predecessors(2))
    [1, 2]
    """
    i = _tokens(n)
    _check_window(window, n)
    layout = Ranges(np.maximum(i - window, 0), i + 1)
    return graph_from_layout(layout, f"causal-local({n}, window={window})")


def prefix(n: int, length: int | None = None) -> nx.DiGraph:
    """Prefix language model: the first `length` tokens see each other, later ones are causal.

    `length` defaults to a quarter of the tokens, at least 1.

    >>> sorted(prefix(4, length=2).predecessors(0)), sorted(prefix(4, length=2).predecessors(2))
    ([0, 1], [0, 1, 2])

    Raises ValueError unless 1 <= length <= n.
    """
    i = _tokens(n)
    length = max(1, n // 4) if length is None else length
    _check_between("the prefix length", length, 1, n)
    layout = Ranges(np.zeros(n), np.maximum(i + 1, length))
    return graph_from_layout(layout, f"prefix({n}, length={length})")


def sinks(n: int, window: int = 1, sinks: int = 1) -> nx.DiGraph:
    """Attention sinks: a sliding window, and `sinks` first tokens that see and are seen by all.

    After Xiao et al., arXiv 2309.17453, in both directions. Radius 1.

    >>> sorted(sinks(6).predecessors(4))
    [0, 3, 4, 5]
    """
    i = _tokens(n)
    _check_window(window, n)
    _check_between("the number of sinks", sinks, 1, n)
    extra = _both_ways(i[:, None], i[None, :sinks])
    name = f"sinks({n}, window={window}, sinks={sinks})"
    return _from_offsets(n, range(-window, window + 1), extra, name)


def dilated(n: int, window: int = 1, dilation: int = 2) -> nx.DiGraph:
    """Dilated window: token i attends to i + k dilation for |k| <= window.

    The residue classes modulo `dilation` never meet: the graph is not quasi-strongly connected
    and tokens collapse class by class.

    >>> sorted(dilated(6).predecessors(2))
    [0, 2, 4]
    """
    _check_number(n)
    _check_window(window, n)
    _check_between("the dilation", dilation, 1, max(1, n - 1))
    offsets = range(-window * dilation, window * dilation + 1, dilation)
    return _from_offsets(n, offsets, name=f"dilated({n}, window={window}, dilation={dilation})")


def strided(n: int, window: int = 1, stride: int | None = None) -> nx.DiGraph:
    """Strided sparse attention: a sliding window, and every `stride`-th token before and after.

    Both ways round of the strided pattern of Child et al., arXiv 1904.10509; `stride` defaults
    to about sqrt(N).

    >>> sorted(strided(9, stride=4).predecessors(4))
    [0, 3, 4, 5, 8]
    """
    _check_number(n)
    _check_window(window, n)
    stride = max(1, math.isqrt(n)) if stride is None else stride
    _check_between("the stride", stride, 1, n)
    steps = range(-((n - 1) // stride) * stride, n, stride)
    offsets = sorted({*range(-window, window + 1), *steps})
    return _from_offsets(n, offsets, name=f"strided({n}, window={window}, stride={stride})")


def block_sparse(n: int, block: int | None = None) -> nx.DiGraph:
    """Fixed block-sparse attention: the own block, and the last token of every block.

    Both ways round of the fixed pattern of Child et al., arXiv 1904.10509; `block` defaults to
    about sqrt(N).

    >>> sorted(block_sparse(6, block=3).predecessors(0))
    [0, 1, 2, 5]
    """
    i = _tokens(n)
    block = max(1, math.isqrt(n)) if block is None else block
    _check_between("the block size", block, 1, n)
    blocks = [i[start : start + block] for start in range(0, n, block)]
    own = [(rows[:, None], rows[None, :]) for rows in blocks]
    summaries = np.minimum(np.arange(block - 1, n + block - 1, block), n - 1)
    extra = [*own, (i[:, None], summaries[None, :])]
    return _from_offsets(n, [0], extra, f"block-sparse({n}, block={block})")


def bigbird(n: int, window: int = 1, sinks: int = 1, random: int = 2, seed: int = 0) -> nx.DiGraph:
    """BigBird-like: window, `sinks` global tokens, and `random` further tokens drawn for each row.

    After Zaheer et al., arXiv 2007.14062. The draw depends on `seed` alone.

    >>> bigbird(8, seed=1).edges == bigbird(8, seed=1).edges
    True
    """
    i = _tokens(n)
    _check_window(window, n)
    _check_between("the number of global tokens", sinks, 0, n)
    _check_between("the number of random tokens", random, 0, n)
    _check_between("the seed", seed, 0, 2**63)
    drawn = np.random.default_rng([seed, n]).integers(n, size=(n, random))
    extra = [*_both_ways(i[:, None], i[None, :sinks]), (i[:, None], drawn)]
    name = f"bigbird({n}, window={window}, sinks={sinks}, random={random}, seed={seed})"
    return _from_offsets(n, range(-window, window + 1), extra, name)


def ring(n: int, window: int = 1) -> nx.DiGraph:
    """A sliding window closed into a circle: i attends to i-window..i+window modulo N.

    >>> sorted(ring(5).predecessors(0))
    [0, 1, 4]
    """
    i = _tokens(n)
    _check_window(window, n)
    columns = (i[:, None] + np.arange(-window, window + 1)) % n
    layout = rows_from_pairs(n, *(a.ravel() for a in np.broadcast_arrays(i[:, None], columns)))
    return graph_from_layout(layout, f"ring({n}, window={window})")


def star(n: int) -> nx.DiGraph:
    """Token 0 sees and is seen by every token; the others see only it and themselves.

    Radius 1, diameter 2.

    >>> sorted(star(4).predecessors(2))
    [0, 2]
    """
    i = _tokens(n)
    return _from_offsets(n, [0], _both_ways(i, np.zeros_like(i)), f"star({n})")


#: Every mask by the name that the command line gives it.
MASKS = {
    "complete": complete,
    "global": complete,
    "causal": causal,
    "local": local,
    "causal-local": causal_local,
    "prefix": prefix,
    "sinks": sinks,
    "dilated": dilated,
    "strided": strided,
    "block-sparse": block_sparse,
    "bigbird": bigbird,
    "ring": ring,
    "star": star,
}


def from_array(
    mask: ArrayLike | sparse.sparray | sparse.spmatrix,
    name: str = "graph",
    self_loops: bool = False,
) -> nx.DiGraph:
    """The mask of an array of 0 and 1, dense or scipy-sparse: where [i, j] is 1, i may attend to j.

    Rows are queries and columns keys, as in torch and in `numpy.tril`, which is the causal mask.
    With `self_loops` every token may attend to itself as well.

    >>> sorted(from_array(np.tril(np.ones((3, 3)))).edges) == sorted(causal(3).edges)
    True

    Raises ValueError when the array is not square, holds anything but 0 and 1 (weights, signs, NaN)
    or booleans, or lets a token attend to nothing.
    """
    from scipy import sparse

    check_switch("self_loops", self_loops)
    check_instance("the name of a mask", name, str, '"graph"')
    is_sparse = sparse.issparse(mask)
    matrix: Any = mask if is_sparse else np.asarray(mask)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"a mask is square, (N, N); got shape {tuple(matrix.shape)}; give one row and one "
            f"column per token"
        )
    values = matrix.data if is_sparse else matrix
    if values.dtype.kind not in "biuf" or not np.all(np.isfinite(values)):
        raise ValueError(
            "a mask holds 0 and 1, finite numbers or booleans; of one that is added to the scores "
            "give `array == 0`, and replace NaN by 0 (no edge) or 1 (edge)"
        )
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        raise ValueError(
            f"a mask holds 0 and 1, or booleans; got {wrong[0]:g}; if every entry but 0 is an edge "
            f"give `array != 0`"
        )
    coordinates = sparse.coo_array(matrix)
    edge = coordinates.data != 0
    queries, keys = coordinates.row[edge], coordinates.col[edge]
    return _graph_of(matrix.shape[0], queries, keys, name, self_loops)


def _graph_of(
    n: int, queries: np.ndarray, keys: np.ndarray, name: str, self_loops: bool
) -> nx.DiGraph:
    if self_loops:
        queries, keys = np.append(queries, np.arange(n)), np.append(keys, np.arange(n))
    return graph_from_layout(rows_from_pairs(n, queries, keys), name)


def from_file(path: str | Path, self_loops: bool = False) -> nx.DiGraph:
    """Read a mask: GraphML, GML, an edge list, or a mask array (.npy, .npz).

    An edge list has one edge "j i" a line (i attends to j), separated by blanks or a comma; text
    after "#" is left out. Arrays are read as `from_array` does; ``.npz`` is a scipy.sparse
    matrix or an archive of one array. Nodes of GraphML and GML become 0..N-1 in the order of
    their numbers where all are numbers, else in the order of the file; an undirected graph
    counts both ways. Files are read without pickle.

    Raises ValueError when the file is missing, unreadable or not a mask.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "chain.txt").write_text("0 0\\n0 1  # 1 attends to 0\\n1 2")
    ...     sorted(from_file(f"{folder}/chain.txt", self_loops=True).edges)
    [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    """
    check_switch("self_loops", self_loops)
    path = as_path(path)
    readers = {".graphml": _read_networkx, ".gml": _read_networkx}
    readers |= {".npy": _read_matrix, ".npz": _read_matrix}
    try:
        return readers.get(path.suffix.lower(), _read_edges)(path, self_loops)
    except FileNotFoundError:
        raise ValueError(f"no graph file at {path}; check the path given") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # the parsers behind this raise types of their own
        raise ValueError(
            f"{path}: not readable as a {path.suffix or 'text'} graph ({error}); known are "
            f".graphml, .gml, .npy, .npz and edge lists 'j i' as text"
        ) from None


def _read_networkx(path: Path, self_loops: bool) -> nx.DiGraph:
    graph = (nx.read_graphml if path.suffix.lower() == ".graphml" else _read_gml)(path)
    nodes = list(graph)
    if all(str(node).lstrip("+-").isdigit() for node in nodes):
        nodes.sort(key=int)
    index = {node: k for k, node in enumerate(nodes)}
    edges = nx.DiGraph(graph).edges() if not graph.is_directed() else graph.edges()
    pairs = np.array([(index[j], index[i]) for j, i in edges], np.int64).reshape(-1, 2)
    if not nodes:
        raise ValueError("the graph has no nodes; a mask needs at least one token")
    return _graph_of(len(nodes), pairs[:, 1], pairs[:, 0], path.stem, self_loops)


def _read_gml(path: Path) -> nx.Graph:
    return nx.read_gml(path, label="id")


def _read_matrix(path: Path, self_loops: bool) -> nx.DiGraph:
    if path.suffix.lower() == ".npy":
        return from_array(np.load(path, allow_pickle=False), path.stem, self_loops)
    with np.load(path, allow_pickle=False) as archive:
        if "format" not in archive:
            if len(archive.files) != 1:
                raise ValueError(f"expected one array, found {archive.files}")
            return from_array(archive[archive.files[0]], path.stem, self_loops)
    from scipy import sparse

    return from_array(sparse.load_npz(path), path.stem, self_loops)


def _read_edges(path: Path, self_loops: bool) -> nx.DiGraph:
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        has_two = len(words) >= 2 and words[0].isdecimal() and words[1].isdecimal()
        if not has_two or (len(words) > 3 and not words[2].startswith("{")):
            raise ValueError(
                f"line {number} is {line.strip()!r}; an edge list has two token numbers 'j i' a "
                f"line (i attends to j)"
            )
        pairs.append((int(words[0]), int(words[1])))
    if not pairs:
        raise ValueError("the edge list is empty; a mask needs at least one edge")
    edges = np.array(pairs, np.int64)
    n = int(edges.max()) + 1
    if n > 4 * len(edges) + 1:  # a stray large number must not cost gigabytes
        raise ValueError(
            f"the edge list names token {n - 1} but has only {len(edges)} edges, so some tokens "
            f"attend to nothing; number the tokens 0..N-1 and give each an edge"
        )
    return _graph_of(n, edges[:, 1], edges[:, 0], path.stem, self_loops)
