"""How far from rank one, and how many directions are in use: by singular values.

sigma_1 >= sigma_2 >= ... are taken from X itself, never from its Gram matrix. By convention a zero
matrix has rank and effective ranks 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dynsim._values import real_array
from dynsim.measures.scaling import OfFormula, deviations, ratio, with_formula

__all__ = [
    "RANK_TOLERANCE",
    "deviation_effective_rank",
    "deviation_stable_rank",
    "effective_rank",
    "participation_ratio",
    "rank",
    "rank_is_sure",
    "rank_one_distance",
    "sigma_max",
    "sigma_min",
    "singular_values",
    "stable_rank",
]

#: A singular value counts towards the numerical rank above this many machine epsilons of the
#: largest: a share of 9e-13 for float64 tokens, 5e-4 for float32.
RANK_TOLERANCE = 4096


def singular_values(x):
    """All singular values, largest first: (..., min(N, d)); in float32 for float32 tokens.

    X is multiplied by a power of two, which changes no digit: from equal tokens rounding leaves
    columns of 1, 1e-16, 1e-32, ..., and where these get below 1e-308 arithmetic is slow.
    """
    z = real_array("tokens", x)
    shift = 440 - np.frexp(np.abs(z).max(axis=(-2, -1)))[1]  # LAPACK scales above 2**459 itself
    sigma = np.linalg.svd(np.ldexp(z, shift[..., None, None]), compute_uv=False)
    sigma = np.ldexp(sigma, -shift[..., None])
    return sigma.astype(np.float32) if np.asarray(x).dtype == np.float32 else sigma


def _of_singular_values(formula: Callable) -> OfFormula:
    """Make a measure of tokens from a formula of their singular values."""
    return with_formula(formula, lambda x: (singular_values(x),))


def _squares(sigma):
    """(sigma_k / sigma_1)^2: nothing under- or overflows; zeros for a zero matrix."""
    return ratio(sigma, sigma[..., :1]) ** 2


@_of_singular_values
def rank_one_distance(sigma):
    """Distance to the nearest rank-one matrix: sqrt(sum_{k >= 2} sigma_k^2) (Eckart-Young).

    Not mu: antipodal tokens are rank one and far from consensus.

    >>> float(rank_one_distance([[1.0, 0.0], [-1.0, 0.0]]))
    0.0
    """
    return sigma[..., 0] * np.sqrt(np.sum(_squares(sigma)[..., 1:], axis=-1))


@_of_singular_values
def rank(sigma):
    """Numerical rank: how many sigma_k exceed RANK_TOLERANCE machine epsilons of sigma_1.

    >>> float(rank([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    2.0
    """
    tolerance = RANK_TOLERANCE * np.finfo(sigma.dtype).eps
    return np.sum(sigma > tolerance * sigma[..., :1], axis=-1).astype(np.float64)


def rank_is_sure(x):
    """False where a singular value lies within a factor 100 of the edge of the numerical rank: what
    the rank is then depends on where the edge is, or on rounding. True for a zero matrix."""
    sigma = singular_values(x)
    share = ratio(sigma, RANK_TOLERANCE * np.finfo(sigma.dtype).eps * sigma[..., :1])
    return ~np.any((share > 0.01) & (share < 100.0), axis=-1)


@_of_singular_values
def stable_rank(sigma):
    """||X||_F^2 / ||X||_2^2 = sum sigma^2 / sigma_1^2, between 1 and the rank.

    >>> round(float(stable_rank([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), 4)
    1.3333
    """
    return np.sum(_squares(sigma), axis=-1)


@_of_singular_values
def effective_rank(sigma):
    """exp(-sum p log p) with p = sigma / sum sigma (Roy and Vetterli, EUSIPCO 2007).

    >>> round(float(effective_rank([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), 4)
    1.9286
    """
    p = ratio(sigma, np.sum(sigma, axis=-1, keepdims=True))
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    return np.where(sigma[..., 0] > 0, np.exp(entropy), 0.0)


@_of_singular_values
def participation_ratio(sigma):
    """(sum sigma^2)^2 / sum sigma^4: the number of directions that share the variance.

    >>> round(float(participation_ratio([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), 4)
    1.6
    """
    squares = _squares(sigma)
    return ratio(np.sum(squares, axis=-1) ** 2, np.sum(squares**2, axis=-1))


@_of_singular_values
def sigma_max(sigma):
    """The largest singular value ||X||_2.

    >>> round(float(sigma_max([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), 4)
    1.7321
    """
    return sigma[..., 0]


@_of_singular_values
def sigma_min(sigma):
    """The smallest of the min(N, d) singular values.

    >>> round(float(sigma_min([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), 4)
    1.0
    """
    return sigma[..., -1]


def _of_deviations(formula: Callable) -> OfFormula:
    """As `_of_singular_values`, for those of the tokens less their mean."""
    return with_formula(formula, lambda x: (singular_values(deviations(real_array("tokens", x))),))


@_of_deviations
def deviation_stable_rank(sigma):
    """Stable rank of the tokens less their mean: how many directions collapse together.

    The engine "logscale" gives it below the floor too, from the shape of the deviation.
    """
    return stable_rank.formula(sigma)


@_of_deviations
def deviation_effective_rank(sigma):
    """Effective rank of the tokens less their mean; see `deviation_stable_rank`."""
    return effective_rank.formula(sigma)
