"""The distance to the nearest matrix of rank one, from the singular values (Eckart-Young).

In the bases of the singular vectors X is diag(sigma), and a matrix of rank one is s p q^T with unit
vectors p, q. Its distance splits into a square in s and a = p^T diag(sigma) q, and a <= sigma_1
because sigma_1 - a is a sum of squares with weights sigma_k and sigma_1 - sigma_k.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="min over matrices R of rank <= 1 of ||X - R||_F^2 = sum of sigma_k^2 over k >= 2",
        source="Eckart and Young, Psychometrika 1 (1936) 211",
        hypotheses="X real with singular values sigma_1 >= sigma_2 >= ... >= 0",
        latex=r"\min_{\operatorname{rank}R\le1}\lVert X-R\rVert_F^2=\sum_{k\ge2}\sigma_k^2",
        how="proved for every N and d",
    )


def check(split=lambda sigma, top, p, q: sigma * (p - q) ** 2 + (top - sigma) * (p**2 + q**2)):
    proof = Proof()
    s, a, total, top, sigma, p, q = sympy.symbols("s a F sigma_1 sigma_k p_k q_k", real=True)
    distance = total - 2 * s * a + s**2  # F = ||X||_F^2, and ||s p q^T||_F = |s|
    proof.equal("||X - s p q^T||_F^2 in s", distance, total - a**2 + (s - a) ** 2)
    claim = "term k of 2 sigma_1 - 2 a = sum_k sigma_1 (p_k^2 + q_k^2) - 2 sigma_k p_k q_k"
    proof.equal(claim, top * (p**2 + q**2) - 2 * sigma * p * q, split(sigma, top, p, q))
    small, more, square, sum_of = sympy.symbols("sigma_k more u v", nonnegative=True)
    claim = "each term is >= 0, with sigma_1 = sigma_k + more, u = (p - q)^2 and v = p^2 + q^2"
    term = split(small, small + more, p, q).subs({p**2 + q**2: sum_of, (p - q) ** 2: square})
    proof.at_least(claim, term, 0, (small, more, square, sum_of))
    proof.words("so |a| <= sigma_1 (for -q too), with equality for p = q = e_1")
    least = distance.subs({s: a}).subs(a, top)
    proof.equal(
        "the least value, F - sigma_1^2, is what the other sigma leave",
        least,
        total - top**2,
        shown=("F - 2*sigma_1*sigma_1 + sigma_1^2", total - top**2),
    )
    return proof


WRONG = {
    "the square of p + q": {
        "split": lambda sigma, top, p, q: sigma * (p + q) ** 2 + (top - sigma) * (p**2 + q**2)
    },
    "without the gap to sigma_1": {"split": lambda sigma, top, p, q: sigma * (p - q) ** 2},
}
