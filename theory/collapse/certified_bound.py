"""WU's Theorem 1 with every constant: mu(X_t) under a bound that can be computed before the run.

mu^2 is a sum over N (N - 1) ordered pairs at distance at most delta, over 2 N. With the contraction
of every r layers, mu(X_t) <= sqrt((N-1)/2) delta(X_0) prod ||W_V||_2 (1 - eps^r)^floor(t/r). Since
floor(t/r) >= (t - r + 1)/r this is C (1 - eps^r)^(t/r) with C's factor (1 - eps^r)^(-(r-1)/r).
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="mu(X) <= sqrt((N-1)/2) delta(X), attained by a regular simplex; hence mu(X_t) <= "
        "sqrt((N-1)/2) delta(X_0) prod ||W_V||_2 (1 - eps^r)^floor(t/r) = O((1 - eps^r)^(t/r))",
        source="WU, arXiv 2405.18781, Theorem 1",
        hypotheses="those of contraction and products-mix",
        latex=r"\mu(X_t)\le\sqrt{\tfrac{N-1}2}\,\delta(X_0)\prod_{s<t}\lVert W_V^{(s)}\rVert_2\,"
        r"(1-\epsilon^r)^{\lfloor t/r\rfloor}",
        how="proved for every N, t and r",
    )


def check(constant=lambda N: sympy.sqrt((N - 1) / 2), lag=lambda r: r - 1):
    proof = Proof()
    N, r = sympy.symbols("N r", positive=True, integer=True)
    delta = sympy.Symbol("delta", positive=True)
    pairs = N * (N - 1) * delta**2 / (2 * N)
    proof.equal("N (N - 1) pairs at distance delta, over 2 N", pairs, (constant(N) * delta) ** 2)
    for n in (2, 3, 5):
        simplex, mean = sympy.eye(n), sympy.ones(n, n) / n
        deviation = simplex - mean * simplex
        mu_squared = (deviation.T * deviation).trace()
        claim = f"the simplex e_1, ..., e_{n}, delta = sqrt 2, attains it"
        proof.equal(claim, mu_squared, 2 * constant(sympy.Integer(n)) ** 2)
    k, rest = sympy.symbols("k rest", integer=True, nonnegative=True)
    proof.words("write t = k r + rest with 0 <= rest <= r - 1, so that floor(t / r) = k")
    gap = k - (k * r + rest - lag(r)) / r
    proof.equal(
        "k exceeds (t - r + 1) / r by nothing at the largest rest", gap.subs(rest, r - 1), 0
    )
    spare = sympy.Symbol("spare", nonnegative=True)  # r = rest + 1 + spare
    proof.at_least(
        "and by no less at others",
        sympy.cancel(gap * r).subs(r, rest + 1 + spare),
        0,
        (rest, spare, k),
    )
    return proof


WRONG = {
    "sqrt(N - 1)": {"constant": lambda N: sympy.sqrt(N - 1)},
    "sqrt(N / 2)": {"constant": lambda N: sympy.sqrt(N / 2)},
    "no loss in the exponent": {"lag": lambda r: 0},
}
