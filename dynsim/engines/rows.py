"""One sample after another, or several at once, each in blocks of rows: the carrier of the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dynsim.engines.base import Advanced, Every
from dynsim.engines.kernel_inputs import in_panels, padded, parts, score_parts, settings, stretches
from dynsim.kernels.fields import ROWS, TEAM, block_rows, panel_columns
from dynsim.kernels.processor import vector_width
from dynsim.kernels.record import Arguments, Scratch, aligned
from dynsim.kernels.table import KERNELS
from dynsim.masks.layout import Layout, Ranges, common_keys
from dynsim.network.attention import NoQKNorm, QKNorm
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Norm
from dynsim.network.weights import LayerArrays

__all__ = ["Rows"]

_advance, _follow = KERNELS["rows.advance"], KERNELS["rows.follow"]
_advance_with_parts = KERNELS["rows.advance_with_parts"]


class Rows:
    """A dynamics with given weights and norm, ready for the kernels in rows; t as for `Lanes`."""

    def __init__(
        self,
        dynamics: AttentionDynamics,
        weights: LayerArrays,
        norm: Norm,
        n: int,
        d: int,
        scratch: Scratch,
        qk_norm: QKNorm | NoQKNorm | None = None,
        t: int = 0,
    ):
        self.scratch, self.layout = scratch, dynamics.layout
        self.skip = dynamics.residual.has_skip
        self.n, self.d, self.dtype = n, d, weights.query.dtype
        self.w = vector_width(8 * self.dtype.itemsize)
        parts_ = score_parts(dynamics, weights, qk_norm or dynamics.qk_norm, n, self.w)
        self._advance, weights = _advance_with_parts if parts_.any else _advance, parts_.weights
        panel = panel_columns(self.w)
        self.columns = -(-d // panel) * panel
        fields = settings(dynamics, weights, norm, n, d, self.columns, t)
        p_wide = -(-fields["p"] // panel) * panel
        v_wide = -(-fields["v"] // panel) * panel if fields["has_values"] else self.columns
        self._fields = fields | self._biased(parts_.fields, panel) | {
            **{name: padded(array, panel) if array.ndim == 1 else array
               for name, array in parts_.by_key.items()},
            "query": in_panels(weights.query, panel), "key": in_panels(weights.key, panel),
            "value": in_panels(weights.value, panel), "output": in_panels(weights.output, panel),
            "query_bias": padded(weights.query_bias, panel),
            "output_bias": padded(weights.output_bias, panel),
            "row": self.columns, "long": self.columns, "p_wide": p_wide, "p_row": p_wide,
            "v_wide": v_wide, "v_row": v_wide, "member": 0, "members": 1,
            "meeting": np.zeros(TEAM, np.int64),
        }  # fmt: skip
        self._arguments: dict[bool, Arguments] = {}

    def _biased(self, fields: dict[str, Any], panel: int) -> dict[str, Any]:
        """The fields with room behind the biases of a head; of lists, with biases by entry."""
        if not fields["has_biases"]:
            return fields
        biases, layout = fields["biases"], self.layout
        if not isinstance(layout, Ranges):
            biases = biases[:, self.n - 1 + layout.indices - layout.row_of_edge]
        room = np.zeros((len(biases), panel + self.w), self.dtype)
        biases = np.concatenate([biases, room], axis=1)
        return fields | {"biases": biases, "bias_row": biases.shape[1]}

    def _given(self, followed: bool) -> Arguments:
        """What the kernels are given, but for the state."""
        if followed not in self._arguments:
            self._arguments[followed] = Arguments(
                ROWS, self.dtype, self.w, **self._fields | self._mask(followed)
            )
        return self._arguments[followed]

    def _mask(self, followed: bool) -> dict[str, Any]:
        """The mask, the block that suits it, and the sizes that depend on them."""
        layout: Layout = self.layout
        w, n, fields, order = self.w, self.n, self._fields, None
        keys = None if self.skip or not followed else common_keys(layout)
        if keys is not None and not isinstance(layout, Ranges):  # those attended to come first
            order = np.append(keys, np.setdiff1d(np.arange(n), keys)).astype(np.int64)
            layout = Ranges(np.zeros(n, np.int64), np.full(n, len(keys)))
        panel, p_wide, v_wide = panel_columns(w), fields["p_wide"], fields["v_wide"]
        if isinstance(layout, Ranges):
            begin, end, indices = layout.lo, layout.hi, np.empty(0, np.int32)
            block = block_rows(w, int((end - begin).max()) * (p_wide + v_wide))
            starts = np.arange(0, n, block)
            first = np.minimum.reduceat(begin, starts) // panel * panel
            widest = int((np.maximum.reduceat(end, starts) - first).max())
        else:
            begin, end = layout.indptr[:-1].copy(), layout.indptr[1:].copy()
            indices, widest, block = layout.indices, int(layout.degrees.max()), block_rows(w, 0)
        rows = -(-n // max(panel, block)) * max(panel, block)
        lists = not isinstance(layout, Ranges)
        gap = 3 * w  # between panels: keeps their rows from meeting in one set of the cache
        step = panel if lists else rows * panel + gap
        values = rows * v_wide if lists else v_wide // panel * step
        return {
            "begin": begin, "end": end, "indices": indices, "lists": lists, "edges": len(indices),
            "rows": rows, "block": block, "s_row": -(-widest // panel) * panel + w,
            "head_keys": fields["has_keys"] * rows * p_wide, "value_step": step,
            "value_room": values, "head_values": fields["has_values"] * values,
            "followed": followed, "has_next": followed, "common_keys": keys is not None,
            "ordered": order is not None, **({} if order is None else {"order": order}),
        }  # fmt: skip

    def advance(
        self, x: np.ndarray, layers: int, workers: int, every: Every, entropy: bool = False
    ) -> Advanced:
        """(x after the layers, measures (5, samples, layers), entropy (samples,) or None).

        The entropy is that of the first layer's attention.
        """
        samples, given, w = len(x), self._given(False), self.w
        shape = (samples, given.sizes.rows, self.columns)
        (memory,) = self.scratch(("state",), [math.prod(shape)], self.dtype)
        state = memory.reshape(shape)
        state[:] = 0.0
        state[:, : self.n, : self.d] = x
        observed = np.empty((samples, layers, 5, w))
        entropies = np.zeros((samples, self.n, w), self.dtype)
        teams = min(workers, samples)  # so many samples at once, and threads left over help them
        members = workers // teams
        # all memory is there before the first job begins: members wait for one another in the
        # kernel, for ever if one of them had failed
        ready = []
        for team in range(teams):
            whole = given.copy()
            whole.set(members=members, meeting=np.zeros(TEAM, np.int64))
            whole.allocate(self.scratch, "team", team)
            for member in range(members):
                mine = whole.copy()
                mine.set(member=member)
                mine.allocate(self.scratch, "job", team * members + member)
                ready.append(mine)

        def work(job: int) -> Iterator[None]:
            mine = ready[job]
            for sample in range(job // members, samples, teams):
                mine.set(x=state[sample], entropy=entropies[sample])
                for start, stop, wanted in stretches(layers, entropy):
                    seen = observed[sample, start:stop]
                    mine.set(start=start, layers=stop - start, wanted=wanted, observed=seen)
                    self._advance(mine)
                yield  # members of a team have one sample, and so meet no more

        every(work, range(teams * members))
        out = state[:, : self.n, : self.d].copy()  # the state is memory of the next call
        mean = entropies[..., 0].mean(axis=1) / given.sizes.heads if entropy else None
        return out, observed[..., 0].transpose(2, 0, 1), mean

    def follow(
        self, state: Deviation, layers: int, workers: int, every: Every, entropy: bool = False
    ) -> tuple[Deviation, np.ndarray, np.ndarray | None]:
        """(state after the layers, cheap measures, log10 mu and scores (7, samples, layers),
        entropy (samples,) or None)."""
        samples, given, w = len(state.log_size), self._given(True), self.w
        z = aligned((samples, given.sizes.rows, self.columns), self.dtype)
        z[:, : self.n, : self.d] = state.shape
        center = np.zeros((samples, self.columns))
        center[:, : self.d] = state.center
        log_size = np.repeat(state.log_size[:, None], w, axis=1)
        observed = np.empty((samples, layers, 7, w))
        entropies = np.zeros((samples, self.n, w))

        def work(part: slice) -> Iterator[None]:
            mine = given.copy()
            mine.allocate(self.scratch, "team", part.start)
            mine.allocate(self.scratch, "job", part.start)
            for k in range(part.start, part.stop):
                mine.set(x=z[k], center=center[k], log_size=log_size[k], entropy=entropies[k])
                for start, stop, wanted in stretches(layers, entropy):
                    seen = observed[k, start:stop]
                    mine.set(start=start, layers=stop - start, wanted=wanted, observed=seen)
                    _follow(mine)
                yield

        every(work, parts(samples, workers))
        shape = np.ascontiguousarray(z[:, : self.n, : self.d])
        after = Deviation(center[:, : self.d].copy(), shape, log_size[:, 0], state.observed)
        mean = entropies[..., 0].mean(axis=1) / given.sizes.heads if entropy else None
        return after, observed[..., 0].transpose(2, 0, 1), mean
