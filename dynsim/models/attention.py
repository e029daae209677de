"""Attention as a model computes it, seen and changed without touching the model.

Every call of `scaled_dot_product_attention`, and every softmax over scores (texts, heads, queries,
keys), passes `AttentionCalls`, whatever the architecture. A call is carried out as it is, or with
another mask or temperature; what is seen of it are statistics of one text after another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["HEADS", "AttentionCalls", "head_statistics"]

#: Statistics of a head, by name, and what they are; means over the queries of a text.
HEADS = {
    "entropy": "entropy of a row of attention (nats)",
    "first_token": "attention to the first token, by the queries after it",
    "row_mass": "sum of a row of attention; below 1 where a sink takes a share in the softmax",
    "symmetric": "1 - ||A - A^T|| / ||A + A^T||: 1 for symmetric attention",
}
_SOFTMAX = {F.softmax, torch.softmax, torch.Tensor.softmax}


class AttentionCalls(TorchFunctionMode):
    """Context manager: hands the attention (H, queries, keys) of each text to an observer.

    observer : has `wants_attention() -> bool`, `see_attention(text, weights)`, called for every text
    of the batch with float32 weights, and `saw_attention()` after the last text.
    """

    def __init__(self, observer: Any) -> None:
        super().__init__()
        self._observer = observer

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        scores = isinstance(out, torch.Tensor) and out.ndim == 4
        attends = func is F.scaled_dot_product_attention or func in _SOFTMAX
        if attends and scores and self._observer.wants_attention():
            with torch.no_grad():
                for text, weights in self._weights(func, out, args, kwargs or {}):
                    self._observer.see_attention(text, weights)
            self._observer.saw_attention()
        return out

    def _weights(self, func: Any, out: torch.Tensor, args: tuple, kwargs: dict) -> Any:
        if func in _SOFTMAX:
            return enumerate(weights.float() for weights in out)
        return self._recompute(*args, **kwargs)

    def _recompute(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """softmax(scale Q K^T + mask) of one text after another; dropout comes after it."""
        heads, queries, keys = query.shape[1], query.shape[2], key.shape[2]
        scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        mask = attn_mask
        if is_causal:
            mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
        for text in range(len(query)):
            k = key[text].float().repeat_interleave(heads // key.shape[1], dim=0)
            scores = scale * (query[text].float() @ k.transpose(-1, -2))
            if mask is not None:
                own = mask.expand(len(query), -1, -1, -1)[text] if mask.ndim == 4 else mask
                scores = _masked(scores, own)
            yield text, scores.softmax(dim=-1)


def _masked(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -torch.inf)
    return scores + mask.float()


def head_statistics(A: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All of HEADS, each (H,), and the share of all attention that each token receives, (N,).

    A : attention of one text, (H, N, N), rows are queries.

    >>> found, mass = head_statistics(np.full((1, 4, 4), 0.25))
    >>> found["entropy"].round(4), mass
    (array([1.3863]), array([0.25, 0.25, 0.25, 0.25]))
    """
    entropy = -np.sum(A * np.log(np.where(A > 0, A, 1.0)), axis=-1).mean(axis=-1)
    later = A[:, 1:, 0] if A.shape[1] > 1 else A[:, :, 0]
    turned = np.swapaxes(A, -1, -2)
    both = np.linalg.norm(A + turned, axis=(-2, -1))
    apart = np.linalg.norm(A - turned, axis=(-2, -1))
    found = {
        "entropy": entropy,
        "first_token": later.mean(axis=-1),
        "row_mass": A.sum(axis=-1).mean(axis=-1),
        "symmetric": 1 - apart / both,
    }
    # a token is no sink for attending to itself, as the first of a causal text must
    received = A.mean(axis=0) * (1 - np.eye(A.shape[1]))
    asked = np.maximum(1, A.shape[1] - 1)
    return found, received.sum(axis=0) / asked
