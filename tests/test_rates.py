"""Fitted rates of decays that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dynsim
from dynsim import masks, norms, simulate, tokens
from dynsim.collapse.rates import MODELS, collapse_rate, doubly_exponential
from dynsim.network.deviation import Deviation
from dynsim.network.weights import Diagonal, Identity, Weights, Zero
from dynsim.results.trajectory import Trajectory


def made(log_mu, size=1.0, exact=False):
    """A trajectory with this log mu, (samples, T+1) or (T+1,), and ||X||_F = size."""
    log_mu = np.atleast_2d(np.asarray(log_mu, float))
    measures = {
        "mu": np.exp(log_mu),
        "frobenius_norm": np.broadcast_to(size, log_mu.shape),
        "log10_mu": log_mu / np.log(10.0),
    }
    if not exact:
        del measures["log10_mu"]
    final = np.zeros((len(log_mu), 2, 1))
    deviation = Deviation.whole(final) if exact else None
    return Trajectory(measures, final, final[:, None], np.array([0]), {}, deviation=deviation)


@given(st.floats(0.3, 0.999), st.floats(-3, 0), st.integers(12, 300), st.booleans())
def test_an_exact_exponential(rho, start, depth, exact):
    found = collapse_rate(made(start + np.arange(depth + 1) * np.log(rho), exact=exact))
    if len(found.values) == 0:  # under the floor at once
        assert not exact
        assert start + 6 * np.log(rho) < np.log(800 * 2.3e-16)
        return
    assert found.kind == "exponential"
    assert found.value == pytest.approx(rho, rel=1e-9)
    assert found.interval[0] - 1e-12 <= rho <= found.interval[1] + 1e-12
    assert found.margin > 2


@given(st.floats(0.2, 4.0), st.floats(-3, 3), st.integers(30, 300))
def test_an_exact_power(p, start, depth):
    t = np.maximum(np.arange(depth + 1), 1)
    found = collapse_rate(made(start - p * np.log(t), size=100.0))
    assert found.kind == "algebraic"
    assert found.value == pytest.approx(p, rel=1e-9)


@given(st.floats(1.5, 4.0), st.floats(-2.0, -0.5), st.floats(-0.2, 0.2), st.integers(6, 10))
def test_an_exact_doubly_exponential_law(q, start, constant, depth):
    logs = [start]
    for _ in range(depth):
        logs.append(q * logs[-1] - abs(constant))
    found = collapse_rate(made(logs, exact=True))
    assert found.kind == "doubly exponential"
    assert found.value == pytest.approx(q, rel=1e-9)


def test_a_transient_does_not_enter_the_late_rate():
    t = np.arange(201)
    logs = np.log(0.97**t + 30.0 * 0.8**t)
    found = collapse_rate(made(logs, size=100.0))
    assert found.kind == "exponential"
    assert found.late[0] > 50
    assert found.value == pytest.approx(0.97, rel=1e-6)


def test_a_power_behind_an_offset_is_still_a_power():
    t = np.arange(2001)
    found = collapse_rate(made(-np.log(2.0 * t + 7.0)))
    assert found.kind == "algebraic"
    assert found.value == pytest.approx(1.0, abs=0.005)
    assert found.sensitivity > 0


def test_values_near_the_floor_never_enter():
    """The rounding that follows would spoil the rate; with it left out the rate is exact."""
    t = np.arange(81)
    falls = t * np.log(0.5)
    noise = np.random.default_rng(0).normal(size=81)
    logs = np.where(falls > np.log(1e-15), falls, np.log(1e-15) + noise)
    found = collapse_rate(made(logs))
    assert found.value == pytest.approx(0.5, rel=1e-9)
    assert found.late[1] <= 43  # .5^43 is 64 times the floor


def test_exact_logarithms_are_fitted_far_below_the_floor():
    found = collapse_rate(made(np.arange(101) * np.log(1e-5), exact=True))
    assert found.value == pytest.approx(1e-5, rel=1e-9)
    assert found.late[1] == 100


def test_the_interval_covers_the_rate_of_random_products():
    """log mu is a random walk with drift: 95 % intervals cover it about that often."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(40):
        steps = rng.normal(-0.1, 0.1, size=(12, 200))
        logs = np.cumsum(np.concatenate([np.zeros((12, 1)), steps], axis=1), axis=1)
        found = collapse_rate(made(logs, exact=True))
        assert found.kind == "exponential"
        hits += found.interval[0] <= np.exp(-0.1) <= found.interval[1]
    assert hits >= 35


@pytest.mark.parametrize("seed", range(5))
def test_what_stays_or_grows_does_not_collapse(seed):
    rng = np.random.default_rng(seed)
    noise = 0.3 * rng.normal(size=(8, 151))
    assert collapse_rate(made(noise, size=100.0)).kind == "none"
    grown = collapse_rate(made(noise + 0.05 * np.arange(151), size=1e6))
    assert (grown.kind, grown.value > 1) == ("none", True)
    assert collapse_rate(made(np.zeros(30))).kind == "none"


def test_too_few_layers_are_said_to_be_too_few():
    pure = dynsim.AttentionDynamics(masks.complete(6), Identity())
    found = collapse_rate(simulate(pure, tokens.gaussian(3, 6, 2), 10))
    assert (found.kind, found.left_out) == ("none", 3)
    assert "use the log-scale engine" in str(found)
    slow = dynsim.AttentionDynamics(masks.local(6), Identity())
    assert "run more layers" in str(collapse_rate(simulate(slow, tokens.gaussian(3, 6, 2), 4)))


def test_samples_with_too_few_layers_are_left_out():
    logs = np.arange(41) * np.log([[0.9], [1e-8]])
    found = collapse_rate(made(logs))
    assert (found.left_out, len(found.values)) == (1, 1)
    assert found.value == pytest.approx(0.9, rel=1e-9)
    assert "1 sample had too few layers" in str(found)


def test_relative_to_the_mean_token():
    """Shrinking as a whole is no collapse: mu falls by .45, mu against the mean by .5."""
    network = Weights(Zero(), Diagonal(0.9), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.causal(8), network)
    run = simulate(dynamics, tokens.gaussian(4, 8, 3), 36)
    assert collapse_rate(run).value == pytest.approx(0.45, abs=1e-3)
    assert collapse_rate(run, relative=True).value == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("q", [0.7, 3.0])
def test_the_factor_alone_is_that_of_the_rate(q):
    run = made(-(q ** np.arange(12)) if q > 1 else np.arange(12) * np.log(q), exact=True)
    rate = collapse_rate(run, relative=True)
    assert doubly_exponential(run) == (rate.value if q > 1 else None)
    assert (rate.kind == "doubly exponential") == (q > 1)
    assert doubly_exponential(made(np.zeros(3))) is None


def test_a_pre_norm_network_with_skip_collapses_algebraically():
    """Each layer adds a unit vector to all tokens alike: mu stays, the mean grows like t."""
    dynamics = dynsim.AttentionDynamics(
        masks.complete(6), Identity(), norms.Unit(), placement="pre", skip=1.0
    )
    found = collapse_rate(simulate(dynamics, tokens.gaussian(4, 6, 3), 1000), relative=True)
    assert found.kind == "algebraic"
    assert found.value == pytest.approx(1.0, abs=0.01)


def test_a_rate_prints_as_one_sentence():
    found = collapse_rate(made(np.arange(60) * np.log(0.9)))
    assert str(found).startswith("exponential: mu goes by a factor 0.9 (0.9 to 0.9) per layer")
    assert "\n" not in str(found)
    assert set(found.errors) == set(MODELS)
    assert found.samples == {"exponential": 1}


def test_samples_that_end_early_are_left_out_and_order_does_not_matter():
    """One sample starts near the floor, so that few of its layers count."""
    dynamics = dynsim.AttentionDynamics(masks.causal(8), Identity())
    x0 = tokens.gaussian(4, 8, 3)
    x0[3] = 1.0 + 1e-11 * x0[3]
    found = collapse_rate(simulate(dynamics, x0, 44))
    again = collapse_rate(simulate(dynamics, x0[::-1], 44))
    assert found.left_out == again.left_out == 1
    assert found.value == pytest.approx(0.5, rel=1e-3)
    assert (again.value, again.sensitivity) == pytest.approx((found.value, found.sensitivity))


def test_equal_tokens_have_no_rate():
    dynamics = dynsim.AttentionDynamics(masks.complete(4), Identity())
    run = simulate(dynamics, tokens.gaussian(2, 4, 3), 9, engine="logscale")
    assert "mu is zero after layer 0" in str(collapse_rate(run))


@given(st.floats(0.3, 0.9), st.integers(-2, 6).filter(bool), st.floats(0, 4))
def test_an_exponential_with_a_power_that_is_known(rho, power, next_term):
    """mu = (t^p + next_term t^(p-1)) rho^t: the next term is fitted as b / t."""
    t = np.maximum(np.arange(301.0), 1.0)
    law = power * np.log(t) + t * np.log(rho)
    exact = collapse_rate(made(law + next_term / t, exact=True), power=power)
    assert exact.kind == "exponential"
    assert exact.value == pytest.approx(rho, rel=1e-9)
    assert f"per layer times t^{power}" in exact.sentence
    close = collapse_rate(made(law + np.log1p(next_term / t), exact=True), power=power)
    assert close.value == pytest.approx(rho, rel=1e-5)
    plain = collapse_rate(made(law + np.log1p(next_term / t), exact=True))
    assert abs(plain.value - rho) > 10 * abs(close.value - rho)


def test_models_that_predict_alike_are_said_to():
    """A fall of a few per cent in thirty layers: a power law or an exponential, who knows."""
    noise = 0.02 * np.random.default_rng(3).normal(size=(6, 31))
    found = collapse_rate(made(noise - 0.02 * np.arange(31), size=100.0))
    assert found.margin < 2
    assert "the two are not told apart" in str(found)
