"""Several systems in one batch: dynamics that differ in nothing but their matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dynsim._values import Value
from dynsim.network.weights import LayerSource, LayerWeights

__all__ = ["Ensemble", "by_system"]


@dataclass(frozen=True, eq=False, repr=False)
class Ensemble(LayerSource, Value):
    """The matrices of systems whose samples lie one after another: `each` of the first, and so on.

    For the engines numba and logscale, and tokens of at most `engines.lanes.LANES_UP_TO` numbers.
    The bits of a system are those that it has alone.

    Raises ValueError for systems with other numbers of heads or layers, or of which some have the
    same matrices in all layers and others do not.
    """

    members: tuple[LayerSource, ...]
    each: int

    def __post_init__(self) -> None:
        alike = {(m.n_heads, m.is_constant, m.n_layers, m.dim) for m in self.members}
        if len(alike) != 1:
            raise ValueError(
                f"systems of an ensemble have one number of heads, of layers and of dimensions, "
                f"and all or none of them the same matrices in all layers; got {sorted(alike)}"
            )

    @property
    def n_heads(self) -> int:
        return self.members[0].n_heads

    @property
    def is_constant(self) -> bool:
        return self.members[0].is_constant

    @property
    def n_layers(self) -> int | None:
        return self.members[0].n_layers

    @property
    def dim(self) -> int | None:
        return self.members[0].dim

    @property
    def n_systems(self) -> int:
        return len(self.members)

    def layer(self, t: int, d: int) -> LayerWeights:
        raise ValueError("every system of an ensemble has matrices of its own; ask its members")

    def through(self, change: Callable[[LayerSource], LayerSource]) -> Ensemble:
        """The ensemble of the members changed so."""
        return Ensemble(tuple(map(change, self.members)), self.each)


def by_system(
    weights: LayerSource, t: int, d: int, samples: np.ndarray
) -> Iterator[tuple[LayerWeights, np.ndarray]]:
    """The matrices of layer t for these samples, given by their numbers, and which of them have
    these (boolean): all of them unless the weights are an ensemble's."""
    if not isinstance(weights, Ensemble):
        yield weights.layer(t, d), np.ones(len(samples), bool)
        return
    systems = samples // weights.each
    for system in np.unique(systems):
        yield weights.members[system].layer(t, d), systems == system
