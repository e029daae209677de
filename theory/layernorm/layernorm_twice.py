"""LayerNorm twice: nothing new at eps = 0; for eps > 0 twice differs from once.

Without gain and bias LN(a) has mean 0 and variance q = V / (V + eps), V the variance of a. So the
second time divides by sqrt(q + eps), which is 1 for eps = 0, and else only for V = 1 - eps.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, S_2, i, over, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="LN(LN(a)) = LN(a) / sqrt(V/(V + eps) + eps), V = var a: idempotent for eps = 0; "
        "for eps > 0 only where V = 1 - eps",
        source="dynsim; after GUPTA, arXiv 2409.12951",
        hypotheses="gain 1, bias 0; any d",
        latex=r"\operatorname{LN}(\operatorname{LN}(a))=\frac{\operatorname{LN}(a)}{\sqrt{V/(V+"
        r"\varepsilon)+\varepsilon}},\quad V=\operatorname{var}a;\qquad\operatorname{LN}("
        r"\operatorname{LN}(a))=\operatorname{LN}(a)\iff\varepsilon=0\text{ or }V=1-\varepsilon",
        how="proved for every d",
    )


def check(exception=lambda eps: 1 - eps):
    proof = Proof()
    V, eps = sympy.symbols("V epsilon", positive=True)
    y = (x[i] - S_1 / d) / sympy.sqrt(V + eps)
    proof.equal(
        "the mean of y = LN(a)",
        over(i, y) / d,
        0,
        shown=("sum_i((x_i - S_1/d)/sqrt(V + eps))/d", "0"),
    )
    second = (over(i, y**2) / d).subs(S_2, d * V + S_1**2 / d)
    proof.equal("its variance", second, V / (V + eps))
    proof.equal("at eps = 0 it is 1", second.subs(eps, 0), 1, shown=("V/(V + 0)", "1"))
    idempotent = sympy.solve(sympy.Eq(V / (V + eps) + eps, 1), V)
    proof.true("for eps > 0 the divisor is 1 only at this V", idempotent == [exception(eps)])
    return proof


WRONG = {
    "V = 1": {"exception": lambda eps: sympy.Integer(1)},
    "V = 1 + eps": {"exception": lambda eps: 1 + eps},
}
