"""'LayerNorm is idempotent' is false with a gain, even at eps = 0.

d = 2 and a gain g scale the two possible images +-(1, -1) alike, up to entries; centring again removes
part of it. The smallest dimension in which LayerNorm is not constant zero is 2.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'LN(LN(a)) = LN(a) at eps = 0' is false with a gain: d = 3, g = (1, 1, 2), a = (1, 0, -1)",
        source="dynsim; a reading of GUPTA, arXiv 2409.12951",
        hypotheses="bias 0, eps = 0",
        latex=r"g=(1,1,2),\ a=(1,0,-1):\quad\operatorname{LN}(\operatorname{LN}(a))\ne\operatorname{LN}(a)",
        how="counterexample found, exact",
    )


def check(gain=(1, 1, 2)):
    proof = Proof()
    a = sympy.Matrix([1, 0, -1])
    once = _layernorm(a, gain)
    twice = _layernorm(once, gain)
    form = sympy.sqrt(sympy.Rational(3, 2)) * sympy.Matrix([gain[0], 0, -gain[2]])
    proof.equal("once", once, form)
    proof.true(f"twice is another vector, {list(twice)}", sympy.simplify(twice - once) != sympy.zeros(3, 1))
    return proof


def _layernorm(a, gain):
    z = a - sympy.ones(3, 1) * sum(a) / 3
    return (sympy.diag(*gain) * z * sympy.sqrt(3 / z.dot(z))).applyfunc(sympy.simplify)


WRONG = {"without gain": {"gain": (1, 1, 1)}}
