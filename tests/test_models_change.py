"""What-ifs on real architectures, against forward passes written in numpy from the weights."""

import copy
import itertools
import re

import networkx as nx
import numpy as np
import pytest
from scipy.special import erf, expit, softmax

import dynsim
from dynsim import masks, mlp, norms, weights
from dynsim.models.change import VARIANTS, Change

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch import nn  # noqa: E402

from dynsim.models.attention import AttentionCalls  # noqa: E402

D, HEADS, DEPTH, N = 16, 4, 3, 7
IMPLEMENTATIONS = ("eager", "sdpa")
#: Their norms, rotations or softmax round to float32 in a model of float64 as well.
FLOAT32 = ("llama", "mistral", "vit", "t5-encoder", "t5-decoder")
CAUSAL = ("gpt2", "llama", "mistral", "t5-decoder")


# --- tiny models ----------------------------------------------------------------------------------


def build(family, attention="eager"):
    """A model in float64 whose weights are large enough for every part to matter."""
    sizes = {"hidden_size": D, "num_attention_heads": HEADS, "num_hidden_layers": DEPTH}
    small = {"vocab_size": 30, "intermediate_size": 24, "max_position_embeddings": 32}
    torch.manual_seed(3)
    t = transformers
    if family == "bert":
        model = t.BertModel(t.BertConfig(**sizes, **small), add_pooling_layer=False)
    elif family == "albert":
        config = t.AlbertConfig(**sizes, **small, embedding_size=8)
        model = t.AlbertModel(config, add_pooling_layer=False)
    elif family == "gpt2":
        config = t.GPT2Config(n_embd=D, n_head=HEADS, n_layer=DEPTH, vocab_size=30, n_positions=32)
        model = t.GPT2Model(config)
    elif family == "llama":
        model = t.LlamaModel(t.LlamaConfig(**sizes, **small, num_key_value_heads=2))
    elif family == "mistral":
        config = t.MistralConfig(**sizes, **small, num_key_value_heads=2, sliding_window=2)
        model = t.MistralModel(config)
    elif family == "vit":
        config = t.ViTConfig(**sizes, intermediate_size=24, image_size=6, patch_size=3)
        model = t.ViTModel(config, add_pooling_layer=False)
    else:
        config = t.T5Config(d_model=D, d_kv=4, d_ff=24, num_layers=DEPTH, num_heads=HEADS,
                            vocab_size=30, decoder_start_token_id=0)  # fmt: skip
        model = t.T5Model(config)
    model.set_attn_implementation(attention)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        noise = 0.4 * torch.randn(parameter.shape, generator=generator)
        gain = "norm" in name.lower() or re.search(r"ln_\w\.", name)
        parameter.data = noise + float(bool(gain) and name.endswith("weight"))
    return model.double().eval()


def inputs_of(family, n=N, texts=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    if family == "vit":
        return {"pixel_values": torch.randn(texts, 3, 6, 6, generator=generator).double()}
    ids = torch.randint(1, 30, (texts, n), generator=generator)
    if family.startswith("t5"):
        return {"input_ids": ids, "decoder_input_ids": ids.flip(1)[:, : n - 1]}
    return {"input_ids": ids}


def blocks_of(family, model):
    if family in ("bert", "albert"):
        stack = model.encoder.layer if family == "bert" else model.encoder.albert_layer_groups
        return [stack[0].albert_layers[0]] * DEPTH if family == "albert" else list(stack)
    if family == "vit":
        return list(model.layers if hasattr(model, "layers") else model.encoder.layer)
    if family.startswith("t5"):
        return list((model.encoder if family == "t5-encoder" else model.decoder).block)
    return list(model.h if family == "gpt2" else model.layers)


def states(family, model, **inputs):
    """Input of the first block, output of the last and the encoder's output, (texts, N, D)."""
    blocks, seen = blocks_of(family, model), {}

    def enter(module, args, kwargs):
        seen.setdefault("first", (args or tuple(kwargs.values()))[0])

    def leave(module, args, out):
        seen["last"] = out[0] if isinstance(out, tuple) else out

    handles = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True),
               blocks[-1].register_forward_hook(leave)]  # fmt: skip
    with torch.no_grad():
        out = model(**inputs)
    for handle in handles:
        handle.remove()
    context = getattr(out, "encoder_last_hidden_state", None)
    return *(
        seen[k].numpy() for k in ("first", "last")
    ), None if context is None else context.numpy()


# --- the referee ----------------------------------------------------------------------------------


def linear(module):
    matrix = module.weight.detach().numpy()
    matrix = matrix if type(module).__name__ == "Conv1D" else matrix.T
    bias = getattr(module, "bias", None)
    bias = 0.0 if bias is None else bias.detach().numpy()
    return lambda x: x @ matrix + bias


def norm(module):
    gain = module.weight.detach().numpy()
    if isinstance(module, nn.LayerNorm):
        bias = module.bias.detach().numpy()

        def layernorm(x):
            centred = x - x.mean(axis=-1, keepdims=True)
            return (
                centred / np.sqrt((centred**2).mean(-1, keepdims=True) + module.eps) * gain + bias
            )

        return layernorm
    eps = module.variance_epsilon
    return lambda x: x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * gain


ACTIVATIONS = {
    "gelu": lambda x: x * (1 + erf(x / 2**0.5)) / 2,
    "tanh": lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}


def rotated(x):
    """Rotary positions, (heads, N, width): pairs (i, i + width/2), base 10000."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] * 10000.0 ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention(x, y, query, key, value, out, allowed, scale, beta=1.0, bias=0.0, rope=False):
    def heads(z):
        return z.reshape(len(z), -1, D // HEADS).swapaxes(0, 1)

    q, k, v = heads(query(x)), heads(key(y)), heads(value(y))
    q, k = (rotated(q), rotated(k)) if rope else (q, k)
    k, v = (np.repeat(z, HEADS // len(z), axis=0) for z in (k, v))
    scores = beta * scale * (q @ k.swapaxes(-1, -2)) + bias
    mixed = softmax(np.where(allowed, scores, -np.inf), axis=-1) @ v
    return out(mixed.swapaxes(0, 1).reshape(len(x), D))


def one(block, pattern):
    """The only module of a block whose name ends so."""
    (found,) = [m for n, m in block.named_modules() if re.search(rf"(^|\.)({pattern})$", n)]
    return linear(found) if hasattr(found, "weight") and found.weight.ndim == 2 else norm(found)


def parts(family, model, block):
    """query, key, value, out; norms; MLP; whether norms come after; what else attention needs."""
    more = {"scale": (D // HEADS) ** -0.5}
    if family == "gpt2":
        fused = linear(block.attn.c_attn)
        qkv = [lambda x, k=k: np.split(fused(x), 3, axis=-1)[k] for k in range(3)]
        qkv.append(linear(block.attn.c_proj))
        up, down = linear(block.mlp.c_fc), linear(block.mlp.c_proj)
        both = norm(block.ln_1), norm(block.ln_2)
        return qkv, both, lambda x: down(ACTIVATIONS["tanh"](up(x))), False, more
    if family.startswith("t5"):
        sublayer, last = block.layer[0].SelfAttention, block.layer[-1]
        stack = model.encoder if family == "t5-encoder" else model.decoder
        first, n = stack.block[0].layer[0].SelfAttention, N - (family == "t5-decoder")
        more = {"scale": 1.0, "bias": first.compute_bias(n, n).detach().numpy()[0]}
        wi, wo = linear(last.DenseReluDense.wi), linear(last.DenseReluDense.wo)
        both = norm(block.layer[0].layer_norm), norm(last.layer_norm)
        qkv = [linear(getattr(sublayer, name)) for name in "qkvo"]
        return qkv, both, lambda x: wo(ACTIVATIONS["relu"](wi(x))), False, more
    qkv = [one(block, p) for p in ("query|q_proj", "key|k_proj", "value|v_proj")]
    if family in ("llama", "mistral"):
        gate, up, down = (one(block, f"{name}_proj") for name in ("gate", "up", "down"))
        both = one(block, "input_layernorm"), one(block, "post_attention_layernorm")

        def swiglu(x):
            return down(gate(x) * expit(gate(x)) * up(x))

        return [*qkv, one(block, "o_proj")], both, swiglu, False, more | {"rope": True}
    names = {
        "bert": ("attention.output.dense", "attention.output.LayerNorm", "output.LayerNorm",
                 "intermediate.dense", "output.dense"),
        "albert": ("attention.dense", "attention.LayerNorm", "full_layer_layer_norm", "ffn",
                   "ffn_output"),
        "vit": ("o_proj|attention.output.dense", "layernorm_before", "layernorm_after",
                "fc1|intermediate.dense", "fc2|(?<!attention.)output.dense"),
    }[family]  # fmt: skip
    if family == "bert":
        modules = dict(block.named_modules())
        out, up, down = (linear(modules[names[k]]) for k in (0, 3, 4))
        both = norm(modules[names[1]]), norm(modules[names[2]])
    else:
        out, first, second, up, down = (one(block, name) for name in names)
        both = first, second
    gelu = ACTIVATIONS["tanh" if family == "albert" else "gelu"]
    return [*qkv, out], both, lambda x: down(gelu(up(x))), family != "vit", more


def cross(block):
    """T5's cross-attention, whole."""
    layer = block.layer[1]
    own, before = (
        [linear(getattr(layer.EncDecAttention, name)) for name in "qkvo"],
        norm(layer.layer_norm),
    )
    return lambda x, y: x + attention(before(x), y, *own, allowed=True, scale=1.0)


def referee(family, model, x, context, allowed, change):
    """The changed network on one text (N, D), from the definition of `Change`."""
    identity = change.norm == "off"
    for block in blocks_of(family, model):
        qkv, both, perceptron, post, more = parts(family, model, block)
        first, second = (lambda z: z,) * 2 if identity else both

        def sublayer(x, normed, f, post=post):
            y = f(x if post else normed(x)) + (0 if change.skip else x)
            return normed(y) if post else y

        def attend(z, qkv=qkv, more=more):
            return attention(z, z, *qkv, allowed=allowed, beta=change.beta, **more)

        x = sublayer(x, first, attend)
        if family == "t5-decoder":
            x = cross(block)(x, context)
        if not change.mlp:
            x = sublayer(x, second, perceptron)
    return x


def own_mask(family, n):
    if family == "mistral":
        return np.tril(np.ones((n, n), bool)) & ~np.tril(np.ones((n, n), bool), -2)
    return np.tril(np.ones((n, n), bool)) if family in CAUSAL else np.ones((n, n), bool)


GRAPHS = {
    None: None,
    "complete": masks.complete,
    "causal": masks.causal,
    "local": masks.local,
    "causal-local": lambda n: masks.causal_local(n, window=2),
}


def allowed_by(graph):
    n = graph.number_of_nodes()
    return np.array([[graph.has_edge(j, i) for j in range(n)] for i in range(n)])


FAMILIES = ("bert", "albert", "gpt2", "llama", "mistral", "vit", "t5-encoder", "t5-decoder")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_model_is_the_network_written_by_hand(family, implementation):
    model, inputs = build(family, implementation), inputs_of(family)
    stack = {"t5-encoder": "encoder.block", "t5-decoder": "decoder.block"}.get(family)
    off = (None, "off")
    for mask, ln, skip, perceptron, beta in itertools.product(GRAPHS, off, off, off, (1.0, 0.3)):
        options = {"window": 2} if mask == "causal-local" else {}
        change = Change(mask, options, norm=ln, skip=skip, mlp=perceptron, beta=beta)
        with change.applied(model, stack):
            first, last, context = states(family, model, **inputs)
        n = first.shape[1]
        allowed = own_mask(family, n) if mask is None else allowed_by(GRAPHS[mask](n))
        expected = referee(family, model, first[0], None if context is None else context[0],
                           allowed, change)  # fmt: skip
        error = np.abs(last[0] - expected).max() / np.abs(expected).max()
        assert error < (1e-5 if family in FLOAT32 else 1e-11), change
