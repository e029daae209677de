"""Bounded scores keep every attention entry above a floor eps (the first step of WU, Theorem 1).

An entry is 1 / sum_k exp(R_k - R_j) over the n allowed k. The term k = j is 1, and each of the
others at most exp(2 B) when |R| <= B; equality holds when R_j = -B and all others are B.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="|scores| <= B on n allowed tokens => attention entries >= 1 / (1 + (n-1) e^(2B)) "
        ">= e^(-2B) / n, and the first is attained",
        source="WU, arXiv 2405.18781, Theorem 1 (entries on edges are >= eps > 0)",
        hypotheses="B >= 0, n >= 1",
        latex=r"A_{ij}\ge\frac{1}{1+(n-1)e^{2B}}\ge\frac{e^{-2B}}{n}",
        how="proved for every n and B",
    )


def check(floor=lambda n, B: 1 / (1 + (n - 1) * sympy.exp(2 * B))):
    proof = Proof()
    B, m, g, slack = sympy.symbols("B m g slack", nonnegative=True)
    R_j, R_k = sympy.symbols("R_j R_k", real=True)
    entry = sympy.exp(R_j) / (sympy.exp(R_j) + m * sympy.exp(R_k))
    claim = "n = m + 1 allowed tokens, the others alike: the entry as a function of differences"
    proof.equal(claim, entry, 1 / (1 + m * sympy.exp(R_k - R_j)))
    least = (1 / (1 + m * sympy.exp(R_k - R_j))).subs({R_k: B, R_j: -B})
    proof.equal("attained at scores -B and B", least, floor(m + 1, B))
    proof.words("every exp(R_k - R_j) is e^(2B) less some slack; with g = e^(2B) - 1 >= 0")
    grown = sympy.together(1 / (1 + m * (1 + g) - slack) - 1 / (1 + m * (1 + g)))
    numerator = sympy.fraction(grown)[0]
    proof.at_least("slack makes the entry larger", numerator, 0, (m, g, slack))
    rest = (m + 1) * (1 + g) - (1 + m * (1 + g))
    proof.at_least("n e^(2B) is more than the denominator", rest, 0, (m, g))
    return proof


WRONG = {
    "e^B in place of e^(2B)": {"floor": lambda n, B: 1 / (1 + (n - 1) * sympy.exp(B))},
    "n in place of n - 1": {"floor": lambda n, B: 1 / (1 + n * sympy.exp(2 * B))},
}
