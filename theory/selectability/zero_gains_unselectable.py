"""With two gains 0 the image is solid, and distinct keys can be unselectable even at eps = 0.

d = 3, g = (1, 0, 0): only the first coordinate is left. Tokens (1, 0, -1), (1, 1, -2) and (2, -1,
-1) have the first coordinates sqrt(3/2), sqrt(1/2) and sqrt(2) after LayerNorm: three keys on a
line. Two zero gains of d = 2 leave one key only.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'at eps = 0 every distinct key is selectable whatever the gain' is false: d = 3, g "
        "= (1, 0, 0), three keys on a line",
        source="a reading of BRODY, arXiv 2305.02582, with RIECHERS, arXiv 2405.04134 (zero gains)",
        hypotheses="bias 0, eps = 0; with at most one gain 0 all keys stay on an ellipsoid",
        latex=r"\sqrt{\tfrac12}<\sqrt{\tfrac32}<\sqrt2\quad\text{on the first axis}",
        how="counterexample found, exact",
    )


def check(middle=(1, 0, -1)):
    proof = Proof()
    low, between, high = (_first(token) for token in ((1, 1, -2), middle, (2, -1, -1)))
    share = sympy.simplify((between - low) / (high - low))
    proof.equal("the key between as a combination", between, share * high + (1 - share) * low)
    proof.less("with a share above 0", 0, share)
    proof.less("and below 1", share, 1)
    return proof


def _first(token):
    """The coordinate that gains (1, 0, 0) leave of LN(token); these tokens have mean 0."""
    a = sympy.Matrix(token)
    return a[0] * sympy.sqrt(3 / a.dot(a))


WRONG = {"(1, 2, -3)": {"middle": (1, 2, -3)}}
