"""How far from consensus, and where rounding begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import real_array
from dynsim.measures.scaling import deviations, of_scaled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

__all__ = [
    "SHARE",
    "dong_residual",
    "floor",
    "frobenius_norm",
    "log10_mu",
    "log10_mu_error",
    "mu",
    "relative_floor",
]

#: Error of tokens over ||X||_F, in machine epsilons of their type, after a layer.
SHARE = 8.0


@of_scaled
def mu(z: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Distance to consensus: mu(X) = ||X - 1 1^T X / N||_F (WU, arXiv 2405.18781, section 3).

    mu^2 = sum_ij ||x_i - x_j||^2 / (2 N). Zero exactly when all tokens are equal.

    >>> float(mu([[1.0, 0.0], [-1.0, 0.0]]))
    1.4142135623730951
    """
    return unit * np.sqrt(np.sum(deviations(z) ** 2, axis=(-2, -1)))


def log10_mu(x: ArrayLike) -> np.ndarray:
    """log10 of mu; -inf when all tokens are equal.

    The engine "logscale" knows it from mu's own logarithm, to 10^-100000 and beyond; from tokens
    it has their floor (see `floor`).

    >>> float(log10_mu([[5e-4, 0.0], [-5e-4, 0.0]]).round(12))
    -3.150514997832
    """
    with np.errstate(divide="ignore"):
        return np.log10(mu(x))


def log10_mu_error(x: ArrayLike) -> np.ndarray:
    """Estimate of the error of log10_mu by rounding: floor / mu, in units of log10.

    The engine "logscale" adds it up from layer to layer.

    >>> float(log10_mu_error([[1.0, 0.0], [1.0, 1e-12]]).round(4))
    0.0015
    """
    x = real_array("tokens", x, own=(np.float32,))
    dtype = x.dtype
    with np.errstate(divide="ignore", invalid="ignore"):
        return relative_floor(mu(x), frobenius_norm(x), dtype)


def relative_floor(
    mu: np.ndarray, frobenius: ArrayLike, dtype: DTypeLike = np.float64
) -> np.ndarray:
    """floor / (mu ln 10); infinite for mu = 0, but 0 for tokens that are all 0.

    mu, frobenius : (...), of tokens of the type `dtype`.

    >>> float(relative_floor(np.array(1e-12), 1.0).round(6))
    0.000771
    """
    frobenius = np.asarray(frobenius)
    return np.where(frobenius == 0, 0.0, floor(frobenius, dtype) / mu / np.log(10.0))


def dong_residual(x: ArrayLike) -> np.ndarray:
    """||R||_{1,inf} = sqrt(||R||_1 ||R||_inf), R = X - 1 mean(X) (DONG, arXiv 2103.03404).

    ||R||_1 is the largest column sum and ||R||_inf the largest row sum of |R|. DONG subtract the
    row that minimises the norm; the mean is what their code, and this, use.

    >>> float(dong_residual([[1.0, 2.0], [-1.0, -2.0]]).round(12))
    3.464101615138
    """
    residual = np.abs(deviations(real_array("tokens", x, axes=2)))
    columns, rows = residual.sum(axis=-2).max(axis=-1), residual.sum(axis=-1).max(axis=-1)
    return np.sqrt(columns) * np.sqrt(rows)


def floor(frobenius: ArrayLike, dtype: DTypeLike = np.float64) -> np.ndarray:
    """The mu (or sigma) below which tokens show rounding: 8 machine eps times ||X||_F.

    Above 1e-16 ||X||_F because a layer of rounded sums leaves a few ulps in every entry. `dtype`
    is that of the tokens.

    >>> float(floor(1.0)) == 8 * 2.0**-52
    True
    """
    return SHARE * float(np.finfo(dtype).eps) * np.asarray(frobenius)


@of_scaled
def frobenius_norm(z: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """||X||_F = sqrt(sum_ia x_ia^2).

    >>> float(frobenius_norm([[3.0, 0.0], [0.0, 4.0]]))
    5.0
    """
    return unit * np.sqrt(np.sum(z**2, axis=(-2, -1)))
