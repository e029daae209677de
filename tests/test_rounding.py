"""What rounding may do to a measure, and that a value within it is marked wherever it is shown."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from dynsim import AttentionDynamics, load, masks, norms, simulate, tokens, weights
from dynsim.cli import report
from dynsim.collapse.verdicts import verdict
from dynsim.masks.connectivity import facts
from dynsim.measures import MEASURES
from dynsim.measures.rounding import ROUNDING, SHARE, Sizes
from dynsim.simulation import Record


def judged(x):
    """By measure: value, bound, whether it lies within rounding."""
    sizes, found = Sizes.of_tokens(x), {}
    for name, rounding in ROUNDING.items():
        value = MEASURES[name].function(x)
        bound = rounding.bound(value, sizes)
        found[name] = value, bound, rounding.within(value, bound)
    return found


def halving(engine="numba", dtype=np.float64, depth=90):
    """A causal run whose mu halves in each layer."""
    shared = weights.Weights(weights.Zero(), weights.Identity(), shared=True)
    x0 = tokens.gaussian(3, 6, 4).astype(dtype)
    record = Record(measures=tuple(MEASURES), stride=1)
    return simulate(
        AttentionDynamics(masks.causal(6), shared), x0, depth, engine=engine, record=record
    )


def test_every_measure_has_a_bound_or_none_can_be_had():
    assert set(MEASURES) - set(ROUNDING) == {
        "rank", "clusters", "attention_entropy", "log10_mu_error", "stable_rank_without_first",
    }  # fmt: skip
    assert set(ROUNDING) <= set(MEASURES)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d"), [(5, 3), (3, 5), (200, 30)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_bounds_of_ordinary_tokens_are_small_and_nothing_is_marked(dtype, n, d, scale, rng):
    x = (scale * rng.standard_normal((n, d))).astype(dtype)
    for name, (value, bound, within) in judged(x).items():
        size = 1.0 if name == "log10_mu" else abs(value - ROUNDING[name].collapsed)
        assert 0 < bound < 1e5 * np.finfo(dtype).eps * size, name
        assert not within, name


@pytest.mark.parametrize("n", [6, 300, 3000])
def test_all_is_marked_where_all_tokens_are_equal_but_for_rounding(n, rng):
    x = np.tile(rng.standard_normal(7), (n, 1))
    noise = 1.0 + np.finfo(float).eps * rng.integers(-2, 3, size=x.shape)
    for name, (value, _, within) in judged(x * noise).items():
        assert within == (name not in ("frobenius_norm", "norm_min", "norm_max", "sigma_max")), name
        assert np.isfinite(value)


def test_lapack_loses_more_where_there_are_many_tokens(rng):
    """Once 8 machine epsilons of ||X||_F were taken for enough."""
    x = np.tile(rng.standard_normal(32), (1024, 1))
    value, bound, within = judged(x)["rank_one_distance"]
    assert within
    assert SHARE * np.finfo(float).eps * np.linalg.norm(x) < value < bound


@pytest.mark.parametrize("engine", ["numba", "reference", "torch"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d"), [(8, 4), (40, 24), (256, 64)])
def test_a_layer_leaves_tokens_known_to_their_share(engine, dtype, n, d):
    """Complete mask, so that exact tokens are equal after few layers."""
    if engine == "torch":
        pytest.importorskip("torch")
    fresh = weights.Weights(weights.Gaussian(), weights.Orthogonal(), seed=1)
    dynamics = AttentionDynamics(masks.complete(n), fresh, norms.LayerNorm())
    x0 = (1.0 + tokens.sphere(1, n, d)).astype(dtype)
    run = simulate(dynamics, x0, 14, engine=engine, record=Record(measures=()))
    share = run["mu"][0, 7:] / run["frobenius_norm"][0, 7:]
    assert np.all(share <= SHARE * np.finfo(dtype).eps)


def test_what_an_engine_follows_has_no_floor_and_the_rest_has():
    plain, followed = halving("numba"), halving("logscale")
    for name in ("mu", "log10_mu", "deviation_stable_rank", "deviation_effective_rank"):
        assert plain.within_rounding(name)[:, -1].all(), name
        assert not followed.within_rounding(name).any(), name
    for name in ("rank_one_distance", "stable_rank", "effective_rank", "sigma_min", "min_cosine"):
        assert followed.within_rounding(name)[:, -1].all(), name
        assert not followed.within_rounding(name)[:, 5].any(), name
    assert plain.rounding("rank") is None
    assert not plain.within_rounding("rank").any()


def test_where_the_engine_lost_mu_the_rank_of_the_deviation_is_lost_too():
    run = halving("logscale", depth=20)
    lost = run.measures | {"log10_mu_error": run["log10_mu_error"] + 0.5}
    for name in ("deviation_stable_rank", "deviation_effective_rank"):
        less = replace(run, measures=lost).rounding(name)[:, -1]
        assert np.all(run.rounding(name)[:, -1] < 1e-10), name
        assert np.all(less >= np.minimum(run[name][:, -1], 4.0)), name
    assert np.all(replace(run, measures=lost).rounding("log10_mu") >= 0.5)
    assert not replace(run, measures=lost).within_rounding("log10_mu").any()


def test_what_is_not_marked_is_right_to_its_bound():
    """mu of the plain engine against that which the log-scale engine follows."""
    plain, exact = halving("numba"), halving("logscale")
    open_ = ~plain.within_rounding("mu")
    assert open_[:, :40].all()
    assert not open_[:, -1].any()
    # rounding of earlier layers halves as well, so that twice the last layer's is all there is
    error = np.abs(plain["mu"] - exact["mu"])
    assert np.all(error[open_] <= 2.0 * plain.rounding("mu")[open_])


def test_what_was_not_recorded_is_not_marked():
    shared = weights.Weights(weights.Zero(), weights.Identity(), shared=True)
    run = simulate(AttentionDynamics(masks.complete(4), shared), tokens.gaussian(1, 4, 2), 9,
                   record=Record(measures=("stable_rank",), stride=3))  # fmt: skip
    assert set(np.flatnonzero(run.within_rounding("stable_rank")[0])) == {3, 4, 6, 9}
    for name in set(run.measures) & set(ROUNDING):
        assert np.array_equal(np.isnan(run.rounding(name)), np.isnan(run[name])), name


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tables_mark_means_within_rounding(dtype):
    table = report.measure_table(halving(dtype=dtype))
    first, *rows, note = table.splitlines()
    assert note == f"~ within rounding ({np.dtype(dtype)}): cannot be told from complete collapse"
    marked = {row.split("  ")[0] for row in rows if row.endswith(" ~")}
    assert {"distance to consensus", "distance to rank one", "stable rank"} <= marked
    assert "attention entropy (nats)" not in marked
    assert len({len(row.removesuffix(" ~").rstrip()) for row in [first, *rows]}) == 1
    assert "~" not in report.measure_table(halving(dtype=dtype, depth=4))


def test_files_and_json_say_which_values_are_rounding(tmp_path):
    run = halving()
    with open(run.to_csv(tmp_path / "run.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        names = row["within_rounding"].split()
        at = int(row["sample"]), int(row["depth"])
        assert names == [name for name in run.measures if run.within_rounding(name)[at]]
    samples = json.loads(run.to_json(tmp_path / "run.json").read_text())["within_rounding"]
    assert samples == {name: run.within_rounding(name).tolist() for name in ROUNDING}
    assert np.array_equal(load(run.save(tmp_path / "run.nc")).rounding("mu"), run.rounding("mu"))
    comment = run.to_xarray()["rank_one_distance"].attrs["comment"]
    assert "rounding may move it by max(8 eps, max(N, d) 2^-52) ||X||_F" in comment
    outcome = report.Result(facts(masks.causal(6)), run, verdict(run))
    found = report.summary(outcome)["measures"]
    assert found["mu"]["within_rounding"][0] is False
    assert found["mu"]["within_rounding"][-1] is True
    assert found["mu"]["rounding"][0] == pytest.approx(run.rounding("mu")[:, 0].mean())
    assert found["log10_mu"]["rounding"][-1] is None
    assert "rounding" not in found["rank"]
    json.dumps(found, allow_nan=False)


def test_a_comparison_marks_what_is_rounding():
    run = halving()
    outcome = report.Result(facts(masks.causal(6)), run, verdict(run))
    table = report.comparison_table({"a": outcome})
    assert table.splitlines()[1].count(" ~") == 2  # mu at T, the stable rank
    assert "cannot be told from complete collapse" in table.splitlines()[-1]
