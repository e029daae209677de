"""The uniform walk of the uni-directional window: the last eigenvalue is defective.

Token i attends to the min(i, w + 1) tokens up to itself, so the walk is triangular with 1, 1/2,
..., 1/w and then 1/(w + 1) on the diagonal N - w times. Let (P - I/(w + 1)) v = 0. Rows 1..w,
triangular with non-zero diagonals 1/i - 1/(w + 1), give v_1 = ... = v_w = 0. Row w + 1 is then
empty, and row i > w + 1 reads v_{i-w} + ... + v_{i-1} = 0, which gives v_{i-1} = 0 one after the
other. Only v_N is free: one Jordan block holds this eigenvalue N - w times.
"""

import sympy

from theory.graphs.small_masks import band, last_row_factor, walk
from theory.lemma import Proof, Statement

LARGEST = 7


def statement():
    return Statement(
        claim="uni-directional window w: eigenvalues 1, 1/2, ..., 1/w once, and 1/(w + 1) in one "
        "Jordan block of size N - w; so lambda_2 = 1/2",
        source="dynsim; WU, arXiv 2405.18781, section 3 (the mask)",
        hypotheses="1 <= w <= N - 1; the general argument is in the file's head",
        latex=r"\det(\lambda I-P)=\Bigl(\lambda-\frac1{w+1}\Bigr)^{N-w}\prod_{i=1}^w\Bigl(\lambda-"
        r"\frac1i\Bigr),\quad\tfrac1{w+1}\text{ in one Jordan block},\ \lambda_2=\tfrac12",
        how=f"proved for every N and w (eigenvalues, by induction), N <= {LARGEST} (Jordan block)",
    )


def check(block=lambda n, w: n - w):
    proof = Proof()
    t = sympy.Symbol("lambda")
    w, i = sympy.symbols("w i", positive=True, integer=True)
    gap = sympy.factor(1 / i - 1 / (w + 1))
    proof.equal(
        "the first w eigenvalues differ from the last",
        gap,
        (w + 1 - i) / (i * (w + 1)),
        shown=("1/i - 1/(w + 1)", (w + 1 - i) / (i * (w + 1))),
    )
    last = 1 / (w + 1)
    claim = "each token after the first w adds the factor lambda - 1/(w + 1), so N - w of them"
    proof.equal(
        claim, last_row_factor(t, last), t - last, shown=("det(t*I - P_N)/det(t*I - P_M)", t - last)
    )
    for n in range(2, LARGEST + 1):
        for w in range(1, n):
            P, last = walk(band(n, w, 0)), sympy.Rational(1, w + 1)
            product = sympy.prod(t - sympy.Rational(1, i) for i in range(1, w + 1))
            claim = f"characteristic polynomial for N = {n}, w = {w}"
            proof.equal(
                claim,
                P.charpoly(t).as_expr(),
                product * (t - last) ** block(n, w),
                shown=("det(t*I - P)", product * (t - last) ** block(n, w)),
            )
            nilpotent = P - last * sympy.eye(n)
            claim = f"N = {n}, w = {w}: the null space of P - 1/(w + 1) is a line: one Jordan block"
            proof.equal(claim, nilpotent.rank(), n - 1, shown=("rank(P - last*I)", f"{n} - 1"))
    return proof


WRONG = {
    "once more": {"block": lambda n, w: n - w + 1},
    "once, as for the causal mask": {"block": lambda n, w: 1},
}
