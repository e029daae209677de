"""The limit of the multipliers for large w: I + a companion matrix of signs.

In the scaled coordinates of lemma multiplier-polynomial, everything is polynomial in v = 1/w^2 once
t_i = s_i r_i. At v = 0 all r_i are 1, a tangent vector has no component along e_N, and on the
others the block acts as I + C, C the companion matrix of zeta^(k-1) + b_1 zeta^(k-2) + ... +
b_{k-1} with b_m = (-1)^m s_{k-m} s_k.
"""

import sympy

from theory.lemma import Proof, Statement

LARGEST = 8


def statement():
    return Statement(
        claim="as w grows, token k's non-trivial multipliers tend to 1 + zeta, zeta the roots of "
        "sum_{m<k} (-1)^m s_k s_{k-m} zeta^(k-1-m)",
        source="dynsim; for the equilibria of WU, arXiv 2405.18781, Theorem 3",
        hypotheses="as for multiplier-polynomial; s_i the sign of token i's last coordinate",
        latex=r"\lambda\to1+\zeta,\qquad\sum_{m=0}^{k-1}(-1)^m\frac{s_{k-m}}{s_k}\zeta^{k-1-m}=0",
        how=f"proved for k <= {LARGEST}, all signs",
    )


def check(sign=lambda m: (-1) ** m):
    proof = Proof()
    v, zeta = sympy.symbols("v zeta")
    for k in range(2, LARGEST + 1):
        s = dict(enumerate(sympy.symbols(f"s_1:{k + 1}"), 1))
        square = {s[k] ** 2: 1}
        # y[a] = w^a x_{N-a}, and z[a] = w^-a x_{N-a} = v^a y[a]; t_i = s_i at v = 0
        y = sympy.Matrix([[(-1) ** a * s[k - a] for a in range(k)]])
        z = sympy.Matrix([[v**a * y[a] for a in range(k)]])
        grow = sympy.Matrix(k, k, lambda a, b: int(a == b or a == b + 1))  # I + U, from the last
        block = (grow * (sympy.eye(k) - z.T * y)).subs(v, 0)
        tangent = block[1:, 1:].expand().subs(square)
        b = [sign(m) * s[k - m] * s[k] for m in range(k)]
        companion = sympy.Matrix(k - 1, k - 1, lambda a, c: int(a == c + 1))
        companion[0, :] -= sympy.Matrix([b[1:]])
        claim = f"k = {k}: the block on e_1, ..., e_(N-1) is I + C"
        proof.equal(claim, tangent, sympy.eye(k - 1) + companion, shown=("block", "I + C"))
        stated = zeta ** (k - 1) + sum(b[m] * zeta ** (k - 1 - m) for m in range(1, k))
        proof.equal(
            f"k = {k}: the characteristic polynomial of C",
            companion.charpoly(zeta).as_expr(),
            stated,
            shown=("det(zeta*I - C)", stated),
        )
    return proof


WRONG = {
    "without (-1)^m": {"sign": lambda m: 1},
    "signs one token late": {"sign": lambda m: (-1) ** (m + 1)},
}
