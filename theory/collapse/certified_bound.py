"""WU's Theorem 1 with every constant: mu(X_t) under a bound that can be computed before the run.

mu^2 is a sum over N (N - 1) ordered pairs at distance at most delta, over 2 N. Each block of r
layers multiplies delta by (1 - eps^r) times its ||W_V||_2 at most (contraction, products-mix), and
each layer left over by its ||W_V||_2, as tau <= 1. So mu(X_t) <= sqrt((N-1)/2) delta(X_0) prod
||W_V||_2 (1 - eps^r)^floor(t/r). Since floor(t/r) >= (t - r + 1)/r this is C (1 - eps^r)^(t/r) with
C's factor (1 - eps^r)^(-(r-1)/r).
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
        r"(1-\epsilon^r)^{\lfloor t/r\rfloor}=O\bigl((1-\epsilon^r)^{t/r}\bigr)",
        how="proved for every N, t and r, from the lemmas contraction and products-mix",
    )


def check(square=lambda N: (N - 1) / 2, lag=lambda r: r - 1):
    """`square` is the constant's square."""
    proof = Proof()
    m, delta, slack = sympy.symbols("m delta S", nonnegative=True)
    N = m + 1
    claim = "N (N - 1) pairs, each delta^2 less some slack, S in all: mu^2, with N = m + 1"
    mu_squared = (N * (N - 1) * delta**2 - slack) / (2 * N)
    shown = "(N - 1)/2*delta^2", "(N*(N - 1)*delta^2 - S)/(2*N)"
    proof.at_least(claim, square(N) * delta**2, mu_squared, (m, delta, slack), shown)
    for n in (2, 3, 5):
        simplex, mean = sympy.eye(n), sympy.ones(n, n) / n
        deviation = simplex - mean * simplex
        attained = (deviation.T * deviation).trace()
        claim = f"the simplex e_1, ..., e_{n}, delta^2 = 2, attains it"
        shown = f"{n}*(1 - 1/{n})^2 + {n}*{n - 1}*(1/{n})^2", f"2*({n} - 1)/2"
        proof.equal(claim, attained, 2 * square(sympy.Integer(n)), shown)
    a, b, more, gain = sympy.symbols("tau_1 w delta_0 gain", nonnegative=True)
    proof.words(
        "by induction over blocks of layers: delta(X_t) <= prod ||W_V||_2 prod tau delta(X_0)"
    )
    claim = "a factor tau_1 <= 1, here 1 less gain, of a layer left over does no harm"
    proof.at_least(claim, b * more, (a * b * more).subs(a, 1 - gain), (b, more, gain))
    k, rest = sympy.symbols("k rest", integer=True, nonnegative=True)
    r = sympy.Symbol("r", positive=True, integer=True)
    proof.words("write t = k r + rest with 0 <= rest <= r - 1, so that floor(t / r) = k")
    spare = sympy.Symbol("spare", nonnegative=True)
    claim = "k >= (t - r + 1) / r, with r = rest + 1 + spare"
    late = ((k * r + rest - lag(r)) / r).subs(r, rest + 1 + spare)
    proof.at_least(claim, k, late, (rest, spare, k), ("k", "(k*r + rest - r + 1)/r"))
    proof.words("(1 - eps^r)^x falls with x, so its power k is at most that of (t - r + 1) / r")
    return proof


WRONG = {
    "sqrt((N - 2) / 2)": {"square": lambda N: (N - 2) / 2},
    "sqrt(N / 2)": {"square": lambda N: N / 2},
    "no loss in the exponent": {"lag": lambda r: 0},
}
