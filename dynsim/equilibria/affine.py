"""Tokens whose equation is linear up to the norm: all their solutions by linear algebra.

If attention gives a token x the output x B + c before the norm (its own weight in the average does
not depend on x: M = 0, or it sees itself alone), an equilibrium solves n x = x B + c with |x| = 1
and n > 0; a sign flip has n < 0. WU's Jordan family is the case of n an eigenvalue of B.
"""

from __future__ import annotations

import numpy as np

__all__ = ["clustered", "solutions"]

#: Singular values and misfits below this share are zeros.
_ZERO = 1e-11


def solutions(B: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Candidates for all unit x with n x = x B + c for some real n: (count, d).

    Where n is no eigenvalue of B, x = c (n - B)^-1 and |x| = 1 turns into the quadratic eigenvalue
    problem (n - B^T)(n - B) p = c^T c p (Gander, Golub and von Matt, Linear Algebra Appl. 114,
    1989, for symmetric B). Where n is one, x is any solution of x (n - B) = c plus what is needed
    of the left null space; of a null space of several dimensions, its axes are taken.

    >>> solutions(np.diag([2.0, 1.0]), np.zeros(2))  # eigenvectors, of either sign
    array([[ 1.,  0.],
           [-1.,  0.],
           [ 0.,  1.],
           [ 0., -1.]])
    """
    d = len(B)
    scale = float(np.linalg.norm(B, 2) + np.linalg.norm(c))
    if scale == 0:
        return np.empty((0, d))
    candidates = []
    for n in clustered(np.linalg.eigvals(B), scale):
        candidates += _at_eigenvalue(B, c, n)
    if not c.any():
        return np.array(candidates).reshape(-1, d)
    companion = np.block([[np.zeros((d, d)), np.eye(d)], [np.outer(c, c) - B.T @ B, B + B.T]])
    candidates += [_improved(B, c, n) for n in clustered(np.linalg.eigvals(companion), scale)]
    return np.array(candidates).reshape(-1, d)


def _improved(B: np.ndarray, c: np.ndarray, n: float) -> np.ndarray:
    """x = c (n - B)^-1, made unit by Newton's method for 1 / |x(n)| = 1, nearly linear in n."""
    x = c
    for _ in range(12):
        shifted = (n * np.eye(len(B)) - B).T
        if np.linalg.cond(shifted) > 1 / _ZERO:
            break
        x = np.linalg.solve(shifted, c)
        size = np.linalg.norm(x)
        slope = x @ np.linalg.solve(shifted, x) / size**3
        if abs(slope) < _ZERO:
            break
        n -= (1 / size - 1) / slope
    return x / np.linalg.norm(x)


def clustered(values: np.ndarray, scale: float) -> list[float]:
    """The real ones of some eigenvalues, each once, and the means of clusters of them.

    A defective eigenvalue comes out as a ring of radius eps^(1/size) around it, whose mean is
    accurate.

    >>> clustered(np.array([1.0 + 1e-9j, 1.0 - 1e-9j, 3.0]), scale=3.0)
    [3.0, 1.0]
    """
    real: list[float] = []
    eps = len(values) * np.finfo(float).eps
    for width in scale * eps ** (1.0 / np.arange(1, len(values) + 1)):
        rest = list(values)
        while rest:
            cluster, added = [rest.pop(0)], True
            while added:
                near = [v for v in rest if min(abs(v - u) for u in cluster) <= width]
                rest = [v for v in rest if v not in near]
                cluster, added = cluster + near, bool(near)
            mean = np.mean(cluster)
            if abs(mean.imag) <= width and all(abs(mean.real - n) > eps * scale for n in real):
                real.append(float(mean.real))
    return real


def _at_eigenvalue(B: np.ndarray, c: np.ndarray, n: float) -> list[np.ndarray]:
    """Unit x with x (n - B) = c, for an eigenvalue n of B."""
    shifted = (n * np.eye(len(B)) - B).T
    u, s, vt = np.linalg.svd(shifted)
    free = s <= _ZERO * max(s[0], np.linalg.norm(B, 2))
    if not free.any():
        return []
    regular = ~free
    x = vt[regular].T @ ((u.T[regular] @ c) / s[regular])
    if np.linalg.norm(shifted @ x - c) > 1e-10 * np.maximum(np.linalg.norm(c), 1e-300) or x @ x > 1:
        return []
    missing = np.sqrt(1 - x @ x)
    return [x + sign * missing * v for v in vt[free] for sign in (1.0, -1.0)]
