"""How many Gaussian keys are unselectable in the mean, and the angles of regular simplices."""

from __future__ import annotations

from functools import cache
from math import comb

import mpmath
import numpy as np
from mpmath import mpf

from dynsim.geometry.gaussian_keys import expected_unselectable, external_angle, internal_angle
from experiments.soundness.storm import Outcome

STATEMENT = "expected numbers of unselectable Gaussian keys, and the angles, are right to 1e-11"
REFEREE = (
    "mpmath with 30 digits: angles as orthant probabilities by Plackett's differential equation, "
    "the number by the other half of the sum; the number of facets in up to 3 dimensions"
)
SYSTEMS = 2000

_MOST = 30
_DIGITS = 30


def trial(rng: np.random.Generator) -> Outcome:
    with mpmath.workdps(_DIGITS):
        if rng.random() < 0.1:
            n, d = int(2 ** rng.uniform(1, 8)), int(rng.integers(1, 4))
            return _judge("facets", expected_unselectable(n, d), _by_facets(n, d), f"n {n}, d {d}")
        n = int(rng.integers(1, _MOST + 1))
        d, m = int(rng.integers(1, n + 2)), int(rng.integers(1, n + 1))
        outcomes = [
            _judge("internal angle", internal_angle(m), _internal(m), f"m {m}"),
            _judge("external angle", external_angle(m, n), _external(m, n), f"m {m}, n {n}"),
            _judge("number", expected_unselectable(n, d), _number(n, d), f"n {n}, d {d}"),
        ]
    return max(outcomes, key=lambda outcome: (outcome.kind == "violated", outcome.error))


def _judge(group, said, true, detail) -> Outcome:
    error = float(abs(mpf(said) - true) / true) if true else float(abs(said))
    kind = "holds" if error <= 1e-11 else "violated"
    return Outcome(kind, group, f"{said} instead of {true}, {detail}", error)


def _number(n: int, d: int):
    """n less the vertices of the projected simplex; where that cancels, the sum itself."""
    if n <= d + 1:
        return mpf(0)
    half = n - 2 * sum(_term(m, n) for m in range(d, 0, -2))
    return half if half > mpf(10) ** -8 else 2 * sum(_term(m, n) for m in range(d + 2, n + 1, 2))


def _term(m: int, n: int):
    return comb(n, m) * m * _internal(m) * _external(m, n)


def _by_facets(n: int, d: int):
    """n less the vertices of a simplicial polytope, which has F_1 = 2 vertices, F_2 edges, or
    F_3 / 2 + 2. A facet's plane has distance h ~ N(0, 1 / d), and all others on one side."""
    if n <= d + 1:
        return mpf(0)
    peak = mpmath.sqrt(mpmath.log(n) + 1)
    facets = 2 * comb(n, d) * mpmath.sqrt(d / (2 * mpmath.pi)) * mpmath.quad(
        lambda h: mpmath.ncdf(h) ** (n - d) * mpmath.exp(-d * h * h / 2),
        [-9, -3, 0, peak, 2 * peak, 4 * peak, 14 + 4 * peak],
    )  # fmt: skip
    return n - (facets if d < 3 else facets / 2 + 2)


# --- orthants -------------------------------------------------------------------------------------
#
# p_k(r), the probability that k Gaussian variables of variance 1 and correlations r are positive,
# has the slope C(k, 2) / (2 pi sqrt(1 - r^2)) p_(k-2)(r / (1 + 2 r)) (Plackett 1954); it is 2^-k at
# r = 0, and 0 at r = -1 / (k - 1). The internal angle is p_(m-1)(-1 / (m - 1)), for two facets of
# the simplex meet at the angle arccos(1 / (m - 1)); the external angle is p_(n-m)(1 / (m + 1)).


class _Chebyshev:
    """Functions on [a, b] by their values at nodes."""

    def __init__(self, a, b, count):
        self.a, self.b, self.count = mpf(a), mpf(b), count
        self.cosines = [mpmath.cos(mpmath.pi * mpf(j) / (2 * count)) for j in range(4 * count)]
        self.nodes = [(self.a + self.b + (self.b - self.a) * self.cosines[2 * j + 1]) / 2
                      for j in range(count)]  # fmt: skip

    def integral(self, values):
        """Coefficients of the integral from a of the function with these values."""
        m, cosines = self.count, self.cosines
        c = [2 * mpmath.fdot(values, [cosines[k * (2 * j + 1) % (4 * m)] for j in range(m)]) / m
             for k in range(m)]  # fmt: skip
        c += [mpf(0), mpf(0)]
        b = [(c[k - 1] - c[k + 1]) / (2 * k) * (self.b - self.a) / 2 for k in range(1, m + 1)]
        return [-sum((-1) ** k * v for k, v in enumerate(b, 1)), *b]

    def at(self, x):
        """Chebyshev's polynomials 0 .. count at x."""
        y = (2 * mpf(x) - self.a - self.b) / (self.b - self.a)
        T = [mpf(1), y]
        while len(T) <= self.count:
            T.append(2 * y * T[-1] - T[-2])
        return T


@cache
def _negative():
    """p_k(-1 / k) for all k, by s = k - 1 + w^2, r = -1 / s; r / (1 + 2 r) is s - 2."""
    with mpmath.workdps(_DIGITS):
        grid = _Chebyshev(0, 1, 40)
        table = [grid.at(w) for w in grid.nodes]
        before, now = [mpf(1)] * 40, [mpf(1) / 2] * 40
        ends = [mpf(1), mpf(1) / 2]
        for k in range(2, _MOST):
            slope = []
            for w, value in zip(grid.nodes, before, strict=True):
                s = k - 1 + w * w  # s - 1 is k - 2 + w^2
                over = 1 / mpmath.sqrt(2 + w * w) if k == 2 else w / mpmath.sqrt(s * s - 1)
                slope.append(comb(k, 2) * over * value / (mpmath.pi * s))
            b = grid.integral(slope)
            before, now = now, [mpmath.fdot(b, T) for T in table]
            ends.append(sum(b))
    return ends


@cache
def _positive():
    """Coefficients of p_k(r) on [0, 1/2] for all k, and the grid."""
    with mpmath.workdps(_DIGITS):
        grid = _Chebyshev(0, 0.5, 100)
        mapped = [grid.at(r / (1 + 2 * r)) for r in grid.nodes]
        weight = [1 / (2 * mpmath.pi * mpmath.sqrt(1 - r * r)) for r in grid.nodes]
        found = [[mpf(1)], [mpf(1) / 2]]
        for k in range(2, _MOST):
            inner = [mpmath.fdot(found[k - 2], T[: len(found[k - 2])]) for T in mapped]
            b = grid.integral([comb(k, 2) * u * v for u, v in zip(weight, inner, strict=True)])
            found.append([b[0] + mpf(2) ** -k, *b[1:]])
    return found, grid


def _internal(m: int):
    return mpf(1) if m == 1 else _negative()[m - 1]


@cache
def _external(m: int, n: int):
    coefficients, grid = _positive()
    T = grid.at(mpf(1) / (m + 1))
    return mpmath.fdot(coefficients[n - m], T[: len(coefficients[n - m])])
