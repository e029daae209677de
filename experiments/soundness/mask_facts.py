"""Facts of mask graphs: center nodes, radius, diameter, connectivity, lambda_2."""

from __future__ import annotations

from fractions import Fraction
from math import inf

import mpmath
import numpy as np

from dynsim import connectivity, masks
from experiments.soundness.storm import Outcome

STATEMENT = (
    "center nodes, radius, diameter and connectivity are exact; lambda_2 is within its error, and "
    "to the last digit or two where its method is exact"
)
REFEREE = "search from every token; roots of the rational characteristic polynomial, 40 digits"
SYSTEMS = 3000


def trial(rng: np.random.Generator) -> Outcome:
    kind = str(rng.choice(["random", "symmetric", "named", "ranges", "no loops", "defective"]))
    graph = _graph(rng, kind)
    mask = _mask(graph)
    said = connectivity.facts(graph)
    problem = _distances_problem(graph, mask, said)
    if problem:
        return Outcome("violated", kind, f"{problem}; mask {mask.astype(int).tolist()}")
    if len(mask) > 8:
        return Outcome("holds", kind)
    second = said.lambda_2
    if not np.isfinite(second.error):
        return Outcome("flagged", kind)
    with mpmath.workdps(40):
        true = _second_modulus(mask)
        error = float(abs(mpmath.mpf(second.value) - true))
    allowed = 3e-16 if second.method == "exact" else second.error
    if error > allowed:
        detail = f"lambda_2 is {second}, not {float(true)}"
        return Outcome("violated", kind, f"{detail}; mask {mask.astype(int).tolist()}")
    return Outcome("holds", kind, error=error / allowed if allowed else 0.0)


def _graph(rng, kind):
    n = int(rng.integers(1, 9))
    if kind == "named":
        name = str(rng.choice(["complete", "causal", "star", "sinks", "prefix", "bigbird"]))
        return masks.MASKS[name](max(n, 4))
    if kind == "ranges":
        n = int(rng.integers(2, 25))
        window = int(rng.integers(1, n))
        return (masks.local if rng.random() < 0.5 else masks.causal_local)(n, window)
    mask = rng.random((n, n)) < rng.choice([0.1, 0.3, 0.6])
    if kind == "symmetric":
        mask = mask | mask.T
    if kind == "defective":  # a window that looks one way, with a few arrows more
        mask = np.tril(np.ones((n, n), bool)) & ~np.tril(np.ones((n, n), bool), -2)
        mask |= rng.random((n, n)) < 0.08
    if kind != "no loops":
        np.fill_diagonal(mask, True)
    for i in np.flatnonzero(~mask.any(axis=1)):
        mask[i, rng.integers(n)] = True
    order = rng.permutation(n)
    return masks.from_array(mask[np.ix_(order, order)])


def _mask(graph) -> np.ndarray:
    n = graph.number_of_nodes()
    mask = np.zeros((n, n), bool)
    for j, i in graph.edges:
        mask[i, j] = True
    return mask


def _distances_problem(graph, mask, said) -> str | None:
    n = len(mask)
    reach = [_distances(mask, source) for source in range(n)]  # along arrows, from whom to whom
    far = [max(row) for row in reach]
    centers = [i for i in range(n) if far[i] < inf]
    strong = len(centers) == n
    radius = min((far[i] for i in centers), default=inf)
    widest = max(far)
    pairs = [
        ("center nodes", connectivity.center_nodes(graph).tolist(), centers),
        ("number of centers", said.center_nodes, len(centers)),
        ("strongly connected", said.strongly_connected, strong),
        ("strongly connected", connectivity.is_strongly_connected(graph), strong),
        ("quasi-strongly connected", said.quasi_strongly_connected, bool(centers)),
        ("radius", said.radius, (radius, radius)),
        ("radius", connectivity.radius(graph), radius),
        ("diameter", said.diameter, (widest, widest)),
        ("edges", said.edges, int(mask.sum())),
        ("self-loops", said.self_loops, all(mask[i, i] for i in range(n))),
    ]
    return next((f"{name}: {a}, not {b}" for name, a, b in pairs if a != b), None)


def _distances(mask, source) -> list[float]:
    """Arrows j -> i where i attends to j."""
    distance, front = {source: 0}, [source]
    while front:
        later = []
        for j in front:
            for i in np.flatnonzero(mask[:, j]).tolist():
                if i not in distance:
                    distance[i] = distance[j] + 1
                    later.append(i)
        front = later
    return [distance.get(i, inf) for i in range(len(mask))]


# --- lambda_2 -------------------------------------------------------------------------------------


def _second_modulus(mask):
    moduli = []
    for factor, multiplicity in _square_free(_characteristic(mask)):
        moduli += [abs(root) for root in _roots(factor)] * multiplicity
    return sorted([mpmath.mpf(0), *moduli])[-2] if len(mask) > 1 else mpmath.mpf(0)


def _characteristic(mask) -> list[Fraction]:
    """Coefficients of det(x - P), the leading one first, by Faddeev and LeVerrier."""
    n = len(mask)
    P = [[Fraction(int(v), int(row.sum())) for v in row] for row in mask]
    coefficients, B = [Fraction(1)], [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    for k in range(1, n + 1):
        B = [[sum(P[i][m] * B[m][j] for m in range(n) if P[i][m]) for j in range(n)]
             for i in range(n)]  # fmt: skip
        c = -sum(B[i][i] for i in range(n)) / k
        coefficients.append(c)
        for i in range(n):
            B[i][i] += c
    return coefficients


def _square_free(p):
    """Yun's algorithm: [(factor, multiplicity)], factors with simple roots."""
    factors, multiplicity = [], 1
    common = _gcd(p, _slope(p))
    b, c = _divide(p, common)[0], _divide(_slope(p), common)[0]
    while len(b) > 1:
        d = _minus(c, _slope(b))
        a = _gcd(b, d) if d else b
        if len(a) > 1:
            factors.append((a, multiplicity))
        b = _divide(b, a)[0]
        c = _divide(d, a)[0] if d else []
        multiplicity += 1
    return factors


def _slope(p):
    return [k * c for k, c in zip(range(len(p) - 1, 0, -1), p, strict=False)]


def _minus(a, b):
    size = max(len(a), len(b))
    a, b = [Fraction(0)] * (size - len(a)) + a, [Fraction(0)] * (size - len(b)) + b
    return _stripped([x - y for x, y in zip(a, b, strict=True)])


def _stripped(p):
    first = next((k for k, c in enumerate(p) if c), len(p))
    return p[first:]


def _divide(a, b):
    quotient, a = [], list(a)
    while len(a) >= len(b):
        factor = a[0] / b[0]
        quotient.append(factor)
        for k, c in enumerate(b):
            a[k] -= factor * c
        a.pop(0)
    return quotient, _stripped(a)


def _gcd(a, b):
    while b:
        a, b = b, _divide(a, b)[1]
    return [c / a[0] for c in a]


def _roots(p):
    if len(p) == 2:
        return [mpmath.mpf((-p[1]).numerator) / p[1].denominator]
    exact = [mpmath.mpf(c.numerator) / c.denominator for c in p]
    return mpmath.polyroots(exact, maxsteps=500, extraprec=200)
