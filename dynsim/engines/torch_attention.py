"""Attention in torch: which queries meet which keys at once, and how scores become weights.

`Tiled` runs over the tiles of a mask (`dynsim.engines.tiles`) within a budget of memory; `Edges`
takes the edges of a sparse mask one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dynsim.engines.tiles import Windows, edges, tiles
from dynsim.masks.layout import Layout
from dynsim.network.attention import AttentionKind, Hardmax, Sigmoid, Softmax, Softpick

__all__ = ["KINDS", "Edges", "Piece", "Tiled", "fused", "is_tame", "joined", "softmax"]

#: What attention over the edges costs for each, in scores of tiles. Measured on a CPU at d = 64.
_EDGE = 6


class _Run(NamedTuple):
    """T lists of k tokens, each contiguous: the list t begins at first + step t."""

    first: int
    step: int

    def taken(self, tokens: Tensor, part: slice, shape: Sequence[int]) -> Tensor:
        """The tokens (B, N, p) of some lists, (t, k): (B, t, k, p), without a copy."""
        count, length = shape
        first = self.first + self.step * part.start
        if self.step == 0:
            return tokens[:, None, first : first + length].expand(-1, count, -1, -1)
        end = first + self.step * (count - 1) + length
        return tokens[:, first:end].unfold(1, length, self.step).mT


def _run(index: np.ndarray) -> _Run | None:
    """The run that lists of tokens (T, k) are; None where they are not."""
    first, last, count = int(index[0, 0]), int(index[-1, 0]), len(index)
    step = (last - first) // (count - 1) if count > 1 else 1
    lists = first + step * np.arange(count)[:, None] + np.arange(index.shape[1])
    return _Run(first, step) if step >= 0 and np.array_equal(index, lists) else None


class _Group(NamedTuple):
    """Tiles of one shape on the device; where rows or keys are runs, they are views."""

    tiles: Any  # Windows or Unions
    rows: _Run | None
    keys: _Run | None
    edges: Any  # (T, c, W), as `tiles.edges` numbers them; None unless asked for


class Piece:
    """Some tiles of a group for some samples and heads: c queries each against W keys."""

    def __init__(self, group: _Group, heads: slice, part: slice):
        self._group, self._part, self.heads = group, part, heads

    @property
    def rows(self) -> Any:
        """(t, c)"""
        return self._group.tiles.rows[self._part]

    @property
    def keys(self) -> Any:
        """(t, W)"""
        return self._group.tiles.keys(self._part)

    @property
    def allowed(self) -> Any:
        """Which keys each row may see, (t, c, W) or (1, c, W); None for all."""
        return self._group.tiles.allowed(self._part)

    @property
    def edges(self) -> Any:
        """The number of the edge of each slot, (t, c, W)."""
        return self._group.edges[self._part]

    def queries(self, tokens: Tensor) -> Tensor:
        """(B, N, p) -> (b, t, c, p)"""
        return self._taken(tokens, self._group.rows, self.rows)

    def attended(self, tokens: Tensor) -> Tensor:
        """(B, N, p) -> (b, t, W, p)"""
        if self._group.keys is None:
            return self._taken(tokens, None, self.keys)
        width = self._group.tiles.keys(slice(0, 1)).shape[1]
        return self._group.keys.taken(tokens[self.heads], self._part, (len(self.rows), width))

    def _taken(self, tokens: Tensor, run: _Run | None, index: Tensor) -> Tensor:
        if run is not None:
            return run.taken(tokens[self.heads], self._part, index.shape)
        return tokens[self.heads].index_select(1, index.flatten()).unflatten(1, index.shape)


#: What is done with the queries, keys and values of a piece: (b, t, c, p), (b, t, W, p) and
#: (b, t, W, q) -> (b, t, c, r).
_Tile = Callable[[Tensor, Tensor, Tensor, Piece], Tensor]


class Tiled:
    """A mask in tiles on a device; `put` takes arrays there. `with_edges` numbers the slots."""

    def __init__(self, layout: Layout, put: Callable[[Any], Any], with_edges: bool):
        groups, place, self.cost = tiles(layout)
        self._groups = [
            _Group(
                tiles=type(group)(*map(put, group)),
                rows=_run(group.rows),
                keys=_run(group.keys(slice(None))) if isinstance(group, Windows) else None,
                edges=put(edges(group, layout)) if with_edges else None,
            )
            for group in groups
        ]
        in_order = len(groups) == 1 and groups[0].rows.size == layout.n_tokens
        self._place = None if in_order else put(place)

    def over(
        self, query: Tensor, key: Tensor, value: Tensor, tile: _Tile, entries: int, squares: int
    ) -> Tensor:
        """tile(q, k, v, piece) for every token of every sample and head, (B, N, r).

        At most `entries` numbers are made for a piece, of which `squares` for each score.
        """
        batch, pieces = len(query), []
        for group in self._groups:
            n_tiles, height = group.tiles.rows.shape
            width = group.tiles.keys(slice(0, 1)).shape[1]
            each = (height + width) * (query.shape[2] + value.shape[2]) + squares * height * width
            at_once = max(1, entries // each)
            done = []
            for heads in _slices(batch, at_once):
                parts = []
                for part in _slices(n_tiles, max(1, at_once // batch)):
                    piece = Piece(group, heads, part)
                    taken = piece.queries(query), piece.attended(key), piece.attended(value)
                    parts.append(tile(*taken, piece))
                done.append(joined(parts, 1).flatten(1, 2))
            pieces.append(joined(done, 0))
        mixed = joined(pieces, 1)
        return mixed if self._place is None else mixed.index_select(1, self._place)


class Edges:
    """The softmax over the edges of a sparse mask, one sample and head after another.

    For masks whose rows have little in common; from the queries and keys of an edge to its score,
    from there to sums over rows, nothing is stored that a tile would leave empty.
    """

    def __init__(self, layout: Layout, put: Callable[[Any], Any]):
        rows, self._n = layout.to_rows(), layout.n_tokens
        self._begins = put(rows.indptr)
        self._columns = put(rows.indices.astype(np.int64))
        self._row_of_edge = put(rows.row_of_edge)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR")  # said once to be beta
            self._matrix(torch.zeros(len(self._columns)))

    @staticmethod
    def are_cheaper(layout: Layout, tiled: Tiled, device: torch.device) -> bool:
        """Where torch has these products on a CPU, and tiles would be nearly empty."""
        possible = device.type == "cpu" and torch.backends.mkl.is_available()
        return possible and layout.kind == "csr" and tiled.cost > _EDGE * layout.n_edges

    def _matrix(self, values: Tensor) -> Tensor:
        return torch.sparse_csr_tensor(
            self._begins, self._columns, values, (self._n, self._n), check_invariants=False
        )

    def mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Softmax(Q K^T) V for every sample and head, (B, N, q)."""
        pattern = self._matrix(query.new_zeros(len(self._columns)))
        each = zip(query, key, value, strict=True)
        return joined([self._one(pattern, *one)[None] for one in each], 0)

    def _one(self, pattern: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = torch.sparse.sampled_addmm(pattern, query, key.T).values()
        largest = torch.segment_reduce(scores, "max", offsets=self._begins)
        weights = (scores - largest[self._row_of_edge]).exp_()
        sums = torch.segment_reduce(weights, "sum", offsets=self._begins)
        return (self._matrix(weights) @ value) / sums[:, None]


def _slices(length: int, size: int) -> list[slice]:
    return [slice(k, min(k + size, length)) for k in range(0, length, size)]


def joined(pieces: list[Tensor], dim: int) -> Tensor:
    """The pieces one after another, without a copy where there is one alone."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


# --- the softmax without its scores -----------------------------------------------------------


def is_tame(query: Tensor, key: Tensor) -> bool:
    """True when no score can overflow. The fused product would hide a row of -inf."""
    (low, high), (least, most) = torch.aminmax(query), torch.aminmax(key)
    bound = torch.maximum(high, -low) * torch.maximum(most, -least) * query.shape[2]
    return bool(bound.isfinite())


def fused(q: Tensor, k: Tensor, v: Tensor, piece: Piece) -> Tensor:
    """Softmax(Q K^T) V, never holding the scores: twice as fast on a CPU and as exact."""
    allowed = piece.allowed
    mask = None if allowed is None else allowed[None]  # of three dimensions it would not be fused
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


# --- kinds of attention: scores (b, t, c, W), allowed (t, c, W) and heads (b,) -> (b, t, c, W) ----


def _masked(scores: Tensor, allowed: Tensor | None) -> Tensor:
    return scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)


def softmax(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """Without a sink; the scores may be overwritten."""
    if allowed is not None:
        scores.masked_fill_(~allowed, -torch.inf)
    return scores.softmax(dim=-1)


def _softmax_with_sink(kind: Softmax, scores: Tensor, allowed: Any, heads: Tensor) -> Tensor:
    scores = _masked(scores, allowed)
    if kind.sink is None:
        return scores.softmax(dim=-1)
    sinks = torch.tensor(kind.sink, dtype=scores.dtype, device=scores.device).reshape(-1)
    column = sinks[heads % len(sinks)][:, None, None, None].expand(*scores.shape[:-1], 1)
    return torch.cat([scores, column], dim=-1).softmax(dim=-1)[..., :-1]


def _sigmoid(kind: Sigmoid, scores: Tensor, allowed: Any, heads: Tensor) -> Tensor:
    if allowed is None:
        return torch.sigmoid(scores - np.log(scores.shape[-1]))
    numbers = allowed.sum(dim=-1, keepdim=True).to(scores.dtype)
    return torch.sigmoid(_masked(scores - numbers.log(), allowed))


def _softpick(kind: Softpick, scores: Tensor, allowed: Any, heads: Tensor) -> Tensor:
    if allowed is not None:
        scores = scores.masked_fill(~allowed, 0.0)  # e^0 - 1 = 0
    most = scores.amax(dim=-1, keepdim=True).clamp(min=0.0)
    one = torch.exp(-most)
    near = torch.expm1(scores.clamp(max=1.0)) * one
    rest = torch.where(scores < 1.0, near, torch.exp(scores - most) - one)
    return rest.clamp(min=0.0) / (rest.abs().sum(dim=-1, keepdim=True) + kind.eps * one)


def _hardmax(kind: Hardmax, scores: Tensor, allowed: Any, heads: Tensor) -> Tensor:
    scores = _masked(scores, allowed)
    largest = (scores == scores.amax(dim=-1, keepdim=True)).to(scores.dtype)
    return largest / largest.sum(dim=-1, keepdim=True)


#: How the scores of each kind become weights.
KINDS: dict[type[AttentionKind], Callable[..., Tensor]] = {
    Softmax: _softmax_with_sink, Sigmoid: _sigmoid, Softpick: _softpick, Hardmax: _hardmax,
}  # fmt: skip
