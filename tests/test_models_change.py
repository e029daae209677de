"""What-ifs on real architectures, against forward passes written in numpy from the weights."""

import copy
import dataclasses
import functools
import inspect
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

#: Before 5 transformers take no mask of four axes everywhere, GPT-2 masks in its own code, and
#: makes its mask in float32 (an error in float64).
OLD = int(transformers.__version__.split(".")[0]) < 5
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
    grouped = {"num_key_value_heads": 2}
    configs = {
        "bert": lambda: t.BertConfig(**sizes, **small),
        "albert": lambda: t.AlbertConfig(**sizes, **small, embedding_size=8),
        "gpt2": lambda: t.GPT2Config(
            n_embd=D, n_head=HEADS, n_layer=DEPTH, vocab_size=30, n_positions=32
        ),
        "llama": lambda: t.LlamaConfig(**sizes, **small, **grouped),
        "mistral": lambda: t.MistralConfig(**sizes, **small, **grouped, sliding_window=2),
        "vit": lambda: t.ViTConfig(**sizes, intermediate_size=24, image_size=6, patch_size=3),
        "t5": lambda: t.T5Config(
            d_model=D, d_kv=4, d_ff=24, num_layers=DEPTH, num_heads=HEADS, vocab_size=30,
            decoder_start_token_id=0,
        ),
    }  # fmt: skip
    config = configs[family.split("-")[0]]()
    try:
        model = t.AutoModel.from_config(config, attn_implementation=attention)
    except ValueError as error:  # of an older transformers
        pytest.skip(str(error))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        noise = 0.3 * torch.randn(parameter.shape, generator=generator)
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
    betas = itertools.cycle((1.0, 0.3, 2.0))
    for (mask, ln, skip, perceptron), beta in zip(
        itertools.product(GRAPHS, off, off, off), betas, strict=False
    ):
        if OLD and family == "gpt2" and implementation == "eager" and mask in ("complete", "local"):
            continue
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


# --- the same by other ways ----------------------------------------------------------------------


@pytest.mark.skipif(OLD, reason="of transformers before 5")
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_a_mask_is_the_one_that_the_model_takes_as_an_argument(family):
    model, inputs = build(family), inputs_of(family, texts=2)
    for name in ("local", "causal", "star"):
        allowed = torch.from_numpy(allowed_by(masks.MASKS[name](N)))[None, None].expand(2, 1, N, N)
        added = (
            torch.zeros(2, 1, N, N).double().masked_fill(~allowed, torch.finfo(torch.double).min)
        )
        with torch.no_grad():
            expected = model(**inputs, attention_mask=added).last_hidden_state
            with Change(name).applied(model):
                changed = model(**inputs).last_hidden_state
        assert torch.allclose(changed, expected, rtol=1e-10, atol=1e-10)


def as_graph(matrix):
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(matrix)))
    graph.add_edges_from((j, i) for i, j in np.argwhere(matrix).tolist())
    return graph


def test_a_mask_is_a_graph_an_array_or_a_name():
    model, inputs = build("bert"), inputs_of("bert")
    matrix = allowed_by(masks.causal_local(N, window=2))
    ways = [
        Change("causal-local", {"window": 2}), Change(matrix), Change(matrix.astype(float)),
        Change(as_graph(matrix)), Change(masks.causal_local(N, window=2)),
    ]  # fmt: skip
    outs = []
    for change in ways:
        with change.applied(model), torch.no_grad():
            outs.append(model(**inputs).last_hidden_state)
    assert all(torch.equal(out, outs[0]) for out in outs)
    assert len(set(ways[1:])) == 1


def test_without_its_window_mistral_is_llama():
    config = {"vocab_size": 30, "hidden_size": D, "num_attention_heads": HEADS,
              "num_hidden_layers": DEPTH, "num_key_value_heads": 2, "intermediate_size": 24,
              "max_position_embeddings": 32}  # fmt: skip
    mistral, llama = (
        build("mistral", "sdpa"),
        transformers.LlamaModel(transformers.LlamaConfig(**config)),
    )
    llama.load_state_dict(mistral.state_dict())
    llama, inputs = llama.double().eval(), inputs_of("mistral")
    with torch.no_grad():
        expected = llama(**inputs).last_hidden_state
        assert not torch.allclose(mistral(**inputs).last_hidden_state, expected, atol=1e-3)
        with Change("causal").applied(mistral):
            assert torch.allclose(mistral(**inputs).last_hidden_state, expected, rtol=1e-5)


PADDED = ("bert", "albert", "gpt2", "llama", "t5-encoder")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", PADDED)
def test_a_padded_text_gives_what_it_gives_alone(family, side, implementation):
    if OLD and family == "gpt2":
        pytest.skip("of transformers before 5")
    model = build(family, implementation)
    short, pad = 5, N - 5
    ids = inputs_of(family, texts=3)["input_ids"]
    real = torch.ones(3, N, dtype=torch.long)
    kept = slice(pad, None) if side == "left" else slice(short)
    real[1] = 0
    real[1, kept] = 1
    batch = {"input_ids": ids * real, "attention_mask": real}
    alone = {"input_ids": ids[1:2, kept]}
    if family in ("bert", "albert", "gpt2", "llama"):
        batch["position_ids"] = (real.cumsum(1) - 1).clamp(min=0)
    part = model.encoder if family == "t5-encoder" else model
    for change in (
        Change("star"), Change("prefix", {"length": 2}), Change("causal", beta=0.5, norm="off"),
    ):  # fmt: skip
        with torch.no_grad(), change.applied(part):
            together = part(**batch).last_hidden_state
            single = part(**alone).last_hidden_state
            whole = part(**{name: value[:1] for name, value in batch.items()}).last_hidden_state
        scale = single.abs().max()
        assert torch.isfinite(together).all()
        assert (together[1, kept] - single[0]).abs().max() < 2e-5 * scale
        assert (together[0] - whole[0]).abs().max() < 2e-5 * whole.abs().max()


def test_cross_attention_stays_whole():
    model, inputs = build("t5"), inputs_of("t5")
    seen = []

    def see(calls):
        seen.extend(call.weights for call in calls)

    change = Change("causal", beta=0.0)
    with torch.no_grad(), AttentionCalls(lambda: True, see), change.applied(model):
        model(**inputs)
    encoder, decoder = seen[:DEPTH], seen[DEPTH:]
    for weights_, n in [(w, N) for w in encoder] + [(w, N - 1) for w in decoder[::2]]:
        bias_only = (weights_ > 0).all(dim=0)
        assert torch.equal(bias_only, torch.ones(n, n).tril().bool())
    assert all((w > 0).all() and w.std() > 1e-3 for w in decoder[1::2])


# --- what is left untouched -----------------------------------------------------------------------


def hooks_of(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
             "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
             "_forward_hooks_always_called")  # fmt: skip
    found = [dict(getattr(m, kind)) for m in model.modules() for kind in kinds]
    modes = torch._C._len_torch_function_stack()
    return found, modes, torch.backends.mha.get_fastpath_enabled()


EVERYTHING = Change("causal-local", norm="off", skip="off", mlp="off", beta=0.5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("family", [*FAMILIES[:-2], "t5"])
def test_nothing_changed_is_the_model_bit_for_bit(family, implementation):
    model, inputs = build(family, implementation), inputs_of(family, texts=2)
    before, weights_ = hooks_of(model), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        plain = model(**inputs).last_hidden_state
        with Change().applied(model):
            assert hooks_of(model) == before
            assert torch.equal(model(**inputs).last_hidden_state, plain)
        with EVERYTHING.applied(model):
            assert not torch.equal(model(**inputs).last_hidden_state, plain)
        assert torch.equal(model(**inputs).last_hidden_state, plain)
    assert hooks_of(model) == before
    assert all(torch.equal(value, weights_[name]) for name, value in model.state_dict().items())


def test_after_an_error_all_is_as_before():
    model, inputs = build("bert", "sdpa"), inputs_of("bert")
    before = hooks_of(model)
    plain = model(**inputs).last_hidden_state

    def fail(module, args):
        raise RuntimeError("stop here")

    inner = model.encoder.layer[1].intermediate
    handle = inner.register_forward_pre_hook(fail)
    with_hook = hooks_of(model)
    with pytest.raises(RuntimeError, match="stop here"), EVERYTHING.applied(model):
        model(**inputs)
    assert hooks_of(model) == with_hook
    handle.remove()
    assert hooks_of(model) == before
    assert torch.equal(model(**inputs).last_hidden_state, plain)

    with EVERYTHING.applied(model):  # an error that the caller catches inside
        changed = model(**inputs).last_hidden_state
        handle = inner.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="stop here"):
            model(**inputs)
        handle.remove()
        assert torch.equal(model(**inputs).last_hidden_state, changed)
    assert hooks_of(model) == before


def gradients(model, inputs, blocks=()):
    torch.manual_seed(0)  # of dropout
    model.zero_grad()
    out = model(**inputs).last_hidden_state
    (out.sin().sum()).backward()
    return out, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_training_goes_on_in_a_changed_model(family):
    """Norms off against a copy without them, dropout and gradients included, bit for bit."""
    model, inputs = build(family, "sdpa").train(), inputs_of(family, texts=2)
    copied = copy.deepcopy(model)
    for block in blocks_of(family, copied):
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.LayerNorm):
                block.set_submodule(name, nn.Identity())
    expected, by_copy = gradients(copied, inputs)
    with Change(norm="off").applied(model):
        out, found = gradients(model, inputs)
    assert model.training
    assert torch.equal(out, expected)
    assert set(found) == set(by_copy)
    assert all(torch.equal(found[name], by_copy[name]) for name in found)


@pytest.mark.parametrize("family", ["gpt2", "llama", "vit"])
def test_without_its_mlp_a_pre_norm_block_is_one_whose_mlp_gives_zero(family):
    model, inputs = build(family, "sdpa"), inputs_of(family)
    zeroed = copy.deepcopy(model)
    for block in blocks_of(family, zeroed):
        pattern = r"(mlp\.c_proj|down_proj|fc2|(?<!attention.)output\.dense)$"
        last = [m for n, m in block.named_modules() if re.search(pattern, n)]
        for parameter in last[0].parameters():
            parameter.data.zero_()
    with torch.no_grad(), Change(mlp="off").applied(model):
        changed = model(**inputs).last_hidden_state
    assert torch.equal(changed, zeroed(**inputs).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_skip_that_is_left_out_leaves_no_rounding(dtype):
    """Tokens 2^60 times what attention adds: out - residual would keep nothing of it."""
    model = build("gpt2", "sdpa").to(dtype)
    x = torch.randn(1, N, D, generator=torch.Generator().manual_seed(1)).to(dtype)
    block, scale = model.h[0], 2.0**60
    with torch.no_grad():
        expected = block.attn(block.ln_1(scale * x))[0]
        with Change(skip="off", mlp="off").applied(model):
            out = block(scale * x)
    assert torch.equal(out[0] if isinstance(out, tuple) else out, expected)


def test_outer_hooks_and_modes_see_the_changed_model():
    model, inputs, seen, normed = build("bert", "sdpa"), inputs_of("bert", texts=2), [], []

    def see(calls):
        seen.extend(call.weights.numpy() for call in calls)

    layer = model.encoder.layer[0].output.LayerNorm
    handle = layer.register_forward_hook(lambda module, args, out: normed.append((args[0], out)))
    change = Change("local", norm="off", beta=0.0)
    with torch.no_grad(), AttentionCalls(lambda: True, see), change.applied(model):
        model(**inputs)
    handle.remove()
    graph = allowed_by(masks.local(N))
    uniform = graph / graph.sum(axis=1, keepdims=True)
    assert len(seen) == 2 * DEPTH
    assert all(np.allclose(weights_, uniform, atol=1e-6) for weights_ in seen)
    assert torch.equal(*normed[0])


# --- torch's own layers, and modules written by hand ---------------------------------------------


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_own_encoder(norm_first, batch_first):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        D, HEADS, 24, norm_first=norm_first, batch_first=batch_first, dtype=torch.double
    )
    nested = {"enable_nested_tensor": False} if norm_first or not batch_first else {}
    model = nn.TransformerEncoder(layer, DEPTH, **nested).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x, padding = torch.randn(2, N, D).double(), torch.zeros(2, N, dtype=torch.bool)
    padding[1, 5:] = True

    def call(x, padding):
        x = x if batch_first else x.transpose(0, 1)
        out = model(x, src_key_padding_mask=padding)
        return (out if batch_first else out.transpose(0, 1)).numpy()

    for mask, ln, skip, perceptron, beta in itertools.product(
        ("local", None), (None, "off"), (None, "off"), (None, "off"), (1.0, 0.3)
    ):
        change = Change(mask, norm=ln, skip=skip, mlp=perceptron, beta=beta)
        if not change.active:
            continue  # torch's fast path, with a warning about nested tensors
        with torch.no_grad(), change.applied(model):
            found = call(x, padding)
        for text, n in ((0, N), (1, 5)):
            allowed = allowed_by(masks.MASKS[mask or "complete"](n))
            expected = encoder_by_hand(model, x[text, :n].numpy(), allowed, change)
            scale = np.abs(expected).max()
            assert np.abs(found[text, :n] - expected).max() < 1e-11 * scale, change


def encoder_by_hand(model, x, allowed, change):
    for block in model.layers:
        own = block.self_attn
        W, b = own.in_proj_weight.detach().numpy(), own.in_proj_bias.detach().numpy()
        thirds = [slice(k * D, (k + 1) * D) for k in range(3)]
        qkv = [lambda z, W=W, b=b, rows=rows: z @ W[rows].T + b[rows] for rows in thirds]
        qkv.append(linear(own.out_proj))
        up, down = linear(block.linear1), linear(block.linear2)
        first, second = norm(block.norm1), norm(block.norm2)
        if change.norm:
            first = second = lambda z: z
        keep = 0 if change.skip else 1

        def attend(z, qkv=qkv):
            scale = (D // HEADS) ** -0.5
            return attention(z, z, *qkv, allowed=allowed, scale=scale, beta=change.beta)

        def perceptron(z, up=up, down=down):
            return down(ACTIVATIONS["relu"](up(z)))

        pairs = [(first, attend)] + ([] if change.mlp else [(second, perceptron)])
        for normed, f in pairs:
            x = keep * x + f(normed(x)) if block.norm_first else normed(keep * x + f(x))
    return x


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_own_decoder_keeps_its_cross_attention(norm_first):
    torch.manual_seed(0)
    options = {"norm_first": norm_first, "batch_first": True, "dtype": torch.double}
    layer = nn.TransformerDecoderLayer(D, HEADS, 24, **options)
    model = nn.TransformerDecoder(layer, DEPTH).eval()
    x, memory = torch.randn(2, 2, N, D).double()  # as many tokens in both
    allowed = torch.from_numpy(allowed_by(masks.local(N)))
    with torch.no_grad():
        expected = model(x, memory, tgt_mask=~allowed)
        with Change("local").applied(model):
            assert torch.allclose(model(x, memory), expected, rtol=1e-12, atol=1e-12)
            causal = torch.ones(N, N).triu(1).bool()  # the new mask replaces it
            found = model(x, memory, tgt_mask=causal, tgt_is_causal=True)
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
        without = copy.deepcopy(model)
        for block in without.layers:
            block.norm1 = block.norm3 = nn.Identity()
        with Change(norm="off").applied(model):
            assert torch.equal(model(x, memory), without(x, memory))


class SelfAttention(nn.Module):
    """As in nanoGPT; `how` says which call computes attention."""

    def __init__(self, how):
        super().__init__()
        self.fused, self.out, self.how = nn.Linear(D, 3 * D), nn.Linear(D, D), how

    def forward(self, x):
        q, k, v = (
            z.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for z in self.fused(x).chunk(3, -1)
        )
        if self.how == "sdpa":
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) / (D // HEADS) ** 0.5
            above = torch.ones(x.shape[1], x.shape[1]).triu(1).bool()
            scores = scores.masked_fill(above, -torch.inf)
            if self.how == "bmm":
                y = torch.softmax(scores.flatten(0, 1), -1).view_as(scores) @ v
            else:
                y = torch.softmax(scores, dim=-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, how, residual):
        super().__init__()
        self.ln_1, self.attn, self.residual = nn.LayerNorm(D), SelfAttention(how), residual

    def forward(self, x):
        if self.residual == "in place":
            x = x.clone()
            x += self.attn(self.ln_1(x))
            return x
        if self.residual == "weighted":
            return 0.5 * x + self.attn(self.ln_1(x))
        return x + self.attn(self.ln_1(x))


class Hand(nn.Module):
    def __init__(self, how="sdpa", residual="plain"):
        super().__init__()
        torch.manual_seed(1)
        self.blocks = nn.ModuleList([Block(how, residual) for _ in range(2)])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_a_module_written_by_hand():
    x = torch.randn(2, N, D, generator=torch.Generator().manual_seed(0))
    eager, sdpa = Hand("softmax"), Hand("sdpa")
    for change in (Change("causal-local", beta=0.5, skip="off"), Change(norm="off", beta=2.0)):
        outs = []
        for model in (eager, sdpa):
            with torch.no_grad(), change.applied(model):
                outs.append(model(x))
        assert torch.allclose(*outs, atol=1e-6)
        assert not torch.allclose(outs[0], eager(x), atol=1e-2)
    with torch.no_grad(), Change("complete").applied(sdpa):
        assert not torch.allclose(sdpa(x), eager(x), atol=1e-3)


# --- WU's variants --------------------------------------------------------------------------------


def layer_as_dynamics(block, graph, variant):
    """A layer of BERT as an AttentionDynamics with the same weights (WU, section 3)."""
    own, width = block.attention.self, D // HEADS

    def heads(module):
        return module.weight.detach().numpy().T.reshape(D, HEADS, width).transpose(1, 0, 2)

    W_O = block.attention.output.dense.weight.detach().numpy().T
    b_V, b_O = own.value.bias.detach().numpy(), block.attention.output.dense.bias.detach().numpy()
    layer = weights.LayerWeights(
        query=heads(own.query) / width**0.5,
        query_bias=own.query.bias.detach().numpy().reshape(HEADS, width) / width**0.5,
        key=heads(own.key),
        value=heads(own.value),
        output=W_O.reshape(HEADS, width, D),
        output_bias=b_V @ W_O + b_O,
    )

    def layernorm(module):
        gain, bias = (p.detach().numpy() for p in (module.weight, module.bias))
        return norms.NoNorm() if variant.norm else norms.LayerNorm(gain, bias, module.eps)

    matrices = [
        array
        for module in (block.intermediate.dense, block.output.dense)
        for array in (module.weight.detach().numpy().T, module.bias.detach().numpy())
    ]
    perceptron = mlp.FixedMLP(mlp.MLPWeights(*matrices), activation="gelu")
    return dynsim.AttentionDynamics(
        graph,
        weights.Layers((layer,), name="bert"),
        layernorm(block.attention.output.LayerNorm),
        skip=0.0 if variant.skip else 1.0,
        mlp=mlp.NoMLP() if variant.mlp else perceptron,
        mlp_norm=layernorm(block.output.LayerNorm),
    )


def test_wus_five_variants_under_four_masks_are_the_dynamics_of_the_same_weights():
    model, inputs = build("bert", "sdpa"), inputs_of("bert")
    assert list(VARIANTS) == ["SAN", "SAN + skip", "SAN + LN", "SAN + skip + LN", "transformer"]
    for variant, name in itertools.product(VARIANTS.values(), list(GRAPHS)[1:]):
        graph = GRAPHS[name](N)
        change = dataclasses.replace(variant, mask=graph)
        with change.applied(model):
            first, last, _ = states("bert", model, **inputs)
        x = first[0]
        for block in model.encoder.layer:
            x = layer_as_dynamics(block, graph, variant).step(x)
        assert np.abs(last[0] - x).max() < 1e-11 * np.abs(x).max(), change


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "on"}, "norm is 'off' or None; got 'on'"),
        ({"skip": False}, "skip is 'off' or None; got False"),
        ({"mlp": 0}, "mlp is 'off' or None; got 0"),
        ({"beta": -1.0}, "beta is finite and not negative; got -1"),
        ({"beta": np.nan}, "beta is finite and not negative; got nan"),
        ({"beta": "hot"}, "beta must hold real numbers"),
        ({"mask": "casual"}, "unknown mask 'casual'; did you mean 'causal'"),
        ({"mask": "local", "mask_options": {"windw": 2}}, "did you mean 'window'"),
        ({"mask": "local", "mask_options": {"window": 1.5}}, "is a whole number"),
        ({"mask": "local", "mask_options": 4}, "mask_options are a mapping"),
        ({"mask_options": {"window": 2}}, "mask_options are those of a mask given by name"),
        ({"mask": np.tril(np.ones((3, 3)), -1)}, "row 0 of the mask is empty"),
        ({"mask": np.ones((3, 2))}, "a mask is square"),
        ({"mask": nx.Graph([(0, 1)])}, "a mask is a networkx.DiGraph"),
    ],
)
def test_a_change_is_checked_where_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Change(**arguments)


def refused(model, change, call, message, **options):
    before = hooks_of(model)
    with (
        pytest.raises(ValueError, match=message),
        change.applied(model, **options),
        torch.no_grad(),
    ):
        call()
    assert hooks_of(model) == before


def test_what_cannot_be_changed_is_refused_by_name():
    model, inputs = build("bert"), inputs_of("bert")
    x = torch.randn(1, N, D)
    refused(model, Change("causal"), lambda: None, "no block of BertModel was called")
    refused(
        model, Change(masks.causal(N - 1)), lambda: model(**inputs), "one of 6 tokens and a text"
    )
    refused(
        model, Change("local", {"window": N}), lambda: model(**inputs), "smaller than the number"
    )
    refused(model, Change(norm="off"), lambda: None, "blocks names a list", blocks="encoder.layers")
    for hand, change, message in [
        (Hand("softmax"), Change("complete"), "own code masks entries"),
        (Hand("bmm"), Change("causal"), "of Block cannot be changed: no self-attention was seen"),
        (Hand("bmm"), Change(beta=2.0), "no self-attention was seen"),
        (Hand(residual="in place"), Change(skip="off"), "cannot be|in place"),
        (Hand(residual="weighted"), Change(skip="off"), "residual stream cannot be followed"),
        (Hand(), Change(mlp="off"), "no MLP was seen"),
    ]:
        refused(hand, change, lambda hand=hand: hand(x), message)


def test_models_that_hide_their_attention_are_refused():
    model = build("bert")
    model.config._attn_implementation = "flash_attention_2"
    refused(model, Change("causal"), lambda: None, "'flash_attention_2', which cannot be changed")
    compiled = torch.compile(build("bert"), backend="eager")
    refused(compiled, Change("causal"), lambda: None, "is compiled, and hooks are not called")
    model = build("gpt2").train()
    new = getattr(model, "activation_checkpointing_enable", None)
    (new or model.gradient_checkpointing_enable)()
    refused(model, Change("causal"), lambda: None, "switch gradient checkpointing off")


def test_attention_to_a_cache_is_refused_under_another_mask_only():
    model, inputs = build("llama", "sdpa"), inputs_of("llama")
    # transformers 5.24 calls it `cache`
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    token = {"input_ids": inputs["input_ids"][:, :2], "use_cache": True}
    call = functools.partial(model, **token, **{name: copy.deepcopy(cache)})
    refused(model, Change("causal"), call, "all tokens at once")
    with Change(beta=0.5).applied(model), torch.no_grad():
        whole = model(input_ids=torch.cat([inputs["input_ids"], token["input_ids"]], 1))
        cache = model(**inputs, use_cache=True).past_key_values
        last = model(**token, **{name: cache}).last_hidden_state
    assert torch.allclose(whole.last_hidden_state[:, -2:], last, rtol=1e-5, atol=1e-5)


def test_parallel_attention_and_mlp_are_refused_where_they_cannot_be_told_apart():
    config = transformers.GPTNeoXConfig(
        vocab_size=30, hidden_size=D, num_attention_heads=HEADS, num_hidden_layers=2,
        intermediate_size=24, max_position_embeddings=32,
    )  # fmt: skip
    model, inputs = transformers.GPTNeoXModel(config).eval(), inputs_of("gptneox")
    refused(model, Change(skip="off"), lambda: model(**inputs), "run in parallel")
    with Change("local", norm="off", beta=2.0).applied(model), torch.no_grad():
        model(**inputs)


@pytest.mark.skipif(OLD, reason="of transformers before 5")
def test_a_bias_in_the_models_own_mask_is_refused():
    model, inputs = build("bert"), inputs_of("bert")
    bias = torch.randn(1, 1, N, N).double()
    call = functools.partial(model, **inputs, attention_mask=bias)
    refused(model, Change("causal"), call, "its own mask holds a bias")
    with Change(beta=0.0).applied(model), torch.no_grad():
        assert torch.isfinite(call().last_hidden_state).all()
