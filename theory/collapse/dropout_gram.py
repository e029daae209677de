"""Dropout leaves the expected inner products of different tokens alone and divides the others.

Y = D * (Z W) with D_ia independent, 0 with probability p and 1 / (1 - p) otherwise, W independent
of D with entries of mean 0 and variance s^2 / d, uncorrelated. Z = A X is given. The expectation of
a polynomial in D and W is found term by term, from the moments alone.
"""

import itertools

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="given the tokens, E[Y Y^T] / d = s^2 (A G A^T), diagonal divided by 1 - p, for the "
        "output Y = dropout(A X W) and G = X X^T / d; dropout with probability a of the entries of "
        "A adds a / (1 - a) sum_j A_ij^2 G_jj to the diagonal before",
        source="dynsim.gram",
        hypotheses="entries of W uncorrelated, of mean 0 and variance s^2 / d; dropped entries "
        "independent of each other and of W; expectation over W and what is dropped",
        latex=r"\tfrac1d\,\mathbf{E}[Y Y^{\top}]_{ij}=s^2\,(A G A^{\top})_{ij}\,"
        r"\bigl(1+\tfrac{p}{1-p}\,\delta_{ij}\bigr)",
        how="proved for N = d = 2, symbolic tokens, A, p and a; every entry is such a sum",
    )


def _expectation(polynomial, second, first):
    """E of a polynomial: each symbol of `second` has E x^2 given, of `first` E x; powers <= 2."""
    symbols = [*second]
    total = 0
    for powers, coefficient in sympy.Poly(polynomial, *symbols).terms():
        if max(powers) > 2:
            raise ValueError("moments beyond the second are not known")
        for symbol, power in zip(symbols, powers, strict=True):
            coefficient *= (1, first[symbol], second[symbol])[power]
        total += coefficient
    return total


def check(kept=lambda p: 1 / (1 - p), squares=lambda A, i, j: A[i, j] ** 2):
    proof = Proof()
    p, a, s = sympy.symbols("p a s", positive=True)
    n = d = 2
    pairs = list(itertools.product(range(n), range(d)))
    X, W, D, A, E = (
        sympy.Matrix(2, 2, lambda i, j, name=name: sympy.Symbol(f"{name}_{i + 1}{j + 1}"))
        for name in "XWDAE"
    )
    G = X * X.T / d
    proof.words("an entry kept with probability 1 - p as 1 / (1 - p) has E D = 1, E D^2 = 1/(1-p)")
    claim = "its variance E D^2 - (E D)^2"
    proof.equal(claim, (1 - p) * (1 / (1 - p)) ** 2 - 1, p / (1 - p))
    first = {W[i, j]: 0 for i, j in pairs} | {D[i, j]: 1 for i, j in pairs}
    second = {W[i, j]: s**2 / d for i, j in pairs} | {D[i, j]: 1 / (1 - p) for i, j in pairs}
    Y = sympy.hadamard_product(D, A * X * W)
    K = s**2 * A * G * A.T
    g = sympy.Matrix(2, 2, sympy.symbols("G_11 G_12 G_12 G_22"))
    shown = s**2 * A * g * A.T
    for i, j in ((0, 0), (0, 1), (1, 1)):
        found = _expectation(sympy.expand((Y * Y.T)[i, j] / d), second, first)
        more = kept(p) if i == j else 1
        name = sympy.Symbol(f"K_{i + 1}{j + 1}")
        claim = f"E[Y Y^T]_{i + 1}{j + 1} / d, in the entries of G = X X^T / d"
        proof.equal(claim, found, K[i, j] * more, shown=(name, shown[i, j] * more))
    first = {E[i, j]: 1 for i, j in pairs}
    second = {E[i, j]: 1 / (1 - a) for i, j in pairs}
    dropped = sympy.hadamard_product(E, A)
    for i, j in ((0, 0), (0, 1), (1, 1)):
        found = _expectation(sympy.expand((dropped * G * dropped.T)[i, j]), second, first)
        gram, brief = (
            (A * one * A.T)[i, j]
            + (a / (1 - a) * sum(squares(A, i, k) * one[k, k] for k in range(n)) if i == j else 0)
            for one in (G, g)
        )
        name = sympy.Symbol(f"H_{i + 1}{j + 1}")
        claim = f"attention dropout, H = E[A G A^T], entry {i + 1}{j + 1}"
        proof.equal(claim, found, gram, shown=(name, brief))
    return proof


WRONG = {
    "the diagonal unchanged": {"kept": lambda p: 1},
    "multiplied by 1 - p": {"kept": lambda p: 1 - p},
    "attention weights not squared": {"squares": lambda A, i, j: A[i, j]},
}
