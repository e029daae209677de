"""'After LayerNorm every distinct key is selectable' is false for eps > 0: lengths differ.

d = 2: tokens (a, -a) have variance a^2 and go to a / sqrt(a^2 + eps) (1, -1), so three of different
a lie on a line, the middle one in the hull of the others. For d = 1 all keys are equal, and of two
distinct keys neither is in the hull of the other: d = 2 and three keys are least.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'after LayerNorm every distinct key is selectable' is false for eps > 0: d = 2, "
        "tokens (a, -a), a = 0, 1, 2: the middle key is between the others",
        source="a reading of BRODY, arXiv 2305.02582, scaling (exact at eps = 0)",
        hypotheses="gain 1, bias 0, any eps > 0",
        latex=r"k_a=\frac{a}{\sqrt{a^2+\varepsilon}}(1,-1),\ a=0,1,2:\quad "
        r"k_1\in\operatorname{conv}\{k_0,k_2\}",
        how="counterexample found, for every eps > 0, of least d and number",
    )


def check(tokens=(0, 1, 2), power=1):
    proof = Proof()
    eps = sympy.Symbol("epsilon", positive=True)
    low, middle, high = (_layernorm(sympy.Matrix([a, -a]), power * eps) for a in tokens)
    share = middle[0] / high[0]
    proof.equal(
        "the middle key is a combination",
        middle,
        share * high + (1 - share) * low,
        shown=("k_1", "s*k_2 + (1 - s)*k_0"),
    )
    proof.less("with a share below 1, squared", share**2, 1)
    return proof


def _layernorm(a, eps):
    z = a - sympy.ones(2, 1) * sum(a) / 2
    return z / sympy.sqrt(z.dot(z) / 2 + eps)


WRONG = {"at eps = 0": {"power": 0}, "the largest is in the middle": {"tokens": (0, 2, 1)}}
