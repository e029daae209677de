"""Complete mask, LayerNorm and dropout: the Gram matrix stands still from the second layer on.

P = 11^T / N makes all rows alike, so that P G P^T is one number g times 11^T, whatever G. Dropout
divides its diagonal by 1 - p, and normalising leaves 1 on the diagonal and 1 - p beside it.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import N


def statement():
    return Statement(
        claim="complete mask, no skip, a norm to length sqrt(d): in the infinite-width recursion "
        "pairwise cosines are 1 - p after every layer and mu^2 = (N - 1) d p",
        source="dynsim.gram; compare WU, arXiv 2405.18781, Fig. 6",
        hypotheses="uniform attention; hidden dropout p; the recursion is lemma dropout-gram's "
        "expectation with every token divided by its expected length: the limit d to infinity",
        latex=r"\mu^2=(N-1)\,d\,p",
        how="proved for every N, and for N <= 4 from any G",
    )


def check(level=lambda n, d, p: (n - 1) * d * p):
    proof = Proof()
    p, d, r = sympy.symbols("p d r", positive=True)
    for n in (2, 3, 4):
        G = sympy.Matrix(n, n, lambda i, j: sympy.Symbol(f"g_{min(i, j) + 1}{max(i, j) + 1}"))
        P = sympy.ones(n, n) / n
        g = (P * G * P.T)[0, 0]
        claim = f"N = {n}, any G: P G P^T = g 11^T, g the mean of all entries"
        mean = sum(G) / sympy.Integer(n**2) * sympy.ones(n, n)
        proof.equal(claim, P * G * P.T, mean, shown=(sympy.Symbol("K_ij"), sympy.Symbol("g")))
        K = (P * G * P.T) + sympy.eye(n) * g * (1 / (1 - p) - 1)
        proof.equal(
            f"N = {n}: cosine K_12 / K_11",
            K[0, 1] / K[0, 0],
            1 - p,
            shown=(sympy.Symbol("K_12") / sympy.Symbol("K_11"), 1 - p),
        )
        after = (1 - p) * sympy.ones(n, n) + p * sympy.eye(n)
        squared = d * (after.trace() - sum(after) / sympy.Integer(n))
        proof.equal(
            f"N = {n}: mu^2 = d (tr G - 1^T G 1 / N)",
            squared,
            level(n, d, p),
            shown=(sympy.Symbol("mu") ** 2, level(n, d, p)),
        )
    g = (1 + (N - 1) * r) / N
    proof.equal(
        "any N, equal cosines r: g / (g / (1 - p)) = 1 - p",
        g / (g / (1 - p)),
        1 - p,
        shown=(sympy.Symbol("K_12") / sympy.Symbol("K_11"), 1 - p),
    )
    total = N + N * (N - 1) * (1 - p)
    proof.equal("any N: d (N - (N + N (N - 1)(1 - p)) / N)", d * (N - total / N), level(N, d, p))
    claim = "N = 128, d = 768, p = .1: mu^2 = 9753.6, mu = 98.76"
    value = level(128, 768, sympy.Rational(1, 10))
    proof.equal(claim, value, sympy.Rational(48768, 5), shown=("127*768/10", "48768/5"))
    return proof


WRONG = {
    "N d p": {"level": lambda n, d, p: n * d * p},
    "(N - 1) d p / (1 - p)": {"level": lambda n, d, p: (n - 1) * d * p / (1 - p)},
}
