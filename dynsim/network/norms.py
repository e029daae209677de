"""Normalisations of tokens: none, unit (WU's "LayerNorm"), rms, layernorm; dyt and derf.

The first four are one formula with different switches, for a token a of dimension d:

    y = gain * (a - centre mean(a)) * scale / sqrt(||a - centre mean(a)||^2 + d eps) + bias

unit: no centring, scale 1, eps 0. rms: no centring, scale sqrt(d). layernorm: centring, scale
sqrt(d) (RIECHERS, arXiv 2405.04134: sqrt(d) Pi a / sqrt(||Pi a||^2 + d eps), Pi = I - 11^T/d).
"LayerNorm" in WU, arXiv 2405.18781, is `Unit`: row scaling without centring. A trained model has
another gain in every layer: `PerLayer`.

DyT and Derf are element-wise, y = gain * f(a x + s) + bias with f = tanh or erf: nothing of a token
is divided by its size, and there is no sphere. What rests on the formula above refuses them, for
they have no `switches`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dynsim._values import (
    Value,
    check_instance,
    entry_of_layer,
    real_array,
    real_number,
    shown,
    whole,
)

__all__ = [
    "NORMS",
    "Derf",
    "DyT",
    "ElementwiseNorm",
    "LayerNorm",
    "NoNorm",
    "Norm",
    "NormSwitches",
    "PerLayer",
    "RMSNorm",
    "Unit",
    "ln_scaling",
]

#: Tokens of these types are normalised in their own precision, others in float64.
_TYPES = (np.float32, np.longdouble)


class NormSwitches(NamedTuple):
    """The one formula's numbers for dimension d."""

    active: bool
    centre: bool
    scale: float
    shift: float  # d eps, added under the root
    gain: float | np.ndarray
    bias: float | np.ndarray


class Norm(Value):
    """Base of the norms. A norm applies to the last axis of an array of any shape."""

    @property
    def each(self) -> tuple[Norm, ...]:
        """The norms of the layers, or the one norm that serves them all."""
        return (self,)

    @property
    def n_layers(self) -> int | None:
        """How many layers there are norms for; None when there is no end."""
        return None if len(self.each) == 1 else len(self.each)

    def layer(self, t: int) -> Norm:
        """The norm of layer t (the first is 0)."""
        return entry_of_layer("norms", self.each, t)

    def switches(self, d: int) -> NormSwitches:
        """The numbers of the one formula; ValueError for a norm that is not of this form."""
        raise NotImplementedError

    def check(self, d: int) -> None:
        """Raise ValueError unless gain and bias fit tokens of dimension d."""
        self._check_numbers()
        for name in ("gain", "bias"):
            given = np.asarray(getattr(self, name, 1.0))
            if given.size not in (1, d):
                raise ValueError(
                    f"the {name} of a norm has one entry per dimension; got shape {given.shape} "
                    f"for tokens of dimension {d}; give {d} numbers or one"
                )

    def _check_numbers(self) -> None:
        """What can be said before the dimension is known."""
        for name in ("gain", "bias"):
            given = real_array(f"the {name} of a norm", getattr(self, name, 1.0))
            if given.ndim > 1 or not given.size:
                raise ValueError(
                    f"the {name} of a norm is one number, or one per dimension; got shape "
                    f"{given.shape}"
                )
            if not np.all(np.isfinite(given)):
                raise ValueError(f"the {name} of a norm is finite; found NaN or infinity in it")
        eps = real_number("the eps of a norm", getattr(self, "eps", 0.0))
        if not (np.isfinite(eps) and eps >= 0):
            raise ValueError(f"the eps of a norm is a number, not negative; got {eps}")

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Normalise each token (last axis) of `x`; a token that cannot be scaled gives NaN."""
        x = real_array("tokens", x, own=_TYPES, axes=1)
        norm = self.switches(x.shape[-1])
        if not norm.active:
            return x
        centred = _centred(x) if norm.centre else x
        unit = np.abs(centred).max(axis=-1, keepdims=True)  # squares neither vanish nor overflow
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            direction = np.where(unit > 0, centred / unit, 0.0)
            squared = np.sum(direction * direction, axis=-1, keepdims=True)
            scaled = direction * (norm.scale / np.sqrt(squared + norm.shift / unit / unit))
            y = norm.gain * np.where(_sizeless(unit, norm), np.nan, scaled) + norm.bias
        return y.astype(x.dtype, copy=False)

    def derivative(self, x: np.ndarray) -> np.ndarray:
        """dy/dx at each token (last axis) of `x`, (..., d, d); entry [a, b] is dy_a / dx_b.

        With c = a - centre mean(a), r^2 = ||c||^2 + d eps and the projector Pi that centres:
        diag(gain) (scale / r) (Pi - c c^T / r^2). A token that cannot be scaled gives NaN.
        """
        x = real_array("tokens", x, own=_TYPES)
        d = x.shape[-1]
        norm = self.switches(d)
        if not norm.active:
            return np.broadcast_to(np.eye(d), (*x.shape, d)).copy()
        direction, slope = self._sphere(x)
        projector = np.eye(d) - 1.0 / d if norm.centre else np.eye(d)
        inner = projector - direction[..., :, None] * direction[..., None, :]
        return np.broadcast_to(norm.gain, d)[:, None] * slope[..., None] * inner

    def derivative_along(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        """`derivative(x)` times the directions v, (..., d), in O(d) work a token."""
        x, v = (real_array(what, z, own=_TYPES) for what, z in (("tokens", x), ("directions", v)))
        norm = self.switches(x.shape[-1])
        if not norm.active:
            return np.broadcast_to(v, np.broadcast_shapes(x.shape, v.shape)).copy()
        direction, slope = self._sphere(x)
        v = _centred(v) if norm.centre else v
        along = np.sum(direction * v, axis=-1, keepdims=True)
        return norm.gain * slope * (v - along * direction)

    def _sphere(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """c / r and scale / r of `derivative`: (..., d) and (..., 1)."""
        norm = self.switches(x.shape[-1])
        centred = _centred(x) if norm.centre else x
        unit = np.abs(centred).max(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            size = unit * np.sqrt(
                np.sum((centred / unit) ** 2, axis=-1, keepdims=True) + norm.shift / unit / unit
            )
            size = np.where(unit > 0, size, np.sqrt(norm.shift) if norm.shift else np.nan)
            return centred / size, norm.scale / size

    def undefined(self, x: np.ndarray) -> np.ndarray:
        """True for each token of `x` that this norm cannot scale (it would divide by zero)."""
        x = real_array("tokens", x, own=_TYPES)
        norm = self.switches(x.shape[-1])
        if not norm.active:
            return np.zeros(x.shape[:-1], bool)
        return _sizeless(np.abs(_centred(x) if norm.centre else x).max(axis=-1), norm)


def _centred(x: np.ndarray) -> np.ndarray:
    """x less its mean; taken from the first entry, so that a constant token gives exactly 0."""
    rest = x - x[..., :1]
    return rest - rest.mean(axis=-1, keepdims=True)


def _sizeless(unit: np.ndarray, norm: NormSwitches) -> np.ndarray:
    return (unit == 0) & (norm.shift == 0)


@dataclass(frozen=True, eq=False, repr=False)
class NoNorm(Norm):
    """No normalisation: y = a.

    >>> NoNorm().apply(np.array([3.0, 4.0]))
    array([3., 4.])
    """

    def switches(self, d: int) -> NormSwitches:
        return NormSwitches(False, False, 1.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class Unit(Norm):
    """y = a / ||a||: WU's LayerNorm (arXiv 2405.18781, section 3). Undefined for a = 0.

    >>> Unit().apply(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """

    def switches(self, d: int) -> NormSwitches:
        return NormSwitches(True, False, 1.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class RMSNorm(Norm):
    """y = gain * a / sqrt(mean(a^2) + eps), the root mean square norm of `torch.nn.RMSNorm`.

    gain : a number, or one per dimension (d,). eps : a number >= 0.

    >>> RMSNorm(eps=0.0).apply(np.array([3.0, 4.0]))
    array([0.84852814, 1.13137085])
    """

    gain: float | np.ndarray = 1.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        self._freeze_array("gain")
        self._check_numbers()

    def switches(self, d: int) -> NormSwitches:
        return NormSwitches(True, False, d**0.5, d * self.eps, self.gain, 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class LayerNorm(Norm):
    """y = gain * (a - mean(a)) / sqrt(var(a) + eps) + bias, as `torch.nn.LayerNorm`.

    Equal to sqrt(d) gain * Pi a / sqrt(||Pi a||^2 + d eps) + bias (RIECHERS, arXiv 2405.04134).

    gain, bias : a number, or one per dimension (d,). eps : a number >= 0.

    >>> LayerNorm(eps=0.0).apply(np.array([1.0, 2.0, 3.0]))
    array([-1.22474487,  0.        ,  1.22474487])
    """

    gain: float | np.ndarray = 1.0
    bias: float | np.ndarray = 0.0
    eps: float = 1e-5

    def __post_init__(self) -> None:
        self._freeze_array("gain")
        self._freeze_array("bias")
        self._check_numbers()

    def switches(self, d: int) -> NormSwitches:
        return NormSwitches(True, True, d**0.5, d * self.eps, self.gain, self.bias)


class ElementwiseNorm(Norm):
    """Base of the norms y = gain * f(a x + s) + bias, entry by entry."""

    function: str  # the name of f: "tanh" or "erf"
    a: float
    s: float = 0.0
    gain: float | np.ndarray
    bias: float | np.ndarray

    def _check_numbers(self) -> None:
        super()._check_numbers()
        for name in ("a", "s"):
            number = real_number(f"{name} of {type(self).__name__}", getattr(self, name))
            if not np.isfinite(number):
                raise ValueError(f"{name} of {type(self).__name__} is finite; got {number}")

    def switches(self, d: int) -> NormSwitches:
        raise ValueError(
            f"{type(self).__name__} works entry by entry and divides by no size, so that what "
            f"rests on the size of tokens does not apply; use norms.Unit(), RMSNorm() or "
            f"LayerNorm(), --norm unit, rms or layernorm"
        )

    def apply(self, x: np.ndarray) -> np.ndarray:
        x = real_array("tokens", x, own=_TYPES, axes=1)
        with np.errstate(over="ignore", invalid="ignore"):  # tanh of infinity is 1
            y = self.gain * _FUNCTIONS[self.function](self.a * x + self.s) + self.bias
        return y.astype(x.dtype, copy=False)

    def derivative(self, x: np.ndarray) -> np.ndarray:
        x = real_array("tokens", x, own=_TYPES)
        return self._slope(x)[..., :, None] * np.eye(x.shape[-1])

    def derivative_along(self, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        x, v = (real_array(what, z, own=_TYPES) for what, z in (("tokens", x), ("directions", v)))
        return self._slope(x) * v

    def _slope(self, x: np.ndarray) -> np.ndarray:
        """dy_a / dx_a, (..., d)."""
        return self.gain * self.a * _SLOPES[self.function](self.a * x + self.s)

    def undefined(self, x: np.ndarray) -> np.ndarray:
        return np.zeros(np.shape(x)[:-1], bool)


def _erf(z: np.ndarray) -> np.ndarray:
    from scipy.special import erf  # which takes long to import

    return erf(z)


def _tanh_slope(z: np.ndarray) -> np.ndarray:
    """1 / cosh^2, which keeps its digits where tanh is next to 1."""
    e = np.exp(-2.0 * np.abs(z))
    return 4.0 * e / (1.0 + e) ** 2


def _erf_slope(z: np.ndarray) -> np.ndarray:
    return np.exp(-z * z) * (2.0 / np.pi**0.5)


#: The functions of element-wise norms, and their derivatives.
_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"tanh": np.tanh, "erf": _erf}
_SLOPES = {"tanh": _tanh_slope, "erf": _erf_slope}


@dataclass(frozen=True, eq=False, repr=False)
class DyT(ElementwiseNorm):
    """y = gain * tanh(a x) + bias: dynamic tanh (arXiv 2503.10622), which starts from a = 0.5.

    a : a number. gain, bias : a number, or one per dimension (d,).

    >>> DyT(0.5).apply(np.array([0.0, 2.0]))
    array([0.        , 0.76159416])
    """

    a: float = 0.5
    gain: float | np.ndarray = 1.0
    bias: float | np.ndarray = 0.0
    function = "tanh"

    def __post_init__(self) -> None:
        self._freeze_array("gain")
        self._freeze_array("bias")
        self._check_numbers()


@dataclass(frozen=True, eq=False, repr=False)
class Derf(ElementwiseNorm):
    """y = gain * erf(a x + s) + bias (arXiv 2512.10938), which starts from a = 0.5, s = 0.

    a, s : numbers. gain, bias : a number, or one per dimension (d,).

    >>> Derf(0.5).apply(np.array([0.0, 2.0]))
    array([0.        , 0.84270079])
    """

    a: float = 0.5
    s: float = 0.0
    gain: float | np.ndarray = 1.0
    bias: float | np.ndarray = 0.0
    function = "erf"

    def __post_init__(self) -> None:
        self._freeze_array("gain")
        self._freeze_array("bias")
        self._check_numbers()


@dataclass(frozen=True, eq=False, repr=False)
class PerLayer(Norm):
    """A norm for each layer: layer t has entry t; a single one serves all layers.

    It is no norm itself and does not apply to tokens: take `layer(t)`.

    Raises ValueError for entries that are not norms, or differ from layer to layer themselves.

    >>> PerLayer((Unit(), RMSNorm(2.0))).layer(1)
    RMSNorm(gain=2.0, eps=1e-05)
    """

    norms: tuple[Norm, ...]

    def __post_init__(self) -> None:
        check_instance("norms of layers", self.norms, (tuple, list), "(norm_0, norm_1)")
        object.__setattr__(self, "norms", tuple(self.norms))
        if not self.norms:
            raise ValueError("norms of layers are one or more; got none")
        for t, norm in enumerate(self.norms):
            if not isinstance(norm, Norm) or isinstance(norm, PerLayer):
                raise ValueError(
                    f"norms of layers are each a norm such as LayerNorm(); that of layer {t} is "
                    f"{shown(norm)}"
                )

    @property
    def each(self) -> tuple[Norm, ...]:
        return self.norms

    def check(self, d: int) -> None:
        for norm in self.norms:
            norm.check(d)

    def switches(self, d: int) -> NormSwitches:
        raise ValueError(
            f"there is not one norm but {len(self.norms)}, a norm for each layer; take one of "
            f"them, norm.layer(t), or one layer of a dynamics, dynamics.layer(t)"
        )


def ln_scaling(norm: Norm, layers: int) -> PerLayer:
    """norm(x) / sqrt(l) in layer l = 1, ..., `layers`: LayerNorm scaling (arXiv 2502.05795).

    What the norm gives is divided, before the branch sees it; with placement "pre" and uniform
    attention that is a branch of weight 1 / sqrt(l).

    Raises ValueError for a norm without gain, and one that has entries by layer itself.

    >>> [float(one.gain) for one in ln_scaling(RMSNorm(), 4).norms[::3]]
    [1.0, 0.5]
    """
    check_instance("a norm", norm, Norm, "dynsim.norms.LayerNorm()")
    layers = whole("number of layers", layers, least=1)
    if not hasattr(norm, "gain"):
        raise ValueError(
            f"LayerNorm scaling divides the gain of a norm, and {type(norm).__name__} has none; "
            f"use RMSNorm(), LayerNorm(), DyT() or Derf(), --norm rms, layernorm, dyt or derf"
        )
    scaled: Any = norm  # a dataclass, with or without a bias
    names = [name for name in ("gain", "bias") if hasattr(norm, name)]
    each = [{name: getattr(norm, name) / t**0.5 for name in names} for t in range(1, layers + 1)]
    return PerLayer(tuple(replace(scaled, **numbers) for numbers in each))


#: Every norm by the name that the command line gives it.
NORMS = {
    "none": NoNorm,
    "unit": Unit,
    "rms": RMSNorm,
    "layernorm": LayerNorm,
    "dyt": DyT,
    "derf": Derf,
}
