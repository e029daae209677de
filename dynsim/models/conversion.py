"""Transformers of Hugging Face as dynamics: the blocks' own weights, norms and MLPs, in float64.

How to add a family. Write a reader: a function of the bare model that yields a `Block` for each
layer, in order, and name it in `FAMILIES` under the `model_type` of its configuration, with the
mask that its attention has and where its norms stand. What the reader owes:

- matrices act on rows, x W + b: torch's Linear holds W transposed (`_linear` turns it), GPT-2's
  Conv1D does not (`_conv1d`); columns of queries, keys and values are ordered by head;
- weights as they are: no norm folded into a matrix, no centring;
- whatever the definition of a layer (`dynsim.AttentionDynamics`) lacks is refused by name, before
  anything is read: relative position biases, cross attention, biases of keys that are turned.

Then add a random model from a configuration to the list of tests/test_models_dynamics.py, which
holds every block's output against the dynamics', in float64 to 1e-12 and in float32 to 1e-5. Fresh
models have gains 1 and biases 0: the test draws all parameters anew, so that none goes unread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from dynsim import masks
from dynsim._values import shown, unknown, whole
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.mlp import FixedMLP, MLPWeights
from dynsim.network.norms import LayerNorm, Norm, PerLayer, RMSNorm
from dynsim.network.positions import NoPosition, Position, RoPE
from dynsim.network.weights import Layers, LayerWeights

__all__ = ["FAMILIES", "Block", "Family", "dynamics", "embeddings"]

#: W (in, out) and b (out,) of x W + b.
Linear = tuple[np.ndarray, np.ndarray]


class Block(NamedTuple):
    """One layer: skip connection 1, softmax(scale Q K^T) V, and an MLP, each with its norm."""

    attention: tuple[Linear, ...]  # query, key, value, output
    norm: Norm
    up: Linear  # of a gated MLP gate and up, side by side
    down: Linear
    mlp_norm: Norm
    scale: float | None = None  # 1 / sqrt(width of a head), unless given


class Family(NamedTuple):
    """How models of one type are read."""

    blocks: Callable[[Any], Iterator[Block]]
    first: Callable[[Any], nn.Module]  # the block that embeddings enter
    mask: Callable = masks.complete
    placement: str = "post"
    activation: str = "hidden_act"  # where the configuration names it
    gated: bool = False
    position: Callable[[Any], Position] = lambda config: NoPosition()


def _bert(model: Any) -> Iterator[Block]:
    for layer in model.encoder.layer:
        attention, out = layer.attention.self, layer.attention.output
        yield Block(
            _linears(attention.query, attention.key, attention.value, out.dense),
            _layer_norm(out.LayerNorm), _linear(layer.intermediate.dense),
            _linear(layer.output.dense), _layer_norm(layer.output.LayerNorm),
        )  # fmt: skip


def _distilbert(model: Any) -> Iterator[Block]:
    for layer in model.transformer.layer:
        attention = layer.attention
        projections = attention.q_lin, attention.k_lin, attention.v_lin, attention.out_lin
        yield Block(
            _linears(*projections), _layer_norm(layer.sa_layer_norm),
            _linear(layer.ffn.lin1), _linear(layer.ffn.lin2), _layer_norm(layer.output_layer_norm),
        )  # fmt: skip


def _albert_layer(model: Any) -> nn.Module:
    config = model.config
    if config.num_hidden_groups * config.inner_group_num > 1:
        raise ValueError(
            f"an ALBERT of one block is known, repeated in every layer; this one has "
            f"{config.num_hidden_groups} groups of {config.inner_group_num}"
        )
    return model.encoder.albert_layer_groups[0].albert_layers[0]


def _albert(model: Any) -> Iterator[Block]:
    layer: Any = _albert_layer(model)
    attention = layer.attention
    projections = attention.query, attention.key, attention.value, attention.dense
    yield Block(
        _linears(*projections), _layer_norm(attention.LayerNorm),
        _linear(layer.ffn), _linear(layer.ffn_output), _layer_norm(layer.full_layer_layer_norm),
    )  # fmt: skip


def _gpt2(model: Any) -> Iterator[Block]:
    config = model.config
    own_scale = config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights
    if own_scale and config._attn_implementation != "eager" and _is_old():
        raise ValueError(
            "transformers before version 5 computes GPT-2 without scale_attn_by_inverse_layer_idx "
            "and scale_attn_weights unless attn_implementation='eager'; load it so"
        )
    for t, layer in enumerate(model.h):
        W, b = _conv1d(layer.attn.c_attn)
        projections = zip(np.split(W, 3, axis=1), np.split(b, 3), strict=True)
        scale = (W.shape[0] // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        yield Block(
            (*projections, _conv1d(layer.attn.c_proj)), _layer_norm(layer.ln_1),
            _conv1d(layer.mlp.c_fc), _conv1d(layer.mlp.c_proj), _layer_norm(layer.ln_2),
            scale / (t + 1) if config.scale_attn_by_inverse_layer_idx else scale,
        )  # fmt: skip


def _is_old() -> bool:
    return int(version("transformers").split(".")[0]) < 5


def _vit_layers(model: Any) -> Any:
    return model.layers if hasattr(model, "layers") else model.encoder.layer  # transformers 5, 4


def _vit(model: Any) -> Iterator[Block]:
    for layer in _vit_layers(model):
        attention = layer.attention
        if hasattr(attention, "q_proj"):
            projections = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
            up, down = layer.mlp.fc1, layer.mlp.fc2
        else:  # transformers 4
            own = attention.attention
            projections = own.query, own.key, own.value, attention.output.dense
            up, down = layer.intermediate.dense, layer.output.dense
        yield Block(
            _linears(*projections), _layer_norm(layer.layernorm_before), _linear(up),
            _linear(down), _layer_norm(layer.layernorm_after),
        )  # fmt: skip


def _llama(model: Any) -> Iterator[Block]:
    for layer in model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        if attention.k_proj.bias is not None:
            raise ValueError(
                "this model's keys have biases, which do not cancel under rotary positions; a "
                "dynamics has none"
            )
        gate, up = _linears(mlp.gate_proj, mlp.up_proj)
        both = np.concatenate([gate[0], up[0]], axis=1), np.concatenate([gate[1], up[1]])
        yield Block(
            _linears(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
            _rms_norm(layer.input_layernorm), both, _linear(mlp.down_proj),
            _rms_norm(layer.post_attention_layernorm),
        )  # fmt: skip


def _rotary(config: Any) -> Position:
    """RoPE with the base of a configuration of transformers 4 or 5."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = given.get("rope_type", given.get("type", "default"))
    part = given.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
    if kind != "default" or part not in (None, 1.0):
        raise ValueError(
            f"this model's rotary positions are scaled ({kind}, of a share {part} of each key); a "
            f"dynamics has the plain ones"
        )
    return RoPE(float(given.get("rope_theta", getattr(config, "rope_theta", 10000.0))))


#: How models are read, by the `model_type` of their configuration.
FAMILIES = {
    "albert": Family(_albert, _albert_layer),
    "bert": Family(_bert, lambda model: model.encoder.layer[0]),
    "distilbert": Family(
        _distilbert, lambda model: model.transformer.layer[0], activation="activation"
    ),
    "gpt2": Family(
        _gpt2, lambda model: model.h[0], masks.causal, "pre", activation="activation_function"
    ),
    **dict.fromkeys(
        ("llama", "mistral"),
        Family(
            _llama, lambda model: model.layers[0], masks.causal, "pre", gated=True, position=_rotary
        ),
    ),
    "roberta": Family(_bert, lambda model: model.encoder.layer[0]),
    "vit": Family(_vit, lambda model: _vit_layers(model)[0], placement="pre"),
}

#: Activations by their names in configurations.
_ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu",
}  # fmt: skip

#: Those of gated MLPs, whose gate they act on.
_GATES = {"silu": "swiglu", "swish": "swiglu"}

_ROTARY = (
    "has blocks like Llama's with something more (biases of keys, norms per layer of queries and "
    "keys, other gates, scaled embeddings) that is not read"
)
_RELATIVE = "adds relative position biases to the scores; a dynamics has none yet"
_EXPERTS = "has a mixture of experts in place of MLPs; a dynamics has none"
#: Why models of these types are none.
_LACKING = {
    **dict.fromkeys(("qwen2", "qwen3", "gemma", "gemma2", "phi3"), _ROTARY),
    **dict.fromkeys(("t5", "mt5", "deberta", "deberta-v2", "mpnet", "swin"), _RELATIVE),
    "gpt_oss": _EXPERTS,
}


def dynamics(model: nn.Module, n_tokens: int) -> AttentionDynamics:
    """The blocks of a model as an `AttentionDynamics` on `n_tokens` tokens.

    Layer t is block t: its attention with all biases, its MLP, its norms with their gains, and skip
    connections of weight 1. Iterated over all layers from `embeddings` it gives the model's hidden
    states after every block, before any final norm. A block shared by all layers (ALBERT's) is a
    dynamics that has no last layer. For another mask, or what else may be changed, use
    `dataclasses.replace`; for one block by itself, `layer(t)`.

    Parameters
    ----------
    model : torch.nn.Module
        A model of `transformers`, with or without a head, of a type in `FAMILIES`; in eval mode,
        where it has dropout.
    n_tokens : int
        The length of the texts: the mask is complete (encoders) or causal (decoders).

    Raises
    ------
    ValueError
        For a model of another type, or with something that a dynamics does not have.

    Examples
    --------
    >>> import dynsim
    >>> from transformers import GPT2Config, GPT2Model
    >>> model = GPT2Model(GPT2Config(n_layer=2, n_head=2, n_embd=8)).eval()
    >>> stack = dynamics(model, n_tokens=5)
    >>> stack.n_layers, stack.placement, stack.mlp.activation
    (2, 'pre', 'gelu_tanh')
    """
    bare, family = _read(model)
    n = whole("number of tokens", n_tokens, least=1)
    activation, config = str(getattr(bare.config, family.activation)), bare.config
    activations = _GATES if family.gated else _ACTIVATIONS
    if activation not in activations:
        raise ValueError(unknown("activation of the model's MLP", activation, activations))
    position = family.position(config)
    blocks = list(family.blocks(bare))
    weights = Layers(
        tuple(_heads(b, config.num_attention_heads) for b in blocks), config.model_type
    )
    mask = (masks.causal if getattr(config, "is_decoder", False) else family.mask)(n)
    window = getattr(config, "sliding_window", None)
    if window is not None and window < n:
        mask = masks.causal_local(n, window - 1)
    mlps = tuple(MLPWeights(*block.up, *block.down) for block in blocks)
    return AttentionDynamics(
        mask, weights, PerLayer(tuple(block.norm for block in blocks)), family.placement, 1.0,
        FixedMLP(mlps, activations[activation]),
        PerLayer(tuple(block.mlp_norm for block in blocks)), position=position,
    )  # fmt: skip


def embeddings(model: nn.Module, **inputs: Any) -> np.ndarray:
    """What the first block of a model is given: (samples, N, d) float64, in the model's precision.

    Token, position and segment embeddings together, after the norm or the projection that the model
    may have there: the tokens that `dynamics` starts from.

    inputs : as the model takes them, `input_ids=...` or `**tokenizer(text, return_tensors="pt")`.

    Raises ValueError as `dynamics`, and for padded texts: give texts one by one, or texts of one
    length.
    """
    bare, family = _read(model)
    mask = inputs.get("attention_mask")
    if mask is not None and not bool(torch.as_tensor(mask).bool().all()):
        raise ValueError(
            "the texts are padded, and padding is no token; give texts one by one, without padding"
        )
    seen: list[torch.Tensor] = []

    def keep(module: Any, args: tuple, kwargs: dict) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    hook = family.first(bare).register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            bare(**inputs)
    except _Reached:
        pass
    finally:
        hook.remove()
    return seen[0].double().cpu().numpy()


class _Reached(Exception):
    """The first block was reached: no more is needed of the model."""


def _read(model: Any) -> tuple[Any, Family]:
    """The bare model and its family. Raises ValueError for what a dynamics cannot be."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    if not isinstance(model, nn.Module) or kind is None:
        raise ValueError(f"a model is one of the package transformers; got {shown(model)}")
    name = f"{type(model).__name__} (of type {kind})"
    if kind in _LACKING:
        raise ValueError(f"{name} {_LACKING[kind]}; types that can be read: {', '.join(FAMILIES)}")
    if kind not in FAMILIES:
        raise ValueError(
            f"{name} is not known as a dynamics; known are {', '.join(FAMILIES)}; to add one see "
            f"dynsim.models.conversion"
        )
    lacking = {
        "cross attention": getattr(config, "add_cross_attention", False),
        "relative positions": getattr(config, "position_embedding_type", "absolute") != "absolute",
        "pruned heads": getattr(config, "pruned_heads", None),
    }
    for what, there in lacking.items():
        if there:
            raise ValueError(f"{name} has {what}, which a dynamics does not have")
    dropout = [value for key, value in getattr(config, "to_dict", dict)().items() if "drop" in key]
    if model.training and any(isinstance(p, float) and p > 0 for p in dropout):
        raise ValueError(f"{name} is in training mode, with dropout; use model.eval()")
    return getattr(model, "base_model", model), FAMILIES[kind]


def _heads(block: Block, n_heads: int) -> LayerWeights:
    """Attention's matrices by head; the key's bias cancels in the softmax.

    Where there are fewer heads of keys and values than of queries, each serves a group of these.
    """
    (W_Q, b_Q), (W_K, _), (W_V, b_V), (W_O, b_O) = block.attention
    d, width = W_Q.shape[0], W_Q.shape[1] // n_heads
    scale = width**-0.5 if block.scale is None else block.scale

    def by_head(matrix: np.ndarray) -> np.ndarray:  # (d, heads width) -> (H, d, width)
        heads = matrix.reshape(d, -1, width).transpose(1, 0, 2)
        return np.repeat(heads, n_heads // len(heads), axis=0)

    bias = np.repeat(b_V.reshape(-1, width), n_heads * width // len(b_V), axis=0).ravel()
    return LayerWeights(
        query=by_head(W_Q) * scale,
        query_bias=b_Q.reshape(n_heads, width) * scale,
        key=by_head(W_K),
        value=by_head(W_V),
        output=W_O.reshape(n_heads, width, d),
        output_bias=bias @ W_O + b_O,
    )


def _array(parameter: torch.Tensor | None, size: int = 0) -> np.ndarray:
    """A parameter in float64; zeros where a model leaves it out."""
    if parameter is None:
        return np.zeros(size)
    if not isinstance(parameter, torch.Tensor):  # of torch's quantised modules a method
        raise ValueError("a parameter of the model is quantised; load it in float32 or float64")
    if parameter.is_meta or not parameter.is_floating_point():
        what = "not loaded (meta device)" if parameter.is_meta else f"quantised ({parameter.dtype})"
        raise ValueError(f"a parameter of the model is {what}; load it in float32 or float64")
    return np.ascontiguousarray(parameter.detach().double().cpu().numpy())


def _linear(module: nn.Linear) -> Linear:
    W = np.ascontiguousarray(_array(module.weight).T)
    return W, _array(module.bias, W.shape[1])


def _linears(*modules: nn.Linear) -> tuple[Linear, ...]:
    return tuple(map(_linear, modules))


def _conv1d(module: Any) -> Linear:
    return _array(module.weight), _array(module.bias)


def _layer_norm(module: nn.LayerNorm) -> LayerNorm:
    return LayerNorm(_array(module.weight), _array(module.bias, 1), module.eps)


def _rms_norm(module: Any) -> RMSNorm:
    return RMSNorm(_array(module.weight), module.variance_epsilon)
