"""Under causal attention tokens j, ..., N lose a share (j - 1) eps of every token in each layer.

Let m_k be the share of tokens j .. N in token k: 0 for k < j, and m at most for the others. A layer
gives token i, in units of 1 / (s + 1), s m_i + sum_k A_ik m_k. The first j - 1 terms are 0, and
leave A's other entries in the row at most 1 - (j - 1) eps together.
"""

import sympy

from theory.lemma import Proof, Statement

LARGEST = 5


def statement():
    return Statement(
        claim="causal attention with entries >= eps on edges and skips s_l: tokens j, ..., N have "
        "at most prod_l (s_l + 1 - (j-1) eps)/(s_l + 1) of any token",
        source="arXiv 2502.01951 has C (1 - (j-1) eps)^t without skip; here C = 1",
        hypotheses="causal mask, rows of attention sum to 1 at most, s_l >= 0",
        latex=r"\sum_{k\ge j}\Bigl[\prod_l\tfrac{s_lI+A_l}{s_l+1}\Bigr]_{ik}\le"
        r"\prod_l\frac{s_l+1-(j-1)\varepsilon}{s_l+1}",
        how=f"proved for rows of up to {LARGEST} tokens, with entries as symbols, by induction "
        "over layers",
    )


def check(left=lambda s, j, eps: (s + 1 - (j - 1) * eps) / (s + 1)):
    proof = Proof()
    s, eps, m, gap = sympy.symbols("s eps m gap", nonnegative=True)
    for i in range(2, LARGEST + 1):
        more = sympy.symbols(f"a_1:{i + 1}", nonnegative=True)
        less = sympy.symbols(f"u_1:{i + 1}", nonnegative=True)
        entries = [eps + a for a in more]
        for j in range(2, i + 1):
            late = slice(j - 1, i)
            given = s * (m - less[-1]) + sum(
                A * (m - u) for A, u in zip(entries[late], less[late], strict=True)
            )
            claim = f"token {i}, j = {j}: shares m_k = m - u_k, entries A_k = eps + a_k"
            proof.at_least(claim, (s + sum(entries[late])) * m, given, (s, eps, m, *more, *less))
            row = 1 - gap - sum(entries[: j - 1])  # what the row has left for tokens j .. i
            claim = "and the row sums to 1 - gap"
            shown = (left(s, j, eps) * (s + 1), s + row)
            proof.at_least(claim, left(s, j, eps) * (s + 1), s + row, (s, eps, gap, *more), shown)
    proof.words("so the largest share falls by that factor in each layer; at first it is 1")
    return proof


WRONG = {
    "j eps": {"left": lambda s, j, eps: (s + 1 - j * eps) / (s + 1)},
    "as fast with a skip": {"left": lambda s, j, eps: 1 - (j - 1) * eps},
}
