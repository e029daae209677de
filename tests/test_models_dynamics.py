"""Models of transformers as dynamics: every block's output, and what is refused."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

import dynsim
from dynsim import AttentionDynamics, masks, minilm, models, norms, simulate, tokens
from dynsim.models.conversion import FAMILIES, Family

transformers = pytest.importorskip("transformers")

N, LAYERS = 7, 3
SIZES = {
    "hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "intermediate_size": 24,
}  # fmt: skip
WORDS = {"vocab_size": 30, "max_position_embeddings": 20}
GPT2 = {
    "n_embd": 16, "n_layer": LAYERS, "n_head": 4, "n_inner": 24, "vocab_size": 30,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
#: Before 5 transformers computes these two otherwise by scaled_dot_product_attention.
EAGER = {"attn_implementation": "eager"} if transformers.__version__ < "5" else {}
#: Every way in which a model of these families is configured and read.
CONFIGS = {
    "bert": ("Bert", SIZES | WORDS),
    "bert, decoder": ("Bert", SIZES | WORDS | {"is_decoder": True}),
    "bert, relu": ("Bert", SIZES | WORDS | {"hidden_act": "relu"}),
    "roberta": ("Roberta", SIZES | WORDS),
    "distilbert": (
        "DistilBert",
        {"dim": 16, "n_layers": LAYERS, "n_heads": 4, "hidden_dim": 24, "vocab_size": 30},
    ),
    "albert": ("Albert", SIZES | WORDS | {"embedding_size": 8}),
    "gpt2": ("GPT2", GPT2),
    "gpt2, scaled by layer": ("GPT2", GPT2 | EAGER | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt2, not scaled": ("GPT2", GPT2 | EAGER | {"scale_attn_weights": False}),
    "vit": ("ViT", SIZES | {"image_size": 8, "patch_size": 4}),
    "llama": ("Llama", SIZES | WORDS | {"num_key_value_heads": 2}),
    "llama, wide heads": ("Llama", SIZES | WORDS | {"head_dim": 6}),
    "mistral": ("Mistral", SIZES | WORDS | {"num_key_value_heads": 2, "sliding_window": 4}),
}
#: How exact: transformers takes the angles of rotary positions in float32.
RTOL = dict.fromkeys(CONFIGS, 1e-12)
RTOL |= dict.fromkeys(("llama", "llama, wide heads", "mistral"), 1e-6)


def make(name, head="Model", **changed):
    """A model whose every parameter is drawn: fresh ones have gains 1 and biases 0."""
    kind, sizes = CONFIGS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes | changed)
    model = getattr(transformers, f"{kind}{head}")(config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3)
            if parameter.ndim == 1 and "norm" in parameter_name.lower() + ".ln_":
                parameter.add_(parameter_name.endswith("weight"))
    return model.eval().double()


def inputs_of(model):
    if model.config.model_type == "vit":
        generator = torch.Generator().manual_seed(0)
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator).to(model.dtype)}
    return {"input_ids": torch.arange(2 * N).reshape(2, N) + 3}


def blocks_outputs(model, inputs):
    """What the model itself computes after every block, by hooks; (samples, N, d) each."""
    bare, seen = model.base_model, []
    blocks = {id(module): module for module in _blocks(bare)}
    hooks = [
        block.register_forward_hook(
            lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in blocks.values()
    ]
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [state.double().numpy() for state in seen]


def _blocks(bare):
    kinds = [
        r"BertLayer",
        r"RobertaLayer",
        r"TransformerBlock",
        r"AlbertLayer",
        r"GPT2Block",
        r"ViTLayer",
        r"LlamaDecoderLayer",
        r"MistralDecoderLayer",
    ]
    return [module for module in bare.modules() if type(module).__name__ in kinds]


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_block_is_the_models(name):
    model = make(name)
    inputs = inputs_of(model)
    x0 = models.embeddings(model, **inputs)
    stack = models.dynamics(model, x0.shape[1])
    expected = blocks_outputs(model, inputs)
    assert len(expected) == LAYERS
    x = x0
    for t in range(LAYERS):
        x = np.stack([stack.step(sample, t) for sample in x])
        assert relative(x, expected[t]) < RTOL[name], t
        run = simulate(stack, x0, t + 1)
        assert relative(run.final, expected[t]) < RTOL[name], t
    assert stack.n_layers == (None if name == "albert" else LAYERS)
    assert relative(simulate(stack, x0, LAYERS, engine="torch").final, expected[-1]) < RTOL[name]


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit", "llama"])
def test_single_precision_agrees_to_its_own_accuracy(name):
    model = make(name).float()
    inputs = inputs_of(model)
    x0 = models.embeddings(model, **inputs).astype(np.float32)
    run = simulate(models.dynamics(model, x0.shape[1]), x0, LAYERS)
    assert run.final.dtype == np.float32
    assert relative(run.final, blocks_outputs(model, inputs)[-1]) < 1e-5


@pytest.mark.parametrize("name", [name for name in CONFIGS if "," not in name])
def test_every_parameter_of_a_block_is_read(name):
    """Moving any parameter of the blocks, but a bias of keys, moves the dynamics."""
    model = make(name)
    x = tokens.gaussian(1, N, 16)[0]

    def end(stack):
        state = x
        for t in range(LAYERS):
            state = stack.step(state, t)
        return state

    before = end(models.dynamics(model, N))
    inside = {id(p) for block in _blocks(model) for p in block.parameters()}
    generator = torch.Generator().manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        if id(parameter) not in inside:
            continue
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.double))
        moved = relative(end(models.dynamics(model, N)), before)
        with torch.no_grad():
            parameter.copy_(kept)
        is_key_bias = parameter_name.endswith(("key.bias", "k_lin.bias", "k_proj.bias"))
        assert (moved < 1e-12) if is_key_bias else (moved > 1e-4), parameter_name


def test_a_wrong_reading_is_found(monkeypatch):
    """Gains of the wrong layer, heads in another order, another activation: all show."""
    model = make("bert")
    inputs = inputs_of(model)
    x0, expected = models.embeddings(model, **inputs), blocks_outputs(model, inputs)[-1]
    stack = models.dynamics(model, N)
    gelu = dataclasses.replace(stack.mlp, activation="gelu_tanh")
    first = stack.weights.entries[0]
    turned = first._replace(query=first.query[::-1].copy())
    wrong = [
        dataclasses.replace(stack, norm=norms.PerLayer(stack.norm.norms[::-1])),
        dataclasses.replace(stack, mlp_norm=stack.norm),
        dataclasses.replace(stack, mlp=gelu),
        dataclasses.replace(
            stack, weights=dynsim.weights.Layers((turned, *stack.weights.entries[1:]))
        ),
        dataclasses.replace(stack, mask=masks.causal(N)),
    ]
    assert relative(simulate(stack, x0, LAYERS).final, expected) < 1e-12
    for variant in wrong:
        assert relative(simulate(variant, x0, LAYERS).final, expected) > 1e-7


def test_a_model_with_a_head_is_read_as_without():
    headed = make("bert", "ForMaskedLM")
    bare = headed.base_model
    assert models.dynamics(headed, N) == models.dynamics(bare, N)
    assert np.array_equal(
        models.embeddings(headed, **inputs_of(bare)), models.embeddings(bare, **inputs_of(bare))
    )


def test_groups_of_queries_share_a_head_of_keys_and_values(rng):
    """As torch's own grouped attention, by a family made here."""
    d, heads, groups, width = 8, 4, 2, 2

    def linear(columns):
        return rng.standard_normal((d, columns)), rng.standard_normal(columns)

    from dynsim.models.conversion import Block, _heads

    q, k, v, o = linear(heads * width), linear(groups * width), linear(groups * width), linear(d)
    layer = _heads(Block((q, k, v, o), None, None, None, None), heads)
    x = rng.standard_normal((N, d))

    def projected(linear, count):
        W, b = linear
        return torch.from_numpy((x @ W + b).reshape(N, count, width)).transpose(0, 1)

    mixed = torch.nn.functional.scaled_dot_product_attention(
        projected(q, heads), projected(k, groups), projected(v, groups), enable_gqa=True
    )
    expected = mixed.transpose(0, 1).reshape(N, d).numpy() @ o[0] + o[1]
    ours = AttentionDynamics(masks.complete(N), dynsim.weights.Layers((layer,)))
    assert np.allclose(ours.step(x), expected, rtol=1e-12, atol=1e-13)


@pytest.fixture(scope="module")
def real():
    model = transformers.BertModel.from_pretrained(minilm.folder(), local_files_only=True)
    return model.eval().double()


def test_minilm_is_read_alike_by_both_readers(real):
    ids = torch.tensor([[101, 2023, 2003, 1037, 3231, 102]])
    x0 = models.embeddings(real, input_ids=ids)
    stack = models.dynamics(real, 6)
    with torch.no_grad():
        hidden = real(input_ids=ids, output_hidden_states=True).hidden_states
    assert relative(x0, hidden[0].numpy()) < 1e-15
    run = simulate(stack, x0, 6, record=dynsim.Record(measures=("mu",), states=1))
    for t, expected in enumerate(hidden):
        assert relative(run.states[:, t], expected.numpy()) < 1e-12
    own = minilm.stack(masks.complete(6))
    assert all(
        np.allclose(a, b, rtol=1e-14, atol=1e-16)
        for mine, theirs in zip(own.weights.entries, stack.weights.entries, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )
    assert own.norm == stack.norm
    assert own.mlp_norm == stack.mlp_norm
    assert own.mlp == stack.mlp
    for k in range(6):
        assert own.layer(k).norm == minilm.layer(k, masks.complete(6)).norm


def test_what_a_dynamics_cannot_be_is_refused_by_name():
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 9}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    qwen = transformers.Qwen3Model(transformers.Qwen3Config(**tiny, **heads))
    biased = transformers.LlamaModel(
        transformers.LlamaConfig(**tiny, **heads, attention_bias=True)
    ).eval()
    gelu = transformers.LlamaModel(transformers.LlamaConfig(**tiny, **heads, hidden_act="gelu"))
    scaled = make("llama")
    scaled.config.rope_parameters = {"rope_type": "yarn", "rope_theta": 10.0, "factor": 4.0}
    t5 = transformers.T5Model(
        transformers.T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4, vocab_size=9)
    )
    meta = transformers.BertModel(transformers.BertConfig(**SIZES | WORDS)).to("meta").eval()
    eight = make("bert")
    eight.encoder.layer[0].output.dense.weight = torch.nn.Parameter(
        torch.zeros(16, 24, dtype=torch.int8), requires_grad=False
    )
    refused = [
        (qwen, r"Qwen3Model .* has blocks like Llama's with something more"),
        (biased, "keys have biases, which do not cancel under rotary positions"),
        (gelu.eval(), "unknown activation of the model's MLP 'gelu'; known are silu"),
        (scaled, r"rotary positions are scaled \(yarn"),
        (t5, "T5Model .* relative position biases"),
        (make("bert").train(), r"training mode, with dropout; use model\.eval"),
        (make("bert", is_decoder=True, add_cross_attention=True), "cross attention"),
        (make("bert", hidden_act="silu"), "unknown activation of the model's MLP 'silu'"),
        (make("albert", num_hidden_groups=3), "3 groups of 1"),
        (meta, r"not loaded \(meta device\)"),
        (eight, r"quantised \(torch\.int8\)"),
        (torch.nn.Linear(2, 2), "a model is one of the package transformers; got Linear"),
        ("bert", "a model is one of the package transformers; got 'bert'"),
    ]
    for model, words in refused:
        with pytest.raises(ValueError, match=words):
            models.dynamics(model, N)
    with pytest.raises(ValueError, match="is not known as a dynamics; known are albert, bert"):
        models.dynamics(transformers.OPTModel(transformers.OPTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=8, vocab_size=9,
            word_embed_proj_dim=8)), N)  # fmt: skip
    with pytest.raises(ValueError, match="number of tokens is a whole number"):
        models.dynamics(make("bert"), 0)


def test_padding_is_no_token():
    model = make("bert")
    given = inputs_of(model)
    padded = torch.ones_like(given["input_ids"])
    assert models.embeddings(model, **given, attention_mask=padded).shape == (2, N, 16)
    padded[1, -1] = 0
    with pytest.raises(ValueError, match="padding is no token; give texts one by one"):
        models.embeddings(model, **given, attention_mask=padded)


def test_the_model_is_left_as_it_was():
    model = make("gpt2")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    models.embeddings(model, **inputs_of(model))
    models.dynamics(model, N)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_family_can_be_added(monkeypatch):
    """Under another name BERT's reader reads a model of that name."""
    model = make("bert")
    model.config.model_type = "mine"
    with pytest.raises(ValueError, match="not known as a dynamics"):
        models.dynamics(model, N)
    own = FAMILIES["bert"]
    monkeypatch.setitem(FAMILIES, "mine", Family(own.blocks, own.first))
    assert models.dynamics(model, N).n_layers == LAYERS


def test_real_weights_have_rates_and_exponents(real):
    """What is asked of any dynamics can be asked of one layer of a model."""
    one = models.dynamics(make("bert"), 3).layer(1)
    x = tokens.gaussian(1, 3, 16)[0]
    found = dynsim.lyapunov.spectrum(one, x, count=2, layers=60, discard=20)
    assert np.isfinite(found.exponents).all()
    run = simulate(one, x, 60)
    assert dynsim.verdict(run).kind


def test_quantised_modules_are_refused():
    model = make("bert").float()
    layer = model.encoder.layer[1].intermediate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own quantisation deprecated
        layer.dense = torch.ao.nn.quantized.dynamic.Linear(16, 24)
    with pytest.raises(ValueError, match="is quantised; load it in float32"):
        models.dynamics(model, N)
