"""The ellipsoid's principal axes, by RIECHERS's matrix and by a simpler one.

In the hyperplane y = Pi_2 y, so that the form is that of K = Pi_2 G^-2 Pi_2, and its semi-axes are
sqrt(d / lambda) for the eigenvalues lambda > 0 of K. K is the pseudo-inverse of H = G Pi G = G^2 -
g g^T / d: both live on the hyperplane orthogonal to alpha, and K H = Pi_2. So the semi-axes are
also sqrt(d mu) for the eigenvalues mu > 0 of H, with the same eigenvectors, and H needs no inverse.
"""

import sympy

from theory.lemma import Proof, Statement

GAINS = ((1, 2), (2, -3, 5), (1, 1, 4, 2), (3, -1, 2, 5, 7), (1, 2, 3, 4, 5, 6))


def statement():
    return Statement(
        claim="semi-axes sqrt(d / lambda), lambda > 0 eigenvalues of K = Pi_2 G^-2 Pi_2, along "
        "its eigenvectors; K is the pseudo-inverse of H = G Pi G = G^2 - g g^T/d; d = 2: |g|; d = "
        "3: t^2 - 2 |g|^2 t + 3 sum_{i<j} g_i^2 g_j^2 = 0 for their squares",
        source="RIECHERS, arXiv 2405.04134; the second matrix is dynsim's",
        hypotheses="all gains not 0; Pi_2 = I - alpha alpha^T / alpha.alpha, alpha = 1/g",
        latex=r"K=\Pi_2G^{-2}\Pi_2,\quad H=G\Pi G,\quad KH=HK=\Pi_2",
        how="proved for d <= 3, symbolic gains; for d <= 6 at one rational gain each",
    )


def check(share=lambda d: sympy.Integer(1) / d):
    proof = Proof()
    t = sympy.Symbol("t")
    g = sympy.symbols("g_1:4", positive=True)
    for gains in (g[:2], g, *GAINS):
        d = len(gains)
        G, row = sympy.diag(*gains), sympy.Matrix([gains])
        alpha = sympy.Matrix([sympy.Integer(1) / value for value in gains])
        Pi_2 = sympy.eye(d) - alpha * alpha.T / alpha.dot(alpha)
        H = G**2 - share(d) * row.T * row
        name = f"gains {gains}:"
        Pi = sympy.eye(d) - sympy.ones(d, d) / d
        proof.equal(f"{name} G Pi G = G^2 - g g^T/d", G * Pi * G, H)
        proof.equal(f"{name} H alpha = 0, so Pi_2 H = H", H * alpha, sympy.zeros(d, 1))
        without_inverse = G**-2 * H
        proof.equal(
            f"{name} G^-2 H = I - alpha g^T/d", without_inverse, sympy.eye(d) - alpha * row / d
        )
        claim = f"{name} Pi_2 alpha = 0, so K H = Pi_2 (I - alpha g^T/d) = Pi_2"
        proof.equal(claim, Pi_2 * alpha, sympy.zeros(d, 1))
        if set(gains) <= set(g):
            continue
        K = Pi_2 * G**-2 * Pi_2
        of_K, of_H = (
            sympy.Poly(matrix.charpoly(t).as_expr(), t).quo(sympy.Poly(t, t)) for matrix in (K, H)
        )
        claim = (
            f"{name} non-zero eigenvalues of K and H are reciprocal, by characteristic polynomials"
        )
        mirrored = sympy.Poly(of_H.all_coeffs()[::-1], t)
        proof.equal(claim, of_K.as_expr() * of_H.eval(0), mirrored.as_expr())
        claim = f"{name} all are > 0: coefficients of alternating sign, real as K is symmetric"
        signs = [
            coefficient * (-1) ** power > 0 for power, coefficient in enumerate(of_K.all_coeffs())
        ]
        proof.true(claim, all(signs))
    axis = sympy.Matrix([g[0], -g[1]])
    direction = sympy.Matrix([sympy.Integer(1) / g[0], 1 / g[1]])
    proof.equal("d = 2: the direction is orthogonal to alpha", axis.dot(direction), 0)
    form = (axis.T * sympy.diag(g[0], g[1]) ** -2 * axis)[0]
    proof.equal("and (g_1, -g_2), of length |g|, is on the surface", form, 2)
    H = sympy.diag(*g) ** 2 - share(3) * sympy.Matrix(g) * sympy.Matrix(g).T
    squares = [value**2 for value in g]
    pairs = squares[0] * squares[1] + squares[0] * squares[2] + squares[1] * squares[2]
    quadratic = t**2 - 2 * sum(squares) * t + 3 * pairs
    proof.equal(
        "d = 3: squared semi-axes t = 3 mu solve", (3 * H).charpoly(t).as_expr(), t * quadratic
    )
    return proof


WRONG = {
    "G^2 - g g^T": {"share": lambda d: 1},
    "g g^T / (d + 1)": {"share": lambda d: sympy.Rational(1, d + 1)},
}
