"""Convex combinations in exact arithmetic, where rounding cannot decide."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

__all__ = ["zero_combination"]


def zero_combination(vectors: list[list]) -> list[Fraction] | None:
    """Weights w_j >= 0 of sum 1 with sum_j w_j a_j = 0, all but d + 1 of them 0; None if there are
    none.

    Then a u has u . a_j > 0 for all j (Gordan's theorem). `vectors` are the a_j, d finite numbers
    each, taken as they are (a float is a rational number).

    Phase one of the simplex method with Bland's rule, which ends, on integers that share one
    denominator (Edmonds: each pivot divides by the last one without remainder).

    >>> zero_combination([[0.5, 0.0], [-0.25, 0.0], [0.0, 1.0]])
    [Fraction(1, 3), Fraction(2, 3), Fraction(0, 1)]
    >>> zero_combination([[1.0], [1e-300]])
    """
    multiples, columns = zip(*map(_integers, vectors), strict=True)
    rows = [[*row, 0] for row in zip(*columns, strict=True)]
    rows.append([1] * (len(columns) + 1))  # the weights of the integer vectors have sum 1
    basis = [len(columns) + k for k in range(len(rows))]  # artificial; never come back
    cost = [-sum(entries) for entries in zip(*rows, strict=True)]
    last = 1
    while cost[-1]:
        enter = next((j for j in range(len(columns)) if cost[j] < 0), None)
        if enter is None:
            return None
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
    weights = [Fraction(0)] * len(columns)
    for j, row in zip(basis, rows, strict=True):
        if j < len(columns):
            weights[j] = Fraction(row[-1], last) * multiples[j]
    total = sum(weights)
    return [w / total for w in weights]


def _integers(vector) -> tuple[int, list[int]]:
    """A multiple, and this multiple of the vector."""
    fractions = [Fraction(v) for v in vector]
    common = lcm(*(f.denominator for f in fractions))
    return common, [int(f * common) for f in fractions]
