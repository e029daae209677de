"""The derivative of LayerNorm, sqrt(d) g Pi a / s + b with s = sqrt(||Pi a||^2 + d eps).

Adding a constant to a changes nothing: 1 is null for every eps. At eps = 0 neither does scaling: a
is null too (Euler's identity), and the rank is at most d - 2. For eps > 0 the derivative along a is
d eps / s^3 times sqrt(d) g Pi a. For equal gains the Jacobian is symmetric.
"""

import sympy

from theory.lemma import Proof, Statement

SIZES = (2, 3)


def statement():
    return Statement(
        claim="LayerNorm: J = sqrt(d) diag(g) (Pi/s - Pi a a^T Pi/s^3), s^2 = ||Pi a||^2 + d eps; "
        "J 1 = 0; J a = d eps sqrt(d) g Pi a / s^3, 0 exactly for eps = 0",
        source="RIECHERS, arXiv 2405.04134, the closed form; GUPTA, arXiv 2409.12951",
        hypotheses="s > 0; Pi = I - 1 1^T/d",
        latex=r"J=\sqrt d\operatorname{diag}(g)\Bigl(\frac{\Pi}s-\frac{\Pi aa^{\top}\Pi}{s^3}"
        r"\Bigr),\quad s^2=\lVert\Pi a\rVert^2+d\varepsilon,\quad J\mathbf1=0,\quad Ja="
        r"\frac{d\varepsilon\sqrt d}{s^3}\operatorname{diag}(g)\Pi a",
        how=f"proved for d <= {SIZES[-1]}, symbolic gain and eps",
    )


def check(sign=-1, radial=lambda eps: eps):
    proof = Proof()
    eps, s = sympy.symbols("epsilon s", positive=True)
    for d in SIZES:
        a = sympy.Matrix(sympy.symbols(f"a_1:{d + 1}", real=True))
        g = sympy.diag(*sympy.symbols(f"g_1:{d + 1}", real=True))
        Pi = sympy.eye(d) - sympy.ones(d, d) / d
        z = Pi * a
        square = sympy.expand(z.dot(z) + d * eps)
        eps_of_s = {eps: (s**2 - sympy.expand(z.dot(z))) / d}
        layernorm = sympy.sqrt(d) * g * z / sympy.sqrt(square)
        found = layernorm.jacobian(a).subs(sympy.sqrt(square), s).subs(eps_of_s)
        stated = sympy.sqrt(d) * g * (Pi / s + sign * z * z.T / s**3)
        proof.equal(
            f"d = {d}: against diff",
            found,
            stated,
            shown=("d(LN(a))/da", "sqrt(d)*G*(Pi/s - Pi*a*a^T*Pi/s^3)"),
        )
        proof.equal(
            "1 is a null direction",
            stated * sympy.ones(d, 1),
            sympy.zeros(d, 1),
            shown=("J*ones", "0"),
        )
        along = radial(eps) * d * sympy.sqrt(d) * g * z / s**3
        proof.equal(
            "along a", stated * a, along.subs(eps_of_s), shown=("J*a", "d*eps*sqrt(d)*G*Pi*a/s^3")
        )
        even = stated.subs(dict.fromkeys(g.diagonal(), g[0, 0]))
        proof.equal("symmetric for equal gains", even, even.T, shown=("J", "J^T"))
    return proof


WRONG = {"a plus sign": {"sign": 1}, "a is null for every eps": {"radial": lambda eps: 0}}
