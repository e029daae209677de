"""Hooks and a torch function mode that compute a model with a `Change`.

Attention is changed where a self-attention module calls `scaled_dot_product_attention`, a softmax
of scores (texts, heads, queries, keys) or `multi_head_attention_forward`. The residual stream of a
block is followed from its input through additions and norms to its output: an addition to it ends a
sublayer, and there a skip connection or a whole MLP is left out, without any rounding.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from dynsim.models.architecture import (
    find_stacks,
    is_attention,
    is_mlp,
    is_norm,
    state_returned,
    without_fast_path,
)

if TYPE_CHECKING:
    from dynsim.models.change import Change

__all__ = ["intervene"]

_SOFTMAX = {F.softmax, torch.softmax, torch.Tensor.softmax}
_PRODUCTS = {torch.matmul, torch.Tensor.matmul}
_SUMS = {torch.add, torch.Tensor.add}
#: Names of modules of cross-attention, and of norms of queries and keys.
_CROSS = re.compile(r"cross|encdec|encoder_attn", re.IGNORECASE)
_OF_HEADS = re.compile(r"(^|\.)(q|k|query|key)_?(layer)?norm", re.IGNORECASE)
_MASKS = ("attention_mask", "attn_mask", "mask")


@contextmanager
def intervene(change: Change, model: nn.Module, blocks: str | None) -> Iterator[None]:
    """See `Change.applied`."""
    _check_model(model)
    intervention = _Intervention(change, model, blocks)
    with ExitStack() as stack:
        for handle in intervention.hooks():
            stack.callback(handle.remove)
        stack.enter_context(without_fast_path())
        stack.enter_context(intervention)
        yield
    if not intervention.ran:
        raise ValueError(
            f"nothing was changed: no block of {type(model).__name__} was called; call the model "
            f"inside the context"
        )


def _check_model(model: nn.Module) -> None:
    name = type(model).__name__
    if any(hasattr(m, "_orig_mod") or m._compiled_call_impl for m in model.modules()):
        raise ValueError(f"{name} is compiled, and hooks are not called in it; give it as it was")
    kind = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if kind not in (None, "eager", "sdpa"):
        raise ValueError(
            f"attention of {name} is computed by {kind!r}, which cannot be changed; load it with "
            f"attn_implementation='sdpa' or 'eager'"
        )
    if model.training and any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
        raise ValueError(
            f"{name} computes blocks again in the backward pass, where they are not changed; "
            f"switch gradient checkpointing off"
        )


@dataclass
class _Run:
    """One call of a block."""

    block: str
    stream: list[torch.Tensor]  # what the residual stream has been so far
    attention: str | None = None  # "self" or "cross" inside such a module
    called: bool = False  # its attention has been computed
    allowed: torch.Tensor | None = None  # (texts, 1, N, N)
    products: int = 0
    pending: str | None = None  # attention whose residual is still to be added
    omitted: torch.Tensor | None = None  # where an MLP was left out
    attentions: int = 0
    mlps: int = 0
    norms: int = 0

    def follows(self, x: Any) -> bool:
        return any(_same(x, known) for known in self.stream)


class _Intervention(TorchFunctionMode):
    def __init__(self, change: Change, model: nn.Module, blocks: str | None) -> None:
        super().__init__()
        self._change = change
        self._blocks = [
            block
            for stack in find_stacks(model, blocks)
            for b in stack.blocks
            for block in _inner(b)
        ]
        self._sublayers = bool(change.skip or change.mlp)
        self._run: _Run | None = None
        self._laid = _Laid()
        self.ran = False

    # --- hooks ----------------------------------------------------------------------------------

    def hooks(self) -> Iterator[Any]:
        """Register all hooks, before those that are there; yields their handles."""
        options: dict[str, Any] = {"prepend": True, "with_kwargs": True}
        for block in dict.fromkeys(self._blocks):
            yield block.register_forward_pre_hook(self._enter, **options)
            yield block.register_forward_hook(self._leave, always_call=True, **options)
            attentions, crosses = set(_outermost(block)), _cross_attention(block)
            for name, module in block.named_modules():
                if is_norm(module):
                    kept = name in crosses or bool(_OF_HEADS.search(name))
                    yield module.register_forward_hook(self._norm(kept), **options)
                elif module in attentions:
                    attend = self._attend(name in crosses)
                    yield module.register_forward_pre_hook(attend, **options)
                    yield module.register_forward_hook(self._attended, always_call=True, **options)
                elif name and self._sublayers and is_mlp(name.rsplit(".", 1)[-1], module):
                    yield module.register_forward_pre_hook(self._mlp, prepend=True)

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module is self._blocks[0]:
            self._laid = _Laid()  # a caller may have changed its own mask in place
        self._run = _Run(type(module).__name__, [_first(args, kwargs)])
        self.ran = True

    def _leave(self, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
        run, self._run = self._run, None
        if run is None or out is None:  # None: the block raised an error
            return
        change, x = self._change, state_returned(out)
        if (change.mask is not None or change.beta != 1.0) and not run.attentions:
            raise _refusal(
                run, "mask and beta", "no self-attention was seen",
                "scaled_dot_product_attention or a softmax of scores (texts, heads, N, N)",
            )  # fmt: skip
        if change.norm and not run.norms:
            raise _refusal(run, "norm", "no norm was called", "modules of a class named ...Norm")
        if self._sublayers and (run.pending or not run.follows(x)):
            raise _refusal(
                run, "skip and mlp", "the residual stream cannot be followed to its output",
                "a block that adds what a sublayer gives to what it received",
            )  # fmt: skip
        if change.mlp and not run.mlps:
            raise _refusal(run, "mlp", "no MLP was seen", "one whose output is added to its input")

    def _norm(self, kept: bool) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict, out: torch.Tensor) -> Any:
            run = self._run
            if run is None:
                return None
            x = _first(args, kwargs)
            off = bool(self._change.norm) and not kept
            run.norms += off
            if off or _same(x, run.omitted):
                return x.to(out.dtype)
            if run.follows(x):
                run.stream.append(out)
            return None

        return hook

    def _mlp(self, module: nn.Module, args: tuple) -> None:
        if self._run and self._run.pending:
            raise _refusal(
                self._run, "skip and mlp", "attention and the MLP run in parallel",
                "an MLP that follows attention",
            )  # fmt: skip

    def _attend(self, cross: bool) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> Any:
            run = self._run
            if run is None:
                return None
            bound = inspect.signature(module.forward).bind(*args, **kwargs)
            mha = isinstance(module, nn.MultiheadAttention)
            other = bound.arguments["key"] is not bound.arguments["query"] if mha else cross
            run.attention, run.called, run.products = "cross" if other else "self", False, 0
            if other or self._change.mask is None:
                return None
            if isinstance(module, nn.MultiheadAttention):
                self._mask_module(run, module, bound.arguments)
            else:
                self._free(run, module, bound.arguments)
            return bound.args, bound.kwargs

        return hook

    def _attended(self, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
        if self._run:
            self._run.attention = None

    # --- masks ----------------------------------------------------------------------------------

    def _free(self, run: _Run, module: nn.Module, given: dict[str, Any]) -> None:
        """Take the model's own mask away; its diagonal says which tokens are padding."""
        x = next(value for value in given.values() if isinstance(value, torch.Tensor))
        name = next((n for n in _MASKS if n in inspect.signature(module.forward).parameters), None)
        own = given.get(name) if name else None
        texts, n = x.shape[0], x.shape[-2]
        if own is None:
            valid = None
        elif own.ndim == 4 and own.shape[-1] >= n:
            _check_no_bias(run, own)
            blocked = _blocked(own[..., :n]).expand(texts, -1, n, n)  # more: of an empty cache
            valid = ~blocked.diagonal(dim1=-2, dim2=-1).all(dim=1)
        else:
            raise _refusal(
                run, "mask", f"its own has the shape {tuple(own.shape)} for {n} tokens",
                "all tokens at once (use_cache=False) and a mask (texts, heads or 1, N, N)",
            )  # fmt: skip
        run.allowed = self._laid.over(self._change, valid, own, (texts, n), x.device)
        if name:
            given[name] = x.new_zeros(1, 1, n, n)

    def _mask_module(self, run: _Run, module: nn.MultiheadAttention, given: dict[str, Any]) -> None:
        """The mask of a torch.nn.MultiheadAttention, in which True is masked."""
        query, own, padding = given["query"], given.get("attn_mask"), given.get("key_padding_mask")
        batched = query.ndim == 3
        along, n = (0, query.shape[1]) if module.batch_first or not batched else (1, query.shape[0])
        texts, n = (query.shape[along], n) if batched else (1, query.shape[0])
        if own is not None and own.dtype != torch.bool:
            _check_no_bias(run, own)
        valid = None
        if padding is not None:
            padding = padding if padding.dtype == torch.bool else _blocked(padding)
            valid = ~padding.reshape(texts, n)
        allowed = self._laid.over(self._change, valid, padding, (texts, n), query.device)
        masked = ~allowed.expand(-1, module.num_heads, -1, -1).reshape(-1, n, n)
        given.update(attn_mask=masked, key_padding_mask=None, is_causal=False)

    # --- calls ----------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        run, kwargs = self._run, kwargs or {}
        if run is None:
            return func(*args, **kwargs)
        if self._sublayers and (func in _SUMS or func is torch.Tensor.add_):
            return self._add(run, func, args, kwargs)
        if run.attention is None:
            return func(*args, **kwargs)
        out, attends = self._call(run, func, args, kwargs)
        if attends:
            run.called, run.pending, run.products = True, run.attention, 0
            run.attentions += run.attention == "self"
        return out

    def _call(self, run: _Run, func: Any, args: tuple, kwargs: dict) -> tuple[Any, bool]:
        """What a call inside an attention module gives, and whether it is attention."""
        own = run.attention == "self"
        if func is F.multi_head_attention_forward:
            return (self._module(args, kwargs) if own else func(*args, **kwargs)), True
        if func is F.scaled_dot_product_attention:
            return (self._sdpa(run, *args, **kwargs) if own else func(*args, **kwargs)), True
        if func in _SOFTMAX:
            scores, *rest = args if args else (kwargs.pop("input"),)
            if scores.ndim == 4:
                scores = self._scores(run, scores) if own else scores
                return func(scores, *rest, **kwargs), True
            return func(scores, *rest, **kwargs), False
        out = func(*args, **kwargs)
        if func in _PRODUCTS and own and out.ndim == 4 and not run.called:
            run.products += 1
            out = out if self._change.beta == 1.0 else self._change.beta * out
        return out, False

    def _sdpa(
        self,
        run: _Run,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        if self._change.beta != 1.0:
            self._check_products(run, 0)
            scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
            scale *= self._change.beta
        if run.allowed is not None:
            allowed = self._checked(run, len(query), query.shape[-2], key.shape[-2], attn_mask)
            if attn_mask is None or attn_mask.dtype == torch.bool:
                attn_mask = allowed
            else:  # it may hold a bias
                attn_mask = attn_mask.masked_fill(~allowed, -torch.inf)
            is_causal = False
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal,
            scale=scale, **kwargs,
        )  # fmt: skip

    def _scores(self, run: _Run, scores: torch.Tensor) -> torch.Tensor:
        if self._change.beta != 1.0:
            self._check_products(run, 1)
        if run.allowed is None:
            return scores
        texts, _, queries, keys = scores.shape
        return scores.masked_fill(~self._checked(run, texts, queries, keys, scores), -torch.inf)

    def _module(self, args: tuple, kwargs: dict) -> Any:
        func, beta = F.multi_head_attention_forward, self._change.beta
        bound = inspect.signature(func).bind(*args, **kwargs)
        given = bound.arguments
        if beta != 1.0:  # the scores are linear in what makes queries
            d = given["embed_dim_to_check"]
            for name in ("in_proj_weight", "in_proj_bias"):
                if (whole := given.get(name)) is not None:
                    given[name] = torch.cat([beta * whole[:d], whole[d:]])
            if given.get("q_proj_weight") is not None:
                given["q_proj_weight"] = beta * given["q_proj_weight"]
        return func(*bound.args, **bound.kwargs)

    def _checked(self, run: _Run, texts: int, queries: int, keys: int, own: Any) -> torch.Tensor:
        """The mask for scores of this shape, which the model must not have masked itself."""
        allowed = run.allowed
        if allowed is None or allowed.shape != (texts, 1, queries, keys):
            raise _refusal(
                run, "mask", f"its scores have the shape ({texts}, heads, {queries}, {keys})",
                "all tokens at once (use_cache=False) and no columns beside them, such as sinks",
            )  # fmt: skip
        if own is not None and bool((_blocked(own) & allowed).any()):
            raise _refusal(
                run, "mask", "its own code masks entries that the new mask allows",
                "attn_implementation='sdpa', or a mask that allows no more",
            )  # fmt: skip
        return allowed

    def _check_products(self, run: _Run, expected: int) -> None:
        if run.products != expected:
            raise _refusal(
                run, "beta", f"{run.products} products of matrices were seen before attention",
                "scaled_dot_product_attention, or one product Q K^T before the softmax",
            )  # fmt: skip

    # --- residuals ------------------------------------------------------------------------------

    def _add(self, run: _Run, func: Any, args: tuple, kwargs: dict) -> Any:
        awaited = run.attention is not None and not run.called
        if kwargs or awaited or len(args) != 2 or not _alike(*args):
            return func(*args, **kwargs)
        first, second = (run.follows(x) for x in args)
        if first == second:
            return func(*args, **kwargs)
        if func is torch.Tensor.add_:
            raise _refusal(
                run, "skip and mlp", "its code adds to the residual stream in place",
                "x = x + f(x) instead of x += f(x)",
            )  # fmt: skip
        stream, branch = args if first else args[::-1]
        sublayer, run.pending = run.pending or "mlp", None
        run.mlps += sublayer == "mlp"
        if sublayer == "mlp" and self._change.mlp:
            run.omitted = stream
            return stream
        out = branch if self._change.skip and sublayer != "cross" else func(*args)
        run.stream.append(out)
        return out


@dataclass
class _Laid:
    """The last mask that was laid over a batch: all blocks of a stack have the same."""

    own: torch.Tensor | None = None
    shape: tuple[int, int] = (0, 0)
    allowed: torch.Tensor | None = field(default=None)

    def over(
        self,
        change: Change,
        valid: torch.Tensor | None,
        own: Any,
        shape: tuple[int, int],
        device: Any,
    ) -> torch.Tensor:
        """(texts, 1, N, N), True where i may attend to j."""
        if self.allowed is None or own is not self.own or shape != self.shape:
            texts, n = shape
            if valid is None:
                allowed = np.broadcast_to(change.mask_of(n), (texts, n, n)).copy()
            else:
                allowed = np.stack([_over(change, one) for one in valid.cpu().numpy()])
            self.allowed = torch.from_numpy(allowed)[:, None].to(device)
            self.own, self.shape = own, shape
        return self.allowed


def _over(change: Change, valid: np.ndarray) -> np.ndarray:
    tokens, allowed = np.flatnonzero(valid), np.diag(~valid)
    allowed[np.ix_(tokens, tokens)] = change.mask_of(len(tokens))
    return allowed


def _refusal(run: _Run, what: str, why: str, needed: str) -> ValueError:
    return ValueError(f"{what} of {run.block} cannot be changed: {why}; needed: {needed}")


def _blocked(mask: torch.Tensor) -> torch.Tensor:
    """Where a mask of Hugging Face, True or 0 where attention is allowed, forbids it."""
    return ~mask if mask.dtype == torch.bool else mask <= torch.finfo(mask.dtype).min / 2


def _check_no_bias(run: _Run, own: torch.Tensor) -> None:
    if own.dtype != torch.bool and bool(own.masked_fill(_blocked(own), 0).any()):
        raise _refusal(
            run, "mask", "its own mask holds a bias of the scores", "a mask of 0 and -inf"
        )


def _inner(block: nn.Module) -> Iterator[nn.Module]:
    """The blocks within a block, as in a group of ALBERT; itself when there are none."""
    try:
        stacks = find_stacks(block)
    except ValueError:
        yield block
        return
    for stack in stacks:
        for one in stack.blocks:
            yield from _inner(one)


def _outermost(block: nn.Module) -> Iterator[nn.Module]:
    taken: list[str] = []
    for name, module in block.named_modules():
        nested = any(name.startswith(f"{other}.") for other in taken)
        if name and not nested and is_attention(name.rsplit(".", 1)[-1], module):
            taken.append(name)
            yield module


def _cross_attention(block: nn.Module) -> set[str]:
    """Names of all modules of cross-attention and of its norms."""
    modules = dict(block.named_modules())
    found = {
        name
        for name, module in modules.items()
        if name and (_CROSS.search(name) or _CROSS.search(type(module).__name__))
    }
    if isinstance(block, nn.TransformerDecoderLayer):
        found |= {"multihead_attn", "norm2"}
    return found | {n for n in modules if any(n.startswith(f"{other}.") for other in found)}


def _first(args: tuple, kwargs: dict) -> Any:
    return next(x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor))


def _alike(a: Any, b: Any) -> bool:
    both = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)
    return both and a.shape == b.shape


def _same(a: Any, b: Any) -> bool:
    """True for one tensor, or two views of all of it; what is compared with is kept alive."""
    if a is b or not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return a is b and a is not None
    return a.numel() == b.numel() and a.data_ptr() == b.data_ptr()
