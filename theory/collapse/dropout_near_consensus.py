"""Weak noise near consensus: what layers add is carried on by the walk, and adds up.

To first order in p let G = 11^T + p H. One layer gives 11^T + p (P H P^T + I) before the norm,
which subtracts (m 1^T + 1 m^T) / 2 with m the diagonal. C = I - 11^T / N removes such terms, in
later layers too, as P 1 = 1. So C H_t C is the sum of C P^s (C P^s)^T over s < t.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="near consensus mu^2 = d p sum_(s < t) ||C P^s||_F^2 + O(p^2) after t layers from "
        "equal tokens, C = I - 11^T / N, under any mask",
        source="dynsim.gram: a balance of fluctuation and dissipation",
        hypotheses="the recursion of lemma dropout-level under a row-stochastic P, no skip",
        latex=r"\mu_t^2=d\,p\sum_{s<t}\lVert C P^s\rVert_F^2+O(p^2)",
        how="proved for N <= 3 and t <= 3, symbolic P",
    )


def _layer(G, P, p):
    K = P * G * P.T
    K = K + sympy.diag(*[K[i, i] * p / (1 - p) for i in range(K.rows)])
    return K


def _first_order(expression, p):
    """The coefficient of p at p = 0."""
    return sympy.cancel(sympy.diff(expression, p).subs(p, 0))


def check(added=lambda C, power: (C * power) * (C * power).T):
    proof = Proof()
    p = sympy.Symbol("p")
    for n, layers in ((2, 3), (3, 3)):
        free = sympy.Matrix(n, n - 1, lambda i, j: sympy.Symbol(f"P_{i + 1}{j + 1}"))
        P = free.row_join(sympy.ones(n, 1) - free * sympy.ones(n - 1, 1))
        C, one = sympy.eye(n) - sympy.ones(n, n) / n, sympy.ones(n, n)
        H, total, power = sympy.zeros(n, n), sympy.zeros(n, n), sympy.eye(n)
        for t in range(1, layers + 1):
            K = _layer(one + p * H, P, p)
            first = K.applyfunc(lambda entry: _first_order(entry, p))
            m = first.diagonal().T
            ones = sympy.ones(n, 1)
            H = first - (m * ones.T + ones * m.T) / 2
            H = H.applyfunc(sympy.expand)
            total += added(C, power)
            power = power * P
            claim = f"N = {n}, t = {t}: h = tr C H C is the sum of n_s = ||C P^s||_F^2"
            norms = [sympy.Symbol(f"n_{s}") for s in range(t)]  # ||C P^s||_F^2
            brief = sympy.Symbol("h"), sympy.Add(*norms)
            proof.equal(claim, (C * H * C).trace(), total.trace(), shown=brief)
    K = sympy.Function("k_ij")(p), sympy.Function("k_ii")(p), sympy.Function("k_jj")(p)
    at = {k.subs(p, 0): 1 for k in K}
    slope = sympy.diff(K[0] / sympy.sqrt(K[1] * K[2]), p).subs(p, 0).doit()
    parts = [sympy.Symbol(name) for name in ("a", "b", "c")]
    slope = slope.subs(
        {sympy.Subs(sympy.diff(k, p), p, 0).doit(): v for k, v in zip(K, parts, strict=True)}
    ).subs(at)
    a, b, c = parts
    proof.equal(
        "first order of K_ij / sqrt(K_ii K_jj) at K = 11^T",
        slope,
        a - (b + c) / 2,
        shown=(sympy.Symbol("slope"), a - (b + c) / 2),
    )
    return proof


WRONG = {
    "without centring": {"added": lambda C, power: power * power.T},
    "every layer alike": {"added": lambda C, power: C},
}
