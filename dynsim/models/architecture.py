"""Where a model keeps its blocks, norms, attention and MLPs, found by what the modules are, and
the hidden states that they are given and return.

A stack is an outermost list of blocks that hold attention: `encoder.layer` of BERT, `h` of GPT-2,
`layers` of Llama, `encoder.block` and `decoder.block` of T5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = [
    "Stack",
    "find_stacks",
    "is_attention",
    "is_mlp",
    "is_norm",
    "last_linear",
    "state_given",
    "state_returned",
    "sublayer",
    "without_fast_path",
]


@dataclass(frozen=True)
class Stack:
    """Blocks of a model, in the order of their names."""

    name: str
    blocks: tuple[nn.Module, ...]


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Layers of torch module by module, as hooks want them, not in one call."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def state_given(args: tuple, kwargs: dict) -> Any:
    """The hidden states that a module is given."""
    return args[0] if args else kwargs.get("hidden_states", kwargs.get("query"))


def state_returned(out: Any) -> Any:
    """The hidden states that a module returns, alone (transformers 5) or first of a tuple."""
    return out[0] if isinstance(out, (tuple, list)) and out else out


def is_attention(name: str, module: nn.Module) -> bool:
    """True for a module that holds a whole attention sublayer; `name` ends its full name."""
    kind = type(module).__name__.lower()
    return "attention" in kind or name in ("attn", "self_attn", "attention")


def is_mlp(name: str, module: nn.Module) -> bool:
    """True for a module that is an MLP; `name` ends its full name."""
    kind = type(module).__name__
    named = name in ("mlp", "feed_forward", "ff")
    return named or bool(re.search(r"MLP|FeedForward|FFN|LayerFF|SparseMoe", kind))


def _ends_mlp(name: str, module: nn.Module) -> bool:
    """True for an MLP, or the last part of one that is no module by itself: those of BERT, ALBERT,
    torch's own and OPT."""
    return is_mlp(name, module) or name in ("output", "ffn_output", "linear2", "fc2")


def is_norm(module: nn.Module) -> bool:
    """True for LayerNorm, RMSNorm and what calls itself a norm."""
    return "norm" in type(module).__name__.lower()


def last_linear(module: nn.Module) -> nn.Module | None:
    """The last linear map of a module in the order of its parts (itself if it is one)."""
    maps = [m for m in module.modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    return maps[-1] if maps else None


def sublayer(block: nn.Module, kind: str) -> tuple[str, str] | None:
    """Names of the first outermost module of attention or of an MLP in a block, and of the module
    whose output is the sublayer's before the residual is added.

    kind : "attention" or "mlp"

    They are the same but where the first adds the residual itself (it holds a norm, as in BERT,
    ALBERT and T5): then the second is its last linear map. None when there is none.
    """
    fits = is_attention if kind == "attention" else _ends_mlp
    attention: list[str] = []
    for name, module in block.named_modules():
        if not name or any(name.startswith(f"{other}.") for other in attention):
            continue
        last = name.rsplit(".", 1)[-1]
        if is_attention(last, module):
            attention.append(name)
        if not fits(last, module) or (kind == "mlp" and name in attention):
            continue
        adds_residual = any(is_norm(part) for part in module.modules()) or last == "output"
        if not adds_residual:
            return name, name
        linear = last_linear(module)
        if linear is not None:
            return name, next(n for n, m in block.named_modules() if m is linear)
    return None


def find_stacks(model: nn.Module, blocks: str | None = None) -> list[Stack]:
    """The stacks of a model: outermost lists of blocks that hold attention.

    All blocks of a list do, or some of them and all are of one class (hybrids).

    blocks : name of the list of blocks, for a model in which none is found.

    Raises ValueError when there is none, or `blocks` is not a list of modules.
    """
    if blocks is not None:
        return [_named_stack(model, blocks)]
    stacks: list[Stack] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{stack.name}.") for stack in stacks)
        if not inside and _is_list(module) and _is_stack(list(module.children())):
            stacks.append(Stack(name, tuple(module.children())))
    if not stacks:
        raise ValueError(
            f"{type(model).__name__} has no list of blocks that hold attention; name it by "
            f"blocks='...' (lists here: {_lists(model)})"
        )
    return stacks


def _named_stack(model: nn.Module, blocks: str) -> Stack:
    chosen = dict(model.named_modules()).get(blocks)
    if chosen is None or not _is_list(chosen):
        raise ValueError(
            f"blocks names a list of modules; got {blocks!r}; lists here: {_lists(model)}"
        )
    return Stack(blocks, tuple(chosen.children()))


def _lists(model: nn.Module) -> str:
    return ", ".join(n for n, m in model.named_modules() if _is_list(m) and n) or "none"


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 0


def _is_stack(blocks: list[nn.Module]) -> bool:
    attending = [_holds_attention(block) for block in blocks]
    return all(attending) or (any(attending) and len({type(block) for block in blocks}) == 1)


def _holds_attention(block: nn.Module) -> bool:
    return any(is_attention(name.rsplit(".", 1)[-1], m) for name, m in block.named_modules())
