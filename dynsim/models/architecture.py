"""Where a model keeps its blocks, norms, attention and MLPs, found by what the modules are.

A stack is an outermost list of modules of which each holds attention: `encoder.layer` of BERT, `h` of
GPT-2, `layers` of Llama, `encoder.block` and `decoder.block` of T5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

__all__ = ["Stack", "find_stacks", "is_attention", "is_mlp", "is_norm"]


@dataclass(frozen=True)
class Stack:
    """Blocks of a model, in the order of their names."""

    name: str
    blocks: tuple[nn.Module, ...]


def is_attention(name: str, module: nn.Module) -> bool:
    """True for the module that holds a whole attention sublayer."""
    return "attention" in type(module).__name__.lower() or name in ("attn", "self_attn", "attention")


def is_mlp(name: str, module: nn.Module) -> bool:
    """True for a module that is an MLP by its name or its class."""
    kind = type(module).__name__
    return bool(re.search(r"MLP|FeedForward|LayerFF", kind)) or name in ("mlp", "feed_forward", "ff")


def is_norm(module: nn.Module) -> bool:
    """True for LayerNorm, RMSNorm and what calls itself a norm."""
    return "norm" in type(module).__name__.lower()


def find_stacks(model: nn.Module, blocks: str | None = None) -> list[Stack]:
    """The stacks of a model, outermost lists whose every member holds attention.

    blocks : name of the list of blocks, for a model in which none is found.

    Raises ValueError when there is none, or `blocks` is not a list of modules.
    """
    if blocks is not None:
        chosen = dict(model.named_modules()).get(blocks)
        if not isinstance(chosen, (nn.ModuleList, nn.Sequential)) or not len(chosen):
            lists = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList)]
            raise ValueError(
                f"blocks names a list of modules; got {blocks!r}; lists here are "
                f"{', '.join(lists) or 'none'}"
            )
        return [Stack(blocks, tuple(chosen))]
    stacks: list[Stack] = []
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{stack.name}.") for stack in stacks)
        if inside or not isinstance(module, (nn.ModuleList, nn.Sequential)) or not len(module):
            continue
        if all(_holds_attention(block) for block in module):
            stacks.append(Stack(name, tuple(module)))
    if not stacks:
        raise ValueError(
            f"{type(model).__name__} has no list of modules that all hold attention; name the list of "
            f"its blocks by blocks='...'"
        )
    return stacks


def _holds_attention(block: nn.Module) -> bool:
    return any(is_attention(name.rsplit(".", 1)[-1], m) for name, m in block.named_modules())
