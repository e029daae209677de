"""Samples near consensus, one after another in blocks of rows: the carrier of deviations."""

from __future__ import annotations

import numpy as np

from dynsim.deviation import Deviation
from dynsim.dynamics import AttentionDynamics
from dynsim.engines.packing import Scratch
from dynsim.engines.rows import Rows
from dynsim.kernels.library import Kernel
from dynsim.kernels.shapes import deviation_memory
from dynsim.weights import LayerWeights

__all__ = ["DeviationRows"]

_advance = Kernel("deviations", "advance")


class DeviationRows(Rows):
    """A dynamics with given weights, ready for the kernel of deviations."""

    def __init__(
        self, dynamics: AttentionDynamics, weights: LayerWeights, n: int, d: int, scratch: Scratch
    ):
        super().__init__(dynamics, weights, n, d, scratch)
        self._memory = deviation_memory(*self._sizes)

    def advance(self, state: Deviation, layers: int, workers: int, every, entropy: bool = False):
        """(state after the layers, cheap measures and log10 mu (6, samples, layers), entropy)."""
        samples = len(state.log_size)
        z = np.zeros((samples, self.rows, self.columns))
        z[:, : self.n, : self.d] = state.shape
        center = np.zeros((samples, self.columns))
        center[:, : self.d] = state.center
        log_size = state.log_size.copy()
        observed = np.empty((samples, layers, 6))
        entropies = np.zeros((samples, self.n))
        workers = min(workers, samples)

        def work(job):
            part = slice(samples * job // workers, samples * (job + 1) // workers)
            memory = self.scratch(("deviations", job), self._memory, self.dtype)
            *arrays, given = self._problem
            _advance(
                z[part], center[part], log_size[part], *arrays, part.stop - part.start, given,
                layers, *self._settings, *memory, self._scores_apart, observed[part],
                entropy, entropies[part],
            )  # fmt: skip

        every(work, range(workers))
        shape = np.ascontiguousarray(z[:, : self.n, : self.d])
        after = Deviation(center[:, : self.d].copy(), shape, log_size)
        mean = entropies.mean(axis=1) / self.heads if entropy else None
        return after, observed.transpose(2, 0, 1), mean
