"""WU's Theorem 2 with every constant, from the first layer and without strong connection.

Rows that are linearly independent lie on one plane <v, x> = h, v = X^+ 1 / ||X^+ 1||: the pole of a
hemisphere, whose chart p_i = x_i / <v, x_i> moves by averages (lemma `hemisphere`). The weights of
one layer are A_ij h_j / (n_i h'_i), n_i <= 1 the length that LayerNorm divides by, so over r layers
the heights cancel along every path but for the first and the last.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="<v, x_i> = h = 1 / ||X^+ 1|| for v = h X^+ 1; r layers have entries >= eps^r h_j(t) "
        "/ h_i(t+r) >= eps^r max(h, 1 - E_t) at K centers within r of every token; so E_{t+r} <= "
        "(1 - K eps^r max(h, 1 - E_t)) E_t bounds max ||x_i - x_j||, with E_0 = max ||x_i - x_j|| "
        "/ h",
        source="dynsim; WU, arXiv 2405.18781, Theorem 2 (strongly connected: K = N with r the "
        "diameter) and, from one center on, Corollary 1 without its hypothesis on cosines",
        hypotheses="unit rows, linearly independent; W_V orthogonal; self-loops; entries of A on "
        "edges >= eps",
        latex=r"\max\lVert x_i-x_j\rVert\le E_t,\quad E_{t+r}\le\bigl(1-K\epsilon^r\max(h,1-E_t)"
        r"\bigr)E_t,\quad E_0=\lVert X^+\mathbf 1\rVert\max\lVert x_i(0)-x_j(0)\rVert",
        how="proved for every r, K and E; the pole for N = 2, the cancelling of heights for "
        "two layers of N = 2 (and so by induction), any matrices of attention",
    )


def check(
    pole=lambda gram: gram.inv() * sympy.ones(2, 1),
    entry=lambda eps_r, h: eps_r * h,
    shared=lambda columns: columns,
    near=lambda E: 1 - E,
):
    proof = Proof()
    a, b, c = sympy.symbols("a b c", real=True)
    gram = sympy.Matrix([[a, b], [b, c]])
    claim = (
        "v = X^T w, w = (X X^T)^-1 1, is X^+ 1: all <v, x_i> = (X X^T w)_i = 1, so h = 1 / ||v||"
    )
    proof.equal(claim, gram * pole(gram), sympy.ones(2, 1))
    _cancel(proof)
    eps_r, h, a, b = sympy.symbols("epsilon_r h a b", nonnegative=True)
    claim = "sum over paths >= eps^r, h_j(t) = h + a, h_i(t+r) <= ||v|| = 1, n <= 1: times h_i(t+r)"
    proof.at_least(claim, (eps_r + b) * (h + a), entry(eps_r, h), (eps_r, h, a, b))
    _overlap(proof, shared)
    E, s, gap = sympy.symbols("E s gap", nonnegative=True)
    claim = (
        "h_j(t) / h_i(t+r) = ||p_i(t+r)|| / ||p_j(t)|| for unit rows; p_i(t+r) is an average of "
        "the p_k(t), so >= 1 - D / p; p = ||p_j|| = 1 / s + gap, E = s D, s = ||v||; times p s"
    )
    length = 1 + s * gap  # p s
    proof.at_least(claim, length - E, near(E) * length, (s, gap, E))
    proof.words("a matrix of coefficient tau brings the p_i together by tau: E_{t+r} <= tau E_t")
    proof.words("||x_i - x_j|| <= ||v|| ||p_i - p_j|| and E_0 = ||v|| max ||x_i - x_j|| / h: lemma "
                "`hemisphere`")  # fmt: skip
    return proof


def _cancel(proof: Proof) -> None:
    """(A~_2 A~_1)_ij over two layers of two tokens, with any attention and lengths."""
    heights = [sympy.symbols(f"h{t}_1:3", positive=True) for t in range(3)]
    whole, paths = sympy.eye(2), sympy.eye(2)
    for t in range(2):
        A = sympy.Matrix(2, 2, sympy.symbols(f"a{t}_1:5", positive=True))
        n = sympy.symbols(f"n{t}_1:3", positive=True)
        moves = sympy.Matrix(
            2, 2, lambda i, j, t=t, A=A, n=n: A[i, j] * heights[t][j] / (n[i] * heights[t + 1][i])
        )
        whole = moves * whole
        paths = sympy.Matrix(2, 2, lambda i, j, A=A, n=n: A[i, j] / n[i]) * paths
    expected = sympy.Matrix(2, 2, lambda i, j: paths[i, j] * heights[0][j] / heights[2][i])
    claim = "A_ij h_j / (n_i h'_i), two layers: paths of A_ij / n_i, times h_j(t) / h_i(t+2)"
    paths = sympy.Symbol("path_ij") * sympy.Symbol("h_j") / sympy.Symbol("h_i")
    proof.equal(claim, whole, expected, shown=(sympy.Symbol("move_ij"), paths))


def _overlap(proof: Proof, shared) -> None:
    """Rows with entries >= m in the same columns: tau <= 1 - K m, K of them; here K = 2 of 3."""
    columns = 2
    m = sympy.Symbol("m", nonnegative=True)
    c = sympy.symbols("c_1:4", nonnegative=True)
    proof.words(
        "P_ij = low_j + e_j, P_kj = low_j + f_j, low_j the smaller one: rows sum to 1, so the sums "
        "of e and of f are 1 - sum low_j, and so is half the sum of |P_ij - P_kj| = e_j + f_j"
    )
    low = [m + c[0], m + c[1], c[2]]
    claim = "low_j >= m in K columns: 1 - sum low_j <= 1 - K m"
    proof.at_least(claim, 1 - shared(columns) * m, 1 - sum(low), (m, *c))


WRONG = {
    "v = X^T 1": {"pole": lambda gram: sympy.ones(2, 1)},
    "entries >= eps^r": {"entry": lambda eps_r, h: eps_r},
    "one more column than is shared": {"shared": lambda columns: columns + 1},
    "1 - E / 2": {"near": lambda E: 1 - E / 2},
}
