"""How far rounding may move a measure, and which values it may have made alone.

Tokens are rounded sums: a layer leaves them known to SHARE = 8 machine epsilons of ||X||_F. (How
earlier layers' rounding has grown since then is a property of the dynamics, and not counted.)
Decompositions add max(N, d) epsilons of float64 to singular values: where all tokens are equal,
sums of N equal terms are rounded the same way each time. Each measure is known as its own formula
passes these errors on; `ROUNDING` holds the bound, to first order, for every measure that has one.

A value lies within rounding where it is no further from its value at collapse than that: 0 for
distances, 1 for ranks and cosines. Then collapse may be complete, and its digits mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynsim._values import real_array
from dynsim.measures.angles import norm_min
from dynsim.measures.distance import SHARE, floor, frobenius_norm, mu

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

__all__ = ["ROUNDING", "SHARE", "Rounding", "Sizes"]

_EPS = float(np.finfo(np.float64).eps)


class Sizes(NamedTuple):
    """What the bounds depend on, for states of N tokens of dimension d; arrays (...)."""

    tokens: np.ndarray  # how far tokens may be from the exact ones, in Frobenius norm
    singular: np.ndarray  # and their singular values
    frobenius: np.ndarray
    norm_min: np.ndarray
    mu: np.ndarray
    n: int
    d: int
    followed: np.ndarray | None  # error of log10 mu, where the engine followed that; else None

    @classmethod
    def of(
        cls,
        n: int,
        d: int,
        dtype: DTypeLike,
        frobenius: np.ndarray,
        norm_min: np.ndarray,
        mu: np.ndarray,
        followed: np.ndarray | None = None,
    ) -> Sizes:
        """Of recorded measures of tokens of this type."""
        tiny = float(np.finfo(dtype).tiny)
        size = np.maximum(frobenius, tiny)  # below, tokens are known to eps tiny
        tokens = floor(size, dtype)
        singular = np.maximum(tokens, max(n, d) * _EPS * size)
        return cls(tokens, singular, frobenius, norm_min, mu, n, d, followed)

    @classmethod
    def of_tokens(cls, x: ArrayLike) -> Sizes:
        """Of tokens (..., N, d)."""
        x = real_array("tokens", x, own=(np.float32,))
        n, d = x.shape[-2:]
        return cls.of(n, d, x.dtype, frobenius_norm(x), norm_min(x), mu(x))

    @property
    def apart(self) -> np.ndarray:
        """Error of the tokens less their mean, over mu."""
        if self.followed is None:
            return _over(self.tokens, self.mu)
        with np.errstate(over="ignore"):
            return np.maximum(np.expm1(self.followed * np.log(10.0)), SHARE * _EPS)

    @property
    def singular_apart(self) -> np.ndarray:
        """Error of their singular values, over mu."""
        return np.maximum(self.apart, max(self.n, self.d) * _EPS)


def _over(error: np.ndarray, size: np.ndarray) -> np.ndarray:
    """An error in units of a size; inf where that is 0."""
    with np.errstate(divide="ignore", over="ignore"):
        return error / np.asarray(size, np.float64)


@dataclass(frozen=True)
class Rounding:
    """What is known of a measure.

    collapsed : its value when tokens are equal.
    formula : the bound in words, for files.
    bound : (values, sizes) to how far rounding may have moved each.
    """

    collapsed: float
    formula: str
    bound: Callable[[np.ndarray, Sizes], np.ndarray]

    def within(self, values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Where rounding alone may have made a value differ from that at collapse."""
        with np.errstate(invalid="ignore"):  # -inf - -inf
            return (values == self.collapsed) | (np.abs(values - self.collapsed) <= bounds)


def _length(values: np.ndarray, sizes: Sizes) -> np.ndarray:
    return sizes.tokens


def _mu(values: np.ndarray, sizes: Sizes) -> np.ndarray:
    if sizes.followed is None:
        return sizes.tokens
    return sizes.apart * np.maximum(sizes.mu, np.finfo(np.float64).tiny)


def _singular_value(values: np.ndarray, sizes: Sizes) -> np.ndarray:
    return sizes.singular


def _dong(values: np.ndarray, sizes: Sizes) -> np.ndarray:
    """sqrt(a b) moves by (sqrt(b / a) da + sqrt(a / b) db) / 2 at most; 1 / N <= b / a <= d."""
    return np.sqrt(sizes.n * sizes.d) * sizes.tokens


def _logarithm(values: np.ndarray, sizes: Sizes) -> np.ndarray:
    """-log10(1 - share), or what is known of it, and the rounding of the logarithm itself."""
    if sizes.followed is None:
        with np.errstate(divide="ignore"):
            moved = -np.log1p(-np.minimum(sizes.apart, 1.0)) / np.log(10.0)
    else:
        moved = np.maximum(sizes.followed, SHARE * _EPS / np.log(10.0))
    return moved + np.where(np.isfinite(values), 2.0 * _EPS * np.abs(values), 0.0)


def _whole(sizes: Sizes) -> np.ndarray:
    return _over(sizes.singular, sizes.frobenius)


def _apart(sizes: Sizes) -> np.ndarray:
    return sizes.singular_apart


def _stable_rank(share: Callable[[Sizes], np.ndarray]) -> Callable[[np.ndarray, Sizes], np.ndarray]:
    """||X||_F^2 / sigma_1^2, with sigma_1 = ||X||_F / sqrt(value)."""

    def bound(values: np.ndarray, sizes: Sizes) -> np.ndarray:
        moved = 4.0 * share(sizes) * np.maximum(values, 1.0) ** 1.5
        return np.minimum(moved, min(sizes.n, sizes.d))

    return bound


def _participation(values: np.ndarray, sizes: Sizes) -> np.ndarray:
    """(||sigma||_2 / ||sigma||_4)^4, with ||sigma||_4 = ||sigma||_2 / value^(1/4)."""
    moved = 8.0 * _whole(sizes) * np.maximum(values, 1.0) ** 1.25
    return np.minimum(moved, min(sizes.n, sizes.d))


def _effective_rank(
    share: Callable[[Sizes], np.ndarray],
) -> Callable[[np.ndarray, Sizes], np.ndarray]:
    """exp of an entropy of m shares that move by T = sqrt(m) share in total variation at most:
    it moves by T log m + T (1 - log T) at most (Fannes and Audenaert)."""

    def bound(values: np.ndarray, sizes: Sizes) -> np.ndarray:
        m = min(sizes.n, sizes.d)
        moved = np.minimum(m**0.5 * share(sizes), 1.0)
        entropy = moved * (np.log(m) + 1.0 - np.log(moved))
        return np.minimum(np.maximum(values, 1.0) * np.expm1(entropy), m)

    return bound


def _cosine(values: np.ndarray, sizes: Sizes) -> np.ndarray:
    """A direction x / ||x|| moves by 2 ||dx|| / ||x|| at most, and a cosine by two of them."""
    return np.minimum(4.0 * _over(sizes.tokens, sizes.norm_min), 2.0)


def _energy(values: np.ndarray, sizes: Sizes) -> np.ndarray:
    """Every exponential moves by the factor e^(error of its cosine) at most, beta = 1."""
    return np.asarray(values) * np.expm1(_cosine(values, sizes))


_LENGTH = Rounding(0.0, "8 eps ||X||_F", _length)
_SINGULAR = Rounding(0.0, "max(8 eps, max(N, d) 2^-52) ||X||_F", _singular_value)
_COSINE = Rounding(1.0, "32 eps ||X||_F / norm_min", _cosine)
_STABLE = "4 e value^1.5"
_EFFECTIVE = "value expm1(T (log m + 1 - log T)), T = sqrt(m) e, m = min(N, d)"
_OF_WHOLE = "e = max(8 eps, max(N, d) 2^-52)"
_FOLLOWED = (
    "with 10^log10_mu_error - 1, 8 eps or more, for 8 eps ||X||_F / mu where the engine followed mu"
)
_OF_APART = f"e = max(8 eps ||X||_F / mu, max(N, d) 2^-52), {_FOLLOWED}"

#: By measure. The numerical rank and clusters are counted to tolerances far above rounding; an
#: entropy's error depends on the scores, that of a rank without the first token on what is left.
ROUNDING = {
    "mu": Rounding(0.0, f"8 eps ||X||_F / mu times mu, {_FOLLOWED}", _mu),
    "norm_min": _LENGTH,
    "norm_max": _LENGTH,
    "frobenius_norm": _LENGTH,
    "log10_mu": Rounding(
        -np.inf, f"-log10(1 - 8 eps ||X||_F / mu) + 2^-51 |value|, {_FOLLOWED}", _logarithm
    ),
    "rank_one_distance": _SINGULAR,
    "sigma_min": _SINGULAR,
    "sigma_max": _SINGULAR,
    "stable_rank": Rounding(1.0, f"{_STABLE}, {_OF_WHOLE}", _stable_rank(_whole)),
    "effective_rank": Rounding(1.0, f"{_EFFECTIVE}, {_OF_WHOLE}", _effective_rank(_whole)),
    "participation_ratio": Rounding(1.0, f"8 e value^1.25, {_OF_WHOLE}", _participation),
    # these have no value at collapse: they mean nothing where the bound reaches them
    "deviation_stable_rank": Rounding(0.0, f"{_STABLE}, {_OF_APART}", _stable_rank(_apart)),
    "deviation_effective_rank": Rounding(
        0.0, f"{_EFFECTIVE}, {_OF_APART}", _effective_rank(_apart)
    ),
    "dong_residual": Rounding(0.0, "sqrt(N d) 8 eps ||X||_F", _dong),
    "mu_without_first": _LENGTH,
    "interaction_energy": Rounding(math.e / 2.0, "value expm1(32 eps ||X||_F / norm_min)", _energy),
    "mean_cosine": _COSINE,
    "mean_abs_cosine": _COSINE,
    "min_cosine": _COSINE,
}
