"""A query along 1/g gives every normalised key the same score: attention averages.

A key k = f g (a - mean) + b has k . (1/g) = f sum(a_i - mean) + b . (1/g), where the sum vanishes.
Without gain and bias this is BRODY's projection: a query along 1 scores all keys 0.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import S_1, i, over, x
from theory.sums import N as d


def statement():
    return Statement(
        claim="q = t/g: q . LN(a) = t b.(1/g) for every a, so all keys score equally; gain 1, "
        "bias 0: q = t 1 scores them all 0",
        source="BRODY, arXiv 2305.02582, projection",
        hypotheses="keys are LayerNorm's outputs, scores q . k; any d, gains not 0, bias and eps",
        latex=r"q=t\,\tfrac1g:\quad q\cdot\operatorname{LN}(a)=t\,b\cdot\tfrac1g\quad\text{for "
        r"every }a",
        how="proved for every d",
    )


def check(query=lambda g: 1 / g):
    proof = Proof()
    t, f, g = sympy.symbols("t f g_i", positive=True)  # f depends on the key alone
    term = sympy.expand(t * query(g) * f * g * (x[i] - S_1 / d))
    proof.equal(
        "term i of the score, less that of the bias",
        term,
        t * f * (x[i] - S_1 / d),
        shown=("t*(1/g_i)*f*g_i*(x_i - S_1/d)", "t*f*(x_i - S_1/d)"),
    )
    proof.equal(
        "summed over i",
        over(i, t * f * (x[i] - S_1 / d)),
        0,
        shown=("sum_i(t*f*(x_i - S_1/d))", "0"),
    )
    return proof


WRONG = {"q along g": {"query": lambda g: g}}
