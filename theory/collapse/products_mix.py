"""Any r consecutive layers have tau <= 1 - eps^r, r the radius: a center is seen by all.

From a center c a path of at most r edges leads to every token; self-loops pad it to r edges. So
(A_r ... A_1)_ic contains a product of r entries >= eps. Two rows that share eps^r in one column
differ by at most 1 - eps^r in half the sum of absolute differences.
"""

import sympy

from theory.graphs.small_masks import band, eccentricities
from theory.lemma import Proof, Statement

MASKS = {
    "complete(3)": band(3, 3, 3),
    "causal(3)": band(3, 3, 0),
    "local(4, 1)": band(4, 1, 1),
    "causal_local(4, 1)": band(4, 1, 0),
    "causal_local(5, 2)": band(5, 2, 0),
}


def statement():
    return Statement(
        claim="r consecutive layers: (A_r ... A_1)_ic >= eps^r at a center c, so tau <= 1 - eps^r",
        source="WU, arXiv 2405.18781, Theorem 1, proof (Lemmas 2 and 3)",
        hypotheses="self-loops (A1), a center node, entries on edges >= eps > 0; matrices may "
        "change from layer to layer; the general argument is in the file's head",
        latex=r"\tau(A_{t+r-1}\cdots A_t)\le1-\epsilon^r,\qquad(A_{t+r-1}\cdots A_t)_{ic}\ge"
        r"\epsilon^r\text{ at a center }c",
        how="proved for every N (tau), and for the products of five small masks",
    )


def check(layers=lambda r: r, power=lambda r: r):
    proof = Proof()
    p, q, s = sympy.symbols("p q s", nonnegative=True)
    smaller = sympy.Min(p, q).subs(p, q + s).subs(s, p - q)
    proof.equal(
        "|p - q| = p + q - 2 min(p, q), for p >= q",
        p - q,
        p + q - 2 * smaller,
        shown=("abs(p - q)", "p + q - 2*min(p, q)"),
    )
    proof.words("summed over a column index: tau = 1 - sum_j min(p_j, q_j) <= 1 - min(p_c, q_c)")
    eps = sympy.Symbol("epsilon", nonnegative=True)
    for name, mask in MASKS.items():
        reach = eccentricities(mask)
        center = min(reach, key=reach.get)
        radius = reach[center]
        column = sympy.zeros(mask.rows, 1)
        column[center - 1] = 1
        slacks = []
        for layer in range(layers(radius)):
            slack = sympy.Matrix(
                *mask.shape, lambda a, b, t=layer: sympy.Symbol(f"s{t}_{a}{b}", nonnegative=True)
            )
            slacks += list(slack)
            column = (eps * mask + mask.multiply_elementwise(slack)) * column
        for token, entry in enumerate(column, 1):
            claim = f"{name}: token {token} sees center {center} with eps^{power(radius)}"
            proof.at_least(claim, entry, eps ** power(radius), (eps, *slacks))
    return proof


WRONG = {
    "r - 1 layers are enough": {"layers": lambda r: max(r - 1, 0), "power": lambda r: r - 1},
    "with eps to the power r - 1": {"power": lambda r: r - 1},
}
