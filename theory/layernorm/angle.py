"""GUPTA's angle: standardising turns a by 90 degrees less its angle to the line of 1.

cos(angle(a, Pi a)) = ||Pi a|| / ||a||, and ||Pi a||^2 = ||a||^2 - (a.1)^2/d: the sine of the angle
to 1. Both angles are acute, so they are equal when cosine and sine are.
"""

from theory.lemma import Proof, Statement
from theory.sums import S_1, S_2, i, over, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="angle(a, standardised a) = 90 degrees - angle(a, line of 1), the acute angle",
        source="GUPTA, arXiv 2409.12951",
        hypotheses="a not along 1; gain 1, bias 0; any d",
        latex=r"\cos\angle(a,\Pi a)=\frac{\lVert\Pi a\rVert}{\lVert "
        r"a\rVert}=\sin\angle(a,\mathbf1)",
        how="proved for every d",
    )


def check(norm_of_ones_squared=d):
    proof = Proof()
    z = x[i] - S_1 / d
    inner, length = over(i, x[i] * z), over(i, z**2)
    proof.equal(
        "a . Pi a = ||Pi a||^2 >= 0: acute",
        inner,
        length,
        shown=("sum_i(x_i*(x_i - S_1/d))", "sum_i((x_i - S_1/d)^2)"),
    )
    cosine_squared = inner**2 / (S_2 * length)
    proof.equal(
        "cos^2 of the angle to Pi a",
        cosine_squared,
        length / S_2,
        shown=("length^2*length^2/(S_2*length^2)", "length^2/S_2"),
    )
    to_ones = S_1**2 / (S_2 * norm_of_ones_squared)
    proof.equal(
        "is 1 - cos^2 of the angle to 1",
        cosine_squared,
        1 - to_ones,
        shown=("length^2/S_2", f"1 - S_1^2/(S_2*{norm_of_ones_squared})"),
    )
    return proof


WRONG = {"||1|| = 1": {"norm_of_ones_squared": 1}}
