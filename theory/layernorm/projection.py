"""Pi = I - 1 1^T/d is the orthogonal projection along 1, for symbolic d.

Entries of Pi^2 are sums over d terms, of which the two special ones are written out.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="Pi = I - 1 1^T / d: Pi^2 = Pi = Pi^T, Pi 1 = 0, rank d - 1",
        source="RIECHERS, arXiv 2405.04134; GUPTA, arXiv 2409.12951",
        hypotheses="any d >= 2",
        latex=r"\Pi=I-\tfrac1d\mathbf1\mathbf1^{\top},\quad\Pi^2=\Pi=\Pi^{\top},\quad\Pi\mathbf1=0,"
        r"\quad\operatorname{rank}\Pi=d-1",
        how="proved for every d",
    )


def check(share=lambda d: 1 / d):
    proof = Proof()
    d = sympy.Symbol("d", positive=True, integer=True)
    on, off = 1 - share(d), -share(d)  # the diagonal and the other entries; so Pi is symmetric
    proof.equal(
        "(Pi^2)_ii: one term of the diagonal, d - 1 others", on * on + (d - 1) * off * off, on
    )
    proof.equal(
        "(Pi^2)_ij: two with the diagonal, d - 2 others", 2 * on * off + (d - 2) * off * off, off
    )
    proof.equal("(Pi 1)_i", on + (d - 1) * off, 0)
    proof.equal("the trace of a projection is its rank", d * on, d - 1)
    return proof


WRONG = {"1/(d - 1)": {"share": lambda d: 1 / (d - 1)}, "twice 1/d": {"share": lambda d: 2 / d}}
