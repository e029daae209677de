"""Geometry of LayerNorm (RIECHERS, arXiv 2405.04134; GUPTA, arXiv 2409.12951) and of keys (BRODY).

LayerNorm removes the component of a token along 1, keeps the direction of the rest, and puts it on
an ellipsoid. Public: `decompose` takes a token apart, `image_ellipsoid` is where it goes, `survey`
says what a LayerNorm does to given tokens, and what RMSNorm would do instead. In modules of their
own: `selectability`, which keys can win the argmax, and `gaussian_keys`, how many of random ones.
"""

from dynsim.geometry.decomposition import (
    Decomposition,
    angle_to_ones,
    decompose,
    layer_norm_closed_form,
    orthogonality,
)
from dynsim.geometry.ellipsoid import Ellipsoid, image_ellipsoid
from dynsim.geometry.layers import Changes, Survey, changes, survey

__all__ = [
    "Changes",
    "Decomposition",
    "Ellipsoid",
    "Survey",
    "angle_to_ones",
    "changes",
    "decompose",
    "image_ellipsoid",
    "layer_norm_closed_form",
    "orthogonality",
    "survey",
]
