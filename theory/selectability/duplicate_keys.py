"""A key that occurs twice is never selected: both are in the hull of the others.

The margin between the two copies is q . 0. This is why every claim speaks of distinct keys.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'on a sphere every key is selectable' is false for equal keys: q.(k_i - k_j) = 0 "
        "for every q",
        source="a reading of BRODY, arXiv 2305.02582, scaling (keys must be distinct)",
        hypotheses="two equal keys, the fewest possible; tokens a and 2a + 1 give them after "
        "LayerNorm",
        latex=r"k_i=k_j\ \Rightarrow\ q\cdot(k_i-k_j)=0",
        how="counterexample found, for every q (d = 3)",
    )


def check(second=(3, 5, 11)):
    proof = Proof()
    a, b = sympy.Matrix([1, 2, 5]), sympy.Matrix(second)
    q = sympy.Matrix(sympy.symbols("q_1:4", real=True))
    proof.true("the tokens differ", a != b)
    keys = [_layernorm(token) for token in (a, b)]
    proof.equal(
        "q.(k_1 - k_2) after LayerNorm, eps = 0",
        q.dot(keys[0] - keys[1]),
        0,
        shown=("q*(LN(a) - LN(b))", "0"),
    )
    return proof


def _layernorm(a):
    z = a - sympy.ones(3, 1) * sum(a) / 3
    return z * sympy.sqrt(3 / z.dot(z))


WRONG = {"any two tokens": {"second": (3, 5, 10)}}
