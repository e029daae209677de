"""Lyapunov exponents against what is known in closed form."""

import json

import numpy as np
import pytest

from dynsim import (
    AttentionDynamics,
    Record,
    basins,
    lyapunov,
    masks,
    norms,
    simulate,
    tokens,
    weights,
)
from dynsim.equilibria import hyperbolic_dynamics, hyperbolic_pair, stability
from dynsim.network.mlp import GaussianMLP
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


def test_the_largest_exponents_by_themselves_are_those_of_all():
    dynamics = AttentionDynamics(
        masks.causal(4), Weights(seed=5, shared=True), norms.LayerNorm(1.5), mlp=GaussianMLP(seed=2)
    )
    x0 = tokens.sphere(1, 4, 5, 1)[0]
    every = lyapunov.spectrum(dynamics, x0, layers=400)
    two = lyapunov.spectrum(dynamics, x0, count=2, layers=400)
    assert np.allclose(two.exponents, every.exponents[:2], atol=1e-2)
    assert np.allclose(two.final, every.final, atol=1e-9)


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


# --- order, rotation or chaos -------------------------------------------------------------------


def turning(*angles):
    """A value matrix that turns planes by these angles."""
    W = np.zeros((2 * len(angles), 2 * len(angles)))
    for k, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        W[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[c, s], [-s, c]]
    return W


def plain(W_V, n=2, norm=None):
    W_V = np.asarray(W_V)
    return AttentionDynamics(
        masks.complete(n), Fixed(np.zeros_like(W_V), W_V), norm or norms.Unit()
    )


def folding():
    """One token and a strong MLP: a circle map with folds, chaotic for some starts."""
    return AttentionDynamics(
        masks.complete(1), weights.Identity(), norms.Unit(),
        mlp=GaussianMLP(sigma=6.0, shared=True, seed=3),
    )  # fmt: skip


def folded_start():
    """One that does not settle."""
    ends = basins.limit_sets(folding(), tokens.sphere(24, 1, 2, 0), depth=256)
    return ends.final[np.flatnonzero(ends.type == basins.TYPES.index("chaotic"))[0]]


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_a_contraction_with_closed_form_is_order(ratio):
    found = lyapunov.spectrum(plain(np.diag([1.0, ratio]), 1), np.array([[0.6, 0.8]]))
    assert found.kind == "order"
    assert abs(found.exponents[0] - np.log(ratio)) <= found.error < abs(np.log(ratio))
    assert found.sentence.startswith("order: nearby states meet; the largest exponent is -")


@pytest.mark.parametrize("angles", [(1.0,), (2 * np.pi / 3,), (1.0, np.sqrt(2))])
def test_a_value_matrix_that_turns_is_rotation(angles):
    """By 120 degrees with period 3, by a radian as on a circle, by two angles as on a torus."""
    W_V = turning(*angles)
    found = lyapunov.spectrum(plain(W_V), tokens.sphere(1, 2, len(W_V), 0)[0])
    assert found.kind == "rotation"
    assert abs(found.exponents[0]) < 1e-12


@pytest.mark.parametrize("W_V", [np.eye(2), -np.eye(2), turning(np.pi / 2) @ np.diag([1.0, -1.0])])
def test_what_stays_flips_or_alternates_is_marginal_not_rotation(W_V):
    found = lyapunov.spectrum(plain(W_V), tokens.sphere(1, 2, 2, 0)[0])
    assert found.kind == "marginal"


@pytest.mark.parametrize("discard", [0, 200, 5000])
@pytest.mark.parametrize("layers", [100, 1000, 3000])
def test_algebraic_convergence_is_neither_order_nor_chaos(layers, discard):
    """WU's Jordan layer: perturbations of token 1 decay as 1 / t^2, so that the exponent is 0."""
    start = np.array([[0.6, 0.8]])
    found = lyapunov.spectrum(plain([[1.0, 2.0], [0.0, 1.0]], 1), start, layers=layers,
                              discard=discard)  # fmt: skip
    assert -found.error < found.exponents[0] < 0
    assert found.kind in ("marginal", "not decided")
    if discard and layers >= 1000:
        assert found.kind == "marginal"


def test_a_circle_map_with_folds_is_chaos_and_a_short_look_does_not_decide():
    start = folded_start()
    long = lyapunov.spectrum(folding(), start, layers=2000)
    assert long.kind == "chaos"
    assert long.exponents[0] > 0.1 > long.error
    for layers in (1, 8, 20):
        short = lyapunov.spectrum(folding(), start, layers=layers, discard=0)
        assert short.kind == "not decided"
        assert "take more layers" in short.sentence


def test_growth_without_bound_is_not_called_chaos():
    W_V = 1.1 * turning(1.0)
    found = lyapunov.spectrum(plain(W_V, norm=norms.NoNorm()), tokens.sphere(1, 2, 2, 0)[0])
    assert found.exponents[0] == pytest.approx(np.log(1.1))
    assert found.kind == "not decided"
    assert "grow without bound, by a factor 1.1 per layer" in found.sentence


def test_the_error_of_a_mean_covers_the_mean_of_independent_numbers(rng):
    """Of 400 averages of normal numbers, a whole number of standard errors off at most."""
    growth = 0.1 + rng.standard_normal((2000, 400))
    error = lyapunov.error_of_mean(growth, 10**9)  # without the share of powers
    off = np.abs(growth.mean(axis=0) - 0.1)
    assert (off <= error).mean() > 0.98
    assert np.median(error) < 10 / np.sqrt(2000)
    assert np.isinf(lyapunov.error_of_mean(growth[:15], 0)).all()


def test_the_verdict_is_in_the_json_with_no_number_that_json_lacks():
    dynamics = plain(np.eye(2), 3)
    found = lyapunov.spectrum(dynamics, tokens.sphere(1, 3, 2, 0)[0], layers=10, discard=5)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["verdict"] == {"kind": "not decided", "sentence": found.sentence}
    assert written["error"] is None


def test_largest_exponents_of_many_states_are_those_of_each_alone():
    dynamics = AttentionDynamics(masks.local(4), Weights(shared=True, seed=3), norms.Unit())
    x = tokens.sphere(5, 4, 3, 0)
    values, errors = lyapunov.largest_exponents(dynamics, x, 400, 100)
    for s in range(5):
        alone = lyapunov.largest_exponents(dynamics, x[s : s + 1], 400, 100)
        assert (alone[0][0], alone[1][0]) == (values[s], errors[s])
        full = lyapunov.spectrum(dynamics, x[s], layers=2000)
        assert abs(full.exponents[0] - values[s]) < errors[s] + full.error


def test_bad_input_is_refused():
    dynamics = AttentionDynamics(masks.causal(2), Weights(shared=True), norms.Unit())
    x0 = tokens.sphere(1, 2, 3, 0)[0]
    with pytest.raises(ValueError, match="there are 4 exponents"):
        lyapunov.spectrum(dynamics, x0, count=5)
    with pytest.raises(MemoryError, match="fewer tokens, dimensions or layers"):
        lyapunov.spectrum(dynamics, x0, layers=10**13)
    skipped = AttentionDynamics(masks.causal(2), Weights(shared=True), norms.Unit(), skip=1.0)
    with pytest.raises(ValueError, match="whole spectrum"):
        lyapunov.transversal(skipped, x0[0])
