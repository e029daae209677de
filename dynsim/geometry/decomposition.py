"""A token as LayerNorm sees it: uniform component, direction and scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynsim._values import real_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "Decomposition",
    "angle_to_ones",
    "decompose",
    "layer_norm_closed_form",
    "length",
    "orthogonality",
]


class Decomposition(NamedTuple):
    """x = uniform 1 + scale direction: (...,), (..., d) of norm 1 and orthogonal to 1, (...,)."""

    uniform: np.ndarray
    direction: np.ndarray
    scale: np.ndarray


def decompose(x: np.ndarray) -> Decomposition:
    """The three parts of each token (last axis) of x (GUPTA, section 3).

    LayerNorm without gain and bias keeps sqrt(d) times the direction and forgets the others, so
    that it cannot be undone. A constant token has scale 0, and 0 for its direction.

    Raises ValueError for tokens that are not finite or have no entries.

    >>> parts = decompose(np.array([1.0, 7.0, 4.0, 4.0]))
    >>> float(parts.uniform), parts.direction.round(3), float(parts.scale.round(3))
    (4.0, array([-0.707,  0.707,  0.   ,  0.   ]), 4.243)
    """
    x = real_array("tokens", x)
    if x.ndim == 0 or x.shape[-1] == 0 or not np.all(np.isfinite(x)):
        raise ValueError(f"tokens are finite, with one axis or more; got shape {x.shape}")
    x, power = _near_one(x)
    away = x - x[..., :1]  # from the first entry, so that a constant token gives exactly 0
    away = away - away.mean(axis=-1, keepdims=True)
    scale = length(away)
    direction = away / np.where(scale > 0, scale, 1.0)[..., None]
    return Decomposition(
        np.ldexp(x.mean(axis=-1), power[..., 0]), direction, np.ldexp(scale, power[..., 0])
    )


def length(x: np.ndarray) -> np.ndarray:
    """||x|| along the last axis, at any scale: no square overflows or vanishes.

    >>> length(np.array([[3e200, 4e200], [0.0, 0.0]]))
    array([5.e+200, 0.e+000])
    """
    x, power = _near_one(x)
    return np.ldexp(np.linalg.norm(x, axis=-1), power[..., 0])


def _near_one(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x over the power of two that is next to the largest entry of its last axis; that power."""
    power = np.frexp(np.abs(x).max(axis=-1, keepdims=True, initial=0.0))[1]
    return np.ldexp(x, -power), power


def angle_to_ones(x: np.ndarray) -> np.ndarray:
    """The angle, in degrees, between each token (last axis) and the vector 1 (GUPTA, section 4).

    It is 90 degrees where LayerNorm and RMSNorm agree. The zero vector has none: NaN. Raises
    ValueError as `decompose`.

    >>> angle_to_ones(np.array([[1.0, 1.0], [1.0, 0.0], [1.0, -1.0]]))
    array([ 0., 45., 90.])
    """
    parts = decompose(_near_one(real_array("tokens", x))[0])
    along = parts.uniform * np.shape(x)[-1] ** 0.5
    angle = np.degrees(np.arctan2(parts.scale, along))
    return np.where((along == 0) & (parts.scale == 0), np.nan, angle)


def orthogonality(x: np.ndarray) -> tuple[float, float]:
    """How far tokens (..., d) are on average from orthogonal to the vector 1: offset, baseline.

    With m the mean of x / ||x|| over tokens, the offset is sqrt(d) |mean cosine to 1| = |m . 1|.
    The baseline is its root mean square when a uniformly random direction takes the place of 1,
    ||m||: as d grows, a random direction has an offset below .67 of the baseline every second
    time, and above 1.96 of it once in twenty times. An angle near 90 degrees says nothing by
    itself: a random direction is within 57.3 / sqrt(d) degrees of it two times in three.

    Raises ValueError for a token that is 0.

    >>> orthogonality(np.array([[1.0, 0.0], [0.0, -2.0]]))
    (0.0, 0.7071067811865476)
    """
    x = real_array("tokens", x)
    sizes = length(x)[..., None]
    if not np.all(sizes > 0):
        raise ValueError("a token that is 0 has no direction; remove it")
    m = (x / sizes).reshape(-1, x.shape[-1]).mean(axis=0)
    return float(abs(m.sum())), float(np.linalg.norm(m))


def layer_norm_closed_form(
    a: np.ndarray, gain: ArrayLike = 1.0, bias: ArrayLike = 0.0, eps: float = 1e-5
) -> np.ndarray:
    """sqrt(d) diag(gain) Pi a / sqrt(||Pi a||^2 + d eps) + bias, Pi = I - 1 1^T / d (RIECHERS).

    The definition by mean and variance in one expression, written out here with the matrix Pi, for
    comparison: `dynsim.norms.LayerNorm` computes the same, and more exactly where the mean of a is
    much larger than Pi a. Gives NaN where eps = 0 and a is constant. Raises ValueError for what is
    no array of real numbers.

    >>> layer_norm_closed_form(np.array([0.0, 2.0]), eps=0.0)
    array([-1.,  1.])
    """
    a = real_array("tokens", a)
    gain, bias = real_array("the gain", gain), real_array("the bias", bias)
    d = a.shape[-1]
    centred = a @ (np.eye(d) - np.ones((d, d)) / d)
    size = np.sqrt(np.sum(centred**2, axis=-1, keepdims=True) + d * eps)
    return np.sqrt(d) * gain * centred / size + bias
