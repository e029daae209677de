"""Transient growth of powers of a matrix: what its eigenvalues do not tell.

Trefethen and Embree, Spectra and Pseudospectra (2005), chapters 14-18. For a matrix B with spectral
radius at most 1, K(B) <= max_k ||B^k||_2 <= e n K(B), K the Kreiss constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from dynsim._spectra import bounded_eigenvalues
from dynsim._values import real_array, whole
from dynsim.masks.networkx_view import compile_layout
from dynsim.masks.walk import uniform_walk

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Growth", "deviation_walk", "kreiss_constant", "transient_growth"]

#: Directions and distances from the unit circle at which the resolvent is first looked at, and how
#: many of the largest eigenvalues give directions too.
_ANGLES = np.linspace(0.0, np.pi, 9)
_DISTANCES = np.logspace(-4, 1, 11)
_EIGENVALUES = 4
_EPS = float(np.finfo(np.float64).eps)
#: Tokens up to which the walk is treated as a dense matrix.
_DENSE_LIMIT = 2000


def deviation_walk(graph: nx.DiGraph) -> np.ndarray:
    """(I - 1 1^T / N) P, P the uniform walk: what one layer does to the deviations from the mean.

    For M = 0 and W_V = I, mu(X_t) = ||B^t (X_0 - 1 mean)||_F exactly, B this matrix, (N, N).

    Raises ValueError for more tokens than dense matrices are taken of.

    >>> from dynsim import masks
    >>> deviation_walk(masks.causal(2))
    array([[ 0.25, -0.25],
           [-0.25,  0.25]])
    """
    n = compile_layout(graph).n_tokens
    if n > _DENSE_LIMIT:
        raise ValueError(f"transient growth is for {_DENSE_LIMIT} tokens at most; got {n}")
    walk = uniform_walk(graph).toarray()
    return walk - walk.mean(axis=0)


@dataclass(frozen=True)
class Growth:
    """The largest ||B^k||_2 over k >= 0, at `power`; a lower bound unless `complete`."""

    factor: float
    power: int
    complete: bool

    def __str__(self) -> str:
        least = "" if self.complete else "at least "
        return f"powers grow to norm {least}{self.factor:.4g}, at power {self.power}"


def transient_growth(matrix: ArrayLike, limit: int = 1000) -> Growth:
    """max_k ||B^k||_2 of B (N, N), from all powers up to the first with norm below 1: no later one
    is larger. Stops at B^limit where there is none.

    Rounding moves the k-th power by at most N eps ||B||_F sum_{j<k} ||B^j|| ||B^(k-1-j)||, to first
    order, and a norm counts as below 1 when it is by more than that.

    Raises ValueError unless B is a square matrix of finite numbers.

    >>> print(transient_growth([[0.5, 4.0], [0.0, 0.5]]))
    powers grow to norm 4.062, at power 1
    """
    matrix, limit = _square(matrix), whole("largest power", limit, least=1)
    power, best, at, norms = np.eye(len(matrix)), 1.0, 0, np.ones(limit + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        unit = len(matrix) * _EPS * np.linalg.norm(matrix)
        for k in range(1, limit + 1):
            power = power @ matrix
            if not np.isfinite(power).all():
                break
            norm = norms[k] = float(np.linalg.norm(power, 2))
            if norm > best:
                best, at = norm, k
            if norm + unit * np.dot(norms[:k], norms[k - 1 :: -1]) < 1.0:
                return Growth(best, at, True)
    return Growth(best, at, False)


def kreiss_constant(matrix: ArrayLike) -> float:
    """K(B) = sup over |z| > 1 of (|z| - 1) ||(z - B)^-1||_2, for a real matrix B (N, N).

    At least 1, which is the limit of z to infinity; inf where an eigenvalue lies outside the unit
    circle by more than its error (`dynsim._spectra`). Equal to sup over epsilon > 0 of
    (rho_epsilon(B) - 1) / epsilon with the pseudospectral radius rho_epsilon, and by the Kreiss
    matrix theorem K(B) <= max_k ||B^k||_2 <= e N K(B) (Trefethen and Embree, Spectra and
    Pseudospectra, section 18).

    The best of a grid of z in the upper half plane, improved by a local search: a lower bound,
    rounding of the singular value included, and mostly right to six digits. O(N^3) for each of some
    200 z.

    Raises ValueError unless B is a square matrix of finite numbers.

    >>> round(kreiss_constant([[0.5, 4.0], [0.0, 0.5]]), 3)
    2.125
    """
    from scipy.optimize import minimize

    matrix = _square(matrix)
    identity, (eigenvalues, errors) = np.eye(len(matrix)), bounded_eigenvalues(matrix)
    if np.any(np.abs(eigenvalues) - errors > 1.0):
        return np.inf
    eigenvalues = eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")]
    size = np.linalg.norm(matrix)

    def negative(point: tuple[float, float] | np.ndarray) -> float:
        distance = np.exp(point[0])
        z = (1.0 + distance) * np.exp(1j * point[1])
        rounding = len(matrix) * _EPS * (abs(z) + size)
        return -distance / (np.linalg.norm(z * identity - matrix, -2) + rounding)

    angles = {*_ANGLES, *np.abs(np.angle(eigenvalues[:_EIGENVALUES]))}
    grid = [(np.log(distance), angle) for distance in _DISTANCES for angle in sorted(angles)]
    start = min(grid, key=negative)
    optimum = minimize(
        negative, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}
    )
    return max(1.0, -float(optimum.fun))


def _square(matrix: ArrayLike) -> np.ndarray:
    matrix = real_array("the matrix", matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"powers are of a square matrix, (N, N); got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError("powers are of a matrix of finite numbers; it has NaN or infinity")
    return matrix
