"""LayerNorm's image lies in a hyperplane: (y - b) / g sums to zero.

(y_i - b_i) / g_i is a common factor times a_i - mean, and these sum to 0.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, i, over, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="y = LN(a): (y - b) . alpha = 0 with alpha = 1/g",
        source="RIECHERS, arXiv 2405.04134",
        hypotheses="all gains not 0; any d, bias and eps",
        latex=r"(y-b)\cdot\alpha=0,\qquad\alpha_i=\frac1{g_i}",
        how="proved for every d",
    )


def check(normal=lambda g: 1 / g):
    proof = Proof()
    f, g = sympy.symbols("f g_i", positive=True)  # f = sqrt(d) / sqrt(||Pi a||^2 + d eps)
    entry = f * g * (x[i] - S_1 / d)
    term = sympy.expand(normal(g) * entry)
    proof.equal(
        "term i of (y - b) . alpha is free of the gain",
        term,
        f * (x[i] - S_1 / d),
        shown=("(1/g_i)*(f*g_i*(x_i - S_1/d))", "f*(x_i - S_1/d)"),
    )
    proof.equal(
        "their sum", over(i, f * (x[i] - S_1 / d)), 0, shown=("sum_i(f*(x_i - S_1/d))", "0")
    )
    return proof


WRONG = {"alpha = g": {"normal": lambda g: g}, "alpha = 1": {"normal": lambda g: 1}}
