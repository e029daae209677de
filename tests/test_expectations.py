"""Theory beside a run: what agrees, what bounds, and what is said of it."""

import numpy as np
import pytest

import dynsim
from dynsim import expect, masks, norms, simulate, tokens
from dynsim.weights import Diagonal, Gaussian, Identity, Orthogonal, Weights, Zero


def beside(mask, network, norm=None, n=6, d=3, samples=3, depth=60):
    dynamics = dynsim.AttentionDynamics(mask(n), network, norm or norms.NoNorm())
    x0 = tokens.gaussian(samples, n, d, seed=1)
    run = simulate(dynamics, x0, depth, engine="logscale")
    return run, expect(dynamics, x0, run)


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
    for words in ("fitted", "predicted", "certified"):
        assert words in str(found)


def test_what_does_not_apply_says_why():
    network = Weights(Gaussian(), Gaussian(), n_heads=2, seed=1)
    _, found = beside(masks.local, network, norms.LayerNorm(), d=4, depth=20)
    assert found.sharpest is None
    assert np.isnan(found.log10_excess)
    assert found.distance == "no certificate applies"
    assert "there are 2 heads" in str(found)
    assert found.to_dict()["log10_excess"] is None


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
        expect(dynamics, x0, run)


def test_equal_tokens_overflow_and_other_tokens():
    run, found = beside(masks.complete, Weights(Zero(), Identity()), depth=8)
    assert found.log10_excess == np.inf
    assert "mu is zero" in found.distance
    grows = dynsim.AttentionDynamics(masks.causal(4), Weights(Zero(), Diagonal(1e10)))
    x0 = tokens.gaussian(2, 4, 3)
    with pytest.raises(dynsim.Overflow) as ended:
        simulate(grows, x0, 60, engine="logscale")
    run = ended.value.trajectory
    found = expect(grows, x0, run)
    assert found.measured.shape[1] == found.certificates["Dobrushin"].log10_bound.shape[1]
    with pytest.raises(ValueError, match="does not start from x0"):
        expect(grows, 2 * x0, run)
