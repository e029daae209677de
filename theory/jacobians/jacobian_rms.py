"""The derivative of RMSNorm, g a / s with s = sqrt(mean(a^2) + eps).

At eps = 0 the scale of a does not matter and a is a null direction. For eps > 0 it is not: along a
the derivative is eps g a / s^3.
"""

import sympy

from theory.lemma import Proof, Statement

SIZES = (1, 2, 3)


def statement():
    return Statement(
        claim="RMSNorm: J = diag(g) (I / s - a a^T / (d s^3)), s^2 = mean(a^2) + eps; J a = eps g "
        "a / s^3, 0 exactly for eps = 0",
        source="GUPTA, arXiv 2409.12951 (RMSNorm); Zhang and Sennrich, arXiv 1910.07467",
        hypotheses="s > 0",
        latex=r"J=\operatorname{diag}(g)\Bigl(\frac Is-\frac{aa^{\top}}{d\,s^3}\Bigr),\qquad Ja="
        r"\frac{\varepsilon}{s^3}\operatorname{diag}(g)a,\qquad s^2=\tfrac1d\lVert a\rVert^2+"
        r"\varepsilon",
        how=f"proved for d <= {SIZES[-1]}, symbolic gain and eps",
    )


def check(divisor=lambda d: d, radial=lambda eps: eps):
    proof = Proof()
    eps, s = sympy.symbols("epsilon s", positive=True)
    for d in SIZES:
        a = sympy.Matrix(sympy.symbols(f"a_1:{d + 1}", real=True))
        g = sympy.diag(*sympy.symbols(f"g_1:{d + 1}", real=True))
        square = a.dot(a) / d + eps
        by_scale = {sympy.sqrt(square): s}
        found = (g * a / sympy.sqrt(square)).jacobian(a).subs(by_scale)
        stated = g * (sympy.eye(d) / s - a * a.T / (divisor(d) * s**3))
        proof.equal(
            f"d = {d}: against diff",
            _reduced(found, s, a, eps, d),
            _reduced(stated, s, a, eps, d),
            shown=("d(RMSNorm(a))/da", "G*(I/s - a*a^T/(d*s^3))"),
        )
        along = _reduced(stated * a, s, a, eps, d)
        proof.equal(
            "along a",
            along,
            _reduced(radial(eps) * g * a / s**3, s, a, eps, d),
            shown=("J*a", "eps*G*a/s^3" if radial(eps) else "0"),
        )
    return proof


def _reduced(matrix, s, a, eps, d):
    """With eps in terms of s: eps = s^2 - mean(a^2)."""
    return matrix.subs(eps, s**2 - a.dot(a) / d).applyfunc(sympy.expand)


WRONG = {
    "without 1/d": {"divisor": lambda d: 1},
    "a is null for every eps": {"radial": lambda eps: 0},
}
