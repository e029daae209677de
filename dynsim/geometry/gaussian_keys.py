"""How many Gaussian keys are unselectable: the expectation, by a formula that is exact.

n independent standard Gaussian points in R^d have the convex hull of a randomly projected regular
simplex T of n vertices, so that Affentranger and Schneider (Discrete Comput. Geom. 7, 1992) give
the expected number of its vertices in internal and external angles of regular simplices:

    E f_0 = 2 sum over m = d, d - 2, ... of C(n, m) m beta_m gamma_(m, n),

beta_m the internal angle at a vertex of the simplex of m vertices, gamma_(m, n) the external one
at a face of m vertices of that of n. Over all m of one parity the sum is n, so n - E f_0, the
expected number of unselectable keys, is the rest of it: m = d + 2, d + 4, ... <= n, where no digits
cancel. The angles are integrals, computed to rounding.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfcx, gammaln, log_ndtr, logsumexp, wofz

from dynsim._values import whole

__all__ = ["expected_unselectable", "external_angle", "internal_angle"]


def expected_unselectable(n: int, d: int) -> float:
    """The expected number of unselectable keys among n standard Gaussian ones of dimension d.

    For n = d + 2 at most one key is unselectable, and this is the probability that one is; the
    probability is at most this for every n. The relative error is below 1e-11 for up to 1000 keys.
    Raises ValueError unless n and d are whole numbers from 1 on.

    >>> round(expected_unselectable(4, 2), 6)  # four points in the plane
    0.350959
    """
    n, d = whole("number of keys", n, least=1), whole("dimension", d, least=1)
    faces = np.arange(d + 2, n + 1, 2)
    if not len(faces):
        return 0.0
    angles = [_log_internal(m) + _log_external(m, n) for m in faces.tolist()]
    choices = gammaln(n + 1) - gammaln(faces + 1) - gammaln(n - faces + 1)
    return float(2 * np.exp(logsumexp(choices + np.log(faces) + angles)))


def internal_angle(m: int) -> float:
    """At a vertex of the regular simplex of m vertices, as a share of the sphere.

    beta_m = sqrt(m / pi) 2^(1 - m) int w(u)^(m - 1) e^(-u^2) du with Faddeeva's w (Kabluchko and
    Zaporozhets, arXiv 1704.04968, whose g_(m - 1)(-1/m) this is). Raises ValueError for m < 1.

    >>> round(6 * internal_angle(3), 12)  # the angle of a triangle is a sixth of a circle
    1.0
    """
    return float(np.exp(_log_internal(whole("number of vertices", m, least=1))))


def external_angle(m: int, n: int) -> float:
    """At a face of m vertices of the regular simplex of n vertices, as a share of the sphere.

    gamma_(m, n) = sqrt(m / pi) int e^(-m x^2) ((1 + erf x) / 2)^(n - m) dx. Raises ValueError
    unless m and n are whole numbers with 1 <= m <= n.

    >>> round(5 * external_angle(1, 5), 12)  # the five at the vertices make up the sphere
    1.0
    """
    n = whole("number of vertices of the simplex", n, least=1)
    m = whole("number of vertices of the face", m, least=1, most=n)
    return float(np.exp(_log_external(m, n)))


#: Half the width of what is integrated, in standard deviations, and steps in it.
_REACH, _STEPS = 12.0, 1200


@cache
def _log_internal(m: int) -> float:
    """Integrated along the line through the saddle i y, where nothing oscillates."""
    y = brentq(lambda y: _saddle(y, m), 0.0, 2.0 + m**0.5)
    u = np.linspace(-_REACH, _REACH, 2 * _STEPS + 1) + 1j * y
    log = (m - 1) * np.log(wofz(u)) - u * u
    return _log_sum(log, u[1].real - u[0].real) + 0.5 * np.log(m / np.pi) - (m - 1) * np.log(2.0)


def _saddle(y: float, m: int) -> float:
    """Half the slope of (m - 1) log erfcx(y) + y^2."""
    return (m - 1) * (y - 1 / (np.sqrt(np.pi) * erfcx(y))) + y


def _log_external(m: int, n: int) -> float:
    def slope(x: float) -> float:  # half of that of -m x^2 + (n - m) log Phi(sqrt(2) x); falls in x
        tail = np.exp(-x * x - log_ndtr(np.sqrt(2.0) * x)) / (2 * np.sqrt(np.pi))
        return -m * x + (n - m) * tail

    peak = brentq(slope, 0.0, 2.0 + np.sqrt(np.log(n)))
    x = peak + np.linspace(-_REACH, _REACH, 2 * _STEPS + 1) / np.sqrt(2.0 * m)
    log = -m * x * x + (n - m) * log_ndtr(np.sqrt(2.0) * x)
    return _log_sum(log, x[1] - x[0]) + 0.5 * np.log(m / np.pi)


def _log_sum(log: np.ndarray, step: float) -> float:
    """log of the integral of e^log, by the trapezoidal rule, which such peaks leave no error."""
    top = log.real.max()
    return float(top + np.log(step * np.sum(np.exp(log - top)).real))
