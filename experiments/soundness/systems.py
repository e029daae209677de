"""Random systems that several storms try, and what the referee needs to know of them."""

from __future__ import annotations

import numpy as np

import dynsim
from dynsim import masks, norms
from experiments.digits import Layer

__all__ = ["NORMS", "layer_of", "random_mask", "random_tokens"]

NORMS = {
    "none": norms.NoNorm(),
    "unit": norms.Unit(),
    "rms": norms.RMSNorm(eps=0.0),
    "layernorm": norms.LayerNorm(eps=1e-5),
}


def layer_of(dynamics: dynsim.AttentionDynamics, norm: str, t: int, d: int) -> Layer:
    """Layer t for the referee; `norm` is the name in NORMS."""
    layer = dynamics.weights.layer(t, d)
    heads = list(zip(layer.M, layer.W_V, strict=True))
    eps = getattr(dynamics.norm, "eps", 0.0)
    return Layer(heads, dynamics.allowed(), norm, dynamics.placement, dynamics.skip, eps=eps)


def random_mask(rng, n: int):
    """One of dynsim's masks, or a random graph, most often with self-loops."""
    names = [name for name in masks.MASKS if name != "global"]
    if rng.random() < 0.6:
        try:
            return masks.MASKS[str(rng.choice(names))](n)
        except ValueError:  # some want more tokens
            return masks.complete(n)
    edges = rng.random((n, n)) < rng.uniform(0.1, 0.9)
    if rng.random() < 0.8:
        edges |= np.eye(n, dtype=bool)
    edges[edges.sum(axis=1) == 0, 0] = True
    return masks.from_array(edges)


def random_tokens(rng, n: int, d: int) -> np.ndarray:
    """Gaussian of any size, on the sphere, all alike but for a little, or integers."""
    x = rng.standard_normal((n, d))
    kind = rng.integers(6)
    if kind == 1:
        x *= 10.0 ** rng.uniform(-3, 2)
    elif kind == 2:
        x = np.abs(x) / np.linalg.norm(x, axis=1, keepdims=True)
    elif kind == 3:
        x = x[0] + x * 10.0 ** rng.uniform(-15, -1)
    elif kind == 4:
        x = rng.integers(-2, 3, (n, d)).astype(float)
    elif kind == 5:
        x[rng.integers(n)] = x[0]
    x[~x.any(axis=1)] = 1.0
    return x
