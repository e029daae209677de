"""Schur and Cohn's test in integers: are all roots of a polynomial inside a circle?

Polynomials are lists of integers, the constant first.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

__all__ = ["all_inside", "sign_polynomial"]


def sign_polynomial(signs: Sequence[int]) -> list[int]:
    """q(lambda) = p(lambda - 1), p(zeta) = zeta^(k-1) + b_1 zeta^(k-2) + ... + b_{k-1}."""
    q = [1]
    for b in signs:  # Horner's rule: q <- q (lambda - 1) + b
        q = [low - high for low, high in zip([0, *q], [*q, 0], strict=True)]
        q[0] += b
    return q


def all_inside(polynomial: Sequence[int], radius: Fraction) -> bool:
    """True when every root has modulus < radius. Exact.

    With a_0 the constant and a_n the leading coefficient, all roots of p are inside the unit circle
    exactly when |a_0| < |a_n| and those of (a_n p(y) - a_0 y^n p(1/y)) / y are.
    """
    top, bottom = radius.numerator, radius.denominator
    n = len(polynomial) - 1
    a = [c * top**i * bottom ** (n - i) for i, c in enumerate(polynomial)]
    while len(a) > 1:
        if abs(a[0]) >= abs(a[-1]):
            return False
        a = [a[-1] * a[i] - a[0] * a[-1 - i] for i in range(1, len(a))]
        divisor = gcd(*a)
        a = [c // divisor for c in a]
    return True
