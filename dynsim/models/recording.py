"""The tokens and the attention of one text, layer by layer, as a model computes them.

`probe` and `trace` keep numbers only; a picture of the tokens needs the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dynsim._threads import blas_alone
from dynsim._values import evenly
from dynsim.models.architecture import Stack, state_given, state_returned, without_fast_path
from dynsim.models.attention import AttentionCalls, SeenAttention
from dynsim.models.probing import first_text, in_mode, on_device, without_head
from dynsim.models.tracing import check_model

if TYPE_CHECKING:
    from dynsim.models.change import Change

__all__ = ["Recording", "record"]

#: Tokens of the text, and layers, that are kept at most.
_MOST_TOKENS, _MOST_LAYERS = 256, 33


@dataclass(frozen=True, eq=False)
class Recording:
    """What `record` keeps of one text.

    layers : blocks whose output follows, -1 for the embeddings
    tokens : (len(layers), N, d)
    attention : (H, N, N) of the block that follows each of the layers, none after the last block;
        empty where no attention was seen
    eps : machine epsilon of the type in which the model computed them
    texts : how many there were, of which this is the first
    names : of the tokens, (N,)
    """

    layers: Sequence[int]
    tokens: np.ndarray
    attention: Sequence[np.ndarray]
    eps: float
    texts: int = 1
    names: Sequence[str] | None = None


def record(
    model: nn.Module,
    *,
    change: Change | None = None,
    train_mode: bool = False,
    names: Sequence[str] | None = None,
    **inputs: Any,
) -> Recording:
    """Run a model on the first text and keep its residual stream and attention.

    Of the last stack of blocks, at most 33 layers, and of the first 256 tokens at most: an encoder
    then sees a shorter text than in `probe`.

    Parameters
    ----------
    change : dynsim.models.Change, optional
        What if, as in `dynsim.probe`.
    train_mode : bool
        With dropout on.
    names : sequence of str, optional
        What the tokens of the first text are called, in the order of input_ids.
    **inputs
        What the model's forward takes.

    Raises ValueError for a model without blocks, FloatingPointError for states that are not finite.
    """
    stack = check_model(model, ("layers_output",), ("heads",), None)[-1]
    body = without_head(model, inputs)
    tensors = on_device(body, inputs)
    texts = max(len(x) for x in tensors.values() if isinstance(x, torch.Tensor) and x.ndim)
    recorder = _Recorder(stack)
    with ExitStack() as cleanup:
        cleanup.enter_context(without_fast_path())
        for handle in recorder.hooks():
            cleanup.callback(handle.remove)
        cleanup.enter_context(in_mode(body, train_mode))
        cleanup.enter_context(torch.no_grad())
        cleanup.enter_context(blas_alone())
        cleanup.enter_context(nullcontext() if change is None else change.applied(body))
        cleanup.enter_context(AttentionCalls(recorder.wants_attention, recorder.see_attention))
        body(**first_text(tensors, texts, _MOST_TOKENS))
    return recorder.recording(texts, names)


class _Recorder:
    """What hooks saw of one forward pass of one text."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._states: list[np.ndarray] = []
        self._attention: dict[int, np.ndarray] = {}
        self._inside, self._eps = False, 0.0

    def hooks(self) -> Iterator[Any]:
        for block in dict.fromkeys(self._stack.blocks):  # shared blocks are there once
            yield block.register_forward_pre_hook(self._enter, with_kwargs=True)
            yield block.register_forward_hook(self._leave)

    def _enter(self, block: nn.Module, args: tuple, kwargs: dict) -> None:
        self._inside = True
        if not self._states:
            self._keep(state_given(args, kwargs))

    def _leave(self, block: nn.Module, args: tuple, out: Any) -> None:
        self._inside = False
        self._keep(state_returned(out))

    def _keep(self, x: torch.Tensor) -> None:
        tokens = x.detach()[0] if x.ndim == 3 else x.detach()
        state = tokens.double().cpu().numpy()
        self._eps = max(self._eps, float(torch.finfo(x.dtype).eps))
        if not np.isfinite(state).all():
            where = f"after block {len(self._states) - 1}" if self._states else "at the embeddings"
            raise FloatingPointError(f"the hidden states {where} are not finite")
        self._states.append(state)

    def wants_attention(self) -> bool:
        """Of each block the first call: self-attention where cross-attention follows."""
        return self._inside and len(self._states) - 1 not in self._attention

    def see_attention(self, calls: Iterator[SeenAttention]) -> None:
        heads = [seen.weights.float().cpu().numpy() for seen in calls if seen.text == 0]
        if heads and heads[0].shape[-1] == heads[0].shape[-2]:
            self._attention[len(self._states) - 1] = np.concatenate(heads)

    def recording(self, texts: int, names: Sequence[str] | None) -> Recording:
        last = len(self._states) - 1
        places = evenly(last, _MOST_LAYERS).tolist()
        tokens = np.stack([self._states[k] for k in places])
        complete = all(k in self._attention for k in places if k < last)
        attention = [self._attention[k] for k in places if k < last] if complete else []
        if names is not None:
            names = list(names)[: tokens.shape[1]] if len(names) >= tokens.shape[1] else None
        return Recording([k - 1 for k in places], tokens, attention, self._eps, texts, names)
