"""Attention as a model computes it, seen without touching the model.

Every call of `scaled_dot_product_attention`, every softmax over scores (texts, heads, queries,
keys) and every `multi_head_attention_forward` passes `AttentionCalls`, whatever the architecture.
A call is carried out as it is; what is seen of it are the weights of a few heads of one text after
another, made again where the model's own function does not give them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["HEADS", "AttentionCalls", "SeenAttention", "second_eigenvalue", "statistics"]

#: Statistics of a head, by name, and what they are; means over the queries of a text.
HEADS = {
    "entropy": "entropy of a row of attention (nats)",
    "first_token": "attention to the first token, by the queries after it",
    "row_mass": "sum of a row of attention; below 1 where a sink takes a share in the softmax",
    "symmetric": "1 - ||A - A^T|| / ||A + A^T||: 1 for symmetric attention",
}
_SOFTMAX = (F.softmax, torch.softmax, torch.Tensor.softmax)
#: Numbers of attention that are made again at once: 64 MB of float32.
_AT_ONCE = 2**24


class SeenAttention(NamedTuple):
    """Heads `first`, `first` + 1, ... of one text: weights (heads, queries, keys), rows sum to 1
    or, with a sink in the softmax, to less; and the keys (key heads, keys, p), where known."""

    text: int
    first: int
    weights: torch.Tensor
    keys: torch.Tensor | None


class AttentionCalls(TorchFunctionMode):
    """Context manager: hands what is seen of each call of attention to an observer.

    wanted : callable() -> bool, whether the call that was just carried out is of interest.
    see : callable(iterator of SeenAttention), called for each that is.
    """

    def __init__(
        self, wanted: Callable[[], bool], see: Callable[[Iterator[SeenAttention]], None]
    ) -> None:
        super().__init__()
        self._wanted, self._see = wanted, see

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        seen = _seen_by(func, out)
        if seen is not None and self._wanted():
            with torch.no_grad():
                self._see(seen(out, args, kwargs))
        return out


def _seen_by(func: Any, out: Any) -> Callable[[Any, tuple, dict], Iterator[SeenAttention]] | None:
    """How to see the weights of a call; None for a call that is not attention."""
    if func is F.multi_head_attention_forward:
        return _of_multihead
    if not isinstance(out, torch.Tensor) or out.ndim != 4:
        return None
    if func is F.scaled_dot_product_attention:
        return lambda out, args, kwargs: _of_scaled_dot_product(*args, **kwargs)
    return _of_softmax if func in _SOFTMAX else None


def _of_softmax(out: torch.Tensor, args: tuple, kwargs: dict) -> Iterator[SeenAttention]:
    if out.shape[-1] == out.shape[-2] + 1:  # the last column is a sink's (gpt-oss)
        out = out[..., :-1]
    for text, weights in enumerate(out):
        for first, heads in _in_parts(weights.shape):
            yield SeenAttention(text, first, _raised(weights[heads]), None)


def _of_multihead(out: tuple, args: tuple, kwargs: dict) -> Iterator[SeenAttention]:
    """torch.nn.MultiheadAttention does not give the weights of its heads unless asked to."""
    asked = {"training": False, "need_weights": True, "average_attn_weights": False}
    _, weights = F.multi_head_attention_forward(*args, **kwargs | asked)
    assert weights is not None
    weights = weights if weights.ndim == 4 else weights[None]
    return _of_softmax(weights, (), {})


def _of_scaled_dot_product(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Iterator[SeenAttention]:
    """softmax(scale Q K^T + mask), without the dropout that comes after it."""
    texts, n_heads, queries = query.shape[:3]
    keys, shared = key.shape[2], n_heads // key.shape[1]
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    mask = attn_mask
    if is_causal:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        mask = mask.expand(texts, n_heads, queries, keys)
    for text in range(texts):
        for first, heads in _in_parts((n_heads, queries, keys)):
            of_head = torch.arange(n_heads, device=key.device)[heads] // shared
            k = _raised(key[text])[of_head]
            scores = scale * (_raised(query[text, heads]) @ k.mT)
            if mask is not None:
                scores = _masked(scores, mask[text, heads])
            yield SeenAttention(text, first, scores.softmax(dim=-1), k)


def _in_parts(shape: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """The heads of (heads, queries, keys) in parts of at most _AT_ONCE numbers."""
    heads, queries, keys = shape
    step = max(1, _AT_ONCE // max(1, queries * keys))
    for first in range(0, heads, step):
        yield first, slice(first, first + step)


def _raised(x: torch.Tensor) -> torch.Tensor:
    """In float32 or float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _masked(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -torch.inf)
    return scores + mask


def statistics(A: torch.Tensor) -> dict[str, torch.Tensor]:
    """All of HEADS, each (H,), of attention A (H, N, N), rows are queries.

    >>> uniform = torch.full((1, 4, 4), 0.25)
    >>> {name: round(float(value), 4) for name, value in statistics(uniform).items()}
    {'entropy': 1.3863, 'first_token': 0.25, 'row_mass': 1.0, 'symmetric': 1.0}
    """
    squares, products = (A * A).sum(dim=(-2, -1)), (A * A.mT).sum(dim=(-2, -1))
    apart = (squares - products).clamp(min=0) / (squares + products)
    return {
        "entropy": torch.special.entr(A).sum(dim=-1).mean(dim=-1),
        "first_token": A[:, 1:, 0].mean(dim=-1),
        "row_mass": A.sum(dim=-1).mean(dim=-1),
        "symmetric": 1 - apart.sqrt(),
    }


def second_eigenvalue(A: torch.Tensor, threshold: float) -> torch.Tensor:
    """lambda_2 of the attention graphs of A (H, N, N), (H,).

    Token i attends to token j in the graph where A_ij is at least `threshold` times the largest of
    row i; lambda_2 is the second largest modulus of the eigenvalues of the uniform walk on it. The
    late rate of collapse under uniform attention on this graph is lambda_2 for every layer.

    >>> causal = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
    >>> second_eigenvalue(causal, 0.1)
    tensor([0.5000], dtype=torch.float64)
    """
    edges = (A / A.amax(dim=-1, keepdim=True) >= threshold).double().cpu()
    walk = edges / edges.sum(dim=-1, keepdim=True)
    return torch.linalg.eigvals(walk).abs().sort(dim=-1).values[:, -2]
