"""Hooks that measure hidden states as a model computes them, and keep numbers only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from dynsim.models.architecture import Stack, find_stacks, is_attention, is_mlp, is_norm
from dynsim.models.attention import AttentionCalls, head_statistics
from dynsim.models.profile import Profile
from dynsim.models.states import measure_state

__all__ = ["POINTS", "trace"]

#: Where hidden states may be measured.
POINTS = {
    "embeddings": "input of the first block",
    "layers_output": "residual stream after a block, before any final norm",
    "attentions_output": "output of attention, before the residual is added",
    "mlps_output": "output of the MLP, before the residual is added",
    "final_norm": "output of the norm after the last block",
}
DEFAULT_POINTS = ("embeddings", "layers_output", "final_norm")


class Tracer:
    """What hooks saw so far: rows of measures by point, layer and text."""

    def __init__(self, stacks: list[Stack], points: tuple[str, ...], heads: bool) -> None:
        self.stacks, self.points, self.heads = stacks, points, heads
        self.rows: dict[tuple[str, str, int, int], dict[str, float]] = {}
        self.head_rows: dict[tuple[str, int, int], dict[str, np.ndarray]] = {}
        self.norm_rows: dict[tuple[str, int, int], dict[str, float]] = {}
        self.sources: dict[str, str] = {}
        self.valid: dict[str, np.ndarray] = {}
        self.texts = 0
        self.eps = float(np.finfo(np.float32).eps)
        self._begin()

    def _begin(self) -> None:
        self._calls = dict.fromkeys((stack.name for stack in self.stacks), 0)
        self._norm_calls: dict[str, int] = {}
        self._inside: list[tuple[str, int]] = []
        self._mass: dict[tuple[str, int, int], np.ndarray] = {}
        self._seen_heads: set[tuple[str, int]] = set()
        self._done: set[str] = set()

    # --- one batch ------------------------------------------------------------------------------

    def begin_batch(self, kwargs: dict[str, Any]) -> None:
        self._begin()
        self.valid = {}
        for stack in self.stacks:
            name = "decoder_attention_mask" if "decoder" in stack.name else "attention_mask"
            mask = kwargs.get(name)
            if isinstance(mask, torch.Tensor) and mask.ndim == 2:
                self.valid[stack.name] = mask.detach().cpu().numpy().astype(bool)

    def end_batch(self) -> None:
        """The next batch goes on where the texts of this one end."""
        of_batch = {text for *_, text in self.rows if text >= self.texts}
        self.texts += len(of_batch)

    # --- hooks ----------------------------------------------------------------------------------

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """Register all hooks; yields their handles."""
        inside = {id(m) for stack in self.stacks for b in stack.blocks for m in b.modules()}
        for stack in self.stacks:
            for block in dict.fromkeys(stack.blocks):
                yield block.register_forward_pre_hook(self._enter(stack), with_kwargs=True)
                yield block.register_forward_hook(self._leave(stack), always_call=False)
                yield from self._inner_hooks(stack, block)
        for name, module in model.named_modules():
            if is_norm(module) and id(module) not in inside:
                yield module.register_forward_hook(self._outer_norm(name))

    def _inner_hooks(self, stack: Stack, block: nn.Module) -> Iterator[Any]:
        taken: list[str] = []
        for name, module in block.named_modules():
            last = name.rsplit(".", 1)[-1]
            if is_norm(module):
                yield module.register_forward_hook(self._norm(stack, name))
            elif not any(name.startswith(f"{other}.") for other in taken):
                for point, fits in (("attentions_output", is_attention), ("mlps_output", is_mlp)):
                    if name and point in self.points and fits(last, module):
                        taken.append(name)
                        yield module.register_forward_hook(self._sublayer(stack, point, name))

    def _enter(self, stack: Stack) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            k = self._calls[stack.name]
            self._inside.append((stack.name, k))
            if k == 0:
                self._measure(stack.name, "embeddings", 0, _first(args, kwargs), "input of block 0")

        return hook

    def _leave(self, stack: Stack) -> Any:
        def hook(module: nn.Module, args: tuple, out: Any) -> None:
            k = self._calls[stack.name]
            self._inside.pop()
            self._calls[stack.name] = k + 1
            self._measure(stack.name, "layers_output", k, _tensor(out), f"{stack.name}.{k}")

        return hook

    def _sublayer(self, stack: Stack, point: str, name: str) -> Any:
        def hook(module: nn.Module, args: tuple, out: Any) -> None:
            k = self._calls[stack.name]
            if (stack.name, point, k, self.texts) not in self.rows:  # of two attentions the first
                self._measure(stack.name, point, k, _tensor(out), f"{stack.name}.{k}.{name}")

        return hook

    def _norm(self, stack: Stack, name: str) -> Any:
        def hook(module: nn.Module, args: tuple, out: Any) -> None:
            if args:
                self._measure_norm(stack.name, f"{stack.name}.{self._calls[stack.name]}.{name}",
                                   args[0], _tensor(out))  # fmt: skip

        return hook

    def _outer_norm(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple, out: Any) -> None:
            stack = self._stack_of(name)
            if args:
                self._measure_norm(stack, name, args[0], _tensor(out))
            if self._calls[stack] > 0 and not self._inside:
                self._measure(stack, "final_norm", 0, _tensor(out), name)

        return hook

    def _stack_of(self, name: str) -> str:
        """The stack that shares the longest beginning of its name with a module."""
        def shared(stack: Stack) -> int:
            pairs = zip(name.split("."), stack.name.split("."), strict=False)
            same = [a == b for a, b in pairs]
            return same.index(False) if False in same else len(same)

        return max(self.stacks, key=shared).name

    # --- measuring ------------------------------------------------------------------------------

    def _texts_of(self, stack: str, x: torch.Tensor) -> Iterator[tuple[int, np.ndarray]]:
        """The valid tokens of every text, float64."""
        if x.ndim == 2:
            x = x[None]
        valid = self.valid.get(stack)
        for text in range(len(x)):
            rows = x[text].detach().to(torch.float64).cpu().numpy()
            if valid is not None and valid.shape == tuple(x.shape[:2]):
                rows = rows[valid[text]]
            yield text, rows

    def _measure(self, stack: str, point: str, layer: int, x: Any, source: str) -> None:
        if point not in self.points or not isinstance(x, torch.Tensor) or x.ndim not in (2, 3):
            return
        self.sources.setdefault(f"{stack}: {point}", source)
        self.eps = float(torch.finfo(x.dtype).eps)
        for text, rows in self._texts_of(stack, x):
            mass = self._mass.get((stack, layer, text)) if point == "layers_output" else None
            key = (stack, point, layer, self.texts + text)
            self.rows[key] = measure_state(rows, self.eps, mass)

    def _measure_norm(self, stack: str, name: str, before: Any, after: Any) -> None:
        if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
            return
        if before.shape != after.shape or before.ndim not in (2, 3):
            return
        pairs = zip(self._texts_of(stack, before), self._texts_of(stack, after), strict=True)
        for (text, x), (_, y) in pairs:
            self.norm_rows[(stack, name, self.texts + text)] = _norm_measures(x, y)

    def wants_attention(self) -> bool:
        return self.heads and bool(self._inside) and self._inside[-1] not in self._seen_heads

    def see_attention(self, text: int, weights: torch.Tensor) -> None:
        stack, layer = self._inside[-1]
        A = weights.to(torch.float64).cpu().numpy()
        valid = self.valid.get(stack)
        if A.shape[-1] != A.shape[-2]:
            return
        if valid is not None and valid.shape[-1] == A.shape[-1]:
            A = A[:, valid[text]][:, :, valid[text]]
        found, mass = head_statistics(A)
        self.head_rows[(stack, layer, self.texts + text)] = found
        self._mass[(stack, layer, text)] = mass

    def saw_attention(self) -> None:
        self._seen_heads.add(self._inside[-1])


def _first(args: tuple, kwargs: dict) -> Any:
    return args[0] if args else kwargs.get("hidden_states")


def _tensor(out: Any) -> Any:
    """The hidden states that a module returns, alone (transformers 5) or first of a tuple."""
    return out[0] if isinstance(out, (tuple, list)) and out else out


#: What a norm does to the tokens of a text, by name; means over its tokens.
NORMS = {
    "norm_before": "median norm of a token before",
    "norm_after": "median norm of a token after",
    "rotation": "angle between a token before and after (degrees)",
    "angle_before": "angle to the vector of ones before (degrees)",
    "angle_after": "angle to the vector of ones after (degrees)",
}


def _norm_measures(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    ones = np.ones_like(x)
    return {
        "norm_before": float(np.median(np.linalg.norm(x, axis=-1))),
        "norm_after": float(np.median(np.linalg.norm(y, axis=-1))),
        "rotation": _angle(x, y),
        "angle_before": _angle(x, ones),
        "angle_after": _angle(y, ones),
    }


def _angle(x: np.ndarray, y: np.ndarray) -> float:
    sizes = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    cosine = np.divide(np.sum(x * y, axis=-1), sizes, out=np.zeros(len(x)), where=sizes > 0)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())


class Trace:
    """What `trace` yields: call the model under it, then read `profile`."""

    def __init__(self, tracer: Tracer, name: str) -> None:
        self._tracer, self._name = tracer, name

    @property
    def profile(self) -> Profile:
        """All that was measured so far."""
        tracer = self._tracer
        if not tracer.rows:
            raise ValueError("nothing was measured yet; call the model inside `with trace(model)`")
        return Profile.of_rows(
            tracer.rows, tracer.head_rows, tracer.norm_rows,
            {"model": self._name, "eps": tracer.eps, "sources": tracer.sources},
        )  # fmt: skip


@contextmanager
def trace(
    model: nn.Module,
    *,
    points: tuple[str, ...] = DEFAULT_POINTS,
    heads: bool = True,
    blocks: str | None = None,
) -> Iterator[Trace]:
    """Measure the hidden states of a torch model while code that already runs calls it.

    Parameters
    ----------
    model : torch.nn.Module
        Any model with a list of blocks; its outputs do not change by a bit.
    points : names of POINTS
        Where hidden states are measured.
    heads : bool
        Statistics of every attention head as well, and sink tokens found by attention.
    blocks : str, optional
        Name of the list of blocks, where it is not found.

    Raises
    ------
    ValueError
        For a model without blocks, unknown points, or a compiled model, whose hooks are not called.

    Examples
    --------
    >>> with trace(model) as t:  # doctest: +SKIP
    ...     model(**inputs)
    >>> print(t.profile)  # doctest: +SKIP
    """
    unknown = [point for point in points if point not in POINTS]
    if unknown:
        raise ValueError(f"unknown point {unknown[0]!r}; known are {', '.join(POINTS)}")
    if hasattr(model, "_orig_mod"):
        raise ValueError(
            "the model is compiled, and hooks are not called in it; give model._orig_mod"
        )
    tracer = Tracer(find_stacks(model, blocks), tuple(points), heads)
    with ExitStack() as stack:
        begin = model.register_forward_pre_hook(
            lambda module, args, kwargs: tracer.begin_batch(kwargs), with_kwargs=True
        )
        handles = [begin, *tracer.hooks(model)]
        handles.append(model.register_forward_hook(lambda module, args, out: tracer.end_batch()))
        for handle in handles:
            stack.callback(handle.remove)
        fast = torch.backends.mha.get_fastpath_enabled()  # it skips hooks
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.enter_context(AttentionCalls(tracer))
        yield Trace(tracer, type(model).__name__)
