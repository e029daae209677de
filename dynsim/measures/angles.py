"""Cosines, norms and clusters of tokens. A zero token has cosine 0 with all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import real_array, real_number
from dynsim.measures.lanes import fit_lanes, smallest_cosines
from dynsim.measures.scaling import of_scaled, ratio, scaled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

__all__ = [
    "clusters",
    "interaction_energy",
    "mean_abs_cosine",
    "mean_cosine",
    "min_cosine",
    "norm_max",
    "norm_min",
]


def _directions(z: np.ndarray) -> np.ndarray:
    return ratio(z, np.linalg.norm(z, axis=-1, keepdims=True))


@of_scaled
def mean_cosine(z: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Mean cosine over pairs i != j, by sums: (||sum x_i/||x_i|| ||^2 - N) / (N (N - 1)).

    1 for a single token.

    >>> float(mean_cosine([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]]).round(12))
    0.333333333333
    """
    directions = _directions(z)
    n = directions.shape[-2]
    if n == 1:
        return np.ones(directions.shape[:-2])
    squared_sum = np.sum(directions.sum(axis=-2) ** 2, axis=-1)
    return (squared_sum - np.sum(directions**2, axis=(-2, -1))) / (n * (n - 1))


def _over_pairs(
    x: ArrayLike,
    reduce: Callable[[np.ndarray, np.ndarray], np.ndarray],
    combine: Callable[..., np.ndarray],
) -> np.ndarray:
    """combine over blocks of rows of reduce(cosines of the block with tokens, where later)."""
    directions = _directions(scaled(x)[0])
    n = directions.shape[-2]
    if n == 1:
        return np.ones(directions.shape[:-2])
    blocks = []
    for start in range(0, n - 1, 256):  # blocks, so that no (N, N) array is made
        block = directions[..., start : start + 256, :]
        cosines = np.clip(block @ np.swapaxes(directions[..., start:, :], -1, -2), -1.0, 1.0)
        rows, columns = cosines.shape[-2:]
        later = np.arange(columns) > np.arange(rows)[:, None]
        blocks.append(reduce(cosines, later))
    return combine(np.stack(blocks), axis=0)


def _sum_of_sizes(cosines: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.sum(np.abs(cosines), axis=(-2, -1), where=where)


def mean_abs_cosine(x: ArrayLike) -> np.ndarray:
    """Mean |cosine| over pairs i < j (WU, arXiv 2405.18781, Fig. 4). O(N^2 d) work.

    >>> float(mean_abs_cosine([[1.0, 0.0], [-2.0, 0.0]]))
    1.0
    """
    total = _over_pairs(x, _sum_of_sizes, np.sum)
    n = np.shape(x)[-2]
    pairs = max(1, n * (n - 1) // 2)
    return total / pairs


def min_cosine(x: ArrayLike) -> np.ndarray:
    """min_ij <x_i, x_j> / (||x_i|| ||x_j||): phi of WU's Theorem 2 and Corollary 1. O(N^2 d) work.

    Of many matrices, each of up to 16,384 entries, in the lanes of vectors; of others by blocks of
    256 tokens.

    >>> float(min_cosine([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
    -1.0
    """
    z = real_array("tokens", x, axes=2)
    *lead, n, d = z.shape
    if lead and n > 1 and fit_lanes(n, d):
        return smallest_cosines(np.ascontiguousarray(z.reshape(-1, n, d))).reshape(lead)
    return _over_pairs(x, lambda cosines, _: np.min(cosines, axis=(-2, -1)), np.min)


def interaction_energy(x: ArrayLike, beta: float = 1.0) -> np.ndarray:
    """E = sum_ij exp(beta cos_ij) / (2 beta N^2), i = j included; beta > 0.

    Along the flow of attention on the sphere (W_V = I, M = beta I, complete mask) it never falls,
    and it is largest, e^beta / (2 beta), where all tokens have one direction (Geshkovski et al.,
    arXiv 2312.10794, section 3). A layer with the unit norm after it and a skip of weight s is an
    Euler step h = 1/s of that flow: `dynsim.collapse.speeds.flow_times`. O(N^2 d) work.

    >>> float(interaction_energy([[2.0, 0.0], [0.0, 1.0]]).round(12))  # (e + e + 1 + 1) / 8
    0.929570457115
    """
    if not (np.isfinite(beta := real_number("beta", beta)) and beta > 0):
        raise ValueError(f"beta, the inverse temperature, is finite and above 0; got {beta}")

    def above(cosines: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.sum(np.exp(beta * (cosines - 1.0)), axis=(-2, -1), where=where)

    x = real_array("tokens", x, own=(np.float32,), axes=2)
    n = x.shape[-2]
    pairs = _over_pairs(x, above, np.sum) if n > 1 else 0.0
    own = np.sum(np.exp(beta * (_own_cosines(x) - 1.0)), axis=-1)
    return np.exp(beta) / (2.0 * beta) * (own + 2.0 * pairs) / n**2


def _own_cosines(x: ArrayLike) -> np.ndarray:
    """1 for every token that has a size, else 0: (..., N)."""
    return np.any(scaled(x)[0] != 0.0, axis=-1).astype(np.float64)


@of_scaled
def norm_min(z: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """min_i ||x_i||.

    >>> float(norm_min([[3.0, 4.0], [1.0, 0.0]]))
    1.0
    """
    return unit * np.linalg.norm(z, axis=-1).min(axis=-1)


@of_scaled
def norm_max(z: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """max_i ||x_i||.

    >>> float(norm_max([[3.0, 4.0], [1.0, 0.0]]))
    5.0
    """
    return unit * np.linalg.norm(z, axis=-1).max(axis=-1)


def clusters(x: ArrayLike, tolerance: float = 1e-3) -> np.ndarray:
    """Number of clusters: components of the graph of pairs with ||x_i - x_j|| <= tolerance * size.

    The size is the root mean square token norm, so the count does not change with scale.

    >>> float(clusters([[1.0, 0.0], [1.0, 1e-4], [0.0, 1.0]]))
    2.0
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    z, _ = scaled(x)
    n = z.shape[-2]
    out = np.empty(z.shape[:-2])
    for index in np.ndindex(out.shape):
        tokens = z[index]
        reach = tolerance * np.sqrt(np.mean(np.sum(tokens**2, axis=-1)))
        pairs = cKDTree(tokens).query_pairs(reach, output_type="ndarray")
        graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(n, n))
        out[index] = connected_components(graph, directed=False)[0]
    return out
