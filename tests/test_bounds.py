"""Bounds on mu: never exceeded, sharp where they can be, and honest about their hypotheses."""

import math
from itertools import product

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dynsim
from dynsim import masks, norms, tokens
from dynsim.collapse.bounds import dobrushin, mu_bounds
from dynsim.network.weights import Diagonal, Fixed, Gaussian, Identity, Orthogonal, Weights, Zero

MASKS = {
    "complete": masks.complete,
    "causal": masks.causal,
    "local": masks.local,
    "causal-local": masks.causal_local,
    "sinks": masks.sinks,
    "star": masks.star,
    "ring": masks.ring,
}


CHEAP = dynsim.Record(measures=(), states=1)


def followed(dynamics, x0, depth):
    run = dynsim.simulate(dynamics, x0, depth, record=CHEAP)
    return run, mu_bounds(dynamics, x0, depth, patience=0.1)


def spherical(samples, n, d, seed, positive=False):
    x = tokens.sphere(samples, n, d, seed)
    return np.abs(x) if positive else x


@pytest.mark.parametrize("name", MASKS)
def test_measured_mu_never_exceeds_a_bound(name):
    """Random systems: masks, norms, value families, shared or fresh, 4 starts each.

    What lies under the floating-point floor of mu is rounding, not mu. (The storm of bounds has
    many digits instead.)
    """
    met = dict.fromkeys(dynsim.bounds.BOUNDS, 0)
    cases = product((norms.NoNorm(), norms.Unit()), (Orthogonal(), Gaussian()), (True, False),
                    (0.5, 4.0), (3, 7))  # fmt: skip
    for seed, (norm, value, shared, heat, d) in enumerate(cases):
        network = Weights(Gaussian(heat), value, shared=shared, seed=seed)
        dynamics = dynsim.AttentionDynamics(MASKS[name](6), network, norm)
        if isinstance(norm, norms.Unit):
            x0 = spherical(4, 6, d, seed, positive=seed % 2 == 0)
        else:
            x0 = tokens.gaussian(4, 6, d, seed)
        run, found = followed(dynamics, x0, 12)
        for key, proved in found.items():
            applies = proved.applies
            bound = 10.0 ** proved.log10_bound[applies] * (1 + 1e-9)
            assert np.all(run["mu"][applies] <= bound + run.floor[applies]), (key, seed)
            met[key] += int(applies.sum())
    assert min(count for key, count in met.items() if key != "WU theorem 2") >= 10, met
    strongly = dynsim.connectivity.is_strongly_connected(MASKS[name](6))
    assert (met["WU theorem 2"] > 0) == strongly


@given(st.integers(2, 6), st.integers(0, 2**16), st.floats(0.1, 0.9), st.booleans())
def test_random_masks_too(n, seed, density, unit):
    rng = np.random.default_rng(seed)
    graph = masks.from_array((rng.random((n, n)) < density) | np.eye(n, dtype=bool))
    network = Weights(Gaussian(2.0), Orthogonal(), seed=seed)
    dynamics = dynsim.AttentionDynamics(graph, network, norms.Unit() if unit else norms.NoNorm())
    run, found = followed(dynamics, spherical(3, n, n, seed), 8)
    for proved in found.values():
        applies = proved.applies
        bound = 10.0 ** proved.log10_bound[applies] * (1 + 1e-9)
        assert np.all(run["mu"][applies] <= bound + run.floor[applies])


def test_two_tokens_under_the_causal_mask_meet_the_bound_with_equality():
    """eps = 1/2, r = 1, tau = 1/2, and mu is the diameter / sqrt 2: nothing is given away."""
    network = Weights(Zero(), Diagonal(0.9), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.causal(2), network)
    run, _ = followed(dynamics, tokens.gaussian(3, 2, 4), 20)
    found = mu_bounds(dynamics, tokens.gaussian(3, 2, 4), 20, window=1)
    for name in ("WU theorem 1", "Dobrushin"):
        assert np.allclose(found[name].log10_bound, np.log10(run["mu"]), rtol=0, atol=1e-9)


def test_longer_windows_are_sharper():
    dynamics = dynsim.AttentionDynamics(masks.local(8), Weights(Gaussian(), Identity(), seed=1))
    x0 = tokens.gaussian(2, 8, 3)
    run, longest = followed(dynamics, x0, 40)
    ends = [
        mu_bounds(dynamics, x0, 40, window=w)["Dobrushin"].log10_bound[:, -1] for w in (1, 4, 20)
    ]
    ends.append(longest["Dobrushin"].log10_bound[:, -1])
    assert np.all(np.diff(ends, axis=0) < 0)
    assert np.all(ends[-1] > np.log10(run["mu"][:, -1]))


def test_the_bound_on_cosines_from_its_formula():
    network = Weights(Gaussian(), Orthogonal(), shared=True, seed=3)
    dynamics = dynsim.AttentionDynamics(masks.local(5), network, norms.Unit())
    x0 = spherical(1, 5, 6, 3, positive=True)
    run, found = followed(dynamics, x0, 12)
    allowed = dynamics.allowed()
    layer = network.layer(0, 6)
    smallest = [
        naive.attention_matrix(x, layer.M[0], allowed)[allowed].min() for x in run.states[0, :-1]
    ]
    phi, n = min(naive.cosines(x0[0])), 5
    for name, r, centers in (("WU theorem 2", 4, n), ("WU corollary 1", 2, 1)):
        for t in range(1, 13):
            eps = min(smallest[:t], default=1.0)
            share = (1 - centers * eps ** (2 * r)) ** (t // r)
            expected = math.sqrt((n - 1) * share * (1 - phi))
            assert 10 ** found[name].log10_bound[0, t] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["causal", "local", "complete", "causal-local"])
def test_the_bound_of_independent_rows_from_its_formula(name):
    """The pole by least squares, eps from the run, centers by powers of the mask."""
    n, depth = 4, 200
    network = Weights(Gaussian(0.2), Orthogonal(), shared=True, seed=3)
    dynamics = dynsim.AttentionDynamics(MASKS[name](n), network, norms.Unit())
    x0 = spherical(1, n, 6, 3)
    run, found = followed(dynamics, x0, depth)
    allowed, layer = dynamics.allowed(), network.layer(0, 6)
    smallest = [
        naive.attention_matrix(x, layer.M[0], allowed)[allowed].min() for x in run.states[0, :-1]
    ]
    h = 1 / np.linalg.norm(np.linalg.lstsq(x0[0], np.ones(n), rcond=None)[0])
    ends = []
    for r in range(1, n):
        reached = np.linalg.matrix_power(allowed.astype(int), r) > 0
        centers = int(reached.all(axis=0).sum())
        E = max(np.linalg.norm(a - b) for a in x0[0] for b in x0[0]) / h
        for t in range(r, depth + 1, r):
            E *= 1 - centers * min(smallest[:t]) ** r * max(h, 1 - E)
        ends.append(math.sqrt((n - 1) / 2) * E)
    assert min(ends) < 0.9 * math.sqrt(n)
    one = found["independent rows"]
    assert one.constants["h"][0] == pytest.approx(h)
    assert 10 ** one.log10_bound[0, -1] == pytest.approx(min(ends), rel=1e-9)
    assert one.constants["first layer"][0] == 0


def test_independent_rows_need_no_acute_angles():
    """WU's Theorem 2 has no constant before all cosines are >= 0; this one has, at once."""
    x0 = np.eye(3)[None] - 0.2
    x0 /= np.linalg.norm(x0, axis=2, keepdims=True)
    assert min(naive.cosines(x0[0])) < 0
    found = mu_bounds(
        dynsim.AttentionDynamics(masks.causal(3), Weights(Zero(), Identity()), norms.Unit()),
        x0,
        60,
    )
    assert found["independent rows"].constants["first layer"][0] == 0
    assert found["independent rows"].log10_bound[0, -1] < -1
    x0[0, 2] = (x0[0, 0] + x0[0, 1]) / np.linalg.norm(x0[0, 0] + x0[0, 1])
    found = mu_bounds(
        dynsim.AttentionDynamics(masks.causal(3), Weights(Zero(), Identity()), norms.Unit()), x0, 6
    )
    assert "the tokens are not proved to be linearly independent" in str(found["independent rows"])


def test_theorem_2_takes_the_diameter():
    """Window 1, three tokens: radius 1, diameter 2. With the radius WU's step would be phi' >=
    3 eps^2 from orthogonal tokens; tokens 1 and 3 share one center only, and have less."""
    local = masks.local(3)
    assert (dynsim.connectivity.radius(local), dynsim.connectivity.diameter(local)) == (1, 2)
    to_itself = Fixed(2.0 * np.eye(3), np.eye(3))
    dynamics = dynsim.AttentionDynamics(local, to_itself, norms.Unit())
    run, found = followed(dynamics, np.eye(3)[None], 4)
    assert found["WU theorem 2"].constants["r"] == 2
    eps = dynamics.attention(np.eye(3))[0][dynamics.allowed()].min()
    assert min(naive.cosines(run.states[0, 1])) < 3 * eps**2
    assert min(naive.cosines(run.states[0, 2])) >= 3 * eps**4


@given(st.integers(2, 6), st.integers(0, 2**16))
def test_dobrushin_is_its_definition(n, seed):
    P = np.random.default_rng(seed).dirichlet(np.full(n, 0.3), size=n)
    expected = max(
        0.5 * sum(abs(P[i, j] - P[k, j]) for j in range(n)) for i in range(n) for k in range(n)
    )
    assert dobrushin(P) == pytest.approx(expected, abs=1e-15)
    assert dobrushin(P[None, None]).shape == (1, 1)


@pytest.mark.parametrize(
    ("P", "rule"),
    [
        ([0.5, 0.5], r"square, \(\.\.\., N, N\); got shape \(2,\)"),
        ([[1.0, 2.0], [0.5, 0.5]], "sum to 1; got entries from 0.5 and sums from 1 to 3"),
        ([[2.0, -1.0], [0.0, 1.0]], "at least 0 .* got entries from -1"),
        ([[np.nan, 1.0], [0.0, 1.0]], "got entries from nan"),
    ],
)
def test_what_is_not_row_stochastic_has_no_coefficient(P, rule):
    with pytest.raises(ValueError, match=rule):
        dobrushin(P)


def test_a_token_of_size_zero_has_no_bound_under_unit_norm():
    x0 = np.ones((2, 4, 2))
    x0[1, 2] = 0.0
    dynamics = dynsim.AttentionDynamics(masks.causal(4), Identity(), norms.Unit())
    with pytest.raises(ValueError, match=r"Unit divides .* token 2 of sample 1 has none"):
        mu_bounds(dynamics, x0, 3)


@given(st.integers(2, 7), st.integers(2, 4), st.integers(0, 2**16))
def test_the_pole_has_the_largest_margin(n, d, seed):
    """Against many directions, and against the test of Gordan's alternative: 0 in the hull."""
    from scipy.optimize import linprog

    from dynsim.collapse.contraction import pole as _pole

    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) + 0.5
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    pole = _pole(x)
    inside = linprog(np.zeros(n), A_eq=np.vstack([x.T, np.ones(n)]), b_eq=[*np.zeros(d), 1.0])
    assert (pole is None) == inside.success
    if pole is not None:
        others = rng.standard_normal((500, d))
        others /= np.linalg.norm(others, axis=1, keepdims=True)
        best = (others @ x.T).min(axis=1).max()
        assert (x @ pole).min() >= best - 1e-12


@pytest.mark.parametrize("unit", [True, False])
def test_balls_hold_the_layer_the_chart_and_the_norms(unit, rng):
    """Attention, tokens, p' = A~ p W_V and spectral norms, against numpy."""
    from dynsim.collapse import enclosures

    flint = enclosures.ball_arithmetic()
    network = Weights(Gaussian(2.0), Orthogonal() if unit else Gaussian(), seed=5)
    norm = norms.Unit() if unit else norms.NoNorm()
    dynamics = dynsim.AttentionDynamics(masks.sinks(6), network, norm)
    x = spherical(1, 6, 4, 5, positive=True)[0]
    layer = enclosures.LayerBalls(network.layer(0, 4), flint)
    W_V = network.layer(0, 4).W_V[0]
    assert layer.log_value == pytest.approx(np.log(np.linalg.norm(W_V, 2)), abs=1e-12)
    assert layer.log_value >= np.log(np.linalg.norm(W_V, 2)) - 1e-15
    neighbours = [np.flatnonzero(row) for row in dynamics.allowed()]
    balls = enclosures.Balls(x, neighbours, unit, flint)
    v = rng.random(4)
    balls.pole = flint.arb_mat(v[:, None].tolist())
    rows, least = balls.attention(layer)
    A = dynamics.attention(x)[0]
    assert np.allclose(enclosures.Attention.from_balls(rows, neighbours, least).matrix, A)
    assert least == pytest.approx(np.log(A[dynamics.allowed()].min()))
    chart = enclosures.Attention.from_balls(balls.reweighted(rows), neighbours, 0.0).matrix
    p = x / (x @ v)[:, None]
    balls.advance(rows, layer)
    assert np.allclose(balls.midpoints(), dynamics.step(x), atol=1e-14)
    height = np.array([float(h.mid()) for h in balls.heights()])[:, None]
    assert np.allclose(balls.midpoints() / height, chart @ p @ W_V, atol=1e-12)


@given(st.integers(2, 5), st.integers(0, 2**16), st.floats(-6, 0))
def test_attention_near_consensus_lies_within_its_bound(n, seed, log10_delta):
    from dynsim.collapse import enclosures

    rng = np.random.default_rng(seed)
    x = rng.standard_normal(3) + 10**log10_delta * rng.standard_normal((n, 3))
    dynamics = dynsim.AttentionDynamics(masks.causal(n), Weights(Gaussian(), seed=seed))
    layer = enclosures.LayerBalls(dynamics.weights.layer(0, 3), enclosures.ball_arithmetic())
    size = np.log(np.linalg.norm(x, axis=1).max())
    delta = max(np.linalg.norm(a - b) for a in x for b in x)
    sigma = layer.score_range(size, np.log(delta))
    A = dynamics.attention(x)[0]
    near = enclosures.Attention.near_uniform(dynamics.allowed(), sigma)
    assert np.abs(A - near.matrix).sum(axis=1).max() <= near.error
    assert np.log(A[dynamics.allowed()].min()) >= near.log_least - 1e-12


def test_bounds_of_growing_tokens_come_from_the_exact_run():
    """Once mu is under 1e-16 of ||X||, scores of plain floating-point states are rounding."""
    network = Weights(Gaussian(0.3), Gaussian(1.3), shared=True, seed=5)
    dynamics = dynsim.AttentionDynamics(masks.star(6), network)
    x0 = tokens.gaussian(1, 6, 4, seed=5)
    found = mu_bounds(dynamics, x0, 80)
    run = dynsim.simulate(dynamics, x0, 80, engine="logscale")
    assert np.allclose(run["log10_mu"], found.log10_mu, rtol=0, atol=1e-9)
    assert np.all(found["Dobrushin"].log10_bound >= run["log10_mu"])
    assert found["Dobrushin"].log10_bound[0, -1] < -13


def test_without_digits_a_bound_stays_where_it_is():
    network = Weights(Gaussian(30.0), Gaussian(4.0), seed=2)
    dynamics = dynsim.AttentionDynamics(masks.local(5), network)
    x0 = tokens.gaussian(1, 5, 3, seed=2)
    poor, rich = (mu_bounds(dynamics, x0, 60, patience=p)["Dobrushin"] for p in (0, 10))
    assert poor.log10_bound[0, -1] >= rich.log10_bound[0, -1]


def test_logarithms_neither_underflow_nor_overflow():
    network = Weights(Zero(), Diagonal(1e-5), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.causal_local(48), network)
    found = mu_bounds(dynamics, tokens.gaussian(1, 48, 2), 100)["WU theorem 1"]
    assert np.isfinite(found.log10_bound).all()
    assert found.log10_bound[0, -1] == pytest.approx(found.log10_bound[0, 0] - 500, abs=1e-9)


REASONS = {
    "there are 2 heads": {"weights": Weights(Gaussian(), Orthogonal(), n_heads=2)},
    "there is a skip connection": {"skip": 1.0},
    "it is for unit norm": {"norm": norms.LayerNorm()},
    "it is for a norm after attention": {"placement": "pre"},
    "W_V of layer 0 is not orthogonal": {"weights": Weights(Gaussian(), Gaussian())},
    "the mask has no center node": {"mask": masks.from_array(np.eye(4))},
    "some token does not attend to itself": {"mask": masks.from_array(1 - np.eye(4))},
    "the mask is not strongly connected": {"mask": masks.causal(4)},
    "it needs N <= d; N = 4, d = 2": {"x0": spherical(1, 4, 2, 0)},
    "the tokens have rank 1 at the start": {"x0": np.ones((1, 4, 4)) / 2.0},
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_bound_says_why_it_does_not_apply(reason):
    case = {"mask": masks.complete(4), "weights": Weights(Gaussian(), Orthogonal()),
            "norm": norms.Unit()} | REASONS[reason]  # fmt: skip
    x0 = case.pop("x0", spherical(1, 4, 4, 0))
    found = followed(dynsim.AttentionDynamics(**case), x0, 3)[1]["WU theorem 2"]
    assert np.isnan(found.log10_bound).all()
    assert not found.applies.any()
    assert reason in str(found)


def test_negative_cosines_are_named():
    x0 = np.eye(4)[None].copy()
    x0[0, 3] = -x0[0, 1]
    to_itself = Fixed(40.0 * np.eye(4), np.eye(4))  # each token attends to itself, all but
    dynamics = dynsim.AttentionDynamics(masks.complete(4), to_itself, norms.Unit())
    found = mu_bounds(dynamics, x0, 1, patience=0)
    assert "does not apply: tokens 1 and 3 have negative cosine, -1" in str(found)
    x0[0, 2] = -x0[0, 0]
    found = mu_bounds(dynamics, x0, 1, patience=0)
    assert "hemisphere: does not apply: the tokens lie in no hemisphere" in str(found)


def test_samples_are_judged_one_by_one():
    dynamics = dynsim.AttentionDynamics(masks.local(4), Weights(Zero(), Identity()), norms.Unit())
    x0 = spherical(2, 4, 4, 1, positive=True)
    x0[1] = np.array([[1, 0, 0, 0], [-1, 0, 0, 0], [1, 0, 0, 0], [-1, 0, 0, 0]])
    found = mu_bounds(dynamics, x0, 1, patience=0)["WU corollary 1"]
    assert list(found.applies) == [True, False]
    assert "does not apply to 1 of 2 samples (sample 1: tokens" in str(found)


@pytest.mark.parametrize(
    ("x0", "options", "rule"),
    [
        (np.ones((2, 3, 2)), {}, "the mask is for 4 tokens"),
        (np.ones((4, 2)), {"window": 0}, "window is a whole number"),
        (np.ones((4, 2)), {"depth": 0}, "depth is a whole number"),
    ],
)
def test_bad_input_is_refused(x0, options, rule):
    dynamics = dynsim.AttentionDynamics(masks.causal(4), Identity())
    with pytest.raises(ValueError, match=rule):
        mu_bounds(dynamics, x0, **{"depth": 2} | options)
    with pytest.raises(ValueError, match="one token"):
        mu_bounds(dynsim.AttentionDynamics(masks.causal(1), Identity()), np.ones((1, 1, 2)), 2)
