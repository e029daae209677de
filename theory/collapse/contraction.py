"""One layer shrinks the diameter by Dobrushin's coefficient: WU's contraction step, with constants.

Rows p and q of P have the same sum, so p - q = a - b with a, b >= 0 of equal sum m <= tau(P). Then
y_p - y_q = sum_j (a_j - b_j) x_j is an average of differences x_j - x_l with weights a_j b_l / m,
which sum to m. Each difference is at most delta(X) long, and W_V stretches by ||W_V||_2 at most.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import i, j, over, x


def statement():
    return Statement(
        claim="delta(P X W) <= tau(P) ||W||_2 delta(X), delta the largest distance of two tokens",
        source="WU, arXiv 2405.18781, Lemmas 2 and 3; Dobrushin's ergodicity coefficient",
        hypotheses="P row-stochastic, tau(P) = max_ik sum_j |P_ij - P_kj| / 2; any N and d",
        latex=r"\delta(PXW)\le\tau(P)\lVert W\rVert_2\,\delta(X),\quad"
        r"\tau(P)=\max_{i,k}\tfrac12\sum_j|P_{ij}-P_{kj}|",
        how="proved for every N and d",
    )


def check(half=sympy.Rational(1, 2)):
    proof = Proof()
    a, b = (sympy.IndexedBase(name, nonnegative=True) for name in "ab")
    m, A_x, B_x = sympy.symbols("m A_x B_x", real=True)  # sums of a x and of b x
    moments_a = {(1, 0): m, (1, 1): A_x}
    moments_b = {(1, 0): m, (1, 1): B_x}
    pairs = over(j, over(i, a[i] * b[j] * (x[i] - x[j]), moments_a, (a, x)), moments_b, (b, x))
    proof.equal("sum_jl a_j b_l (x_j - x_l) in one coordinate", pairs, m * (A_x - B_x))
    weights = over(j, over(i, a[i] * b[j], moments_a, (a, x)), moments_b, (b, x)) / m
    proof.equal("the weights a_j b_l / m sum to m", weights, m)
    p, s = sympy.symbols("p s", nonnegative=True)
    for left, right in ((p + s, p), (p, p + s)):  # the larger of the two entries is either
        up, down = sympy.Max(left - right, 0), sympy.Max(right - left, 0)
        proof.equal("entry by entry, p - q = a - b", left - right, up - down)
        claim = "and |p - q| / 2 = (a + b) / 2, so that summed over entries m = tau"
        proof.equal(claim, s / 2, half * (up + down))
    return proof


WRONG = {"tau without the half": {"half": 1}}
