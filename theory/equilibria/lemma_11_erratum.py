"""An erratum: WU's Lemma 11 prints the slope 1 + X_21 where it is 1 + X_22.

At w = 2 both points have X_21 = -1/2, so the printed slope, 1/2, would make both attract. The true
slopes are 1 + sqrt(3)/2 at A and 1 - sqrt(3)/2 at B. (The paper's conclusions use the true ones.)
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'the ratio map has slope 1 + X_21' is false: at w = 2, point A, the slope is 1 + "
        "sqrt(3)/2 and 1 + X_21 = 1/2",
        source="WU, arXiv 2405.18781, App. E, Lemma 11 (an erratum: read 1 + X_22)",
        hypotheses="as for two-tokens-map, w = 2",
        latex=r"w=2,\ X_2=A=\bigl(-\tfrac12,\tfrac{\sqrt3}2\bigr):\quad"
        r"\frac{dq'}{dq}=1+\tfrac{\sqrt3}2\ne1+X_{21}=\tfrac12",
        how="counterexample found, exact",
    )


def check(w=sympy.Integer(2), true_slope=lambda x, y: 1 + y):
    proof = Proof()
    q = sympy.Symbol("q", real=True)
    x, y = -1 / w, sympy.sqrt(1 - 1 / w**2)
    image = q + w - sympy.sqrt(1 + q**2)  # x < 0
    proof.equal(
        "A is fixed", image.subs(q, y / x), y / x, shown=("-sqrt(3) + 2 - sqrt(1 + 3)", "-sqrt(3)")
    )
    slope = sympy.simplify(image.diff(q).subs(q, y / x))
    proof.equal(
        "its slope", slope, true_slope(x, y), shown=("1 + sqrt(3)/sqrt(1 + 3)", true_slope(x, y))
    )
    printed = 1 + x
    proof.less("is above the printed 1 + X_21", printed, slope)
    return proof


WRONG = {"as printed": {"true_slope": lambda x, y: 1 + x}}
