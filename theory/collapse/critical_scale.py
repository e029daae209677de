"""The inverse temperature that n equiangular tokens need as n grows: gamma_c log n.

With beta = gamma log n and gamma = c / (1 - rho), e^(-beta (1 - rho)) is n^(-c). A token gives
itself a = 1 / (1 + (n - 1) n^(-c)), and each other b = (1 - a) / (n - 1). What one layer leaves of
1 - rho is (a - b)^2 / (rho + (1 - rho) (a^2 + (n - 1) b^2)) (lemma equiangular).
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="n equiangular tokens, beta_n = gamma log n, n to infinity: a layer leaves of 1 - "
        "rho the share 0 for gamma < 1/(1 - rho), 1/(1 + 3 rho) at it, 1 for gamma above; a = "
        "1/2 at beta = log(n - 1)/(1 - rho)",
        source="Chen, Lin, Polyanskiy and Rigollet, arXiv 2510.05554",
        hypotheses="complete mask, W_V = I, unit tokens of equal cosines 0 < rho < 1, M = beta I, "
        "a norm that only scales",
        latex=r"\frac{1-\rho'}{1-\rho}\to0,\;\frac1{1+3\rho},\;1\qquad\text{for }\gamma<,=,>"
        r"\frac1{1-\rho}",
        how="proved: limits for symbolic rho and distance e from the critical scale",
    )


def check(critical=lambda rho: 1 / (1 + 3 * rho), exponent=lambda c: -c):
    proof = Proof()
    n, e = sympy.symbols("n e", positive=True)
    rho, a = sympy.symbols("rho a", positive=True)

    def weight(power):  # (n - 1) n^power, as n grows
        return 1 / (1 + (n - 1) * n**power)

    b = (1 - a) / (n - 1)
    left = (a - b) ** 2 / (rho + (1 - rho) * (a**2 + (n - 1) * b**2))
    claim = "a fixed share a, n to infinity: the others' weights vanish"
    limit = sympy.limit(left, n, sympy.oo)
    closed = a**2 / (rho + (1 - rho) * a**2)
    proof.equal(claim, limit, closed, shown=("lim(share)", closed))
    cases = (
        ("gamma = (1 - e)/(1 - rho)", exponent(1) + e, 0, 0),
        ("gamma = 1/(1 - rho)", exponent(1), sympy.Rational(1, 2), critical(rho)),
        ("gamma = (1 + e)/(1 - rho)", exponent(1) - e, 1, 1),
    )
    for name, power, own, share in cases:
        found = sympy.limit(weight(power).subs(e, sympy.Rational(1, 3)), n, sympy.oo)
        shown = ("lim(a)", own)
        proof.equal(f"{name}, e = 1/3: the limit of a", found, own, shown)
        proof.equal(f"{name}: and of the share", closed.subs(a, own), share, ("lim(share)", share))
    claim = (
        "a = 1/(1 + ((n-1)/n) n^e), and for every e > 0 n^e grows without limit, n^(-e) falls to 0"
    )
    proof.true(claim, sympy.And(sympy.Eq(sympy.limit(n**e, n, sympy.oo), sympy.oo),
                                sympy.Eq(sympy.limit(n**-e, n, sympy.oo), 0)))  # fmt: skip
    m = sympy.Symbol("m", positive=True)  # n - 1
    beta = sympy.log(m) / (1 - rho)
    half = 1 / (1 + m * sympy.exp(-beta * (1 - rho)))
    claim = "beta = log(n - 1)/(1 - rho), with m = n - 1: a token gives itself one half"
    proof.equal(claim, half, sympy.Rational(1, 2), ("1/(1 + m*exp(-log(m)))", "1/2"))
    return proof


WRONG = {
    "1/(1 + rho) at the critical scale": {"critical": lambda rho: 1 / (1 + rho)},
    "critical at twice the scale": {"exponent": lambda c: -c / sympy.Integer(2)},
}
