"""The ellipsoid's principal axes, by RIECHERS's matrix and by a simpler one.

In the hyperplane y = Pi_2 y, so that the form is that of K = Pi_2 G^-2 Pi_2, and its semi-axes are
sqrt(d / lambda) for the eigenvalues lambda > 0 of K. K is the pseudo-inverse of H = G Pi G = G^2 -
g g^T / d: H alpha = 0, so Pi_2 H = H, and K H = Pi_2 G^-2 H = Pi_2 (I - alpha g^T / d) = Pi_2; both
are symmetric, so H K = (K H)^T = Pi_2 too. For H v = mu v with mu not 0, v is orthogonal to alpha
and v = Pi_2 v = K H v = mu K v: the same eigenvectors, reciprocal eigenvalues. H has no others
below 0, and only alpha's line at 0, since v^T H v = ||Pi G v||^2. So the semi-axes are also
sqrt(d mu), and H needs no inverse.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import N as d
from theory.sums import i, j, over

SIZES = (2, 3)


def statement():
    return Statement(
        claim="semi-axes sqrt(d / lambda), lambda > 0 eigenvalues of K = Pi_2 G^-2 Pi_2, along "
        "its eigenvectors; K is the pseudo-inverse of H = G Pi G = G^2 - g g^T/d, so they are "
        "sqrt(d mu), mu > 0 eigenvalues of H; d = 2: |g|; d = 3: t^2 - 2 |g|^2 t + 3 sum_{i<j} "
        "g_i^2 g_j^2 = 0 for their squares",
        source="RIECHERS, arXiv 2405.04134; the second matrix is dynsim's",
        hypotheses="all gains not 0; Pi_2 = I - alpha alpha^T / alpha.alpha, alpha = 1/g",
        latex=r"K=\Pi_2G^{-2}\Pi_2,\quad H=G\Pi G=G^2-\tfrac1dgg^{\top},\quad KH=HK=\Pi_2:\quad"
        r"\text{semi-axes }\sqrt{d/\lambda_k(K)}=\sqrt{d\,\mu_k(H)};\quad d=2:\ |g|;\quad d=3:\ "
        r"t^2-2|g|^2t+3\sum_{i<j}g_i^2g_j^2=0",
        how="proved for every d, entry by entry; K H and H K written out for d = 2, 3",
    )


def check(share=lambda d: sympy.Integer(1) / d):
    proof = Proof()
    gain, v = (sympy.IndexedBase(name, real=True, nonzero=True) for name in "gv")
    on = gain[i] ** 2 - share(d) * gain[i] ** 2  # of H
    proof.equal("(G Pi G)_ii", gain[i] * (1 - 1 / d) * gain[i], on)
    proof.equal(
        "(G Pi G)_ij",
        -gain[i] * gain[j] / d,
        -share(d) * gain[i] * gain[j],
        shown=("g_i*(-1/d)*g_j", "-g_i*g_j/d"),
    )
    claim = (
        "(H alpha)_i = g_i^2 alpha_i - sum_j g_i g_j alpha_j / d, of which every term is g_i / d"
    )
    proof.equal(claim, gain[i] - gain[i] * share(d) * d, 0, ("g_i - d*g_i/d", "0"))
    claim = "(Pi_2 alpha)_i = alpha_i - alpha_i (alpha.alpha) / alpha.alpha"
    square, alpha_i = sympy.symbols("alpha_2 alpha_i", positive=True)
    shown = "alpha_i - alpha_i*alpha_2/alpha_2", "0"
    proof.equal(claim, alpha_i - alpha_i * square / square, 0, shown)
    proof.equal("(G^-2 H)_ii = 1 - alpha_i g_i / d", on / gain[i] ** 2, 1 - 1 / d)
    off = -share(d) * gain[i] * gain[j] / gain[i] ** 2
    proof.equal(
        "(G^-2 H)_ij = -alpha_i g_j / d",
        off,
        -gain[j] / gain[i] / d,
        shown=("(-g_i*g_j/d)/g_i^2", "-(g_j/g_i)/d"),
    )
    proof.words(
        "so K H = Pi_2 G^-2 H = Pi_2 - (Pi_2 alpha) g^T / d = Pi_2, and H K is its transpose"
    )
    proof.words("H v = mu v: v = Pi_2 v = K H v = mu K v. Eigenvectors are shared, lambda = 1 / mu")
    first, second = sympy.symbols("m_1 m_2", real=True)  # sums of g v and of its squares
    moments = {(0,): d, (1,): first, (2,): second}
    spread = over(i, (v[i] - first / d) ** 2, moments, (v,))
    claim = "v^T H v = ||Pi G v||^2 >= 0, with m_1 = sum g_i v_i, m_2 = sum (g_i v_i)^2"
    shown = "m_2 - m_1^2/d", "sum_i(g_i*v_i - m_1/d)^2"
    proof.equal(claim, second - share(d) * first**2, spread, shown)
    proof.words("it is 0 only where all g_i v_i are equal, on alpha's line: all others are > 0")
    for size in SIZES:
        _written_out(proof, size, share)
    _few_coordinates(proof, share)
    return proof


def _written_out(proof, size, share):
    g = sympy.symbols(f"g_1:{size + 1}", positive=True)
    G, row = sympy.diag(*g), sympy.Matrix([g])
    alpha = sympy.Matrix([1 / value for value in g])
    Pi_2 = sympy.eye(size) - alpha * alpha.T / alpha.dot(alpha)
    H = G**2 - share(size) * row.T * row
    K = Pi_2 * G**-2 * Pi_2
    proof.equal(f"d = {size}, symbolic gains", K * H, Pi_2, ("K*H", "Pi_2"))
    proof.equal(f"d = {size}, symbolic gains", H * K, Pi_2, ("H*K", "Pi_2"))


def _few_coordinates(proof, share):
    g = sympy.symbols("g_1:4", positive=True)
    axis = sympy.Matrix([g[0], -g[1]])
    direction = sympy.Matrix([1 / g[0], 1 / g[1]])
    shown = "g_1*(1/g_1) - g_2*(1/g_2)", "0"
    proof.equal("d = 2: (g_1, -g_2) is orthogonal to alpha", axis.dot(direction), 0, shown)
    form = (axis.T * sympy.diag(g[0], g[1]) ** -2 * axis)[0]
    shown = "(g_1/g_1)^2 + (-g_2/g_2)^2", "2"
    proof.equal("and of length |g|, on the surface, whose form is d", form, 2, shown)
    H = sympy.diag(*g) ** 2 - share(3) * sympy.Matrix(g) * sympy.Matrix(g).T
    squares = [value**2 for value in g]
    pairs = squares[0] * squares[1] + squares[0] * squares[2] + squares[1] * squares[2]
    t = sympy.Symbol("t")
    quadratic = t**2 - 2 * sum(squares) * t + 3 * pairs
    claim = "d = 3: squared semi-axes t = 3 mu solve the quadratic, times t for alpha"
    shown = "det(t*I_3 - 3*H)", t * quadratic
    proof.equal(claim, (3 * H).charpoly(t).as_expr(), t * quadratic, shown)


WRONG = {
    "G^2 - g g^T": {"share": lambda d: 1},
    "g g^T / (d + 1)": {"share": lambda d: sympy.Integer(1) / (d + 1)},
}
