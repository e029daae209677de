"""Sums over a symbolic number of tokens: enough algebra to expand and collect them."""

from __future__ import annotations

import sympy

N = sympy.Symbol("N", positive=True, integer=True)
i, j = sympy.symbols("i j", integer=True, positive=True)
x = sympy.IndexedBase("x")

#: Sum of the entries and of their squares, over i = 1..N.
S_1, S_2 = sympy.symbols("S_1 S_2", real=True)


def over(index, expression):
    """Sum over index = 1..N of a polynomial in x[index], as a polynomial in N, S_1, S_2 and rest.

    Raises NotImplementedError for powers of x[index] above the second.
    """
    polynomial = sympy.Poly(sympy.expand(expression), x[index])
    moments = {0: N, 1: S_1, 2: S_2}
    total = sympy.Integer(0)
    for (power,), coefficient in polynomial.terms():
        if power not in moments:
            raise NotImplementedError(f"no symbol for the sum of x[{index}]^{power}")
        total += coefficient * moments[power]
    return sympy.expand(total)
