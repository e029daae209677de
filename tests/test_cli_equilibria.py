"""The commands about equilibria, basins and exponents as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest

from dynsim import AttentionDynamics, masks, norms
from dynsim.cli import main as entry
from dynsim.network.weights import Fixed


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
    assert ["rank", "found", "stable", "marginal", "saddle", "unstable", "of", "WU"] in words
    assert ["1", "2", "0", "2", "0", "0", "2"] in words
    assert ["2", "10", "0", "4", "6", "0", "4"] in words
    assert ["3", "8", "0", "2", "6", "0", "8"] in words
    assert "verdict   20 found, none stable" in out
    assert "growth" in out
    assert {p.suffix for p in Path("results").iterdir()} == {".json", ".npz", ".png"}


def test_marginal_ones_that_attract_are_said_to(capsys):
    """`basins` finds 7.4% of random starts at rank 2, where no equilibrium is stable."""
    words = ("equilibria", "--mask", "causal", "--value", "jordan:2", "--tokens", 2, "--no-figure")
    status, out, err = run(*words, capsys=capsys)
    assert (status, err) == (0, "")
    assert (
        "verdict   6 found, none stable; marginal ones of rank 1, 2 attract from a part of their "
        "surroundings" in out
    )
    found = run_json(*words, capsys=capsys)["equilibria"]
    for entry_ in found:
        half = entry_["stability"] == "marginal"
        assert 0.3 < entry_["returning"] < 0.7 if half else entry_["returning"] is None
        assert entry_["wu_family"] is True
    quick = run_json(*words, "--basin-samples", 0, capsys=capsys)["equilibria"]
    assert all(entry_["returning"] is None for entry_ in quick)
    repelling = ("--value", "jordan:4", "--tokens", 3, "--ranks", "3")
    out = run("equilibria", "--mask", "causal", *repelling, "--starts", 8, capsys=capsys)[1]
    assert "attract" in out or "0% of states 0.01 away return" in out


def test_certificates_of_wus_family_are_written(capsys):
    words = ("equilibria", *JORDAN, "--starts", 8, "--no-flips", "--certify", "--no-figure")
    status, out, err = run(*words, capsys=capsys)
    assert status == 0
    assert "not certified" in err
    files = sorted(Path("results").glob("*.certificate-*.json"))
    assert len(files) == (2 + 4 + 8) / 2
    status, out, err = run("verify", *files, capsys=capsys)
    assert (status, err) == (0, "")
    assert out.count("  proved: the tokens are exactly an equilibrium") == len(files)


def test_what_rounding_decides_is_said_of_equilibria(capsys):
    """WU's Jordan family has multipliers 1 exactly, which no rounded number is told from."""
    status, out, err = run("equilibria", *JORDAN, "--starts", 8, "--no-figure", capsys=capsys)
    assert (status, err) == (0, "")
    assert "marginal  rounding does not tell a multiplier from modulus 1: stable or not" in out
    assert "rank ?" not in out
    (row,) = (line.split() for line in out.splitlines() if line.startswith("fixed         1"))
    assert row[4:6] == ["marginal", "1"]
    assert 0 < float(row[6]) < 1e-6
    assert row[7] == "0-2"
    found = run_json("equilibria", *JORDAN, "--starts", 8, "--no-figure", capsys=capsys)
    for entry_ in found["equilibria"]:
        assert entry_["rank_is_sure"] is True
        assert entry_["stability_is_sure"] is (entry_["marginal_dimension"] == 0)
        assert entry_["spectral_radius_error"] >= 0


def test_equilibria_as_json(capsys):
    found = run_json(
        "equilibria", *JORDAN, "--starts", 8, "--no-flips", "--ranks", "3", "--all", "--no-figure",
        capsys=capsys,
    )  # fmt: skip
    assert {"mask", "dynamics", "equilibria", "table", "search", "files"} <= set(found)
    assert [row["rank"] for row in found["table"]] == [3]
    assert len(found["equilibria"]) == 8
    for entry_ in found["equilibria"]:
        assert {"rank", "residual", "stability", "spectral_radius", "growth"} <= set(entry_)
        assert entry_["basin_radius"] == {"marginal": None, "saddle": 0.0}[entry_["stability"]]
        assert entry_["residual"] < 1e-13
    (path,) = (p for p in found["files"] if p.endswith(".npz"))
    assert np.load(path)["tokens"].shape == (8, 3, 3)


def test_rotating_equilibria_are_listed(capsys):
    np.save("turn.npy", [[0.6, 0.8], [-0.8, 0.6]])
    found = run_json(
        "equilibria", "--value", "turn.npy", "--tokens", 2, "--starts", 8, capsys=capsys
    )
    (consensus,) = [e for e in found["equilibria"] if e["stability"] == "stable"]
    assert consensus["type"] == "rotating"
    assert np.allclose(consensus["angles"], np.arctan2(0.8, 0.6))
    assert consensus["basin_radius"] > 0.1


def test_a_search_goes_on_after_ctrl_c(capsys, monkeypatch):
    from dynsim.equilibria import rounds

    words = ("equilibria", *JORDAN, "--starts", 80, "--no-figure")
    put = rounds.Memory.put

    def interrupted(memory, name, found):
        put(memory, name, found)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rounds.Memory, "put", interrupted)
        status, out, err = run(*words, capsys=capsys)
    assert (status, out) == (130, "")
    assert err.count("\n") == 1
    assert "the same command goes on from there" in err
    kept = sorted(p.name for p in Path("results").iterdir())
    assert [name.partition("_")[0] for name in kept] == ["search"]
    again = run_json(*words, capsys=capsys)
    whole = run_json(*words, "--out", "other", capsys=capsys)
    assert {**again, "files": 0} == {**whole, "files": 0}


def test_design_and_continuation(capsys):
    found = run_json("design", "--tokens", 2, "--tries", 4, "--name", "two", capsys=capsys)
    assert (found["rank"], found["stability"]) == (2, "stable")
    assert found["basin_radius"] > 0
    layer = ("--value", "results/two.npz", "--scores", "results/two.npz")
    words = ("continuation", *layer, "--x0", "results/two.npz", "--vary", "beta=1:1.05")
    followed = run_json(*words, "--points", 30, capsys=capsys)
    (branch,) = followed["branches"]
    assert branch["parameter"][0] == 1.0
    assert np.isclose(branch["spectral_radius"][0], found["spectral_radius"], rtol=1e-6)
    assert {Path(p).suffix for p in followed["files"]} == {".npz", ".json", ".png"}


def test_design_for_given_tokens(capsys):
    x = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    np.save("x.npy", x)
    words = ("design", "--mask", "causal", "--x0", "x.npy", "--scores", "gaussian", "--name", "d")
    status, out, err = run(*words, capsys=capsys)
    assert (status, err) == (0, "")
    assert "residual" in out
    made = np.load("results/d.npz")
    dynamics = AttentionDynamics(masks.causal(2), Fixed(made["M"], made["W_V"]), norms.Unit())
    assert np.abs(dynamics.step(x) - x).max() < 1e-13


def test_every_branch_of_a_search_is_followed(capsys):
    """One token, W_V = diag(2, 1) + s: (1, 0) and (0, 1) stay, multipliers 1 + s over 2 + s."""
    words = ("--tokens", 1, "--value", "diagonal:2,1", "--vary", "skip=0:1", "--starts", 8)
    found = run_json("continuation", *words, capsys=capsys)
    ends = sorted(branch["spectral_radius"][-1] for branch in found["branches"])
    assert np.allclose(ends, [2 / 3, 3 / 2], atol=1e-3)
    assert [branch["bifurcations"] for branch in found["branches"]] == [[], []]


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


def test_basins_stopped_by_ctrl_c_count_the_starts_that_are_done(capsys, monkeypatch):
    from dynsim.equilibria import basins

    followed, blocks = basins._followed, []

    def stop_in_the_third_block(*options):
        blocks.append(options)
        if len(blocks) == 3:
            raise KeyboardInterrupt
        return followed(*options)

    monkeypatch.setattr(basins, "_BLOCK", 100)
    monkeypatch.setattr(basins, "_followed", stop_in_the_third_block)
    words = ["basins", "--mask", "causal", "--value", "jordan:2", "--tokens", 2, "--starts", 500]
    status, out, err = run(*words, "--json", capsys=capsys)
    assert status == 130
    assert "stopped after 200 of 500 starts; these are counted" in err
    found = json.loads(out)
    assert (found["starts"], found["starts_asked"]) == (200, 500)
    assert sum(row["count"] for row in found["basins"]) == 200
    assert json.loads(Path(found["files"][0]).read_text())["basins"] == found["basins"]


def test_basins_of_too_many_starts_are_refused_before_any_work(capsys):
    words = ["basins", "--mask", "causal", "--value", "jordan:2", "--tokens", 2]
    status, out, err = run(*words, "--starts", 10**12, capsys=capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "use fewer --starts" in err


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
        (["equilibria", "--basin-samples", "-1"], "at least 0"),
        (["design", "--x0", "nothing.npy"], "no file"),
        (["design", "--tokens", "0"], "--tokens is at least 1"),
        (["design", "--rank", "9"], "at most min"),
        (["design", "--scores", "zero"], "go with given tokens"),
        (["continuation", "--vary", "b=1:2"], "known are beta, skip, gain, w"),
        (["continuation", "--vary", "beta=1"], "two numbers"),
        (["continuation", "--vary", "beta=1:1"], "from one finite number to another"),
        (["continuation", "--vary", "w=1:2"], "--value jordan:W"),
        (["continuation", "--vary", "gain=1:2"], "has no gain"),
        (["continuation", "--vary", "skip=0:1", "--points", "1"], "at least 2"),
        (["basins", "--starts", "0"], "at least 1"),
        (["basins", "--depth", "3"], "at least 64"),
        (["lyapunov", "--count", "99"], "there are 9 exponents at most"),
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
