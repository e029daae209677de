"""WU's LayerNorm (unit rows) is RMSNorm at eps = 0 up to the factor sqrt(d), not LayerNorm."""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, S_2, i, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="x/||x|| = RMSNorm(x) / sqrt(d) at eps = 0; it is LN(x) / sqrt(d) only for mean 0",
        source="WU, arXiv 2405.18781, section 3 (its LayerNorm does not centre)",
        hypotheses="x not 0, gain 1, bias 0; any d",
        latex=r"\frac{x}{\lVert x\rVert}=\frac1{\sqrt d}\operatorname{RMSNorm}_{\varepsilon=0}(x)",
        how="proved for every d",
    )


def check(factor=sympy.sqrt(d)):
    proof = Proof()
    S = sympy.Symbol("S", positive=True)  # sum of squares
    unit, rms = x[i] / sympy.sqrt(S), x[i] / sympy.sqrt(S / d)
    proof.equal("an entry", unit * factor, rms)
    layernorm_squared = (x[i] - S_1 / d) ** 2 / (S_2 / d - (S_1 / d) ** 2)
    proof.equal("LN's, squared, for mean 0", layernorm_squared.subs(S_1, 0), d * x[i] ** 2 / S_2)
    return proof


WRONG = {"the factor d": {"factor": d}, "no factor": {"factor": 1}}
