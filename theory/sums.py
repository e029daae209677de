"""Sums over a symbolic number of tokens or coordinates: enough algebra to expand and collect them.

A sum over i = 1..N of a polynomial in x[i] is a combination of moments such as S_2 = sum x_i^2.
"""

from __future__ import annotations

from collections.abc import Mapping

import sympy

__all__ = ["POWERS", "S_1", "S_2", "N", "i", "j", "over", "x"]

N = sympy.Symbol("N", positive=True, integer=True)
i, j = sympy.symbols("i j", integer=True, positive=True)
x = sympy.IndexedBase("x", real=True)

#: Sum of the entries and of their squares, over i = 1..N.
S_1, S_2 = sympy.symbols("S_1 S_2", real=True)

#: The moments of one sequence x: powers of x[i] and their sums.
POWERS = {(0,): N, (1,): S_1, (2,): S_2}


def over(index, expression, moments: Mapping = POWERS, of=(x,)):
    """Sum over index = 1..N of a polynomial in the entries at `index` of the sequences `of`.

    `moments` maps exponents, one per sequence, to the symbol of that sum.
    Raises NotImplementedError for exponents that have none.
    """
    entries = [sequence[index] for sequence in of]
    total = sympy.Integer(0)
    for powers, coefficient in sympy.Poly(sympy.expand(expression), *entries).terms():
        if powers not in moments:
            raise NotImplementedError(f"no symbol for the sum of {entries} to the powers {powers}")
        total += coefficient * moments[powers]
    return sympy.expand(total)
