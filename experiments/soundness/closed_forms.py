"""Equilibria in closed form."""

from __future__ import annotations

import mpmath
import numpy as np
from mpmath import mpf

from dynsim.equilibria import construct
from experiments.soundness.storm import Outcome

STATEMENT = (
    "equilibria in closed form exist where they are given, lie within rounding of the true ones, "
    "and are refused where there are none"
)
REFEREE = "mpmath with 60 digits: the same equations solved anew, and one layer applied to them"
SYSTEMS = 3000

_ROUNDING = mpf(2) ** -49


def trial(rng: np.random.Generator) -> Outcome:
    kind = str(rng.choice(list(_FAMILIES)))
    with mpmath.workdps(60):
        said, true, layer, slack, detail = _FAMILIES[kind](rng)
        if said is None or true is None:
            good = said is None and true is None
            return Outcome("holds" if good else "violated", f"{kind}, refused", detail)
        if len(said) != len(true):
            return Outcome("violated", kind, f"{len(said)} of {len(true)} equilibria, {detail}")
        if max(_apart(layer(x), x) for x in true) > mpf(10) ** -25:
            return Outcome("violated", kind, f"the formula is no equilibrium, {detail}")
        worst = max(min(_apart(s, x) for x in true) for s in said)
    if worst > slack:
        return Outcome("violated", kind, f"{mpmath.nstr(worst, 5)} from the true one, {detail}")
    return Outcome("holds", kind, error=float(worst / slack))


def _apart(x, y):
    return max(
        abs(mpf(a) - b) for p, q in zip(x, y, strict=True) for a, b in zip(p, q, strict=True)
    )


def _call(make, *values):
    try:
        return make(*values).tolist()
    except ValueError:
        return None


def _near(rng, edge: float) -> float:
    """A number at, or on either side of, an edge."""
    side = rng.choice([-1.0, 0.0, 1.0, 1.0, 1.0])
    return float(edge * (1 + side * 10.0 ** rng.uniform(-16, 1)))


def _layer(W_V, weights):
    """x -> rows of the weights(x) times x W_V, over their norms."""

    def apply(x):
        rows = weights(x)
        mixed = [[sum(w * p[c] for w, p in zip(row, x, strict=False)) for c in range(len(x[0]))]
                 for row in rows]  # fmt: skip
        out = [[sum(p[k] * W_V[k][c] for k in range(len(p))) for c in range(len(p))] for p in mixed]
        sizes = [mpmath.sqrt(sum(v * v for v in p)) for p in out]
        return [[v / size for v in p] for p, size in zip(out, sizes, strict=True)]

    return apply


def _causal(x):
    return [[mpf(1) / (i + 1)] * (i + 1) for i in range(len(x))]


def _jordan(rng):
    n = int(rng.integers(1, 6))
    rank = int(rng.integers(1, n + 1))
    first = n - rank + 1
    w = _near(rng, float(first)) * rng.choice([1, -1]) * rng.choice([1.0, 1.0, 1e9, 1e150])
    detail = f"n {n}, w {w!r}, rank {rank}"
    said = _call(construct.jordan_family, n, w, rank)
    if rank > 1 and abs(w) <= first:
        return said, None, None, None, detail
    W_V = [[mpf(i == j) + mpf(w) * (j == i + 1) for j in range(n)] for i in range(n)]
    true = []
    for number in range(2**rank):
        signs = [1 - 2 * (number >> k & 1) for k in range(rank)]
        x = [[mpf(0)] * (n - 1) + [mpf(signs[0])]] * first
        for i in range(first, n):
            beta = first if i == first else 1
            rest = [-beta * v / mpf(w) for v in x[-1][1:]]
            x = [*x, [*rest, signs[i - first + 1] * mpmath.sqrt(1 - sum(v * v for v in rest))]]
        true.append(x)
    return said, true, _layer(W_V, _causal), _ROUNDING, detail


def _hyperbolic(rng):
    a = float(rng.choice([rng.uniform(0, 1), 10.0 ** rng.uniform(-15, -1), 1 - 1e-9]))
    c = _near(rng, (a * (2 - a)) ** 0.5) * rng.choice([1, -1]) * rng.choice([1.0, 1.0, 1e9, 1e200])
    detail = f"a {a!r}, c {c!r}"
    said = _call(construct.hyperbolic_pair, a, c)
    normal = [mpf(c), 1 - mpf(a)]
    squared = normal[0] ** 2 + normal[1] ** 2
    if squared <= 1:
        return said, None, None, None, detail
    true = []
    for sign in (1, -1):
        t = sign * mpmath.sqrt(squared - 1) / squared
        second = [-normal[0] / squared - t * normal[1], -normal[1] / squared + t * normal[0]]
        true.append([[mpf(0), mpf(1)], second])
    W_V = [[mpf(a), mpf(c)], [mpf(0), mpf(1)]]
    return said, true, _layer(W_V, _causal), _ROUNDING, detail


def _complete(rng):
    v = float(1 + 10.0 ** rng.uniform(-15, 8))
    m = _near(rng, float(mpmath.atanh(1 / mpf(v)))) * rng.choice([1.0, 1e5])
    detail = f"m {m!r}, v {v!r}"
    said = _call(construct.complete_pair, m, v)
    squared = mpmath.atanh(1 / mpf(v)) / mpf(m)
    left = 1 - squared if m > 0 else mpf(-1)
    if left <= mpf(10) ** -14 and (left <= 0 or said is None):  # refused also within rounding
        return said, None, None, None, detail
    c1, c2 = mpmath.sqrt(left), mpmath.sqrt(squared)
    true = [[c1, c2], [c1, -c2]]

    def weights(x):
        scores = [[p[1] * q[1] * mpf(m) for q in x] for p in x]
        shares = [[mpmath.exp(s) for s in row] for row in scores]
        return [[s / sum(row) for s in row] for row in shares]

    W_V = [[mpf(1), mpf(0)], [mpf(0), mpf(v)]]
    slack = _ROUNDING + mpf(10) ** -15 / c1
    return said and [said], [true], _layer(W_V, weights), slack, detail


_FAMILIES = {"jordan": _jordan, "hyperbolic": _hyperbolic, "complete": _complete}
