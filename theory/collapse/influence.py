"""Functions of uniform causal attention in closed form: Hausdorff matrices.

Uniform causal attention C has C_ij = 1/i for j <= i. With D_ik = (-1)^(k-1) binom(i-1, k-1), which
is its own inverse, C D = D diag(1, 1/2, ..., 1/N): the columns of D are eigenvectors of C for every
N. So a product of layers (s I + C) / (s + 1), which is f(C) with f(c) = prod_l (s_l + c) / (s_l +
1), is D diag(f(1/k)) D.
"""

import sympy

from theory.lemma import Proof, Statement

LARGEST = 5


def statement():
    return Statement(
        claim="influence of token j on token i after layers with skips s_l of uniform causal "
        "attention: binom(i-1, j-1) sum_m (-1)^m binom(i-j, m) f(1/(j+m)), f(c) = prod_l (s_l + "
        "c)/(s_l + 1); the own share of token i is f(1/i), the mean of j - 1 is (i - 1) f(1/2)",
        source="dynsim.measures.attention; the collapse onto token 1 is that of arXiv 2502.01951",
        hypotheses="uniform attention under the causal mask; s_l >= 0",
        latex=r"\Bigl[\prod_l\tfrac{s_lI+C}{s_l+1}\Bigr]_{ij}=\binom{i-1}{j-1}\sum_{m=0}^{i-j}"
        r"(-1)^m\binom{i-j}{m}f\bigl(\tfrac1{j+m}\bigr),\qquad f(c)=\prod_l\frac{s_l+c}{s_l+1}",
        how=f"proved for every N (eigenvectors, by induction); written out for N <= {LARGEST} and "
        "two layers of any skips",
    )


def closed(i, j, f):
    """The claim, for numbers i >= j."""
    return sympy.binomial(i - 1, j - 1) * sum(
        (-1) ** m * sympy.binomial(i - j, m) * f(sympy.Rational(1, j + m)) for m in range(i - j + 1)
    )


def check(closed=closed, mean=sympy.Rational(1, 2), eigenvalue=lambda k: 1 / k):
    proof = Proof()
    i, k = sympy.symbols("i k", positive=True, integer=True)
    claim = "row i of C D against row i - 1: i (C D)_ik - (i - 1) (C D)_(i-1, k) is D_ik"
    # with D_(i-1, k) / D_ik = (i - k) / (i - 1)
    before = sympy.binomial(i - 2, k - 1) / sympy.binomial(i - 1, k - 1)
    proof.equal(
        "binom(i-2, k-1) = binom(i-1, k-1) (i - k)/(i - 1)",
        sympy.gammasimp(before.rewrite(sympy.gamma)),
        (i - k) / (i - 1),
        shown=("binom(i-2, k-1)/binom(i-1, k-1)", (i - k) / (i - 1)),
    )
    step = i * eigenvalue(k) - (i - 1) * eigenvalue(k) * (i - k) / (i - 1)
    proof.equal(f"so, in units of D_ik: {claim}", step, 1, shown=(step, 1))
    proof.words("both sides are 0 for i < k, so by induction C D = D diag(1/k), for every N")
    s, r = sympy.symbols("s r", nonnegative=True)

    def f(c):
        return (s + c) / (s + 1) * (r + c) / (r + 1)

    for n in range(2, LARGEST + 1):
        C = sympy.Matrix(n, n, lambda a, b: sympy.Rational(1, a + 1) if b <= a else 0)
        D = sympy.Matrix(n, n, lambda a, b: (-1) ** b * sympy.binomial(a, b))
        proof.equal(f"N = {n}: D is its own inverse", D * D, sympy.eye(n), ("D*D", "I_N"))
        one = sympy.eye(n)
        product = (s * one + C) / (s + 1) * (r * one + C) / (r + 1)
        formula = sympy.Matrix(n, n, lambda a, b: closed(a + 1, b + 1, f) if b <= a else 0)
        shown = (sympy.Symbol("P_ij"), sympy.Symbol("F_ij"))
        proof.equal(f"N = {n}: two layers and the formula", product, formula, shown)
        last = product.row(n - 1)
        place = sum(b * last[b] for b in range(n))
        claim = f"N = {n}: the mean of j - 1"
        proof.equal(claim, place, (n - 1) * f(mean), shown=("mean", (n - 1) * f(mean)))
    x = sympy.Symbol("x", positive=True)
    claim = "f(1/2) of one layer is 1 - (1/2) / (s + 1): its product goes to 0 unless the sum of"
    claim += " 1 / (s_l + 1) is finite"
    half = (s + sympy.Rational(1, 2)) / (s + 1)
    proof.equal(claim, half, 1 - sympy.Rational(1, 2) / (s + 1))
    claim = "f(1/k) with c = 1/k are moments of a product of uniform numbers: E x^(k-1) = 1/k"
    power = sympy.integrate(x ** (k - 1), (x, 0, 1))
    proof.equal(claim, power, 1 / k, shown=("E(x^(k-1))", 1 / k))
    return proof


WRONG = {
    "moments one later": {
        "closed": lambda i, j, f: closed(i, j, lambda c: f(1 / (1 / c + 1))),
    },
    "the mean by f(1/3)": {"mean": sympy.Rational(1, 3)},
    "eigenvalues 1/(k + 1)": {"eigenvalue": lambda k: 1 / (k + 1)},
}
