"""No sign pattern makes a token's multipliers reach 1 from k = 4 on: every pattern up to k = 12.

Exact enumeration: for each of the 2^(k-1) patterns (b_1, ..., b_{k-1}) the limit multipliers are
the roots of an integer polynomial, and Schur and Cohn's test decides in integers whether they lie
within a circle of rational radius. BEST brackets the smallest possible spectral radius to 10^-3.
For k <= 4 alternating signs (all b = 1) are best for one token; from k = 5 on others are better.
"""

import itertools
from fractions import Fraction

from theory.equilibria.schur import all_inside, sign_polynomial
from theory.lemma import Proof, Statement

#: k: (thousandths that no pattern stays below, signs of a pattern that stays below the next).
BEST = {
    4: (1414, "+++"),
    5: (1518, "+++-"),
    6: (1536, "+++-+"),
    7: (1597, "++++-+"),
    8: (1667, "++++-+-"),
    9: (1682, "++++-+-+"),
    10: (1732, "+++--+--+"),
    11: (1716, "++++--+--+"),
    12: (1732, "+++-++--++-"),
}


def statement():
    return Statement(
        claim="limit multipliers of token k, any signs: the spectral radius is never below 1.414 "
        "for k = 4, 1.518 (k = 5), 1.536, 1.597, 1.667, 1.682, 1.732, 1.716, 1.732 (k = 12), so "
        "never 1",
        source="dynsim; for the equilibria of WU, arXiv 2405.18781, Theorem 3",
        hypotheses="as for multiplier-limit; all 4088 patterns of k = 4, ..., 12",
        latex=r"\min_{b\in\{\pm1\}^{k-1}}\ \max_{p_b(\zeta)=0}|1+\zeta|>1,\quad k=4,\dots,12:"
        r"\quad1.414,\ 1.518,\ 1.536,\ 1.597,\ 1.667,\ 1.682,\ 1.732,\ 1.716,\ 1.732",
        how="checked in exact arithmetic, every pattern (lemma no-stable-token is for every k)",
    )


def check(best=BEST):
    proof = Proof()
    for k, (thousandths, signs) in best.items():
        patterns = [sign_polynomial(b) for b in itertools.product((1, -1), repeat=k - 1)]
        low, high = Fraction(thousandths, 1000), Fraction(thousandths + 1, 1000)
        claim = f"k = {k}: none of {len(patterns)} patterns has all multipliers below {float(low)}"
        proof.true(claim, not any(all_inside(q, low) for q in patterns))
        found = sign_polynomial([1 if sign == "+" else -1 for sign in signs])
        proof.true(f"b = {signs} has them below {float(high)}", all_inside(found, high))
    return proof


WRONG = {
    "alternating signs are best at k = 5": {"best": {5: (1617, "++++")}},
    "some pattern reaches 1.4 at k = 4": {"best": {4: (1399, "+++")}},
}
