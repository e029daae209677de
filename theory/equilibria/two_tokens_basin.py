"""The share of the circle from which token 2 ends at B, token 1 held at (0, 1).

For x > 0 the ratio q grows by more than w for ever: token 2 goes to (0, 1). For x < 0 it changes by
w - sqrt(1 + q^2), which is negative for q < q_A = -sqrt(w^2 - 1), positive between q_A and q_B =
-q_A, and negative beyond; the map increases, so orbits are monotone: to B from q > q_A, to (0, 1)
from q < q_A. (At (0, -1) the average is 0 and the norm undefined.) On the half circle x < 0 the
angle element is dq / (1 + q^2).
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="the basin of B has the share 1/4 + arccos(1/w) / (2 pi) of the circle; w = 2: 5/12",
        source="WU, arXiv 2405.18781, section 4.3.1, Fig. 5; the share is dynsim's",
        hypotheses="causal, N = d = 2, M = 0, W_V = [[1, w], [0, 1]], w > 1, token 1 at (0, 1)",
        latex=r"\frac1{2\pi}\int_{-\sqrt{w^2-1}}^{\infty}\frac{dq}{1+q^2}=\frac14+\frac{"
        r"\arccos(1/w)}{2\pi},\quad w=2:\ \tfrac5{12}",
        how="proved for every w > 1, by exact integration",
    )


def check(share=lambda w: sympy.Rational(1, 4) + sympy.acos(1 / w) / (2 * sympy.pi)):
    proof = Proof()
    q = sympy.Symbol("q", real=True)
    w = sympy.Symbol("w", positive=True)
    change = w - sympy.sqrt(1 + q**2)
    product = sympy.expand(change * (w + sympy.sqrt(1 + q**2)))
    claim = "the change times a positive factor: its sign is that of w^2 - 1 - q^2"
    proof.equal(
        claim,
        product,
        w**2 - 1 - q**2,
        shown=("(w - sqrt(1 + q^2))*(w + sqrt(1 + q^2))", w**2 - 1 - q**2),
    )
    slope = (q + change).diff(q)
    proof.equal(
        "the slope, 1 - q / sqrt(1 + q^2) > 0: the map increases",
        slope,
        1 - q / sympy.sqrt(1 + q**2),
        shown=("d(q + w - sqrt(1 + q^2))/dq", "1 - q/sqrt(1 + q^2)"),
    )
    angle = sympy.Symbol("alpha", positive=True)  # 1/w = cos(alpha), 0 < alpha < pi/2
    edge, cosine = -sympy.tan(angle), sympy.cos(angle)
    proof.equal(
        "q_A = -tan(alpha), since w^2 - 1 is its square",
        edge**2 + 1,
        1 / cosine**2,
        shown=("tan(alpha)^2 + 1", "1/cos(alpha)^2"),
    )
    antiderivative = sympy.integrate(1 / (1 + q**2), q)
    proof.equal(
        "the antiderivative",
        antiderivative.diff(q),
        1 / (1 + q**2),
        shown=("d(atan(q))/dq", "1/(1 + q^2)"),
    )
    top = sympy.limit(antiderivative, q, sympy.oo)
    found = (top - antiderivative.subs(q, edge)) / (2 * sympy.pi)
    inverse = {sympy.atan(sympy.tan(angle)): angle, sympy.acos(cosine): angle}
    claim = (
        "the integral from q_A to infinity, with arctan(tan(alpha)) = alpha = arccos(cos(alpha))"
    )
    proof.equal(
        claim,
        found.subs(inverse),
        share(1 / cosine).subs(inverse),
        shown=("(pi/2 - atan(-tan(alpha)))/(2*pi)", share(1 / cosine)),
    )
    at_two = (top - antiderivative.subs(q, -sympy.sqrt(3))) / (2 * sympy.pi)
    proof.equal(
        "w = 2",
        at_two,
        share(sympy.Integer(2)),
        shown=("(pi/2 - atan(-sqrt(3)))/(2*pi)", "1/4 + acos(1/2)/(2*pi)"),
    )
    proof.equal("which is", at_two, sympy.Rational(5, 12), shown=("(pi/2 + pi/3)/(2*pi)", "5/12"))
    return proof


WRONG = {
    "arcsin": {"share": lambda w: sympy.Rational(1, 4) + sympy.asin(1 / w) / (2 * sympy.pi)},
    "arccos / pi": {"share": lambda w: sympy.Rational(1, 4) + sympy.acos(1 / w) / sympy.pi},
}
