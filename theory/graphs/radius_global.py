"""Complete and causal masks: one step from the first token reaches all.

Complete: every token attends to every other, so all are centers at distance 1. Causal: every token
attends to token 1, which attends to itself alone, so that no other token reaches it.
"""

from theory.graphs.small_masks import band, centers_and_radius
from theory.lemma import Proof, Statement

LARGEST = 12


def statement():
    return Statement(
        claim="complete: all N tokens are centers, r = 1; causal: token 1 is the only center, r = "
        "1",
        source="WU, arXiv 2405.18781, section 3, Definition 5",
        hypotheses="N >= 2; the general argument is in the file's head",
        latex=r"r_{\mathrm{complete}}=r_{\mathrm{causal}}=1;\quad\text{complete: all }N\text{ "
        r"tokens are centers; causal: token 1 alone}",
        how=f"proved for N <= {LARGEST} by exhaustive search",
    )


def check(complete_radius=1, causal_centers=lambda n: [1]):
    proof = Proof()
    for n in range(2, LARGEST + 1):
        found = centers_and_radius(band(n, n, n))
        proof.true(f"complete, N = {n}: {found}", found == ([*range(1, n + 1)], complete_radius))
        found = centers_and_radius(band(n, n, 0))
        proof.true(f"causal, N = {n}: {found}", found == (causal_centers(n), 1))
    return proof


WRONG = {
    "the last token is the causal center": {"causal_centers": lambda n: [n]},
    "complete has r = 2": {"complete_radius": 2},
}
