"""mu(X) is the distance to consensus, and not the distance to rank one."""

import sympy

from theory.lemma import Lemma, Proof
from theory.sums import S_1, S_2, N, i, over, x


def check() -> Proof:
    """Again one coordinate is enough: both sides are sums over coordinates."""
    proof = Proof()
    c = sympy.Symbol("c", real=True)
    to_c = over(i, (x[i] - c) ** 2)
    mu_squared = S_2 - S_1**2 / N
    excess = N * (c - S_1 / N) ** 2
    proof.zero("sum_i (x_i - c)^2 = mu^2 + N (c - mean)^2 >= mu^2", to_c - mu_squared - excess)
    proof.zero("with equality at c = mean", to_c.subs(c, S_1 / N) - mu_squared)
    a, b = sympy.symbols("a b", real=True)
    antipodal = sympy.Matrix([[a, b], [-a, -b]])
    deviation = antipodal - sympy.ones(2, 2) * antipodal / 2
    norm_squared = (deviation.T * deviation).trace()
    proof.zero("antipodal tokens +-v: mu^2 = 2 ||v||^2 is not 0", norm_squared - 2 * (a**2 + b**2))
    proof.zero("yet they are rank one: every 2 x 2 minor vanishes", antipodal.det())
    return proof


LEMMA = Lemma(
    name="mu-distance",
    source="WU, arXiv 2405.18781, section 3",
    statement="mu(X) = min over rows c of ||X - 1 c||_F, attained at the mean row alone; antipodal "
    "tokens are rank one with mu > 0",
    hypotheses="X real, N x d, any N >= 1 and d >= 1",
    latex=r"\mu(X)=\min_{c\in\mathbb R^d}\lVert X-\mathbf 1c^{\top}\rVert_F",
    method="proved symbolically for every N and d",
    check=check,
)
