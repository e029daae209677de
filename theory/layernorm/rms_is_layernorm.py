"""RMSNorm and LayerNorm agree exactly on vectors orthogonal to 1, for every eps.

If the mean is 0 then mean(a^2) = var(a), and both formulas are one. If the images agree, so do
their means: LayerNorm's is 0 and RMSNorm's is mean(a) / s, so mean(a) = 0. At eps = 0 RMSNorm keeps
the direction and makes the length sqrt(d): it is sqrt(d) times WU's LayerNorm, unit rows.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, S_2, i, over, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="RMSNorm(a) = LN(a) iff a is orthogonal to 1 (gain 1, bias 0, the same eps >= 0); at "
        "eps = 0 RMSNorm(a) has length sqrt(d), so it is sqrt(d) a/||a||, WU's LayerNorm up to a "
        "factor",
        source="GUPTA, arXiv 2409.12951; WU, arXiv 2405.18781, section 3 (no centring)",
        hypotheses="both defined; any d",
        latex=r"\operatorname{RMSNorm}(a)=\operatorname{LN}(a)\iff a\cdot\mathbf1=0,"
        r"\qquad\operatorname{RMSNorm}_{\varepsilon=0}(a)=\sqrt d\,\frac a{\lVert a\rVert}",
        how="proved for every d",
    )


def check(mean_of_rms=lambda s: S_1 / (d * s), length_squared=d):
    proof = Proof()
    eps, s = sympy.symbols("epsilon s", positive=True)
    variance = S_2 / d - (S_1 / d) ** 2
    rms = x[i] / sympy.sqrt(S_2 / d + eps)
    layernorm = (x[i] - S_1 / d) / sympy.sqrt(variance + eps)
    shown = layernorm, rms
    proof.equal("if S_1 = 0 they are the same expression", layernorm.subs(S_1, 0), rms, shown)
    shown = "sum_i((x_i - S_1/d)/s)/d", "0"
    proof.equal("the mean of LN(a)", over(i, (x[i] - S_1 / d) / s) / d, 0, shown)
    mean = over(i, x[i] / s) / d
    claim = "the mean of RMSNorm(a), with s = sqrt(mean(a^2) + eps)"
    proof.equal(claim, mean, mean_of_rms(s), ("sum_i(x_i/s)/d", mean_of_rms(s)))
    proof.true("which is 0 only for S_1 = 0", sympy.solve(mean, S_1) == [0])
    square = over(i, x[i] ** 2) / (over(i, x[i] ** 2) / d)
    shown = "sum_i(x_i^2/(S_2/d))", length_squared
    proof.equal("at eps = 0 the length of RMSNorm(a), squared", square, length_squared, shown)
    return proof


WRONG = {
    "its mean is 1": {"mean_of_rms": lambda s: sympy.Integer(1)},
    "unit length": {"length_squared": 1},
}
