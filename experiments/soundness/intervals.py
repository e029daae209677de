"""Intervals of confidence of the shares of basins."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np

from dynsim.equilibria.basins import basins
from dynsim.equilibria.construct import hyperbolic_dynamics
from experiments.soundness.storm import Outcome

STATEMENT = "shares of basins have the intervals of Clopper and Pearson, of at least 95% confidence"
REFEREE = "binomial tails summed in rationals at both ends"
SYSTEMS = 300

#: Ends at rank 1 and at rank 2, each within a few layers.
_DYNAMICS = hyperbolic_dynamics(0.1, 2.0)


def trial(rng: np.random.Generator) -> Outcome:
    n = int(rng.integers(1, 60))
    x0 = rng.standard_normal((n, 2, 2))
    x0 /= np.linalg.norm(x0, axis=-1, keepdims=True)
    found = basins(_DYNAMICS, x0, depth=64)
    if sum(row["count"] for row in found.rows) != n:
        return Outcome("violated", detail=f"counts of {n} starts: {found.rows}")
    error = max(max(_off(row, n)) for row in found.rows)
    if error > 1e-9:
        return Outcome("violated", detail=f"tails off by {error} for {n} starts: {found.rows}")
    return Outcome("holds", error=error)


def _off(row, n) -> tuple[float, float]:
    """How far the tails are from 2.5%: at the low end that of the count and more, at the high end
    that of the count and less."""
    k, low, high = row["count"], Fraction(row["low"]), Fraction(row["high"])
    above = _tail(n, low, range(k, n + 1)) - Fraction(1, 40) if k > 0 else low
    below = _tail(n, high, range(k + 1)) - Fraction(1, 40) if k < n else high - 1
    return float(abs(above)), float(abs(below))


def _tail(n, p, counts) -> Fraction:
    p = p.limit_denominator(2**60)
    return sum(comb(n, j) * p**j * (1 - p) ** (n - j) for j in counts)
