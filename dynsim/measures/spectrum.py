"""How far from rank one, and how many directions are in use: by singular values.

sigma_1 >= sigma_2 >= ... are taken from X itself, never from its Gram matrix. By convention a zero
matrix has rank and effective ranks 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import real_array, real_number
from dynsim.measures.scaling import OfFormula, deviations, ratio, with_formula

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "RANK_MARGIN",
    "RANK_TOLERANCE",
    "SETTLED_RTOL",
    "SOLVED_RTOL",
    "deviation_effective_rank",
    "deviation_stable_rank",
    "effective_rank",
    "numerical_rank",
    "participation_ratio",
    "rank",
    "rank_is_sure",
    "rank_one_distance",
    "sigma_max",
    "sigma_min",
    "singular_values",
    "stable_rank",
]

#: Relative tolerances of the numerical rank: one for each way in which tokens come about, because
#: each leaves another error in singular values that are 0.
#: Given tokens, and those that layers made of them: rounding, so many machine epsilons of sigma_1;
#: a share of 9e-13 in float64 and 5e-4 in float32.
RANK_TOLERANCE = 4096
#: Solutions of x' = x: Newton's method finds a double root to half of the digits, 1.5e-8.
SOLVED_RTOL = 1e-6
#: Last states of orbits taken as settled, which move by less than 1e-6 a layer: one that converges
#: as 1/t is then still 1e-3 off.
SETTLED_RTOL = 1e-2
#: A rank is sure where no singular value lies within this factor of the tolerance.
RANK_MARGIN = 100.0


def singular_values(x: ArrayLike) -> np.ndarray:
    """All singular values, largest first: (..., min(N, d)); in float32 for float32 tokens.

    X is multiplied by a power of two, which changes no digit: from equal tokens rounding leaves
    columns of 1, 1e-16, 1e-32, ..., and where these get below 1e-308 arithmetic is slow.

    >>> singular_values([[0.0, 3.0], [4.0, 0.0]])
    array([4., 3.])
    """
    own = real_array("tokens", x, own=(np.float32,), axes=2)
    z = own.astype(np.float64, copy=False)
    shift = 440 - np.frexp(np.abs(z).max(axis=(-2, -1)))[1]  # LAPACK scales above 2**459 itself
    sigma = np.linalg.svd(np.ldexp(z, shift[..., None, None]), compute_uv=False)
    sigma = np.ldexp(sigma, -shift[..., None])
    return sigma.astype(np.float32) if own.dtype == np.float32 else sigma


def numerical_rank(sigma: ArrayLike, rtol: float | None = None) -> np.ndarray:
    """How many singular values exceed rtol sigma_1: integers (...), of sigma (..., k).

    sigma : (..., k)
        Singular values, largest first; all 0 have rank 0.
    rtol : float, optional
        At least 0 and below 1: RANK_TOLERANCE machine epsilons of the type of sigma unless given.
        SOLVED_RTOL is for solutions of equations, SETTLED_RTOL for last states of orbits.

    Raises ValueError for values that are not finite or not in order, and for another rtol.

    >>> int(numerical_rank([1.0, 1e-7, 0.0])), int(numerical_rank([1.0, 1e-7, 0.0], SOLVED_RTOL))
    (2, 1)
    """
    sigma = real_array("singular values", sigma, own=(np.float32,))
    if not (sigma.ndim and np.all(sigma >= 0) and np.all(np.isfinite(sigma[..., :1]))):
        raise ValueError("singular values are finite and at least 0, in an array (..., k)")
    if np.any(sigma[..., 1:] > sigma[..., :-1]):
        raise ValueError("singular values come largest first; sort them")
    return np.sum(sigma > _rtol(sigma, rtol) * sigma[..., :1], axis=-1)


def rank_is_sure(x: ArrayLike, rtol: float | None = None) -> np.ndarray:
    """False where a singular value of the tokens x, (..., N, d), lies within a factor RANK_MARGIN
    of rtol sigma_1: what the rank is then depends on the tolerance, or on rounding.

    `rtol` as in `numerical_rank`. True for a zero matrix.

    >>> [bool(rank_is_sure([[1.0, 0.0], [0.0, size]])) for size in (1e-3, 1e-12)]
    [True, False]
    """
    sigma = singular_values(x)
    share = ratio(sigma, _rtol(sigma, rtol) * sigma[..., :1])
    return ~np.any((share > 1.0 / RANK_MARGIN) & (share < RANK_MARGIN), axis=-1)


def _rtol(sigma: np.ndarray, rtol: float | None) -> float:
    if rtol is None:
        return RANK_TOLERANCE * np.finfo(sigma.dtype).eps
    if not 0 <= (rtol := real_number("rtol", rtol)) < 1:
        raise ValueError(f"rtol is a share of the largest singular value, in [0, 1); got {rtol}")
    return rtol


def _of_singular_values(formula: Callable) -> OfFormula:
    """Make a measure of tokens from a formula of their singular values."""
    return with_formula(formula, lambda x: (singular_values(x),))


def _squares(sigma: np.ndarray) -> np.ndarray:
    """(sigma_k / sigma_1)^2: nothing under- or overflows; zeros for a zero matrix."""
    return ratio(sigma, sigma[..., :1]) ** 2


@_of_singular_values
def rank_one_distance(sigma: np.ndarray) -> np.ndarray:
    """Distance to the nearest rank-one matrix: sqrt(sum_{k >= 2} sigma_k^2) (Eckart-Young).

    Not mu: antipodal tokens are rank one and far from consensus.

    >>> float(rank_one_distance([[1.0, 0.0], [-1.0, 0.0]]))
    0.0
    """
    return sigma[..., 0] * np.sqrt(np.sum(_squares(sigma)[..., 1:], axis=-1))


@_of_singular_values
def rank(sigma: np.ndarray) -> np.ndarray:
    """Numerical rank: how many sigma_k exceed RANK_TOLERANCE machine epsilons of sigma_1.

    >>> float(rank([[1.0, 2.0], [2.0, 4.0]]))
    1.0
    """
    return numerical_rank(sigma).astype(np.float64)


@_of_singular_values
def stable_rank(sigma: np.ndarray) -> np.ndarray:
    """||X||_F^2 / ||X||_2^2 = sum sigma^2 / sigma_1^2, between 1 and the rank.

    >>> float(stable_rank([[2.0, 0.0], [0.0, 1.0]]))
    1.25
    """
    return np.sum(_squares(sigma), axis=-1)


@_of_singular_values
def effective_rank(sigma: np.ndarray) -> np.ndarray:
    """exp(-sum p log p) with p = sigma / sum sigma (Roy and Vetterli, EUSIPCO 2007).

    >>> float(effective_rank([[3.0, 0.0], [0.0, 3.0]]).round(12))
    2.0
    """
    p = ratio(sigma, np.sum(sigma, axis=-1, keepdims=True))
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    return np.where(sigma[..., 0] > 0, np.exp(entropy), 0.0)


@_of_singular_values
def participation_ratio(sigma: np.ndarray) -> np.ndarray:
    """(sum sigma^2)^2 / sum sigma^4: the number of directions that share the variance.

    >>> float(participation_ratio([[3.0, 0.0], [0.0, 3.0]]))
    2.0
    """
    squares = _squares(sigma)
    return ratio(np.sum(squares, axis=-1) ** 2, np.sum(squares**2, axis=-1))


@_of_singular_values
def sigma_max(sigma: np.ndarray) -> np.ndarray:
    """The largest singular value ||X||_2.

    >>> round(float(sigma_max([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), 4)
    1.7321
    """
    return sigma[..., 0]


@_of_singular_values
def sigma_min(sigma: np.ndarray) -> np.ndarray:
    """The smallest of the min(N, d) singular values.

    >>> round(float(sigma_min([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), 4)
    1.0
    """
    return sigma[..., -1]


def _of_deviations(formula: Callable) -> OfFormula:
    """As `_of_singular_values`, for those of the tokens less their mean."""

    def sigma(x: ArrayLike) -> tuple[np.ndarray]:
        return (singular_values(deviations(real_array("tokens", x, axes=2))),)

    return with_formula(formula, sigma)


@_of_deviations
def deviation_stable_rank(sigma: np.ndarray) -> np.ndarray:
    """Stable rank of the tokens less their mean: how many directions collapse together.

    The engine "logscale" gives it below the floor too, from the shape of the deviation.

    >>> float(deviation_stable_rank([[9.0, 1.0], [9.0, -1.0], [9.0, 0.0]]).round(12))
    1.0
    """
    return stable_rank.formula(sigma)


@_of_deviations
def deviation_effective_rank(sigma: np.ndarray) -> np.ndarray:
    """Effective rank of the tokens less their mean; see `deviation_stable_rank`.

    >>> float(deviation_effective_rank([[9.0, 1.0], [9.0, -1.0], [9.0, 0.0]]).round(12))
    1.0
    """
    return effective_rank.formula(sigma)
