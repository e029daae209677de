"""Equilibria: closed forms, the search against enumeration, stability against exact numbers."""

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import masks, norms, weights
from dynsim._spectra import bounded_eigenvalues
from dynsim.equilibria import (
    approach,
    basin_radius,
    complete_pair,
    complete_pair_dynamics,
    design_value_matrix,
    find_equilibria,
    hyperbolic_dynamics,
    hyperbolic_pair,
    jordan_dynamics,
    jordan_family,
    stabilise,
    stability,
    symmetries,
    transient,
)
from dynsim.equilibria.affine import solutions
from dynsim.equilibria.newton import solve
from dynsim.measures import stable_rank
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.jacobian import tangent_jacobian
from dynsim.network.weights import Fixed, Weights


def moved(dynamics, x):
    return np.abs(dynamics.step(x) - x).max()


# --- in closed form -----------------------------------------------------------------------------


@given(st.integers(1, 7), st.floats(0.01, 20.0), st.data())
def test_the_jordan_family_is_exact_and_of_its_rank(n, more, data):
    rank = data.draw(st.integers(1, n))
    w = n + more
    dynamics, family = jordan_dynamics(n, w), jordan_family(n, w, rank)
    assert family.shape == (2**rank, n, n)
    assert len({tuple(x.ravel().round(12)) for x in family}) == 2**rank
    for x in family:
        assert moved(dynamics, x) <= 1e-15
        assert np.linalg.matrix_rank(x, tol=1e-3 * w**-n) == rank
        if rank == n:  # WU, App. F
            assert stable_rank(x) <= n / (n - (n - 1) / w**2) + 1e-12


def test_two_tokens_of_wu():
    """Section 4.3.1: A, B = (-1/w, +-sqrt(1 - 1/w^2)), slope 1 + x_22 in y = x_22 / x_21."""
    w = 2.0
    for x in jordan_family(2, w, 2)[:2]:
        assert np.allclose(x[1], [-1 / w, np.sign(x[1, 1]) * np.sqrt(1 - 1 / w**2)], atol=1e-16)
        found = stability(jordan_dynamics(2, w), x)
        assert np.allclose(np.sort(found.multipliers.real), sorted([1.0, 1 + x[1, 1]]), atol=1e-14)
        assert found.kind == ("saddle" if x[1, 1] > 0 else "marginal")


@pytest.mark.parametrize(("a", "c"), [(0.3, 2.0), (0.9, 1.5), (0.5, -1.0), (0.2, 0.7)])
def test_the_hyperbolic_variant(a, c):
    dynamics = hyperbolic_dynamics(a, c)
    for x in hyperbolic_pair(a, c):
        assert moved(dynamics, x) <= 1e-15
        y = x[1, 1]
        assert np.isclose(c * x[1, 0] + (1 - a) * y, -1, atol=1e-14)
        found = stability(dynamics, x)
        exact = sorted([a, (1 + y) / a])
        assert np.allclose(np.sort(found.multipliers.real), exact, atol=1e-13)
        assert (found.kind == "stable") == (y < a - 1)


def test_the_complete_mask_has_a_full_rank_equilibrium():
    """The question of WU's App. F.4, answered by an exact example."""
    dynamics, x = complete_pair_dynamics(3.0, 1.5), complete_pair(3.0, 1.5)
    assert moved(dynamics, x) <= 1e-15
    assert np.linalg.matrix_rank(x) == 2
    assert stability(dynamics, x).kind in ("saddle", "unstable")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: jordan_family(3, 2.0, 2), "need |w| > 2"),
        (lambda: jordan_family(3, 9.0, 4), "at most the number of tokens"),
        (lambda: jordan_family(3, np.nan, 2), "need |w|"),
        (lambda: hyperbolic_pair(0.5, 0.1), "c^2 + (1 - a)^2 > 1"),
        (lambda: hyperbolic_dynamics(1.0, 2.0), "0 < a < 1"),
        (lambda: complete_pair(0.1, 1.5), "artanh(1/v) < m"),
        (lambda: find_equilibria(jordan_dynamics(2, 2.0), ranks=[3]), "ranks lie in 1..2"),
        (lambda: find_equilibria(jordan_dynamics(2, 2.0), dim=3), "leave it out"),
        (lambda: find_equilibria(layer(norms.NoNorm())), "end in a norm"),
        (lambda: find_equilibria(layer(norms.Unit(), placement="pre")), "end in a norm"),
        (lambda: find_equilibria(layer(norms.Unit(), shared=False)), "the same weights"),
        (lambda: find_equilibria(layer(norms.Unit())), "any dimension"),
        (lambda: design_value_matrix(2 * np.eye(2), masks.causal(2)), "have norm 1"),
        (lambda: design_value_matrix(np.eye(2), masks.causal(2), norms=[1, -1]), "positive"),
        (lambda: design_value_matrix(np.eye(2), masks.complete(2)), "A X is singular"),
        (lambda: stabilise(masks.complete(2), 2, 3), "at most min"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    import re

    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def layer(norm, placement="post", shared=True):
    return AttentionDynamics(masks.complete(2), Weights(shared=shared), norm, placement)


# --- stability ----------------------------------------------------------------------------------


def exact_multipliers(x, w, k):
    """Multipliers of token k of a full-rank state: the eigenvalues of P W_V P with 60 digits, less
    the one of the radial direction."""
    with mpmath.workdps(60):
        n = len(x)
        row = [mpmath.mpf(0)] * n
        token = row[:]
        token[-1] = mpmath.sign(x[0, -1])
        for i in range(1, k + 1):
            rest = [-token[j + 1] / w for j in range(n - 1)]
            last = mpmath.sign(x[i, -1]) * mpmath.sqrt(1 - sum(v * v for v in rest))
            token = [*rest, last]
        P = mpmath.eye(n) - mpmath.matrix([[a * b for b in token] for a in token])
        W = mpmath.eye(n)
        for j in range(n - 1):
            W[j, j + 1] = w
        values, _ = mpmath.eig(P * W * P)
        values = sorted(values, key=abs)[1:]
        return np.array([complex(v) for v in values])


@pytest.mark.parametrize("w", [6.0, 50.0])
def test_multipliers_against_60_digits(w):
    """The bounds of the errors hold, defective blocks included."""
    n = 5
    dynamics = jordan_dynamics(n, w)
    for x in jordan_family(n, w, n)[5::9]:
        found = stability(dynamics, x)
        for k in range(n):
            mine = found.token == k
            values, errors = found.multipliers[mine], found.errors[mine]
            exact = exact_multipliers(x, w, k)
            for value, error in zip(values, errors, strict=True):
                assert np.abs(exact - value).min() <= error + 1e-13


def test_the_two_cosine_law():
    """Alternating signs: the largest multiplier of token k tends to 2 cos(pi / k) as w grows."""
    n, w = 6, 200.0
    x = next(x for x in jordan_family(n, w, n) if np.all(np.diff(np.sign(x[:, -1])) != 0))
    for k in range(3, n + 1):
        largest = np.abs(exact_multipliers(x, w, k - 1)).max()
        assert np.isclose(largest, 2 * np.cos(np.pi / k), atol=20 / w**2)


def test_blocks_give_the_eigenvalues_of_the_whole(rng):
    dynamics = AttentionDynamics(masks.prefix(5, 2), Weights(shared=True, seed=3), norms.Unit())
    x = norms.Unit().apply(rng.standard_normal((5, 4)))
    found = stability(dynamics, x).multipliers
    # block triangular at any state of the sphere whose image has the same tangent basis
    whole = np.linalg.eigvals(tangent_jacobian(dynamics, x))
    assert np.allclose(np.sort(np.abs(found)), np.sort(np.abs(whole)), atol=1e-8)


def test_a_defective_block_is_marginal_not_stable():
    dynamics = jordan_dynamics(6, 6.5)
    assert {stability(dynamics, x).kind for x in jordan_family(6, 6.5, 1)} == {"marginal"}


def test_transient_growth_and_basin_of_a_stable_equilibrium():
    a, c = 0.3, 2.0
    dynamics, x = hyperbolic_dynamics(a, c), hyperbolic_pair(0.3, 2.0)[0]
    found = transient(dynamics, x)
    J = tangent_jacobian(dynamics, x)
    powers = [np.linalg.norm(np.linalg.matrix_power(J, k), 2) for k in range(60)]
    assert np.isclose(found.growth, max(powers), rtol=1e-12)
    assert found.power == int(np.argmax(powers))
    assert 1 <= found.kreiss <= found.growth * (1 + 1e-6)
    assert basin_radius(dynamics, x, samples=16) >= 0.01
    saddle = hyperbolic_pair(0.3, 2.0)[1]
    assert basin_radius(dynamics, saddle, samples=16) == 0.0
    assert transient(dynamics, saddle).growth == np.inf


def test_a_marginal_equilibrium_is_reached_like_one_over_t():
    """WU, section 4.3.1: x_11 ~ 1 / (w t) from one side; the other side leaves."""
    dynamics, x = jordan_dynamics(2, 2.0), jordan_family(2, 2.0, 2)[1]
    found = approach(dynamics, x)
    assert 0.3 < found.returning < 0.7
    assert np.isclose(found.exponent, 1.0, atol=0.05)


# --- search -------------------------------------------------------------------------------------


def continuations(prefix, W):
    """How many unit x continue the tokens of a causal equilibrium, M = 0, by scanning n in
    |(x_1 + ... + x_i) W (n - W)^-1| = 1; two more where n is the eigenvalue 1 of W."""
    total = prefix.sum(axis=0) @ W
    d = len(W)
    count = 2
    for n in (np.linspace(1e-3, 0.999, 3_000), np.linspace(1.001, 3 * d, 6_000)):
        x = np.linalg.solve(n[:, None, None] * np.eye(d) - W.T, total[:, None])[..., 0]
        count += int(np.sum(np.diff(np.sign(np.linalg.norm(x, axis=1) - 1)) != 0))
    return count


@pytest.mark.parametrize(("n", "starts"), [(3, 16), (4, 8), (5, 4)])
def test_the_search_finds_the_jordan_family_and_all_else_there_is(n, starts):
    w = n + 1.0
    search = find_equilibria(jordan_dynamics(n, w), starts=starts, flips=False)
    found = np.concatenate([e.orbit for e in search.equilibria])
    for rank in range(1, n + 1):
        for x in jordan_family(n, w, rank):
            assert np.abs(found - x).max(axis=(1, 2)).min() < 1e-9
    W = np.eye(n) + w * np.eye(n, k=1)
    prefixes = {tuple(x[:-1].ravel().round(6)): x[:-1] for x in found}
    for prefix in prefixes.values():
        mine = np.abs(found[:, :-1] - prefix).max(axis=(1, 2)) < 1e-6
        assert mine.sum() == continuations(prefix, W)
    assert max(e.residual for e in search.equilibria) < 1e-13
    assert search.dropped == 0
    assert 0 <= search.unseen <= 1
    assert [row["rank"] for row in search.table()] == list(range(1, n + 1))


def test_symmetries_relate_equilibria_of_the_complete_mask():
    dynamics, x = complete_pair_dynamics(3.0, 1.5), complete_pair(3.0, 1.5)
    permutations, odd = symmetries(dynamics, 2)
    assert len(permutations) == 2
    assert odd
    search = find_equilibria(dynamics, starts=128)
    (full,) = [
        e for e in search.equilibria
        if e.rank == 2 and e.type == "fixed" and np.abs(e.orbit - x).max(axis=(1, 2)).min() < 1e-9
    ]  # fmt: skip
    assert len(full.orbit) == 4
    for state in full.orbit:
        assert moved(dynamics, state) < 1e-12
    assert full.found > 0


def test_sign_flips_are_found():
    dynamics = AttentionDynamics(
        masks.complete(2), Fixed(np.zeros((2, 2)), np.diag([-2.0, 1.0])), norms.Unit()
    )
    search = find_equilibria(dynamics, starts=16)
    flips = [e for e in search.equilibria if e.type == "sign flip"]
    assert any(np.allclose(np.abs(e.tokens), [[1, 0], [1, 0]]) for e in flips)
    for e in flips:
        assert np.abs(dynamics.step(e.tokens) + e.tokens).max() < 1e-12
        assert e.type == "sign flip"
    assert not [e for e in find_equilibria(dynamics, starts=16, flips=False).equilibria if
                e.type == "sign flip"]  # fmt: skip


def test_the_search_repeats_bit_for_bit():
    dynamics = AttentionDynamics(masks.local(3), Weights(shared=True, seed=2), norms.Unit())
    first, second = (find_equilibria(dynamics, dim=3, starts=16, seed=4) for _ in range(2))
    assert len(first.equilibria) == len(second.equilibria) > 0
    for a, b in zip(first.equilibria, second.equilibria, strict=True):
        assert np.array_equal(a.tokens, b.tokens)


def test_a_layernorm_with_eps_is_searched_too():
    norm = norms.LayerNorm(np.array([1.0, 2.0, 0.5]), np.array([0.1, 0.0, 0.3]), 1e-3)
    dynamics = AttentionDynamics(masks.complete(3), Weights(shared=True, seed=1), norm)
    search = find_equilibria(dynamics, dim=3, starts=64, flips=False)
    assert search.equilibria
    for e in search.equilibria:
        assert moved(dynamics, e.tokens) < 1e-12


@given(st.integers(0, 2**16))
def test_affine_tokens_are_solved_completely(seed):
    """Against a scan over n in (-10, 10): every sign change of |c (n - B)^-1| - 1 is among them."""
    rng = np.random.default_rng(seed)
    d = 3
    B, c = rng.standard_normal((d, d)), rng.standard_normal(d)
    found = solutions(B, c)
    scale = np.einsum("kd,kd->k", found, found @ B + c)
    solved = np.abs(found * scale[:, None] - found @ B - c).max(axis=1) < 1e-9
    n = np.linspace(-10, 10, 20_001)
    x = np.linalg.solve(n[:, None, None] * np.eye(d) - B.T, c[:, None])[..., 0]
    crossed = np.diff(np.sign(np.linalg.norm(x, axis=1) - 1)) != 0
    for value in n[:-1][crossed]:
        assert np.abs(scale[solved] - value).min() < 2e-3


def test_deflation_leads_to_other_roots():
    """x^3 = x from starts near 1: with 1 deflated, to 0 or -1."""

    def system(x, which):
        return x**3 - x, (3 * x**2 - 1)[:, :, None]

    start = np.linspace(0.72, 1.5, 9)[:, None]
    assert np.allclose(solve(system, start, lambda x: x), 1)
    ended = solve(system, start, lambda x: x, np.ones((9, 1, 1)))
    roots = ended[np.abs(ended**3 - ended) < 1e-9]
    assert len(roots)
    assert not np.any(np.isclose(roots, 1, atol=1e-3))


# --- design -------------------------------------------------------------------------------------


@given(st.integers(2, 5), st.integers(0, 2**16), st.sampled_from(["complete", "causal", "local"]))
def test_designed_tokens_are_an_equilibrium(n, seed, name):
    rng = np.random.default_rng(seed)
    X = norms.Unit().apply(rng.standard_normal((n, n + seed % 2)))
    M = rng.standard_normal((X.shape[1],) * 2)
    nu = rng.uniform(0.5, 2.0, n)
    design = design_value_matrix(X, masks.MASKS[name](n), M, nu)
    assert design.is_exact
    assert np.allclose(design.dynamics.step(X), X, atol=1e-13 * design.condition)


def test_causal_designs_have_the_eigenvalues_k_nu(rng):
    X = norms.Unit().apply(rng.standard_normal((4, 4)))
    nu = np.array([1.0, 2.0, 0.5, 3.0])
    design = design_value_matrix(X, masks.causal(4), norms=nu)
    assert np.allclose(np.sort(np.linalg.eigvals(design.W_V).real), np.sort(nu * [1, 2, 3, 4]))


def test_too_many_tokens_leave_a_residual(rng):
    X = norms.Unit().apply(rng.standard_normal((5, 2)))
    design = design_value_matrix(X, masks.complete(5), np.eye(2))
    assert not design.is_exact
    A = design.dynamics.attention(X)[0]
    best = np.linalg.lstsq(A @ X, X, rcond=None)[0]
    assert np.isclose(design.residual, np.linalg.norm(A @ X @ best - X) / np.linalg.norm(X))


@pytest.mark.parametrize(("n", "d", "rank"), [(3, 2, 2), (4, 4, 2)])
def test_stable_equilibria_of_the_complete_mask(n, d, rank):
    """Answers WU's App. F.4: perturbed by 1e-3 the tokens return."""
    found = stabilise(masks.complete(n), d, rank, tries=6, steps=300)
    assert found.stability.kind == "stable"
    assert np.linalg.matrix_rank(found.tokens, tol=1e-6) == rank
    assert moved(found.dynamics, found.tokens) < 1e-12
    assert basin_radius(found.dynamics, found.tokens, samples=16) >= 1e-3


def test_the_jacobian_in_torch_is_the_jacobian(rng):
    import torch

    from dynsim.equilibria.descent import _jacobian
    from dynsim.network.jacobian import jacobian

    X = norms.Unit().apply(rng.standard_normal((3, 4)))
    M, W = rng.standard_normal((2, 4, 4))
    dynamics = AttentionDynamics(masks.complete(3), Fixed(M, W), norms.Unit())
    tensors = [torch.from_numpy(a) for a in (X, dynamics.attention(X)[0], M, W)]
    assert np.allclose(_jacobian(*tensors).numpy(), jacobian(dynamics, X).reshape(12, 12))


def test_weights_that_leave_the_dimension_open_take_it():
    dynamics = AttentionDynamics(masks.causal(2), weights.Jordan(2.0), norms.Unit())
    assert len(find_equilibria(dynamics, dim=2, starts=4).equilibria) == 3


# --- rotating equilibria ------------------------------------------------------------------------


def turned(angle):
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def polygon(n):
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def rotor(n, M, angle):
    """The complete mask with W_V a scaled rotation of the plane: rotations commute with it."""
    return AttentionDynamics(masks.complete(n), Fixed(M, 1.7 * turned(angle)), norms.Unit())


@pytest.mark.parametrize("twist", [0.0, 0.5])
def test_rotating_equilibria_against_the_regular_triangle(twist):
    """By symmetry A x of a regular polygon is z x_i, x_i read as a complex number, with
    z = sum_j a_j w^j, w = e^(2 pi i / N), and a_j the softmax of the scores of token 0."""
    n, angle, M = 3, 0.9, 2 * turned(twist)
    dynamics, x = rotor(n, M, angle), polygon(n)
    scores = np.exp(x[0] @ M @ x.T)
    z = np.sum(scores / scores.sum() * np.exp(2j * np.pi * np.arange(n) / n))
    wanted = angle + np.angle(z)
    assert np.allclose(dynamics.step(x), x @ turned(wanted), atol=1e-15)
    search = find_equilibria(dynamics, starts=64)
    assert {e.type for e in search.equilibria} == {"rotating"}
    consensus, *_ = search.equilibria
    assert (consensus.rank, consensus.kind, consensus.angles) == (1, "stable", [0.9])
    assert consensus.spectral_radius < 1e-12  # lambda_2 of the complete mask is 0
    (triangle,) = [
        e for e in search.equilibria
        if e.rank == 2 and np.allclose(e.tokens @ e.tokens.T, x @ x.T, atol=1e-9)
    ]  # fmt: skip
    assert np.allclose(triangle.angles, [wanted], atol=1e-11)
    assert len(triangle.orbit) == 2  # its mirror image, another order of the tokens
    for e in search.equilibria:
        once, thrice = e.tokens, e.tokens
        for _ in range(3):
            thrice = dynamics.step(thrice)
        for _ in range(3):
            once = once @ e.turn
        assert np.allclose(thrice, once, atol=1e-11)


def test_multipliers_across_the_rotations():
    """Those of the whole Jacobian of x -> F(x) R^-1, less the 1 along the circle."""
    from dynsim.network.jacobian import jacobian

    dynamics = rotor(3, 2 * turned(0.5), 0.9)
    for e in find_equilibria(dynamics, starts=64).equilibria:
        slope = np.einsum("iajb,ca->icjb", jacobian(dynamics, e.tokens), e.turn).reshape(6, 6)
        whole = np.sort_complex(np.linalg.eigvals(slope))
        # three radial zeros and the neutral 1 beside them
        across = np.sort_complex(np.concatenate([e.stability.multipliers, [0, 0, 0, 1]]))
        assert np.allclose(whole, across, atol=1e-7)


def test_rotations_of_space_leave_a_circle_of_fixed_points_as_one():
    """W_V = 1 + a rotation axis: the generators are those of the plane across it."""
    from dynsim.equilibria.rotating import Rotations

    W_V = np.diag([2.0, 1.0, 1.0])
    dynamics = AttentionDynamics(masks.complete(2), Fixed(np.eye(3), W_V), norms.Unit())
    (generator,) = Rotations(dynamics, 3).generators
    assert np.allclose(np.abs(generator[1:, 1:]), np.abs(generator[1, 2]) * (1 - np.eye(2)))
    assert np.allclose(generator[0], 0, atol=1e-12)
    circle = [
        e for e in find_equilibria(dynamics, starts=32).equilibria
        if e.rank == 1 and abs(e.tokens[0, 0]) < 1e-9 and np.allclose(*e.tokens)
    ]  # fmt: skip
    assert len(circle) == 1
    assert circle[0].kind != "marginal"
    plain = AttentionDynamics(
        masks.complete(2), Fixed(np.eye(2), np.diag([2.0, 1.0])), norms.Unit()
    )
    assert not Rotations(plain, 2)
    line = AttentionDynamics(masks.complete(2), Fixed(np.eye(1), np.eye(1)), norms.Unit())
    assert not Rotations(line, 1)


# --- what is beside every verdict, and going on -------------------------------------------------


def test_basins_and_growth_stand_beside_the_verdicts():
    found = find_equilibria(hyperbolic_dynamics(0.3, 2.0), flips=False).equilibria
    for e in found:
        if e.kind == "stable":
            assert e.basin_radius >= 0.01
            assert e.transient == transient(hyperbolic_dynamics(0.3, 2.0), e.tokens)
        else:
            assert (e.basin_radius, e.transient) == (0.0, None)
    assert {e.kind for e in found} > {"stable"}
    marginal = find_equilibria(jordan_dynamics(2, 2.0), flips=False).equilibria[0]
    assert (marginal.kind, marginal.basin_radius) == ("marginal", None)


def test_the_basin_radius_of_a_token_is_known():
    """One token under W_V = diag(1, 1/2) returns to (1, 0) from the whole half circle, of chords
    up to sqrt 2 from it; displaced by r along the tangent and scaled, it always stays there."""
    one = AttentionDynamics(
        masks.complete(1), Fixed(np.zeros((2, 2)), np.diag([1.0, 0.5])), norms.Unit()
    )
    assert basin_radius(one, np.array([[1.0, 0.0]]), samples=8) == 10**0.5
    assert basin_radius(one, np.array([[0.0, 1.0]]), samples=8) == 0.0


def test_an_interrupted_search_goes_on_to_the_same_result(tmp_path):
    dynamics = AttentionDynamics(masks.complete(3), Weights(shared=True, seed=1), norms.Unit())
    options = {"dim": 3, "starts": 150, "seed": 2}

    def stop(share):
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_equilibria(dynamics, **options, folder=tmp_path, progress=stop)
    assert len(list(tmp_path.iterdir())) == 1
    shares = []
    again = find_equilibria(dynamics, **options, folder=tmp_path, progress=shares.append)
    assert shares[0] > 0.5
    whole = find_equilibria(dynamics, **options)
    assert (again.starts, again.converged, again.since_new, again.unseen) == (
        whole.starts, whole.converged, whole.since_new, whole.unseen,
    )  # fmt: skip
    for a, b in zip(again.equilibria, whole.equilibria, strict=True):
        assert np.array_equal(a.tokens, b.tokens)
        assert a.to_dict() == b.to_dict()
    more = find_equilibria(dynamics, **options | {"starts": 192}, folder=tmp_path)
    assert more.starts == 2 * 192
    find_equilibria(dynamics, **options | {"seed": 3}, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


# --- at the edges of closed forms -----------------------------------------------------------------


@pytest.mark.parametrize("off", [1e-3, 1e-8, 2e-16])
def test_closed_forms_keep_their_digits_at_the_edge_of_existence(off):
    w = 1.0 + off
    second = jordan_family(2, w, 2)[0, 1]
    with mpmath.workdps(40):
        exact = mpmath.sqrt(1 - 1 / mpmath.mpf(w) ** 2)
    assert second[1] == pytest.approx(float(exact), rel=1e-15)
    a, c = 0.5, float(np.sqrt(0.75)) * (1 + off)
    with mpmath.workdps(40):
        squared = mpmath.mpf(c) ** 2 + (1 - mpmath.mpf(a)) ** 2
        along = mpmath.sqrt(squared - 1) / squared
        y = -(1 - mpmath.mpf(a)) / squared - along * abs(c)
    assert hyperbolic_pair(a, c)[0, 1, 1] == pytest.approx(float(y), rel=0, abs=4e-16)


def test_closed_forms_where_there_is_nothing_are_refused():
    with pytest.raises(ValueError, match="use a larger"):
        hyperbolic_pair(0.5, 0.5 * 3**0.5 * (1 - 1e-15))
    for m, v in ((np.arctanh(0.5), 2.0), (-1.0, 2.0), (1.0, np.inf), (np.nan, 2.0)):
        with pytest.raises(ValueError, match=r"artanh\(1/v\) < m"):
            complete_pair(m, v)
    assert np.all(np.isfinite(hyperbolic_pair(0.5, 1e200)))


def test_eigenvalues_of_any_scale_have_errors_that_hold():
    """LAPACK's eigenvalues are wrong by decades from 10^138 on."""
    B = np.random.default_rng(0).standard_normal((3, 3))
    values, errors = bounded_eigenvalues(B)
    for power in (-500, 480):
        scaled, wider = bounded_eigenvalues(np.ldexp(B, power))
        assert np.array_equal(scaled, values * 2.0**power)
        assert np.array_equal(wider, errors * 2.0**power)
