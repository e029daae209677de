"""Any tokens can be made an equilibrium, by the choice of W_V.

If A X has full row rank and N = d, W_V = (A X)^-1 diag(nu) X gives A X W_V = diag(nu) X, which the
norm maps back to X. For the causal mask with M = 0, W_V = X^-1 A^-1 diag(nu) X is similar to A^-1
diag(nu), which is triangular with diagonal k nu_k.
"""

import sympy

from theory.graphs.small_masks import band, walk
from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="W_V = (A X)^-1 diag(nu) X makes X an equilibrium for any mask and nu > 0; causal "
        "mask, M = 0: W_V has the eigenvalues k nu_k",
        source="dynsim; answers WU, arXiv 2405.18781, App. F",
        hypotheses="unit rows, N = d, A(X) X invertible",
        latex=r"W_V=(AX)^{-1}\operatorname{diag}(\nu)X\ \Rightarrow\ AXW_V=\operatorname{diag}("
        r"\nu)X;\qquad\text{causal, }M=0:\ W_V\text{ has the eigenvalues }k\nu_k",
        how="proved for N = 2 (and in words for every N); eigenvalues for N = 2, 3",
    )


def check(design=lambda A, X, nu: (A * X).inv() * nu * X, eigenvalue=lambda k, nu: k * nu):
    proof = Proof()
    t = sympy.Symbol("lambda")
    A, X = (sympy.Matrix(2, 2, sympy.symbols(f"{name}_1:5")) for name in "ax")
    nu = sympy.symbols("nu_1:4", positive=True)
    W = design(A, X, sympy.diag(*nu[:2]))
    proof.equal(
        "A X W_V for symbolic A and X, N = 2",
        A * X * W,
        sympy.diag(*nu[:2]) * X,
        shown=("A*X*W_V", "diag(nu)*X"),
    )
    proof.words("the line above uses only that A X is invertible, so it holds for every N")
    for n in (2, 3):
        P = walk(band(n, n, 0))
        X = sympy.Matrix(n, n, lambda i, j: sympy.Symbol(f"x_{i}{j}") if i + j < 2 else int(i == j))
        W = design(P, X, sympy.diag(*nu[:n]))
        product = sympy.prod(t - eigenvalue(k, value) for k, value in enumerate(nu[:n], 1))
        found = (t * sympy.eye(n) - W).det(method="berkowitz")
        proof.equal(
            f"causal, N = {n}: characteristic polynomial",
            found,
            product,
            shown=("det(t*I - W_V)", product),
        )
        similar = (t * sympy.eye(n) - P.inv() * sympy.diag(*nu[:n])).det()
        proof.equal(
            "that of A^-1 diag(nu)", similar, product, shown=("det(t*I - A^(-1)*diag(nu))", product)
        )
    return proof


WRONG = {
    "eigenvalues nu_k": {"eigenvalue": lambda k, nu: nu},
    "diag(nu) on the left": {"design": lambda A, X, nu: nu * (A * X).inv() * X},
}
