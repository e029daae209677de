"""mu(X)^2 is the mean square distance over pairs, up to a factor.

Both sides are sums over coordinates, so one coordinate x_1, ..., x_N is enough.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, S_2, N, i, j, over, x


def statement():
    return Statement(
        claim="mu(X)^2 = sum_ij ||x_i - x_j||^2 / (2 N), with mu(X) = ||X - 1 1^T X / N||_F",
        source="WU, arXiv 2405.18781, section 3",
        hypotheses="X real, N x d, any N >= 1 and d >= 1",
        latex=r"\mu(X)^2=\frac{1}{2N}\sum_{i,j=1}^N\lVert x_i-x_j\rVert^2,\qquad\mu(X)=\lVert X-"
        r"\tfrac1N\mathbf1\mathbf1^{\top}X\rVert_F",
        how="proved for every N and d",
    )


def check(factor=2):
    proof = Proof()
    mean = S_1 / N
    mu_squared = over(i, (x[i] - mean) ** 2)
    proof.equal(
        "mu^2 by its definition",
        mu_squared,
        S_2 - S_1**2 / N,
        shown=("sum_i(x_i - S_1/N)^2", S_2 - S_1**2 / N),
    )
    pairs = over(i, over(j, (x[i] - x[j]) ** 2))
    proof.equal(
        "sum_ij (x_i - x_j)^2, expanded and collected",
        pairs,
        2 * N * S_2 - 2 * S_1**2,
        shown=("sum_ij(x_i - x_j)^2", 2 * N * S_2 - 2 * S_1**2),
    )
    proof.equal("hence, for every N", mu_squared, pairs / (factor * N))
    X = sympy.Matrix(3, 2, sympy.symbols("x:6", real=True))
    deviation = X - sympy.ones(3, 3) * X / 3
    rows = [X.row(a) - X.row(b) for a in range(3) for b in range(3)]
    written_out = sum(row.dot(row) for row in rows) / (factor * 3)
    claim = "and for N = 3, d = 2 written out, without the algebra of sums"
    proof.equal(
        claim,
        (deviation.T * deviation).trace(),
        written_out,
        shown=("sum_i((x_i - m)^2)", f"sum_ij((x_i - x_j)^2)/({factor}*3)"),
    )
    return proof


WRONG = {"pairs / N": {"factor": 1}, "pairs / (4 N)": {"factor": 4}}
