"""Samples near consensus, one after another in blocks of rows: the carrier of deviations."""

from __future__ import annotations

import numpy as np

from dynsim.deviation import Deviation
from dynsim.dynamics import AttentionDynamics
from dynsim.engines.packing import Scratch
from dynsim.engines.rows import Rows
from dynsim.kernels.library import Kernel
from dynsim.kernels.shapes import deviation_memory
from dynsim.layout import Ranges, common_keys
from dynsim.weights import LayerWeights

__all__ = ["DeviationRows"]

_advance = Kernel("deviations", "advance")


class DeviationRows(Rows):
    """A dynamics with given weights, ready for the kernel of deviations."""

    def __init__(
        self, dynamics: AttentionDynamics, weights: LayerWeights, n: int, d: int, scratch: Scratch
    ):
        layout, self._order = dynamics.layout, None
        keys = None if dynamics.skip else common_keys(layout)
        if keys is not None and not isinstance(layout, Ranges):  # those attended to come first
            self._order = np.append(keys, np.setdiff1d(np.arange(n), keys)).astype(np.int64)
            layout = Ranges(np.zeros(n, np.int64), np.full(n, len(keys)))
        self._alike = keys is not None
        super().__init__(dynamics, weights, n, d, scratch, layout)
        self._memory = deviation_memory(*self._sizes)

    def advance(self, state: Deviation, layers: int, workers: int, every):
        """(state after the layers, cheap measures and log10 mu (6, samples, layers))."""
        samples = len(state.log_size)
        z = np.zeros((samples, self.rows, self.columns))
        z[:, : self.n, : self.d] = state.shape
        center = np.zeros((samples, self.columns))
        center[:, : self.d] = state.center
        log_size = state.log_size.copy()
        observed = np.empty((samples, layers, 6))
        workers = min(workers, samples)

        def work(job):
            part = slice(samples * job // workers, samples * (job + 1) // workers)
            memory = self.scratch(("deviations", job), self._memory, self.dtype)
            *arrays, given = self._problem
            _advance(
                z[part], center[part], log_size[part], *arrays, self._order, self._alike,
                part.stop - part.start, given, layers, *self._settings, *memory,
                self._scores_apart, observed[part],
            )  # fmt: skip

        every(work, range(workers))
        shape = np.ascontiguousarray(z[:, : self.n, : self.d])
        after = Deviation(center[:, : self.d].copy(), shape, log_size)
        return after, observed.transpose(2, 0, 1)
