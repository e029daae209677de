"""The point of a convex hull nearest to 0, in exact arithmetic, where rounding cannot decide."""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["nearest_to_zero"]


def nearest_to_zero(vectors: list[list]) -> list[Fraction]:
    """The convex weights, of the vectors a_j, of the point x of their hull that is nearest to 0.

    At most d + 1 are not 0. If x = 0, no u has u . a_j > 0 for all j (Gordan's theorem); else x is
    such a u, with u . a_j >= ||x||^2. `vectors` are d finite numbers each, taken as they are (a
    float is a rational number).

    Wolfe, Finding the nearest point in a polytope, Math. Programming 11 (1976), which ends, because
    ||x|| falls from one affinely independent set of members to the next.

    >>> nearest_to_zero([[0.5, 0.0], [-0.25, 0.0], [0.0, 1.0]])
    [Fraction(1, 3), Fraction(2, 3), Fraction(0, 1)]
    >>> nearest_to_zero([[2.0], [1e-300]])
    [Fraction(0, 1), Fraction(1, 1)]
    """
    points = _integers(vectors)
    members = [min(range(len(points)), key=lambda j: _dot(points[j], points[j]))]
    shares = [Fraction(1)]
    while True:
        common = lcm(*(share.denominator for share in shares))
        multiples = [int(share * common) for share in shares]
        x = [
            _dot(multiples, entries) for entries in zip(*(points[j] for j in members), strict=True)
        ]
        heights = [_dot(point, x) for point in points]
        lowest = min(range(len(points)), key=heights.__getitem__)
        if heights[lowest] >= heights[members[0]]:  # members are equally high
            break
        members, shares = _joined(points, [*members, lowest], [*shares, Fraction(0)])
    weights = [Fraction(0)] * len(points)
    for j, share in zip(members, shares, strict=True):
        weights[j] = share
    return weights


def _joined(
    points: list[list[int]], members: list[int], shares: list[Fraction]
) -> tuple[list[int], list[Fraction]]:
    """Move to the nearest point of the members' affine hull, without those that turn negative."""
    while True:
        wanted = _affine([points[j] for j in members])
        steps = [
            have / (have - want) for have, want in zip(shares, wanted, strict=True) if want < 0
        ]
        step = min(steps, default=Fraction(1))
        shares = [have + step * (want - have) for have, want in zip(shares, wanted, strict=True)]
        members = [j for j, share in zip(members, shares, strict=True) if share]
        shares = [share for share in shares if share]
        if not steps:
            return members, shares


def _affine(points: list[list[int]]) -> list[Fraction]:
    """Weights, of sum 1, of the point of the affine hull nearest to 0, by Gauss's elimination."""
    base, *rest = points
    edges = [[a - b for a, b in zip(point, base, strict=True)] for point in rest]
    rows = [[Fraction(_dot(e, f)) for f in edges] + [Fraction(-_dot(e, base))] for e in edges]
    for k, pivot in enumerate(rows):  # positive definite: no pivot is 0
        for row in rows:
            if row is not pivot and row[k]:
                factor = row[k] / pivot[k]
                row[k:] = [a - factor * b for a, b in zip(row[k:], pivot[k:], strict=True)]
    others = [row[-1] / row[k] for k, row in enumerate(rows)]
    return [Fraction(1) - sum(others), *others]


def _integers(vectors: Iterable[Iterable[Fraction | float]]) -> list[list[int]]:
    """The vectors times the least number that makes all their entries whole."""
    exact = [[Fraction(v) for v in vector] for vector in vectors]
    common = lcm(*(v.denominator for vector in exact for v in vector))
    return [[int(v * common) for v in vector] for vector in exact]


def _dot(a: Iterable[int], b: Iterable[int]) -> int:
    return sum(x * y for x, y in zip(a, b, strict=True))
