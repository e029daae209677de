"""Exact expectations against closed forms, 40 digits, and draws."""

import mpmath
import numpy as np
import pytest

from dynsim.geometry.gaussian_keys import expected_unselectable, external_angle, internal_angle
from dynsim.geometry.selectability import selectable


def test_angles_in_closed_form():
    assert internal_angle(1) == pytest.approx(1, rel=1e-13)
    assert internal_angle(2) == pytest.approx(1 / 2, rel=1e-13)
    tetrahedron = (3 * np.arccos(1 / 3) - np.pi) / (4 * np.pi)
    assert internal_angle(4) == pytest.approx(tetrahedron, rel=1e-13)
    for n in (2, 5, 40):
        assert external_angle(1, n) == pytest.approx(1 / n, rel=1e-13)
        assert external_angle(n, n) == pytest.approx(1, rel=1e-13)
        assert external_angle(n - 1, n) == pytest.approx(1 / 2, rel=1e-13)


@pytest.fixture(scope="module")
def angles():
    """Internal angles up to 8 vertices, from external ones by the relation (McMullen, 1975) that
    at a vertex the products of both, with alternating signs, sum to 0; in 30 digits."""
    with mpmath.workdps(30):
        internal = [None, mpmath.mpf(1)]
        for n in range(2, 9):
            rest = mpmath.fsum(
                (-1) ** m * mpmath.binomial(n - 1, m - 1) * internal[m] * external(m, n)
                for m in range(1, n)
            )
            internal.append(-((-1) ** n) * rest)
        return internal


def external(m, n):
    def density(x):
        return mpmath.exp(-m * x * x) * ((1 + mpmath.erf(x)) / 2) ** (n - m)

    return mpmath.sqrt(mpmath.mpf(m) / mpmath.pi) * mpmath.quad(density, [-8, 0, 1, 8])


def test_angles_in_many_digits(angles):
    for m in range(1, 9):
        assert internal_angle(m) == pytest.approx(float(angles[m]), rel=1e-12)
    for m, n in ((1, 10), (7, 24)):
        assert external_angle(m, n) == pytest.approx(float(external(m, n)), rel=1e-13)


@pytest.mark.parametrize(("n", "d"), [(5, 2), (12, 3), (24, 6), (20, 8)])
def test_expectation_is_n_less_the_sum_of_affentranger_and_schneider(n, d, angles):
    with mpmath.workdps(30):
        vertices = 2 * mpmath.fsum(
            mpmath.binomial(n, m) * m * angles[m] * external(m, n) for m in range(d, 0, -2)
        )
        assert expected_unselectable(n, d) == pytest.approx(float(n - vertices), rel=1e-11)


def test_special_cases():
    assert expected_unselectable(4, 3) == 0  # a simplex
    for n in (3, 10, 500):
        assert expected_unselectable(n, 1) == pytest.approx(n - 2, rel=1e-12)
    # Sylvester's problem for Gaussian points: convex with probability (6 / pi) arcsin(1 / 3)
    assert expected_unselectable(4, 2) == pytest.approx(1 - 6 / np.pi * np.arcsin(1 / 3), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(10, 2), (20, 3), (40, 5), (7, 5)])
def test_draws_agree(n, d, rng):
    counts = n - selectable(rng.standard_normal((4000, n, d))).sum(axis=1)
    error = counts.std(ddof=1) / len(counts) ** 0.5
    assert abs(counts.mean() - expected_unselectable(n, d)) < 4 * error


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="dimension"):
        expected_unselectable(3, 0)
    with pytest.raises(ValueError, match="at least 1 and at most 3"):
        external_angle(4, 3)
