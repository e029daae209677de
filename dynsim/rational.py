"""Convex combinations in exact arithmetic, where rounding cannot decide."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

__all__ = ["combine_to_zero"]


def combine_to_zero(vectors: list[list]) -> bool:
    """Do weights w_j >= 0, not all 0, exist with sum_j w_j a_j = 0? Decided in integers.

    If not, a u has u . a_j > 0 for all j (Gordan's theorem). `vectors` are the a_j: equally many
    finite numbers each, taken as they are (a float is a rational number).

    Phase one of the simplex method with Bland's rule, which ends, on integers that share one
    denominator (Edmonds: each pivot divides by the last one without remainder).

    >>> combine_to_zero([[0.1, 0.0], [-0.3, 0.0], [0.0, 1.0]])
    True
    >>> combine_to_zero([[1.0], [1e-300]])
    False
    """
    columns = [[*_integers(a), 1] for a in vectors]  # the last row: sum_j w_j = 1
    rows = [[*row, 0] for row in zip(*columns, strict=True)]
    rows[-1][-1] = 1
    basis = [len(columns) + k for k in range(len(rows))]  # artificial; never come back
    cost = [-sum(entries) for entries in zip(*rows, strict=True)]
    last = 1
    while cost[-1]:
        enter = next((j for j in range(len(columns)) if cost[j] < 0), None)
        if enter is None:
            return False
        leave = min(
            (k for k, row in enumerate(rows) if row[enter] > 0),
            key=lambda k: (Fraction(rows[k][-1], rows[k][enter]), basis[k]),
        )
        pivot, basis[leave] = rows[leave], enter
        size = pivot[enter]
        for row in (*rows, cost):
            if row is not pivot:
                factor = row[enter]
                row[:] = [(size * a - factor * b) // last for a, b in zip(row, pivot, strict=True)]
        last = size
    return True


def _integers(vector) -> list[int]:
    """A positive multiple of the vector."""
    fractions = [Fraction(v) for v in vector]
    common = lcm(*(f.denominator for f in fractions))
    return [int(f * common) for f in fractions]
