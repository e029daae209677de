"""A key cannot be selected exactly when it lies in the convex hull of the others.

If k_i = sum lambda_j k_j with lambda >= 0 of sum 1, the margins q.(k_i - k_j) have weighted sum 0,
so they are not all positive. If k_i is outside the hull, let p be its nearest point there and q =
k_i - p. The hull holds p + t (k_j - p), 0 <= t <= 1, and no such point is nearer to k_i than p, so
q.(k_j - p) <= 0: otherwise a small t would be nearer. Hence the margin is at least ||q||^2.
"""

import sympy

from theory.lemma import Proof, Statement
from theory.sums import i, over, x


def statement():
    return Statement(
        claim="no q has q.k_i > q.k_j for all j != i  iff  k_i is in conv{k_j : j != i}",
        source="BRODY, arXiv 2305.02582, unselectable keys",
        hypotheses="finitely many keys, at least two; any d",
        latex=r"\nexists q\ \forall j\ne i:\ q\cdot k_i>q\cdot k_j\iff "
        r"k_i\in\operatorname{conv}\{k_j:j\ne i\}",
        how="proved for every d and number of keys (only inner products enter)",
    )


def check(total=1, sign=-1, step=lambda b, c: b / c):
    """`total` is the weights' sum, `step` the t at which a key with q.(k_j - p) > 0 is nearer."""
    proof = Proof()
    weight = sympy.IndexedBase("lambda", real=True)
    own = sympy.Symbol("s", real=True)  # q.k_i = sum_j lambda_j q.k_j, and x_j = q.k_j
    margins = over(i, weight[i] * (own - x[i]), {(1, 0): total, (1, 1): own}, (weight, x))
    shown = "sum_j(lambda_j*(q*k_i - q*k_j))", "q*k_i - q*k_i"
    proof.equal("in the hull: the margins, weighted", margins, 0, shown)
    proof.words("weights >= 0 of sum 1 are not all 0: positive margins would have a positive sum")
    a, b, c, more = sympy.symbols("a b c more", positive=True)
    t = sympy.Symbol("t", real=True)
    moved = a - 2 * t * b + t**2 * c
    k, p, other = (sympy.Matrix(sympy.symbols(f"{name}_1 {name}_2", real=True)) for name in "kpo")
    q = k - p
    away = q - t * (other - p)
    terms = {a: q.dot(q), b: q.dot(other - p), c: (other - p).dot(other - p)}
    claim = "outside, a = ||q||^2, b = q.(k_j - p), c = ||k_j - p||^2: the distance at t, squared"
    shown = "norm(k_i - p - t*(k_j - p))^2", moved
    proof.equal(claim, away.dot(away), moved.subs(terms), shown)
    claim = "if b > 0: at t = b / c it is less, which is a point of the hull for b <= c"
    proof.less(claim, moved.subs(t, step(b, c)), a)
    claim = "and at t = 1 it is less for b > c, with b = c + more"
    proof.less(claim, moved.subs(t, 1).subs(b, c + more), a)
    proof.words("so q.(k_j - p) <= 0, as p is nearest")
    shown = "q*(k_i - k_j)", "q*q - q*(k_j - p)"
    proof.equal("the margin", q.dot(k - other), q.dot(q) + sign * q.dot(other - p), shown)
    claim = "is at least ||q||^2 > 0, with q.(k_j - p) = -more"
    proof.less(claim, 0, a + more)
    return proof


WRONG = {
    "weights that sum to 2": {"total": 2},
    "q.(k_j - p) with a plus": {"sign": 1},
    "nearer at t = 2 b / c": {"step": lambda b, c: 2 * b / c},
}
