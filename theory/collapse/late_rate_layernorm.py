"""Near consensus under unit norm the multipliers are lambda_i(A_uniform) w_j / w_1.

Let e be the consensus: a unit vector with e W = w_1 e, w_1 > 0. Attention contributes A_uniform Z W
at first order (lemma late-rate), and scaling y to unit length contributes (I - e^T e) / w_1. A mode
Z = u f with A_uniform u = lambda u becomes lambda u (f W P) / w_1. P kills e; along the others W P
acts as W does modulo e, with the eigenvalues w_2, ..., w_d.
"""

import itertools

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="unit norm: the multipliers at consensus e (e W_V = w_1 e) are lambda_i w_j / w_1 "
        "for j >= 2, and 0 along e",
        source="dynsim, by linearisation; compare WU, arXiv 2405.18781, Corollary 1",
        hypotheses="W_V the same in every layer with real eigenvalues and w_1 > 0; in the "
        "orthonormal basis of Schur's form, e = e_1",
        latex=r"Z\mapsto A_{\mathrm{uniform}}\,Z\,W_V\,(I-e^{\top}e)/w_1:\quad\text{multipliers }"
        r"\lambda_iw_j/w_1\ (j\ge2)\text{ and }0",
        how="proved for d <= 4, symbolic W_V",
    )


def check(scale=lambda w: w[0]):
    proof = Proof()
    t = sympy.Symbol("t")
    a = sympy.symbols("a_1:3", real=True)
    size = sympy.sqrt(a[0] ** 2 + a[1] ** 2)
    unit = sympy.Matrix([a[0] / size, a[1] / size]).jacobian(a)
    w_1 = sympy.Symbol("w_1", positive=True)
    claim = "derivative of y / ||y|| at y = w_1 e (d = 2; lemma jacobian-unit for more)"
    proof.equal(
        claim,
        unit.subs({a[0]: w_1, a[1]: 0}),
        sympy.diag(0, 1) / w_1,
        shown=("d(y/norm(y))/dy", sympy.diag(0, 1) / w_1),
    )
    for d in (2, 3, 4):
        w = [w_1, *sympy.symbols(f"w_2:{d + 1}", real=True)]
        # rows are left factors, so e_1 W = w_1 e_1 makes W lower triangular
        W = sympy.diag(*w)
        for i, j in itertools.combinations(range(d), 2):
            W[j, i] = sympy.Symbol(f"w_{j + 1}{i + 1}")
        P = sympy.diag(0, *[1] * (d - 1))
        found = (W * P / w_1).charpoly(t).as_expr()
        expected = t * sympy.prod(t - value / scale(w) for value in w[1:])
        proof.equal(
            f"d = {d}: characteristic polynomial of f -> f W P / w_1",
            found,
            expected,
            shown=("det(t*I - W*P/w_1)", expected),
        )
    return proof


WRONG = {
    "w_j alone": {"scale": lambda w: 1},
    "divided by the last eigenvalue": {"scale": lambda w: w[-1]},
}
