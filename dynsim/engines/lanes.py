"""Samples side by side in vectors: the carrier of small states."""

from __future__ import annotations

import numpy as np

from dynsim.dynamics import AttentionDynamics
from dynsim.engines.packing import aligned, norm_numbers, padded
from dynsim.kernels import lanes as kernel
from dynsim.kernels.simd import vector_width
from dynsim.weights import LayerWeights

__all__ = ["Lanes"]


class Lanes:
    """A dynamics with given weights, ready for the lane kernel."""

    def __init__(self, dynamics: AttentionDynamics, weights: LayerWeights, n: int, d: int):
        dtype = weights.query.dtype
        self.n, self.d, self.dtype = n, d, dtype
        self.width = vector_width(8 * dtype.itemsize)
        self.rows, self.columns = (-(-size // kernel.PAD) * kernel.PAD for size in (n, d))
        self.heads, _, p = weights.query.shape[1:]
        packed = LayerWeights(*(padded(array, kernel.PAD) for array in weights))
        v = packed.value.shape[-1] or self.columns
        edges = dynamics.layout.to_rows()
        self._places = kernel.parts(
            self.width, self.rows, self.columns, self.heads, packed.query.shape[-1], v, d,
            packed.key.size > 0, packed.value.size > 0,
        )  # fmt: skip
        norm = norm_numbers(dynamics, d, self.columns, dtype)
        self._arguments = (
            *packed, edges.indptr, edges.indices, d, p, weights.output.shape[2], n,
            bool(weights.query_bias.any()), float(dynamics.skip), *norm, self._places,
        )  # fmt: skip

    def advance(self, x: np.ndarray, layers: int, workers: int, every, entropy: bool = False):
        """(x after the layers, measures (5, samples, layers), entropy (samples,) or None)."""
        samples, w = len(x), self.width
        blocks = -(-samples // w)
        state = aligned((blocks, self.rows, self.columns, w), self.dtype)
        whole = np.concatenate([x, np.repeat(x[-1:], blocks * w - samples, axis=0)])
        whole = whole.reshape(blocks, w, self.n, self.d)
        state[:, : self.n, : self.d] = np.moveaxis(whole, 1, -1)
        observed = np.empty((layers, 5, blocks, w))
        entropies = np.zeros((blocks, w) if entropy else (0, 0))

        def work(part):
            scratch = aligned(self._places[-1], self.dtype)
            seen = np.empty((layers, 5, part.stop - part.start, w))
            kernel.advance(state[part], *self._arguments, scratch, seen, entropies[part])
            observed[:, :, part] = seen

        workers = min(workers, blocks)
        edges = [blocks * k // workers for k in range(workers + 1)]
        every(work, list(map(slice, edges[:-1], edges[1:])))
        out = np.moveaxis(state[:, : self.n, : self.d], -1, 1)
        out = np.ascontiguousarray(out.reshape(blocks * w, self.n, self.d)[:samples])
        observed = observed.reshape(layers, 5, blocks * w)[:, :, :samples].transpose(1, 2, 0)
        mean = entropies.reshape(-1)[:samples] / (self.n * self.heads) if entropy else None
        return out, observed, mean
