"""The ellipsoid that LayerNorm maps all tokens into (RIECHERS, arXiv 2405.04134)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import real_array
from dynsim.geometry.decomposition import length
from dynsim.network.norms import LayerNorm

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Ellipsoid", "image_ellipsoid"]

_EPS = float(np.finfo(np.float64).eps)
#: Halvings of a bracket of logarithms: enough for every float64.
_HALVINGS = 64
#: So many times the longest semi-axis away, the distance to the surface is that to the center.
_FAR = 1e20


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """center + sum_k c_k axes_k with sum_k (c_k / semi_axes_k)^2 <= 1.

    Parameters
    ----------
    center : (d,)
    axes : (k, d)
        Orthonormal rows: the principal axes, longest first.
    semi_axes : (k,)
    normals : (d - k, d)
        Orthonormal rows that the ellipsoid is orthogonal to.
    hollow : bool
        Only the surface is taken.
    """

    center: np.ndarray
    axes: np.ndarray
    semi_axes: np.ndarray
    normals: np.ndarray
    hollow: bool

    @property
    def normal(self) -> np.ndarray:
        """The one normal (d,), where no gain is 0: 1 / gain, scaled. Raises ValueError."""
        if len(self.normals) != 1:
            raise ValueError(f"there are {len(self.normals)} normals, not one; see `normals`")
        return self.normals[0]

    def coordinates(self, y: np.ndarray) -> np.ndarray:
        """Along the principal axes, from the center: (..., d) -> (..., k)."""
        return (real_array("points", y) - self.center) @ self.axes.T

    def off_plane(self, y: np.ndarray) -> np.ndarray:
        """Distance from the plane that the ellipsoid lies in: (..., d) -> (...)."""
        return length((real_array("points", y) - self.center) @ self.normals.T)

    def level(self, y: np.ndarray) -> np.ndarray:
        """The quadratic form in the plane: less than 1 inside, 1 on the surface.

        For y = LN(a) it is 1 - d eps / (||Pi a||^2 + d eps) unless two gains or more are 0.
        Rounding of y and of the axes counts here in units of the shortest semi-axis: where that is
        1e-10 times another, or times the center, six digits are left; `contains` does without it.
        """
        with np.errstate(over="ignore", divide="ignore"):
            return np.sum((self.coordinates(y) / self.semi_axes) ** 2, axis=-1)

    def contains(self, y: np.ndarray, tolerance: float = 1e-9) -> np.ndarray:
        """True for points at most `tolerance` times the longest semi-axis away from the ellipsoid,
        from its surface if it is hollow; the rounding of y and of the center comes on top."""
        y = real_array("points", y)
        size = np.max(self.semi_axes, initial=0.0)
        largest = np.maximum(np.abs(y).max(axis=-1), np.abs(self.center).max())
        near = tolerance * size + 4 * len(self.center) * _EPS * largest
        inside = self.distance_to_surface(y) <= near
        if not self.hollow:
            inside |= self.level(y) <= 1
        return inside & (self.off_plane(y) <= near)

    def distance_to_surface(self, y: np.ndarray) -> np.ndarray:
        """Euclidean distance, in the plane, to the nearest point of the surface: (..., d) -> (...).

        That point is z = s^2 p / (s^2 + t), coordinate by coordinate, with the largest t that puts
        it on the surface, found by halving. Together with `off_plane` (the hypotenuse of both) this
        gives the distance in space, with an error of rounding of the longest semi-axis, of y and of
        the center.
        """
        p = self.coordinates(y)
        if not len(self.semi_axes):
            return np.zeros(p.shape[:-1])
        unit = self.semi_axes[0]
        s = np.maximum(self.semi_axes / unit, 1e-100)
        with np.errstate(over="ignore"):
            far = length(p) > _FAR * unit
        near = _distance(np.where(far[..., None], 0.0, p / unit), s)
        return np.where(far, length(p), near * unit)


def _distance(p: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Of points p, (..., k), from the surface of the ellipsoid of semi-axes s, (k,), longest 1."""
    wider = s**2 - s[-1] ** 2  # s^2 + t = wider + r, r > 0: nothing cancels at short axes
    low = np.max(s * np.abs(p) - wider, axis=-1, keepdims=True)
    high = np.linalg.norm(s * p, axis=-1, keepdims=True)

    def on_unit_sphere(r: np.ndarray) -> np.ndarray:
        return np.where(p == 0, 0.0, s * p / np.where(wider + r > 0, wider + r, 1.0))

    short = np.sum(on_unit_sphere(low) ** 2, axis=-1) < 1  # no part along the shortest axis
    for _ in range(_HALVINGS):
        middle = np.sqrt(np.maximum(low, 1e-300)) * np.sqrt(high)
        outside = np.sum(on_unit_sphere(middle) ** 2, axis=-1, keepdims=True) > 1
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    q = on_unit_sphere(low)
    squared = np.sum(((low - s[-1] ** 2) * q / s) ** 2, axis=-1)
    missing = np.where(short, np.maximum(1 - np.sum(q**2, axis=-1), 0.0), 0.0)
    return np.sqrt(squared + missing * s[-1] ** 2)


def image_ellipsoid(gain: ArrayLike, bias: ArrayLike = 0.0, eps: float = 1e-5) -> Ellipsoid:
    """Where LayerNorm(gain, bias, eps) maps all tokens of dimension d = len(gain).

    LN(a) - bias = diag(gain) z with z orthogonal to 1 and ||z||^2 <= d, so the semi-axes are
    sqrt(d) times the singular values of diag(gain) Pi, and the axes its left singular vectors (the
    eigenvectors with lambda > 0 of RIECHERS's Pi_2 G^-2 Pi_2, sqrt(d / lambda)). The normal is
    1 / gain; where gains are 0 (or less than 2e-16 of the largest, as some trained ones are), those
    coordinates are constant and their unit vectors are the normals. The image is the surface alone
    for eps = 0 with at most one gain 0, and otherwise the interior: typical tokens land near the
    surface. Errors of axes and semi-axes are rounding of the longest one.

    Raises ValueError unless gain is a vector, and bias a vector of its length or a number.

    >>> image_ellipsoid([3.0, 4.0], eps=0.0).semi_axes  # |gain| in two dimensions
    array([5.])
    """
    gain, bias = real_array("the gain", gain), real_array("the bias", bias)
    if gain.ndim != 1 or len(gain) == 0:
        raise ValueError(f"the gain has one entry per dimension, (d,); got shape {gain.shape}")
    d = len(gain)
    LayerNorm(gain, bias, eps).check(d)
    gain = np.where(np.abs(gain) <= _EPS * np.abs(gain).max(), 0.0, gain)
    zeros = int(np.sum(gain == 0))
    k = d - max(zeros, 1)
    Pi = np.eye(d) - np.ones((d, d)) / d
    left, singular, _ = np.linalg.svd(gain[:, None] * Pi)
    return Ellipsoid(
        center=np.broadcast_to(bias, (d,)).copy(),
        axes=left.T[:k].copy(),
        semi_axes=np.sqrt(d) * singular[:k],
        normals=left.T[k:].copy(),
        hollow=eps == 0 and zeros <= 1,
    )
