"""Samples near consensus: the carriers of deviations, side by side in vectors or one by one."""

from __future__ import annotations

import numpy as np

from dynsim.engines.lanes import Lanes, from_lanes, parts
from dynsim.engines.packing import Scratch, aligned
from dynsim.engines.rows import Rows
from dynsim.kernels.library import Kernel
from dynsim.kernels.shapes import deviation_lane_memory, deviation_memory
from dynsim.masks.layout import Ranges, common_keys
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Norm
from dynsim.network.weights import LayerArrays

__all__ = ["DeviationLanes", "DeviationRows"]

_advance_lanes = Kernel("deviation_lanes", "advance")
_advance_rows = Kernel("deviations", "advance")


def _keys(dynamics: AttentionDynamics) -> np.ndarray | None:
    """The tokens that all attend to, where none keeps a part of itself; else None."""
    return None if dynamics.skip else common_keys(dynamics.layout)


class DeviationLanes(Lanes):
    """A dynamics with given weights, ready for the kernel of deviations in lanes."""

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
        self._alike = _keys(dynamics) is not None
        rows, columns, heads, _, _, _, p_wide, _, v_wide, *_ = self._sizes
        more = deviation_lane_memory(self.width, rows, columns, heads, p_wide, v_wide)
        self._memory = [*self._memory, *more]

    def advance(  # type: ignore[override]  # another state
        self, state: Deviation, layers: int, workers: int, every
    ):
        """(state after the layers, cheap measures and log10 mu (6, samples, layers))."""
        samples, w = len(state.log_size), self.width
        blocks = -(-samples // w)
        z = aligned((blocks, self.rows, self.columns, w), self.dtype)
        center = aligned((blocks, self.columns, w), self.dtype)
        z[:, : self.n, : self.d] = self.in_lanes(state.shape)
        center[:, : self.d] = self.in_lanes(state.center)
        log_size = np.ascontiguousarray(self.in_lanes(state.log_size))
        observed = np.empty((layers, 6, blocks, w))

        def work(part):
            memory = self.scratch(("deviations", part.start), self._memory, self.dtype)
            seen = np.empty((layers, 6, part.stop - part.start, w))
            *arrays, given = self._problem
            _advance_lanes(
                z[part], center[part], log_size[part], *arrays, self._alike, given, layers,
                part.stop - part.start, *self._settings, *memory, seen,
            )  # fmt: skip
            observed[:, :, part] = seen

        every(work, parts(blocks, workers))
        after = Deviation(
            from_lanes(center[:, : self.d], samples),
            from_lanes(z[:, : self.n, : self.d], samples),
            from_lanes(log_size, samples),
            state.observed,
        )
        observed = observed.reshape(layers, 6, blocks * w)[:, :, :samples]
        return after, observed.transpose(1, 2, 0)


class DeviationRows(Rows):
    """A dynamics with given weights, ready for the kernel of deviations."""

    def __init__(
        self,
        dynamics: AttentionDynamics,
        weights: LayerArrays,
        norm: Norm,
        n: int,
        d: int,
        scratch: Scratch,
    ):
        layout, self._order, keys = dynamics.layout, None, _keys(dynamics)
        if keys is not None and not isinstance(layout, Ranges):  # those attended to come first
            self._order = np.append(keys, np.setdiff1d(np.arange(n), keys)).astype(np.int64)
            layout = Ranges(np.zeros(n, np.int64), np.full(n, len(keys)))
        self._alike = keys is not None
        super().__init__(dynamics, weights, norm, n, d, scratch, layout)
        self._memory = deviation_memory(*self._sizes)

    def advance(  # type: ignore[override]  # another state
        self, state: Deviation, layers: int, workers: int, every
    ):
        """(state after the layers, cheap measures and log10 mu (6, samples, layers))."""
        samples = len(state.log_size)
        z = np.zeros((samples, self.rows, self.columns))
        z[:, : self.n, : self.d] = state.shape
        center = np.zeros((samples, self.columns))
        center[:, : self.d] = state.center
        log_size = state.log_size.copy()
        observed = np.empty((samples, layers, 6))

        def work(part):
            memory = self.scratch(("deviations", part.start), self._memory, self.dtype)
            *arrays, given = self._problem
            _advance_rows(
                z[part], center[part], log_size[part], *arrays, self._order, self._alike,
                part.stop - part.start, given, layers, *self._settings, *memory,
                self._scores_apart, observed[part],
            )  # fmt: skip

        every(work, parts(samples, workers))
        shape = np.ascontiguousarray(z[:, : self.n, : self.d])
        after = Deviation(center[:, : self.d].copy(), shape, log_size, state.observed)
        return after, observed.transpose(2, 0, 1)
