"""LayerNorm's image lies in an ellipsoid: inside for eps > 0, on its surface for eps = 0.

(y - b)^T G^-2 (y - b) = d ||Pi a||^2 / (||Pi a||^2 + d eps): the gains cancel. As ||Pi a||^2 runs
through [0, infinity) this takes every value of [0, d).
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="y = LN(a): (y - b)^T G^-2 (y - b) = d - d^2 eps / (||Pi a||^2 + d eps): < d for "
        "eps > 0, = d for eps = 0",
        source="RIECHERS, arXiv 2405.04134",
        hypotheses="all gains not 0; any d and bias; Pi a not 0 where eps = 0",
        latex=r"(y-b)^{\top}G^{-2}(y-b)=d-\frac{d^2\varepsilon}{\lVert\Pi a\rVert^2+d"
        r"\varepsilon}\le d,\quad<d\text{ for }\varepsilon>0",
        how="proved for every d",
    )


def check(gap=lambda d, eps: d**2 * eps):
    proof = Proof()
    d, P, eps, value = sympy.symbols("d P epsilon c", positive=True)  # P = ||Pi a||^2
    g, z = sympy.symbols("g_i z_i", real=True, nonzero=True)  # z = Pi a
    entry = sympy.sqrt(d) * g * z / sympy.sqrt(P + d * eps)
    proof.equal(
        "term i of the form is free of the gain",
        (entry / g) ** 2,
        d * z**2 / (P + d * eps),
        shown=("(sqrt(d)*g_i*z_i/sqrt(P + d*eps)/g_i)^2", "d*z_i^2/(P + d*eps)"),
    )
    form = d * P / (P + d * eps)
    proof.equal("summed, with sum z_i^2 = P", form, d - gap(d, eps) / (P + d * eps))
    proof.less("strictly less than d for eps > 0", form, d)
    proof.equal("equal to d for eps = 0", form.subs(eps, 0), d, shown=("d*P/(P + d*0)", "d"))
    at = value * eps * d / (d - value)
    proof.equal("every value c in (0, d) is taken, at this P > 0", form.subs(P, at), value)
    return proof


WRONG = {
    "d eps in the gap": {"gap": lambda d, eps: d * eps},
    "eps^2": {"gap": lambda d, eps: d**2 * eps**2},
}
