"""The sliding window: a step moves at most w places, and the middle token has the shortest way.

The distance between tokens i and j is ceil(|i - j| / w): no step is longer, and steps of w reach
j. From token c the farthest tokens are the two ends, max(c - 1, N - c) places away; the sum of the
two is N - 1, so the larger is at least ceil((N - 1) / 2) = floor(N / 2), and the middle attains it.
"""

import sympy

from theory.graphs.small_masks import band, centers_and_radius
from theory.lemma import Proof, Statement

LARGEST = 12


def statement():
    return Statement(
        claim="sliding window +-w: every token is a center, r = ceil(floor(N / 2) / w)",
        source="WU, arXiv 2405.18781, section 3, Definition 5",
        hypotheses="N >= 2, w >= 1",
        latex=r"r=\left\lceil\frac{\lfloor N/2\rfloor}{w}\right\rceil,\qquad\text{every token is a "
        r"center}",
        how=f"proved for every N and w; recounted by search for N <= {LARGEST}",
    )


def check(radius=lambda n, w: sympy.ceiling(sympy.floor(n / sympy.Integer(2)) / w)):
    proof = Proof()
    c, n, m = sympy.symbols("c N m", integer=True, positive=True)
    proof.equal(
        "the two ends are N - 1 places apart",
        (c - 1) + (n - c),
        n - 1,
        shown=("(c - 1) + (N - c)", "N - 1"),
    )
    for size in (2 * m, 2 * m + 1):
        reach = sympy.Max(m, size - 1 - m)  # from c = m + 1
        proof.equal(
            f"N = {size}: token c = m + 1 reaches both ends",
            reach,
            sympy.floor(size / 2),
            shown=(f"max(m, {size} - 1 - m)", f"floor(({size})/2)"),
        )
        least = sympy.ceiling((size - 1) / sympy.Integer(2))
        proof.equal(
            f"N = {size}: and none does better",
            least,
            sympy.floor(size / 2),
            shown=(f"ceiling(({size} - 1)/2)", f"floor(({size})/2)"),
        )
    proof.words("a way of L places takes ceil(L / w) steps, which grows with L")
    for n in range(2, LARGEST + 1):
        for w in range(1, n):
            found = centers_and_radius(band(n, w, w))
            proof.true(f"N = {n}, w = {w}: {found}", found == ([*range(1, n + 1)], radius(n, w)))
    return proof


WRONG = {
    "N / 2 unrounded": {"radius": lambda n, w: sympy.ceiling(sympy.Rational(n, 2 * w))},
    "rounded down": {"radius": lambda n, w: n // 2 // w},
    "N - 1, as from an end": {"radius": lambda n, w: sympy.ceiling(sympy.Rational(n - 1, w))},
}
