import math

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import measures

FUNCTIONS = {name: m.function for name, m in measures.MEASURES.items() if m.function is not None}


def definitions(x):
    """Every measure from its definition, one state at a time; singular values by eigenvalues."""
    n, d = x.shape
    sigma = np.sqrt(np.maximum(np.linalg.eigvalsh(x @ x.T if n < d else x.T @ x)[::-1], 0))
    p = sigma / sigma.sum()
    pairs = naive.cosines(x)
    norms = [math.sqrt(a @ a) for a in x]
    deviation = x - np.outer(np.ones(n), np.ones(n) @ x / n)
    residual = np.abs(deviation)
    apart = np.linalg.svd(deviation, compute_uv=False)
    q = apart / apart.sum()
    return {
        "mu": naive.mu(x),
        "log10_mu": math.log10(naive.mu(x)),
        "log10_mu_error": 8 * 2.0**-52 * np.linalg.norm(x) / naive.mu(x) / math.log(10.0),
        "deviation_stable_rank": (deviation**2).sum() / apart[0] ** 2,
        "deviation_effective_rank": math.exp(-sum(v * math.log(v) for v in q if v > 1e-14)),
        "mean_cosine": np.mean(pairs),
        "norm_min": min(norms),
        "norm_max": max(norms),
        "frobenius_norm": math.sqrt((x**2).sum()),
        "rank_one_distance": math.sqrt((sigma[1:] ** 2).sum()),
        "rank": min(n, d),
        "stable_rank": (x**2).sum() / sigma[0] ** 2,
        "effective_rank": math.exp(-sum(v * math.log(v) for v in p if v > 0)),
        "participation_ratio": (sigma**2).sum() ** 2 / (sigma**4).sum(),
        "sigma_max": sigma[0],
        "sigma_min": sigma[-1],
        "dong_residual": math.sqrt(residual.sum(axis=0).max() * residual.sum(axis=1).max()),
        "mean_abs_cosine": np.mean(np.abs(pairs)),
        "min_cosine": min(pairs),
        "clusters": n,
        "interaction_energy": (n * math.e + 2 * sum(map(math.exp, pairs))) / (2 * n * n),
        "mu_without_first": naive.mu(x[1:]),
        "stable_rank_without_first": (x[1:] ** 2).sum() / np.linalg.norm(x[1:], 2) ** 2,
    }


@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**16))
def test_measures_match_their_definitions_in_batches(n, d, seed):
    x = np.random.default_rng(seed).standard_normal((2, n, d))
    expected = [definitions(sample) for sample in x]
    for name, function in FUNCTIONS.items():
        if name == "clusters" and d == 1:
            continue  # random numbers on a line may lie close together
        found = function(x)
        assert found.shape == (2,)
        assert np.allclose(found, [e[name] for e in expected], rtol=1e-7, atol=1e-7), name


@pytest.mark.parametrize("scale", [1e-200, 1e150])
def test_measures_follow_scale_without_under_or_overflow(scale, rng):
    x = rng.standard_normal((7, 4))
    sized = {"mu", "norm_min", "norm_max", "frobenius_norm", "rank_one_distance"}
    sized |= {"sigma_max", "sigma_min", "dong_residual", "mu_without_first"}
    for name, function in FUNCTIONS.items():
        if name == "log10_mu":
            assert function(x * scale) == pytest.approx(function(x) + math.log10(scale), rel=1e-12)
            continue
        unit = scale if name in sized else 1.0
        assert function(x * scale) / unit == pytest.approx(function(x), rel=1e-12), name


def test_a_zero_matrix_has_no_rank_and_no_nan():
    x = np.zeros((4, 3))
    zero = {"rank", "stable_rank", "effective_rank", "participation_ratio", "mean_cosine", "mu"}
    for name, function in FUNCTIONS.items():
        if name == "log10_mu":
            assert np.isneginf(function(x))
            continue
        assert np.isfinite(function(x)), name
        assert function(x) == 0 or name not in zero


def test_a_single_token_is_at_consensus():
    x = np.array([[3.0, 4.0]])
    assert measures.mu(x) == 0
    assert measures.rank_one_distance(x) == 0
    assert measures.mean_cosine(x) == measures.min_cosine(x) == measures.mean_abs_cosine(x) == 1


def test_one_token_alone_leaves_nothing_without_it():
    x = np.array([[3.0, 4.0]])
    assert measures.mu_without_first(x) == measures.stable_rank_without_first(x) == 0
    assert measures.interaction_energy(x) == pytest.approx(math.e / 2)


@pytest.mark.parametrize("beta", [0.5, 4.0, 700.0])
def test_the_interaction_energy_is_its_double_sum(beta, rng):
    x = rng.standard_normal((300, 3))
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = sum(np.exp(beta * (row @ u.T)).sum() for row in u) / (2 * beta * 300**2)
    assert measures.interaction_energy(x, beta) == pytest.approx(expected, rel=1e-12)


def test_the_two_distances_differ_on_antipodal_tokens():
    x = np.array([[1.0, 2.0], [-1.0, -2.0]])
    assert measures.mu(x) == pytest.approx(math.sqrt(10))
    assert measures.rank_one_distance(x) == pytest.approx(0, abs=1e-15)


def test_mu_is_the_distance_to_the_nearest_consensus(rng):
    x = rng.standard_normal((6, 3))
    nearest = min(np.linalg.norm(x - row) for row in x.mean(axis=0) + rng.normal(0, 0.1, (500, 3)))
    assert measures.mu(x) <= nearest
    assert measures.mu(x) == pytest.approx(np.linalg.norm(x - x.mean(axis=0)))


def test_small_singular_values_are_not_taken_from_the_gram_matrix():
    """Near collapse the Gram matrix loses half the digits: 2e-12 would come out as 7e-9."""
    x = np.array([[1.0, 0.0], [1.0, 2e-12]])
    assert measures.rank_one_distance(x) == pytest.approx(math.sqrt(2) * 1e-12, rel=1e-3)


def test_singular_values_of_one_or_of_large_matrices_are_those_of_lapack_bit_by_bit(rng):
    equal = np.ones((8, 1)) * rng.standard_normal(5)
    large = rng.standard_normal((2, 200, 90))
    for x in (large, rng.standard_normal((4, 6)), equal, np.zeros((2, 3))):
        assert np.array_equal(measures.singular_values(x), np.linalg.svd(x, compute_uv=False))


def test_numerical_rank_states_its_tolerance():
    edge = measures.RANK_TOLERANCE * np.finfo(np.float64).eps
    assert measures.rank(np.diag([1.0, 1.1 * edge, 0.9 * edge])) == 2
    assert measures.rank(np.diag([1.0, 1e-3, 1e-4]).astype(np.float32)) == 2


def test_one_numerical_rank_with_the_tolerance_as_its_argument(rng):
    """Against the rank by which tokens are made: a product of r columns and r rows, with noise."""
    from dynsim.measures import SETTLED_RTOL, SOLVED_RTOL, numerical_rank, singular_values

    for noise, rtol in ((1e-15, None), (1e-8, SOLVED_RTOL), (1e-4, SETTLED_RTOL)):
        for r in range(1, 5):
            left = np.linalg.qr(rng.standard_normal((7, r)))[0]
            right = np.linalg.qr(rng.standard_normal((5, r)))[0]
            x = left @ np.diag(np.linspace(1.0, 0.5, r)) @ right.T
            sigma = singular_values(x + noise * rng.standard_normal(x.shape))
            assert numerical_rank(sigma, rtol) == r
            assert numerical_rank(sigma, noise / 100) == 5
    many = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1e300, 1e-300, 0.0]])
    assert numerical_rank(many).tolist() == [2, 0, 1]
    assert numerical_rank(many, 0.0).tolist() == [2, 0, 2]
    assert numerical_rank(many, 0.5).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("sigma", "rtol"),
    [([np.nan, 1.0], None), ([1.0, np.nan], None), ([np.inf, 1.0], None), ([1.0, -1.0], None),
     ([1.0, 2.0], None), (1.0, None), ([1.0], 1.0), ([1.0], -1e-9), ([1.0], np.nan),
     ([1.0], "small")],
)  # fmt: skip
def test_a_numerical_rank_of_nonsense_is_refused(sigma, rtol):
    with pytest.raises(ValueError, match=r"singular value|rtol"):
        measures.numerical_rank(sigma, rtol)


def test_clusters_count_groups_of_near_tokens():
    x = np.array([[1.0, 0], [1.0, 5e-4], [-1.0, 0], [0, 1.0]])
    assert measures.clusters(x) == 3
    assert measures.clusters(x * 1e6) == 3
    assert measures.clusters(x, tolerance=1e-5) == 4


def test_cosines_of_many_tokens_are_taken_in_blocks(rng):
    x = rng.standard_normal((600, 3))
    directions = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (directions @ directions.T)[np.triu_indices(600, 1)]
    assert measures.min_cosine(x) == pytest.approx(cosines.min())
    assert measures.mean_abs_cosine(x) == pytest.approx(np.abs(cosines).mean())


def test_every_measure_states_its_formula():
    for name, measure in measures.MEASURES.items():
        assert measure.label
        if measure.function is not None:
            assert measure.function.__doc__, name


@given(st.integers(1, 7), st.integers(0, 2**16), st.sampled_from([1e-200, 1.0, 1e150]))
def test_observe_gives_the_cheap_measures_at_any_scale(n, seed, scale):
    x = np.random.default_rng(seed).standard_normal((2, n, 3))
    out = measures.observe(x * scale)
    for s in range(2):
        sizes = np.sqrt((x[s] ** 2).sum(axis=1))
        cosines = naive.cosines(x[s]) or [1.0]
        total = np.linalg.norm(x[s])
        expected = [naive.mu(x[s]), np.mean(cosines), sizes.min(), sizes.max(), total]
        units = [scale, 1.0, scale, scale, scale]
        assert np.allclose(out[:, s] / units, expected, rtol=1e-11, atol=1e-13)


def test_observe_marks_what_is_not_finite():
    x = np.ones((3, 2, 2))
    x[1, 0, 1] = np.nan
    x[2, 1, 0] = np.inf
    out = measures.observe(x)
    assert np.isfinite(out[:, 0]).all()
    assert np.isnan(out[:, 1:]).all()
