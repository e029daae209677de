"""The derivative of softmax: symmetric, positive semidefinite, blind to a common shift.

dp_j = p_j (dR_j - sum_k p_k dR_k), so the Jacobian is diag(p) - p p^T; its quadratic form in u is
the variance of u under p, and 1 is its null vector.
"""

import sympy

from theory.lemma import Proof, Statement

SIZES = (2, 3)


def statement():
    return Statement(
        claim="softmax: d p_j / d R_k = p_j (delta_jk - p_k); symmetric, u^T J u = Var_p(u) >= 0, "
        "J 1 = 0",
        source="WU, arXiv 2405.18781, section 3 (the layer); classical",
        hypotheses="p = softmax(R), n scores",
        latex=r"\frac{\partial p_j}{\partial R_k}=p_j(\delta_{jk}-p_k),\qquad J=J^{\top},\quad u^{"
        r"\top}Ju=\operatorname{Var}_p(u)\ge0,\quad J\mathbf1=0",
        how=f"proved for n = {', '.join(map(str, SIZES))}, symbolic scores",
    )


def check(jacobian=lambda p: sympy.diag(*p) - sympy.Matrix(p) * sympy.Matrix(p).T):
    proof = Proof()
    for n in SIZES:
        e = sympy.symbols(f"e_1:{n + 1}", positive=True)  # e_k = exp(R_k), so d/dR_k = e_k d/de_k
        p = sympy.Matrix([weight / sum(e) for weight in e])
        found = p.jacobian(e) * sympy.diag(*e)
        stated = jacobian(list(p))
        proof.equal(f"n = {n}: against diff", found, stated, shown=("dp/dR", "diag(p) - p*p^T"))
        proof.equal("symmetric", stated, stated.T, shown=("J", "J^T"))
        proof.equal(
            "a common shift changes nothing",
            stated * sympy.ones(n, 1),
            sympy.zeros(n, 1),
            shown=("J*ones", "0"),
        )
        u = sympy.Matrix(sympy.symbols(f"u_1:{n + 1}", real=True))
        spread = sum(p[j] * p[k] * (u[j] - u[k]) ** 2 for j in range(n) for k in range(j))
        claim = "u^T J u, the variance as a sum over pairs of p_j p_k (u_j - u_k)^2 >= 0"
        proof.equal(
            claim,
            (u.T * stated * u)[0],
            spread,
            shown=("u^T*J*u", "sum_jk(p_j*p_k*(u_j - u_k)^2)/2"),
        )
    return proof


WRONG = {
    "diag(p) + p p^T": {"jacobian": lambda p: sympy.diag(*p) + sympy.Matrix(p) * sympy.Matrix(p).T},
    "diag(p) alone": {"jacobian": lambda p: sympy.diag(*p)},
}
