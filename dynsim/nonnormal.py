"""Transient growth of powers of a matrix: what its eigenvalues do not tell.

Trefethen and Embree, Spectra and Pseudospectra (2005), chapters 14-18. For a matrix B with spectral
radius at most 1, K(B) <= max_k ||B^k||_2 <= e n K(B), K the Kreiss constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np

from dynsim.walk import uniform_walk

__all__ = ["Growth", "deviation_walk", "kreiss_constant", "transient_growth"]

#: Directions and distances from the unit circle at which the resolvent is first looked at.
_ANGLES = np.linspace(0.0, np.pi, 13)
_DISTANCES = np.logspace(-4, 1, 16)
#: Tokens up to which the walk is treated as a dense matrix.
_DENSE_LIMIT = 2000


def deviation_walk(graph: nx.DiGraph) -> np.ndarray:
    """(I - 1 1^T / N) P, P the uniform walk: what one layer does to the deviations from the mean.

    For M = 0 and W_V = I, mu(X_t) = ||B^t (X_0 - 1 mean)||_F exactly, B this matrix, (N, N).
    """
    n = graph.number_of_nodes()
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
        return f"powers grow {least}{self.factor:.4g} times, at power {self.power}"


def transient_growth(matrix: np.ndarray, limit: int = 1000) -> Growth:
    """max_k ||B^k||_2, from all powers up to the first with norm below 1: no later one is larger.

    Stops at B^limit where there is none.

    >>> print(transient_growth(np.array([[0.5, 4.0], [0.0, 0.5]])))
    powers grow 4.062 times, at power 1
    """
    power, best, at = np.eye(len(matrix)), 1.0, 0
    for k in range(1, limit + 1):
        power = power @ matrix
        norm = float(np.linalg.norm(power, 2))
        if norm > best:
            best, at = norm, k
        if norm < 1.0:
            return Growth(best, at, True)
    return Growth(best, at, False)


def kreiss_constant(matrix: np.ndarray) -> float:
    """K(B) = sup over |z| > 1 of (|z| - 1) ||(z - B)^-1||_2, for a real matrix; at least 1.

    Equal to sup over epsilon > 0 of (rho_epsilon(B) - 1) / epsilon with the pseudospectral radius
    rho_epsilon. The best of a grid of z, improved by a local search: a lower bound, in practice to
    six digits. O(N^3) for each of some 300 z.

    >>> round(kreiss_constant(np.diag([0.5, 0.2])), 3)
    1.0
    """
    from scipy.optimize import minimize

    identity = np.eye(len(matrix))

    def negative(point):
        distance = np.exp(point[0])
        z = (1.0 + distance) * np.exp(1j * point[1])
        return -distance / np.linalg.norm(z * identity - matrix, -2)

    grid = [(np.log(distance), angle) for distance in _DISTANCES for angle in _ANGLES]
    start = min(grid, key=negative)
    found = minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    return max(1.0, -float(found.fun))  # 1 is the limit of z to infinity
