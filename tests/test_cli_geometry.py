"""``dynsim geometry`` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest

from dynsim import minilm
from dynsim.cli import main as entry


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("g.npy", [1.0, 2.0, 0.5])
    np.save("b.npy", [0.1, -1.0, 0.0])
    np.save("short.npy", [1.0, 2.0])


def run(*words, capsys):
    status = entry.main(["geometry", *map(str, words)])
    return status, *capsys.readouterr()


def run_json(*words, capsys):
    status, out, err = run(*words, "--json", capsys=capsys)
    assert (status, err) == (0, "")
    return json.loads(out, parse_constant=pytest.fail)


def test_one_layernorm_from_files(capsys):
    found = run_json("--gain", "g.npy", "--bias", "b.npy", capsys=capsys)
    (row,) = found["layer_norms"]
    squared = [row["longest_semi_axis"] ** 2, row["shortest_semi_axis"] ** 2]
    # theory, principal_axes: t^2 - 2 |g|^2 t + 3 sum_{i<j} g_i^2 g_j^2 = 0
    assert np.isclose(sum(squared), 2 * 5.25)
    assert np.isclose(np.prod(squared), 3 * (4 + 0.25 + 1))
    assert row["tokens"] == 64 * 8
    assert {Path(p).suffix for p in found["files"]} == {".json", ".png"}
    assert all(Path(p).stat().st_size > 300 for p in found["files"])
    assert run_json("--gain", "g.npy", "--bias", "b.npy", capsys=capsys) == found


def test_tokens_of_a_file(capsys):
    np.save("x.npy", [[1.0, -1.0, 0.0], [2.0, 0.0, -2.0]])
    words = ("--gain", "g.npy", "--x0", "x.npy", "--eps", 0, "--no-figure")
    (row,) = run_json(*words, capsys=capsys)["layer_norms"]
    assert row["redundancy"] == pytest.approx(1)
    assert row["switch"] == pytest.approx(0, abs=1e-12)
    assert row["largest_distance_to_surface"] < 1e-14


def test_all_layernorms_of_minilm(capsys):
    words = ("--model", "minilm", "--tokens", 6, "--samples", 2)
    status, out, err = run(*words, capsys=capsys)
    assert (status, err) == (0, "")
    for name in minilm.layer_norms():
        assert f"{name} " in out
    assert {p.suffix for p in Path("results").iterdir()} == {".json", ".png"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--gain FILE or --model"),
        (["--gain", "nothing.npy"], "no file at"),
        (["--gain", "g.npy", "--bias", "short.npy"], "one entry per dimension"),
        (["--gain", "g.npy", "--eps", "-1"], "eps"),
        (["--gain", "g.npy", "--tokens", "0"], "--tokens is at least 1"),
        (["--gain", "g.npy", "--x0", "short.npy"], "tokens are"),
        (["--gain", "g.npy", "--text", "text.txt"], "--text is for --model"),
        (["--model", "minilm", "--text", "nothing.txt"], "cannot read the text"),
        (["--model", "minilm", "--gain", "g.npy"], "leave --gain"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys):
    status, out, err = run(*words, capsys=capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("dynsim geometry: error:")
    assert message in err
