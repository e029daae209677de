"""One sample after another, or several at once, each in blocks of rows: the carrier of the rest."""

from __future__ import annotations

import numpy as np

from dynsim.dynamics import AttentionDynamics
from dynsim.engines.packing import aligned, in_panels, norm_numbers, padded
from dynsim.kernels import rows as kernel
from dynsim.kernels.simd import vector_width
from dynsim.kernels.team import MEMORY
from dynsim.layout import Ranges
from dynsim.weights import LayerWeights

__all__ = ["Rows"]


class Rows:
    """A dynamics with given weights, ready for the row kernel."""

    def __init__(self, dynamics: AttentionDynamics, weights: LayerWeights, n: int, d: int):
        dtype = weights.query.dtype
        self.n, self.d, self.dtype = n, d, dtype
        w = vector_width(8 * dtype.itemsize)
        panel = kernel.panel_columns(w)
        block = kernel.block_rows(w)
        self.rows = -(-n // max(panel, block)) * max(panel, block)
        self.columns = -(-d // panel) * panel
        self.heads, _, p = weights.query.shape[1:]
        query, key, value, output = (
            in_panels(matrices, panel)
            for matrices in (weights.query, weights.key, weights.value, weights.output)
        )
        query_bias, output_bias = (
            padded(weights.query_bias, panel),
            padded(weights.output_bias, panel),
        )
        layout = dynamics.layout
        if isinstance(layout, Ranges):
            begin, end, indices = layout.lo, layout.hi, None
            starts = np.arange(0, n, block)
            first = np.minimum.reduceat(begin, starts) // panel * panel
            widest = int((np.maximum.reduceat(end, starts) - first).max())
        else:
            begin, end = layout.indptr[:-1].copy(), layout.indptr[1:].copy()
            indices, widest = layout.indices, int(layout.degrees.max())
        widest = -(-widest // panel) * panel
        norm = norm_numbers(dynamics, d, self.columns, dtype)
        p_wide, v_wide = query.shape[2] * panel, value.shape[2] * panel or self.columns
        shared, private = kernel.parts(
            w, self.rows, self.columns, self.heads, p_wide, v_wide, widest, norm.before,
            key.size > 0, value.size > 0,
        )  # fmt: skip
        self._strips = -(-n // kernel.STRIP)
        self._shared, self._private = shared, private
        self._arguments = (
            query, query_bias, key, value, output, output_bias, begin, end, indices, n, d, p,
            weights.output.shape[2], bool(weights.query_bias.any()), float(dynamics.skip), *norm,
        )  # fmt: skip

    def advance(self, x: np.ndarray, layers: int, workers: int, every, entropy: bool = False):
        """(x after the layers, measures (5, samples, layers), entropy (samples,) or None)."""
        samples = len(x)
        state = aligned((samples, self.rows, self.columns), self.dtype)
        state[:, : self.n, : self.d] = x
        observed = np.empty((samples, layers, 5))
        entropies = np.zeros((samples, self.n if entropy else 0))
        teams = min(workers, samples)  # so many samples at once, and threads left over help them
        members = workers // teams
        shared = [
            (
                aligned(self._shared[-1], self.dtype),
                np.zeros((2, self._strips, 8)),
                np.zeros(MEMORY, np.int64),
            )
            for _ in range(teams)
        ]

        def work(job):
            team, member = divmod(job, members)
            memory, scalars, meeting = shared[team]
            private = aligned(self._private[-1], self.dtype)
            for sample in range(team, samples, teams):
                kernel.advance(
                    state[sample], *self._arguments, self._shared, memory, scalars, self._private,
                    private, meeting, member, members, observed[sample], entropies[sample],
                )  # fmt: skip

        every(work, range(teams * members))
        out = np.ascontiguousarray(state[:, : self.n, : self.d])
        mean = entropies.mean(axis=1) / self.heads if entropy else None
        return out, observed.transpose(2, 0, 1), mean
