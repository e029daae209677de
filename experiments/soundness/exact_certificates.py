"""Exact certificates of equilibria, honest, forged and perturbed, against the layer in 100 digits.

Systems: WU's Jordan family, as `certify` makes it, and consensus on a unit vector of rationals or
square roots under any mask. A forgery changes a coefficient (by as little as 1e-40), a square root,
the rank, the side of 1, the sign, the mask or the value matrix.
"""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np

from dynsim import equilibria
from experiments.soundness.storm import Outcome

STATEMENT = "whatever is proved of an exact certificate is true: x' = x or -x, the rank, the \
spectral radius below, at or above 1"
REFEREE = "mpmath with 100 digits: the layer, elimination, eigenvalues of difference quotients"
SYSTEMS = 20_000

_MP = mpmath.MPContext()
_MP.dps = 100
#: Residuals of what is exact; steps of difference quotients; what defective eigenvalues move by.
_ZERO, _STEP, _NEAR = (_MP.mpf(10) ** -k for k in (90, 50, 6))


def trial(rng: np.random.Generator) -> Outcome:
    certificate = _SYSTEMS[int(rng.integers(len(_SYSTEMS)))](rng)
    name = str(rng.choice(list(_FORGERIES)))
    _FORGERIES[name](rng, certificate)
    try:
        proved = list(equilibria.check(certificate).values())
    except ValueError:
        return Outcome("flagged", f"{name}, refused")
    if not any(proved):
        return Outcome("flagged", name)
    problem = _refuted(certificate, proved)
    if problem:
        return Outcome("violated", name, f"{problem}: {certificate}")
    return Outcome("holds", f"{name}, {'all' if all(proved) else 'some'} claims proved")


# --- systems --------------------------------------------------------------------------------------


def _family(rng) -> dict:
    n = int(rng.integers(2, 5))
    rank = int(rng.integers(1, n + 1))
    w = float(rng.choice([n + 0.5, rng.uniform(n + 0.01, 3 * n), 30.0])) * rng.choice([-1, 1])
    x = equilibria.jordan_family(n, w, rank)
    x = x[int(rng.integers(len(x)))]
    return equilibria.certify(equilibria.jordan_dynamics(n, w), x)


def _consensus(rng) -> dict:
    """x W = nu x for x = (sqrt p, sqrt(1 - p)) or of rationals; the other eigenvalue is any."""
    n = int(rng.integers(1, 4))
    other = Fraction(int(rng.integers(-8, 9)), 4)
    nu = Fraction(int(rng.choice([-1, 1])) * int(rng.integers(1, 9)), 4)
    if rng.random() < 0.5:
        p = Fraction(int(rng.integers(1, 9)), 9)
        roots, x = [p, 1 - p], [[0, 1, 0, 0], [0, 0, 1, 0]]
        if p == 1:
            roots, x = [], [[1], [0]]
        W = [[nu, 0], [0, nu]]
    else:
        a, b = [(3, 4), (5, 12), (8, 15), (1, 0)][rng.integers(4)]
        c = Fraction(1, round((a * a + b * b) ** 0.5))
        roots, u, v = [], a * c, b * c
        x = [[u], [v]]
        shear = Fraction(int(rng.integers(-4, 5)), 2)
        # rows: u (u, v) nu etc.; across, (-v, u) goes to other (-v, u) + shear (u, v)
        across = [other * -v + shear * u, other * u + shear * v]
        W = [[u * nu * u - v * across[0], u * nu * v - v * across[1]],
             [v * nu * u + u * across[0], v * nu * v + u * across[1]]]  # fmt: skip
    mask = np.eye(n, dtype=int) | (rng.random((n, n)) < 0.5)
    radius = max(abs(nu), abs(other if len(roots) == 0 and W[0] != [nu, 0] else nu)) / abs(nu)
    return {
        "format": equilibria.exact.FORMAT,
        "allowed": mask.astype(int).tolist(),
        "W_V": [[str(Fraction(q)) for q in row] for row in W],
        "radicands": [str(p) for p in roots],
        "tokens": [[[str(Fraction(q)) for q in entry] for entry in x]] * n,
        "sign": 1 if nu > 0 else -1,
        "rank": 1,
        "spectral_radius": "= 1" if abs(other) == abs(nu) or roots else "< 1" if radius <= 1
        else "> 1",
    }  # fmt: skip


_SYSTEMS = (_family, _consensus)


# --- forgeries ------------------------------------------------------------------------------------


def _change(rng, entries: list, k: int) -> None:
    size = Fraction(int(rng.choice([-1, 1])), 10 ** int(rng.integers(0, 41)))
    entries[k] = str(Fraction(entries[k]) + size)


def _move(rng, c):
    c["tokens"] = [[list(entry) for entry in row] for row in c["tokens"]]
    row = c["tokens"][rng.integers(len(c["tokens"]))]
    entry = row[rng.integers(len(row))]
    _change(rng, entry, int(rng.integers(len(entry))))


def _swap_roots(rng, c):
    c["radicands"] = c["radicands"][::-1]


def _change_root(rng, c):
    if c["radicands"]:
        _change(rng, c["radicands"], int(rng.integers(len(c["radicands"]))))


def _change_matrix(rng, c):
    row = c["W_V"][rng.integers(len(c["W_V"]))]
    _change(rng, row, int(rng.integers(len(row))))


def _change_mask(rng, c):
    n = len(c["allowed"])
    i, j = rng.integers(n, size=2)
    c["allowed"][i][j] = 1 - c["allowed"][i][j]


def _flip_coefficient(rng, c):
    c["tokens"] = [[[str(-Fraction(q)) if rng.random() < 0.2 else q for q in entry]
                    for entry in row] for row in c["tokens"]]  # fmt: skip


def _set(name, values):
    return lambda rng, c: c.update({name: values[int(rng.integers(len(values)))]})


_FORGERIES = {
    "honest": lambda rng, c: None,
    "tokens moved": _move,
    "coefficients flipped": _flip_coefficient,
    "square roots swapped": _swap_roots,
    "square root changed": _change_root,
    "matrix changed": _change_matrix,
    "mask changed": _change_mask,
    "another rank": _set("rank", [1, 2, 3, 4]),
    "another side of 1": _set("spectral_radius", ["< 1", "= 1", "> 1"]),
    "another sign": _set("sign", [1, -1]),
}


# --- the referee ----------------------------------------------------------------------------------


def _number(text: str):
    q = Fraction(text)
    return _MP.mpf(q.numerator) / q.denominator


def _refuted(c: dict, proved: list[bool]) -> str:
    """Which of the proved claims is false, in words; empty when none is."""
    roots = [_MP.sqrt(_number(p)) for p in c["radicands"]]
    products = [_MP.fprod(r for k, r in enumerate(roots) if S >> k & 1)
                for S in range(2 ** len(roots))]  # fmt: skip
    x = [[_MP.fdot(map(_number, entry), products) for entry in row] for row in c["tokens"]]
    W = [[_number(q) for q in row] for row in c["W_V"]]
    y = _layer(c["allowed"], W, x)
    flat = [v for row in x for v in row]
    if proved[0] and max(abs(a - c["sign"] * b) for a, b in zip(y, flat, strict=True)) > _ZERO:
        return "the tokens are no such state"
    if proved[1] and _rank(x) != c["rank"]:
        return "the rank is another"
    if proved[2]:
        size = _spectral_radius(c["allowed"], W, x)
        side = "= 1" if abs(size - 1) < _NEAR else "< 1" if size < 1 else "> 1"
        if side != c["spectral_radius"]:
            return f"the spectral radius is {_MP.nstr(size, 10)}"
    return ""


def _layer(allowed, W, x) -> list:
    """All entries of the tokens after a layer, row after row."""
    d, out = len(W), []
    for row in allowed:
        seen = [x[j] for j, v in enumerate(row) if v]
        mean = [_MP.fsum(p[a] for p in seen) / len(seen) for a in range(d)]
        y = [_MP.fsum(mean[a] * W[a][b] for a in range(d)) for b in range(d)]
        size = _MP.sqrt(_MP.fsum(v * v for v in y))
        out += [v / size for v in y]
    return out


def _rank(x) -> int:
    rows, rank = [list(row) for row in x], 0
    while rows and rows[0]:
        size, i, j = max((abs(v), i, j) for i, row in enumerate(rows) for j, v in enumerate(row))
        if size < _ZERO:
            break
        pivots, rank = rows.pop(i), rank + 1
        for k, row in enumerate(rows):
            factor = row[j] / pivots[j]
            rows[k] = [v - factor * p for v, p in zip(row, pivots, strict=True)]
        rows = [[v for c, v in enumerate(row) if c != j] for row in rows]
    return rank


def _spectral_radius(allowed, W, x):
    before, columns = _layer(allowed, W, x), []
    for i in range(len(x)):
        for a in range(len(W)):
            moved = [list(row) for row in x]
            moved[i][a] += _STEP
            after = _layer(allowed, W, moved)
            columns.append([(u - v) / _STEP for u, v in zip(after, before, strict=True)])
    try:
        values = _MP.eig(_MP.matrix(columns), left=False, right=False)
    except RuntimeError:  # QR may stall at defective eigenvalues; the quotients' error is larger
        shaken = [[v + _STEP**1.1 * ((7 * i + 3 * j) % 11 - 5) for j, v in enumerate(column)]
                  for i, column in enumerate(columns)]  # fmt: skip
        values = _MP.eig(_MP.matrix(shaken), left=False, right=False)
    return max(abs(value) for value in values)
