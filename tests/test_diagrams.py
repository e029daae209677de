"""Phase diagrams: what a panel shows, by the store's own arrays; theory; who agrees."""

import json

import numpy as np
import pytest

import dynsim
from dynsim.cli.main import main
from dynsim.sweeps import Specification, Store, results
from dynsim.sweeps.diagrams import diagrams, draw

pytest.importorskip("zarr")

GIVEN = {
    "mask": "local,causal-local",
    "window": "1,2,4",
    "beta": "0.1:1:lin3",
    "value": "orthogonal",
    "norm": "unit",
    "tokens": 8,
    "dim": 4,
    "samples": 2,
    "depth": 60,
    "seeds": 3,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with made up values: verdicts differ for beta = 0.1 and seed 2, one cell failed."""
    made = Store(tmp_path_factory.mktemp("sweep") / "store", Specification.of(GIVEN))
    sweep = made.specification
    for batch in sweep.batches:
        cells = []
        for c in sweep.cells(batch):
            odd = c["beta"] == 0.1 and c["seed"] == 2
            rate = c["window"] + c["beta"] + c["seed"]
            kept = {
                "end": np.full((len(dynsim.measures.DEFAULT), 2), rate),
                "verdict": "staying" if odd else "collapsing",
                "law": "exponential",
                "late_rate": np.nan if c["window"] == 4 and c["seed"] < 2 else rate,
                "late_rate_low": rate,
                "late_rate_high": rate,
                "limit_rank": [c["seed"], c["seed"] + 1],
            }
            bad = c["mask"] == "local" and c["window"] == 4 and c["beta"] == 1.0
            cells.append("broken" if bad else kept)
        made.write(batch, cells)
    return made.path


def test_a_panel_shows_medians_over_seeds_and_samples(store):
    data = results(store)
    found = diagrams(data, "window", "beta", "late_rate", panels="mask")
    assert [diagram.title for diagram in found] == ["mask = local", "mask = causal-local"]
    local, causal = found
    assert (local.x, local.y) == ([1, 2, 4], [0.1, 0.55, 1.0])
    np.testing.assert_allclose(causal.values[:, 0], [2.1, 2.55, 3.0])  # seed 1 is the median
    np.testing.assert_allclose(causal.values[:, 2], [6.1, 6.55, 7.0])  # of seed 2 alone
    assert np.isnan(local.values[2, 2])
    (ranks,) = diagrams(data, "beta", "window", "limit_rank", at={"mask": "local"})
    assert ranks.values.shape == (3, 3)
    assert ranks.values[0, 0] == 1.5  # of 0, 1, 1, 2, 2, 3
    (mu,) = diagrams(data, "mask", "window", "mu", at={"beta": "0.55"})
    np.testing.assert_allclose(mu.values, [[2.55, 2.55], [3.55, 3.55], [5.55, 5.55]])


def test_it_says_how_many_seeds_agree(store):
    (diagram,) = diagrams(results(store), "window", "beta", "verdict", at={"mask": "local"})
    assert diagram.values.tolist() == [["collapsing"] * 3] * 2 + [["collapsing"] * 2 + [""]]
    assert diagram.agree.tolist() == [[2, 2, 2], [3, 3, 3], [3, 3, 0]]
    assert diagram.agreement == "all 3 seeds have one verdict in 5 of 8 cells"
    figure = draw([diagram], "window", "beta", "verdict", "title")
    (dots,) = figure.axes[0].get_lines()
    assert sorted(dots.get_xdata()) == [0.5, 1.5, 2.5]
    assert set(dots.get_ydata()) == {0.5}


def test_theory_lies_above_late_rates_where_it_applies(store):
    data = results(store)
    local, _ = diagrams(data, "window", "beta", "late_rate", panels="mask")
    for k, window in enumerate((1, 2, 4)):
        allowed = np.abs(np.subtract.outer(np.arange(8), np.arange(8))) <= window
        moduli = np.sort(np.abs(np.linalg.eigvals(allowed / allowed.sum(1, keepdims=True))))
        assert local.theory[k].value == pytest.approx(moduli[-2], abs=1e-12)
    assert diagrams(data, "window", "beta", "mu", panels="mask")[0].theory is None
    at = {"mask": "local"}
    assert diagrams(data, "beta", "window", "late_rate", at=at)[0].theory is None


@pytest.mark.parametrize("mask", ["local", "causal-local"])
def test_late_rates_are_what_theory_says(tmp_path, mask):
    """Orthogonal values: the late rate is lambda_2 at any temperature. That of the causal window 1
    has one Jordan block of all tokens but the first: mu goes like t^6 / 2^t for 8 tokens, and falls
    by a factor (1 + 1 / t)^6 / 2 = .503 to .52 per layer in the second half of 400 layers."""
    given = GIVEN | {"mask": mask, "beta": "0,1", "seeds": 1, "depth": 400}
    data = dynsim.sweep(tmp_path / "store", given, workers=1)
    (diagram,) = diagrams(data, "window", "beta", "late_rate")
    theory = [second.value for second in diagram.theory]
    np.testing.assert_allclose(diagram.values, np.broadcast_to(theory, (2, 3)), rtol=1e-3)
    assert [second.power for second in diagram.theory] == [6 * (mask == "causal-local"), 0, 0]
    figure = draw([diagram], "window", "beta", "late_rate", "title")
    marks = [text.get_text() for text in figure.axes[0].child_axes[0].texts]
    assert marks == (["$t^{6}$"] if mask == "causal-local" else [])


def test_points_are_drawn_where_they_are(tmp_path):
    given = {**GIVEN, "mask": "causal", "window": None, "beta": "0.1:10:log", "skip": "0:1"}
    given.pop("window")
    sweep = Specification.of(given, "sobol", points=4)
    store = Store(tmp_path / "store", sweep)
    for batch in sweep.batches:
        store.write(batch, ["not computed"] * len(sweep.cells(batch)))
    (diagram,) = diagrams(results(store.path), "beta", "skip", "late_rate")
    assert diagram.is_scatter
    assert diagram.x == list(sweep.columns["beta"].values)
    assert np.isnan(diagram.values).all()
    assert len(draw([diagram], "beta", "skip", "late_rate", "title").axes) == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--x", "windw", "--y", "beta"], "unknown swept parameter 'windw'; did you mean 'window'"),
        (["--x", "window", "--y", "window"], "x, y and panels are three parameters"),
        (["--x", "window", "--y", "beta"], "mask has several values; choose one of local, causal"),
        (["--x", "window", "--y", "beta", "--at", "mask=ring"], "mask was not 'ring'; it was"),
        (["--x", "window", "--y", "beta", "--at", "mask"], "--at wants NAME=VALUE"),
        (["--x", "window", "--y", "beta", "--panels", "mask", "--color", "late"], "unknown colour"),
        (["--x", "window", "--y", "depth", "--panels", "mask"], "unknown swept parameter 'depth'"),
    ],
)
def test_bad_input_is_one_line(store, tmp_path, monkeypatch, capsys, words, error):
    monkeypatch.chdir(tmp_path)
    assert main(["plot", str(store), *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert error in err


@pytest.mark.parametrize("color", ["late_rate", "verdict", "limit_rank", "mu"])
def test_the_command_writes_numbers_and_figure(store, tmp_path, monkeypatch, capsys, color):
    monkeypatch.chdir(tmp_path)
    words = ["--x", "window", "--y", "beta", "--panels", "mask", "--color", color, "--name", "a"]
    assert main(["plot", str(store), *words]) == 0
    data = json.loads((tmp_path / "results" / "a.json").read_text())
    assert data["panels"][0]["values"][2][2] in (None, "")
    assert data["panels"][0]["seeds"] == 3
    assert (tmp_path / "results" / "a.png").stat().st_size > 5000
    assert "all 3 seeds have one verdict in 5 of 8 cells" in capsys.readouterr().out
