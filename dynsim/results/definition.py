"""A dynamics as JSON and arrays, from which it is made again: what the file of a run holds of it.

Random matrices are kept as family, parameters and seed. Arrays are kept where arrays were given:
matrices, gains, the edges of a mask other than complete and causal; equal arrays once.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx
import numpy as np

from dynsim.masks.constructors import causal, complete
from dynsim.masks.layout import CSR, Ranges
from dynsim.masks.networkx_view import compile_layout, graph_from_layout
from dynsim.network.attention import ATTENTION, NoQKNorm, QKNorm
from dynsim.network.dropout import Dropout
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.gates import FixedGate, GateWeights, GaussianGate, NoGate
from dynsim.network.mlp import FixedMLP, GaussianMLP, MLPWeights, NoMLP
from dynsim.network.norms import NORMS, PerLayer
from dynsim.network.positions import POSITIONS
from dynsim.network.residual import Residual
from dynsim.network.schedules import SCHEDULES
from dynsim.network.weights import (
    WEIGHTS,
    FromArray,
    Layers,
    LayerWeights,
    Sharpened,
    Weights,
)

if TYPE_CHECKING:
    from dynsim.masks.layout import Layout

__all__ = ["MOST_BYTES", "Definition"]

#: Arrays of more bytes than this, all together, are not kept.
MOST_BYTES = 2**30

_CLASSES = {
    kind.__name__: kind
    for kind in (
        *(AttentionDynamics, Ranges, CSR, Dropout, NoMLP, GaussianMLP, FixedMLP, MLPWeights),
        *(*NORMS.values(), PerLayer, *WEIGHTS.values(), FromArray, Weights, Layers, LayerWeights),
        *(*POSITIONS.values(), *ATTENTION.values(), NoQKNorm, QKNorm),
        *(*SCHEDULES.values(), Sharpened),
        *(Residual, NoGate, GaussianGate, FixedGate, GateWeights),
    )
}
#: Masks that their kind and number of tokens say all about.
_NAMED_MASKS = {"complete": complete, "causal": causal}


class Definition(NamedTuple):
    """What a dynamics consists of.

    Attributes
    ----------
    recipe : dict
        Ready for JSON; ``{"array": k}`` stands for ``arrays[k]``.
    arrays : tuple of array

    Examples
    --------
    >>> from dynsim import masks, weights
    >>> dynamics = AttentionDynamics(masks.star(3), weights.Jordan(0.5))
    >>> Definition.of(dynamics).dynamics() == dynamics
    True
    """

    recipe: Mapping
    arrays: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, dynamics: AttentionDynamics) -> Definition | None:
        """None where a part is an object of the user's own, or all arrays exceed `MOST_BYTES`."""
        arrays = _Arrays()
        try:
            recipe = _packed(dynamics, arrays)
        except TypeError:
            return None
        distinct = tuple(arrays.distinct)
        size = sum(array.nbytes for array in distinct)
        return cls(recipe, distinct) if size <= MOST_BYTES else None

    def dynamics(self) -> AttentionDynamics:
        """The dynamics again, equal to the one that it was made of.

        Raises ValueError where the recipe names what is not there, or is damaged.
        """
        try:
            made = _unpacked(self.recipe, self.arrays)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"the dynamics cannot be made again ({error!r})") from None
        if not isinstance(made, AttentionDynamics):
            raise ValueError("the dynamics cannot be made again (its recipe is of something else)")
        return made


class _Arrays:
    """Arrays in the order in which they came, equal ones once."""

    def __init__(self) -> None:
        self.distinct: list[np.ndarray] = []
        self._places: dict[tuple, list[int]] = {}

    def place(self, array: np.ndarray) -> int:
        array = np.ascontiguousarray(array)
        key = array.shape, array.dtype.str, zlib.crc32(array.data)
        for k in self._places.setdefault(key, []):
            if np.array_equal(self.distinct[k], array):
                return k
        self.distinct.append(array)
        self._places[key].append(len(self.distinct) - 1)
        return len(self.distinct) - 1


def _packed(value: Any, arrays: _Arrays) -> Any:
    """Ready for JSON. Raises TypeError for an object of the user's own."""
    if isinstance(value, np.ndarray) and value.ndim:
        if not value.size:
            return {"empty": list(value.shape), "dtype": value.dtype.name}
        return {"array": arrays.place(value)}
    if isinstance(value, (np.generic, np.ndarray)):
        return value.item()
    if isinstance(value, nx.Graph):
        layout = compile_layout(value)
        mask = {"type": "mask", "name": value.name, "kind": layout.kind}
        if layout.kind in _NAMED_MASKS:
            return mask | {"tokens": layout.n_tokens}
        return mask | {"layout": _packed(layout, arrays)}
    if type(value) is _CLASSES.get(type(value).__name__):
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        else:
            fields = value._asdict()  # type: ignore[attr-defined]  # a NamedTuple
        return {"type": type(value).__name__} | {k: _packed(v, arrays) for k, v in fields.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(item, arrays) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(type(value).__name__)


def _unpacked(value: Any, arrays: tuple[np.ndarray, ...]) -> Any:
    """The inverse of `_packed`."""
    if isinstance(value, list):
        return tuple(_unpacked(item, arrays) for item in value)
    if not isinstance(value, Mapping):
        return value
    if "type" not in value:
        if "array" in value:
            return arrays[value["array"]]
        return np.empty(value["empty"], value["dtype"])
    fields = {k: _unpacked(v, arrays) for k, v in value.items() if k != "type"}
    if value["type"] != "mask":
        return _CLASSES[value["type"]](**fields)
    if fields["kind"] in _NAMED_MASKS:
        fields["layout"] = compile_layout(_NAMED_MASKS[fields["kind"]](fields["tokens"]))
    elif not _is_layout(fields["layout"]):
        raise ValueError("the edges of the mask are damaged; they are no edges between its tokens")
    return graph_from_layout(fields["layout"], fields["name"])


def _is_layout(layout: Layout) -> bool:
    """Whether each row names tokens that there are, in ascending order, as kernels rely on."""
    n = layout.n_tokens
    if isinstance(layout, Ranges):
        return bool(layout.lo.min() >= 0 and layout.hi.shape == (n,) and layout.hi.max() <= n)
    indptr, indices = layout.indptr, layout.indices
    if not (indptr[0] == 0 and indptr[-1] == indices.size and layout.degrees.min() > 0):
        return False
    within_rows = np.delete(np.diff(indices), indptr[1:-1] - 1)
    return bool(indices.min() >= 0 and indices.max() < n and within_rows.min(initial=1) > 0)
