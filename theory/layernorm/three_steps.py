"""GUPTA: LayerNorm in three steps: remove the component along 1, make it unit, times sqrt(d).

Coordinates are summed symbolically; the component along the unit vector 1 / sqrt(d) is S_1 /
sqrt(d).
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, S_2, i, over, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="LN(a) = sqrt(d) u / ||u||, u = a less its component along 1 (no gain, bias, eps)",
        source="GUPTA, arXiv 2409.12951, LayerNorm as three geometric steps",
        hypotheses="a not along 1; any d",
        latex=r"\operatorname{LN}(a)=\sqrt d\,\frac{a-(a\cdot\hat{\mathbf1})\hat{\mathbf1}}{"
        r"\lVert a-(a\cdot\hat{\mathbf1})\hat{\mathbf1}\rVert},\quad\hat{\mathbf1}=\mathbf1/\sqrt "
        r"d",
        how="proved for every d",
    )


def check(length_squared=lambda d: d):
    proof = Proof()
    unit = 1 / sympy.sqrt(d)  # an entry of 1 / ||1||
    along = over(i, x[i] * unit) * unit
    proof.equal(
        "step 1 removes the mean",
        x[i] - along,
        x[i] - S_1 / d,
        shown=("x_i - sum_j(x_j/sqrt(d))/sqrt(d)", "x_i - S_1/d"),
    )
    u = x[i] - S_1 / d
    squared = over(i, u**2)
    proof.equal("u is orthogonal to 1", over(i, u), 0, shown=("sum_i(x_i - S_1/d)", "0"))
    variance = S_2 / d - (S_1 / d) ** 2
    stepped = length_squared(d) * u**2 / squared  # steps 2 and 3, squared
    proof.equal("steps 2 and 3 (squared; signs agree)", stepped, u**2 / variance)
    proof.equal("so the length is sqrt(d)", over(i, u**2) / variance, d)
    return proof


WRONG = {
    "length 1": {"length_squared": lambda d: 1},
    "length d": {"length_squared": lambda d: d**2},
}
