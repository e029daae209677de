"""WU's Theorem 3: 2^k equilibria of every rank k, exactly, for all signs at once.

Let S_i = x_1 + ... + x_i. Then S_m W = m x_m since e_N W = e_N, and S_{i+1} W = S_i W + x_{i+1} W =
x_{i+1} exactly when x_{i+1} (I - W) = S_i W, which is the recursion. So every token is mapped to a
positive multiple of itself: an equilibrium. x (I - W) = -w (0, x_1, ..., x_{N-1}) has first
coordinate 0, as has the x_i in demand; the other coordinates of x_{i+1} have length beta / w, and
the last, +-sqrt(1 - beta^2 / w^2), exists and is not 0 for w > m = N - k + 1.
"""

import sympy

from theory.equilibria.jordan import W_V, family, modulo_roots, s, w
from theory.lemma import Proof, Statement

LARGEST = 6


def statement():
    return Statement(
        claim="every rank k = 1..N has 2^k equilibria, one for each choice of signs; they exist "
        "for w > N - k + 1 (k >= 2) already, so for w >= N",
        source="WU, arXiv 2405.18781, Theorem 3 and App. F",
        hypotheses="causal, M = 0, unit norm, d = N, W_V = I + w * superdiagonal",
        latex=r"x_{i+1}(I-W_V)=\beta_ix_i,\quad\beta_m=N-k+1,\ \beta_i=1\ (i>m),\quad x_{i+1,N}=\pm"
        r"\sqrt{1-\beta_i^2/w^2}:\quad2^k\text{ equilibria of every rank }k=1,\dots,N,\text{ "
        r"for }w>N-k+1",
        how=f"proved for N <= {LARGEST}, every k, all 2^k signs, symbolic w; the induction in the "
        "file's head is for every N",
    )


def check(build=family):
    proof = Proof()
    for n in range(2, LARGEST + 1):
        for k in range(1, n + 1):
            X, m = build(n, k), n - k + 1
            where = f"N = {n}, k = {k}:"
            sizes = [modulo_roots(X.row(i).dot(X.row(i)), m) for i in range(n)]
            proof.true(f"{where} all tokens have length 1", sizes == [1] * n)
            total, rest = sympy.zeros(1, n), []
            for i in range(n):
                total += X.row(i)
                rest += list(total * W_V(n) - (i + 1 if i < m else 1) * X.row(i))
            fixed = all(modulo_roots(entry, m) == 0 for entry in rest)
            proof.true(f"{where} S_i W_V = i x_i (i <= {m}), x_i (i > {m}), any signs", fixed)
            corner = X[m - 1 :, n - k :]
            claim = f"{where} rank {k}: the last k columns of the last k tokens are triangular with"
            diagonal = sympy.prod(corner[i, k - 1 - i] for i in range(k))
            triangular = all(corner[i, j] == 0 for i in range(k) for j in range(k - 1 - i))
            expected = sympy.prod((-1) ** i * m * s[0] / w**i for i in range(1, k)) * s[0]
            proof.equal(
                f"{claim} diagonal entries not 0",
                diagonal,
                expected,
                shown=("det(corner)", expected),
            )
            others = X[:, : n - k].is_zero_matrix and all(X.row(i) == X.row(0) for i in range(m))
            proof.true(
                f"{where} and not more: other entries are 0, the first tokens equal",
                triangular and others,
            )
    proof.words("different signs differ in the last coordinates, none of which is 0 for w > m")
    return proof


def _without_block(n, k):
    """beta = 1 throughout, as if a block of m equal tokens weighed like one."""
    X = family(n, k)
    for i in range(n - k + 1, n):
        X[i, : n - 1] = -X[i - 1, 1:] / w
    return X


def _opposite(n, k):
    """x_{i+1} (W_V - I) = beta_i x_i."""
    X = family(n, k)
    for i in range(n - k + 1, n):
        X[i, : n - 1] = -X[i, : n - 1]
    return X


WRONG = {
    "beta = 1 after the block": {"build": _without_block},
    "the opposite sign": {"build": _opposite},
}
