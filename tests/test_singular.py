"""Singular values and cosines of many matrices in lanes, against mpmath, LAPACK and slow twins."""

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import measures
from dynsim._threads import using_threads
from dynsim.kernels.fields import GROUP
from dynsim.measures import lanes

EPS = float(np.finfo(np.float64).eps)
SHAPES = [
    (1, 1),
    (1, 5),
    (5, 1),
    (2, 2),
    (3, 7),
    (8, 4),
    (7, 7),
    (16, 8),
    (12, 9),
    (40, 6),
    (6, 70),
]


def _with_values(rng, shape, sigma):
    """A matrix with these singular values, up to rounding."""
    n, d = shape
    left = np.linalg.qr(rng.standard_normal((n, len(sigma))))[0]
    right = np.linalg.qr(rng.standard_normal((d, len(sigma))))[0]
    return (left * sigma) @ right.T


#: Kinds of matrices, each made by a function of a generator and a shape.
KINDS = {
    "random": lambda rng, shape: rng.standard_normal(shape),
    "unit rows": lambda rng, shape: _unit(rng.standard_normal(shape)),
    "graded": lambda rng, shape: _with_values(rng, shape, np.logspace(0, -20, min(shape))),
    "graded upwards": lambda rng, shape: rng.standard_normal(shape) * np.logspace(-20, 0, shape[1]),
    "graded rows": lambda rng, shape: (
        rng.standard_normal(shape) * np.logspace(0, -9, shape[0])[:, None]
    ),
    "rank one": lambda rng, shape: np.outer(*map(rng.standard_normal, shape)),
    "rank two": lambda rng, shape: _with_values(rng, shape, [3.0, 1.0][: min(shape)]),
    "orthogonal": lambda rng, shape: _with_values(rng, shape, np.ones(min(shape))),
    "clusters": lambda rng, shape: _with_values(
        rng, shape, np.resize([1.0, 1e-3], min(shape)) * (1 + 1e-12 * rng.random(min(shape)))
    ),
    "collapsed": lambda rng, shape: _collapsed(rng, shape, 1e-12),
    "collapsed to rounding": lambda rng, shape: _collapsed(rng, shape, 1e-16),
    "equal": lambda rng, shape: _collapsed(rng, shape, 0.0),
    "deviations": lambda rng, shape: measures.deviations(_collapsed(rng, shape, 1e-12)),
    "zero": lambda rng, shape: np.zeros(shape),
    "one entry": lambda rng, shape: np.eye(1, shape[0] * shape[1], 1).reshape(shape),
    "identity": lambda rng, shape: np.eye(*shape),
    "bidiagonal": lambda rng, shape: np.eye(*shape) + np.eye(*shape, 1),
    "integers": lambda rng, shape: rng.integers(-2, 3, shape).astype(float),
    "huge": lambda rng, shape: 1e300 * rng.standard_normal(shape),
    "tiny": lambda rng, shape: 1e-300 * rng.standard_normal(shape),
    "subnormal": lambda rng, shape: 1e-315 * rng.standard_normal(shape),
    "far apart": lambda rng, shape: (
        rng.standard_normal(shape) * 10.0 ** rng.uniform(-300, 0, shape)
    ),
}  # fmt: skip


#: Of tight clusters LAPACK's own error is 10 to 50 rounding errors, the kernel's 2 (see mpmath's).
BY_LAPACK = sorted(KINDS.keys() - {"clusters"})


def _unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _collapsed(rng, shape, apart):
    return rng.standard_normal(shape[1]) + apart * rng.standard_normal(shape)


def _allowed(shape, sigma):
    """What two backward stable methods may differ by: a few rounding errors for each row."""
    return (4.0 + min(shape) / 4.0) * EPS * sigma[..., :1] + 1e-323


@pytest.mark.parametrize("kind", BY_LAPACK)
@pytest.mark.parametrize("shape", [*SHAPES, (64, 32), (50, 50)])
def test_values_are_those_of_lapack(kind, shape):
    rng = np.random.default_rng(len(kind))
    x = np.stack([KINDS[kind](rng, shape) for _ in range(3)])
    found = lanes.values_in_lanes(x)
    expected = np.stack([measures.singular_values(each) for each in x])
    assert np.all(np.abs(found - expected) <= _allowed(shape, expected)), kind
    assert np.all(np.diff(found, axis=1) <= 0)
    assert np.all(found >= 0)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_mpmath(kind):
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(5)
    for shape in ((4, 4), (12, 9), (3, 6)):
        x = KINDS[kind](rng, shape)
        found = lanes.values_in_lanes(x[None])[0]
        with mpmath.workdps(40):
            exact = mpmath.svd_r(mpmath.matrix(x.tolist()), compute_uv=False)
            errors = [abs(mpmath.mpf(float(s)) - e) for s, e in zip(found, exact, strict=True)]
            assert max(errors) <= 4 * EPS * exact[0] + mpmath.mpf(10) ** -323


@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (6, 6), (13, 5), (3, 8)])
@pytest.mark.parametrize("kind", ["random", "rank two", "collapsed", "clusters", "zero"])
def test_values_are_those_of_the_slow_twin(kind, shape):
    x = KINDS[kind](np.random.default_rng(2), shape)
    expected = naive.singular_values(x)
    found = lanes.values_in_lanes(x[None])[0]
    assert np.all(np.abs(found - expected) <= _allowed(shape, expected))


def test_the_shift_of_the_twin_is_a_lower_bound(rng):
    for n in range(2, 9):
        q, e = rng.uniform(0.1, 2.0, n), rng.uniform(0.0, 2.0, n - 1)
        b = np.diag(np.sqrt(q)) + np.diag(np.sqrt(e), 1)
        least = np.linalg.svd(b, compute_uv=False)[-1] ** 2
        assert 0 < naive.laguerre_bound(q, e) < least


@given(
    st.integers(1, 20), st.integers(1, 20), st.integers(1, 17), st.integers(0, 2**32),
    st.lists(st.sampled_from(BY_LAPACK), min_size=1, max_size=4),
)  # fmt: skip
def test_any_batch_of_any_kinds(n, d, count, seed, kinds):
    rng = np.random.default_rng(seed)
    x = np.stack([KINDS[kinds[k % len(kinds)]](rng, (n, d)) for k in range(count)])
    found = lanes.values_in_lanes(x)
    expected = np.stack([measures.singular_values(each) for each in x])
    assert np.all(np.abs(found - expected) <= _allowed((n, d), expected))
    frobenius = np.sqrt(np.sum((x / 1e150) ** 2, axis=(1, 2))) * 1e150
    assert np.allclose(np.sqrt(np.sum((found / 1e150) ** 2, axis=1)) * 1e150, frobenius)


@pytest.mark.parametrize("shape", [(8, 4), (5, 9), (20, 16), (9, 8)])
def test_a_matrix_does_not_depend_on_what_is_beside_it(shape):
    """Not on the others, on their number, on its place or on the number of threads."""
    rng = np.random.default_rng(3)
    kinds = [*KINDS.values()]
    x = np.stack([kinds[k % len(kinds)](rng, shape) for k in range(60)])
    whole = measures.singular_values(x)
    for part in (slice(7, 8), slice(3, 20), slice(16, 49), slice(59, 60), slice(None, None, -1)):
        assert np.array_equal(measures.singular_values(x[part]), whole[part])
    many = np.tile(x, (1 + 70_000 // x.size, 1, 1))
    with using_threads(1):
        alone = measures.singular_values(many)
    with using_threads(2):
        assert np.array_equal(measures.singular_values(many), alone)
    cosines = measures.min_cosine(x)
    for part in (slice(7, 8), slice(3, 20), slice(59, 60), slice(None, None, -1)):
        assert np.array_equal(measures.min_cosine(x[part]), cosines[part])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_nan_alone(bad):
    x = np.random.default_rng(1).standard_normal((19, 6, 4))
    whole, cosines = measures.singular_values(x), measures.min_cosine(x)
    x[[2, 17], [0, 5], [1, 3]] = bad
    good = np.ones(19, bool)
    good[[2, 17]] = False
    with np.errstate(invalid="ignore"):
        found = measures.singular_values(x)
    assert np.array_equal(found[good], whole[good])
    assert np.isnan(found[~good]).all()
    assert np.array_equal(measures.min_cosine(x)[good], cosines[good])
    assert np.isnan(measures.min_cosine(x)[~good]).all()
    large = np.ones((2, 200, 100))
    large[1, 0, 0] = bad
    assert np.isnan(measures.singular_values(large)).all(axis=1).tolist() == [False, True]


def test_small_values_do_not_come_from_the_gram_matrix():
    """At mu = 1e-12 it would give 7e-9 for sigma_2."""
    rng = np.random.default_rng(4)
    x = np.stack([_collapsed(rng, (16, 8), 1e-12) for _ in range(9)])
    exact = np.array([np.linalg.svd(each, compute_uv=False)[1] for each in x])
    assert np.all(exact < 1e-11)
    assert np.allclose(measures.singular_values(x)[:, 1], exact, atol=4 * EPS * 20, rtol=0)


@pytest.mark.parametrize("size", 10.0 ** -np.arange(136, 165.0))
def test_a_column_whose_squares_are_subnormal_spoils_no_other(size):
    """Its reflection would not be orthogonal, and move the columns beside it."""
    x = np.ones((5, 3))
    x[1:, 0], x[1:, 1] = 0.0, size * np.arange(3.0, 7.0)
    x[1:, 2] = [1.0, -0.5, 0.25, 2.0]
    expected = np.linalg.svd(x, compute_uv=False)
    for each in (x, x.T):
        found = measures.singular_values(np.stack([each, each]))[0]
        assert np.all(np.abs(found - expected) <= _allowed(x.shape, expected))


def test_single_precision_is_computed_in_double_and_returned_in_single():
    x = np.random.default_rng(6).standard_normal((5, 9, 6)).astype(np.float32)
    found = measures.singular_values(x)
    assert found.dtype == np.float32
    expected = measures.singular_values(x.astype(np.float64))
    assert np.array_equal(found, expected.astype(np.float32))


def test_any_leading_axes_and_memory_layout():
    x = np.random.default_rng(7).standard_normal((2, 3, 8, 5))
    found = measures.singular_values(x)
    assert found.shape == (2, 3, 5)
    assert np.array_equal(found[1, 2], lanes.values_in_lanes(x[1, 2][None])[0])
    turned = np.asfortranarray(x)
    assert np.array_equal(measures.singular_values(turned), found)
    assert measures.min_cosine(x).shape == (2, 3)
    large = np.random.default_rng(8).standard_normal((2, 2, 150, 120))
    assert np.array_equal(
        measures.singular_values(large)[1, 0], measures.singular_values(large[1, 0])
    )
    assert measures.singular_values(np.ones((0, 4, 3))).shape == (0, 3)


@pytest.mark.parametrize("shape", [(2, 1), (2, 2), (5, 3), (9, 4), (33, 5), (4, 40)])
@pytest.mark.parametrize("scale", [1.0, 1e300, 1e-300])
def test_least_cosines_are_those_of_the_definition(shape, scale):
    x = np.random.default_rng(9).standard_normal((6, *shape))
    x[1] = x[1, :1]  # equal tokens
    x[2, 0] = 0.0
    x[3] = -x[3, :1]
    x[3, 0] *= -1.0  # opposite tokens
    x[4] = 0.0
    expected = [min(naive.cosines(each)) for each in x]
    found = measures.min_cosine(scale * x)
    assert np.allclose(found, expected, rtol=0, atol=1e-14)
    assert np.all(np.abs(found) <= 1.0)
    assert np.all(measures.min_cosine(x[:, :1]) == 1.0)


@pytest.mark.parametrize("shape", [*SHAPES, (128, 128), (256, 64), (30, 21), (33, 22)])
def test_the_memory_of_the_kernels_is_enough(monkeypatch, shape):
    for count in (2, GROUP // 2 + 1):
        x = np.random.default_rng(0).standard_normal((count, *shape))
        expected = lanes.values_in_lanes(x), lanes.smallest_cosines(x)
        with monkeypatch.context() as guarded:
            guarded.setenv("DYNSIM_GUARDS", "1")
            found = lanes.values_in_lanes(x), lanes.smallest_cosines(x)
        assert all(map(np.array_equal, found, expected))


def test_what_takes_too_many_sweeps_goes_to_lapack(monkeypatch):
    x = np.random.default_rng(0).standard_normal((3, 6, 4))
    usual = lanes.values_in_lanes(x)

    def given_up(many):
        found = usual.copy()
        found[1] = np.nan
        return found

    monkeypatch.setattr(measures.spectrum, "values_in_lanes", given_up)
    found = measures.singular_values(x)
    assert np.array_equal(found[1], np.linalg.svd(x[1], compute_uv=False))
    assert np.array_equal(found[[0, 2]], usual[[0, 2]])
