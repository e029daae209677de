"""mu(X)^2 is the mean square distance over pairs, up to a factor."""

import sympy

from theory.lemma import Lemma, Proof
from theory.sums import S_1, S_2, N, i, j, over, x


def check() -> Proof:
    """Both sides are sums over coordinates, so one coordinate x_1, ..., x_N is enough."""
    proof = Proof()
    mean = S_1 / N
    mu_squared = over(i, (x[i] - mean) ** 2)
    proof.zero("mu^2 = S_2 - S_1^2 / N", mu_squared - (S_2 - S_1**2 / N))
    pairs = over(i, over(j, (x[i] - x[j]) ** 2))
    proof.zero("sum_ij (x_i - x_j)^2 = 2 N S_2 - 2 S_1^2", pairs - (2 * N * S_2 - 2 * S_1**2))
    proof.zero("mu^2 = pairs / (2 N) for every N", mu_squared - pairs / (2 * N))
    for n, d in ((2, 1), (3, 2), (4, 3)):  # and written out, without the algebra of sums
        X = sympy.Matrix(n, d, sympy.symbols(f"x:{n * d}", real=True))
        deviation = X - sympy.ones(n, n) * X / n
        written_out = sum(
            (X[a, k] - X[b, k]) ** 2 for a in range(n) for b in range(n) for k in range(d)
        )
        rest = (deviation.T * deviation).trace() - written_out / (2 * n)
        proof.zero(f"written out for N = {n}, d = {d}", rest)
    return proof


LEMMA = Lemma(
    name="mu-pairwise",
    source="WU, arXiv 2405.18781, section 3",
    statement="mu(X)^2 = sum_ij ||x_i - x_j||^2 / (2 N), with mu(X) = ||X - 1 1^T X / N||_F",
    hypotheses="X real, N x d, any N >= 1 and d >= 1",
    latex=r"\mu(X)^2=\frac{1}{2N}\sum_{i,j=1}^N\lVert x_i-x_j\rVert^2",
    method="proved symbolically for every N and d",
    check=check,
)
