"""LayerNorm by mean and variance is LayerNorm by projection.

(a - mean) is Pi a, and d (var + eps) = ||Pi a||^2 + d eps. Coordinates are summed symbolically.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, i, over, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="g (a - mean a) / sqrt(var a + eps) + b = sqrt(d) g Pi a / sqrt(||Pi a||^2 + d eps) "
        "+ b",
        source="RIECHERS, arXiv 2405.04134, closed expression of LayerNorm",
        hypotheses="any d, gain, bias, eps >= 0; var with 1/d; Pi = I - 1 1^T/d",
        latex=r"g\odot\frac{a-\bar a}{\sqrt{\operatorname{var}a+\varepsilon}}+b=\frac{\sqrt d\,"
        r"\operatorname{diag}(g)\,\Pi a}{\sqrt{\lVert\Pi a\rVert^2+d\varepsilon}}+b",
        how="proved for every d",
    )


def check(shift=lambda eps: d * eps):
    proof = Proof()
    eps, variance = sympy.symbols("epsilon V", positive=True)
    mean = S_1 / d
    size_squared = over(i, (x[i] - mean) ** 2)  # ||Pi a||^2
    var = over(i, x[i] ** 2) / d - mean**2
    proof.equal("||Pi a||^2 = d var(a)", size_squared, d * var)
    numerator = x[i] - mean
    left = numerator / sympy.sqrt(variance + eps)
    right = sympy.sqrt(d) * numerator / sympy.sqrt(d * variance + shift(eps))
    claim = "an entry before gain and bias, with V = var(a): the squares agree"
    proof.equal(claim, left**2, right**2)
    proof.words("and so do the signs, both that of a_i - mean")
    return proof


WRONG = {"eps for d eps": {"shift": lambda eps: eps}, "d^2 eps": {"shift": lambda eps: d**2 * eps}}
