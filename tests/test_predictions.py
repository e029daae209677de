"""Predicted late rates against Jacobians, simulations, closed forms and high precision."""

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import digamma

import dynsim
from dynsim import masks, measures, norms, simulate, tokens
from dynsim.collapse.predictions import _consensus, cubic_step, predict, transversal_growth
from dynsim.collapse.transient import deviation_walk, kreiss_constant, transient_growth
from dynsim.masks.walk import lambda_2, transversal_eigenvalues
from dynsim.network.mlp import GaussianMLP
from dynsim.network.weights import (
    Diagonal,
    FromArray,
    Gaussian,
    Identity,
    Layers,
    Orthogonal,
    Weights,
    Zero,
)

BIASED = norms.LayerNorm(gain=np.array([1.0, 0.5, 2.0]), bias=np.array([0.3, 0.1, -0.2]))
PLACED = [
    (norms.NoNorm(), "post"),
    (norms.Unit(), "post"),
    (norms.Unit(), "pre"),
    (norms.RMSNorm(eps=0.1), "peri"),
    (BIASED, "post"),
    (BIASED, "peri"),
]


NOTHING = dynsim.Record(measures=())


def near_consensus(n, d, size=1e-4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(d) + size * rng.standard_normal((n, d))


def late_factor(run, first, last):
    """Factor per layer of mu between two depths, which must lie above the floor."""
    mu = run["mu"][0]
    assert mu[last] > 1e3 * run.floor[0, last]
    return (mu[last] / mu[first]) ** (1 / (last - first))


# --- the linearisation ----------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "placement"), PLACED)
@pytest.mark.parametrize("skip", [0.0, 0.7])
def test_modes_are_the_eigenvalues_of_the_whole_jacobian(norm, placement, skip):
    """T(lambda) over all lambda, 1 included, against central differences of the definition."""
    network = Weights(Gaussian(), Gaussian(), n_heads=1, seed=2)
    graph = masks.sinks(5)
    dynamics = dynsim.AttentionDynamics(graph, network, norm, placement, skip)
    c, h = np.array([0.3, -1.1, 0.8]), 1e-5
    consensus = np.tile(c, (5, 1))

    def image(flat):
        return dynamics.step(consensus + flat.reshape(5, 3)).ravel()

    steps = h * np.eye(15)
    whole = np.array([(image(e) - image(-e)) / (2 * h) for e in steps]).T
    layer = _consensus(dynamics, c, 0)
    assert np.allclose(np.tile(layer.token, (5, 1)), dynamics.step(consensus), atol=1e-14)
    modes = np.append(transversal_eigenvalues(graph), 1.0)
    ours = np.concatenate([np.linalg.eigvals(layer.skip + m * layer.through) for m in modes])
    theirs = list(np.linalg.eigvals(whole))
    for value in ours:  # as multisets
        nearest = int(np.argmin(np.abs(np.array(theirs) - value)))
        assert abs(theirs.pop(nearest) - value) < 1e-5


@pytest.mark.parametrize("norm", [norms.Unit(), norms.RMSNorm(eps=0.1), BIASED])
def test_derivatives_of_norms(norm):
    a, h = np.array([0.4, -2.0, 1.1]), 1e-6
    numeric = np.array([(norm.apply(a + e) - norm.apply(a - e)) / (2 * h) for e in h * np.eye(3)]).T
    assert np.allclose(norm.derivative(a), numeric, atol=1e-8)


@given(st.integers(2, 10), st.integers(0, 2**16), st.floats(0.05, 0.8))
def test_the_largest_transversal_eigenvalue_is_lambda_2(n, seed, density):
    rng = np.random.default_rng(seed)
    graph = masks.from_array((rng.random((n, n)) < density) | np.eye(n, dtype=bool))
    found = transversal_eigenvalues(graph)
    assert len(found) == n - 1
    second = lambda_2(graph)
    assert np.abs(found).max() == pytest.approx(second.value, abs=1e-9 + 1e3 * second.error)


# --- shared weights: measured = predicted to 1e-6 -------------------------------------------------

# Rates near 1 are followed for long enough in float64; faster ones by the log-scale engine, below.
SLOW = {
    "local": masks.local(16),
    "ring": masks.ring(24),
    "bigbird": masks.dilated(20, window=1, dilation=3),
}


@pytest.mark.parametrize("mask", SLOW)
@pytest.mark.parametrize(("norm", "placement"), [*PLACED[:3], (norms.RMSNorm(eps=0.0), "peri")])
def test_the_late_rate_of_orthogonal_values(mask, norm, placement):
    network = Weights(Gaussian(0.5), Orthogonal(), shared=True, seed=4)
    dynamics = dynsim.AttentionDynamics(SLOW[mask], network, norm, placement)
    x0 = near_consensus(dynamics.n_tokens, 3)
    predicted = predict(dynamics, x0)
    assert predicted.rate == pytest.approx(predicted.lambda_2.value, rel=1e-12)
    assert (predicted.method, predicted.standard_error) == ("multipliers", 0.0)
    run = simulate(dynamics, x0, 400, record=NOTHING)
    assert late_factor(run, 300, 400) == pytest.approx(predicted.rate, abs=1e-6)


@pytest.mark.parametrize(("w_1", "skip"), [(1.0, 0.0), (-1.0, 0.0), (1.0, 0.05)])
@pytest.mark.parametrize(("norm", "placement"), PLACED[:3])
def test_multipliers_relative_to_the_dominant_eigenvalue(w_1, skip, norm, placement):
    """lambda_2 w_2 / w_1 with a norm, lambda_2 rho(W_V) without, and their cousins with skip."""
    scaled = not isinstance(norm, norms.NoNorm)
    w_2 = 0.97 if scaled else 0.8  # the second to die out, or to be followed
    basis = np.array([[1.0, 0.4, 0.0], [0.2, 1.0, 0.3], [0.0, -0.5, 1.0]])
    W_V = np.linalg.solve(basis, np.diag([w_1, w_2, 0.2])) @ basis
    network = Weights(Zero(), FromArray(W_V), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.local(16), network, norm, placement, skip)
    x0 = basis[0] + 1e-3 * near_consensus(16, 3, size=1.0)  # basis[0]: left eigenvector of w_1
    predicted = predict(dynamics, x0)
    assert predicted.method == "multipliers"
    if not skip:
        expected = lambda_2(masks.local(16)).value * (w_2 if scaled else 1.0)
        assert predicted.rate == pytest.approx(expected, rel=1e-9)
    depth = 400
    run = simulate(dynamics, x0, depth, record=NOTHING)
    assert late_factor(run, depth - 50, depth) == pytest.approx(predicted.rate, abs=1e-6)


@pytest.mark.parametrize("skip", [0.0, 0.5])
def test_a_biased_layernorm_has_multipliers_at_its_fixed_point(skip):
    network = Weights(Zero(), Diagonal([1.0, 0.97, 1.02]), shared=True)
    norm = norms.LayerNorm(gain=[1.0, 1.1, 0.9], bias=np.array([0.03, 0.01, -0.02]), eps=0.01)
    dynamics = dynsim.AttentionDynamics(masks.local(12), network, norm, skip=skip)
    start = simulate(dynamics, np.tile([1.0, -0.5, 0.2], (12, 1)), 3000, record=NOTHING).final[0]
    x0 = start + 1e-3 * near_consensus(12, 3, size=1.0)
    predicted = predict(dynamics, x0)
    assert predicted.method == "multipliers"
    run = simulate(dynamics, x0, 400, record=NOTHING)
    usable = np.flatnonzero(run["mu"][0] > 1e4 * run.floor[0])
    assert late_factor(run, usable[-20], usable[-1]) == pytest.approx(predicted.rate, abs=1e-6)


def test_a_rotating_consensus_keeps_lambda_2_without_settling():
    """Complex dominant eigenvalues: the consensus token turns for ever."""
    turn = np.array([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
    network = Weights(Zero(), FromArray(turn), shared=True)
    plain = dynsim.AttentionDynamics(masks.local(12), network, norms.Unit())
    assert predict(plain, near_consensus(12, 2)).method == "multipliers"
    skipped = dynsim.AttentionDynamics(masks.local(12), network, norms.Unit(), skip=0.2)
    found = predict(skipped, near_consensus(12, 2))
    assert found.method == "Lyapunov"
    run = simulate(skipped, near_consensus(12, 2), 300, record=NOTHING)
    assert late_factor(run, 200, 300) == pytest.approx(found.rate, abs=1e-6)


@pytest.mark.parametrize("mask", [masks.causal(6), masks.sinks(8)], ids=["causal", "sinks"])
@pytest.mark.parametrize(
    ("norm", "placement", "skip"),
    [(norms.NoNorm(), "post", 0.0), (norms.Unit(), "post", 0.5), (norms.Unit(), "pre", 0.5),
     (BIASED, "post", 0.0), (BIASED, "post", 0.5)],
)  # fmt: skip
def test_fast_rates_far_below_the_floor(mask, norm, placement, skip):
    network = Weights(Gaussian(0.5), Orthogonal(), shared=True, seed=3)
    dynamics = dynsim.AttentionDynamics(mask, network, norm, placement, skip)
    x0 = near_consensus(dynamics.n_tokens, 3)
    run = simulate(dynamics, x0, 300, engine="logscale", record=NOTHING)
    measured = 10.0 ** ((run["log10_mu"][0, 300] - run["log10_mu"][0, 200]) / 100)
    assert measured == pytest.approx(predict(dynamics, x0).rate, abs=1e-6)


# --- fresh weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 4])
@pytest.mark.parametrize("sigma", [0.6, 1.0])
def test_lyapunov_exponents_of_gaussian_products(d, sigma):
    """gamma_k = log sigma + (log(2 / d) + digamma((d - k + 1) / 2)) / 2 (Newman, 1986).

    Without a norm the rate is lambda_2 e^gamma_1, with unit norm lambda_2 e^(gamma_2 - gamma_1).
    """
    gamma = [np.log(sigma) + 0.5 * (np.log(2 / d) + digamma((d - k + 1) / 2)) for k in (1, 2)]
    network = Weights(Zero(), Gaussian(sigma), seed=7)
    for norm, expected in ((norms.NoNorm(), gamma[0]), (norms.Unit(), gamma[1] - gamma[0])):
        dynamics = dynsim.AttentionDynamics(masks.causal(6), network, norm)
        found = predict(dynamics, near_consensus(6, d))
        assert found.method == "Lyapunov"
        assert 0 < found.standard_error < 0.05
        assert abs(np.log(2 * found.rate) - expected) < 4 * found.standard_error
        if isinstance(norm, norms.NoNorm):
            assert abs(np.log(found.growth) - gamma[0]) < 4 * found.standard_error
        else:
            assert found.growth == 1.0


@pytest.mark.parametrize(
    ("norm", "scales"), [(norms.NoNorm(), (1.3, 0.5)), (norms.Unit(), (1.05, 0.85))]
)
def test_growth_layer_by_layer_of_the_same_fresh_weights(norm, scales):
    """Along the layers met, measured = predicted to 1e-6, not only on average."""
    turns = Orthogonal().draw(400, 2, np.random.default_rng(4)).reshape(200, 2, 1, 2, 2)
    W_V = turns[:, 0] @ np.diag(scales) @ turns[:, 1]
    network = Weights(Zero(), FromArray(W_V))
    dynamics = dynsim.AttentionDynamics(masks.local(10), network, norm)
    x0 = near_consensus(10, 2, size=1e-5)
    run = simulate(dynamics, x0, 200, record=NOTHING)
    assert run["mu"][0, -1] > 1e4 * run.floor[0, -1]
    predicted = transversal_growth(dynamics, x0.mean(axis=0), 200)[0]
    assert predicted.std() > 0.01
    grown = np.diff(np.log(run["mu"][0]))
    assert np.allclose(grown[150:], predicted[150:], rtol=0, atol=1e-6)


# --- the complete graph ---------------------------------------------------------------------------


def exact_deviation(x0, M, W_V, depth, digits):
    """log mu at depths 0..depth, by iterating all of it with this many digits."""
    import mpmath

    with mpmath.workdps(digits):
        X, M, W_V = mpmath.matrix(x0.tolist()), mpmath.matrix(M), mpmath.matrix(W_V)
        n, found = X.rows, []
        for _ in range(depth + 1):
            means = [mpmath.fsum(X[:, a]) / n for a in range(X.cols)]
            Z = mpmath.matrix(n, X.cols)
            for i, a in product(range(n), range(X.cols)):
                Z[i, a] = X[i, a] - means[a]
            mu = mpmath.sqrt(mpmath.fsum(z**2 for z in Z))
            shape = np.array([[float(Z[i, a] / mu) for a in range(X.cols)] for i in range(n)])
            found.append((float(mpmath.log(mu)), shape, np.array([float(m) for m in means])))
            S = X * M * X.T
            A = mpmath.matrix(n, n)
            for i in range(n):
                weights = [mpmath.exp(S[i, j]) for j in range(n)]
                total = mpmath.fsum(weights)
                for j in range(n):
                    A[i, j] = weights[j] / total
            X = A * X * W_V
    return found


def test_the_cubic_law_with_its_coefficient():
    """log s' = 3 log s + log ||Z M Z^T Z / N W_V||_F, to the relative order of s."""
    rng = np.random.default_rng(3)
    M, W_V = rng.standard_normal((2, 3, 3)) * 0.6
    x0 = rng.standard_normal(3) * 0.5 + 0.1 * rng.standard_normal((5, 3))
    dynamics = dynsim.AttentionDynamics(masks.complete(5), dynsim.weights.Fixed(M, W_V))
    exact = exact_deviation(x0, M, W_V, 6, 800)
    assert exact[-1][0] < -600 * np.log(10)
    for (log_s, shape, token), (after, next_shape, _) in pairwise(exact):
        coefficient, shaped = cubic_step(dynamics, shape, token)
        tolerance = max(20 * np.exp(log_s), 1e-11 * abs(after))
        assert abs(3 * log_s + coefficient - after) < tolerance
        assert np.allclose(shaped, next_shape, atol=tolerance)
    K = shape @ M @ shape.T @ shape / 5 @ W_V
    assert coefficient == pytest.approx(np.log(np.linalg.norm(K - K.mean(axis=0))), abs=1e-12)


def test_what_is_predicted_for_the_complete_graph():
    network = Weights(Gaussian(), Orthogonal(), seed=1)
    found = predict(dynsim.AttentionDynamics(masks.complete(5), network), np.eye(5, 3))
    assert (found.rate, found.exponent) == (0.0, 3.0)
    assert "log mu triples" in str(found)
    at_once = predict(dynsim.AttentionDynamics(masks.complete(5), Identity()), np.eye(5, 3))
    assert at_once.exponent == np.inf
    with_skip = dynsim.AttentionDynamics(masks.complete(5), Identity(), skip=0.25)
    assert predict(with_skip, np.eye(5, 3)).rate == pytest.approx(0.25)
    assert predict(with_skip, np.eye(5, 3)).relative == pytest.approx(0.2)


def test_a_rate_that_cannot_last_says_so():
    network = Weights(Gaussian(), Diagonal(1.5), shared=True)
    found = predict(dynsim.AttentionDynamics(masks.local(8), network), np.eye(8, 2))
    assert not found.lasts
    assert "for as long as scores stay small" in str(found)


@pytest.mark.parametrize(
    ("change", "rule"),
    [({"mlp": GaussianMLP()}, "leave out the MLP"), ({"mask": masks.complete(1)}, "one token")],
)
def test_bad_input_is_refused(change, rule):
    parts = {"mask": masks.causal(4), "weights": Identity()} | change
    n = parts["mask"].number_of_nodes()
    with pytest.raises(ValueError, match=rule):
        predict(dynsim.AttentionDynamics(**parts), np.ones((n, 2)))
    with pytest.raises(ValueError, match="the cubic law needs"):
        cubic_step(dynsim.AttentionDynamics(masks.causal(4), Identity()), np.eye(4), np.ones(4))


@pytest.mark.parametrize(
    ("x0", "start", "rule"),
    [
        (np.ones(4), 0, r"\(N, d\) or \(samples, N, d\).* got shape \(4,\)"),
        (np.ones((0, 4, 2)), 0, r"none of them 0; got shape \(0, 4, 2\)"),
        (np.ones((4, 2)), -1, "first layer is a whole number, at least 0; got -1"),
        (np.ones((4, 2)), 3, "weights for 3 layers, from 0; got start = 3"),
    ],
)
def test_tokens_and_layers_that_cannot_be_are_refused(x0, start, rule):
    drawn = Weights(seed=1)
    layers = Layers(tuple(drawn.layer(t, 2) for t in range(3)))
    with pytest.raises(ValueError, match=rule):
        predict(dynsim.AttentionDynamics(masks.causal(4), layers), x0, start=start)


@pytest.mark.parametrize("mask", [masks.complete(4), masks.causal(4)], ids=["complete", "causal"])
def test_value_matrices_of_zero(mask):
    zero = Weights(Gaussian(), FromArray(np.zeros((2, 2))), shared=True)
    x0 = tokens.gaussian(1, 4, 2)
    found = predict(dynsim.AttentionDynamics(mask, zero), x0)
    assert (found.rate, found.growth, found.exponent) == (0.0, 0.0, np.inf)
    assert "mu is zero after one layer" in str(found)
    assert predict(dynsim.AttentionDynamics(mask, zero, skip=0.5), x0).rate == 0.5
    with pytest.raises(FloatingPointError, match=r"maps every token to zero .* divides by it"):
        predict(dynsim.AttentionDynamics(mask, zero, norms.Unit()), x0)


@pytest.mark.parametrize("shared", [True, False])
def test_the_consensus_token_grows_where_lambda_2_is_zero(shared):
    """|w_1| for shared W_V; for fresh ones as much as under a mask that has a rate."""
    network = Weights(Gaussian(), Gaussian(0.8), shared=shared, seed=4)
    x0 = tokens.gaussian(1, 5, 3)
    found = predict(dynsim.AttentionDynamics(masks.complete(5), network), x0)
    other = predict(dynsim.AttentionDynamics(masks.causal(5), network), x0)
    assert found.growth == pytest.approx(other.growth, rel=1e-12)
    assert found.relative == 0.0
    assert "doubly exponentially" in str(found)


# --- transient growth -----------------------------------------------------------------------------


def test_powers_of_the_deviation_walk_are_mu():
    graph = masks.causal_local(9, 2)
    run = simulate(dynsim.AttentionDynamics(graph, Identity()), tokens.gaussian(1, 9, 4), 20,
                   record=dynsim.Record(states=1))  # fmt: skip
    walk, deviation = deviation_walk(graph), run.states[0, 0] - run.states[0, 0].mean(axis=0)
    for t in range(21):
        expected = measures.mu(np.linalg.matrix_power(walk, t) @ deviation)
        assert run["mu"][0, t] == pytest.approx(expected, abs=1e-13)


def test_the_shoulder_of_the_window_that_looks_one_way():
    """Its walk has norm 1 or more for about as many layers as there are tokens."""
    growth = transient_growth(deviation_walk(masks.causal_local(32)))
    assert growth.complete
    walk = deviation_walk(masks.causal_local(32))
    norms_of_powers = [np.linalg.norm(np.linalg.matrix_power(walk, k), 2) for k in range(200)]
    assert growth.factor == pytest.approx(max(norms_of_powers), rel=1e-10)
    assert growth.power == int(np.argmax(norms_of_powers))
    assert str(transient_growth(np.eye(2), limit=5)).startswith("powers grow to norm at least 1,")


@given(st.integers(2, 5), st.integers(0, 2**16))
def test_the_kreiss_matrix_theorem(n, seed):
    """K <= max ||B^k|| <= e n K."""
    B = np.triu(np.random.default_rng(seed).standard_normal((n, n)))
    np.fill_diagonal(B, np.linspace(-0.8, 0.8, n))
    K, growth = kreiss_constant(B), transient_growth(B)
    assert growth.complete
    assert growth.factor * (1 + 1e-9) >= K
    assert growth.factor <= np.e * n * K


def test_a_prediction_shows_the_shoulder():
    one_way, plain = masks.causal_local(24), masks.complete(24)
    found = predict(dynsim.AttentionDynamics(one_way, Identity()), tokens.gaussian(1, 24, 2))
    walk = deviation_walk(one_way)
    assert found.transient == transient_growth(walk)
    assert 1.2 < found.kreiss == kreiss_constant(walk) < found.transient.factor
    words = f"largest ||P^t|| = {found.transient.factor:.4g} at t = {found.transient.power}"
    assert f"{words}, Kreiss constant {found.kreiss:.4g}" in str(found)
    none = predict(dynsim.AttentionDynamics(plain, Identity()), tokens.gaussian(1, 24, 2))
    assert none.kreiss == pytest.approx(1.0, abs=1e-9)
    assert "||P^t||" not in str(none)


@pytest.mark.parametrize("b", [0.1, 3.0, 50.0])
def test_the_kreiss_constant_of_a_nilpotent_matrix(b):
    """[[0, b], [0, 0]]: (z - B)^-1 has norm (b + sqrt(b^2 + 4 r^2)) / (2 r^2) on |z| = r."""
    radii = 1.0 + np.logspace(-3, 4, 70001)
    exact = max(1.0, ((radii - 1) * (b + np.sqrt(b * b + 4 * radii**2)) / (2 * radii**2)).max())
    assert kreiss_constant([[0.0, b], [0.0, 0.0]]) == pytest.approx(exact, rel=1e-6)


def test_the_kreiss_constant_turns_with_the_matrix():
    """e^ia B has the constant of B: here as a real matrix of twice the size, at any angle."""
    B = np.array([[0.9, 4.0], [0.0, 0.9]])
    expected = kreiss_constant(B)
    for angle in (0.3, 1.1, 2.9):
        turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        assert kreiss_constant(np.kron(turn, B)) == pytest.approx(expected, rel=1e-6)


def test_matrices_that_grow_for_ever_and_what_is_no_matrix():
    assert kreiss_constant(np.diag([0.5, -1.1])) == np.inf
    for function in (kreiss_constant, transient_growth):
        with pytest.raises(ValueError, match=r"square matrix, \(N, N\); got shape \(3, 2\)"):
            function(np.ones((3, 2)))
        with pytest.raises(ValueError, match="finite numbers"):
            function(np.full((2, 2), np.nan))


def test_the_kreiss_constant_on_a_fine_grid():
    B = np.array([[0.5, 4.0], [0.0, 0.5]])
    radii = 1.0 + np.logspace(-3, 1, 4001)
    norms_of_resolvents = [np.linalg.norm(np.linalg.inv(r * np.eye(2) - B), 2) for r in radii]
    assert kreiss_constant(B) == pytest.approx(max((radii - 1) * norms_of_resolvents), rel=1e-5)


# --- powers of t ----------------------------------------------------------------------------------


def measured_power(dynamics, x0, rate, layers=(1000, 2000)):
    """p of mu ~ t^p rate^t, from two depths of a run with log mu."""
    run = simulate(dynamics, x0, layers[1], engine="logscale", record=NOTHING)
    logs = run["log10_mu"][0] - np.arange(layers[1] + 1) * np.log10(rate)
    return (logs[layers[1]] - logs[layers[0]]) / np.log10(layers[1] / layers[0])


def jordan(size, norm=None, mask=None):
    """No scores, W_V one Jordan block with the eigenvalue 1, and tokens near consensus."""
    mask = mask or masks.causal_local(5, 1)
    W_V = np.eye(size) + 2.0 * np.eye(size, k=1)
    fixed = dynsim.weights.Fixed(np.zeros((size, size)), W_V)
    dynamics = dynsim.AttentionDynamics(mask, fixed, norm or norms.NoNorm())
    return dynamics, near_consensus(dynamics.n_tokens, size, size=0.1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_powers_of_the_walk_and_of_the_values_add_up(size):
    dynamics, x0 = jordan(size)
    found = predict(dynamics, x0)
    assert (found.rate, found.power, found.at_most, found.linear) == (0.5, size + 2, False, True)
    assert f"a factor 0.5 per layer times t^{size + 2} (" in str(found)
    assert measured_power(dynamics, x0, 0.5) == pytest.approx(found.power, abs=0.02)


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize(("mask", "walk"), [(masks.causal(5), 0), (masks.causal_local(5, 1), 3)])
def test_directions_along_a_jordan_block_come_together_like_t_to_the_minus_two(size, mask, walk):
    dynamics, x0 = jordan(size, norms.Unit(), mask)
    found = predict(dynamics, x0)
    assert (found.rate, found.power, found.at_most) == (0.5, walk - 2, False)
    assert measured_power(dynamics, x0, 0.5) == pytest.approx(found.power, abs=0.03)


def test_a_defective_value_matrix_in_another_basis_is_not_told():
    basis = np.random.default_rng(2).standard_normal((3, 3))
    W_V = basis @ (np.eye(3) + np.eye(3, k=1)) @ np.linalg.inv(basis)
    dynamics = dynsim.AttentionDynamics(masks.causal(4), dynsim.weights.Fixed(0 * W_V, W_V))
    found = predict(dynamics, near_consensus(4, 3))
    assert (found.power, found.at_most) == (2, True)
    assert 1e-8 < abs(found.rate - 0.5) < found.error < 1e-3
    assert "times t^k, k <= 2 not known" in str(found)
    assert f"± {found.error:.2g} per layer" in str(found)


def test_fresh_weights_keep_the_power_of_the_walk():
    dynamics = dynsim.AttentionDynamics(masks.causal_local(6), Weights(Zero(), Gaussian(), seed=2))
    found = predict(dynamics, near_consensus(6, 3))
    assert (found.method, found.power, found.at_most) == ("Lyapunov", 4, False)


def test_with_a_skip_connection_the_power_is_that_of_the_leading_mode():
    """skip + lambda w leads with lambda = 1/3, of which the window's walk has a block of 4."""
    shrinking = dynsim.AttentionDynamics(masks.causal_local(6, 2), Diagonal(-1.0), skip=1.0)
    found = predict(shrinking, np.eye(6, 2))
    assert (found.rate, found.power, found.at_most) == (pytest.approx(2 / 3), 3, False)
    plain = dynsim.AttentionDynamics(masks.causal_local(5, 1), Identity(), skip=0.5)
    x0 = near_consensus(5, 2)
    found = predict(plain, x0)
    assert (found.rate, found.power) == (1.0, 3)


def test_a_token_that_grows_like_t_brings_a_power_that_is_no_whole_number():
    """Pre-norm and skip 1: deviations go by 1 + lambda / t, so like t^lambda."""
    local = masks.local(8)
    dynamics = dynsim.AttentionDynamics(local, Identity(), norms.Unit(), "pre", skip=1.0)
    x0 = near_consensus(8, 2)
    found = predict(dynamics, x0)
    assert found.rate == pytest.approx(1.0)
    assert (found.power, found.at_most) == (1, True)
    assert measured_power(dynamics, x0, 1.0) == pytest.approx(lambda_2(local).value, abs=0.02)


# --- where a prediction holds ---------------------------------------------------------------------


@pytest.mark.parametrize(("w", "lasts"), [(1.5, False), (1.4, True), (0.9, True)])
def test_scores_that_grow_faster_than_mu_falls_end_a_prediction(w, lasts):
    """rate * growth = w^2 / 2 for two tokens under the causal mask."""
    dynamics = dynsim.AttentionDynamics(masks.causal(2), dynsim.weights.Fixed([[1.0]], [[w]]))
    x0 = np.array([[1.0], [1.0 + 1e-6]])
    found = predict(dynamics, x0)
    assert (found.lasts, found.linear) == (lasts, False)
    run = simulate(dynamics, x0, 400, engine="logscale", record=NOTHING)["log10_mu"][0]
    rate = 10.0 ** ((run[400] - run[300]) / 100)
    assert (abs(rate - found.rate) < 1e-3) == lasts


def test_a_linear_part_of_the_scores_counts_even_for_tokens_that_shrink():
    """With a query bias scores differ by mu alone, not by mu ||c||."""
    one = np.ones((1, 1, 1))
    layer = dynsim.weights.LayerWeights.from_matrices(0.0 * one, 1.2 * one)
    biased = layer._replace(query=0.0 * one, key=one, query_bias=np.ones((1, 1)))
    dynamics = dynsim.AttentionDynamics(masks.causal(3), Layers((biased,)))
    found = predict(dynamics, np.ones((3, 1)))
    assert (found.lasts, found.linear) == (True, False)
    assert predict(
        dynsim.AttentionDynamics(masks.causal(3), Layers((layer,))), np.ones((3, 1))
    ).linear


def test_a_consensus_that_repels_is_a_prediction_for_a_while():
    """skip + w = -.9 keeps the token's direction, skip = 1 lets deviations grow against it."""
    network = Weights(Gaussian(0.1), Diagonal(-1.9), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.complete(4), network, norms.Unit(), skip=1.0)
    found = predict(dynamics, near_consensus(4, 3))
    assert (found.rate > 1.0, found.lasts) == (True, False)
    assert "for as long as tokens stay near consensus" in str(found)


def test_the_cubic_law_is_not_claimed_for_nilpotent_values():
    """After d layers all tokens are zero."""
    nilpotent = np.eye(3, k=1)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    for W_V in (nilpotent, basis @ nilpotent @ basis.T):
        fixed = dynsim.weights.Fixed(np.eye(3), W_V)
        found = predict(dynsim.AttentionDynamics(masks.complete(4), fixed), near_consensus(4, 3))
        assert found.rate == 0
        assert np.isnan(found.exponent)
        assert "faster than exponentially" in str(found)


def test_defective_matrices_are_not_said_to_grow_for_ever():
    """Of this Jordan block, 0.95, computed eigenvalues lie outside the unit circle: rounding."""
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    B = turn @ (0.95 * np.eye(12) + 2.0 * np.eye(12, k=1)) @ turn.T
    assert np.abs(np.linalg.eigvals(B)).max() > 1 + 1e-9
    assert np.isfinite(kreiss_constant(B))


def test_growth_is_complete_only_where_rounding_leaves_no_doubt():
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    assert not transient_growth(turn, limit=50).complete  # norm 1 for ever, or just below
    assert transient_growth([[0.5, 1e12], [0.0, 0.5]]).complete
    assert not transient_growth([[1.0 - 1e-15, 1e-3], [0.0, 0.5]]).complete
    found = transient_growth(np.full((2, 2), 1e200))
    assert (found.power, found.complete) == (1, False)


def test_the_growth_of_a_deviation_is_right_from_the_first_layer_on():
    """Orthogonal values under a causal mask: each layer halves it, whatever it is at the start."""
    turning = dynsim.AttentionDynamics(masks.causal(6), Orthogonal())
    growth = transversal_growth(turning, np.ones(4), layers=3)
    np.testing.assert_allclose(growth, np.log(0.5), rtol=1e-12)
