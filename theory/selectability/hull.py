"""A key cannot be selected exactly when it lies in the convex hull of the others.

If k_i = sum lambda_j k_j with lambda >= 0 of sum 1, the margins q.(k_i - k_j) have weighted sum 0,
so they are not all positive. If k_i is outside the hull, let p be its nearest point there and q =
k_i - p. Moving from p towards k_j cannot come nearer, so q.(k_j - p) <= 0, and the margin is at
least ||q||^2.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="no q has q.k_i > q.k_j for all j != i  iff  k_i is in conv{k_j : j != i}",
        source="BRODY, arXiv 2305.02582, unselectable keys",
        hypotheses="finitely many keys, at least two; any d",
        latex=r"\nexists q\ \forall j\ne i:\ q\cdot k_i>q\cdot k_j\iff "
        r"k_i\in\operatorname{conv}\{k_j:j\ne i\}",
        how="proved for d = 2 and three other keys; only inner products enter, so for all",
    )


def check(total=1, sign=-1):
    proof = Proof()
    others = [sympy.Matrix(sympy.symbols(f"k_{j}1 k_{j}2", real=True)) for j in (1, 2, 3)]
    weights = sympy.symbols("lambda_1:4", nonnegative=True)
    query = sympy.Matrix(sympy.symbols("q_1 q_2", real=True))
    weights = [*weights[:2], total - sum(weights[:2])]
    key = sum((a * k for a, k in zip(weights, others, strict=True)), sympy.zeros(2, 1))
    margins = sum(a * query.dot(key - k) for a, k in zip(weights, others, strict=True))
    proof.equal("in the hull: sum_j lambda_j q.(k_i - k_j)", margins, 0)
    t = sympy.Symbol("t", real=True)
    a, b, c = sympy.symbols("a b c", real=True)  # ||q||^2, q.(k_j - p), ||k_j - p||^2
    moved = a - 2 * t * b + t**2 * c  # ||k_i - p - t (k_j - p)||^2
    slope = moved.diff(t).subs(t, 0)
    proof.equal(
        "outside: the slope towards k_j, with b = q.(k_j - p), is >= 0 as p is nearest",
        slope,
        -2 * b,
    )
    vectors = [sympy.Matrix(sympy.symbols(f"{name}_1 {name}_2", real=True)) for name in "kpo"]
    k, p, other = vectors
    q = k - p
    margin = q.dot(k - other)
    proof.equal(
        "q.(k_i - k_j) = ||q||^2 - q.(k_j - p) >= ||q||^2 > 0",
        margin,
        q.dot(q) + sign * q.dot(other - p),
    )
    return proof


WRONG = {
    "weights that sum to 2": {"total": 2},
    "q.(k_j - p) with a plus": {"sign": 1},
}
