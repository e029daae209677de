"""What measures are made with: tokens in units of their largest entry, and less their mean."""

from __future__ import annotations

from functools import wraps

import numpy as np

from dynsim._values import real_array

__all__ = ["deviations", "of_scaled", "ratio", "scaled"]


def scaled(x) -> tuple[np.ndarray, np.ndarray]:
    """x in units of its largest entry, and that unit: squares then neither vanish nor overflow."""
    x = real_array("tokens", x)
    unit = np.abs(x).max(axis=(-2, -1))
    unit = np.where(unit > 0, unit, 1.0)
    return x / unit[..., None, None], unit


def ratio(numerator, denominator):
    """numerator / denominator, and 0 where the denominator is 0 (a zero matrix)."""
    out = np.zeros(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)))
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)


def of_scaled(formula):
    """Make a measure of tokens from a formula of tokens in units of their largest entry.

    The formula stays at hand as ``measure.formula``, so that one scaling serves many.
    """

    @wraps(formula)
    def measure(x):
        return formula(*scaled(x))

    del measure.__wrapped__  # the signature is (x), not the formula's
    measure.formula = formula
    return measure


def deviations(x):
    """Tokens less their mean, (..., N, d); exactly 0 for equal tokens, however many they are."""
    x = x - x[..., :1, :]
    return x - x.mean(axis=-2, keepdims=True)
