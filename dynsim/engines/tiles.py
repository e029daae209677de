"""A mask cut into tiles: c attending tokens against all that any of them attends to.

Tiles with the same number W of keys form one batched product of shape (T, c, W), which no sparse
mask makes as large as N x N: a window w gives W = c + 2 w, a complete mask W = N. Both kinds of
group hold plain arrays, so they work alike with numpy and on a device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dynsim.masks.layout import Layout, Ranges

__all__ = ["Tiles", "Unions", "Windows", "edges", "tiles"]

#: Work beside the scores, in scores: to fetch a key and value, and to start a batched product.
#: Measured on a CPU with d = 16..64; the choice of c is flat about its optimum.
_FETCH, _START = 32, 20_000
#: The most scores in one tile: a row block where there are more than 4096 keys for all rows.
_LARGEST = 2**24


class Windows(NamedTuple):
    """T tiles against contiguous keys: row r of a tile sees slots first[r] .. last[r] - 1 of W."""

    rows: np.ndarray  # (T, c), the attending tokens; repeats of the last fill a tile
    start: np.ndarray  # (T, 1), the key in slot 0
    first: np.ndarray | None  # (T, c, 1), or (1, c, 1) where tiles are alike; None: all see all
    last: np.ndarray | None  # as first
    slots: np.ndarray  # (W,), 0 .. W - 1

    def keys(self, part: slice) -> Any:
        """The keys of some tiles, (t, W)."""
        return self.start[part] + self.slots

    def allowed(self, part: slice) -> Any:
        """Which keys each row may see, (t, c, W) or (1, c, W) boolean, or None for all."""
        if self.first is None or self.last is None:
            return None
        part = slice(None) if len(self.first) == 1 else part
        return (self.slots >= self.first[part]) & (self.slots < self.last[part])


class Unions(NamedTuple):
    """T tiles against listed keys."""

    rows: np.ndarray  # (T, c), as in Windows
    listed: np.ndarray  # (T, W)
    mask: np.ndarray  # (T, c, W) boolean

    def keys(self, part: slice) -> Any:
        """The keys of some tiles, (t, W)."""
        return self.listed[part]

    def allowed(self, part: slice) -> Any:
        """Which keys each row may see, (t, c, W) boolean."""
        return self.mask[part]


class Tiles(NamedTuple):
    """A mask in groups of tiles: token i is entry place[i] of their rows, group after group."""

    groups: list[Windows | Unions]
    place: np.ndarray  # (N,)
    cost: int  # of attention, in scores


def tiles(layout: Layout, height: int | None = None) -> Tiles:
    """The mask in tiles of `height` rows, by default the cheapest."""
    cut, step = (_Hulls, 2) if isinstance(layout, Ranges) else (_Sets, 4)  # unions take longer
    heights = [step**k for k in range(24) if step**k < layout.n_tokens] + [layout.n_tokens]
    cuts = (cut(layout, c) for c in ([height] if height else heights))
    chosen = min(cuts, key=lambda cut: (max(cut.area, _LARGEST), cut.cost))
    groups = [chosen.group(np.flatnonzero(chosen.widths == w), w) for w in np.unique(chosen.widths)]
    order = np.concatenate([group.rows.ravel() for group in groups])
    return Tiles(groups, np.unique(order, return_index=True)[1], chosen.cost)


def edges(group: Windows | Unions, layout: Layout) -> np.ndarray:
    """The number of the edge of every slot of a group, row by row of the mask: (T, c, W).

    Meaningless where a row may not see a slot.
    """
    rows, n = layout.to_rows(), layout.n_tokens
    pairs = rows.row_of_edge * n + rows.indices
    wanted = group.rows[:, :, None] * n + group.keys(slice(None))[:, None, :]
    return np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)


def _rounded_up(widths: np.ndarray, limit: int) -> np.ndarray:
    """To one of four sizes an octave: few groups, at most a quarter wasted."""
    step = 2 ** np.maximum(np.floor(np.log2(widths)).astype(np.int64) - 2, 0)
    return np.minimum(-(-widths // step) * step, limit)


class _Cut:
    """A layout in tiles of c rows; `widths`, (T,), are the keys of each, rounded up."""

    def __init__(self, layout: Any, height: int):
        self.layout, self.height = layout, height
        self.begin = np.arange(0, layout.n_tokens, height)
        self.widths = _rounded_up(self._count_keys(), layout.n_tokens)

    def _count_keys(self) -> np.ndarray:
        raise NotImplementedError

    @property
    def area(self) -> int:
        """Scores in the largest tile."""
        return self.height * int(self.widths.max())

    @property
    def cost(self) -> int:
        scores = int(np.sum(self.widths * (self.height + _FETCH)))
        return scores + _START * len(np.unique(self.widths))

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        rows = self.begin[chosen, None] + np.arange(self.height)
        return np.minimum(rows, self.layout.n_tokens - 1)


class _Hulls(_Cut):
    """Ranges: from the first to the last key of a tile."""

    def _count_keys(self) -> np.ndarray:
        self.lo = np.minimum.reduceat(self.layout.lo, self.begin)
        return np.maximum.reduceat(self.layout.hi, self.begin) - self.lo

    def group(self, chosen: np.ndarray, width: int) -> Windows:
        rows = self.rows(chosen)
        start = np.minimum(self.lo[chosen], self.layout.n_tokens - width)[:, None]
        first, last = (end[rows] - start for end in (self.layout.lo, self.layout.hi))
        if not first.any() and np.all(last == width):
            return Windows(rows, start, None, None, np.arange(width))
        if np.all(first == first[0]) and np.all(last == last[0]):
            first, last = first[:1], last[:1]
        return Windows(rows, start, first[..., None], last[..., None], np.arange(width))


class _Sets(_Cut):
    """Rows: the sorted union of a tile's keys."""

    def _count_keys(self) -> np.ndarray:
        n = self.layout.n_tokens
        pairs = self.layout.row_of_edge // self.height * n + self.layout.indices
        self.pairs, self.slot_of_edge = np.unique(pairs, return_inverse=True)
        tile = self.pairs // n
        counts = np.bincount(tile, minlength=len(self.begin))
        first = np.cumsum(counts) - counts
        self.slot = np.arange(len(tile)) - first[tile]
        return counts

    def group(self, chosen: np.ndarray, width: int) -> Unions:
        number = np.full(len(self.begin), -1)  # of a tile in this group
        number[chosen] = np.arange(len(chosen))
        tile, key = np.divmod(self.pairs, self.layout.n_tokens)
        here = number[tile] >= 0
        listed = np.zeros((len(chosen), width), np.int64)
        listed[number[tile[here]], self.slot[here]] = key[here]
        tile, row = np.divmod(self.layout.row_of_edge, self.height)
        here = number[tile] >= 0
        mask = np.zeros((len(chosen), self.height, width), bool)
        mask[number[tile[here]], row[here], self.slot[self.slot_of_edge[here]]] = True
        return Unions(self.rows(chosen), listed, mask)
