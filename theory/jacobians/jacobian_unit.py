"""The derivative of unit norm: projection to the tangent space, over the length.

x -> x / ||x|| does not change with scale, so x itself is a null direction (Euler's identity for
homogeneous functions of degree 0), and the Jacobian is symmetric.
"""

import sympy

from theory.lemma import Proof, Statement

SIZES = (2, 3, 4)


def statement():
    return Statement(
        claim="d (x/||x||) = (I - u u^T) dx / ||x||, u = x/||x||: symmetric, with null direction x",
        source="WU, arXiv 2405.18781, section 3 (its LayerNorm)",
        hypotheses="x not 0",
        latex=r"\frac{\partial}{\partial x}\frac{x}{\lVert x\rVert}=\frac1{\lVert x\rVert}\Bigl(I-"
        r"\frac{xx^{\top}}{\lVert x\rVert^2}\Bigr)=J,\qquad J=J^{\top},\quad Jx=0",
        how=f"proved for d <= {SIZES[-1]}",
    )


def check(power=1):
    proof = Proof()
    n = sympy.Symbol("n", positive=True)  # ||x||
    for d in SIZES:
        x = sympy.Matrix(sympy.symbols(f"x_1:{d + 1}", real=True))
        square = x.dot(x)
        found = (x / sympy.sqrt(square)).jacobian(x)
        stated = (sympy.eye(d) - x * x.T / square) / sympy.sqrt(square) ** power
        by_length = {sympy.sqrt(square): n}
        claim = f"d = {d}: against diff"
        proof.equal(
            claim,
            found.subs(by_length),
            stated.subs(by_length),
            shown=("d(x/n)/dx", "(I - x*x^T/n^2)/n"),
        )
        proof.equal("symmetric", found, found.T, shown=("J", "J^T"))
        proof.equal("x is a null direction", found * x, sympy.zeros(d, 1), shown=("J*x", "0"))
    return proof


WRONG = {"over ||x||^2": {"power": 2}, "without the length": {"power": 0}}
