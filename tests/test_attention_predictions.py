"""Influence, critical scale, late speeds, bounds from scores and Jacobians between layers: against
naive sums, automatic differentiation, runs and the lemmas' own formulas.
"""

import inspect
import math
from fractions import Fraction

import naive
import numpy as np
import pytest
import sympy

import dynsim
from dynsim import (
    AttentionDynamics,
    critical,
    influence,
    masks,
    measures,
    norms,
    sensitivity,
    simulate,
    speeds,
    tokens,
)
from dynsim import score_bounds as scores
from dynsim.network.weights import Diagonal, Fixed, Gaussian, Identity, Orthogonal, Weights, Zero
from theory import lemmas

LEMMAS = lemmas()
COMPLETE, CAUSAL = masks.complete(6), masks.causal(6)


def claimed(lemma, argument):
    """What a lemma claims: the default of its check's argument."""
    return inspect.signature(LEMMAS[lemma].check).parameters[argument].default


def attending(mask, n, d, seed=0, **options):
    return AttentionDynamics(mask, Weights(Gaussian(1.5), Gaussian(), seed=seed), **options)


# --- influence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [0.0, 1.5])
def test_the_influence_of_a_run_is_the_sum_over_its_paths(skip):
    dynamics = attending(masks.causal(4), 4, 3, norm=norms.Unit(), skip=skip)
    x = tokens.gaussian(1, 4, 3)[0]
    run = simulate(dynamics, x, 3, record=dynsim.Record(measures=(), states=1))
    layers = [
        naive.attention_matrix(run.states[0, t], dynamics.weights.layer(t, 3).M[0], np.tri(4) > 0)
        for t in range(3)
    ]
    A = influence.attention_of_run(dynamics, x, 3)
    assert np.allclose(A[:, 0], layers, rtol=1e-9)
    found = influence.influence_of_run(dynamics, x, 3)
    assert np.allclose(found, naive.influence(layers, [skip] * 3), rtol=1e-9)


def test_influence_counts_the_weights_of_skip_and_branch():
    from dynsim.network.residual import by_layer

    skip, branch = [1.0, 2.0], [0.5, 4.0]
    weighted = AttentionDynamics(masks.causal(4), Identity(), skip=by_layer(skip, branch))
    C = np.tri(4) / np.arange(1, 5)[:, None]
    found = influence.influence_of_run(weighted, np.eye(4), 2)
    assert np.allclose(found, naive.influence([C, C], [2.0, 0.5]), rtol=1e-12)
    negative = AttentionDynamics(masks.causal(4), Identity(), skip=by_layer([1.0], [-1.0]))
    with pytest.raises(ValueError, match="above 0"):
        influence.influence_of_run(negative, np.eye(4), 1)


def test_influence_is_the_derivative_where_layers_only_average():
    """W_V = I, M = 0, no norm: with the skip's and the branch's weights summing to 1."""
    dynamics = AttentionDynamics(masks.causal(5), Identity(), skip=2.0)
    x = tokens.gaussian(1, 5, 2)[0]
    J = np.eye(10)
    for t in range(4):
        x_next, slope = dynsim.jacobian.linearise(dynamics, x, t)
        J, x = slope.reshape(10, 10) @ J, x_next
    shares = J.reshape(5, 2, 5, 2)[:, 0, :, 0] / 3.0**4
    assert np.allclose(influence.influence_of_run(dynamics, x, 4), shares, rtol=1e-12)
    assert np.allclose(shares[-1], measures.uniform_causal_influence(5, 4, 2.0), rtol=1e-12)


@pytest.mark.parametrize("skip", [0.0, 0.4, [0.0, 3.0, 1.0, 0.1]])
def test_no_run_exceeds_the_bound_of_its_influence(skip):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        A = np.tril(rng.random((4, 7, 7)) + 0.05)
        A /= A.sum(axis=-1, keepdims=True)
        eps = A[:, np.tri(7) > 0].min()
        left = measures.position_influence(A, skip)[:, ::-1].cumsum(axis=1)[:, ::-1]
        assert np.all(left <= influence.influence_bound(7, 4, eps, skip) * (1 + 1e-12))


def test_the_bound_of_influence_is_the_lemmas_and_is_attained():
    factor = claimed("influence-bound", "left")
    expected = [float(factor(Fraction(1, 2), j, Fraction(1, 9)) ** 3) for j in range(1, 6)]
    assert influence.influence_bound(5, 3, 1 / 9, 0.5) == pytest.approx(expected, rel=1e-14)
    eps, n = 0.1, 4  # token N attends to all others as little as can be: shares of N itself
    A = np.tril(np.full((n, n), eps))
    A[np.diag_indices(n)] = 1.0 - eps * np.arange(n)
    left = measures.position_influence([A] * 3)[-1, -1]
    assert influence.influence_bound(n, 3, eps)[-1] == pytest.approx(left, rel=1e-14)


@pytest.mark.parametrize("eps", [0.0, 0.3, -0.1, np.nan])
def test_an_eps_that_cannot_be_is_refused(eps):
    with pytest.raises(ValueError, match="at most 1 / N"):
        influence.influence_bound(5, 3, eps)


def test_one_state_at_a_time():
    with pytest.raises(ValueError, match="one state"):
        influence.attention_of_run(attending(CAUSAL, 6, 3), tokens.gaussian(2, 6, 3), 2)


@pytest.mark.parametrize("n", [2, 5])
def test_the_closed_form_is_the_lemmas(n):
    closed = claimed("influence", "closed")
    f = lambda c: ((2 + c) / 3) ** 4  # noqa: E731
    expected = [float(closed(n, j, f)) for j in range(1, n + 1)]
    assert measures.uniform_causal_influence(n, 4, 2.0) == pytest.approx(expected, rel=1e-14)


# --- the critical scale ---------------------------------------------------------------------------


def equiangular(n, rho):
    """n unit tokens of equal cosines, by a Cholesky factor."""
    return np.linalg.cholesky((1 - rho) * np.eye(n) + rho)


@pytest.mark.parametrize("n", [3, 8])
@pytest.mark.parametrize("rho", [-0.1, 0.3, 0.9])
@pytest.mark.parametrize("skip", [0.0, 0.7])
def test_an_equiangular_layer_is_a_layer(n, rho, skip):
    beta = 2.3
    dynamics = AttentionDynamics(
        masks.complete(n), Fixed(beta * np.eye(n), np.eye(n)), norms.Unit(), skip=skip
    )
    x = equiangular(n, rho)
    after = dynamics.step(x)
    cosines = (after @ after.T)[np.triu_indices(n, 1)]
    assert critical.equiangular_layer(n, rho, beta, skip) == pytest.approx(cosines, rel=1e-12)
    assert critical.own_weight(n, rho, beta) == pytest.approx(dynamics.attention(x)[0, 0, 0])


def test_the_critical_scale_is_where_the_limit_jumps():
    rho = np.array([0.1, 0.5, 0.8])
    gamma = critical.critical_scale(rho)
    n = 10**12
    for share in (0.8, 1.0, 1.25):
        limit = critical.limit_of_spread(rho, share * gamma)
        found = critical.spread(n, rho, share * gamma * math.log(n))
        assert np.allclose(found, limit, atol=0.02)
    expected = [float(claimed("critical-scale", "critical")(sympy.Rational(str(r)))) for r in rho]
    assert np.allclose(critical.limit_of_spread(rho, gamma), expected, rtol=1e-12)
    beta = critical.critical_scale(rho, n=50) * math.log(50)
    assert np.allclose(critical.own_weight(50, rho, beta), 0.5, rtol=1e-12)


def test_cosines_that_cannot_be_are_refused():
    for call in (
        lambda: critical.own_weight(5, 1.0, 1.0),
        lambda: critical.own_weight(5, -0.3, 1.0),
        lambda: critical.critical_scale(1.5),
        lambda: critical.limit_of_spread(-0.1, 1.0),
    ):
        with pytest.raises(ValueError, match="cosines"):
            call()


# --- late speeds ----------------------------------------------------------------------------------


def flow(placement, mask=COMPLETE, skip=1.0, w=1.0, norm=norms.Unit()):  # noqa: B008
    value = Fixed(0.8 * np.eye(3), w * np.eye(3))
    return AttentionDynamics(mask, value, norm, placement, skip=skip)


def deficit(dynamics, depth, seed=3):
    """1 - cos by depth, in the mean over pairs, from tokens in one half space: by differences of
    directions, which lose no digits."""
    x0 = tokens.sphere(1, dynamics.n_tokens, 3, seed) * 0.5 + np.array([1.0, 0.0, 0.0])
    run = simulate(dynamics, x0, depth, record=dynsim.Record(measures=(), states=1))
    directions = run.states[0] / np.linalg.norm(run.states[0], axis=-1, keepdims=True)
    return measures.mu(directions) ** 2 / (dynamics.n_tokens - 1)


#: With its walk's second eigenvalue. Of two tokens, for others have eigenvalues nearby.
MASKS = {"complete": (COMPLETE, 0.0), "causal": (masks.causal(2), 0.5)}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("skip", "w"), [(1.0, 1.0), (4.0, 1.0), (4.0, 2.5)])
def test_post_norm_falls_exponentially_at_the_predicted_rate(mask, skip, w):
    mask, lam = MASKS[mask]
    law = speeds.late_speed(flow("post", mask, skip, w), 3)
    assert law.kind == "exponential"
    depth = int(45.0 / law.rate * skip)
    fall = np.log(deficit(flow("post", mask, skip, w), depth))
    measured = (fall[depth // 2] - fall[depth]) / (law.step * (depth - depth // 2))
    assert measured == pytest.approx(law.rate, rel=1e-4)
    limit = 2 * w * (1 - lam)
    assert speeds.late_speed(flow("post", mask, 1e5, w), 3).rate == pytest.approx(limit, rel=1e-4)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("placement", ["pre", "peri"])
def test_pre_and_peri_norm_fall_as_a_power(mask, placement):
    mask, lam = MASKS[mask]
    law = speeds.late_speed(flow(placement, mask), 3)
    assert law.kind == "algebraic"
    assert law.rate == pytest.approx(2 * (1 - lam), rel=1e-12)
    fall = deficit(flow(placement, mask), 4000)
    slope = np.log(fall[4000] / fall[2000]) / np.log(2.0)
    assert -slope == pytest.approx(law.rate, rel=0.01)


@pytest.mark.parametrize("skip", [0.5, 1.5])
def test_pre_norm_with_another_skip(skip):
    dynamics = flow("pre", skip=skip)
    law = speeds.late_speed(dynamics, 3)
    fall = np.log(deficit(dynamics, 24))
    if skip > 1:
        assert law.kind == "none"
        assert abs(fall[24] - fall[20]) < 1e-3
    else:
        measured = (fall[14] - fall[18]) / (law.step * 4)
        assert measured == pytest.approx(law.rate, rel=0.01)


def test_a_weighted_branch_is_a_step_and_ngpt_takes_its_size_away():
    from dynsim.network.residual import lerp

    post = AttentionDynamics(
        COMPLETE, Fixed(0.8 * np.eye(3), np.eye(3)), norms.Unit(), skip=lerp(0.2)
    )
    assert speeds.flow_times(post, 2) == pytest.approx([0.0, 0.25, 0.5])
    assert speeds.late_speed(post, 3).rate == pytest.approx(
        speeds.late_speed(flow("post", skip=4.0), 3).rate
    )
    ngpt = AttentionDynamics(
        COMPLETE, Fixed(0.8 * np.eye(3), 3.0 * np.eye(3)), norms.Unit(), "ngpt", skip=lerp(0.2)
    )
    law = speeds.late_speed(ngpt, 3)
    fall = np.log(deficit(ngpt, 60))
    assert (fall[40] - fall[60]) / (20 * law.step) == pytest.approx(law.rate, rel=1e-4)


def test_flow_times_and_refusals():
    assert speeds.flow_times(flow("post", skip=5.0), 3) == pytest.approx([0, 0.2, 0.4, 0.6])
    bad = {
        "a step of a flow": flow("post", skip=0.0),
        "only scales": flow("post", norm=norms.LayerNorm()),
        "defective": flow("post", masks.causal_local(6, 1)),
    }
    for words, dynamics in bad.items():
        with pytest.raises(ValueError, match=words):
            speeds.late_speed(dynamics, 3)
    other = AttentionDynamics(COMPLETE, Diagonal([1.0, 0.5, 1.0]), norms.Unit(), skip=1.0)
    with pytest.raises(ValueError, match="W_V = w I"):
        speeds.late_speed(other, 3)


def test_the_interaction_energy_never_falls_along_small_steps():
    beta = 3.0
    dynamics = AttentionDynamics(
        COMPLETE, Fixed(beta * np.eye(3), np.eye(3)), norms.Unit(), skip=50.0
    )
    record = dynsim.Record(measures=("interaction_energy", "clusters"), stride=1, states=1)
    run = simulate(dynamics, tokens.sphere(2, 6, 3), 600, record=record)
    energy = measures.interaction_energy(run.states, beta)
    assert np.all(np.diff(energy, axis=1) > -1e-12)
    assert np.all(run["interaction_energy"] <= math.e / 2 + 1e-12)
    assert np.all(energy[:, -1] > 1.2 * energy[:, 0])
    assert np.all(energy <= math.exp(beta) / (2 * beta) + 1e-12)


# --- bounds from scores ---------------------------------------------------------------------------


def test_the_floor_of_attention_is_attained_and_the_lemmas():
    B, n = 0.7, 5
    row = np.full(n, B)
    row[0] = -B
    least = naive.softmax_row(row, np.ones(n, bool))[0]
    assert scores.attention_floor(B, n) == pytest.approx(least, rel=1e-14)
    floor = claimed("walk-floor", "floor")
    expected = min(float(floor(m, math.exp(2 * B))) for m in (1, 4))
    assert scores.walk_floor(B, [2, 5]) == pytest.approx(expected, rel=1e-14)
    assert scores.walk_floor(B, [1, 5, 10**9]) >= math.exp(-2 * B)


def bounded_run(mask, B, seed, depth, d=4, norm=norms.NoNorm()):
    """mu of layers whose scores are random within +-B, and W_V orthogonal: by matrices alone."""
    rng = np.random.default_rng(seed)
    allowed = AttentionDynamics(mask, Identity()).allowed()
    x = tokens.sphere(1, len(allowed), d, seed)[0]
    x = norm.apply(x * 0.5 + np.eye(d)[0])
    start, mus, values = x, [measures.mu(x)], []
    for _ in range(depth):
        s = np.where(allowed, rng.choice([-B, B], allowed.shape), -np.inf)
        A = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
        W = np.linalg.qr(rng.standard_normal((d, d)))[0]
        x = norm.apply(A @ x @ W)
        values.append(W)
        mus.append(measures.mu(x))
    return start, np.log10(np.maximum(mus, 1e-300)), values


@pytest.mark.parametrize("mask", [COMPLETE, CAUSAL, masks.local(6, 1)], ids=str)
@pytest.mark.parametrize("norm", [norms.NoNorm(), norms.Unit()], ids=["none", "unit"])
@pytest.mark.parametrize("B", [0.0, 0.3, 1.0])
def test_no_attention_within_the_bound_of_scores_beats_the_bound(mask, norm, B):
    depth = 30
    for seed in range(6):
        x0, measured, values = bounded_run(mask, B, seed, depth, norm=norm)
        value = dynsim.weights.FromArray(np.stack(values)[:, None])
        dynamics = AttentionDynamics(mask, Weights(Zero(), value), norm)
        found = scores.score_bounds(dynamics, x0, depth, score_bound=B)
        applied = [one for one in found.values() if one.applies.all()]
        assert len(applied) == (1 if isinstance(norm, norms.Unit) else 2)
        for one in applied:
            followed = measured > -14.0  # below, rounding
            assert np.all((measured <= one.log10_bound[0] + 1e-9)[followed]), one.name


def naive_walk(allowed, B, depth, start=None, least_height=1.0):
    """log of what is left of a diameter by depth: the best block length, layer by layer."""
    degrees = allowed.sum(axis=1)
    U = allowed / degrees[:, None]
    best = np.full(depth + 1, np.inf)
    for r in range(1, depth + 1):
        rows = np.linalg.matrix_power(U, r)
        tau = max(np.abs(a - b).sum() / 2 for a in rows for b in rows)
        left, blocks = [1.0], depth // r
        for _ in range(blocks):
            uneven = 1.0 if start is None else min(1 / least_height, 1 + start * left[-1])
            c = min(n / (1 + (n - 1) * math.exp(2 * B) * uneven) for n in degrees)
            left.append(left[-1] * (1 - c**r * (1 - tau)))
        best = np.minimum(best, np.log([left[t // r] for t in range(depth + 1)]))
    return best


@pytest.mark.parametrize("B", [0.1, 0.8])
@pytest.mark.parametrize("mask", [masks.local(7, 1), masks.causal_local(5, 1), CAUSAL], ids=str)
def test_the_walk_takes_the_best_block_of_layers(mask, B):
    dynamics = AttentionDynamics(mask, Identity())
    n, depth = dynamics.n_tokens, 12
    found = scores.score_bounds(dynamics, tokens.sphere(1, n, 3), depth, score_bound=B)["walk"]
    fall = (found.log10_bound[0] - found.log10_bound[0, 0]) * math.log(10.0)
    assert fall == pytest.approx(naive_walk(dynamics.allowed(), B, depth), rel=1e-9, abs=1e-12)


def test_the_hemisphere_counts_uneven_heights_as_scores():
    x = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    dynamics = AttentionDynamics(masks.complete(3), Identity(), norms.Unit())
    found = scores.score_bounds(dynamics, x, 9, score_bound=0.4)["walk in the hemisphere"]
    v = np.ones(2) / math.sqrt(2)  # the best pole
    chart = x / (x @ v)[:, None]
    size = max(np.linalg.norm(a - b) for a in chart for b in chart)
    fall = naive_walk(np.ones((3, 3), bool), 0.4, 9, size, (x @ v).min())
    expected = np.minimum(np.log(size) + fall, 0.5 * math.log(3))
    assert found.log10_bound[0] * math.log(10.0) == pytest.approx(expected, rel=1e-6)


def test_the_walk_is_attained_by_two_tokens_that_look_at_themselves():
    B, x = 0.6, np.array([[1.0, 0.0], [0.0, 1.0]])
    A = np.exp([[B, -B], [-B, B]])
    A /= A.sum(axis=1, keepdims=True)
    dynamics = AttentionDynamics(masks.complete(2), Identity())
    found = scores.score_bounds(dynamics, x, 5, score_bound=B)["walk"].log10_bound[0]
    measured = [np.log10(measures.mu(np.linalg.matrix_power(A, t) @ x)) for t in range(6)]
    assert found == pytest.approx(measured, rel=1e-12)


def test_the_walk_is_sharper_than_one_entry():
    """Complete mask: 1 - c a layer, whatever N; WU's explicit 1 - eps tends to 1."""
    for n in (8, 64, 256):
        dynamics = AttentionDynamics(masks.complete(n), Identity())
        found = scores.score_bounds(dynamics, tokens.sphere(1, n, 3), 10, score_bound=1.0)
        falls = {
            name: one.log10_bound[0, 10] - one.log10_bound[0, 0] for name, one in found.items()
        }
        c, eps = (n / (1 + (n - 1) * math.e**2), 1 / (1 + (n - 1) * math.e**2))
        assert falls["walk"] == pytest.approx(10 * math.log10(1 - c), rel=1e-9)
        assert falls["WU theorem 1, explicit eps"] == pytest.approx(
            10 * math.log10(1 - eps), rel=1e-9
        )


def test_scores_of_unit_tokens_are_bounded_by_the_matrix():
    M = np.array([[0.6, 0.2], [-0.1, 0.3]])
    dynamics = AttentionDynamics(masks.complete(4), Fixed(M, np.eye(2)), norms.Unit())
    x = tokens.sphere(1, 4, 2)[0]
    B = scores.largest_score(dynamics, x, 5)
    assert pytest.approx(np.linalg.norm(M, 2)) == B
    for t in range(5):
        assert np.abs(x @ M @ x.T).max() <= B
        x = dynamics.step(x, t)
    plain = AttentionDynamics(masks.complete(4), Fixed(M, np.eye(2)))
    with pytest.raises(ValueError, match="give the bound itself"):
        scores.largest_score(plain, x, 5)


def test_bounds_from_scores_say_why_they_do_not_apply():
    x = tokens.sphere(1, 6, 3)
    reasons = {
        "2 heads": AttentionDynamics(COMPLETE, Weights(Zero(), Orthogonal(), n_heads=2)),
        "skip connection": AttentionDynamics(COMPLETE, Identity(), skip=1.0),
    }
    for words, dynamics in reasons.items():
        for one in scores.score_bounds(dynamics, x, 4, score_bound=1.0).values():
            assert words in one.reasons[0]
    apart = AttentionDynamics(masks.complete(2), Identity(), norms.Unit())
    antipodal = np.array([[1.0, 0.0], [-1.0, 0.0]])
    found = scores.score_bounds(apart, antipodal, 4, score_bound=1.0)
    assert "no hemisphere" in found["walk in the hemisphere"].reasons[0]
    with pytest.raises(ValueError, match="center node"):
        scores.score_bounds(AttentionDynamics(np.eye(3), Identity()), np.eye(3), 2, score_bound=1.0)
    with pytest.raises(ValueError, match="finite and at least 0"):
        scores.score_bounds(plain_layer(), x[0], 2, score_bound=-1.0)


@pytest.mark.parametrize(("kind", "width"), [("unit", 1.0), ("rms", 2.0)])
def test_qk_norm_bounds_the_scores_by_its_gain(kind, width):
    """Whatever the weights: large ones, too. B from the gain alone, and attention is above it."""
    from dynsim.network.attention import QKNorm
    from dynsim.network.positions import RoPE

    for position in (None, RoPE()):
        options = {} if position is None else {"position": position}
        dynamics = AttentionDynamics(
            masks.causal(5), Weights(Gaussian(30.0), Orthogonal(), seed=3),
            qk_norm=QKNorm(-0.7, kind), **options,
        )  # fmt: skip
        x = tokens.gaussian(1, 5, 4)[0]
        B = scores.largest_score(dynamics, x, 4)
        assert pytest.approx(0.7 * width) == B
        for t in range(4):
            A = dynamics.attention(x, t)[0]
            floor = scores.attention_floor(B, np.arange(1, 6))
            assert np.all(np.where(np.tri(5), floor[:, None] - 1e-15 <= A, True))
            x = dynamics.step(x, t)
    faded = AttentionDynamics(
        masks.causal(5), Weights(), qk_norm=QKNorm(dynsim.schedules.Linear(1.0, 3.0, layers=4))
    )
    assert scores.largest_score(faded, x, 4) == pytest.approx(3.0)


def test_qk_norm_makes_the_certificate_sharp():
    """N = 64, gain 1: WU's explicit bound has hardly moved after 20 layers, the walk's is 1e-2."""
    from dynsim.network.attention import QKNorm

    n, d, depth = 64, 16, 20
    dynamics = AttentionDynamics(
        masks.complete(n), Weights(Gaussian(), Orthogonal()), qk_norm=QKNorm(1.0)
    )
    x = tokens.sphere(1, n, d)
    found = scores.score_bounds(dynamics, x, depth)
    fall = {k: b.log10_bound[0, -1] - b.log10_bound[0, 0] for k, b in found.items()}
    c = n / (1 + (n - 1) * math.e**2)
    assert fall["WU theorem 1, explicit eps"] > -0.03
    assert fall["walk"] == pytest.approx(depth * math.log10(1 - c))
    run = simulate(dynamics, x, depth, record=dynsim.Record(measures=()))
    measured = run["log10_mu"][0]
    for one in list(found.values())[:2]:
        assert np.all(measured[measured > -13] <= one.log10_bound[0][measured > -13] + 1e-9)


@pytest.mark.parametrize("norm", [norms.NoNorm(), norms.Unit()], ids=["none", "unit"])
def test_theory_beside_a_run_with_qk_norm_has_a_bound(norm):
    from dynsim.network.attention import QKNorm

    dynamics = AttentionDynamics(
        COMPLETE, Weights(Gaussian(), Orthogonal()), norm, qk_norm=QKNorm(0.5)
    )
    x = tokens.sphere(1, 6, 4) * 0.4 + np.eye(4)[0]
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    theory = dynsim.compare_with_theory(dynamics, x, simulate(dynamics, x, 12))
    assert theory.sharpest.name.startswith("walk")
    assert theory.log10_excess > 0 or np.isnan(theory.log10_excess)


def test_scores_without_a_bound_are_refused_by_name():
    from dynsim.network.positions import ALiBi

    tilted = AttentionDynamics(masks.causal(4), Identity(), norms.Unit(), position=ALiBi())
    with pytest.raises(ValueError, match="position=ALiBi"):
        scores.largest_score(tilted, tokens.sphere(1, 4, 3), 3)
    found = scores.score_bounds(tilted, tokens.sphere(1, 4, 3), 3, score_bound=1.0)
    assert all("position=ALiBi" in one.reasons[0] for one in found.values())


def plain_layer():
    return AttentionDynamics(COMPLETE, Identity())


# --- Jacobians between layers ---------------------------------------------------------------------


@pytest.mark.parametrize(("placement", "skip"), [("post", 0.0), ("pre", 1.0), ("peri", 0.5)])
@pytest.mark.parametrize("start", [0, 2])
def test_the_mean_squared_jacobian_is_the_product_of_jacobians(placement, skip, start):
    dynamics = attending(CAUSAL, 6, 3, norm=norms.LayerNorm(), placement=placement, skip=skip)
    x = tokens.gaussian(2, 6, 3)
    found = sensitivity.mean_squared_jacobian(dynamics, x, 4, start)
    for sample, state in enumerate(x):
        J, squares = np.eye(18), [1.0]
        for k in range(4):
            slope = dynsim.jacobian.jacobian(dynamics, state, start + k).reshape(18, 18)
            J, state = slope @ J, dynamics.step(state, start + k)
            squares.append(np.sum(J**2) / 18)
        assert found[sample] == pytest.approx(squares, rel=1e-9)


def test_it_is_torchs_gradient():
    """The sum over outputs of squared vector-Jacobian products, by automatic differentiation."""
    torch = pytest.importorskip("torch")
    M, W = np.random.default_rng(1).standard_normal((2, 3, 3))
    dynamics = AttentionDynamics(masks.causal(4), Fixed(M, W), norms.Unit(), skip=0.6)
    x = tokens.gaussian(1, 4, 3)[0]

    def layers(z):
        blocked = torch.ones(4, 4, dtype=torch.bool).triu(1)
        for _ in range(3):
            S = (z @ torch.tensor(M) @ z.T).masked_fill(blocked, -torch.inf)
            z = 0.6 * z + S.softmax(dim=-1) @ z @ torch.tensor(W)
            z = z / z.norm(dim=-1, keepdim=True)
        return z

    J = torch.autograd.functional.jacobian(layers, torch.tensor(x)).numpy()
    found = sensitivity.mean_squared_jacobian(dynamics, x, 3)[-1]
    assert found == pytest.approx(np.sum(J**2) / 12, rel=1e-9)


def test_directions_are_followed_in_parts(monkeypatch):
    dynamics = attending(CAUSAL, 6, 3, norm=norms.Unit())
    x = tokens.gaussian(1, 6, 3)[0]
    whole = sensitivity.mean_squared_jacobian(dynamics, x, 3)
    monkeypatch.setattr(sensitivity, "_IN_MEMORY", 300)
    assert sensitivity.mean_squared_jacobian(dynamics, x, 3) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("mask", [COMPLETE, CAUSAL], ids=["complete", "causal"])
@pytest.mark.parametrize("skip", [0.0, 0.8])
def test_its_expectation_over_random_networks(mask, skip):
    """Within four standard errors of 150 networks."""
    d, depth = 5, 3
    x = tokens.gaussian(1, 6, d)[0]
    runs = [
        sensitivity.mean_squared_jacobian(
            AttentionDynamics(mask, Weights(Zero(), Gaussian(1.1), seed=seed), skip=skip), x, depth
        )
        for seed in range(150)
    ]
    found = sensitivity.expected_squared_jacobian(
        AttentionDynamics(mask, Weights(Zero(), Gaussian(1.1)), skip=skip), d, depth
    )
    error = np.std(runs, axis=0, ddof=1) / len(runs) ** 0.5
    assert np.all(np.abs(np.mean(runs, axis=0) - found) <= 4 * error + 1e-12)
    assert np.all(error[1:] < 0.1 * found[1:])
    if mask is COMPLETE and not skip:
        assert found == pytest.approx([1.0, *(1.1 ** (2 * t) / 6 for t in (1, 2, 3))])


def test_the_expectation_counts_weights_by_layer():
    from dynsim.network.residual import by_layer

    weighted = AttentionDynamics(COMPLETE, Weights(Zero()), skip=by_layer([0.0, 0.5], [2.0, 3.0]))
    found = sensitivity.expected_squared_jacobian(weighted, 4, 2)
    assert found == pytest.approx([1.0, 4 / 6, 0.25 * 4 / 6 + 9 * 4 / 6])


def test_large_states_and_scores_are_refused():
    with pytest.raises(ValueError, match="N d <= 2048"):
        sensitivity.mean_squared_jacobian(
            attending(masks.causal(64), 64, 64), tokens.gaussian(1, 64, 64)[0], 2
        )
    for dynamics in (attending(CAUSAL, 6, 3), flow("post")):
        with pytest.raises(ValueError, match=r"uniform attention|fresh random"):
            sensitivity.expected_squared_jacobian(dynamics, 3, 2)
