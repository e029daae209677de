"""Samples side by side in vectors: the carrier of small states."""

from __future__ import annotations

import math

import numpy as np

from dynsim.engines.packing import Scratch, aligned, norm_numbers, padded
from dynsim.kernels.library import Fixed, Kernel, Prepared
from dynsim.kernels.processor import vector_width
from dynsim.kernels.shapes import PAD, lane_memory
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Norm
from dynsim.network.weights import LayerArrays

__all__ = ["LANES_UP_TO", "Lanes", "from_lanes", "parts"]

_advance = Kernel("lanes", "advance")

#: Numbers in a state up to which samples share vectors. By size alone, so that the bits of a sample
#: do not depend on how many there are.
LANES_UP_TO = 2048
#: Edges of a mask up to which it may become part of the code.
_FEW_EDGES = 4096
#: Numbers observed in one call: they stay in a core's cache until they are copied.
_OBSERVED = 65_536


class Lanes:
    """A dynamics with given weights and norm, ready for the lane kernel."""

    def __init__(
        self,
        dynamics: AttentionDynamics,
        weights: LayerArrays,
        norm: Norm,
        n: int,
        d: int,
        scratch: Scratch,
    ):
        self.scratch = scratch
        self.n, self.d, self.dtype = n, d, weights.query.dtype
        self.width = vector_width(8 * self.dtype.itemsize)
        self.rows, self.columns = (-(-size // PAD) * PAD for size in (n, d))
        given, self.heads, _, p = weights.query.shape
        packed = LayerArrays(*(padded(array, PAD) for array in weights))
        has = packed.key.size > 0, packed.value.size > 0
        p_wide, v_wide = packed.query.shape[-1], packed.value.shape[-1] or self.columns
        edges = dynamics.layout.to_rows()
        kept = Fixed if len(edges.indices) <= _FEW_EDGES else Prepared
        self._problem = (*packed, kept(edges.indptr), kept(edges.indices), given)
        numbers = norm_numbers(norm, dynamics.placement, d, self.columns, self.dtype)
        self._sizes = (
            self.rows, self.columns, self.heads, n, d, p, p_wide, weights.output.shape[2], v_wide,
            bool(weights.query_bias.any()), *has,
        )  # fmt: skip
        self._settings = (
            *map(Fixed, self._sizes),
            float(dynamics.skip),
            *map(Fixed, numbers[:4]),
            *numbers[4:],
        )
        self._memory = lane_memory(
            self.width, self.rows, self.columns, self.heads, p_wide, v_wide, d, *has
        )

    def advance(self, x: np.ndarray, layers: int, workers: int, every, entropy: bool = False):
        """(x after the layers, measures (5, samples, layers), entropy (samples,) or None)."""
        samples, w = len(x), self.width
        blocks = -(-samples // w)
        state = aligned((blocks, self.rows, self.columns, w), self.dtype)
        state[:, : self.n, : self.d] = self.in_lanes(x)
        observed = np.empty((layers, 5, blocks, w))
        entropies = np.zeros((blocks, w))

        def work(part):
            mine = state[part]
            memory = self.scratch(part.start, self._memory, self.dtype)
            most = max(1, _OBSERVED // (5 * w * len(mine)))
            for start in range(0, layers, most):
                some = min(most, layers - start)
                shape = some, 5, len(mine), w
                seen = self.scratch(("seen", part.start), [math.prod(shape)], np.float64)[0]
                seen = seen.reshape(shape)
                _advance(
                    mine, *self._problem, start, some, len(mine), *self._settings, *memory, seen,
                    entropy and start == 0, entropies[part],
                )  # fmt: skip
                observed[start : start + some, :, part] = seen

        every(work, parts(blocks, workers))
        out = from_lanes(state[:, : self.n, : self.d], samples)
        observed = observed.reshape(layers, 5, blocks * w)[:, :, :samples]
        mean = entropies.reshape(-1)[:samples] / (self.n * self.heads) if entropy else None
        return out, observed.transpose(1, 2, 0), mean

    def in_lanes(self, array: np.ndarray) -> np.ndarray:
        """(samples, ...) as (blocks, ..., lanes), filled up with the last sample."""
        lacking = -len(array) % self.width
        whole = np.concatenate([array, np.repeat(array[-1:], lacking, axis=0)])
        return np.moveaxis(whole.reshape(-1, self.width, *array.shape[1:]), 1, -1)


def from_lanes(array: np.ndarray, samples: int) -> np.ndarray:
    """(blocks, ..., lanes) as (samples, ...)."""
    whole = np.moveaxis(array, -1, 1)
    return np.ascontiguousarray(whole.reshape(-1, *whole.shape[2:])[:samples])


def parts(blocks: int, workers: int) -> list[slice]:
    """All blocks, shared between so many workers or fewer."""
    workers = min(workers, blocks)
    edges = [blocks * k // workers for k in range(workers + 1)]
    return list(map(slice, edges[:-1], edges[1:]))
