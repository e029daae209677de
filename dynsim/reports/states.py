"""Which layers are shown of a run, and what of them: tokens, singular values, attention.

A page has room for so much: at most 33 layers of one sample, tokens by their directions in three
dimensions, and attention in groups of tokens where there are many layers, heads and tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import evenly
from dynsim.measures import frobenius_norm, mu, norm_max, singular_values
from dynsim.reports.views import Attention, Frames, Spectrum, Sphere, View

if TYPE_CHECKING:
    from dynsim.network.dynamics import AttentionDynamics

__all__ = [
    "MOST_LAYERS", "MOST_TOKENS", "States", "affordable", "attention_of", "differences",
    "directions", "early", "pooled", "principal", "room_for",
]  # fmt: skip

#: Layers of a page, tokens that are drawn as points, and singular values.
MOST_LAYERS, _MOST_POINTS, _MOST_VALUES = 33, 256, 64
#: Numbers of tokens that are held at once.
_MOST_NUMBERS = 2**25
#: Arcs of a picture.
_MOST_ARCS = 600
#: Numbers of attention on a page: 2.7 bytes each.
_ROOM = 1_000_000
#: Attention is a matrix of all pairs of tokens; of more than these it is not made.
MOST_TOKENS = 1024


def affordable(n: int, d: int, most: int = MOST_LAYERS) -> int:
    """How many states (N, d) are held at once: at most `most`, and 256 MB.

    >>> affordable(64, 32), affordable(10**5, 32)
    (33, 10)
    """
    return max(2, min(most, _MOST_NUMBERS // (n * d)))


def early(depth: int, most: int = MOST_LAYERS) -> np.ndarray:
    """Depths 0 to `depth`, at most `most`, closer together at the beginning, where most happens:
    those next to depth (k / (most - 1))^2.

    >>> early(4).tolist(), early(100, 11).tolist()
    ([0, 1, 2, 3, 4], [0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100])
    """
    if depth < most:
        return np.arange(depth + 1)
    wanted = (depth * np.linspace(0, 1, most) ** 2).round().astype(int)
    least = np.arange(most)  # one layer apart at least
    return np.maximum(wanted, least)


@dataclass(frozen=True)
class States:
    """Tokens of one sample at some layers, and the attention with which each goes on.

    frames : the layers (or equilibria) that they are
    tokens : (frames, N, d)
    attention : (frames or fewer, H, n, n), by groups of tokens where n < N; None where it is not
        known
    names : of the tokens, (N,)
    whose : "sample 0 of 16"
    eps : machine epsilon of what computed the tokens; that of their own type unless given
    """

    frames: Frames
    tokens: np.ndarray
    attention: np.ndarray | None = None
    names: Sequence[str] | None = None
    whose: str = ""
    eps: float | None = None

    def views(self) -> list[View]:
        """The pictures of them: sphere, singular values, attention."""
        whose = f"; {self.whose}" if self.whose else ""
        views = [self._sphere(whose), self._spectrum(whose)]
        return views if self.attention is None else [*views, self._attention(whose)]

    @property
    def _eps(self) -> float:
        return self.eps or float(np.finfo(self.tokens.dtype).eps)

    def _names(self) -> Sequence[str]:
        numbers = [f"token {k}" for k in range(self.tokens.shape[1])]
        if self.names is None:
            return numbers
        return [f"{k}: {name}" for k, name in enumerate(self.names)]

    def _sphere(self, whose: str) -> Sphere:
        n, d = self.tokens.shape[1:]
        few = evenly(n - 1, _MOST_POINTS)
        points, shares = principal(directions(self.tokens))
        notes = None
        words = "every token divided by its norm; dark: first token, yellow: last" + whose
        if d > 3:
            words += "; along the three principal axes of the layer, turned to fit the layer before"
            notes = [f"they hold {share:.0%} of the squared norm" for share in shares]
        if len(few) < n:
            words += f"; {len(few)} of {n} tokens"
        title = {1: "tokens", 2: "tokens on the circle"}.get(d, "tokens on the sphere")
        names = self._names()
        apart = principal(differences(self.tokens, self._eps))[0]
        apart[~apart.any(axis=(1, 2))] = np.nan  # nothing is drawn
        return Sphere(
            title=title, note=words, notes=notes, points=points[:, few], dim=min(d, 3),
            tokens=[names[k] for k in few], apart=apart[:, few],
            apart_note="tokens less their mean, divided by the largest of these differences; none "
            "where they are rounding" + whose,
        )  # fmt: skip

    def _spectrum(self, whose: str) -> Spectrum:
        sigma = singular_values(self.tokens)[:, :_MOST_VALUES]
        ranked = sigma / np.where(sigma[:, :1] > 0, sigma[:, :1], 1.0)
        least = self._eps
        words = f"below {least:.0e} they are rounding" + whose
        if min(self.tokens.shape[1:]) > _MOST_VALUES:
            words += f"; the {_MOST_VALUES} largest"
        ranked = np.where(ranked < least / 100, 0.0, ranked)
        first = f"{self.frames.name} {self.frames.labels[0]}"
        return Spectrum(
            title="singular values of the tokens", note=words, values=ranked, first=first
        )

    def _attention(self, whose: str) -> Attention:
        assert self.attention is not None
        heads, n = self.attention.shape[1:3]
        size = -(-self.tokens.shape[1] // n)
        starts = range(0, self.tokens.shape[1], size)
        words = "rows are queries and sum to 1; shades grow with the root" + whose
        if size > 1:
            words += f"; in groups of {size} tokens: mean over queries, sum over keys"
        names = [str(k) for k in starts]
        if self.names is not None:
            names = [f"{k}: {self.names[k]}" for k in starts]
        arcs = "from key to query, above the line where the key comes first; dots: to itself"
        each = max(2, _MOST_ARCS // n)
        if n - 1 > each:
            arcs += f"; the {each} largest weights of each query"
        return Attention(
            title="attention", arcs_title="attention as arcs", note=words, arcs_note=arcs + whose,
            most_arcs=each, weights=self.attention,
            heads=[str(k) for k in range(heads)], tokens=names,
        )  # fmt: skip


def directions(tokens: np.ndarray) -> np.ndarray:
    """Every token (..., d) divided by its norm; zeros stay zeros."""
    tokens = np.asarray(tokens, np.float64)
    unit = np.abs(tokens).max(axis=-1, keepdims=True)
    scaled = tokens / np.where(unit > 0, unit, 1.0)
    norms = np.linalg.norm(scaled, axis=-1, keepdims=True)
    return scaled / np.where(norms > 0, norms, 1.0)


def differences(tokens: np.ndarray, eps: float) -> np.ndarray:
    """Tokens (F, N, d) less their mean, each state divided by the largest of these differences.

    Zero where mu is at most 8 eps ||X||, the floor below which they are rounding.

    >>> differences(np.array([[[1.0, 0.0], [1.0, 1e-9]], [[1.0, 0.0], [1.0, 1e-15]]]), 2e-16)
    array([[[ 0., -1.],
            [ 0.,  1.]],
           [[ 0.,  0.],
            [ 0.,  0.]]])
    """
    x = np.asarray(tokens, np.float64)
    apart = x - x.mean(axis=-2, keepdims=True)
    largest = norm_max(apart)
    seen = (mu(x) > 8 * eps * frobenius_norm(x)) & (largest > 0)
    scaled = apart / np.where(seen, largest, 1.0)[:, None, None]
    return np.where(seen[:, None, None], scaled, 0.0)


def principal(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (frames, N, d) in three dimensions, (frames, N, 3), and the share of their squared
    norm that stays, (frames,).

    Up to three dimensions they are as they are. Else each frame is taken along its own three
    principal axes, the right singular vectors of X, and turned (or reflected) to lie as near as
    possible to the frame before: R = U V^T of the singular value decomposition of P_t^T P_{t-1}.

    >>> points, shares = principal(np.eye(4)[None, :2])
    >>> np.linalg.norm(points[0], axis=-1).round(12).tolist(), shares.round(12).tolist()
    ([1.0, 1.0], [1.0])
    """
    frames, n, d = tokens.shape
    if d <= 3:
        return np.pad(tokens, [(0, 0), (0, 0), (0, 3 - d)]), np.ones(frames)
    points, shares = np.zeros((frames, n, 3)), np.ones(frames)
    for k, x in enumerate(tokens):
        left, sigma, _ = np.linalg.svd(x, full_matrices=False)
        kept = min(3, len(sigma))
        points[k, :, :kept] = left[:, :kept] * sigma[:kept]
        total = np.sum(sigma**2)
        shares[k] = np.sum(sigma[:kept] ** 2) / total if total else 1.0
        if k:
            u, _, vt = np.linalg.svd(points[k].T @ points[k - 1])
            points[k] = points[k] @ u @ vt
    return points, shares


def attention_of(
    dynamics: AttentionDynamics, tokens: np.ndarray, layers: Sequence[int]
) -> np.ndarray | None:
    """The attention of each layer on its tokens (F, N, d), by the definition: (F, H, n, n).

    Layers that the dynamics does not have are left out at the end. None for more than 1024 tokens.
    """
    if dynamics.n_tokens > MOST_TOKENS:
        return None
    there = [t for t in layers if dynamics.n_layers is None or t < dynamics.n_layers]
    if not there:
        return None
    n_heads = dynamics.weights.n_heads
    room = room_for(len(there) * n_heads)
    pairs = zip(there, tokens[: len(there)], strict=True)
    return np.stack([pooled(dynamics.attention(x, t), room) for t, x in pairs])


def room_for(matrices: int) -> int:
    """How many rows each of so many matrices of attention may have on a page.

    >>> room_for(33), room_for(33 * 12), room_for(10**6)
    (174, 50, 2)
    """
    return max(2, int((_ROOM / matrices) ** 0.5))


def pooled(A: np.ndarray, rows: int) -> np.ndarray:
    """Attention (..., N, N) in groups of consecutive tokens, at most `rows` of them.

    Means over the queries of a group and sums over its keys: rows still sum to 1.

    >>> pooled(np.full((3, 3), 1 / 3), 2).round(3).tolist()
    [[0.667, 0.333], [0.667, 0.333]]
    """
    n = A.shape[-1]
    size = -(-n // rows)
    starts = np.arange(0, n, size)
    sums = np.add.reduceat(np.add.reduceat(A, starts, axis=-2), starts, axis=-1)
    return sums / np.diff(np.append(starts, n))[:, None]
