"""One sample after another, or several at once, each in blocks of rows: the carrier of the rest."""

from __future__ import annotations

import numpy as np

from dynsim.engines.packing import Scratch, in_panels, norm_numbers, padded
from dynsim.kernels.library import Kernel, Prepared
from dynsim.kernels.processor import vector_width
from dynsim.kernels.shapes import (
    STRIP,
    TEAM,
    block_rows,
    panel_columns,
    private_memory,
    shared_memory,
)
from dynsim.masks.layout import Layout, Ranges
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Norm
from dynsim.network.weights import LayerArrays

__all__ = ["Rows"]

_advance = Kernel("rows", "advance")


class Rows:
    """A dynamics with given weights and norm, ready for the row kernel."""

    def __init__(
        self,
        dynamics: AttentionDynamics,
        weights: LayerArrays,
        norm: Norm,
        n: int,
        d: int,
        scratch: Scratch,
        layout: Layout | None = None,
    ):
        layout = layout or dynamics.layout
        self.scratch = scratch
        self.n, self.d, self.dtype = n, d, weights.query.dtype
        w = vector_width(8 * self.dtype.itemsize)
        panel = panel_columns(w)
        self.columns = -(-d // panel) * panel
        given, self.heads, _, p = weights.query.shape
        key, value = in_panels(weights.key, panel), in_panels(weights.value, panel)
        has = key.size > 0, value.size > 0
        p_wide, v_wide = -(-p // panel) * panel, value.shape[2] * panel or self.columns
        if isinstance(layout, Ranges):
            begin, end, indices = layout.lo, layout.hi, None
            block = block_rows(w, int((end - begin).max()) * (p_wide + v_wide))
            starts = np.arange(0, n, block)
            first = np.minimum.reduceat(begin, starts) // panel * panel
            widest = int((np.maximum.reduceat(end, starts) - first).max())
        else:
            begin, end = layout.indptr[:-1].copy(), layout.indptr[1:].copy()
            indices, widest, block = layout.indices, int(layout.degrees.max()), block_rows(w, 0)
        self.rows = -(-n // max(panel, block)) * max(panel, block)
        widest = -(-widest // panel) * panel
        numbers = norm_numbers(norm, dynamics.placement, d, self.columns, self.dtype)
        self._problem = (
            in_panels(weights.query, panel), padded(weights.query_bias, panel), key, value,
            in_panels(weights.output, panel), padded(weights.output_bias, panel), begin, end,
            indices, given,
        )  # fmt: skip
        self._settings = (
            self.rows, self.columns, self.heads, n, d, p, p_wide, weights.output.shape[2], v_wide,
            bool(weights.query_bias.any()), *has, float(dynamics.skip), *numbers,
        )  # fmt: skip
        sizes = (w, self.rows, self.columns, self.heads, p_wide, v_wide, numbers.before, *has)
        self._sizes = (*sizes, block, widest)
        self._shared = shared_memory(*sizes)
        self._private = private_memory(w, block, self.columns, p_wide, v_wide, widest)
        self._scores_apart, self._block = widest + w, block

    def advance(self, x: np.ndarray, layers: int, workers: int, every, entropy: bool = False):
        """(x after the layers, measures (5, samples, layers), entropy (samples,) or None)."""
        samples = len(x)
        shape = (samples, self.rows, self.columns)
        state = self.scratch("state", [int(np.prod(shape))], self.dtype)[0].reshape(shape)
        state[:] = 0.0
        state[:, : self.n, : self.d] = x
        observed = np.empty((samples, layers, 5))
        entropies = np.zeros((samples, self.n))
        teams = min(workers, samples)  # so many samples at once, and threads left over help them
        members = workers // teams
        shared = [
            (
                *self.scratch(("team", team), self._shared, self.dtype),
                *np.zeros((2, -(-self.n // STRIP), 8)),
            )
            for team in range(teams)
        ]
        meetings = np.zeros((teams, TEAM), np.int64)

        def arguments(job):
            team, member = divmod(job, members)
            private = self.scratch(("member", job), self._private, self.dtype)
            common = (
                *self._problem, layers, *self._settings, *shared[team], *private,
                self._scores_apart, self._block, meetings[team], member, members,
            )  # fmt: skip
            return [Prepared(argument) for argument in common]

        # all memory is there before the first job begins: members wait for one another in the
        # kernel, for ever if one of them had failed
        prepared = [arguments(job) for job in range(teams * members)]

        def work(job):
            for sample in range(job // members, samples, teams):
                _advance(
                    state[sample], *prepared[job], observed[sample], entropy, entropies[sample]
                )

        every(work, range(teams * members))
        out = state[:, : self.n, : self.d].copy()  # the state is memory of the next call
        mean = entropies.mean(axis=1) / self.heads if entropy else None
        return out, observed.transpose(2, 0, 1), mean
