"""Lyapunov exponents against what is known in closed form."""

import numpy as np
import pytest

from dynsim import AttentionDynamics, Record, lyapunov, masks, norms, simulate, tokens, weights
from dynsim.equilibria import hyperbolic_dynamics, hyperbolic_pair, stability
from dynsim.network.weights import Fixed, Weights


def test_a_stable_equilibrium_gives_the_log_moduli_of_its_multipliers():
    dynamics, x = hyperbolic_dynamics(0.3, 2.0), hyperbolic_pair(0.3, 2.0)[0]
    start = norms.Unit().apply(x + 0.01)
    found = lyapunov.spectrum(dynamics, start, layers=200, discard=100)
    exact = np.log(np.abs(stability(dynamics, x).multipliers))
    assert np.allclose(found.exponents, exact, atol=1e-6)
    assert found.drift < 1e-6
    assert np.allclose(found.final, x, atol=1e-12)


def test_one_token_has_the_ratios_of_the_eigenvalues():
    values = np.array([3.0, 2.0, 0.5])
    dynamics = AttentionDynamics(masks.complete(1), weights.Diagonal(tuple(values)), norms.Unit())
    found = lyapunov.spectrum(dynamics, np.array([[0.5, 0.6, 0.7]]))
    assert np.allclose(found.exponents, np.log([2 / 3, 0.5 / 3]), atol=1e-9)
    first = lyapunov.spectrum(dynamics, np.array([[0.5, 0.6, 0.7]]), count=1)
    assert np.isclose(first.exponents[0], np.log(2 / 3), atol=1e-9)


def test_without_a_norm_the_sum_of_the_exponents_is_the_log_determinant(rng):
    W = rng.standard_normal((3, 3))
    W /= np.abs(np.linalg.eigvals(W)).max()
    dynamics = AttentionDynamics(masks.causal(2), Fixed(np.zeros((3, 3)), W))
    x0 = tokens.sphere(1, 2, 3, 0)[0]
    found = lyapunov.spectrum(dynamics, x0, layers=300, discard=10)
    exact = 2 * np.linalg.slogdet(W)[1] + 3 * np.log(0.5)
    assert np.isclose(found.exponents.sum(), exact, atol=1e-10)


def test_the_transversal_exponent_is_the_late_rate_of_collapse():
    n, d = 6, 3
    dynamics = AttentionDynamics(
        masks.causal(n), Fixed(0.3 * np.eye(d), np.diag([1.0, 0.8, 0.3])), norms.Unit()
    )
    x0 = np.abs(tokens.sphere(1, n, d, 3)[0])
    found = lyapunov.transversal(dynamics, x0[0])
    # one token alone settles at e_1 with ratio 0.8; lambda_2 of the causal walk is 1/2
    assert np.isclose(found, np.log(0.5 * 0.8), atol=1e-9)
    mu = simulate(dynamics, x0, 32, record=Record(measures=()))["mu"][0]
    measured = np.log(mu[30] / mu[20]) / 10
    assert np.isclose(measured, found, atol=0.15)


def test_a_derivative_without_rank_gives_minus_infinity_or_rounding():
    dynamics = AttentionDynamics(
        masks.complete(3), Fixed(np.zeros((2, 2)), np.eye(2)), norms.Unit()
    )
    found = lyapunov.spectrum(dynamics, tokens.sphere(1, 3, 2, 0)[0], layers=50, discard=5)
    assert np.isclose(found.exponents[0], 0.0, atol=1e-12)
    assert np.all(found.exponents[1:] < -30)


def test_bad_input_is_refused():
    dynamics = AttentionDynamics(masks.causal(2), Weights(shared=True), norms.Unit())
    x0 = tokens.sphere(1, 2, 3, 0)[0]
    with pytest.raises(ValueError, match="there are 4 exponents"):
        lyapunov.spectrum(dynamics, x0, count=5)
    skipped = AttentionDynamics(masks.causal(2), Weights(shared=True), norms.Unit(), skip=1.0)
    with pytest.raises(ValueError, match="whole spectrum"):
        lyapunov.transversal(skipped, x0[0])
