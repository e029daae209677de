"""The uniform walk of the causal mask is triangular, with 1/i at place i.

One more token adds a last row to the triangular matrix, and the factor lambda - 1/N to the
characteristic polynomial. By induction that is prod_i (lambda - 1/i), which is also a rising
factorial over a factorial; so the eigenvalues 1, 1/2, ..., 1/N are simple, and lambda_2 = 1/2.
"""

import sympy

from theory.graphs.small_masks import band, last_row_factor, walk
from theory.lemma import Proof, Statement

LARGEST = 8


def statement():
    return Statement(
        claim="causal mask: the uniform walk has eigenvalues 1, 1/2, ..., 1/N; lambda_2 = 1/2",
        source="WU, arXiv 2405.18781, section 3 (the mask); classical",
        hypotheses="N >= 2",
        latex=r"\det(\lambda I-P)=\prod_{i=1}^N\Bigl(\lambda-\frac1i\Bigr)=\frac{\lambda^N(1-1/"
        r"\lambda)_N}{N!},\qquad\lambda_2=\tfrac12",
        how=f"proved for every N by induction; written out for N <= {LARGEST}",
    )


def check(eigenvalue=lambda i: sympy.Integer(1) / i):
    proof = Proof()
    t = sympy.Symbol("lambda")
    N = sympy.Symbol("N", positive=True, integer=True)
    claim = "a last row adds the factor lambda - 1/N, whatever stands in it"
    proof.equal(
        claim,
        last_row_factor(t, 1 / N),
        t - eigenvalue(N),
        shown=("det(t*I - P_N)/det(t*I - P_M)", t - eigenvalue(N)),
    )
    proof.words("(x)_N = (x)_{N-1} (x + N - 1) and N! = N (N-1)!, with x = 1 - 1/lambda")
    claim = "so lambda^N (x)_N / N! grows by the same factor, for every N"
    proof.equal(claim, t * (1 - 1 / t + N - 1) / N, t - eigenvalue(N))
    for n in range(1, LARGEST + 1):
        found = walk(band(n, n, 0)).charpoly(t).as_expr()
        product = sympy.prod(t - eigenvalue(sympy.Integer(i)) for i in range(1, n + 1))
        proof.equal(
            f"written out for N = {n}: the product", found, product, shown=("det(t*I - P)", product)
        )
        closed = t**n * sympy.rf(1 - 1 / t, n) / sympy.factorial(n)
        proof.equal(
            f"and the closed form for N = {n}",
            found,
            closed,
            shown=("det(t*I - P)", f"t^{n}*rf(1 - 1/t, {n})/factorial({n})"),
        )
    return proof


WRONG = {
    "1 / (i + 1)": {"eigenvalue": lambda i: sympy.Integer(1) / (i + 1)},
    "1 / i^2": {"eigenvalue": lambda i: sympy.Integer(1) / i**2},
}
