"""'LayerNorm preserves affine rank exactly' is false: it can grow and it can fall.

Three collinear tokens in dimension 3 go to three points of a circle, which are never collinear. Two
tokens have affine rank at most 1 before and after, and for d = 2 all images are on a line, so N = d
= 3 is the smallest example. It falls as well: a and 2 a become one token. What is kept is the
linear rank of the centred tokens, rank(Pi X), since rows are only scaled.

Who says it: arXiv 2604.23681 is reported to claim that LayerNorm preserves affine rank exactly. Its
text was not at hand, so its definition of affine rank was not checked; what is refuted here is the
reading with the dimension of the affine hull.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'LayerNorm preserves affine rank' is false: 3 collinear tokens, d = 3, go from "
        "affine rank 1 to 2 (4 tokens likewise), and a, 2a from 1 to 0; rank(Pi X) is kept",
        source="a reading of arXiv 2604.23681, whose own definition was not checked; dynsim's "
        "example",
        hypotheses="gain 1, bias 0, eps = 0; affine rank is the dimension of the affine hull",
        latex=r"(1,-1,0),\ (1,0,-1),\ (1,1,-2)\ \text{are collinear; their images are not};"
        r"\quad a,\ 2a\ \text{have one image};\quad\operatorname{rank}\Pi X\ \text{is kept}",
        how="counterexample found, exact and of least N and d",
    )


def check(tokens=((1, -1, 0), (1, 0, -1), (1, 1, -2)), before=1, after=2):
    proof = Proof()
    X = sympy.Matrix(tokens)
    Y = _layernorm(X)
    four, twice = sympy.Matrix([*tokens, [1, 2, -3]]), sympy.Matrix([[1, 0, -1], [2, 0, -2]])
    cases = (
        ("three tokens", X, before, after),
        ("four", four, before, after),
        ("a, 2 a", twice, 1, 0),
    )
    for name, rows, old, new in cases:
        proof.equal(f"{name}: affine rank before", _affine_rank(rows), old, ("dim(aff(X))", old))
        found = _affine_rank(_layernorm(rows))
        proof.equal(f"{name}: affine rank after", found, new, ("dim(aff(LN(X)))", new))
    centred = X - X * sympy.ones(3, 3) / 3
    shown = "rank(X*Pi)", "rank(LN(X))"
    proof.equal(
        "the rank of the centred tokens is kept", centred.rank(), Y.rank(simplify=True), shown
    )
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
