"""The optional two-layer perceptron that follows attention in a transformer layer.

f(x) = activation(x W_1 + b_1) W_2 + b_2, token by token. A gated activation takes pairs: of 2 m
hidden units the first m are gates for the others, so that W_1 has twice as many columns as W_2 has
rows (SwiGLU, arXiv 2002.05202, as in Llama).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dynsim._seeds import MLPS as MLP_STREAM
from dynsim._seeds import stream
from dynsim._values import (
    check_instance,
    check_name,
    check_switch,
    entry_of_layer,
    real_array,
    real_number,
    whole,
)
from dynsim.network.by_layer import GivenByLayer, LayerPart

__all__ = [
    "ACTIVATIONS",
    "DERIVATIVES",
    "MLP",
    "MLPS",
    "UNITS",
    "FixedMLP",
    "GaussianMLP",
    "MLPWeights",
    "NoMLP",
    "sigmoid",
]


_TANH, _CUBE = (2.0 / np.pi) ** 0.5, 0.044715


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x) with the exact normal distribution function, as torch's default GELU."""
    from scipy.special import erf

    return 0.5 * x * (1.0 + erf(x / 2.0**0.5))


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0.0)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, as torch's GELU("tanh"); GPT-2's."""
    return 0.5 * x * (1.0 + np.tanh(_TANH * (x + _CUBE * x**3)))


def gelu_derivative(x: np.ndarray) -> np.ndarray:
    """Phi(x) + x phi(x)."""
    from scipy.special import erf

    return 0.5 * (1.0 + erf(x / 2.0**0.5)) + x * np.exp(-0.5 * x * x) / (2.0 * np.pi) ** 0.5


def gelu_tanh_derivative(x: np.ndarray) -> np.ndarray:
    """(1 + T) / 2 + x (1 - T^2) sqrt(2/pi) (1 + 0.134145 x^2) / 2 with the tanh T above."""
    T = np.tanh(_TANH * (x + _CUBE * x**3))
    return 0.5 * (1.0 + T) + 0.5 * x * (1.0 - T * T) * _TANH * (1.0 + 3.0 * _CUBE * x * x)


def relu_derivative(x: np.ndarray) -> np.ndarray:
    """1 where x > 0, else 0."""
    return (x > 0).astype(x.dtype)


def swiglu(x: np.ndarray) -> np.ndarray:
    """g sigmoid(g) u for the gates g, the first half of x, and u, the second."""
    gate, up = np.split(x, 2, axis=-1)
    return gate * sigmoid(gate) * up


def swiglu_derivative(x: np.ndarray) -> np.ndarray:
    """By g, (sigmoid(g) + g sigmoid(g) (1 - sigmoid(g))) u, and by u, g sigmoid(g); beside."""
    gate, up = np.split(x, 2, axis=-1)
    s = sigmoid(gate)
    return np.concatenate([s * (1.0 + gate * (1.0 - s)) * up, gate * s], axis=-1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), as exact for very negative x."""
    smaller = np.exp(-np.abs(x))  # does not overflow
    return np.where(x < 0, smaller, x.dtype.type(1.0)) / (1.0 + smaller)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu, "swiglu": swiglu}
DERIVATIVES = {
    "gelu": gelu_derivative,
    "gelu_tanh": gelu_tanh_derivative,
    "relu": relu_derivative,
    "swiglu": swiglu_derivative,
}
#: Hidden units for each that W_2 takes: 2 for gated activations.
UNITS = dict.fromkeys(ACTIVATIONS, 1) | {"swiglu": 2}


class MLPWeights(NamedTuple):
    """W_1 (d, m), b_1 (m,), W_2 (m, d), b_2 (d,); with a gate W_1 (d, 2 m) and b_1 (2 m,)."""

    W_1: np.ndarray
    b_1: np.ndarray
    W_2: np.ndarray
    b_2: np.ndarray


class MLP(LayerPart):
    """Base of the MLPs."""

    activation: str

    def layer(self, t: int, d: int) -> MLPWeights:
        """The matrices of layer t (the first is 0) for tokens of dimension d."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class NoMLP(MLP):
    """Attention only."""

    active = False


@dataclass(frozen=True, eq=False, repr=False)
class GaussianMLP(MLP):
    """Fresh (or shared) Gaussian weights, entries N(0, sigma^2 / fan-in), hidden width * d wide."""

    activation: str = "gelu"
    sigma: float = 1.0
    width: int = 4
    shared: bool = False
    seed: int = 0
    active = True

    def __post_init__(self) -> None:
        check_name("activation", self.activation, ACTIVATIONS)
        check_switch("shared of an MLP", self.shared)
        whole("seed of an MLP", self.seed, least=0, most=np.inf)
        whole("width of an MLP", self.width, least=1)
        sigma = real_number("sigma of an MLP", self.sigma)
        if not (np.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma of an MLP is positive and finite; got {self.sigma}")

    @property
    def is_constant(self) -> bool:
        return self.shared

    def layer(self, t: int, d: int) -> MLPWeights:
        return _draw(self, 0 if self.shared else t, d)


@lru_cache(maxsize=8)
def _draw(mlp: GaussianMLP, t: int, d: int) -> MLPWeights:
    rng, m = stream(mlp.seed, MLP_STREAM, t), mlp.width * d
    hidden = UNITS[mlp.activation] * m
    W_1 = rng.standard_normal((d, hidden)) * (mlp.sigma / d**0.5)
    W_2 = rng.standard_normal((m, d)) * (mlp.sigma / m**0.5)
    return MLPWeights(W_1, np.zeros(hidden), W_2, np.zeros(d))


@dataclass(frozen=True, eq=False, repr=False)
class FixedMLP(GivenByLayer, MLP):
    """Given matrices: one `MLPWeights` for all layers, or several, of which layer t has entry t.

    Raises ValueError when an entry is not finite or its shapes do not fit.
    """

    weights: MLPWeights | tuple[MLPWeights, ...]
    activation: str = "gelu"
    active = True

    def __post_init__(self) -> None:
        check_name("activation", self.activation, ACTIVATIONS)
        self._check_layers(
            "an MLP", MLPWeights, lambda layer: _checked(layer, UNITS[self.activation])
        )
        dims = [layer.W_1.shape[0] for layer in self.each]
        if len(set(dims)) > 1:
            raise ValueError(f"the layers of an MLP have one dimension; got {dims}")

    def layer(self, t: int, d: int) -> MLPWeights:
        weights = entry_of_layer("MLPs", self.each, t)
        if d != weights.W_1.shape[0]:
            raise ValueError(
                f"the MLP is for dimension {weights.W_1.shape[0]}, the tokens have {d}"
            )
        return weights


def _checked(weights: MLPWeights, units: int) -> MLPWeights:
    """In floating point, finite and of shapes that fit each other."""
    check_instance("the weights of an MLP", weights, MLPWeights, "MLPWeights(W_1, ...)")
    weights = MLPWeights(
        *(
            real_array(f"{name} of an MLP", array, own=(np.float32,))
            for name, array in zip(MLPWeights._fields, weights, strict=True)
        )
    )
    for name, array in zip(MLPWeights._fields, weights, strict=True):
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} of an MLP is finite; found NaN or infinity in it")
    shapes, (m, d) = [array.shape for array in weights], (*weights.W_2.shape, 0, 0)[:2]
    if 0 in (d, m) or shapes != [(d, units * m), (units * m,), (m, d), (d,)]:
        hidden = "m" if units == 1 else f"{units} m"
        raise ValueError(
            f"an MLP has W_1 (d, {hidden}), b_1 ({hidden},), W_2 (m, d), b_2 (d,), none of them 0; "
            f"got {shapes}"
        )
    return weights


#: Every MLP by the name that the command line gives it.
MLPS = {"none": NoMLP, "gaussian": GaussianMLP}
