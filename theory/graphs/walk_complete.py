"""The uniform walk of the complete mask averages at once: its square is itself, its trace is 1."""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="complete mask: the uniform walk has eigenvalues 1 (once) and 0, so lambda_2 = 0",
        source="WU, arXiv 2405.18781, section 3 (the mask); classical",
        hypotheses="any N >= 1; the walk is 1 1^T / N",
        latex=r"P=\tfrac1N\mathbf1\mathbf1^{\top},\quad P^2=P,\quad \operatorname{tr}P=1:\quad"
        r"\text{eigenvalues 1 (once) and 0},\ \lambda_2=0",
        how="proved for every N",
    )


def check(entry=lambda N: 1 / N):
    proof = Proof()
    N = sympy.Symbol("N", positive=True, integer=True)
    k = sympy.Symbol("k", positive=True, integer=True)
    square = sympy.summation(entry(N) * entry(N), (k, 1, N))
    proof.equal(
        "every entry of P^2 is that of P, so eigenvalues are 0 or 1",
        square,
        entry(N),
        shown=("sum_k((1/N)*(1/N))", entry(N)),
    )
    proof.equal(
        "and the trace counts the ones",
        sympy.summation(entry(N), (k, 1, N)),
        1,
        shown=("sum_k(1/N)", "1"),
    )
    return proof


WRONG = {"entries 1 / (N - 1)": {"entry": lambda N: 1 / (N - 1)}}
