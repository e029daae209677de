"""Theory beside a run: what agrees, what bounds, and what is said of it."""

from dataclasses import replace

import numpy as np
import pytest

import dynsim
from dynsim import compare_with_theory, masks, norms, simulate, tokens
from dynsim.collapse import comparison
from dynsim.collapse.bounds import Bounds
from dynsim.network.weights import Diagonal, Gaussian, Identity, Orthogonal, Weights, Zero


def beside(mask, network, norm=None, n=6, d=3, samples=3, depth=60):
    dynamics = dynsim.AttentionDynamics(mask(n), network, norm or norms.NoNorm())
    x0 = tokens.gaussian(samples, n, d, seed=1)
    run = simulate(dynamics, x0, depth, engine="logscale")
    return run, compare_with_theory(dynamics, x0, run)


def test_fit_prediction_and_bounds_of_a_causal_mask():
    run, found = beside(masks.causal, Weights(Zero(), Diagonal(0.5), shared=True))
    assert found.rate.kind == "exponential"
    assert found.rate.value == pytest.approx(found.prediction.rate, rel=1e-4)
    assert found.sharpest.name == "Dobrushin"
    excess = found.sharpest.log10_bound[:, -1] - run["log10_mu"][:, -1]
    assert found.departed == (-1, -1, -1)
    assert found.log10_excess == pytest.approx(np.median(excess))
    assert excess.min() > 0
    curves = found.curves()
    assert set(curves) == {"bound: WU theorem 1", "bound: Dobrushin", "predicted slope"}
    assert np.isnan(curves["predicted slope"][:30]).all()
    steps = np.diff(curves["predicted slope"][30:])
    assert np.allclose(steps, np.log10(0.25), atol=1e-12)
    assert curves["predicted slope"][-1] == np.median(run["log10_mu"][:, -1])
    assert "times mu = 10^" in found.distance
    for words in ("fitted", "predicted", "bounded"):
        assert words in str(found)


def test_curves_as_shares_of_the_size_of_the_tokens():
    """Tokens halve in every layer, so that mu / ||X|| falls by 1/2 where mu falls by 1/4."""
    run, found = beside(masks.causal, Weights(Zero(), Diagonal(0.5), shared=True))
    size = np.log10(run["frobenius_norm"])
    curves, shares = found.curves(), found.curves(run["frobenius_norm"])
    steps = np.diff(shares["predicted slope"][30:])
    assert np.allclose(steps, np.log10(0.5), atol=1e-6)
    assert shares["predicted slope"][-1] == np.median((run["log10_mu"] - size)[:, -1])
    bound = found.bounds["Dobrushin"].log10_bound
    assert np.array_equal(shares["bound: Dobrushin"], np.median(bound - size, axis=0))
    assert (shares["bound: Dobrushin"] - np.median(run["log10_mu"] - size, axis=0)).min() > -1e-9
    assert set(shares) == set(curves)


def test_json_says_where_a_bound_is_nearest():
    run, found = beside(masks.causal, Weights(Zero(), Diagonal(0.5), shared=True))
    entry = found.to_dict()["bounds"]
    for name, bound in found.bounds.items():
        nearest = (bound.log10_bound - run["log10_mu"])[bound.applies]
        if nearest.size:
            assert entry[name]["least_log10_excess"] == nearest.min()
        else:
            assert entry[name]["least_log10_excess"] is None
    assert entry["Dobrushin"]["least_log10_excess"] >= -1e-9


def test_what_does_not_apply_says_why():
    network = Weights(Gaussian(), Gaussian(), n_heads=2, seed=1)
    _, found = beside(masks.local, network, norms.LayerNorm(), d=4, depth=20)
    assert found.sharpest is None
    assert np.isnan(found.log10_excess)
    assert found.distance == "no bound applies"
    assert "there are 2 heads" in str(found)
    assert found.to_dict()["log10_excess"] is None


def test_a_bound_that_is_false_is_our_error(monkeypatch):
    """By bounds of a thousandth of what they are, which lie below the run."""
    sound = comparison.mu_bounds

    def false(*args, **options):
        bounds = sound(*args, **options)
        lower = {
            name: replace(one, log10_bound=one.log10_bound - 3.0) for name, one in bounds.items()
        }
        return Bounds(lower, bounds.log10_mu)

    network = Weights(Zero(), Diagonal(0.5), shared=True)
    beside(masks.causal, network)
    monkeypatch.setattr(comparison, "mu_bounds", false)
    with pytest.raises(
        RuntimeError, match=r"internal error: the bound '.*' at depth \d+ of sample"
    ):
        beside(masks.causal, network)


def test_the_cubic_law_has_no_slope_to_draw():
    _, found = beside(masks.complete, Weights(value=Orthogonal(), shared=True), depth=9)
    assert found.rate.kind == "doubly exponential"
    assert found.prediction.exponent == 3
    assert "predicted slope" not in found.curves()


def test_too_many_tokens_are_refused():
    dynamics = dynsim.AttentionDynamics(masks.local(1025), Identity())
    x0 = np.ones((1025, 2))
    run = simulate(dynamics, x0, 1)
    with pytest.raises(ValueError, match="2 to 1024 tokens"):
        compare_with_theory(dynamics, x0, run)


def test_equal_tokens_overflow_and_other_tokens():
    run, found = beside(masks.complete, Weights(Zero(), Identity()), depth=8)
    assert found.log10_excess == np.inf
    assert "mu is zero" in found.distance
    grows = dynsim.AttentionDynamics(masks.causal(4), Weights(Zero(), Diagonal(1e10)))
    x0 = tokens.gaussian(2, 4, 3)
    with pytest.raises(dynsim.Overflow) as ended:
        simulate(grows, x0, 60, engine="logscale")
    run = ended.value.trajectory
    found = compare_with_theory(grows, x0, run)
    assert found.measured.shape[1] == found.bounds["Dobrushin"].log10_bound.shape[1]
    with pytest.raises(ValueError, match="does not start from x0"):
        compare_with_theory(grows, 2 * x0, run)


def test_a_defective_lambda_2_is_fitted_with_its_power():
    """Window 1 looking back, mu ~ t^3 2^-t: without the power .5104 is fitted."""
    run, found = beside(masks.causal_local, Weights(Zero(), Identity()), n=5, depth=200)
    plain = dynsim.collapse_rate(run)
    assert plain.value == pytest.approx(0.5104, abs=2e-4)
    assert plain.interval[0] > 0.508
    assert found.rate.value == pytest.approx(0.5, abs=1e-5)
    assert found.rate.interval[0] <= 0.5 <= found.rate.interval[1]
    assert "per layer times t^3" in found.rate.sentence
    assert "inside what errors allow" in str(found)
    slope = found.curves()["predicted slope"]
    assert np.allclose(slope[100:], np.median(run["log10_mu"][:, 100:], axis=0), atol=0.03)
    entry = found.to_dict()
    assert (entry["prediction"]["power"], entry["prediction"]["at_most"]) == (3, False)
    assert entry["comparable"] is True


@pytest.mark.parametrize(("x0", "measured"), [([[1.0], [0.5]], 2 / 3), ([[0.5], [1.0]], 1.5)])
def test_a_prediction_that_does_not_last_is_neither_compared_nor_drawn(x0, measured):
    fixed = dynsim.weights.Fixed([[1.0]], [[1.5]])
    dynamics = dynsim.AttentionDynamics(masks.causal(2), fixed)
    x0 = np.array([x0])
    found = compare_with_theory(dynamics, x0, simulate(dynamics, x0, 60, engine="logscale"))
    assert found.prediction.rate == 0.75
    assert found.rate.value == pytest.approx(measured, abs=1e-3)
    assert "it does not last, so that it is not compared with the fit" in str(found)
    assert "the fitted factor is" not in str(found)
    assert not any(name.startswith("predicted") for name in found.curves())
    assert found.to_dict()["comparable"] is False


def test_a_run_far_from_consensus_is_not_compared():
    """W_V = 1.3: near consensus the rate lasts; from these tokens attention becomes one-hot."""
    fixed = dynsim.weights.Fixed([[1.0]], [[1.3]])
    dynamics = dynsim.AttentionDynamics(masks.causal(2), fixed)
    near, far = np.array([[[0.5], [1.0]]]), np.array([[[1.0], [2.0]]])
    for x0, compared in ((near, True), (far, False)):
        found = compare_with_theory(dynamics, x0, simulate(dynamics, x0, 60, engine="logscale"))
        assert found.prediction.lasts
        assert found.comparable is compared
        assert ("predicted slope" in found.curves()) is compared
        assert (
            "the run is not near consensus: mu is 0.28 of ||X||, attention 1" in str(found)
        ) is (not compared)


def test_powers_that_are_not_known_are_left_out_of_the_slope():
    basis = np.random.default_rng(2).standard_normal((3, 3))
    W_V = basis @ (np.eye(3) + np.eye(3, k=1)) @ np.linalg.inv(basis)
    dynamics = dynsim.AttentionDynamics(masks.causal(4), dynsim.weights.Fixed(0 * W_V, W_V))
    x0 = tokens.gaussian(2, 4, 3, seed=1)
    found = compare_with_theory(dynamics, x0, simulate(dynamics, x0, 60, engine="logscale"))
    assert "predicted slope, powers of t left out" in found.curves()
    assert "which a power of t may explain" in str(found)
