"""What measures are made with: tokens in units of their largest entry, and less their mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from dynsim._values import real_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["OfFormula", "deviations", "of_scaled", "ratio", "scaled", "with_formula"]


def scaled(x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """x in units of its largest entry, and that unit: squares then neither vanish nor overflow.

    x : (..., N, d); the unit (...) is 1 for tokens that are all 0. Raises ValueError for what is no
    array of real numbers with two axes.

    >>> scaled([[3e200, 0.0], [0.0, 4e200]])
    (array([[0.75, 0.  ],
           [0.  , 1.  ]]), array(4.e+200))
    """
    x = real_array("tokens", x, axes=2)
    unit = np.abs(x).max(axis=(-2, -1))
    unit = np.where(unit > 0, unit, 1.0)
    return x / unit[..., None, None], unit


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, and 0 where the denominator is 0 (a zero matrix).

    >>> ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    array([0.5, 0. ])
    """
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    out = np.zeros_like(numerator, np.float64, shape=shape)  # in the order of memory of that
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)


class OfFormula(Protocol):
    """A measure made of a formula, which stays at hand: one preparation of tokens serves many."""

    formula: Callable
    __doc__: str | None

    def __call__(self, x: ArrayLike) -> Any: ...


def with_formula(formula: Callable, prepared: Callable[[Any], tuple]) -> OfFormula:
    """The measure x -> formula(*prepared(x)), named and documented as the formula is."""

    @wraps(formula)
    def measure(x: ArrayLike) -> np.ndarray:
        return formula(*prepared(x))

    del measure.__wrapped__  # the signature is (x), not the formula's
    measure.formula = formula  # type: ignore[attr-defined]
    return cast(OfFormula, measure)


def of_scaled(formula: Callable) -> OfFormula:
    """Make a measure of tokens from a formula of tokens in units of their largest entry."""
    return with_formula(formula, scaled)


def deviations(x: np.ndarray) -> np.ndarray:
    """Tokens less their mean, (..., N, d); exactly 0 for equal tokens, however many they are.

    >>> deviations(np.array([[1.0, 0.0], [3.0, 0.0]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """
    x = x - x[..., :1, :]
    return x - x.mean(axis=-2, keepdims=True)
