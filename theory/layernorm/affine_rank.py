"""'LayerNorm preserves affine rank exactly' is false: it can grow and it can fall.

Three collinear tokens in dimension 3 go to three points of a circle, which are never collinear. Two
tokens have affine rank at most 1 before and after, and for d = 2 all images are on a line, so N = d
= 3 is the smallest example. It falls as well: a and 2 a become one token. What is kept is the
linear rank of the centred tokens, rank(Pi X), since rows are only scaled.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'LayerNorm preserves affine rank' is false: 3 collinear tokens, d = 3, go from "
        "affine rank 1 to 2 (4 tokens likewise), and a, 2a from 1 to 0; rank(Pi X) is kept",
        source="a claim found in the literature on LayerNorm's expressivity; dynsim's example",
        hypotheses="gain 1, bias 0, eps = 0",
        latex=r"(1,-1,0),\ (1,0,-1),\ (1,1,-2)\ \text{are collinear; their images are not}",
        how="counterexample found, exact and of least N and d",
    )


def check(tokens=((1, -1, 0), (1, 0, -1), (1, 1, -2)), before=1, after=2):
    proof = Proof()
    X = sympy.Matrix(tokens)
    Y = _layernorm(X)
    proof.true(f"affine rank before: {before}", _affine_rank(X) == before)
    proof.true(f"affine rank after: {after}", _affine_rank(Y) == after)
    four = sympy.Matrix([*tokens, [1, 2, -3]])
    proof.true(
        "four collinear tokens likewise",
        (_affine_rank(four), _affine_rank(_layernorm(four))) == (before, after),
    )
    twice = sympy.Matrix([[1, 0, -1], [2, 0, -2]])
    proof.true(
        "a and 2 a: from 1 to 0", (_affine_rank(twice), _affine_rank(_layernorm(twice))) == (1, 0)
    )
    centred = X - X * sympy.ones(3, 3) / 3
    proof.true("the rank of Pi X is kept", centred.rank() == Y.rank(simplify=True))
    return proof


def _layernorm(X):
    Z = X - X * sympy.ones(3, 3) / 3
    scales = [sympy.sqrt(3 / Z.row(i).dot(Z.row(i))) for i in range(Z.rows)]
    return sympy.diag(*scales) * Z


def _affine_rank(X):
    differences = sympy.Matrix([X.row(i) - X.row(0) for i in range(1, X.rows)])
    return differences.rank(simplify=True)


WRONG = {
    "affine rank is preserved": {"after": 1},
    "the tokens are in general position": {"before": 2},
}
