"""Bounded scores keep attention above a multiple of the uniform walk, and so do products.

Row i of the uniform walk U has 1 / n_i on its n_i edges, and attention at least 1 / (1 + (n_i - 1)
e^(2B)) (lemma attention-floor): c_i / n_i with c_i = n_i / (1 + (n_i - 1) e^(2B)). With c the least
c_i, A >= c U entry by entry; all entries are >= 0, so products of r layers are >= c^r U^r. For
stochastic rows p and q half the sum of |p_j - q_j| is 1 - sum min(p_j, q_j), and the minimum of
larger numbers is larger: tau of the product is at most 1 - c^r (1 - tau(U^r)).
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="|scores| <= B: attention is at least c U, c = min_i n_i/(1 + (n_i - 1) e^(2B)) >= "
        "e^(-2B), and r layers have tau <= 1 - c^r (1 - tau(U^r)), U the uniform walk",
        source="dynsim.score_bounds; WU's Theorem 1, arXiv 2405.18781, keeps 1 - eps^r of it",
        hypotheses="B >= 0; n_i allowed tokens in row i",
        latex=r"A\ge cU,\qquad\tau(A_r\cdots A_1)\le1-c^r\bigl(1-\tau(U^r)\bigr),"
        r"\qquad c=\min_i\frac{n_i}{1+(n_i-1)e^{2B}}\ge e^{-2B}",
        how="proved for every n_i, B and r, entry by entry; the steps for one entry and one pair "
        "of rows",
    )


def check(floor=lambda m, g: (m + 1) / (1 + m * g), overlap=lambda c, share: c * share):
    """`floor` is a function of m = n_i - 1 and of g = e^(2B) >= 1."""
    proof = Proof()
    m, more, x, y, d = sympy.symbols("m more x y d", nonnegative=True)
    g = 1 + more
    claim = "row of n = m + 1 edges, g = e^(2B) = 1 + more: the floor of attention is c_i times 1/n"
    proof.at_least(claim, 1 / (1 + m * g), floor(m, g) / (m + 1), (m, more))
    claim = "c_i >= e^(-2B)"
    proof.at_least(claim, floor(m, g), 1 / g, (m, more))
    claim = "A >= c U and B >= c V entry by entry, all >= 0: entries of A B less c^2 of U V"
    c, u, v = sympy.symbols("c u v", nonnegative=True)
    proof.at_least(claim, (c * u + x) * (c * v + y), c**2 * u * v, (c, u, v, x, y))
    claim = "two entries p = q + d: |p - q| = p + q - 2 min(p, q)"
    proof.equal(claim, d, (x + d) + x - 2 * x, ("apart(p, q)", "p + q - 2*least(p, q)"))
    proof.words("summed over rows that sum to 1: tau = 1 - sum_j min(p_j, q_j), for the worst pair")
    claim = "p = c u + x, q = c v + y with u = v + d: the smaller of c u and c v is below both"
    for one in (c * (v + d) + x, c * v + y):
        proof.at_least(claim, one, overlap(c, v), (c, v, d, x, y))
    return proof


WRONG = {
    "c_i = 1": {"floor": lambda m, g: sympy.Integer(1)},
    "n + 1 in place of n": {"floor": lambda m, g: (m + 2) / (1 + m * g)},
    "overlap grows": {"overlap": lambda c, share: (c + 1) * share},
}
