"""RMSNorm and LayerNorm agree exactly on vectors orthogonal to 1, for every eps.

If the mean is 0 then mean(a^2) = var(a), and both formulas are one. If the images agree, so do
their means: LayerNorm's is 0 and RMSNorm's is mean(a) / s, so mean(a) = 0.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, S_2, i, over, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="RMSNorm(a) = LN(a) iff a is orthogonal to 1 (gain 1, bias 0, the same eps >= 0)",
        source="GUPTA, arXiv 2409.12951",
        hypotheses="both defined; any d",
        latex=r"\operatorname{RMSNorm}(a)=\operatorname{LN}(a)\iff a\cdot\mathbf1=0",
        how="proved for every d",
    )


def check(mean_of_rms=lambda s: S_1 / (d * s)):
    proof = Proof()
    eps, s = sympy.symbols("epsilon s", positive=True)
    variance = S_2 / d - (S_1 / d) ** 2
    rms = x[i] / sympy.sqrt(S_2 / d + eps)
    layernorm = (x[i] - S_1 / d) / sympy.sqrt(variance + eps)
    proof.equal("if S_1 = 0 they are the same expression", layernorm.subs(S_1, 0), rms)
    proof.equal("the mean of LN(a) is 0", over(i, (x[i] - S_1 / d) / s) / d, 0)
    mean = over(i, x[i] / s) / d
    proof.equal("the mean of RMSNorm(a), with s = sqrt(mean(a^2) + eps)", mean, mean_of_rms(s))
    proof.true("which is 0 only for S_1 = 0", sympy.solve(mean, S_1) == [0])
    return proof


WRONG = {"its mean is 1": {"mean_of_rms": lambda s: sympy.Integer(1)}}
