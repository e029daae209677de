"""Samples side by side in vectors: the carrier of small states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dynsim.engines.base import Advanced, Every
from dynsim.engines.kernel_inputs import padded, parts, score_parts, settings, stretches
from dynsim.kernels.fields import LANE_ROWS, LANES, PAD
from dynsim.kernels.processor import REGISTER_BYTES
from dynsim.kernels.record import Arguments, Scratch, aligned
from dynsim.kernels.table import KERNELS
from dynsim.masks.layout import Ranges, common_keys
from dynsim.network.attention import NoQKNorm, QKNorm
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Norm
from dynsim.network.weights import LayerArrays

__all__ = ["LANES_UP_TO", "Lanes"]

_advance, _follow = KERNELS["lanes.advance"], KERNELS["lanes.follow"]
_advance_with_parts = KERNELS["lanes.advance_with_parts"]

#: Numbers in a state up to which samples share vectors. By size alone, so that the bits of a sample
#: do not depend on how many there are.
LANES_UP_TO = 2048
#: Bytes of the vectors for few samples: narrow ones take less time, and give the same bits. Not for
#: deviations, of which there are few or many from one call to the next.
_NARROW_BYTES = 16
#: Numbers observed in one call, which stay in a core's cache until they are copied; and layers of
#: few blocks that it rather has than few layers of many, whose states would leave the cache.
_OBSERVED, _LAYERS = 65_536, 32


class Lanes:
    """A dynamics with given weights and norm, ready for the kernels in lanes.

    t : the first of the layers that it is for, all of which have the same norm, placement and
        weights of skip and branch
    systems : how many have weights of their own: first those of all layers of the first
    """

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
        systems: int = 1,
    ):
        self.scratch = scratch
        parts_ = score_parts(dynamics, weights, qk_norm or dynamics.qk_norm, n, 1)
        self._advance, weights = _advance_with_parts if parts_.any else _advance, parts_.weights
        self.n, self.d, self.dtype = n, d, weights.query.dtype
        self.rows, self.columns = (-(-size // PAD) * PAD for size in (n, d))
        packed = LayerArrays(*(padded(array, PAD) for array in weights))
        self.systems = systems
        fields = settings(dynamics, weights, norm, n, d, self.columns, t, systems)
        layout, offsets = dynamics.layout, None
        begin, end = np.zeros(n, np.int64), np.full(n, n, np.int64)
        if isinstance(layout, Ranges):
            begin, end = layout.lo, layout.hi
        else:  # ranges with holes
            begin = layout.indices[layout.indptr[:-1]].astype(np.int64)
            end = layout.indices[layout.indptr[1:] - 1].astype(np.int64) + 1
            offsets = np.full((n, n), -np.inf, self.dtype)
            offsets[layout.row_of_edge, layout.indices] = 0.0
            fields["offsets"] = offsets
        self._fields = fields | parts_.fields | {
            "query": packed.query, "key": packed.key, "value": packed.value,
            "output": packed.output, "begin": begin, "end": end, "rows": self.rows,
            "p_wide": packed.query.shape[-1],
            "v_wide": packed.value.shape[-1] or self.columns,
            "block": LANE_ROWS, "has_next": True, "has_offsets": offsets is not None,
            "common_keys": not dynamics.residual.has_skip and common_keys(layout) is not None,
        }  # fmt: skip
        self._spread = {
            "query_bias": packed.query_bias, "output_bias": packed.output_bias,
            "gain": self._fields.pop("gain"), "bias": self._fields.pop("bias"),
            **{name: padded(array, PAD) if array.ndim == 1 else array
               for name, array in parts_.by_key.items()},
        }  # fmt: skip
        self._arguments: dict[tuple[int, bool], Arguments] = {}

    def _given(self, samples: int, followed: bool) -> Arguments:
        """What the kernels are given, but for the state."""
        size = self.dtype.itemsize
        few = samples * size <= _NARROW_BYTES and not followed
        w = (_NARROW_BYTES if few else REGISTER_BYTES) // size
        if (w, followed) not in self._arguments:
            fields = self._fields.copy()
            half = fields.pop("half")
            values = self.rows * fields["v_wide"] * w
            self._arguments[w, followed] = Arguments(
                LANES, self.dtype, w, **fields, followed=followed, row=self.columns * w,
                long=self.d * w, half=half * w, p_row=fields["p_wide"] * w,
                v_row=fields["v_wide"] * w, s_row=self.rows * w, value_room=values,
                head_values=fields["has_values"] * values,
                head_keys=fields["has_keys"] * self.rows * fields["p_wide"] * w,
                **{name: np.repeat(array, w, axis=-1) for name, array in self._spread.items()},
            )  # fmt: skip
        return self._arguments[w, followed]

    def advance(
        self,
        x: np.ndarray,
        layers: int,
        workers: int,
        every: Every,
        entropy: bool = False,
        systems: np.ndarray | None = None,
    ) -> Advanced:
        """(x after the layers, measures (5, samples, layers), entropy (samples,) or None).

        The entropy is that of the first layer's attention. systems : that of each sample, in
        ascending order; None where there is one.
        """
        given = self._given(_most_alike(systems, len(x)), False)
        places = _Places.of(systems, self.systems, given.w)
        x = places.spread(x)
        samples = len(x)
        state = self._in_lanes(x, given.w)
        blocks, w = len(state), given.w
        observed = np.empty((layers, 5, blocks, w))
        entropies = np.zeros((blocks, self.n, w), self.dtype)

        def work(part: slice) -> Iterator[None]:
            mine = given.copy()
            mine.allocate(self.scratch, "job", part.start)
            for some, start, stop, wanted in _calls(part, layers, 5 * w, entropy):
                place = observed[start:stop, :, some]
                (seen,) = self.scratch(("seen", part.start), [place.size], np.float64)
                seen = seen.reshape(place.shape)
                mine.set(x=state[some], samples=len(state[some]), **places.systems(some))
                mine.set(start=start, layers=stop - start, observed=seen)
                mine.set(wanted=wanted, entropy=entropies[some])
                self._advance(mine)
                place[:] = seen
                yield

        every(work, parts(blocks, workers))
        mean = self._mean_entropy(entropies, samples, places) if entropy else None
        out = places.back(_from_lanes(state[:, : self.n, : self.d], samples))
        return out, places.back(_by_sample(observed, samples), axis=1), mean

    def follow(
        self,
        state: Deviation,
        layers: int,
        workers: int,
        every: Every,
        entropy: bool = False,
        systems: np.ndarray | None = None,
    ) -> tuple[Deviation, np.ndarray, np.ndarray | None]:
        """(state after the layers, cheap measures, log10 mu and scores (7, samples, layers),
        entropy (samples,) or None)."""
        given = self._given(len(state.log_size), True)
        places = _Places.of(systems, self.systems, given.w)
        shape, sizes = places.spread(state.shape), places.spread(state.log_size)
        samples = len(sizes)
        z, w = self._in_lanes(shape, given.w), given.w
        center = self._in_lanes(places.spread(state.center)[:, None], w, rows=1)
        log_size = _in_lanes(sizes, w)
        blocks = len(z)
        observed, entropies = np.empty((layers, 7, blocks, w)), np.zeros((blocks, self.n, w))

        def work(part: slice) -> Iterator[None]:
            mine = given.copy()
            mine.set(x=z[part], center=center[part], log_size=log_size[part])
            mine.set(samples=part.stop - part.start, **places.systems(part))
            mine.allocate(self.scratch, "job", part.start)
            for start, stop, wanted in stretches(layers, entropy):
                seen = np.empty((stop - start, 7, part.stop - part.start, w))
                mine.set(start=start, layers=stop - start, observed=seen)
                mine.set(wanted=wanted, entropy=entropies[part])
                _follow(mine)
                observed[start:stop, :, part] = seen
            yield

        every(work, parts(blocks, workers))
        after = Deviation(
            places.back(_from_lanes(center[:, 0, : self.d], samples)),
            places.back(_from_lanes(z[:, : self.n, : self.d], samples)),
            places.back(_from_lanes(log_size, samples)),
            state.observed,
        )
        mean = self._mean_entropy(entropies, samples, places) if entropy else None
        return after, places.back(_by_sample(observed, samples), axis=1), mean

    def _mean_entropy(self, entropies: np.ndarray, samples: int, places: _Places) -> np.ndarray:
        """By sample, over tokens and heads, of sums over heads (blocks, N, w)."""
        total = places.back(_from_lanes(entropies, samples)).sum(axis=1)
        return total / (self.n * self._fields["heads"])

    def _in_lanes(self, x: np.ndarray, w: int, rows: int | None = None) -> np.ndarray:
        """(samples, N, d) as (blocks, rows, columns, w), padded."""
        _, n, d = x.shape
        blocks = -(-len(x) // w)
        out = aligned((blocks, rows or self.rows, self.columns, w), self.dtype)
        out[:, :n, :d] = _in_lanes(x, w)
        return out


def _calls(
    part: slice, layers: int, numbers: int, entropy: bool
) -> Iterator[tuple[slice, int, int, bool]]:
    """(blocks, first layer, end, whether entropies are wanted) of the calls for a part, where so
    many numbers are observed of a block and layer."""
    blocks = max(1, _OBSERVED // (numbers * min(layers, _LAYERS)))
    for begin in range(part.start, part.stop, blocks):
        some = slice(begin, min(begin + blocks, part.stop))
        most = max(1, _OBSERVED // (numbers * (some.stop - some.start)))
        for first, end, wanted in stretches(layers, entropy):
            for start in range(first, end, most):
                yield some, start, min(start + most, end), wanted


class _Places(NamedTuple):
    """Where samples go so that no vector holds those of two systems.

    order : the sample in every lane, the last of a system again where a vector is not full; None
        for samples as they are
    first : where each sample is
    system : of every vector
    """

    order: np.ndarray | None = None
    first: np.ndarray | None = None
    system: np.ndarray | None = None

    @classmethod
    def of(cls, systems: np.ndarray | None, count: int, w: int) -> _Places:
        """For samples of these systems, numbers below `count` that never fall, and vectors of w."""
        if systems is None:
            return cls()
        if systems[-1] >= count or np.any(np.diff(systems) < 0) or systems[0] < 0:
            raise ValueError(f"systems are numbers from 0 to {count - 1} that never fall")
        own, begin, size = np.unique(systems, return_index=True, return_counts=True)
        vectors = -(-size // w)
        lane = np.arange(w * vectors.sum()) - np.repeat(
            w * (vectors.cumsum() - vectors), w * vectors
        )
        order = np.repeat(begin, w * vectors) + np.minimum(lane, np.repeat(size - 1, w * vectors))
        return cls(order, np.unique(order, return_index=True)[1], np.repeat(own, vectors))

    def spread(self, array: np.ndarray) -> np.ndarray:
        """(samples, ...) in this order."""
        return array if self.order is None else array[self.order]

    def back(self, array: np.ndarray, axis: int = 0) -> np.ndarray:
        """What was spread, by sample."""
        return array if self.first is None else array.take(self.first, axis)

    def systems(self, part: slice) -> dict[str, np.ndarray]:
        """The field of the record for some vectors."""
        return {} if self.system is None else {"system": self.system[part]}


def _most_alike(systems: np.ndarray | None, samples: int) -> int:
    """The most samples of one system."""
    return samples if systems is None else int(np.bincount(systems).max())


def _in_lanes(array: np.ndarray, w: int) -> np.ndarray:
    """(samples, ...) as (blocks, ..., w), filled up with the last sample."""
    whole = np.concatenate([array, np.repeat(array[-1:], -len(array) % w, axis=0)])
    return np.ascontiguousarray(np.moveaxis(whole.reshape(-1, w, *array.shape[1:]), 1, -1))


def _from_lanes(array: np.ndarray, samples: int) -> np.ndarray:
    """(blocks, ..., w) as (samples, ...)."""
    whole = np.moveaxis(array, -1, 1)
    return np.ascontiguousarray(whole.reshape(-1, *whole.shape[2:])[:samples])


def _by_sample(observed: np.ndarray, samples: int) -> np.ndarray:
    """(layers, K, blocks, w) as (K, samples, layers)."""
    layers, number, _, _ = observed.shape
    return observed.reshape(layers, number, -1)[:, :, :samples].transpose(1, 2, 0)
