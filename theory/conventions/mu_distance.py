"""mu(X) is the distance to consensus: the nearest matrix of equal rows is the mean row, repeated.

One coordinate is enough: both sides are sums over coordinates.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, S_2, N, i, over, x


def statement():
    return Statement(
        claim="mu(X) = min over rows c of ||X - 1 c||_F, attained at the mean row alone",
        source="WU, arXiv 2405.18781, section 3",
        hypotheses="X real, N x d, any N >= 1 and d >= 1",
        latex=r"\mu(X)=\min_{c\in\mathbb R^d}\lVert X-\mathbf 1c^{\top}\rVert_F,\quad"
        r"\text{attained at the mean row alone}",
        how="proved for every N and d",
    )


def check(nearest=S_1 / N):
    proof = Proof()
    c = sympy.Symbol("c", real=True)
    to_c = over(i, (x[i] - c) ** 2)
    mu_squared = S_2 - S_1**2 / N
    proof.equal(
        "sum_i (x_i - c)^2 exceeds mu^2 by a square",
        to_c,
        mu_squared + N * (c - nearest) ** 2,
        shown=("sum_i(x_i - c)^2", mu_squared + N * (c - nearest) ** 2),
    )
    proof.equal(
        "which vanishes at the nearest row alone",
        to_c.subs(c, nearest),
        mu_squared,
        shown=("sum_i(x_i - S_1/N)^2", mu_squared),
    )
    return proof


WRONG = {"the sum, not the mean": {"nearest": S_1}, "the origin": {"nearest": 0}}
