"""'LayerNorm is idempotent' is false with a gain, even at eps = 0.

A gain moves the mean away from 0, and centring again removes part of the result. For d = 1
LayerNorm is 0, and for d = 2 the images are +-(g_1, -g_2), which positive gains keep; so d = 3 is
the smallest.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'LN(LN(a)) = LN(a) at eps = 0' is false with a gain: d = 3, g = (1, 1, 2), a = (1, "
        "0, -1)",
        source="dynsim; a reading of GUPTA, arXiv 2409.12951",
        hypotheses="bias 0, eps = 0",
        latex=r"g=(1,1,2),\ a=(1,0,-1):\quad\operatorname{LN}(\operatorname{LN}(a))\ne"
        r"\operatorname{LN}(a)\quad(\varepsilon=0)",
        how="counterexample found, exact",
    )


def check(gain=(1, 1, 2)):
    proof = Proof()
    a = sympy.Matrix([1, 0, -1])
    once = _layernorm(a, gain)
    twice = _layernorm(once, gain)
    form = sympy.sqrt(sympy.Rational(3, 2)) * sympy.Matrix([gain[0], 0, -gain[2]])
    proof.equal("once", once, form, shown=("LN(a)", form))
    proof.true(
        f"twice is another vector, {list(twice)}", sympy.simplify(twice - once) != sympy.zeros(3, 1)
    )
    g = sympy.symbols("g_1 g_2", positive=True)
    image = sympy.Matrix([g[0], -g[1]])
    proof.equal(
        "d = 2: an image is mapped to itself", _layernorm(image, g), image, shown=("LN(y)", image)
    )
    return proof


def _layernorm(a, gain):
    d = a.rows
    z = a - sympy.ones(d, 1) * sum(a) / d
    return (sympy.diag(*gain) * z * sympy.sqrt(d / z.dot(z))).applyfunc(sympy.simplify)


WRONG = {"without gain": {"gain": (1, 1, 1)}}
