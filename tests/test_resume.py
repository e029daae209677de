"""A saved run goes on from its file alone."""

import numpy as np
import pytest

from dynsim.cli.run import main
from dynsim.results.trajectory import load


@pytest.fixture
def files(tmp_path, monkeypatch, rng):
    monkeypatch.chdir(tmp_path)
    given = {"WV": rng.standard_normal((4, 4)), "M": rng.standard_normal((4, 4))}
    given |= {"mask": np.tri(6), "x0": rng.standard_normal((2, 6, 4))}
    for name, array in given.items():
        np.save(f"{name}.npy", array)
    return [tmp_path / f"{name}.npy" for name in given]


def test_files_that_have_moved_are_not_missed(files):
    words = [
        "--graph",
        "mask.npy",
        "--x0",
        "x0.npy",
        "--value",
        "WV.npy",
        "--scores",
        "M.npy",
        "--ln",
        "on",
        "--no-figure",
    ]
    assert main([*words, "--depth", "12", "--name", "whole"]) == 0
    assert main([*words, "--depth", "5", "--name", "part"]) == 0
    for file in files:
        file.unlink()
    assert main(["--resume", "results/part.nc", "--depth", "12", "--name", "rest"]) == 0
    assert load("results/rest.nc") == load("results/whole.nc")


def test_theory_needs_the_input_again(files, capsys):
    words = ["--x0", "x0.npy", "--no-figure", "--depth", "3", "--name", "part"]
    assert main(words) == 0
    files[-1].unlink()
    on = ["--resume", "results/part.nc", "--depth", "6", "--theory", "--no-figure"]
    assert main(on) == 2
    assert "no file at x0.npy" in capsys.readouterr().err
