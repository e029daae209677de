"""What tables and JSON say of numbers that rounding decides."""

import numpy as np
import pytest

import dynsim
from dynsim import compare_with_theory, connectivity, masks, norms, simulate, tokens, verdict
from dynsim.cli import report
from dynsim.equilibria.equilibrium import Equilibrium
from dynsim.equilibria.stability import Stability
from dynsim.network.weights import Diagonal, Fixed, Identity, Jordan, Weights, Zero


def outcome(graph, weights, depth, engine="logscale", x0=None, theory=False, **parts):
    dynamics = dynsim.AttentionDynamics(graph, weights, **parts)
    x0 = tokens.gaussian(3, dynamics.n_tokens, 3) if x0 is None else x0
    run = simulate(dynamics, x0, depth, engine=engine)
    beside = compare_with_theory(dynamics, x0, run) if theory else None
    return report.Result(connectivity.facts(graph), run, verdict(run), None, beside)


def rows(table):
    return {line[:24].strip(): line for line in table.splitlines()}


def test_measures_within_rounding_are_marked():
    plain = outcome(masks.causal(6), Identity(), 60, engine="numba")
    shown = rows(report.measure_table(plain.trajectory))
    for name in ("distance to consensus", "distance to rank one"):
        assert shown[name].count("~") == 1
        assert shown[name].endswith("~")
    assert "~" not in shown["attention entropy (nats)"]
    assert "~ within rounding (float64)" in report.measure_table(plain.trajectory)
    followed = outcome(masks.causal(6), Identity(), 60, engine="logscale")
    shown = rows(report.measure_table(followed.trajectory))
    assert "~" not in shown["distance to consensus"]
    assert shown["distance to rank one"].endswith("~")
    slow = outcome(masks.local(6), Identity(), 10)
    assert "~" not in report.measure_table(slow.trajectory)


def test_tables_say_that_they_show_medians(rng):
    found = outcome(masks.local(6), Identity(), 10, x0=tokens.gaussian(9, 6, 3))
    head, *lines = report.measure_table(found.trajectory).splitlines()
    assert head.startswith("median (16–84% of samples)")
    low, middle, high = np.percentile(found.trajectory["mu"][:, 0], [16, 50, 84])
    assert f"{middle:.4g} ({low:.3g}–{high:.3g})" in lines[0]
    data = report.summary(found)["measures"]["mu"]
    assert (data["low"][0], data["median"][0], data["high"][0]) == (low, middle, high)
    assert report.comparison_table({"a": found, "b": found}).startswith("run (medians)")
    single = outcome(masks.local(6), Identity(), 10, x0=tokens.gaussian(1, 6, 3))
    assert "–" not in report.measure_table(single.trajectory).splitlines()[1]


def test_a_headline_names_runs_or_counts_them():
    falls = outcome(masks.causal(6), Identity(), 60)
    stays = outcome(masks.from_array(np.eye(6)), Identity(), 60)
    assert report.headline({"": falls}).startswith("Collapsed to consensus")
    both = report.headline({"causal": falls, "alone": stays})
    assert both == "Causal: collapsed to consensus; alone: no collapse" or len(both) <= 110
    named = report.headline({"the causal mask": falls, "every token alone": stays})
    assert named == "The causal mask: collapsed to consensus; every token alone: no collapse"
    many = report.headline({f"run number {k}": (falls, stays)[k > 9] for k in range(12)})
    assert many == "12 runs: collapsed to consensus in 10; no collapse in 2"


def test_a_headline_counts_samples_that_differ():
    x0 = np.zeros((3, 2, 2))
    x0[:] = [[0.0, 1.0], [0.6, 0.8]]
    x0[0] = [[0.0, 1.0], [-0.5, -np.sqrt(0.75)]]
    jordan = Weights(Zero(), Jordan(2.0), shared=True)
    mixed = outcome(masks.causal(2), jordan, 200, x0=x0, norm=norms.Unit())
    falls = outcome(masks.causal(6), Identity(), 60)
    words = report.headline({"with a norm of the layer": mixed, "without one": falls})
    assert words == (
        "With a norm of the layer: 2 of 3 collapsed, 1 staying; without one: collapsed to consensus"
    )


def test_shapes_and_bounds_in_words():
    assert report.describe_shape((1, 1, 3)) == "1 sample of 1 token of dimension 3"
    found = outcome(masks.causal(6), Identity(), 20, theory=True)
    assert report.describe_bounded(found.theory, (1, 6, 3)) == ""
    assert report.describe_bounded(found.theory, (3, 6, 3)) == "bounds: medians over 3 samples"
    words = "bounds: medians over the first 3 of 8 samples"
    assert report.describe_bounded(found.theory, (8, 6, 3)) == words


def test_a_band_may_reach_zero():
    """log10 mu of samples at consensus is -inf."""
    values = np.array([[-np.inf, -np.inf], [-np.inf, 0.0], [-1.0, 1.0]])
    assert np.array_equal(report._band(values)[1], [-np.inf, 0.0])


def test_json_says_where_a_measure_is_rounding():
    plain = outcome(masks.causal(6), Identity(), 60, engine="numba")
    found = report.summary(plain)["measures"]
    inside = np.array(found["mu"]["within_rounding"])
    assert np.array_equal(inside, np.array(found["mu"]["mean"]) <= found["mu"]["rounding"])
    assert inside[-1]
    assert 40 < np.flatnonzero(inside)[0] < 60
    assert not any(found["frobenius_norm"]["within_rounding"])
    followed = report.summary(outcome(masks.causal(6), Identity(), 60, engine="logscale"))
    assert not any(followed["measures"]["log10_mu"]["within_rounding"])


def test_lambda_2_is_shown_with_its_power_and_its_error():
    lines = dict(report.describe_mask(connectivity.facts(masks.causal_local(5, 1))))
    assert lines["lambda_2"] == (
        "0.5 (exact), of the uniform walk; deviations go like t^3 times its powers"
    )
    data = connectivity.facts(masks.causal_local(5, 1)).to_dict()
    assert (data["lambda_2_power"], data["lambda_2_power_at_most"]) == (3, False)
    rough = connectivity.SecondEigenvalue(0.5, "dense", 1e-4, 2, True)
    assert report._second(rough) == (
        "0.5 ± 0.0001 (dense), of the uniform walk; deviations go like t^2 at most times its powers"
    )
    assert report._second(connectivity.SecondEigenvalue(np.nan)) == "not found within the budget"


def test_comparisons_show_powers_and_what_does_not_last():
    one_way = outcome(masks.causal_local(5, 1), Identity(), 80, theory=True)
    x0 = np.array([[[1.0], [0.5]]])
    growing = outcome(masks.causal(2), Fixed([[1.0]], [[1.5]]), 40, x0=x0, theory=True)
    shown = report.comparison_table({"one": one_way, "two": growing})
    assert "0.5 times t^3" in shown
    assert "0.75 for a while" in shown


@pytest.mark.parametrize(
    ("sigma", "rank", "sure"),
    [([1.0, 0.5, 0.0], 2, True), ([1.0, 0.5, 3e-6], 3, False), ([1.0, 0.5, 1e-7], 2, False)],
)
def test_the_rank_of_an_equilibrium_is_sure_or_not(sigma, rank, sure):
    judged = Stability(np.array([0.5 + 0j]), np.array([1e-9]), np.array([0]))
    x = np.diag(sigma)
    found = Equilibrium(x, np.eye(3), 0.0, judged, 1, x[None])
    assert (found.rank, found.rank_is_sure) == (rank, sure)
    assert found.to_dict()["rank_is_sure"] is sure


@pytest.mark.parametrize(
    ("multipliers", "errors", "kind", "sure", "radius_error"),
    [
        ([0.9, 0.1], [1e-9, 1e-9], "stable", True, 1e-9),
        ([0.9, 0.1], [0.2, 1e-9], "marginal", False, 0.2),
        ([0.9, 0.8], [0.01, 0.3], "marginal", False, 0.2),  # the second may be the largest
        ([1.5, 0.99], [1e-9, 0.1], "saddle", False, 1e-9),
        ([1.5, 1.2], [0.1, 0.1], "unstable", True, 0.1),
    ],
)
def test_stability_classes_say_when_rounding_decides(multipliers, errors, kind, sure, radius_error):
    found = Stability(np.array(multipliers, complex), np.array(errors), np.zeros(2, int))
    assert (found.kind, found.is_sure) == (kind, sure)
    assert found.radius_error == pytest.approx(radius_error)


def test_float32_has_a_floor_of_its_own_in_the_table():
    alone = masks.from_array(np.eye(2))
    x0 = np.array([[0.0, 1.0], [0.6, -0.8]], np.float32)
    found = outcome(alone, Diagonal([0.1, 1.0]), 30, engine="numba", x0=x0, norm=norms.NoNorm())
    assert found.trajectory.final.dtype == np.float32
    assert "~ within rounding (float32)" in report.measure_table(found.trajectory)
