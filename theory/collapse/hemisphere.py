"""The hemisphere certificate: in the gnomonic chart a normalised layer is a plain average.

If all tokens have h_i = <v, x_i> > 0, let p_i = x_i / h_i (central projection on the tangent plane
at v). One layer x'_i = y_i W / ||y_i||, y_i = sum_j A_ij x_j, with v' = v W and W orthogonal:
lengths cancel in p'_i, which is an average of the p_j W with weights A_ij h_j / sum_k A_ik h_k.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="p_i = x_i / <v, x_i> moves by the row-stochastic A_ij h_j / sum_k A_ik h_k >= eps "
        "h; h never decreases; ||x_i - x_j|| <= ||p_i - p_j||",
        source="dynsim; the chart behind WU, arXiv 2405.18781, Corollary 1, with weaker hypotheses",
        hypotheses="unit rows, W_V orthogonal, h = min_i <v, x_i> > 0 for a unit vector v, "
        "entries on edges >= eps",
        latex=r"p_i'=\sum_j\frac{A_{ij}h_j}{\sum_kA_{ik}h_k}\,p_jW_V,\qquad\max\lVert "
        r"x_i-x_j\rVert\le(1-(\epsilon h)^r)^{\lfloor t/r\rfloor}\max\lVert p_i(0)-p_j(0)\rVert",
        how="proved for N = 3, d = 2 (the chart), and for every N and d (heights and distances)",
    )


def check(weight=lambda A, h, j: A[j] * h[j]):
    proof = Proof()
    A = sympy.symbols("A_1:4", positive=True)
    v = sympy.Matrix([sympy.symbols("v_1 v_2", real=True)])
    X = sympy.Matrix(3, 2, sympy.symbols("x_1:7", real=True))
    a, b = sympy.symbols("a b", real=True)
    W = sympy.Matrix([[1 - a**2, 2 * a], [-2 * a, 1 - a**2]]) / (1 + a**2)  # any turn but a half
    h = [(X.row(j) * v.T)[0] for j in range(3)]
    y = sum((A[j] * X.row(j) for j in range(3)), sympy.zeros(1, 2))
    proof.equal("an orthogonal W keeps <v, y>", (v * W * (y * W).T)[0], (v * y.T)[0])
    total = sum(weight(A, h, j) for j in range(3))
    average = sum((weight(A, h, j) * X.row(j) / h[j] for j in range(3)), sympy.zeros(1, 2)) / total
    proof.equal("y_i / <v, y_i>, the length cancelled", total * y, total * (v * y.T)[0] * average)
    least, a, b, c, d = sympy.symbols("h a b c d", nonnegative=True)
    proof.at_least(
        "sum_j A_ij h_j >= h sum_j A_ij",
        a * (least + b) + c * (least + d),
        least * (a + c),
        (a, b, c, d, least),
    )
    proof.words("||y_i|| <= sum_j A_ij = 1, so h_i' = <v, y_i> / ||y_i|| >= h")
    proof.words("h_j >= h and sum_k A_ik h_k <= 1, so the new weights on edges are >= eps h")
    p, q = sympy.symbols("p q", positive=True)
    cosine = sympy.Symbol("c", real=True)
    excess = (p**2 + q**2 - 2 * p * q * cosine) - (2 - 2 * cosine)
    claim = "||p_i - p_j||^2 - ||x_i - x_j||^2 for lengths p, q >= 1 of p_i, p_j: terms >= 0"
    proof.equal(claim, excess, (p - q) ** 2 + 2 * (p * q - 1) * (1 - cosine))
    return proof


WRONG = {
    "the weights A_ij themselves": {"weight": lambda A, h, j: A[j]},
    "A_ij / h_j": {"weight": lambda A, h, j: A[j] / h[j]},
}
