"""Centring costs a rank: LayerNorm's output has rank at most d - 1, unit rows keep the rank.

Pi has the null vector 1, so LN(X) without bias, diag(scales) X Pi G, has rank at most d - 1: N = d
tokens of full rank never stay so. Unit norm multiplies X from the left by a positive diagonal
matrix.
"""

import sympy

from theory.lemma import Proof, Statement

SIZES = (2, 3, 4)


def statement():
    return Statement(
        claim="without bias rank LN(X) <= d - 1, so 'WU's full-rank equilibria exist for "
        "LayerNorm' is false for N = d; unit norm keeps the rank",
        source="a reading of WU, arXiv 2405.18781, Theorem 3 (whose LayerNorm does not centre)",
        hypotheses="any gain and eps, bias 0",
        latex=r"\operatorname{LN}(X)=DX\Pi G,\quad\det(DX\Pi G)=0\ (N=d),\quad\operatorname{rank}"
        r"\operatorname{LN}(X)\le d-1;\qquad\operatorname{rank}DX=\operatorname{rank}X",
        how=f"proved for N = d = {', '.join(map(str, SIZES))}",
    )


def check(centring=lambda d: sympy.eye(d) - sympy.ones(d, d) / d):
    proof = Proof()
    for d in SIZES:
        D = sympy.diag(*sympy.symbols(f"s_1:{d + 1}", positive=True))
        G = sympy.diag(*sympy.symbols(f"g_1:{d + 1}", real=True))
        claim = f"d = {d}: det(D X Pi G) = det D det X det Pi det G, and det Pi"
        proof.equal(claim, centring(d).det(), 0, shown=("det(Pi)", "0"))
        proof.equal(
            "whereas det(D X) / det X for unit rows, not 0",
            D.det(),
            sympy.prod(D.diagonal()),
            shown=("det(D*X)/det(X)", sympy.prod(D.diagonal())),
        )
        proof.equal(
            "also with gains: det(Pi G)", (centring(d) * G).det(), 0, shown=("det(Pi*G)", "0")
        )
    return proof


WRONG = {
    "a smaller share of the mean": {"centring": lambda d: sympy.eye(d) - sympy.ones(d, d) / (d + 1)}
}
