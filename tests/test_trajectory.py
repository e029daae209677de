import csv
import json
import os
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import xarray as xr

import dynsim
from dynsim import Record, masks, mlp, norms, simulate, tokens, weights
from dynsim._files import written_whole
from dynsim.masks.layout import CSR, Ranges
from dynsim.masks.networkx_view import graph_from_layout
from dynsim.results.definition import Definition
from dynsim.results.trajectory import Trajectory, joined, load


@pytest.fixture
def run():
    dynamics = dynsim.AttentionDynamics(masks.causal(5), weights.Weights(), norms.Unit())
    record = Record(stride=3, states=4)
    return simulate(dynamics, tokens.gaussian(3, 5, 4), 8, record=record)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_what_is_saved_is_loaded_equal(run, tmp_path, suffix):
    path = run.save(tmp_path / f"run{suffix}")
    again = load(path)
    assert again == run
    assert again.provenance == run.provenance
    run.save(path)  # over itself
    assert load(path) == run
    assert [p.name for p in tmp_path.iterdir()] == [f"run{suffix}"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("states", [0, 2])
def test_netcdf_files_are_those_of_xarray(dtype, states, tmp_path):
    dynamics = dynsim.AttentionDynamics(masks.causal(5), weights.Weights(), norms.Unit())
    x0 = tokens.gaussian(3, 5, 4).astype(dtype)
    run = simulate(dynamics, x0, 6, record=Record(stride=4, states=states))
    with xr.open_dataset(run.save(tmp_path / "ours.nc"), engine="h5netcdf") as ours:
        assert ours.load().identical(run.to_xarray())
        assert list(ours.variables) == list(run.to_xarray().variables)
    run.to_xarray().to_netcdf(tmp_path / "theirs.nc", engine="h5netcdf")
    assert load(tmp_path / "theirs.nc") == run
    assert load(tmp_path / "theirs.nc").final.dtype == dtype


def test_without_tokens_the_measures_stay(run):
    bare = run.without_tokens()
    assert (bare.final.size, bare.states.size) == (0, 0)
    assert (bare.depth, bare.n_samples) == (run.depth, run.n_samples)
    assert np.array_equal(bare.floor, run.floor)


def test_equality_looks_at_values_dynamics_and_names(run):
    other = dict(run.measures)
    other["mu"] = other["mu"].copy()
    other["mu"][0, 3] += 1e-16
    parts = {"final": run.final, "states": run.states, "state_depths": run.state_depths}
    same = Trajectory(dict(run.measures), **parts, dynamics=run.dynamics)
    assert same == run
    assert Trajectory(other, **parts, dynamics=run.dynamics) != run
    assert Trajectory(dict(run.measures), **parts, dynamics={}) != run
    assert run != "run"


def test_xarray_has_named_dimensions_and_provenance(run):
    data = run.to_xarray()
    assert dict(data.sizes) == {
        "sample": 3, "depth": 9, "state_depth": 3, "token": 5, "dim": 4,
    }  # fmt: skip
    assert list(data.depth.values) == list(range(9))
    assert data["mu"].attrs["long_name"] == "distance to consensus"
    assert json.loads(data.attrs["dynamics"])["norm"]["type"] == "Unit"
    assert "numpy" in json.loads(data.attrs["provenance"])["versions"]
    assert Trajectory.from_xarray(data) == run


def test_csv_and_json_hold_the_measures(run, tmp_path):
    with open(run.to_csv(tmp_path / "run.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 9
    assert float(rows[9 + 4]["mu"]) == run["mu"][1, 4]
    assert rows[1]["rank"] == ""  # not recorded there
    data = json.loads(run.to_json(tmp_path / "run.json").read_text())
    assert data["measures"]["mu"][2][8] == run["mu"][2, 8]
    assert data["measures"]["rank"][0][1] is None


def test_a_failed_write_leaves_what_was_there(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("before")

    def half():
        with written_whole(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        half()
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("name", ["x.nc", "x.zarr"])
def test_what_is_not_a_trajectory_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="no trajectory"):
        load(tmp_path / name)
    (tmp_path / name).write_text("not that")
    with pytest.raises(ValueError, match="not a dynsim trajectory"):
        load(tmp_path / name)


def test_other_suffixes_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"\.nc or \.zarr"):
        run.save(tmp_path / "run.pkl")


def test_repr_is_short(run):
    assert repr(run).startswith("Trajectory(depth=8, samples=3, tokens=5, dim=4")


# --- going on from a file -------------------------------------------------------------------------


def varied(rng, n=5, d=4):
    """Dynamics of every part that there is."""
    matrix, edges = rng.standard_normal((d, d)), np.tril(rng.random((n, n))) + np.eye(n) > 0.5
    layer = weights.LayerWeights.from_matrices(matrix[None], matrix[None] / 2)
    per_layer = rng.standard_normal((9, 2, d, d)) / d
    perceptron = mlp.FixedMLP(
        mlp.MLPWeights(matrix, np.ones(d), matrix / 9, np.zeros(d, np.float32)), "relu"
    )
    two = {"n_heads": 2, "mix": (0.25, np.float32(0.5))}
    ours = nx.DiGraph([(i, i) for i in range(n)] + [(0, i) for i in range(n)], name="ours")
    make = dynsim.AttentionDynamics
    return {
        "random": make(masks.causal(n), weights.Weights(seed=2**70), norms.Unit(), "pre", 1),
        "shared": make(masks.complete(n), weights.Weights(shared=True, d_qk=3, **two)),
        "orthogonal": make(masks.local(n, 2), weights.Orthogonal(), mlp=mlp.GaussianMLP(seed=3)),
        "families": make(
            masks.ring(n), weights.Weights(weights.Jordan(0.1), weights.Diagonal(np.ones(d)))
        ),
        "matrix": make(masks.star(n), weights.FromArray(matrix / d)),
        "matrices of layers": make(masks.from_array(edges), weights.Weights(
            weights.FromArray(per_layer), weights.FromArray(per_layer[0]), n_heads=2)),
        "layers": make(masks.causal(n), weights.Layers((layer,) * 9)),
        "norms": make(ours, weights.Fixed(matrix, matrix), norms.LayerNorm(np.arange(1.0, d + 1)),
                      "peri", 0.5, perceptron, norms.RMSNorm(0.5, 1e-3)),
        "dropout": make(masks.prefix(n), weights.Weights(), norms.Unit(), skip=1.0,
                        dropout=dynsim.Dropout(hidden=0.2, seed=5)),
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("name", varied(np.random.default_rng(0)))
def test_a_file_holds_all_that_is_needed_to_go_on(name, suffix, rng, tmp_path):
    dynamics = varied(rng)[name]
    x0 = tokens.gaussian(3, 5, 4)
    whole = simulate(dynamics, x0, 8, record=Record(stride=4))
    path = simulate(dynamics, x0, 4, record=Record(stride=4)).save(tmp_path / f"half{suffix}")
    kept = load(path)
    again = kept.rebuild_dynamics()
    assert again == dynamics
    assert sorted(again.mask.edges) == sorted(dynamics.mask.edges)
    rest = simulate(again, kept.state, 4, start=4, record=Record(stride=4))
    assert joined(kept, rest) == whole


def test_what_does_not_go_on_is_not_joined(run):
    dynamics = run.rebuild_dynamics()
    after = simulate(dynamics, run.state, 3, start=8)
    both = joined(run, after)
    last = simulate(dynamics, after.state, 2, start=11)
    assert joined(both, last).depth == 13
    assert joined(both, last) == joined(run, joined(after, last))
    assert joined(both, last).provenance["start"] == 0
    with pytest.raises(ValueError, match="begins at layer 8 and the first ends at layer 11"):
        joined(both, after)
    for elsewhere in (run.state[::-1], run.state[:2], run.state * (1 + 1e-6)):
        with pytest.raises(ValueError, match="does not begin with the tokens"):
            joined(run, simulate(dynamics, elsewhere, 3, start=8))
    joined(run, simulate(dynamics, run.state, 3, start=8, engine="reference"))


def test_equal_arrays_are_kept_once_and_random_ones_not_at_all(rng):
    dynamics = varied(rng)
    assert Definition.of(dynamics["random"]).arrays == ()
    assert Definition.of(dynamics["shared"]).arrays == ()
    kept = Definition.of(dynamics["layers"]).arrays
    assert sum(array.size == 16 for array in kept) == 2  # M and W_V of nine layers


def test_what_a_file_cannot_hold_is_said(monkeypatch, rng, tmp_path):
    class Own(weights.Layers):
        pass

    layer = weights.LayerWeights.from_matrices(np.eye(4)[None], np.eye(4)[None])
    own = dynsim.AttentionDynamics(masks.causal(5), Own((layer,)))
    large = varied(rng)["matrix"]
    monkeypatch.setattr("dynsim.results.definition.MOST_BYTES", 100)
    for dynamics in (own, large):
        path = simulate(dynamics, tokens.gaussian(1, 5, 4), 2).save(tmp_path / "run.nc")
        with pytest.raises(ValueError, match="does not hold its dynamics"):
            load(path).rebuild_dynamics()


def test_a_file_whose_arrays_were_changed_is_refused(rng, tmp_path):
    run = simulate(varied(rng)["matrix"], tokens.gaussian(1, 5, 4), 2)
    data = run.to_xarray()
    (name,) = [name for name in data if data[name].size == 16 and name.startswith("definition")]
    data[name] = data[name] + 1e-9
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="is not the one that was run"):
        load(tmp_path / "run.nc").rebuild_dynamics()


EDGES = {
    "before the first token": Ranges([0, -1, 0], [1, 2, 3]),
    "behind the last token": Ranges([0, 0, 0], [1, 4, 3]),
    "ends of one token only": Ranges([0, 0, 0], [2]),
    "a negative token": CSR([0, 1, 3], [0, -1, 1]),
    "a token too many": CSR([0, 1, 3], [0, 0, 2]),
    "the same token twice": CSR([0, 1, 3], [0, 1, 1]),
    "descending": CSR([0, 2, 3], [1, 0, 1]),
    "an empty row": CSR([0, 0, 2], [0, 1]),
    "rows longer than all edges": CSR([0, 1, 9], [0, 0, 1]),
    "rows shorter than all edges": CSR([0, 1, 2], [0, 0, 1]),
    "rows that begin late": CSR([1, 2, 3], [0, 1, 0]),
}


@pytest.mark.parametrize("layout", EDGES.values(), ids=EDGES)
def test_damaged_edges_of_a_file_reach_no_kernel(layout):
    """A kernel reads where the edges say, beyond its arrays if nothing checks them."""
    forged = dynsim.AttentionDynamics(graph_from_layout(layout, "forged"), weights.Weights())
    with pytest.raises(ValueError, match="edges of the mask are damaged"):
        Definition.of(forged).dynamics()


@pytest.mark.parametrize("recipe", [{}, [1], 3, {"type": "Unit"}, {"type": ["Unit"]}])
def test_a_recipe_of_something_else_is_refused(recipe):
    with pytest.raises(ValueError, match="cannot be made again"):
        Definition(recipe, ()).dynamics()


def test_the_automatic_stride_does_not_spoil_equality(monkeypatch):
    """It depends on the depth, so a run in two parts records at other depths."""
    monkeypatch.setattr("dynsim.simulation._SMALL_COST", 4e6)
    dynamics = dynsim.AttentionDynamics(masks.causal(5), weights.Weights(), norms.Unit())
    x0 = tokens.gaussian(3, 5, 4)
    whole = simulate(dynamics, x0, 96)
    first = simulate(dynamics, x0, 32)
    parts = joined(first, simulate(dynamics, first.state, 64, start=32))
    assert not np.array_equal(whole.recorded("rank")[0], parts.recorded("rank")[0])
    assert whole == parts
    changed = {**parts.measures, "rank": parts["rank"].copy()}
    changed["rank"][0, 0] += 1
    assert whole != replace(parts, measures=changed)
    changed = {**parts.measures, "mu": parts["mu"].copy()}
    changed["mu"][:, 5] = np.nan  # recorded at every layer
    assert whole != replace(parts, measures=changed)
    assert whole != simulate(dynamics, x0, 95)
