"""The derivative of one attention layer X -> A(X) X W_V.

dS_ij = dx_i M x_j^T + x_i M dx_j^T for the scores S = X M X^T, dA_ij = A_ij (dS_ij - sum_k A_ik
dS_ik), and dy_i = sum_j (A_ij dx_j + dA_ij x_j) W_V. Every direction dx = one entry is compared
with diff.
"""

import sympy

from theory.graphs.small_masks import band
from theory.lemma import Proof, Statement

CASES = ((2, 2, "complete"), (3, 1, "causal"), (3, 1, "complete"))


def statement():
    return Statement(
        claim="dy_i = sum_j A_ij dx_j W_V + sum_j A_ij (dS_ij - sum_k A_ik dS_ik) x_j W_V, dS_ij "
        "= dx_i M x_j + x_i M dx_j",
        source="dynsim, by differentiation of WU, arXiv 2405.18781, section 3",
        hypotheses="no norm; any mask",
        latex=r"dy_i=\sum_jA_{ij}\,dx_jW_V+\sum_jA_{ij}\Bigl(dS_{ij}-\sum_kA_{ik}\,dS_{ik}"
        r"\Bigr)x_jW_V,\quad dS_{ij}=dx_iMx_j^{\top}+x_iM\,dx_j^{\top}",
        how="proved for (N, d) = (2, 2) complete, (3, 1) causal and complete; symbolic X, M, W_V",
    )


def check(score=lambda dx, M, x: dx * M * x.T + x * M * dx.T):
    proof = Proof()
    for n, d, name in CASES:
        mask = band(n, n, n if name == "complete" else 0)
        X = sympy.Matrix(n, d, sympy.symbols(f"x_1:{n * d + 1}", real=True))
        M = sympy.Matrix(d, d, sympy.symbols(f"m_1:{d * d + 1}", real=True))
        W = sympy.Matrix(d, d, sympy.symbols(f"w_1:{d * d + 1}", real=True))
        S = X * M * X.T
        E = sympy.Matrix(n, n, sympy.symbols(f"e_1:{n * n + 1}", positive=True))  # exp(S)
        E = E.multiply_elementwise(mask)
        A = sympy.Matrix(n, n, lambda i, j, E=E: E[i, j] / sum(E.row(i)))
        Y = A * X * W
        for entry in range(n * d):
            dX = sympy.zeros(n, d)
            dX[entry] = 1
            dS = score(dX, M, X)
            dA = A.multiply_elementwise(dS - _means(A, dS))
            found = Y.diff(X[entry])
            for kl in range(n * n):  # and through every exp(S_kl), by the chain rule
                if mask[kl]:
                    found += Y.diff(E[kl]) * E[kl] * S[kl].diff(X[entry])
            claim = f"{name}, N = {n}, d = {d}, along entry {entry + 1} of X"
            proof.equal(claim, found, (A * dX + dA * X) * W, shown=("dY/dx", "(A*dX + dA*X)*W_V"))
    return proof


def _means(A, dS):
    """sum_k A_ik dS_ik in every column of row i."""
    return sympy.Matrix(*A.shape, lambda i, j: A.row(i).dot(dS.row(i)))


WRONG = {
    "the query's part alone": {"score": lambda dx, M, x: dx * M * x.T},
    "M transposed": {"score": lambda dx, M, x: dx * M.T * x.T + x * M.T * dx.T},
}
