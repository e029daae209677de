"""The commands about equilibria, basins and exponents as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest

from dynsim import __main__ as entry


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words, capsys):
    status = entry.main([str(w) for w in words])
    return status, *capsys.readouterr()


def run_json(*words, capsys):
    status, out, err = run(*words, "--json", capsys=capsys)
    assert (status, err) == (0, "")
    return json.loads(out, parse_constant=pytest.fail)


JORDAN = ("--mask", "causal", "--value", "jordan:4", "--tokens", 3)


def test_the_table_of_the_jordan_family(capsys):
    status, out, err = run("equilibria", *JORDAN, "--starts", 8, capsys=capsys)
    assert (status, err) == (0, "")
    words = [line.split() for line in out.splitlines()]
    assert ["rank", "found", "stable", "marginal", "saddle", "unstable"] in words
    assert ["1", "2", "0", "2", "0", "0"] in words
    assert ["3", "8", "0", "2", "6", "0"] in words
    assert "verdict   20 found, none stable" in out
    assert {p.suffix for p in Path("results").iterdir()} == {".json", ".npz", ".png"}


def test_equilibria_as_json(capsys):
    found = run_json(
        "equilibria", *JORDAN, "--starts", 8, "--no-flips", "--ranks", "3", "--all", "--no-figure",
        capsys=capsys,
    )  # fmt: skip
    assert {"mask", "dynamics", "equilibria", "table", "search", "files"} <= set(found)
    assert [row["rank"] for row in found["table"]] == [3]
    assert len(found["equilibria"]) == 8
    for entry_ in found["equilibria"]:
        assert {"rank", "residual", "stability", "spectral_radius"} <= set(entry_)
        assert entry_["residual"] < 1e-13
    (path,) = [p for p in found["files"] if p.endswith(".npz")]
    assert np.load(path)["tokens"].shape == (8, 3, 3)


def test_certificates_are_written_and_verified(capsys):
    words = ("--tokens", 2, "--mask", "complete", "--value", "diagonal:2,1", "--starts", 8)
    found = run_json("equilibria", *words, "--certify", "--no-figure", capsys=capsys)
    files = [p for p in found["files"] if "certificate" in p]
    assert files
    status, out, err = run("verify", *files, capsys=capsys)
    assert (status, err) == (0, "")
    assert out.count("  proved:") == 3 * len(files)


def test_basins(capsys):
    found = run_json(
        "basins", "--mask", "causal", "--value", "jordan:2", "--tokens", 2, "--starts", 500,
        capsys=capsys,
    )  # fmt: skip
    assert np.isclose(sum(row["share"] for row in found["basins"]), 1)
    assert {row["rank"] for row in found["basins"]} == {1, 2}
    assert all(Path(p).stat().st_size > 100 for p in found["files"])


def test_lyapunov(capsys):
    words = ("--tokens", 1, "--value", "diagonal:1,0.5,0.25", "--layers", 200)
    found = run_json("lyapunov", *words, capsys=capsys)
    assert np.allclose(found["exponents"], np.log([0.5, 0.25]), atol=1e-9)
    status, out, _ = run("lyapunov", *words, "--count", 1, "--no-figure", capsys=capsys)
    assert status == 0
    assert "-0.693147" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["equilibria", "--ranks", "9"], "ranks lie in 1..3"),
        (["equilibria", "--ranks", "x"], "whole numbers"),
        (["equilibria", "--fresh", "--value", "gaussian"], "the same weights"),
        (["equilibria", "--ln", "off"], "end in a norm"),
        (["equilibria", "--tokens", "0"], "--tokens is at least 1"),
        (["equilibria", "--starts", "1"], "number of starts"),
        (["basins", "--starts", "0"], "at least 1"),
        (["basins", "--depth", "3"], "at least 64"),
        (["lyapunov", "--count", "99"], "there are 6 exponents"),
        (["lyapunov", "--seed", "-1"], "--seed is at least 0"),
        (["verify", "nothing.json"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys):
    status, out, err = run(*words, capsys=capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"dynsim {words[0]}: error:")
    assert message in err
