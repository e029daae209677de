"""What has matrices of its own in every layer, beside attention: drawn, or given layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dynsim._values import Value

__all__ = ["GivenByLayer", "LayerPart"]


class LayerPart(Value):
    """Base of the MLPs and the gates: by default all layers have the same matrices, without end."""

    active: bool

    @property
    def is_constant(self) -> bool:
        """True when all layers have the same matrices."""
        return True

    @property
    def n_layers(self) -> int | None:
        """How many layers there are matrices for; None when there is no end."""
        return None


class GivenByLayer(LayerPart):
    """Matrices that are given: `weights` is one NamedTuple of them for all layers, or several, of
    which layer t has entry t."""

    weights: Any

    def _check_layers(self, what: str, kind: type, checked: Callable[[Any], Any]) -> None:
        """Hold checked(layer) for every layer. Raises ValueError where there is none."""
        is_one = isinstance(self.weights, kind) or not isinstance(self.weights, (tuple, list))
        layers = tuple(map(checked, (self.weights,) if is_one else self.weights))
        if not layers:
            raise ValueError(f"the layers of {what} are one or more; got none")
        object.__setattr__(self, "weights", layers[0] if is_one else layers)

    @property
    def each(self) -> tuple:
        """The matrices of the layers, or the one set that serves them all."""
        return (self.weights,) if hasattr(self.weights, "_fields") else self.weights

    @property
    def is_constant(self) -> bool:
        return len(self.each) == 1

    @property
    def n_layers(self) -> int | None:
        return None if self.is_constant else len(self.each)
