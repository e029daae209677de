"""Gated attention: what a head gives, entry by entry times a gate that the token itself sets.

With values V_h and output matrix O_h, head h adds (A_h V_h * G_h) O_h with

    G_h = sigmoid(x W_g^h + b_g^h)

instead of A_h V_h O_h, x the tokens as attention sees them (arXiv 2505.06708, its best variant).
W_g is (d, q) for values of q numbers, or (d, 1), one gate for the whole head. A head that is given
by W_V alone has V = x W_V and O = I.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dynsim._seeds import GATES as GATE_STREAM
from dynsim._seeds import stream
from dynsim._values import (
    check_instance,
    check_switch,
    entry_of_layer,
    real_array,
    real_number,
    whole,
)
from dynsim.network.by_layer import GivenByLayer, LayerPart
from dynsim.network.mlp import sigmoid

__all__ = [
    "GATES",
    "FixedGate",
    "Gate",
    "GateWeights",
    "GaussianGate",
    "NoGate",
    "headwise_gate",
]


class GateWeights(NamedTuple):
    """One layer: W (H, d, q) or (H, d, 1), b (H, q) or (H, 1)."""

    W: np.ndarray
    b: np.ndarray

    def open(self, x: np.ndarray) -> np.ndarray:
        """G of tokens x, (..., N, d), as attention sees them: (..., H, N, q) or (..., H, N, 1)."""
        W, b = (array.astype(x.dtype, copy=False) for array in self)
        return sigmoid(x[..., None, :, :] @ W + b[:, None, :])

    def check(self, n_heads: int, width: int) -> None:
        """Raise ValueError unless they fit so many heads, and values of so many numbers."""
        heads, _, q = self.W.shape
        if heads != n_heads or q not in (1, width):
            raise ValueError(
                f"a gate has one matrix a head, for values of {width} numbers or for 1; got W of "
                f"shape {self.W.shape} for {n_heads} heads"
            )


class Gate(LayerPart):
    """Base of the gates."""

    active = True

    def layer(self, t: int, n_heads: int, d: int, width: int) -> GateWeights:
        """The matrices of layer t (the first is 0) for so many heads, whose values have `width`
        numbers, and tokens of dimension d."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class NoGate(Gate):
    """What the heads give is added as it is."""

    active = False


@dataclass(frozen=True, eq=False, repr=False)
class GaussianGate(Gate):
    """Entries of W_g N(0, sigma^2 / d), fresh in every layer or shared; every entry of b_g `bias`.

    headwise : one gate for a head instead of one for each of its numbers.
    """

    sigma: float = 1.0
    bias: float = 0.0
    headwise: bool = False
    shared: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_switch("headwise of a gate", self.headwise)
        check_switch("shared of a gate", self.shared)
        whole("seed of a gate", self.seed, least=0, most=np.inf)
        sigma = real_number("sigma of a gate", self.sigma)
        if not (np.isfinite(sigma) and sigma >= 0):
            raise ValueError(f"sigma of a gate is finite and not negative; got {self.sigma}")
        if not np.isfinite(real_number("the bias of a gate", self.bias)):
            raise ValueError(f"the bias of a gate is finite; got {self.bias}")

    @property
    def is_constant(self) -> bool:
        return self.shared

    def layer(self, t: int, n_heads: int, d: int, width: int) -> GateWeights:
        return _draw(self, 0 if self.shared else t, n_heads, d, 1 if self.headwise else width)


@lru_cache(maxsize=8)
def _draw(gate: GaussianGate, t: int, n_heads: int, d: int, width: int) -> GateWeights:
    rng = stream(gate.seed, GATE_STREAM, t)
    W = rng.standard_normal((n_heads, d, width)) * (gate.sigma / d**0.5)
    return GateWeights(W, np.full((n_heads, width), float(gate.bias)))


@dataclass(frozen=True, eq=False, repr=False)
class FixedGate(GivenByLayer, Gate):
    """Given matrices: one `GateWeights` for all layers, or several, of which layer t has entry t.

    Raises ValueError when an entry is not finite or its shapes do not fit.
    """

    weights: GateWeights | tuple[GateWeights, ...]

    def __post_init__(self) -> None:
        self._check_layers("a gate", GateWeights, _checked)

    def layer(self, t: int, n_heads: int, d: int, width: int) -> GateWeights:
        weights = entry_of_layer("gates", self.each, t)
        if weights.W.shape[1] != d:
            raise ValueError(f"the gate is for dimension {weights.W.shape[1]}, the tokens have {d}")
        weights.check(n_heads, width)
        return weights


def _checked(weights: GateWeights) -> GateWeights:
    """In floating point, finite and of shapes that fit each other."""
    check_instance("the weights of a gate", weights, GateWeights, "GateWeights(W, b)")
    W, b = (
        real_array(f"{name} of a gate", array, own=(np.float32,))
        for name, array in zip(GateWeights._fields, weights, strict=True)
    )
    for name, array in (("W", W), ("b", b)):
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} of a gate is finite; found NaN or infinity in it")
    if W.ndim != 3 or not W.size or b.shape != (W.shape[0], W.shape[2]):
        raise ValueError(
            f"a gate has W (heads, d, q) and b (heads, q), none of them 0; got {W.shape} and "
            f"{b.shape}"
        )
    return GateWeights(W, b)


def headwise_gate(
    sigma: float = 1.0, bias: float = 0.0, shared: bool = False, seed: int = 0
) -> GaussianGate:
    """A `GaussianGate` with one gate for each head."""
    return GaussianGate(sigma, bias, True, shared, seed)


#: Every gate by the name that the command line gives it.
GATES: dict[str, Callable[..., Gate]] = {
    "none": NoGate,
    "gaussian": GaussianGate,
    "headwise": headwise_gate,
}
