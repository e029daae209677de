"""Dobrushin's coefficient of a row-stochastic matrix."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dynsim.collapse.bounds import dobrushin
from experiments.soundness.storm import Outcome

STATEMENT = (
    "Dobrushin's coefficient is that of its definition to rounding, and P brings no two points "
    "further apart than it says"
)
REFEREE = "exact rationals: the largest half 1-norm of a difference of rows, and random points"
SYSTEMS = 3000


def trial(rng: np.random.Generator) -> Outcome:
    n = int(rng.integers(1, 8))
    kind = str(rng.choice(list(_ROWS)))
    P = _ROWS[kind](rng, n)
    P = P / P.sum(axis=1, keepdims=True)
    said = Fraction(float(dobrushin(P)))
    rows = [[Fraction(v) for v in row] for row in P.tolist()]
    true = max(sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2 for p in rows for q in rows)
    error = abs(said - true)
    detail = f"{float(said)} for {P.tolist()}, {float(true)} by the definition"
    if error > Fraction(n) * Fraction(2) ** -52:
        return Outcome("violated", kind, detail)
    x = [Fraction(int(v)) for v in rng.integers(-9, 10, n)]
    y = [sum(a * b for a, b in zip(row, x, strict=True)) for row in rows]
    drift = max(abs(sum(row) - 1) for row in rows) * max(map(abs, x))  # rows that sum to 1 + eps
    if max(y) - min(y) > (said + error) * (max(x) - min(x)) + 2 * drift:
        return Outcome("violated", kind, f"{detail}; points {x}")
    return Outcome("holds", kind, error=float(error))


def _softmax(rng, n):
    scores = rng.standard_normal((n, n)) * 10.0 ** rng.uniform(-8, 3)
    return np.exp(scores - scores.max(axis=1, keepdims=True))


def _masked(rng, n):
    mask = rng.random((n, n)) < 0.4
    return _softmax(rng, n) * (mask | np.eye(n, dtype=bool)) + 0.0


_ROWS = {
    "softmax": _softmax,
    "masked": lambda rng, n: np.maximum(_masked(rng, n), np.eye(n) * 1e-300),
    "uniform": lambda rng, n: np.tril(np.ones((n, n))),
    "permutation": lambda rng, n: np.eye(n)[rng.integers(0, n, n)],
    "equal": lambda rng, n: np.tile(_softmax(rng, n)[:1], (n, 1)),
    "nearly equal": lambda rng, n: 1.0 + rng.integers(0, 3, (n, n)) * 2.0**-52,
    "tiny": lambda rng, n: np.eye(n) + 10.0 ** rng.uniform(-320, -5, (n, n)),
}
