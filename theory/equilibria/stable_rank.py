"""The full-rank equilibria of Theorem 3 are nearly rank one for large w (WU, App. F.2).

All tokens have length 1, so ||X||_F^2 = N, and ||X||_2 is at least the length of X e_N, the last
column: 1 and N - 1 entries +-sqrt(1 - 1/w^2).
"""

import sympy

from theory.equilibria.jordan import family, modulo_roots, w
from theory.lemma import Proof, Statement

LARGEST = 6


def statement():
    return Statement(
        claim="full-rank equilibria of Theorem 3: stable rank <= N / (N - (N - 1) / w^2) -> 1",
        source="WU, arXiv 2405.18781, App. F.2",
        hypotheses="as for jordan-family, k = N, w > 1; all signs",
        latex=r"\frac{\lVert X\rVert_F^2}{\lVert X\rVert_2^2}\le\frac{N}{N-(N-1)/w^2}\to1\quad(w\to"
        r"\infty)",
        how=f"proved for every N; the last column written out for N <= {LARGEST}",
    )


def check(column=lambda n: n - (n - 1) / w**2):
    proof = Proof()
    N = sympy.Symbol("N", positive=True, integer=True)
    proof.equal("||X e_N||^2 from its entries", 1 + (N - 1) * (1 - 1 / w**2), column(N))
    for n in range(2, LARGEST + 1):
        X = family(n, n)
        proof.equal(
            f"||X e_N||^2 for N = {n}",
            modulo_roots(sum(e**2 for e in X[:, -1])),
            column(n),
            shown=(f"1 + ({n} - 1)*(1 - 1/w^2)", column(n)),
        )
        proof.equal(
            f"||X||_F^2 for N = {n}",
            modulo_roots(sum(e**2 for e in X)),
            n,
            shown=("norm_F(X)^2", sympy.Integer(n)),
        )
    proof.equal(
        "the bound's limit",
        sympy.limit(N / column(N), w, sympy.oo),
        1,
        shown=("lim(N/(N - (N - 1)/w^2))", "1"),
    )
    return proof


WRONG = {
    "N / (N - N / w^2)": {"column": lambda n: n - n / w**2},
    "w in place of w^2": {"column": lambda n: n - (n - 1) / w},
}
