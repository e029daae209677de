import csv
import json
import os

import numpy as np
import pytest
import xarray as xr

import dynsim
from dynsim import Record, masks, norms, simulate, tokens, weights
from dynsim._files import written_whole
from dynsim.results.trajectory import Trajectory, load


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
