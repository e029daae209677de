"""Scores that hardly differ leave attention near uniform: bounds that need no digits of the tokens.

Weights w_j = h_j e^(s_j) / sum_k h_k e^(s_k) against u_j = h_j / sum_k h_k, where scores differ by
sigma at most: sum_k h_k e^(s_k - s_j) lies between e^-sigma and e^sigma times sum_k h_k. Two rows
whose scores differ by f_j are so related, with the spread of f for sigma.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="scores of a row within sigma = ||x W_Q + b|| ||W_K|| delta of each other => "
        "sum_j |w_j - u_j| <= e^sigma - 1 and w_j >= e^-sigma u_j; rows over the same keys, with "
        "kappa = ||W_Q|| ||W_K|| delta^2, have tau <= (e^kappa - 1) / 2 <= kappa e^kappa / 2",
        source="dynsim.enclosures and dynsim.contraction; the first step of DONG, arXiv 2103.03404",
        hypotheses="h_j > 0; delta is the largest distance of two tokens; any N and d",
        latex=r"\sum_j|w_j-u_j|\le e^{\sigma}-1,\qquad\tau\le\tfrac12(e^{\kappa}-1)\le\tfrac12"
        r"\kappa e^{\kappa},\qquad w_j\ge e^{-\sigma}u_j;\qquad\sigma=\lVert xW_Q+b\rVert"
        r"\lVert W_K\rVert\delta,\ \kappa=\lVert W_Q\rVert\lVert W_K\rVert\delta^2",
        how="proved for every N and d; lengths of products by ||x W|| <= ||W|| ||x|| (contraction)",
    )


def check(spread=lambda g: g - 1, twice_tau=lambda k: k * sympy.exp(k)):
    proof = Proof()
    slack, m = sympy.symbols("slack m", nonnegative=True)
    g = 1 + m  # e^sigma
    proof.words("w_j = u_j / r with r = sum_k u_k e^(s_k - s_j), and e^-sigma <= r <= e^sigma")
    claim = "r = (1 + slack) / g: w / u - 1 = 1 / r - 1 <= e^sigma - 1"
    proof.at_least(claim, spread(g), g / (1 + slack) - 1, (m, slack), (spread(g), "1/r - 1"))
    claim = "r = g / (1 + slack): w / u = 1 / r >= e^-sigma"
    proof.at_least(claim, (1 + slack) / g, 1 / g, (m, slack), ("1/r", "1/g"))
    claim = "and 1 - w / u <= 1 - 1 / g <= e^sigma - 1"
    proof.at_least(claim, spread(g), 1 - 1 / g, (m,))
    proof.words("so |w_j - u_j| <= (e^sigma - 1) u_j, and the u_j sum to 1")
    # rows and matrices of any size: products that do not commute, z and w for columns
    x, y, b, z, w, W_Q, W_K = sympy.symbols("x y b z w W_Q W_K", commutative=False)

    def score(query, key):
        return (query * W_Q + b) * W_K * key

    claim = "scores of a row differ by (x W_Q + b) W_K^T (z - w), at most sigma; W_K^T is W_K here"
    proof.equal(claim, score(x, z) - score(x, w), (x * W_Q + b) * W_K * (z - w))
    claim = "those of two rows by f with f_z - f_w = (x - y) W_Q W_K^T (z - w): at most kappa"
    moved = (score(x, z) - score(y, z)) - (score(x, w) - score(y, w))
    proof.equal(claim, moved, (x - y) * W_Q * W_K * (z - w))
    k, s = sympy.symbols("kappa s", positive=True)
    proof.words("tau is half of the largest distance of two rows, by the first part")
    claim = "kappa e^kappa - (e^kappa - 1) = e^kappa integral_0^kappa (1 - e^-s) ds >= 0"
    rest = sympy.exp(k) * sympy.integrate(1 - sympy.exp(-s), (s, 0, k))
    proof.equal(claim, twice_tau(k) - (sympy.exp(k) - 1), rest)
    return proof


WRONG = {
    "half of e^sigma - 1": {"spread": lambda g: (g - 1) / 2},
    "kappa in place of kappa e^kappa": {"twice_tau": lambda k: k},
}
