"""On a common sphere every distinct key wins: for the query that equals it.

||k_i - k_j||^2 = ||k_i||^2 + ||k_j||^2 - 2 k_i.k_j, so with equal lengths k_i.k_i - k_i.k_j is half
of it. With gains the keys lie on an ellipsoid about b; the same holds in its inner product, q =
G^-2 (k_i - b).
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import i, over, x


def statement():
    return Statement(
        claim="keys of equal length: q = k_i gives q.k_i - q.k_j = ||k_i - k_j||^2 / 2 > 0 for "
        "k_j not k_i; so after LayerNorm with eps = 0 (gains not 0) every distinct key is "
        "selectable",
        source="BRODY, arXiv 2305.02582, scaling; gains and bias are dynsim's",
        hypotheses="any d and number of keys",
        latex=r"\lVert k_i\rVert=\lVert k_j\rVert:\quad k_i\cdot k_i-k_i\cdot k_j=\tfrac12\lVert "
        r"k_i-k_j\rVert^2>0\quad(k_j\ne k_i);\qquad\text{every distinct key is selectable after "
        r"LN},\ \varepsilon=0",
        how="proved for every d; with gains written out for d = 3",
    )


def check(half=sympy.Rational(1, 2)):
    proof = Proof()
    inner, square = sympy.symbols("c q", real=True)  # k_i.k_j and ||k_i||^2 = ||k_j||^2
    y = sympy.IndexedBase("y", real=True)
    moments = {(2, 0): square, (0, 2): square, (1, 1): inner}
    distance = over(i, (x[i] - y[i]) ** 2, moments, (x, y))
    proof.equal(
        "with k_i.k_j = c and ||k_i||^2 = ||k_j||^2 = q",
        square - inner,
        half * distance,
        shown=("q - c", f"{half}*sum_i((x_i - y_i)^2)"),
    )
    g = sympy.symbols("g_1:4", positive=True)
    b, u, v = (sympy.Matrix(sympy.symbols(f"{name}_1:4", real=True)) for name in "buv")
    G = sympy.diag(*g)
    key, other = G * u + b, G * v + b  # LN with eps = 0: ||u|| = ||v|| = sqrt(d)
    query = G**-2 * (key - b)
    won = query.dot(key - other)
    difference = half * ((u - v).dot(u - v) + u.dot(u) - v.dot(v))
    proof.equal(
        "with gains and bias, and then ||u|| = ||v||",
        won,
        difference,
        shown=("q*(k_1 - k_2)", f"{half}*(norm(u - v)^2 + norm(u)^2 - norm(v)^2)"),
    )
    return proof


WRONG = {"the whole square": {"half": 1}}
