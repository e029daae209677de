"""WU's Lemma 13 is false from d = 4 on: one layer takes token 2 out of the set x_{d-1} <= -1/w.

Token 1 is at e_d and x is token 2. The lemma's proof needs f = (x_1^2 + ... + x_{d-2}^2) /
x_{d-1}^2 not to grow. For d = 4 and a small x_2 it does: the layer makes x_2 of the order of w x_1,
but x_3 only x_3 + w x_2. Before the layer all of x_1, x_2, x_3 are negative, x_3 <= -1/w, and f is
under the paper's bound (41); the example has w = d too, as Theorem 3 wants it. More coordinates,
all 0, in front of x_1 change nothing, and every inequality is strict, so that small negative
numbers in their places do as well: the lemma is false for every d >= 4.

The hypotheses are those that dynsim's notes on the paper give; the appendix was not at hand when
this was written. The example meets (41) as printed and as corrected (lemma lemma-13-corrected).
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'x_1, ..., x_{d-1} < 0, x_{d-1} <= -1/w and f <= sqrt(w^2 - 1) give x_{d-1} <= -1/w "
        "after a layer' is false for d >= 4: w = 4, x = (-11, -1, -7, 5) / 14 goes to x_3 = "
        "-11/sqrt(2348) > -1/4, and f grows from 122/49 to 2146/121",
        source="WU, arXiv 2405.18781, App. F.3, Lemma 13 (an erratum)",
        hypotheses="causal, M = 0, unit norm, W_V = I + w * superdiagonal, token 1 at e_d, x is "
        "token 2, f = (x_1^2 + ... + x_{d-2}^2) / x_{d-1}^2",
        latex=r"d=4,\ w=4:\quad x=\tfrac1{14}(-11,-1,-7,5)\mapsto x',\qquad x_3=-\tfrac12"
        r"\le-\tfrac1w,\quad f(x)=\tfrac{122}{49}<\sqrt{w^2-1},\quad "
        r"x_3'=-\tfrac{11}{\sqrt{2348}}>-\tfrac1w,\quad f(x')=\tfrac{2146}{121}",
        how="counterexample found, exact, with d = 4 and one zero in front",
    )


def check(w=sympy.Integer(4), token=(-11, -1, -7, 5)):
    proof = Proof()
    for zeros in (0, 1):
        d = len(token) + zeros
        x = sympy.Matrix([[0] * zeros + list(token)]) / 14
        first = sympy.Matrix([[0] * (d - 1) + [1]])
        W = sympy.Matrix(d, d, lambda i, j: {0: 1, 1: w}.get(int(j - i), 0))
        y = (first + x) * W
        proof.equal(
            f"d = {d}: token 2 has length 1", x.dot(x), 1, ("(11^2 + 1^2 + 7^2 + 5^2)/14^2", "1")
        )
        for i in range(zeros, d - 1):
            proof.less(f"d = {d}: x_{i + 1} < 0", x[i], 0)
        proof.less(f"d = {d}: x_{d - 1} < -1/w", x[d - 2], -1 / w)
        proof.less(f"d = {d}: f < sqrt(w^2 - 1), the bound (41)", _f(x), sympy.sqrt(w**2 - 1))
        proof.less(f"d = {d}: after the layer f is above w^2 - 1", w**2 - 1, _f(y))
        claim = f"d = {d}: and x_{d - 1} above -1/w"
        proof.less(claim, -1 / w, y[d - 2] / sympy.sqrt(y.dot(y)), (-1 / w, "-11/sqrt(2348)"))
    return proof


def _f(x):
    return sum(entry**2 for entry in x[:-2]) / x[-2] ** 2


WRONG = {
    "with x_2 = -7/14": {"token": (-11, -7, -1, 5)},
    "with x_1 and x_2 exchanged": {"token": (-1, -11, -7, 5)},
    "w = 2": {"w": sympy.Integer(2)},
}
