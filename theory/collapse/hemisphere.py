"""The hemisphere certificate: in the gnomonic chart a normalised layer is a plain average.

If all tokens have h_i = <v, x_i> > 0, let p_i = x_i / h_i (central projection on the plane <v, p> =
1). One layer x'_i = y_i W / ||y_i W||, y_i = sum_j A_ij x_j, with v' = W^-1 v: <v', y_i W> = <v,
y_i>, lengths cancel in p'_i, and p'_i is an average of the p_j W with weights A_ij h_j / sum_k A_ik
h_k. Unit tokens have h_i = 1 / ||p_i||, and 1 / ||v|| <= ||p_i|| for all p in the plane.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="p_i = x_i / <v, x_i> moves by the row-stochastic A_ij h_j / sum_k A_ik h_k and W, "
        "as v moves to W^-1 v; entries on edges are >= eps h / c, c the product of the condition "
        "numbers so far; ||x_i - x_j|| <= ||v|| ||p_i - p_j||",
        source="dynsim; the chart behind WU, arXiv 2405.18781, Corollary 1, with weaker hypotheses",
        hypotheses="unit rows, W_V invertible, h = min_i <v, x_i(0)> > 0 for a unit vector v, "
        "entries of A on edges >= eps",
        latex=r"p_i'=\sum_j\frac{A_{ij}h_j}{\sum_kA_{ik}h_k}\,p_jW_V,\qquad\max\lVert x_i-x_j\rVert"
        r"\le c\,(1-(\epsilon h/c)^r)^{\lfloor t/r\rfloor}\max\lVert p_i(0)-p_j(0)\rVert,\quad"
        r"\frac{A_{ij}h_j}{\sum_kA_{ik}h_k}\ge\frac{\epsilon h}c,\quad\lVert x_i-x_j\rVert\le"
        r"\lVert v\rVert\lVert p_i-p_j\rVert",
        how="proved for every N and d; h_min / h_max >= h / c in words",
    )


def check(weight=lambda A, h: A * h, pole=lambda v, W: W**-1 * v):
    proof = Proof()
    x, y, v, W = sympy.symbols("x y v W", commutative=False)  # rows x, y; a column v; a matrix W
    claim = "<v', y W> = <v, y>, so p' = y W / <v, y>, the length cancelled"
    proof.equal(claim, y * W * pole(v, W), y * v, ("(y*W)*v_new", "y*v"))
    A, h = sympy.symbols("A_j h_j", positive=True)
    claim = "y / <v, y> is the average of the p_j: term j of the average is that of y = sum A_j x_j"
    proof.equal(claim, weight(A, h) * x / h, A * x, ("A_j*h_j*(x_j/h_j)", "A_j*x_j"))
    claim = "and term j of its weights that of <v, y> = sum A_j h_j"
    proof.equal(claim, weight(A, h), A * h, ("h_j*A_j", "A_j*(x_j*v)"))
    one, a, c, slack = sympy.symbols("epsilon a c slack", nonnegative=True)
    total, least = sympy.symbols("S h", positive=True)
    claim = "sum A_k h_k = S <= h_max, for A_k h_k <= A_k h_max, A_k = A"
    proof.at_least(claim, a * (c + slack), a * c, (a, c, slack), ("A*h_max", "A*h_k"))
    claim = "so the weight on an edge is >= eps h / h_max, with h_max = S + slack"
    edge = (one + a) * (least + c) / total
    shown = "A_j*h_j/S", "epsilon*h/h_max"
    proof.at_least(
        claim, edge, one * least / (total + slack), (one, a, least, c, total, slack), shown
    )
    proof.words(
        "p_i(t) is an average of the p_j(0), times W_0 ... W_t: its length is at most ||W_0 ... "
        "W_t|| / h and at least sigma_min(W_0 ... W_t), for <v, p> = 1 and ||v|| = 1. Unit tokens "
        "have h_i = 1 / ||p_i||, so h_min / h_max >= h / c"
    )
    proof.words("||v_t|| <= 1 / sigma_min and the p_i spread by ||W_0 ... W_t||: c in front")
    p, q, s = sympy.symbols("p q s", positive=True)
    cosine = sympy.Symbol("c", real=True)
    excess = s**2 * (p**2 + q**2 - 2 * p * q * cosine) - (2 - 2 * cosine)
    claim = (
        "||v||^2 ||p_i - p_j||^2 - ||x_i - x_j||^2 for s = ||v|| and lengths p, q >= 1 / s of "
        "p_i, p_j: terms >= 0"
    )
    proof.equal(claim, excess, s**2 * (p - q) ** 2 + 2 * (s**2 * p * q - 1) * (1 - cosine))
    return proof


WRONG = {
    "the weights A_ij themselves": {"weight": lambda A, h: A},
    "A_ij / h_j": {"weight": lambda A, h: A / h},
    "v moves with the tokens": {"pole": lambda v, W: W * v},
}
