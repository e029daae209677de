"""A zero gain: that coordinate is constant, and the others fill a full ellipsoid of their own.

Let z be the standardised vector, sum z = 0 and ||z||^2 = d. With one gain 0, y_n = b_n and z_n =
-sum of the others: y - b in the other coordinates obeys no hyperplane but sum u^2 + (sum u)^2 = d,
u_i = (y_i - b_i) / g_i. That form is d times the inverse of H = G^2 - g g^T/d restricted to them,
so semi-axes are again sqrt(d mu) for the eigenvalues mu > 0 of H, zero gains included.
"""

import sympy

from theory.lemma import Proof, Statement

SIZES = (2, 3, 4)


def statement():
    return Statement(
        claim="g_n = 0: y_n = b_n, and the others lie on sum u_i^2 + (sum u_i)^2 = d, u = (y - "
        "b)/g (eps = 0): the ellipsoid (y - b)^T (d H')^-1 (y - b) = 1 of H' = G'^2 - g' g'^T/d",
        source="RIECHERS, arXiv 2405.04134 (zero gains); the matrix H is dynsim's",
        hypotheses="exactly one gain 0; primes mark the other coordinates",
        latex=r"\sum_{i<n}u_i^2+\Bigl(\sum_{i<n}u_i\Bigr)^2=d,\qquad(H')^{-1}=G'^{-2}+\alpha'"
        r"\alpha'^{\top},\qquad H'=G'^2-\tfrac1dg'g'^{\top},\quad y_n=b_n",
        how=f"proved for d <= {SIZES[-1]}, symbolic gains",
    )


def check(inverse=lambda G, alpha: G**-2 + alpha * alpha.T):
    proof = Proof()
    for d in SIZES:
        z = sympy.Matrix(sympy.symbols(f"z_1:{d}", real=True))
        last = -sum(z)
        proof.equal(
            f"d = {d}: ||z||^2 with z_d = -sum of the others",
            z.dot(z) + last**2,
            z.dot(z) + sum(z) ** 2,
            shown=("sum(z_i^2) + (-sum(z_i))^2", "sum(z_i^2) + sum(z_i)^2"),
        )
        g = sympy.symbols(f"g_1:{d}", real=True, nonzero=True)
        G, alpha = sympy.diag(*g), sympy.Matrix([1 / value for value in g])
        H = G**2 - sympy.Matrix(g) * sympy.Matrix(g).T / d
        proof.equal(
            f"d = {d}: the inverse of H'",
            H * inverse(G, alpha),
            sympy.eye(d - 1),
            shown=("H*(G^(-2) + alpha*alpha^T)", "I"),
        )
        y = G * z
        claim = f"d = {d}: the form of (d H')^-1 at y - b = G' z, times d"
        proof.equal(
            claim,
            (y.T * inverse(G, alpha) * y)[0],
            z.dot(z) + sum(z) ** 2,
            shown=("z^T*G*(G^(-2) + alpha*alpha^T)*G*z", "sum(z_i^2) + sum(z_i)^2"),
        )
    return proof


WRONG = {
    "G^-2 alone": {"inverse": lambda G, alpha: G**-2},
    "a minus sign": {"inverse": lambda G, alpha: G**-2 - alpha * alpha.T},
}
