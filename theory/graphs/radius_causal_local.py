"""The uni-directional window: everything flows from token 1, w places a step.

Token i attends to i - w, ..., i. Token 1 attends to itself alone, so nothing else reaches it; it
reaches token i in ceil((i - 1) / w) steps, and token N is the farthest.
"""

import sympy

from theory.graphs.small_masks import band, centers_and_radius
from theory.lemma import Proof, Statement

LARGEST = 12


def statement():
    return Statement(
        claim="uni-directional window w: token 1 is the only center, r = ceil((N - 1) / w)",
        source="WU, arXiv 2405.18781, section 3, Definition 5",
        hypotheses="N >= 2, w >= 1; the general argument is in the file's head",
        latex=r"r=\left\lceil\frac{N-1}{w}\right\rceil,\qquad\text{token 1 is the only center}",
        how=f"proved for N <= {LARGEST} and every w by exhaustive search",
    )


def check(radius=lambda n, w: sympy.ceiling(sympy.Rational(n - 1, w))):
    proof = Proof()
    for n in range(2, LARGEST + 1):
        for w in range(1, n):
            found = centers_and_radius(band(n, w, 0))
            proof.true(f"N = {n}, w = {w}: {found}", found == ([1], radius(n, w)))
    return proof


WRONG = {
    "N / w": {"radius": lambda n, w: sympy.ceiling(sympy.Rational(n, w))},
    "as for the two-sided window": {
        "radius": lambda n, w: sympy.ceiling(sympy.Rational(n // 2, w))
    },
}
