"""Up to three tokens alternating signs leave no multiplier above 1, for every finite w.

With r = sqrt(1 - 1/w^2) and last coordinates t = (1, -r, r), lemma multiplier-polynomial gives
token 2 the multiplier 1 - r, and token 3 the roots of (lambda - 1)^2 + B_1 (lambda - 1) + B_2 with
B_1 = r^2 + r/w^2 and B_2 = r. These are a complex pair, and its squared modulus is the constant
term. What remains are multipliers exactly 1 (tokens 1 and 2), as in WU's planar example.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="N <= 3, alternating signs, any w > 1: token 2 has the multiplier 1 - r and token 3 "
        "a pair of squared modulus 1 - r^2 (1 - r) < 1, beside multipliers 0 and 1",
        source="dynsim; for the equilibria of WU, arXiv 2405.18781, Theorem 3",
        hypotheses="as for jordan-family, k = N <= 3, r = sqrt(1 - 1/w^2)",
        latex=r"\lambda_2=1-r,\qquad|\lambda_3|^2=1-r^2(1-r)<1,\qquad r=\sqrt{1-1/w^2}\quad(N\le3)",
        how="proved for every w > 1",
    )


def check(square=lambda r: 1 - r**2 * (1 - r)):
    proof = Proof()
    e = sympy.Symbol("e", positive=True)
    r, t = sympy.symbols("r lambda")
    last = {1: sympy.Integer(1), 2: -r, 3: r}
    of_w = 1 - r**2  # 1/w^2

    def B(k, m):
        pairs = range(k - m)
        return (-1) ** m * sum(of_w**a * last[k - a - m] * last[k - a] for a in pairs)

    for k in (2, 3):
        proof.equal(f"token {k}: B_0, its length", B(k, 0), 1, shown=("r^2 + (1 - r^2)", "1"))
    proof.equal(
        "token 2: zeta + B_1 = 0 at lambda = 1 - r", -r + B(2, 1), 0, shown=("(1 - r - 1) + r", "0")
    )
    polynomial = sympy.expand((t - 1) ** 2 + B(3, 1) * (t - 1) + B(3, 2))
    proof.equal(
        "token 3: the constant term",
        polynomial.subs(t, 0),
        square(r),
        shown=("(0 - 1)^2 + B_1*(0 - 1) + B_2", square(r)),
    )
    discriminant = sympy.discriminant(polynomial, t)
    proof.equal("its discriminant", discriminant, r * (r * (1 + r - r**2) ** 2 - 4))
    inside = 1 / (1 + e)  # r, between 0 and 1
    proof.less("is negative at r = 1/(1 + e): a complex pair", discriminant.subs(r, inside), 0)
    proof.less("and the squared modulus is below 1", square(inside), 1)
    return proof


WRONG = {
    "1 - r (1 - r)": {"square": lambda r: 1 - r * (1 - r)},
    "exactly 1": {"square": lambda r: sympy.Integer(1)},
}
