"""One layer shrinks the diameter by Dobrushin's coefficient: WU's contraction step, with constants.

Rows p and q of P have the same sum, so p - q = a - b with a, b >= 0 of equal sum m <= tau(P). Then
y_p - y_q = sum_j (a_j - b_j) x_j is a combination of differences x_j - x_l with weights a_j b_l / m
>= 0 that sum to m. So it is at most m times as long as the longest of them (triangle inequality,
which is Cauchy and Schwarz's), and W stretches a vector by ||W||_2 at most.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import i, j, over, x


def statement():
    return Statement(
        claim="delta(P X W) <= tau(P) ||W||_2 delta(X), delta the largest distance of two tokens",
        source="WU, arXiv 2405.18781, Lemmas 2 and 3; Dobrushin's ergodicity coefficient",
        hypotheses="P row-stochastic, tau(P) = max_ik sum_j |P_ij - P_kj| / 2; any N and d",
        latex=r"\delta(PXW)\le\tau(P)\lVert W\rVert_2\,\delta(X),\quad"
        r"\tau(P)=\max_{i,k}\tfrac12\sum_j|P_{ij}-P_{kj}|",
        how="proved for every N and d",
    )


def check(half=sympy.Rational(1, 2), length=lambda a, b: a + b):
    proof = Proof()
    p, s = sympy.symbols("p s", nonnegative=True)
    for left, right in ((p + s, p), (p, p + s)):  # the larger of the two entries is either
        up, down = sympy.Max(left - right, 0), sympy.Max(right - left, 0)
        claim = f"entries {left} and {right}: the difference is a - b, one the excess, the other 0"
        shown = f"({left}) - ({right})", f"max({left} - ({right}), 0) - max({right} - ({left}), 0)"
        proof.equal(claim, left - right, up - down, shown)
        claim = "half of its size is (a + b) / 2; summed over entries that is m, so m <= tau"
        proof.equal(
            claim, half * s, (up + down) / 2, (f"{half}*abs({left} - ({right}))", "(a + b)/2")
        )
    a, b = (sympy.IndexedBase(name, nonnegative=True) for name in "ab")
    m, A_x, B_x = sympy.symbols("m A_x B_x", real=True)  # sums of a x and of b x
    moments_a = {(1, 0): m, (1, 1): A_x}
    moments_b = {(1, 0): m, (1, 1): B_x}
    pairs = over(j, over(i, a[i] * b[j] * (x[i] - x[j]), moments_a, (a, x)), moments_b, (b, x))
    claim = "sum_jl a_j b_l (x_j - x_l) in one coordinate, A_x = sum a_j x_j, B_x = sum b_l x_l"
    proof.equal(claim, pairs, m * (A_x - B_x))
    weights = over(j, over(i, a[i] * b[j], moments_a, (a, x)), moments_b, (b, x)) / m
    claim = "so y_p - y_q = A_x - B_x has the weights a_j b_l / m, whose sum is m"
    proof.equal(claim, weights, m, ("sum(a_j)*sum(b_l)/m", "m"))
    u, v = (sympy.IndexedBase(name, real=True) for name in "uv")
    U, V, inner = sympy.symbols("U V c", real=True)  # u.u, v.v and u.v
    moments = {(2, 0): U, (0, 2): V, (1, 1): inner}
    crossed = sympy.expand((u[i] * v[j] - u[j] * v[i]) ** 2)
    squares = over(j, over(i, crossed, moments, (u, v)), moments, (u, v))
    claim = "Cauchy, Schwarz: a sum of squares over i and j, with U = u.u, V = v.v, c = u.v"
    shown = "sum_ij(u_i*v_j - u_j*v_i)^2/2", "U*V - c^2"
    proof.equal(claim, squares / 2, U * V - inner**2, shown)
    lengths = sympy.symbols("l_u l_v", nonnegative=True)
    slack = sympy.Symbol("s", nonnegative=True)  # l_u l_v - u.v
    square = lengths[0] ** 2 + lengths[1] ** 2 + 2 * (lengths[0] * lengths[1] - slack)
    claim = "so u.v = l_u l_v - s, and ||u + v||^2 <= (l_u + l_v)^2, l the lengths"
    proof.at_least(claim, length(*lengths) ** 2, square, (*lengths, slack))
    sigma, more, z = sympy.symbols("sigma_k more z_k", nonnegative=True)
    claim = "||z W||^2 = sum sigma_k^2 z_k^2 in W's singular vectors, with sigma_1 = sigma_k + more"
    proof.at_least(claim, (sigma + more) ** 2 * z**2, sigma**2 * z**2, (sigma, more, z))
    return proof


WRONG = {
    "tau without the half": {"half": 1},
    "||u + v|| <= the longer of the two": {"length": lambda a, b: sympy.Max(a, b)},
}
