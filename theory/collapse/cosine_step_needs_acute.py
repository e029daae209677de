"""Without phi >= 0 the cosine step is false: two nearly antipodal tokens.

With a negative cosine, entries that sum to more than 1 make it more negative than the step allows.
Two tokens (+-sqrt(99), 1) / 10, A = [[3/4, 1/4], [1/4, 3/4]] on the complete mask: everything is
exact. They lie in a half plane, so they still meet; only the step's rate is wrong.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="the step phi_{t+r} >= eps^2r + (1 - eps^2r) phi_t without phi_t >= 0 is false: "
        "N = d = 2, eps = 1/4, r = 1, phi = -49/50",
        source="WU, arXiv 2405.18781, Corollary 1 (which assumes phi_0 >= 0)",
        hypotheses="complete mask, W_V = I, unit rows; one token has only cosine 1, so two are "
        "fewest",
        latex=r"\phi_0=-\tfrac{49}{50}:\quad\phi_1=-\tfrac{95}{103}<\tfrac1{16}+\tfrac{15}{16}\phi_0"
        r"\qquad(N=d=2,\ \epsilon=\tfrac14,\ r=1)",
        how="counterexample found, exact",
    )


def check(square=sympy.Rational(1, 100)):
    proof = Proof()
    eps = sympy.Rational(1, 4)
    height, width = sympy.sqrt(square), sympy.sqrt(1 - square)
    X = sympy.Matrix([[width, height], [-width, height]])
    phi = (X.row(0) * X.row(1).T)[0]
    proof.equal("unit rows", X.row(0).norm() ** 2, 1, shown=("99/100 + 1/100", "1"))
    Y = sympy.Matrix([[1 - eps, eps], [eps, 1 - eps]]) * X
    after = (Y.row(0) * Y.row(1).T)[0] / Y.row(0).norm() ** 2
    proof.equal("the cosine before", phi, 2 * square - 1, shown=("1/100 - 99/100", 2 * square - 1))
    proof.equal(
        "the cosine after",
        after,
        (square - (1 - square) / 4) / (square + (1 - square) / 4),
        shown=("(1/100 - 99/100/4)/(1/100 + 99/100/4)", after),
    )
    promised = eps**2 + (1 - eps**2) * phi
    proof.less("less than promised", after, promised, shown=("phi_1", "eps^2 + (1 - eps^2)*phi_0"))
    return proof


WRONG = {
    "at a right angle": {"square": sympy.Rational(1, 2)},
    "at phi = -4/5": {"square": sympy.Rational(1, 10)},
}
