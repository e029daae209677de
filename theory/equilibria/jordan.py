"""The family of equilibria of WU's Theorem 3, with exact arithmetic for their square roots.

Causal mask, M = 0, d = N, W_V = I + w U with U the ones of the superdiagonal. The first m = N - k +
1 tokens are s_0 e_N; the following solve x_{i+1} (I - W_V) = beta_i x_i, beta = m for the first and
then 1, with the last coordinate free: s_i times a root that makes the length 1.
"""

from __future__ import annotations

import sympy

__all__ = ["W_V", "family", "modulo_roots", "r", "rho", "s", "w"]

w = sympy.Symbol("w", positive=True)
#: Signs of the last coordinates of token N - k + 1 (s[0]) and the following.
s = sympy.symbols("s_0:12", real=True)
#: The absolute values of the last coordinates: rho of the first token after the block, r later.
r, rho = sympy.symbols("r rho", positive=True)


def W_V(n: int) -> sympy.Matrix:
    return sympy.Matrix(n, n, lambda i, j: {0: 1, 1: w}.get(int(j - i), 0))


def family(n: int, k: int) -> sympy.Matrix:
    """X for all 2^k choices of signs at once: a matrix in w, r, rho and s_0, ..., s_{k-1}."""
    m = n - k + 1
    rows = [[0] * (n - 1) + [s[0]]] * m
    for i in range(1, k):
        beta, last = (m, rho) if i == 1 else (1, r)
        rows.append([-beta * entry / w for entry in rows[-1][1:]] + [s[i] * last])
    return sympy.Matrix(rows)


def modulo_roots(expression, m: int = 1):
    """The normal form under s_i^2 = 1, r^2 = 1 - 1/w^2 and rho^2 = 1 - m^2/w^2.

    The relations have coprime leading terms, so that they are a Groebner basis: an expression
    vanishes exactly when its normal form does.
    """
    squares = {r: 1 - 1 / w**2, rho: 1 - sympy.Integer(m) ** 2 / w**2, **dict.fromkeys(s, 1)}
    polynomial = sympy.Poly(sympy.expand(expression), *squares)
    total = sympy.Integer(0)
    for powers, coefficient in polynomial.terms():
        for root, power in zip(squares, powers, strict=True):
            coefficient *= squares[root] ** (power // 2) * root ** (power % 2)
        total += coefficient
    return sympy.expand(total)
