"""Hooks that measure hidden states as a model computes them, and keep numbers only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import nn

from dynsim._memory import give_back_memory
from dynsim._threads import blas_alone
from dynsim._values import real_number, unknown
from dynsim.geometry.selectability import selectable
from dynsim.models.architecture import (
    Stack,
    find_stacks,
    is_norm,
    state_given,
    state_returned,
    sublayer,
    without_fast_path,
)
from dynsim.models.attention import AttentionCalls, SeenAttention, second_eigenvalue, statistics
from dynsim.models.profile import Profile, Rows
from dynsim.models.rotations import norm_statistics
from dynsim.models.states import measure_state

__all__ = [
    "DEFAULT_MEASURED",
    "DEFAULT_POINTS",
    "MEASURED",
    "POINTS",
    "Trace",
    "check_model",
    "trace",
]

#: Where hidden states may be measured, besides at modules named by a pattern.
POINTS = {
    "embeddings": "input of the first block",
    "layers_output": "residual stream after a block, before any final norm",
    "attentions_input": "input of attention",
    "attentions_output": "output of attention, before the residual is added",
    "mlps_output": "output of the MLP, before the residual is added",
    "final_norm": "output of the norm after the last block",
}
#: What may be measured besides hidden states, and what it costs.
MEASURED = {
    "norms": "lengths and angles of tokens before and after each norm (little)",
    "heads": "entropy, attention to the first token, row mass, symmetry of each head; sink tokens "
    "by attention (about that of attention)",
    "graph": "lambda_2 of each head's attention graph (10 ms a head of 128 tokens, growing as N^3)",
    "keys": "share of unselectable keys of each head (5 ms a head of 128 tokens)",
}
DEFAULT_POINTS = ("embeddings", "layers_output", "final_norm")
DEFAULT_MEASURED = ("norms", "heads")


class _Tracer:
    """What hooks saw so far."""

    def __init__(
        self,
        stacks: list[Stack],
        points: Sequence[str],
        measured: Sequence[str],
        threshold: float,
    ) -> None:
        self._stacks, self._points, self._measured = stacks, tuple(points), tuple(measured)
        self._threshold = threshold
        self.rows = Rows()
        self.facts: dict[str, Any] = {}
        self._sources: dict[str, str] = {}
        self._samples = 0
        self._called = self._active = False

    # --- one call of the model ------------------------------------------------------------------

    def begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._called = self._active = True
        self._calls = dict.fromkeys((stack.name for stack in self._stacks), 0)
        self._module_calls: dict[str, int] = {}
        self._inside: list[tuple[str, int]] = []
        self._received: dict[tuple[str, int, int], np.ndarray] = {}
        self._attended: set[tuple[str, int]] = set()
        self._measured_samples = 0
        self._valid: dict[str, np.ndarray] = {}
        self.facts["mode"] = "train" if module.training else "eval"
        names = [stack.name for stack in self._stacks] or [""]
        for name in names:
            argument = "decoder_attention_mask" if "decoder" in name else "attention_mask"
            mask = kwargs.get(argument)
            if isinstance(mask, torch.Tensor) and mask.ndim == 2 and not bool(mask.bool().all()):
                self._valid[name] = mask.detach().cpu().numpy().astype(bool)

    def end(self, module: nn.Module, args: tuple, out: Any) -> None:
        """The next call goes on where the samples of this one end."""
        self._samples += self._measured_samples
        self._active = False

    def profile(self, name: str) -> Profile:
        if not self.rows.states:
            raise ValueError(
                f"no hidden state was measured: the model has none at {', '.join(self._points)}; "
                "name a point that it has, such as layers_output"
                if self._called
                else "nothing was measured; call the very model that was given to trace, inside "
                "its with"
            )
        facts = {"model": name, **self.facts, "sources": self._sources}
        if "heads" in self._measured and not self.rows.heads:
            facts["heads"] = "no call of attention was seen; load with attn_implementation='sdpa'"
        return Profile.of_rows(self.rows, facts)

    # --- hooks ----------------------------------------------------------------------------------

    def hooks(self, model: nn.Module) -> Iterator[Any]:
        """Register all hooks; yields their handles."""
        yield model.register_forward_pre_hook(self.begin, with_kwargs=True)
        inside: set[int] = set()
        self._names = {id(module): name for name, module in model.named_modules()}
        for stack in self._stacks:
            for block in dict.fromkeys(stack.blocks):
                inside.update(map(id, block.modules()))
                yield block.register_forward_pre_hook(self._enter(stack.name), with_kwargs=True)
                yield from self._sublayers(block)
                yield from self._modules(block)
                yield block.register_forward_hook(self._leave(stack.name))
        for name, module in model.named_modules():
            if id(module) not in inside:
                yield from self._outside(name, module)
        yield model.register_forward_hook(self.end)

    def _enter(self, stack: str) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if self._active:
                self._inside.append((stack, self._calls[stack]))
                if self._calls[stack] == 0:
                    self._state("embeddings", state_given(args, kwargs), "input of {block}")

        return hook

    def _leave(self, stack: str) -> Callable:
        def hook(module: nn.Module, args: tuple, out: Any) -> None:
            if self._active:
                self._state("layers_output", state_returned(out), "output of {block}")
                self._inside.pop()
                self._calls[stack] += 1
                give_back_memory()

        return hook

    def _sublayers(self, block: nn.Module) -> Iterator[Any]:
        """Input and output of attention, output of the MLP."""
        for kind, points in (("attention", "attentions"), ("mlp", "mlps")):
            names = sublayer(block, kind)
            if names is None:
                continue
            whole, last = names

            def before(
                _: Any,
                args: tuple,
                kwargs: dict,
                name: str = whole,
                point: str = f"{points}_input",
            ) -> None:
                self._state(point, state_given(args, kwargs), f"input of {{block}}.{name}")

            def after(
                _: Any, args: tuple, out: Any, name: str = last, point: str = f"{points}_output"
            ) -> None:
                self._state(point, state_returned(out), f"{{block}}.{name}")

            if f"{points}_input" in self._points:
                yield block.get_submodule(whole).register_forward_pre_hook(before, with_kwargs=True)
            if f"{points}_output" in self._points:
                yield block.get_submodule(last).register_forward_hook(after)

    def _modules(self, block: nn.Module) -> Iterator[Any]:
        """Norms of a block, and what a pattern names in it."""
        for name, module in block.named_modules():
            if not name:
                continue
            if "norms" in self._measured and is_norm(module):
                yield module.register_forward_hook(self._norm(name))
            if self._is_named(self._names[id(module)]):

                def hook(_: Any, args: tuple, out: Any, name: str = name) -> None:
                    self._state(name, state_returned(out), f"{{block}}.{name}")

                yield module.register_forward_hook(hook)

    def _outside(self, name: str, module: nn.Module) -> Iterator[Any]:
        """Norms outside of blocks, and what a pattern names there."""
        if is_norm(module):

            def final(_: Any, args: tuple, out: Any) -> None:
                stack = self._stack_of(name)
                if self._active and not self._inside and self._calls.get(stack):
                    self._state("final_norm", state_returned(out), name, (stack, 0))

            yield module.register_forward_hook(final)
            if "norms" in self._measured:
                yield module.register_forward_hook(self._norm(name))
        if name and self._is_named(name):

            def hook(_: Any, args: tuple, out: Any) -> None:
                if self._active:
                    layer = self._module_calls[name] = self._module_calls.get(name, -1) + 1
                    self._state(name, state_returned(out), name, (self._stack_of(name), layer))

            yield module.register_forward_hook(hook)

    def _is_named(self, name: str) -> bool:
        return any(p not in POINTS and fnmatchcase(name, p) for p in self._points)

    def _stack_of(self, name: str) -> str:
        """The stack that shares the longest beginning of its name with a module."""

        def shared(stack: Stack) -> int:
            pairs = list(zip(name.split("."), stack.name.split("."), strict=False))
            return next((k for k, (a, b) in enumerate(pairs) if a != b), len(pairs))

        return max(self._stacks, key=shared).name if self._stacks else ""

    # --- measuring ------------------------------------------------------------------------------

    def _valid_rows(self, stack: str, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """The valid tokens of every sample, (N, d)."""
        valid = self._valid.get(stack)
        for sample, tokens in enumerate(x.detach()):
            if valid is not None and valid.shape == tuple(x.shape[:2]):
                tokens = tokens[torch.from_numpy(valid[sample]).to(x.device)]
            yield tokens

    def _state(self, point: str, x: Any, source: str, place: tuple[str, int] | None = None) -> None:
        """Measure the states of one point; those of the current block unless `place` says another.

        Of two calls in a block (self and cross attention) the first counts.
        """
        if not self._active or (point in POINTS and point not in self._points):
            return
        if place is None and not self._inside:
            return
        stack, layer = place or self._inside[-1]
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.ndim not in (2, 3):
            if point in ("embeddings", "layers_output"):
                _refuse_state(f"{stack}: {point}", x)
            return
        x = x[None] if x.ndim == 2 else x
        if (stack, point, layer, self._samples) in self.rows.states:
            return
        where = source.format(block=f"{stack}.{layer}")
        self._sources.setdefault(f"{stack}: {point}" if stack else point, where)
        self.facts["dtype"] = str(x.dtype).removeprefix("torch.")
        eps = float(torch.finfo(x.dtype).eps)
        for sample, tokens in enumerate(self._valid_rows(stack, x)):
            if len(tokens) < 2:
                raise ValueError(
                    f"{point}: a text of {len(tokens)} token has nothing to collapse; give texts "
                    f"of at least 2 tokens (in generation, trace the pass over the prompt alone)"
                )
            received = self._received.get((stack, layer, sample))
            try:
                states = tokens.double().cpu().numpy()
                row = measure_state(states, eps, received if point == "layers_output" else None)
            except FloatingPointError as error:
                raise FloatingPointError(
                    f"{point} of layer {layer}, sample {self._samples + sample}: {error}"
                ) from None
            self.rows.states[stack, point, layer, self._samples + sample] = row
            self._measured_samples = max(self._measured_samples, sample + 1)

    def _norm(self, name: str) -> Callable:
        def hook(module: nn.Module, args: tuple, out: Any) -> None:
            if not self._active or not args or not _is_state(args[0]) or not _is_state(out):
                return
            if args[0].shape != out.shape:
                return
            stack, layer = self._inside[-1] if self._inside else (self._stack_of(name), None)
            whole = name if layer is None else f"{stack}.{layer}.{name}"
            pairs = zip(self._valid_rows(stack, args[0]), self._valid_rows(stack, out), strict=True)
            for sample, (before, after) in enumerate(pairs):
                self.rows.norms[whole, self._samples + sample] = norm_statistics(before, after)

        return hook

    def wants_attention(self) -> bool:
        """Whether the call of attention that was just carried out is the first of its block."""
        asked = {"heads", "graph", "keys"} & set(self._measured)
        return (
            bool(asked)
            and self._active
            and bool(self._inside)
            and (self._inside[-1] not in self._attended)
        )

    def see_attention(self, calls: Iterator[SeenAttention]) -> None:
        stack, layer = self._inside[-1]
        self._attended.add((stack, layer))
        valid = self._valid.get(stack)
        parts: dict[int, list[dict[str, np.ndarray]]] = {}
        received: dict[int, list[np.ndarray]] = {}
        for seen in calls:
            A, keys = seen.weights, seen.keys
            if A.shape[-1] != A.shape[-2]:
                return
            if valid is not None and valid.shape[-1] == A.shape[-1]:
                there = torch.from_numpy(valid[seen.text]).to(A.device)
                A = A[:, there][:, :, there]
                keys = None if keys is None else keys[:, there]
            parts.setdefault(seen.text, []).append(self._of_heads(A, keys))
            received.setdefault(seen.text, []).append(_received(A))
        for text, rows in parts.items():
            self.rows.heads[stack, layer, self._samples + text] = {
                name: np.concatenate([row[name] for row in rows]) for name in rows[0]
            }
            self._received[stack, layer, text] = np.concatenate(received[text]).mean(axis=0)
        give_back_memory()

    def _of_heads(self, A: torch.Tensor, keys: torch.Tensor | None) -> dict[str, np.ndarray]:
        row = {name: value.double().cpu().numpy() for name, value in statistics(A).items()}
        if "graph" in self._measured:
            row["lambda_2"] = second_eigenvalue(A, self._threshold).numpy()
        if "keys" in self._measured and keys is not None:
            row["unselectable"] = _unselectable(keys.cpu().numpy())
        return row


def _unselectable(keys: np.ndarray) -> np.ndarray:
    """Share of unselectable keys of each head, keys (H, N, p) -> (H,): those that a group of heads
    has in common are decided once."""
    names = [head.tobytes() for head in keys]
    groups = dict(zip(names, keys, strict=True))
    shares = 1.0 - selectable(np.stack(list(groups.values()))).mean(axis=-1)
    of_group = dict(zip(groups, shares, strict=True))
    return np.array([of_group[name] for name in names])


def _received(A: torch.Tensor) -> np.ndarray:
    """Attention that each token receives from the others, mean over them, (H, N): a token is no
    sink for attending to itself, as the first of a causal text must."""
    others = max(1, A.shape[-1] - 1)
    received = A.sum(dim=-2) - A.diagonal(dim1=-2, dim2=-1)
    return (received / others).double().cpu().numpy()


def _is_state(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim == 3


def _refuse_state(what: str, x: Any) -> None:
    shape = f"a tensor {tuple(x.shape)} of {x.dtype}" if isinstance(x, torch.Tensor) else type(x)
    raise ValueError(
        f"{what}: hidden states are floating-point tensors (samples, tokens, d); got {shape}; name "
        f"the modules whose output to measure by points=['PATTERN']"
    )


class Trace:
    """What `trace` yields: call the model under it, then read `profile`."""

    def __init__(self, tracer: _Tracer, name: str) -> None:
        self._tracer, self._name = tracer, name

    @property
    def profile(self) -> Profile:
        """All that was measured so far."""
        return self._tracer.profile(self._name)


@contextmanager
def trace(
    model: nn.Module,
    *,
    points: Sequence[str] = DEFAULT_POINTS,
    measured: Sequence[str] = DEFAULT_MEASURED,
    blocks: str | None = None,
    threshold: float = 0.1,
) -> Iterator[Trace]:
    """Measure the hidden states of a torch model while code that already runs calls it.

    The model's outputs do not change by a bit. Of a call no activation is kept; of every point,
    layer and sample some thirty numbers are. The samples of several calls are numbered on. A model
    in training is measured as well, with its dropout; gradients are left alone.

    Parameters
    ----------
    model : torch.nn.Module
        The very module that is called. Any with a list of blocks that hold attention, or with
        points named by patterns.
    points : names of POINTS, or patterns of the names of modules ("*.mlp.act")
        Where hidden states are measured.
    measured : names of MEASURED
        What else is.
    blocks : str, optional
        Name of the list of blocks, where it is not found.
    threshold : float
        Of the attention graph: i attends to j where A_ij is at least so much of the largest of its
        row.

    Raises
    ------
    ValueError
        For a model without blocks, unknown points, a compiled model, whose hooks are not called, a
        text of one token, or blocks that pass on something other than (samples, tokens, d).
    FloatingPointError
        For hidden states that are not finite; with point, layer and sample.

    Examples
    --------
    >>> with trace(model) as t:  # doctest: +SKIP
    ...     model(**inputs)
    >>> print(t.profile)  # doctest: +SKIP
    """
    stacks = check_model(model, points, measured, blocks)
    if not 0 < real_number("the threshold", threshold) <= 1:
        raise ValueError(f"the threshold is above 0 and at most 1; got {threshold}")
    tracer = _Tracer(stacks, points, measured, threshold)
    with ExitStack() as cleanup:
        for handle in tracer.hooks(model):
            cleanup.callback(handle.remove)
        cleanup.enter_context(without_fast_path())
        cleanup.enter_context(blas_alone())
        cleanup.enter_context(AttentionCalls(tracer.wants_attention, tracer.see_attention))
        yield Trace(tracer, type(model).__name__)


def check_model(
    model: Any, points: Sequence[str], measured: Sequence[str], blocks: str | None
) -> list[Stack]:
    """The stacks of a model that can be traced so. Raises ValueError for one that cannot."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"a model is a torch.nn.Module; got {type(model).__name__}")
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
            raise ValueError(
                f"{name or 'the model'} is compiled, and hooks are not called in it; give the "
                f"model as it was before torch.compile (model._orig_mod)"
            )
    if not points:
        raise ValueError("there is no point to measure at; name one, such as layers_output")
    for what in measured:
        if what not in MEASURED:
            raise ValueError(unknown("what to measure", what, MEASURED))
    names = [name for name, _ in model.named_modules()]
    patterns = [point for point in points if point not in POINTS]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"{unknown('point', pattern, POINTS)}; and no module's name matches it"
            )
    try:
        return find_stacks(model, blocks)
    except ValueError:
        if patterns and len(patterns) == len(points):
            return []
        raise
