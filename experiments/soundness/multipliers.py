"""Eigenvalues with their errors, the growth of powers, and Kreiss constants."""

from __future__ import annotations

from itertools import permutations

import mpmath
import numpy as np
from mpmath import mpf

from dynsim._spectra import bounded_eigenvalues
from dynsim.collapse.transient import kreiss_constant, transient_growth
from experiments.soundness.storm import Outcome

STATEMENT = (
    "every eigenvalue is within its error (in units of that); growth said to be complete is the "
    "largest of all powers; the Kreiss constant is a lower bound, infinite only if powers grow"
)
REFEREE = "mpmath with 120 and 40 digits: eigenvalues, powers and resolvents of the very numbers"
SYSTEMS = 1500


def trial(rng: np.random.Generator) -> Outcome:
    n = int(rng.integers(1, 5))
    kind = str(rng.choice(list(_MATRICES)))
    B = _MATRICES[kind](rng, n)
    with mpmath.workdps(120):  # a defective eigenvalue of order 4 keeps a quarter of them
        exact = mpmath.matrix(B.tolist())
        true = mpmath.eig(exact, left=False, right=False) if n > 1 else [exact[0]]
    with mpmath.workdps(40):
        problem, error = _eigenvalues(B, true)
        if problem is None and rng.random() < 0.3:
            radius = max(map(abs, true))
            problem = _growth(B, exact, radius) or _kreiss(rng, B, exact, radius)
    if problem is not None:
        return Outcome("violated", kind, f"{problem}; matrix {B.tolist()}")
    return Outcome("holds", kind, error=error)


def _turned(rng, B):
    Q = np.linalg.qr(rng.standard_normal(B.shape))[0]
    return Q @ B @ Q.T


def _jordan(rng, n):
    value, link = rng.choice([0.5, 0.9, -0.99, 1.0]), 10.0 ** rng.uniform(-2, 4)
    return np.eye(n) * value + np.eye(n, k=1) * link


def _clustered(rng, n):
    values = rng.choice([0.5, 0.9]) + rng.standard_normal(n) * 10.0 ** rng.uniform(-12, -1)
    return np.diag(values) + np.triu(rng.standard_normal((n, n)), 1)


def _normal(rng, n):
    return _turned(rng, np.diag(rng.choice([1.0, -1.0, 0.5, 0.0], n)))


def _graded(rng, n):
    scales = 10.0 ** rng.uniform(-6, 6, n)
    return rng.standard_normal((n, n)) * 0.4 * scales[:, None] / scales


def _permutation(rng, n):
    return np.eye(n)[rng.permutation(n)] * (1 + rng.integers(-2, 2) * 2.0**-52)


def _companion(rng, n):
    return np.eye(n, k=1) + np.outer(np.eye(n)[-1], rng.integers(-2, 3, n)) / 2


_MATRICES = {
    "random": lambda rng, n: rng.standard_normal((n, n)) * 0.5,
    "Jordan": _jordan,
    "Jordan, turned": lambda rng, n: _turned(rng, _jordan(rng, n)),
    "clustered": _clustered,
    "clustered, turned": lambda rng, n: _turned(rng, _clustered(rng, n)),
    "normal": _normal,
    "graded": _graded,
    "permutation": _permutation,
    "companion": _companion,
    "scaled": lambda rng, n: rng.standard_normal((n, n)) * 10.0 ** rng.uniform(-150, 150),
    "zeros": lambda rng, n: rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.4),
}  # fmt: skip


def _eigenvalues(B, true) -> tuple[str | None, float | None]:
    """Some pairing brings each eigenvalue within its error of a true one of its own."""
    values, errors = bounded_eigenvalues(B)
    said = [mpmath.mpmathify(complex(v)) for v in values]
    tight = mpf(10) ** -25 * max(map(abs, true)) + mpf(10) ** -320  # of the truth itself
    slack = [mpf(float(e)) + tight for e in errors]
    ratios = [[abs(s - t) / e for t in true] for s, e in zip(said, slack, strict=True)]
    ratio = min(max(ratios[k][j] for k, j in enumerate(order))
                for order in permutations(range(len(true))))  # fmt: skip
    if ratio > 1:
        return f"eigenvalues {values} with errors {errors}, not {true}", None
    return None, float(ratio)


def _norm(A):
    """The largest singular value."""
    if not any(A):
        return mpf(0)
    return mpmath.sqrt(max(mpmath.eigsy(A.T * A, eigvals_only=True)))


def _growth(B, exact, radius) -> str | None:
    if not mpf(10) ** -30 < radius < mpf(10) ** 30:
        return None
    said = transient_growth(B, 200)
    power, best, sizes = mpmath.eye(len(B)), mpf(1), [mpf(1)]
    for _ in range(1, 40):
        power = power * exact
        size = _norm(power)
        best, sizes = max(best, size), [*sizes, size]
        if size < 1:
            break
    if said.complete and radius >= 1:
        return f"{said}, and no later one is larger, for a spectral radius of {radius}"
    slack = 2 * len(B) * 2.3e-16 * mpf(np.linalg.norm(B)) * sum(sizes) * best
    if said.complete and mpf(said.factor) < best - slack:
        return f"{said}, but one is {best}"
    if size < 1 and mpf(said.factor) > best + slack:
        return f"{said}, but none is above {best}"
    return None


def _kreiss(rng, B, exact, radius) -> str | None:
    said = kreiss_constant(B)
    if np.isinf(said):
        return None if radius > 1 else f"an infinite constant with spectral radius {radius}"
    if radius > 1 + mpf(10) ** -6:
        return f"the constant {said} with spectral radius {radius}" if said < 1 else None
    # an upper bound: the largest power, where powers fall
    power, best = mpmath.eye(len(B)), mpf(1)
    for _ in range(60):
        power = power * exact
        size = _norm(power)
        best = max(best, size)
        if size < 1:
            return None if mpf(said) <= best * (1 + mpf(10) ** -9) else f"{said} above {best}"
    return None
