"""Certificates of equilibria: honest, forged and perturbed files against zeros to 70 digits.

A system with an equilibrium, or a state with x' = -x, is made in closed form or by Newton's method;
its certificate is then left as it is or made worse: a rank too high, a box beside the zero, a
radius down to 1e-64 or up to .3, tokens that are moved, a sign or a side of 1 exchanged, other
matrices. Whatever `check` says is proved is compared with the zero that Newton's method finds in
mpmath, its rank by elimination and its multipliers from difference quotients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import mpmath
import numpy as np

from dynsim.equilibria import check
from experiments.soundness.storm import Outcome

STATEMENT = "whatever is proved of a certificate is true: the zero is there, it alone, its rank, \
the side of 1 of its spectral radius"
REFEREE = (
    "mpmath with 100 digits: the layer, Newton's method, elimination and eigenvalues of its own"
)
SYSTEMS = 100_000

_MP = mpmath.MPContext()
_MP.dps = 100
#: Newton's method ends at residuals below _SMALL; the zero is then known to _KNOWN, and its slope
#: to _STEP. What lies nearer to a border is beyond the referee, which then raises an error.
_SMALL, _KNOWN, _STEP = (_MP.mpf(10) ** -k for k in (90, 70, 45))


# --- the layer, in floats and in digits ---------------------------------------------------------


class _Arithmetic(NamedTuple):
    """Functions of arrays, and the step of difference quotients."""

    exp: Callable
    sqrt: Callable
    inverse: Callable
    step: object


def _inverse(A):
    return np.array(_MP.inverse(_MP.matrix(A.tolist())).tolist(), object).reshape(A.shape)


_FLOATS = _Arithmetic(np.exp, np.sqrt, np.linalg.inv, 1e-7)
_DIGITS = _Arithmetic(np.frompyfunc(_MP.exp, 1, 1), np.frompyfunc(_MP.sqrt, 1, 1), _inverse,
                      _STEP)  # fmt: skip
_exactly = np.frompyfunc(_MP.mpf, 1, 1)


@dataclass(frozen=True)
class _System:
    """Tokens under attention and unit norm; `x`, tokens (N, d), is near a zero of F(x) - sign x."""

    allowed: np.ndarray
    M: np.ndarray
    W_V: np.ndarray
    x: np.ndarray
    sign: int

    def layer(self, x, arithmetic):
        """F(x): sum_h A x W_V, A the softmax of x M x^T where allowed, rows to length 1."""
        y = 0
        for M, W in zip(self.M, self.W_V, strict=True):
            scores = np.where(self.allowed, x @ M @ x.T, -np.inf)
            A = arithmetic.exp(scores - scores.max(axis=1, keepdims=True))
            y = y + (A / A.sum(axis=1, keepdims=True)) @ x @ W
        return _unit(y, arithmetic)

    def slope(self, x, arithmetic):
        """Tangents Q (m, N d) of the spheres at unit x, and Q DF(x) Q^T by differences.

        As F(x) has rows of length 1, all multipliers of a zero but 0 are among those on tangents.
        """
        Q, y, h = _tangents(x), self.layer(x, arithmetic), arithmetic.step
        moved = [self.layer(x + q.reshape(x.shape) * h, arithmetic) for q in Q]
        changes = np.array([(z - y).ravel() / h for z in moved]).reshape(Q.shape)
        return Q, Q @ changes.T

    def newton(self, x, arithmetic, steps, tolerance):
        """The zero that Newton's method finds from x, or None; a slope serves while steps win."""
        x, before = _unit(x, arithmetic), 0
        for _ in range(steps):
            excess = self.layer(x, arithmetic) - self.sign * x
            size = abs(excess).max()
            if size < tolerance:
                return x
            if not size < 1e-4 * before:
                Q, slope = self.slope(x, arithmetic)
                try:
                    inverse = arithmetic.inverse(slope - self.sign * np.eye(len(Q), dtype=int))
                except (ZeroDivisionError, np.linalg.LinAlgError):
                    return None
            step = inverse @ (Q @ excess.ravel()) @ Q
            x, before = _unit(x - step.reshape(x.shape), arithmetic), size
        return None


def _unit(y, arithmetic):
    return y / arithmetic.sqrt((y * y).sum(axis=1, keepdims=True))


def _tangents(x):
    """Orthonormal tangents of the spheres at unit x: columns of a reflection of e_k onto -+x."""
    n, d = x.shape
    found = []
    for i, row in enumerate(x):
        k = int(np.argmax(abs(row)))
        v = row.copy()
        v[k] += 1 if row[k] > 0 else -1
        for j in (j for j in range(d) if j != k):
            q = np.zeros((n, d), x.dtype)
            q[i] = -v * (v[j] / (1 + abs(row[k])))  # v.v / 2 = 1 + |x_k|
            q[i, j] += 1
            found.append(q.ravel())
    return np.array(found, x.dtype).reshape(-1, n * d)


# --- systems with a zero ------------------------------------------------------------------------


def _mask(rng, n):
    kind = rng.integers(3)
    if kind == 0:
        return np.ones((n, n), bool)
    if kind == 1:
        return np.tri(n, dtype=bool)
    return np.eye(n, dtype=bool) | (rng.random((n, n)) < 0.5)


def _scores(rng, heads, d, sizes=(0.0, 1.0, 5.0, 20.0)):
    """M of bounded entries: what attention of e^-120 does is still above what is _KNOWN."""
    return rng.choice(sizes) * rng.uniform(-1, 1, (heads, d, d))


def _sizes(rng):
    sizes = [(2, 2), (1, 2), (3, 2), (2, 3), (1, 3), (2, 1), (3, 3)]
    n, d = sizes[rng.choice(7, p=[0.72, 0.12, 0.06, 0.015, 0.05, 0.03, 0.005])]
    return n, d, 1 + (rng.random() < 0.12)


def _eigenvalues(rng, d):
    """Of W_V: of order one, or two of nearly the same size, or one almost 0."""
    values = rng.uniform(0.3, 3.0, d) * rng.choice([-1, 1], d)
    kind = rng.integers(4)
    if kind == 0:
        values[-1] = values[0] * (1 + rng.choice([-1, 1]) * 10 ** -rng.uniform(1, 14))
    elif kind == 1:
        values[-1] *= 10 ** -rng.uniform(2, 20)
    return values


def _consensus(rng):
    """All tokens on an eigenvector of all W_V, often the top one: rank 1."""
    n, d, heads = _sizes(rng)
    values = np.array([_eigenvalues(rng, d) for _ in range(heads)])
    vectors = rng.standard_normal((d, d)) + np.eye(d)
    k = int(np.argmax(abs(values[0]))) if rng.random() < 0.7 else 0
    W_V = np.array([np.linalg.solve(vectors, value[:, None] * vectors) for value in values])
    x = np.tile(vectors[k] / np.linalg.norm(vectors[k]), (n, 1))
    return _System(_mask(rng, n), _scores(rng, heads, d), W_V, x, int(np.sign(values[:, k].sum())))


def _axis(rng):
    """The same on (1, 0, ..), which floats hold exactly, so that boxes may be of any size."""
    n, d, heads = _sizes(rng)
    W_V = rng.standard_normal((heads, d, d))
    W_V[:, 0, 1:] = 0.0
    W_V[:, 0, 0] *= rng.choice([1.0, 3.0])
    x = np.zeros((n, d))
    x[:, 0] = rng.choice([-1, 1])
    sign = int(np.sign(W_V[:, 0, 0].sum()))
    return _System(_mask(rng, n), _scores(rng, heads, d), W_V, x, sign)


def _designed(rng):
    """W_V for any tokens: A x W_V = diag(nu) x, the nu of one sign."""
    n, d, _ = _sizes(rng)
    n, sign = min(n, d), int(rng.choice([-1, 1]))
    x = rng.standard_normal((n, d))
    if rng.random() < 0.3:  # nearly in consensus, and W_V nearly singular
        x = x[0] + 10 ** -rng.uniform(1, 6) * x
    x = _unit(x, _FLOATS)
    blank = _System(_mask(rng, n), _scores(rng, 1, d, (1.0, 5.0, 20.0)), np.eye(d)[None], x, sign)
    scores = np.where(blank.allowed, x @ blank.M[0] @ x.T, -np.inf)
    A = np.exp(scores - scores.max(axis=1, keepdims=True))
    y = A / A.sum(axis=1, keepdims=True) @ x
    nu = sign * rng.uniform(0.3, 3.0, (n, 1))
    inverse = np.linalg.pinv(y)
    W = inverse @ (nu * x) + rng.choice([0, 1]) * (np.eye(d) - inverse @ y) @ rng.standard_normal(d)
    return replace(blank, W_V=W[None])


def _hyperbolic(rng):
    """Two tokens, causal, M = 0, W_V = [[a, c], [0, 1]]: a pair of equilibria of rank 2."""
    a, c = rng.uniform(0.0, 1.0), rng.uniform(1.0, 3.0)
    D = c**2 + (1 - a) ** 2
    y = (-(1 - a) + rng.choice([-1, 1]) * c * np.sqrt(D - 1)) / D
    x = np.array([[0.0, 1.0], [(-1 - (1 - a) * y) / c, y]])
    return _System(np.tri(2, dtype=bool), np.zeros((1, 2, 2)), np.array([[[a, c], [0, 1.0]]]), x, 1)


def _random(rng):
    """Any matrices; Newton's method after a few layers."""
    n, d, heads = _sizes(rng)
    M, W_V = _scores(rng, heads, d, (1.0, 5.0, 20.0)), rng.standard_normal((heads, d, d))
    x = _unit(rng.standard_normal((n, d)), _FLOATS)
    system = _System(_mask(rng, n), M, W_V, x, 1)
    for _ in range(6):
        before, x = x, system.layer(x, _FLOATS)
    system = replace(system, sign=1 if (before * x).sum() > 0 else -1)
    zero = system.newton(x, _FLOATS, 8, 1e-14)
    return replace(system, x=x if zero is None else zero)


_SYSTEMS = (_consensus, _axis, _designed, _hyperbolic, _random)
_SHARES = (0.35, 0.2, 0.23, 0.12, 0.1)


def _certificate(system) -> dict:
    """What is measured of a system, as an honest maker would write it."""
    slope = system.slope(_unit(system.x, _FLOATS), _FLOATS)[1]
    radius = max(abs(np.linalg.eigvals(slope)), default=0.0)
    return {
        "format": "dynsim equilibrium certificate 1",
        "allowed": system.allowed.astype(int).tolist(),
        "M": system.M.tolist(),
        "W_V": system.W_V.tolist(),
        "tokens": system.x.tolist(),
        "sign": system.sign,
        "radius": 1e-10,
        "rank": int(np.linalg.matrix_rank(system.x, tol=1e-9)),
        "spectral_radius": "< 1" if radius < 1 else "> 1",
    }


# --- forgeries ----------------------------------------------------------------------------------


def _power(rng, low, high):
    return float(10 ** -rng.uniform(low, high))


def _moved(rng, certificate, size):
    tokens = np.array(certificate["tokens"])
    certificate["tokens"] = (tokens + size * rng.uniform(-1, 1, tokens.shape)).tolist()


def _raise_rank(rng, c):
    c["rank"] = min(len(c["tokens"]), len(c["tokens"][0]))
    c["radius"] = _power(rng, 0.5, 16)


def _beside(rng, c):
    size = _power(rng, 1, 14)
    _moved(rng, c, size)
    c["radius"] = size * rng.uniform(1, 3)
    if rng.random() < 0.7:
        c["rank"] = min(len(c["tokens"]), len(c["tokens"][0]))


def _far_below(rng, c):
    """Entries that are 0 moved by amounts that only an exponent of their own holds."""
    size = _power(rng, 15, 40)
    _moved(rng, c, size)
    c["radius"] = size * _power(rng, -2, 2) if rng.random() < 0.8 else size * _power(rng, 2, 30)
    if rng.random() < 0.5:
        c["rank"] = min(len(c["tokens"]), len(c["tokens"][0]))


def _shrink(rng, c):
    c["radius"] = _power(rng, 12, 64)


def _widen(rng, c):
    c["radius"] = _power(rng, 0.5, 3)
    if rng.random() < 0.5:
        _moved(rng, c, c["radius"])


def _move(rng, c):
    c["radius"] = _power(rng, 1, 14)
    _moved(rng, c, c["radius"] * _power(rng, -2, 1))


def _flip_sign(rng, c):
    c["sign"] = -c["sign"]


def _flip_side(rng, c):
    c["spectral_radius"] = "> 1" if c["spectral_radius"] == "< 1" else "< 1"


def _perturb(rng, c):
    name, size = rng.choice(["M", "W_V"]), _power(rng, 2, 16)
    c[name] = (np.array(c[name]) * (1 + size * rng.standard_normal(np.shape(c[name])))).tolist()
    c["radius"] = _power(rng, 1, 14)


_FORGERIES = {
    "honest": lambda rng, c: None,
    "rank raised": _raise_rank,
    "box beside the zero": _beside,
    "box beside a zero on an axis": _far_below,
    "radius shrunk": _shrink,
    "radius widened": _widen,
    "tokens moved": _move,
    "sign flipped": _flip_sign,
    "side of 1 flipped": _flip_side,
    "matrices perturbed": _perturb,
}
_ODDS = (0.08, 0.14, 0.22, 0.1, 0.07, 0.13, 0.1, 0.04, 0.05, 0.07)


def trial(rng) -> Outcome:
    name = str(rng.choice(list(_FORGERIES), p=_ODDS))
    kind = _axis if "axis" in name else rng.choice(_SYSTEMS, p=_SHARES)
    certificate = _certificate(kind(rng))
    _FORGERIES[name](rng, certificate)
    proved = list(check(certificate).values())
    if not any(proved):
        return Outcome("flagged", name)
    refuted = _refuted(rng, certificate, proved)
    if refuted:
        return Outcome("violated", name, f"{refuted}: {certificate}")
    return Outcome("holds", f"{name}, {'all' if all(proved) else 'some'} claims proved")


# --- the referee --------------------------------------------------------------------------------


def _refuted(rng, c: dict, proved: list[bool]) -> str:
    """Which of the proved claims is false, in words; empty when none is."""
    arrays = (np.array(c[name]) for name in ("allowed", "M", "W_V", "tokens"))
    floats = _System(*arrays, c["sign"])
    floats = replace(floats, allowed=floats.allowed == 1)
    exact = replace(floats, M=_exactly(floats.M), W_V=_exactly(floats.W_V))
    zero = _zero(floats, exact, c["radius"])
    if zero is None:
        return "no zero in the box"
    if _another(rng, floats, exact, zero, c["radius"]):
        return "two zeros in the box"
    if proved[1] and _rank(zero) < c["rank"]:
        return "the rank is lower"
    if proved[2] and (_spectral_radius(exact, zero) < 1) != (c["spectral_radius"] == "< 1"):
        return "the spectral radius is on the other side"
    return ""


def _zero(floats, exact, radius):
    """The zero in the box, from floats or, where these lead elsewhere, from the tokens."""
    start = floats.newton(floats.x, _FLOATS, 8, 1e-13)
    for x in (floats.x if start is None else start, floats.x):
        zero = exact.newton(_exactly(x), _DIGITS, 20, _SMALL)
        if zero is not None and _is_within(zero, floats.x, radius):
            return zero
    return None


def _is_within(x, tokens, radius) -> bool:
    return abs(x - _exactly(tokens)).max() <= _MP.mpf(radius) + _KNOWN


def _another(rng, floats, exact, zero, radius) -> bool:
    """Whether Newton's method meets a second zero in the box, from places in a wide one."""
    if radius < 1e-3:
        return False
    for _ in range(3):
        start = floats.x + radius * rng.choice([-1, 1], floats.x.shape)
        found = floats.newton(start, _FLOATS, 8, 1e-12)
        if found is not None and abs(found - zero.astype(float)).max() > 1e-6:
            found = exact.newton(_exactly(found), _DIGITS, 20, _SMALL)
            if (found is not None and abs(found - zero).max() > _STEP
                    and _is_within(found, floats.x, radius)):  # fmt: skip
                return True
    return False


def _rank(x) -> int:
    """By elimination with the largest pivots."""
    x = x.copy()
    for rank in range(min(x.shape)):
        rest = abs(x[rank:, rank:])
        i, j = np.unravel_index(np.argmax(rest), rest.shape)
        pivot = rest[i, j]
        if pivot < _KNOWN:
            return rank
        if pivot < 1e5 * _KNOWN:
            raise ArithmeticError(
                f"the referee cannot tell the rank: a pivot is {_MP.nstr(pivot, 5)}"
            )
        x[[rank, rank + i]] = x[[rank + i, rank]]
        x[:, [rank, rank + j]] = x[:, [rank + j, rank]]
        below = x[rank + 1 :, rank] / x[rank, rank]
        x[rank + 1 :] = x[rank + 1 :] - below[:, None] * x[rank]
    return min(x.shape)


def _spectral_radius(exact, zero):
    slope = exact.slope(zero, _DIGITS)[1]
    if len(slope) < 2:  # mpmath's eig wants two rows
        values = slope.ravel()
    elif len(slope) == 2:  # quicker in closed form
        half, det = slope.trace() / 2, slope[0, 0] * slope[1, 1] - slope[0, 1] * slope[1, 0]
        root = _MP.sqrt(half**2 - det)
        values = half + root, half - root
    else:
        values = _MP.eig(_MP.matrix(slope.tolist()), left=False, right=False)
    radius = max((abs(value) for value in values), default=_MP.mpf(0))
    if abs(radius - 1) < 1e15 * _STEP:
        raise ArithmeticError(
            f"the referee cannot tell the side of 1: |multiplier| - 1 is {_MP.nstr(radius - 1, 5)}"
        )
    return radius
