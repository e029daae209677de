"""A saved run goes on from its file alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from dynsim.cli.run import main
from dynsim.results.trajectory import load

FILES = [
    *("--graph", "mask.npy", "--x0", "x0.npy", "--value", "WV.npy", "--scores", "M.npy"),
    *("--ln", "on", "--no-figure"),
]


@pytest.fixture
def files(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    given = {"WV": rng.standard_normal((4, 4)), "M": rng.standard_normal((4, 4))}
    given |= {"mask": np.tri(6), "x0": rng.standard_normal((2, 6, 4))}
    for name, array in given.items():
        np.save(f"{name}.npy", array)
    return [tmp_path / f"{name}.npy" for name in given]


def run_json(*words, capsys):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("engine", ["numba", "logscale", "reference"])
def test_files_that_have_moved_are_not_missed(files, engine):
    words = [*FILES, "--engine", engine]
    assert main([*words, "--depth", "12", "--name", "whole"]) == 0
    assert main([*words, "--depth", "5", "--name", "part"]) == 0
    for file in files:
        file.unlink()
    assert main(["--resume", "results/part.nc", "--depth", "12", "--name", "rest"]) == 0
    assert load("results/rest.nc") == load("results/whole.nc")


def test_a_run_in_parts_has_the_name_of_the_whole(files):
    """A name tells runs apart that compute different things, and these compute the same."""
    assert main([*FILES, "--depth", "12", "--out", "whole"]) == 0
    (whole,) = Path("whole").glob("*.nc")
    assert main([*FILES, "--depth", "5", "--name", "part"]) == 0
    resume = ["--resume", "results/part.nc", "--depth", "12", "--no-figure"]
    assert main([*resume, "--out", "parts"]) == 0
    assert main([*resume, "--out", "parts", "--theory"]) == 0
    assert [path.name for path in Path("parts").glob("*.nc")] == [whole.name]


def test_theory_of_a_run_in_parts_is_that_of_the_whole(files, capsys):
    whole = run_json(*FILES, "--depth", "12", "--theory", capsys=capsys)
    assert main([*FILES, "--depth", "5", "--name", "part"]) == 0
    capsys.readouterr()
    resume = ["--resume", "results/part.nc", "--depth", "12", "--theory", "--no-figure"]
    assert run_json(*resume, capsys=capsys)["theory"] == whole["theory"]


def test_theory_needs_the_input_again(files, capsys):
    words = ["--x0", "x0.npy", "--no-figure", "--depth", "3", "--name", "part"]
    assert main(words) == 0
    x0 = np.load("x0.npy")
    files[-1].unlink()
    on = ["--resume", "results/part.nc", "--depth", "6", "--theory", "--no-figure"]
    assert main(on) == 2
    assert "no file at x0.npy" in capsys.readouterr().err
    np.save("x0.npy", x0[:, ::-1])  # of the same mu, so that the measures do not tell
    assert main(on) == 2
    out, err = capsys.readouterr()
    assert "x0.npy now gives another; restore it" in err
    assert (out, err.count("\n")) == ("", 1)  # refused before any work
    assert sorted(path.name for path in Path("results").iterdir()) == ["part.json", "part.nc"]


def test_a_trajectory_of_python_says_how_to_go_on(files, capsys):
    import dynsim

    dynamics = dynsim.AttentionDynamics(dynsim.masks.causal(3), dynsim.weights.Identity())
    dynsim.simulate(dynamics, dynsim.tokens.gaussian(1, 3, 2), 2).save("mine.nc")
    assert main(["--resume", "mine.nc", "--depth", "4"]) == 2
    assert "t.rebuild_dynamics()" in capsys.readouterr().err
