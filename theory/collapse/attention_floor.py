"""Bounded scores keep every attention entry above a floor eps (the first step of WU, Theorem 1).

An entry is 1 / D with D = sum_k exp(R_k - R_j) over the n allowed k. The term k = j is 1, and each
of the n - 1 others at most exp(2 B) when |R| <= B; equality holds when R_j = -B and all others are
B.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="|scores| <= B on n allowed tokens => attention entries >= 1 / (1 + (n-1) e^(2B)) "
        ">= e^(-2B) / n, and the first is attained",
        source="WU, arXiv 2405.18781, Theorem 1 (entries on edges are >= eps > 0)",
        hypotheses="B >= 0, n >= 1",
        latex=r"|R_{ik}|\le B\ \Rightarrow\ A_{ij}\ge\frac{1}{1+(n-1)e^{2B}}"
        r"\ge\frac{e^{-2B}}{n},\quad\text{and the first is attained}",
        how="proved for every n and B",
    )


def check(floor=lambda m, g: 1 / (1 + m * g)):
    """`floor` is a function of m = n - 1 and of g = e^(2B) >= 1."""
    proof = Proof()
    B, m, s, t, more = sympy.symbols("B m s t more", nonnegative=True)
    claim = "R_k = B - s and R_j = t - B with s, t >= 0: R_k - R_j is at most 2 B"
    proof.at_least(claim, 2 * B, (B - s) - (t - B), (B, s, t), ("2*B", "(B - s) - (t - B)"))
    proof.words("so D = 1 + m g - s for some s >= 0, m = n - 1, g = e^(2B), and D >= 1: the term j")
    D = 1 + more  # 1 + m g = D + s
    claim = "1 / D >= floor(m, g), with D = 1 + more and m g = more + s"
    proof.at_least(claim, 1 / D, floor(1, more + s), (more, s))
    g = 1 + more
    claim = "floor(m, g) >= 1 / (n g), with g = 1 + more"
    proof.at_least(claim, floor(m, g), 1 / ((m + 1) * g), (m, more))
    R_j, R_k = -B, B
    entry = sympy.exp(R_j) / (sympy.exp(R_j) + m * sympy.exp(R_k))
    claim = "attained at R_j = -B, the m others B"
    shown = "exp(-B)/(exp(-B) + m*exp(B))", floor(m, sympy.exp(2 * B))
    proof.equal(claim, entry, floor(m, sympy.exp(2 * B)), shown)
    return proof


WRONG = {
    "e^B in place of e^(2B)": {"floor": lambda m, g: 1 / (1 + m * sympy.sqrt(g))},
    "n in place of n - 1": {"floor": lambda m, g: 1 / (1 + (m + 1) * g)},
    "2 e^(-2B) / n": {"floor": lambda m, g: 2 / ((m + 1) * g)},
}
