"""For all tokens together alternating signs are best, for every N: any other pattern is worse.

Write sigma_i = (-1)^i s_i up to a common sign, sigma_1 = 1. Token k's polynomial is sigma_k times
the truncated series sum_{i<=k} sigma_i zeta^(i-1), the same series for all tokens. Alternating
signs are sigma = 1, 1, 1, ...; let another pattern first deviate at token j. That token's
polynomial zeta^(j-1) - zeta^(j-2) - ... - 1 is 2 - j <= 0 at zeta = 1 and 1 at zeta = 2, so it has
a root in [1, 2) and the token a real multiplier of at least 2, which is above 2 cos(pi/N).
"""

import sympy

from theory.lemma import Proof, Statement

LARGEST = 10


def statement():
    return Statement(
        claim="limit multipliers of all N tokens: signs that do not alternate leave a real one >= "
        "2; alternating signs leave at most 2 cos(pi/N) < 2, so they are best",
        source="dynsim; for the equilibria of WU, arXiv 2405.18781, Theorem 3",
        hypotheses="as for multiplier-limit, N >= 2",
        latex=r"\sigma_j=-1\text{ first}:\quad p_j(\zeta)=\zeta^{j-1}-\sum_{i<j}\zeta^{i-1},\quad "
        r"p_j(1)=2-j\le0<1=p_j(2):\quad\text{a multiplier}\ge2;\qquad\text{alternating signs: "
        r"at most }2\cos\tfrac\pi N<2",
        how=f"proved for every N; the truncated series written out for k <= {LARGEST}",
    )


def check(at_two=1):
    proof = Proof()
    j, i = sympy.symbols("j i", integer=True, positive=True)
    zeta = sympy.Symbol("zeta")
    for k in range(2, LARGEST + 1):
        sigma = sympy.symbols(f"sigma_1:{k + 1}")
        s = [(-1) ** (n + 1) * value for n, value in enumerate(sigma)]
        stated = sum((-1) ** m * s[k - 1 - m] * s[k - 1] * zeta ** (k - 1 - m) for m in range(k))
        series = sigma[k - 1] * sum(value * zeta**n for n, value in enumerate(sigma))
        proof.equal(
            f"k = {k}: the polynomial is the series, truncated",
            stated,
            series,
            shown=("sum_m((-1)^m*s_l*s_k*zeta^(k - 1 - m))", "sigma_k*sum_i(sigma_i*zeta^(i - 1))"),
        )

    def first_deviation(value):
        return value ** (j - 1) - sympy.summation(value ** (i - 1), (i, 1, j - 1))

    proof.equal(
        "p_j(1)",
        first_deviation(sympy.Integer(1)),
        2 - j,
        shown=("1^(j - 1) - sum_i(1^(i - 1))", 2 - j),
    )
    proof.equal(
        "p_j(2)",
        first_deviation(sympy.Integer(2)),
        at_two,
        shown=("2^(j - 1) - sum_i(2^(i - 1))", sympy.Integer(at_two)),
    )
    N = sympy.Symbol("N", integer=True, positive=True)
    slope = (2 * sympy.cos(sympy.pi / N)).diff(N)
    claim = (
        "2 cos(pi/k) grows with k, as sin > 0 between 0 and pi: token N has the largest, below 2"
    )
    proof.equal(
        claim,
        slope,
        2 * sympy.pi * sympy.sin(sympy.pi / N) / N**2,
        shown=("d(2*cos(pi/N))/dN", 2 * sympy.pi * sympy.sin(sympy.pi / N) / N**2),
    )
    return proof


WRONG = {"p_j(2) = 2": {"at_two": 2}, "p_j(2) = -1": {"at_two": -1}}
