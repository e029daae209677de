"""Attention whose inverse temperature grows with the number of tokens: the critical scale.

n unit tokens of equal cosines rho, scores beta <x_i, x_j>, W_V = I: a token gives itself the weight
a = 1 / (1 + (n - 1) e^(-beta (1 - rho))) and each other b = (1 - a) / (n - 1). With beta_n = gamma
log n the second term is about n^(1 - gamma (1 - rho)): for gamma below gamma_c = 1 / (1 - rho)
attention tends to uniform and one layer brings all tokens together, above it tends to the identity,
and at gamma_c a token gives itself one half (Chen, Lin, Polyanskiy and Rigollet, arXiv 2510.05554;
lemmas `equiangular` and `critical-scale`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import real_array, real_number, whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["critical_scale", "equiangular_layer", "limit_of_spread", "own_weight", "spread"]


def _cosine(rho: ArrayLike, n: int | None = None) -> np.ndarray:
    rho = real_array("cosines", rho)
    least = -1.0 if n is None or n < 2 else -1.0 / (n - 1)
    if not np.all((rho >= least) & (rho < 1.0)):
        raise ValueError(
            f"equal cosines of different tokens lie below 1, and above {least:.4g} for so many "
            f"tokens; got {rho.min():.4g} to {rho.max():.4g}"
        )
    return rho


def own_weight(n: int, rho: ArrayLike, beta: ArrayLike) -> np.ndarray:
    """a = 1 / (1 + (n - 1) e^(-beta (1 - rho))): what a token gives itself; rho and beta broadcast.

    >>> float(own_weight(5, 0.5, 2.0 * np.log(4.0)))
    0.5
    """
    n, rho = whole("number of tokens", n, least=2), _cosine(rho, n)
    beta = real_array("beta", beta)
    return 1.0 / (1.0 + (n - 1) * np.exp(-beta * (1.0 - rho)))


def equiangular_layer(n: int, rho: ArrayLike, beta: ArrayLike, skip: float = 0.0) -> np.ndarray:
    """The cosine of n equiangular unit tokens after a layer: rho' with, B = s I + A,

    1 - rho' = (1 - rho) (s + a - b)^2 / (rho (1 + s)^2 + (1 - rho) ((s + a)^2 + (n - 1) b^2)).

    Complete mask, M = beta I, W_V = I, any norm that only scales after the layer, skip weight s.

    >>> float(equiangular_layer(4, 0.5, 0.0))
    1.0
    """
    rest = spread(n, rho, beta, skip)
    return 1.0 - (1.0 - np.asarray(rho)) * rest


def spread(n: int, rho: ArrayLike, beta: ArrayLike, skip: float = 0.0) -> np.ndarray:
    """(1 - rho') / (1 - rho) of `equiangular_layer`: 0 for collapse in one layer, 1 for none.

    >>> float(spread(10**6, 0.5, 4.0 * np.log(10**6)).round(6))
    0.999999
    """
    a = own_weight(n, rho, beta)
    b, rho, s = (1.0 - a) / (n - 1), _cosine(rho, n), real_number("the skip weight", skip)
    size = rho * (1.0 + s) ** 2 + (1.0 - rho) * ((s + a) ** 2 + (n - 1) * b**2)
    return (s + a - b) ** 2 / size


def critical_scale(rho: ArrayLike, n: int | None = None) -> np.ndarray:
    """gamma_c = 1 / (1 - rho), of beta_n = gamma log n: where n equiangular tokens neither merge
    nor stay apart as n grows. For n tokens, log(n - 1) / (log n (1 - rho)): where a = 1/2 exactly.

    >>> float(critical_scale(0.5)), float(critical_scale(0.5, n=3).round(4))
    (2.0, 1.2619)
    """
    rho = _cosine(rho)
    if n is None:
        return 1.0 / (1.0 - rho)
    n = whole("number of tokens", n, least=3)
    return np.log(n - 1.0) / (np.log(n) * (1.0 - rho))


def limit_of_spread(rho: ArrayLike, gamma: ArrayLike) -> np.ndarray:
    """The limit of `spread` for n to infinity with beta_n = gamma log n, 0 < rho < 1, no skip:
    0 below gamma_c, 1 / (1 + 3 rho) at it, 1 above it.

    >>> limit_of_spread(0.5, [1.0, 2.0, 3.0])
    array([0. , 0.4, 1. ])
    """
    rho, gamma = np.broadcast_arrays(_cosine(rho), real_array("gamma", gamma))
    if not np.all(rho > 0):
        raise ValueError("the limit is that of cosines above 0")
    side = np.sign(gamma * (1.0 - rho) - 1.0)
    return np.where(side == 0, 1.0 / (1.0 + 3.0 * rho), (1.0 + side) / 2.0)
