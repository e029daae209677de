"""Which keys can win the argmax: verdicts, witnesses and margins."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np

from dynsim.geometry.selectability import margins, selectable, undecided, witness
from experiments.soundness.storm import Outcome

STATEMENT = (
    "a key called selectable has a query that wins, one called unselectable and not undecided has "
    "none; witnesses hold; margins are true to the tolerance"
)
REFEREE = "a rational simplex method, whose weights or query are checked by putting them in"
SYSTEMS = 4000


def trial(rng: np.random.Generator) -> Outcome:
    group, keys = _keys(rng)
    options = _options(rng, keys) if group != "single precision" and rng.random() < 0.25 else {}
    if options:
        group = f"{group}, {'bound' if 'bound' in options else 'biases'}"
    said, open_ = selectable(keys, **options), undecided(keys, **options)
    problem = _verdicts(keys, options, said, open_)
    error = None
    if problem is None and not options and len(keys) > 1:
        tolerance = 1e-6 if keys.dtype == np.float32 else 1e-12
        problem = _witness(rng, keys, said, open_, tolerance)
        if problem is None and len(keys) < 8 and keys.shape[1] < 4:
            problem, error = _margin(rng, keys, tolerance)
    if problem is not None:
        return Outcome("violated", group, f"{problem}; keys {keys.tolist()}, {options}")
    return Outcome("flagged" if open_.any() else "holds", group, error=error)


# --- hostile keys ---------------------------------------------------------------------------------


def _keys(rng) -> tuple[str, np.ndarray]:
    d, n = int(rng.integers(1, 5)), int(rng.integers(1, 10))
    kind = str(rng.choice(list(_KINDS)))
    keys = _KINDS[kind](rng, n, d)
    if kind not in ("scaled apart", "single precision") and rng.random() < 0.3:
        keys = keys * 2.0 ** rng.integers(-950, 940)
    return kind, keys


def _near_the_hull(rng, n, d):
    """One key at a combination of others, moved by about one part in 10^10 to 10^18."""
    keys = rng.standard_normal((n + 2, d))
    own = rng.dirichlet(np.ones(min(n, d) + 1)) @ keys[1 : min(n, d) + 2]
    keys[0] = own + rng.standard_normal(d) * 10.0 ** rng.uniform(-18, -10) * rng.integers(0, 2)
    return keys


def _one_ulp(rng, n, d):
    """A lattice with some entries moved to the next float."""
    keys = rng.integers(-2, 3, (n + 2, d)) * float(rng.choice([1.0, 0.1, 1 / 3]))
    return np.where(rng.random(keys.shape) < 0.2, np.nextafter(keys, rng.choice([-9, 9])), keys)


def _flat(rng, n, d):
    """In a line or a plane of space, to rounding."""
    m = int(rng.integers(1, max(d, 2)))
    return rng.standard_normal((n, m)) @ rng.standard_normal((m, d))


def _thin(rng, n, d):
    """Of width 10^-18 to 10^-6 in one direction."""
    keys = rng.standard_normal((n + 3, d))
    keys[:, -1] *= 10.0 ** rng.uniform(-18, -6)
    return keys @ np.linalg.qr(rng.standard_normal((d, d)))[0]


def _twice(rng, n, d):
    keys = rng.standard_normal((n, d))
    return keys[rng.integers(0, n, n + 2)]


_KINDS = {
    "random": lambda rng, n, d: rng.standard_normal((n, d)),
    "lattice": lambda rng, n, d: rng.integers(-2, 3, (n + 2, d)) * 1.0,
    "far away": lambda rng, n, d: rng.standard_normal((n + 2, d)) + 10.0 ** rng.integers(3, 17),
    "scaled apart": lambda rng, n, d: rng.standard_normal((n + 1, d))
    * 10.0 ** rng.uniform(-150, 150, (n + 1, 1)),
    "scaled axes": lambda rng, n, d: rng.integers(-2, 3, (n + 2, d))
    * 10.0 ** rng.integers(-9, 9, d),
    "near the hull": _near_the_hull,
    "one ulp": _one_ulp,
    "flat": _flat,
    "thin": _thin,
    "equal": _twice,
    "zeros": lambda rng, n, d: rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.4),
    "single precision": lambda rng, n, d: (
        rng.dirichlet(np.ones(n), n + 2) @ rng.standard_normal((n, d))
    ).astype(np.float32),
}  # fmt: skip


def _options(rng, keys) -> dict:
    size = float(np.abs(keys).max()) or 1.0
    scale = size * 10.0 ** rng.choice([0, 0, 0, -8, 8])
    if not 1e-280 < scale < 1e280:
        scale = 1.0
    options = {"biases": rng.integers(-2, 3, len(keys)) * scale / 2}
    if rng.random() < 0.5:
        options["gap"] = float(rng.choice([0.0, 0.5, -0.25, 1.0])) * scale
    if rng.random() < 0.5:
        options["bound"] = float(10.0 ** rng.choice([-3.0, 0.0, 0.0, 3.0, 200.0]))
    return options


# --- the truth ------------------------------------------------------------------------------------


def _verdicts(keys, options, said, open_) -> str | None:
    for i in range(len(keys)):
        if not open_[i] and bool(said[i]) != _wins(_vectors(keys, i, **options)):
            return f"key {i} is called {'' if said[i] else 'un'}selectable"
    return None


def _vectors(keys, i, biases=None, gap=0.0, bound=None):
    """A query (q, 1), or a multiple, wins for key i if and only if all products are positive."""
    points = [[Fraction(float(x)) for x in row] for row in keys]
    n, d = keys.shape
    apart = [[a - b for a, b in zip(points[i], points[j], strict=True)] for j in range(n) if j != i]
    if biases is None:
        return apart
    b = [Fraction(float(x)) for x in biases]
    step = Fraction(float(gap))
    apart = [[*v, b[i] - b[j] - step]
             for v, j in zip(apart, (j for j in range(n) if j != i), strict=True)]  # fmt: skip
    apart.append([Fraction(0)] * d + [Fraction(1)])
    if bound is not None:
        for c in range(d):
            unit = [Fraction(int(k == c)) for k in range(d)]
            apart.append([*unit, Fraction(bound)])
            apart.append([-x for x in unit] + [Fraction(bound)])
    return apart


def _wins(vectors) -> bool:
    """Is there a u with u . a > 0 for all vectors a? Both answers are checked."""
    if not vectors:
        return True
    sizes = [max(map(abs, a)) for a in vectors]
    if not all(sizes):
        return False
    vectors = [[x / size for x in a] for a, size in zip(vectors, sizes, strict=True)]
    d = len(vectors[0])
    # maximise t under u . a >= t, |u_c| <= 1, by its dual: weights w of sum 1, least |sum w a|_1
    columns = [[*a, Fraction(1)] for a in vectors]
    columns += [[Fraction(s * (k == c)) for k in range(d)] + [Fraction(0)]
                for c in range(d) for s in (1, -1)]  # fmt: skip
    cost = [Fraction(0)] * len(vectors) + [Fraction(1)] * (2 * d)
    weights, prices = _simplex(columns, cost, d)
    best = sum(c * w for c, w in zip(cost, weights, strict=True))
    if best > 0:
        u = [-p for p in prices[:d]]
        u = u if _least(u, vectors) > 0 else [-x for x in u]
        assert _least(u, vectors) > 0
        return True
    off = [sum(w * a[c] for w, a in zip(weights, vectors, strict=False)) for c in range(d)]
    assert not any(off)
    assert min(weights) >= 0
    assert sum(weights[: len(vectors)]) == 1
    return False


def _least(u, vectors):
    return min(sum(x * y for x, y in zip(u, a, strict=True)) for a in vectors)


def _simplex(columns, cost, d):
    """min cost . w, sum_j w_j columns_j = (0, ..., 0, 1), w >= 0, and the prices; Bland's rule.

    Starts at w_0 = 1 with the signed unit vectors that take up its column.
    """
    first = len(columns) - 2 * d
    signs = [1 if columns[0][c] <= 0 else -1 for c in range(d)]
    basis = [first + 2 * c + (signs[c] < 0) for c in range(d)] + [0]
    # the inverse of the basis matrix, whose columns are signs e_c and column 0
    inverse = [[Fraction(signs[r] * (r == c)) for c in range(d)]
               + [Fraction(-signs[r]) * columns[0][r]] for r in range(d)]  # fmt: skip
    inverse.append([Fraction(0)] * d + [Fraction(1)])
    while True:
        prices = [sum(cost[j] * row[c] for j, row in zip(basis, inverse, strict=True) if cost[j])
                  for c in range(d + 1)]  # fmt: skip
        worth = (sum(p * x for p, x in zip(prices, column, strict=True)) for column in columns)
        enter = next(
            (j for j, value in enumerate(worth) if value > cost[j] and j not in basis), None
        )
        if enter is None:
            weights = [Fraction(0)] * len(columns)
            for j, row in zip(basis, inverse, strict=True):
                weights[j] = row[-1]
            return weights, prices
        step = [sum(x * y for x, y in zip(row, columns[enter], strict=True)) for row in inverse]
        positive = [k for k, s in enumerate(step) if s > 0]
        leave = min(positive, key=lambda k: (inverse[k][-1] / step[k], basis[k]))
        pivot = [x / step[leave] for x in inverse[leave]]
        inverse = [[x - s * y for x, y in zip(row, pivot, strict=True)]
                   for row, s in zip(inverse, step, strict=True)]  # fmt: skip
        inverse[leave], basis[leave] = pivot, enter


def _witness(rng, keys, said, open_, tolerance) -> str | None:
    i = int(rng.integers(len(keys)))
    reason = witness(keys, i)
    points = [[Fraction(float(x)) for x in row] for row in keys]
    if said[i] != (reason.query is not None):
        return f"the witness of key {i} is of the other kind"
    if said[i]:
        q = [Fraction(float(x)) for x in reason.query]
        if abs(float(sum(x * x for x in q)) - 1) > 1e-12:
            return f"the query of key {i} has another norm than 1"
        if _least(q, _vectors(keys, i)) <= 0:
            return f"the query of key {i} does not win"
        return None
    w = [Fraction(float(x)) for x in reason.weights]
    if min(w) < 0 or w[i] or abs(sum(w) - 1) > Fraction(1e-12):
        return f"the weights of key {i} are not convex"
    if sum(x > 0 for x in w) > keys.shape[1] + 1:
        return f"more than d + 1 weights of key {i}"
    off = [sum(x * p[c] for x, p in zip(w, points, strict=True)) - sum(w) * points[i][c]
           for c in range(keys.shape[1])]  # fmt: skip
    near = Fraction(2 * tolerance) ** 2 * _size_squared(points)
    if not open_[i] and sum(x * x for x in off) > near:
        return f"the weights of key {i} do not reproduce it"
    return None


def _size_squared(points) -> Fraction:
    n, d = len(points), len(points[0])
    mean = [sum(p[c] for p in points) / n for c in range(d)]
    return max(sum((p[c] - mean[c]) ** 2 for c in range(d)) for p in points)


# --- margins --------------------------------------------------------------------------------------


def _margin(rng, keys, tolerance) -> tuple[str | None, float | None]:
    """Of one key: its distance to the hull of the others; or, in the hull, to its boundary."""
    points = [[Fraction(float(x)) for x in row] for row in keys]
    size = _size_squared(points)
    if size == 0:
        return None, None
    i = int(rng.integers(len(keys)))
    squared = _distance_squared(_vectors(keys, i))
    exact = _root(squared / size)
    if not squared:
        exact = -_depth(points, i, size)
    said = float(margins(keys)[i])
    value = float(np.sign(said)) * _root(Fraction(said) ** 2 / size)
    error = abs(value - exact)
    if error > 2 * tolerance:
        return f"the margin of key {i} is {value} of the size, not {exact}", error
    return None, error if tolerance < 1e-9 else None


def _root(x: Fraction) -> float:
    """The square root of a rational number, at any scale that a float's root has."""
    if x == 0:
        return 0.0
    power = (x.numerator.bit_length() - x.denominator.bit_length()) // 2
    return float(Fraction(float(x / Fraction(4) ** power) ** 0.5) * Fraction(2) ** power)


def _distance_squared(vectors) -> Fraction:
    """The least |sum w a|^2 over convex weights: the nearest of the affine hulls' nearest points
    that have positive weights, over all subsets of at most d + 1 vectors."""
    best = min(sum(x * x for x in a) for a in vectors)
    for size in range(2, min(len(vectors), len(vectors[0]) + 1) + 1):
        for subset in combinations(vectors, size):
            weights = _affine_weights(subset)
            if weights is not None and min(weights) >= 0:
                near = [sum(w * a[c] for w, a in zip(weights, subset, strict=True))
                        for c in range(len(vectors[0]))]  # fmt: skip
                best = min(best, sum(x * x for x in near))
    return best


def _affine_weights(subset):
    """Weights of sum 1 of the point of the affine hull nearest to 0; None if dependent."""
    base, *rest = subset
    edges = [[x - y for x, y in zip(a, base, strict=True)] for a in rest]
    matrix = [[_dot(e, f) for f in edges] + [-_dot(e, base)] for e in edges]
    found = _solve(matrix)
    return None if found is None else [1 - sum(found), *found]


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _solve(matrix):
    """Gauss's elimination on (A, b); None where A is singular."""
    m = len(matrix)
    matrix = [row[:] for row in matrix]
    for k in range(m):
        pivot = next((r for r in range(k, m) if matrix[r][k]), None)
        if pivot is None:
            return None
        matrix[k], matrix[pivot] = matrix[pivot], matrix[k]
        for r in range(m):
            if r != k and matrix[r][k]:
                factor = matrix[r][k] / matrix[k][k]
                matrix[r] = [x - factor * y for x, y in zip(matrix[r], matrix[k], strict=True)]
    return [matrix[k][m] / matrix[k][k] for k in range(m)]


def _depth(points, i, size) -> float:
    """The distance of point i from the boundary of the hull, over the size: the least over all
    planes through d of the points that have all of them on one side. 0 if the hull is flat."""
    d = len(points[0])
    best = None
    for subset in combinations(range(len(points)), d):
        normal = _normal([points[j] for j in subset])
        if normal is None:
            continue
        sides = [_dot(normal, p) - _dot(normal, points[subset[0]]) for p in points]
        if min(sides) >= 0 or max(sides) <= 0:
            squared = sides[i] ** 2 / _dot(normal, normal)
            best = squared if best is None else min(best, squared)
    return 0.0 if best is None else _root(best / size)


def _normal(corners):
    """A vector orthogonal to the differences of d points of R^d; None if it is not unique."""
    base, *rest = corners
    d = len(base)
    edges = [[x - y for x, y in zip(a, base, strict=True)] for a in rest]
    for c in range(d):  # with entry c equal to 1
        matrix = [[e[k] for k in range(d) if k != c] + [-e[c]] for e in edges]
        if (rest_of := _solve(matrix)) is not None:
            return [*rest_of[:c], Fraction(1), *rest_of[c:]]
    return None
