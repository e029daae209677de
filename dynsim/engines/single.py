"""One sample, or very few, of few tokens: the carrier for long horizons."""

from __future__ import annotations

import numpy as np

from dynsim.engines.lanes import Lanes
from dynsim.engines.packing import Scratch
from dynsim.kernels.library import Fixed, Kernel, Prepared
from dynsim.kernels.processor import vector_width
from dynsim.kernels.shapes import single_memory
from dynsim.masks.layout import Layout
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Norm
from dynsim.network.weights import LayerArrays

__all__ = ["Single", "is_single"]

_advance = Kernel("single", "advance")

#: Samples up to which one after another is faster than all side by side.
_FEW = 3
#: Layers observed in one call.
_LAYERS = 8192


def is_single(samples: int, n: int, layout: Layout, dtype) -> bool:
    """Whether `Single` is faster than `Lanes`, whose bits it has, and can do it at all."""
    return (
        samples <= _FEW
        and n <= vector_width(64)
        and dtype == np.float64
        and _counts(layout) is not None
    )


def _counts(layout: Layout) -> np.ndarray | None:
    """How many tokens each attends to, if these are always the first ones; else None."""
    edges = layout.to_rows()
    places = np.arange(len(edges.indices)) - edges.indptr[edges.row_of_edge]
    return edges.degrees if np.array_equal(edges.indices, places) else None


class Single(Lanes):
    """A dynamics with given weights, ready for the kernel of single samples."""

    def __init__(
        self,
        dynamics: AttentionDynamics,
        weights: LayerArrays,
        norm: Norm,
        n: int,
        d: int,
        scratch: Scratch,
    ):
        super().__init__(dynamics, weights, norm, n, d, scratch)
        p, v = self._sizes[5], self._sizes[7]
        counts = _counts(dynamics.layout)
        assert counts is not None  # see `is_single`
        allowed = np.arange(n) < counts[:, None]
        keys = Prepared(np.ascontiguousarray(self.in_lanes(allowed)[0], float))
        *arrays, _, _, given = self._problem
        self._arrays = (*arrays, keys, Fixed(bool(allowed.all())), given)
        self._numbers = self._settings[1:]
        self._own_memory = single_memory(self.width, n, d, p, v)

    def advance(self, x: np.ndarray, layers: int, workers: int, every, entropy: bool = False):
        """As `Lanes.advance`, with the same bits."""
        observed, entropies, done = np.empty((5, len(x), layers)), None, 0
        if entropy:
            x, observed[:, :, :1], entropies = super().advance(x, 1, workers, every, entropy=True)
            done = 1
        out = np.empty_like(x)
        memory = self.scratch("single", self._own_memory, self.dtype)
        for sample, tokens in enumerate(x):
            state = np.ascontiguousarray(self.in_lanes(tokens)[0])  # tokens, not samples
            for start in range(done, layers, _LAYERS):
                seen = np.empty((min(_LAYERS, layers - start), 5))
                _advance(state, *self._arrays, start, len(seen), *self._numbers, *memory, seen)
                observed[:, sample, start : start + len(seen)] = seen.T
            out[sample] = state[:, : self.n].T
        return out, observed, entropies
