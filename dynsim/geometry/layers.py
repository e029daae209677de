"""What a LayerNorm does to tokens, and what RMSNorm would do in its place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dynsim._values import check_instance, real_array
from dynsim.geometry.decomposition import angle_to_ones, decompose
from dynsim.geometry.ellipsoid import Ellipsoid, image_ellipsoid
from dynsim.network.norms import LayerNorm, RMSNorm

__all__ = ["Changes", "Survey", "changes", "survey"]


@dataclass(frozen=True, eq=False)
class Changes:
    """Of every token, in the order of GUPTA's figures; angles in degrees.

    angle_before, angle_after : to the vector 1
    norm_before, norm_after
    rotation : between the token and what it becomes
    redundancy : ||Pi a|| / ||a||, the cosine between the token and its centred self: 1 where
        removing the mean does nothing and RMSNorm agrees with LayerNorm
    switch : ||RMSNorm(a) + bias - LN(a)|| / ||LN(a) - bias||, with the same gain and eps
    """

    angle_before: np.ndarray
    angle_after: np.ndarray
    norm_before: np.ndarray
    norm_after: np.ndarray
    rotation: np.ndarray
    redundancy: np.ndarray
    switch: np.ndarray


def changes(norm: LayerNorm, x: np.ndarray) -> Changes:
    """What `norm` changes in each token (last axis) of x, (..., d) -> (...) each.

    Raises ValueError for tokens that do not fit, and for a token that is constant: LayerNorm has
    nothing to normalise in it.

    >>> changed = changes(LayerNorm(eps=0.0), np.array([[3.0, -3.0], [1.0, 2.0]]))
    >>> changed.switch.round(3)  # (3, -3) is orthogonal to 1
    array([0.   , 1.169])
    """
    check_instance("a norm", norm, LayerNorm, "dynsim.norms.LayerNorm()")
    x = real_array("tokens", x)
    norm.check(x.shape[-1])
    parts = decompose(x)
    if np.any(parts.scale == 0):
        raise ValueError("a token is constant, so that LayerNorm maps it to its bias; remove it")
    y = norm.apply(x)
    scaled, rms = y - norm.bias, RMSNorm(norm.gain, norm.eps).apply(x)
    size = np.linalg.norm(x, axis=-1)
    cosine = np.sum(x * y, axis=-1) / (size * np.linalg.norm(y, axis=-1))
    return Changes(
        angle_before=angle_to_ones(x),
        angle_after=angle_to_ones(y),
        norm_before=size,
        norm_after=np.linalg.norm(y, axis=-1),
        rotation=np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        redundancy=parts.scale / size,
        switch=np.linalg.norm(rms - scaled, axis=-1) / np.linalg.norm(scaled, axis=-1),
    )


@dataclass(frozen=True, eq=False)
class Survey:
    """One LayerNorm on given tokens: `survey` makes it."""

    name: str
    norm: LayerNorm
    ellipsoid: Ellipsoid
    changes: Changes
    points: np.ndarray  # (tokens, k): the outputs along the principal axes
    distance: np.ndarray  # (tokens,): from the outputs to the surface

    @cached_property
    def row(self) -> dict:
        """Means over tokens, medians of distances, and the ends of the spectrum, JSON-ready."""
        s = self.ellipsoid.semi_axes
        means = {name: float(v.mean()) for name, v in vars(self.changes).items()}
        return {
            "name": self.name,
            "dimension": len(self.ellipsoid.center),
            "tokens": len(self.distance),
            "semi_axes": len(s),
            "longest_semi_axis": float(s[0]),
            "shortest_semi_axis": float(s[-1]),
            "center_norm": float(np.linalg.norm(self.ellipsoid.center)),
            "distance_to_surface": float(np.median(self.distance)),
            "largest_distance_to_surface": float(self.distance.max()),
            **means,
        }


def survey(name: str, norm: LayerNorm, x: np.ndarray) -> Survey:
    """The geometry of a LayerNorm and of what it does to the tokens x, (..., d).

    Raises ValueError for tokens that do not fit or are constant, and where the image is a single
    point: in one dimension, or if all gains are 0.

    >>> of_norm = survey("final norm", LayerNorm(gain=[3.0, 4.0], eps=0.0), np.eye(2))
    >>> of_norm.ellipsoid.semi_axes, of_norm.distance.round(9)
    (array([5.]), array([0., 0.]))
    """
    check_instance("a norm", norm, LayerNorm, "dynsim.norms.LayerNorm()")
    x = real_array("tokens", x)
    x = x.reshape(-1, x.shape[-1])
    d = x.shape[-1]
    norm.check(d)
    ellipsoid = image_ellipsoid(np.broadcast_to(norm.gain, d), norm.bias, norm.eps)
    if not len(ellipsoid.semi_axes):
        raise ValueError("LayerNorm maps all tokens to its bias: all gains are 0, or d is 1")
    changed = changes(norm, x)
    y = norm.apply(x)
    return Survey(
        name, norm, ellipsoid, changed, ellipsoid.coordinates(y), ellipsoid.distance_to_surface(y)
    )
