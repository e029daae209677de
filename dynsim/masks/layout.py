"""Who attends to whom, in the cheapest form: contiguous ranges or compressed rows.

Row i lists the tokens that token i attends to, in ascending order: the predecessors of i in the
mask graph. Neither form ever holds an N x N array for a sparse mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from dynsim._values import Value

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike
    from scipy import sparse

__all__ = [
    "CSR",
    "Layout",
    "Ranges",
    "common_keys",
    "is_circulant",
    "is_interval_mask",
    "rows_from_pairs",
    "strong_components",
]


@dataclass(frozen=True, eq=False, repr=False)
class Ranges(Value):
    """Token i attends to lo[i], ..., hi[i] - 1: complete, causal and banded masks. O(N) memory."""

    lo: np.ndarray
    hi: np.ndarray

    def __post_init__(self) -> None:
        lo, hi = self._freeze_array("lo", np.int64), self._freeze_array("hi", np.int64)
        _refuse_empty(np.flatnonzero(hi <= lo))

    @property
    def n_tokens(self) -> int:
        return len(self.lo)

    @cached_property
    def degrees(self) -> np.ndarray:
        """How many tokens each token attends to, (N,)."""
        return self.hi - self.lo

    @property
    def n_edges(self) -> int:
        return int(self.degrees.sum())

    @cached_property
    def has_self_loops(self) -> bool:
        i = np.arange(self.n_tokens)
        return bool(np.all((self.lo <= i) & (i < self.hi)))

    @cached_property
    def is_monotone(self) -> bool:
        """True when both ends of the ranges never move back from one token to the next."""
        return bool(np.all(np.diff(self.lo) >= 0) and np.all(np.diff(self.hi) >= 0))

    @property
    def kind(self) -> str:
        n = self.n_tokens
        if not self.lo.any():
            if np.all(self.hi == n):
                return "complete"
            if np.array_equal(self.hi, np.arange(1, n + 1)):
                return "causal"
        return "banded"

    def row(self, i: int) -> np.ndarray:
        return np.arange(self.lo[i], self.hi[i])

    def to_rows(self) -> CSR:
        indptr = np.concatenate([[0], np.cumsum(self.degrees)])
        indices = np.arange(indptr[-1]) + np.repeat(self.lo - indptr[:-1], self.degrees)
        return CSR(indptr, indices)

    @cached_property
    def attended_by(self) -> Layout:
        """The same edges read the other way: row j lists the tokens that attend to j."""
        if not self.is_monotone:
            return self.to_rows().attended_by
        j = np.arange(self.n_tokens)
        lo, hi = np.searchsorted(self.hi, j, "right"), np.searchsorted(self.lo, j, "right")
        return Ranges(lo, hi) if np.all(hi > lo) else self.to_rows().attended_by


@dataclass(frozen=True, eq=False, repr=False)
class CSR(Value):
    """Token i attends to indices[indptr[i]:indptr[i+1]] (CSR): any sparse mask. O(edges) memory."""

    indptr: np.ndarray
    indices: np.ndarray
    kind = "csr"

    def __post_init__(self) -> None:
        self._freeze_array("indptr", np.int64)
        self._freeze_array("indices", np.int32)

    @property
    def n_tokens(self) -> int:
        return len(self.indptr) - 1

    @cached_property
    def degrees(self) -> np.ndarray:
        """How many tokens each token attends to, (N,)."""
        return np.diff(self.indptr)

    @property
    def n_edges(self) -> int:
        return int(self.indptr[-1])

    @cached_property
    def row_of_edge(self) -> np.ndarray:
        """The attending token of every entry of `indices`, (edges,)."""
        return np.repeat(np.arange(self.n_tokens), self.degrees)

    @cached_property
    def has_self_loops(self) -> bool:
        return int(np.count_nonzero(self.indices == self.row_of_edge)) == self.n_tokens

    def row(self, i: int) -> np.ndarray:
        return self.indices[self.indptr[i] : self.indptr[i + 1]]

    def to_rows(self) -> CSR:
        return self

    def matrix(self, values: ArrayLike = 1.0, dtype: DTypeLike = np.float64) -> sparse.csr_array:
        """The mask as a scipy.sparse CSR array with `values`, one or one per edge, on the edges."""
        from scipy import sparse

        data = np.array(np.broadcast_to(np.asarray(values, dtype), self.n_edges))
        return sparse.csr_array((data, self.indices, self.indptr), shape=(self.n_tokens,) * 2)

    @cached_property
    def attended_by(self) -> CSR:
        """The same edges read the other way: row j lists the tokens that attend to j."""
        order = np.argsort(self.indices, kind="stable")
        counts = np.bincount(self.indices, minlength=self.n_tokens)
        return CSR(np.concatenate([[0], np.cumsum(counts)]), self.row_of_edge[order])


Layout = Ranges | CSR


def _refuse_empty(empty_rows: np.ndarray) -> None:
    if len(empty_rows):
        raise ValueError(
            f"every token must attend to something; row {empty_rows[0]} of the mask is empty; "
            f"add an edge into token {empty_rows[0]} (a self-loop, say)"
        )


def rows_from_pairs(n_tokens: int, attending: np.ndarray, attended: np.ndarray) -> Layout:
    """The cheapest layout of the edges ``attended[e] -> attending[e]``; repeated edges count once.

    Raises ValueError when a token attends to nothing.

    >>> rows_from_pairs(2, np.array([0, 1, 1]), np.array([0, 0, 1])).kind
    'causal'
    """
    from scipy import sparse

    marks = np.ones(len(attending), bool)
    matrix = sparse.coo_array((marks, (attending, attended)), shape=(n_tokens, n_tokens)).tocsr()
    matrix.sum_duplicates()
    indptr, attended = matrix.indptr.astype(np.int64), matrix.indices
    degrees = np.diff(indptr)
    _refuse_empty(np.flatnonzero(degrees == 0))
    first, last = attended[indptr[:-1]], attended[indptr[1:] - 1]
    if np.array_equal(last - first + 1, degrees):
        return Ranges(first, last + 1)
    return CSR(indptr, attended)


def is_interval_mask(layout: Layout) -> TypeGuard[Ranges]:
    """True for monotone ranges with self-loops: reachable sets are intervals, facts cost O(N).

    >>> is_interval_mask(Ranges([0, 0], [1, 2])), is_interval_mask(Ranges([0, 0], [2, 1]))
    (True, False)
    """
    return isinstance(layout, Ranges) and layout.is_monotone and layout.has_self_loops


def common_keys(layout: Layout) -> np.ndarray | None:
    """The tokens that every token attends to, if all attend to the same; else None.

    >>> common_keys(Ranges([0, 0], [2, 2])), common_keys(Ranges([0, 0], [1, 2]))
    (array([0, 1]), None)
    """
    first = layout.row(0)
    if np.any(layout.degrees != len(first)):
        return None
    if isinstance(layout, Ranges):
        return first if np.all(layout.lo == layout.lo[0]) else None
    return first if np.all(layout.indices.reshape(-1, len(first)) == first) else None


def is_circulant(layout: Layout) -> bool:
    """True when every row is the first row shifted round the circle, as in a ring.

    >>> is_circulant(Ranges([0, 0], [2, 2])), is_circulant(Ranges([0, 0], [1, 2]))
    (True, False)
    """
    if layout.degrees.min() != layout.degrees.max():
        return False
    rows = layout.to_rows()
    offsets = (rows.indices - rows.row_of_edge) % rows.n_tokens
    offsets = np.sort(offsets.reshape(rows.n_tokens, -1), axis=1)
    return bool(np.all(offsets == offsets[0]))


def strong_components(layout: Layout) -> tuple[np.ndarray, int]:
    """Strongly connected component of each token, (N,), and how many there are.

    >>> strong_components(Ranges([0, 0, 2], [2, 2, 3]))
    (array([0, 0, 1]), 2)
    """
    if is_interval_mask(layout):  # i and i+1 share one exactly when they attend to each other
        parted = (layout.lo[1:] > np.arange(layout.n_tokens - 1)) | (
            layout.hi[:-1] <= np.arange(1, layout.n_tokens)
        )
        labels = np.concatenate([[0], np.cumsum(parted)])
        return labels, int(labels[-1]) + 1
    from scipy import sparse

    matrix = layout.to_rows().matrix(dtype=np.int8)
    count, labels = sparse.csgraph.connected_components(matrix, connection="strong")
    return labels.astype(np.int64), int(count)
