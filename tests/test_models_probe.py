"""Probing real models: what hooks measure against hidden states and attention taken by hand."""

import copy

import numpy as np
import pytest
import tiny_models as models
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import dynsim
from dynsim.geometry.selectability import selectable
from dynsim.models import tracing
from dynsim.models.attention import AttentionCalls, second_eigenvalue
from dynsim.models.diagnosis import diagnose
from dynsim.models.profile import joined, load_profile
from dynsim.models.states import RANKS, STATE, measure_state
from dynsim.models.tracing import MEASURED, POINTS

ALL = tuple(MEASURED)


def outputs(model, **inputs):
    with torch.no_grad():
        return model(**inputs)


def by_hand(x):
    """Measures of one text from their definitions."""
    x = np.asarray(x, np.float64)
    sigma = np.linalg.svd(x, compute_uv=False)
    share = sigma / np.sum(sigma)
    norms = np.linalg.norm(x, axis=1)
    cosines = (x @ x.T) / np.outer(norms, norms)
    pairs = cosines[np.triu_indices(len(x), 1)]
    size, d = np.linalg.norm(x), x.shape[1]
    mu = np.linalg.norm(x - x.mean(axis=0))
    to_ones = x.sum(axis=1) / norms / np.sqrt(d)
    return {
        "mu": mu,
        "relative_mu": mu / size,
        "rank_one_distance": np.sqrt(np.sum(sigma[1:] ** 2)) / size,
        "stable_rank": size**2 / sigma[0] ** 2,
        "effective_rank": np.exp(-np.sum(share * np.log(share + 1e-300))),
        "sigma_max": sigma[0],
        "mean_cosine": pairs.mean(),
        "mean_abs_cosine": np.abs(pairs).mean(),
        "angle_to_ones": np.degrees(np.arccos(to_ones)).mean(),
        "cosine_to_ones": np.sqrt(d) * np.abs(to_ones).mean(),
        "norm_median": np.median(norms),
        "norm_max": norms.max(),
    }


# --- what is measured -------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", models.CONFIGS)
def test_hidden_states_are_the_models_own(name, attention):
    model, inputs = models.make(name, attention), models.inputs(name)
    profile = dynsim.probe(model, **inputs)
    out = outputs(model, **inputs, output_hidden_states=True)
    taken = [out.decoder_hidden_states, out.encoder_hidden_states] if name == "T5" else [
        out.hidden_states
    ]  # fmt: skip
    for stack, states in zip(reversed(profile.stacks), taken, strict=True):
        layers = len(profile.residual("mu", stack))
        assert layers == len(states)
        for layer in range(layers - 1):  # what the last one is differs: after the final norm or not
            for sample, x in enumerate(states[layer]):
                for measure, value in by_hand(x).items():
                    found = profile.residual(measure, stack)[layer, sample]
                    assert found == pytest.approx(value, rel=2e-5), (measure, layer)
        final = out[0] if stack == profile.stacks[-1] else out.encoder_last_hidden_state
        last = "final_norm" if (stack, "final_norm") in profile.states else "layers_output"
        found = profile.states[stack, last]["mu"][-1]
        assert found == pytest.approx([by_hand(x)["mu"] for x in final], rel=2e-5)


def by_hand_heads(A):
    """Statistics of the heads of one text, A (H, N, N)."""
    turned = np.swapaxes(A, -1, -2)
    rows = np.where(A > 0, A, 1.0)
    return {
        "entropy": -np.sum(A * np.log(rows), axis=-1).mean(axis=-1),
        "first_token": A[:, 1:, 0].mean(axis=-1),
        "row_mass": A.sum(axis=-1).mean(axis=-1),
        "symmetric": [
            1 - np.linalg.norm(a - b) / np.linalg.norm(a + b)
            for a, b in zip(A, turned, strict=True)
        ],
    }


@pytest.mark.parametrize("name", models.CONFIGS)
def test_statistics_of_heads_are_those_of_the_attention_that_eager_gives(name):
    inputs = models.inputs(name)
    eager = models.make(name, "eager")
    out = outputs(eager, **inputs, output_attentions=True)
    attentions = out.decoder_attentions if name == "T5" else out.attentions
    for attention in ("sdpa", "eager"):
        profile = dynsim.probe(models.make(name, attention), **inputs)
        heads = profile.heads[profile.stacks[-1]]
        for layer, of_layer in enumerate(attentions):
            for sample, A in enumerate(of_layer.double().numpy()):
                for statistic, values in by_hand_heads(A).items():
                    found = heads[statistic][layer, sample]
                    np.testing.assert_allclose(found, values, atol=2e-5, err_msg=statistic)


def test_norms_are_measured_before_and_after():
    model, inputs = models.make("GPT-2"), models.inputs("GPT-2")
    profile = dynsim.probe(model, **inputs)
    assert len(profile.norms) == 2 * 3 + 1
    x = outputs(model, **inputs, output_hidden_states=True).hidden_states[1]  # into block 1
    y = outputs(model.h[1].ln_1, input=x)
    table = profile.norms["h.1.ln_1"]
    for sample in range(2):
        a, b = (z[sample].double().numpy() for z in (x, y))
        sizes = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        turned = np.degrees(np.arccos(np.sum(a * b, axis=1) / sizes[0] / sizes[1])).mean()
        ones = np.degrees(np.arccos(b.sum(axis=1) / sizes[1] / np.sqrt(32))).mean()
        assert table["rotation"][sample] == pytest.approx(turned, abs=1e-3)
        assert table["angle_after"][sample] == pytest.approx(ones, abs=1e-3)
        assert table["norm_before"][sample] == pytest.approx(np.median(sizes[0]), rel=1e-5)


def test_unselectable_keys_and_the_attention_graph():
    model, inputs = models.make("Llama"), models.inputs("Llama", tokens=20)
    heads = dynsim.probe(model, measured=ALL, **inputs).heads["layers"]
    A = outputs(models.make("Llama", "eager"), **inputs, output_attentions=True).attentions
    for layer in range(3):
        for sample in range(2):
            graph = A[layer][sample].double().numpy()
            graph = graph >= 0.1 * graph.max(axis=-1, keepdims=True)
            walk = graph / graph.sum(axis=-1, keepdims=True)
            moduli = np.sort(np.abs(np.linalg.eigvals(walk)), axis=-1)[:, -2]
            np.testing.assert_allclose(heads["lambda_2"][layer, sample], moduli, atol=1e-6)
    share = heads["unselectable"]  # 20 keys in 8 dimensions; heads of a group share their keys
    assert np.all((share >= 0) & (share < 0.5))
    assert np.array_equal(share[..., 0], share[..., 1])
    assert np.array_equal(share[..., 2], share[..., 3])


def test_heads_of_a_group_are_decided_once(monkeypatch):
    """As many sets of keys as there are key heads, whether the model repeats them for its heads or
    not; the shares are those of every head's keys decided by themselves."""
    decided = []

    def counting(keys):
        decided.append(len(keys))
        return selectable(keys)

    monkeypatch.setattr(tracing, "selectable", counting)
    model, inputs = models.make("Llama"), models.inputs("Llama", tokens=20)
    shares = dynsim.probe(model, measured=("keys",), **inputs).heads["layers"]["unselectable"]
    assert set(decided) == {2}
    seen = []

    def see(calls):
        seen.append({call.text: selectable(call.keys.numpy()) for call in calls})

    with torch.no_grad(), AttentionCalls(lambda: True, see):
        model(**inputs)
    expected = [[1.0 - won.mean(axis=-1) for won in layer.values()] for layer in seen]
    assert np.array_equal(shares, expected)


def test_lambda_2_of_a_causal_graph_is_its_largest_share_of_self():
    A = torch.tril(torch.ones(1, 6, 6))
    assert float(second_eigenvalue(A / A.sum(-1, keepdim=True), 0.1)) == pytest.approx(1 / 2)


@given(st.integers(2, 12), st.integers(1, 20), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_measures_of_a_state(n, d, seed):
    x = np.random.default_rng(seed).normal(size=(n, d)) + 0.3
    for eps in (np.finfo(np.float32).eps, np.finfo(np.float64).eps):
        found = measure_state(x, float(eps))
        assert set(found) == set(STATE)
        for name, value in by_hand(x).items():
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name
        assert found["rank"] == min(n, d)


def test_a_sink_token_makes_the_stable_rank_one_while_nothing_has_collapsed():
    x = np.random.default_rng(0).normal(size=(40, 16))
    plain = measure_state(x, 1e-7)
    sink = np.vstack([1e4 * x[:1], x])
    found = measure_state(sink, 1e-7)
    assert found["sinks"] == 1
    assert found["stable_rank"] == pytest.approx(1, abs=1e-4)
    for name in RANKS:
        assert found[f"{name}_without_sinks"] == pytest.approx(plain[name], rel=1e-9)


def test_a_sink_is_found_by_attention_too_but_never_most_of_the_tokens():
    x = np.random.default_rng(0).normal(size=(6, 16))
    assert measure_state(x, 1e-7, np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1]))["sinks"] == 1
    assert measure_state(x[:2], 1e-7, np.array([1.0, 1.0]))["sinks"] == 0


# --- points -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "ALBERT", "Llama", "T5", "ViT"])
def test_the_residual_stream_is_the_sum_of_its_points(name):
    """Whatever the architecture: x + attention + MLP, through the norms of BERT and ALBERT."""
    model, inputs = models.make(name), models.inputs(name, samples=1)
    seen = {}
    wanted = ("attentions_output", "mlps_output", "layers_output")
    profile = dynsim.probe(model, points=(*POINTS,), **inputs)
    sources = profile.facts["sources"]
    stack = profile.stacks[-1]

    def keep(point, x):
        seen.setdefault(point, x[0] if isinstance(x, tuple) else x)

    for point in wanted:
        module = model.get_submodule(sources[f"{stack}: {point}"].removeprefix("output of "))
        module.register_forward_hook(lambda _, args, out, point=point: keep(point, out))
    first = model.get_submodule(sources[f"{stack}: embeddings"].removeprefix("input of "))
    first.register_forward_pre_hook(
        lambda _, args, kwargs: keep("x", args or kwargs["hidden_states"]), with_kwargs=True
    )
    outputs(model, **inputs)
    x, attention, mlp, y = (seen[key] for key in ("x", *wanted))
    if name == "BERT":
        block = model.encoder.layer[0]
        total = block.output.LayerNorm(block.attention.output.LayerNorm(x + attention) + mlp)
    elif name == "ALBERT":
        block = model.encoder.albert_layer_groups[0].albert_layers[0]
        total = block.full_layer_layer_norm(block.attention.LayerNorm(x + attention) + mlp)
    elif name == "T5":  # cross attention between the two
        cross = model.decoder.block[0].layer[1]
        held = []
        handle = cross.register_forward_hook(lambda _, args, out: held.append(out[0]))
        outputs(model, **inputs)
        handle.remove()
        total = held[0] + mlp
    else:
        total = x + attention + mlp
    torch.testing.assert_close(total, y, rtol=1e-5, atol=1e-5)


def test_albert_is_keyed_by_the_order_of_calls():
    model, inputs = models.make("ALBERT"), models.inputs("ALBERT")
    profile = dynsim.probe(model, **inputs)
    assert profile.residual("mu").shape == (4, 2)
    assert len(np.unique(profile.residual("mu")[:, 0])) == 4


def test_modules_may_be_named_by_a_pattern():
    model, inputs = models.make("GPT-2"), models.inputs("GPT-2")
    profile = dynsim.probe(model, points=["*.mlp.act", "wte"], **inputs)
    assert [point for _, point in profile.states] == ["wte", "mlp.act"]
    assert profile.states["h", "mlp.act"]["mu"].shape == (3, 2)
    assert profile.facts["sources"]["h: mlp.act"] == "h.0.mlp.act"


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.attn = nn.MultiheadAttention(d, 2, batch_first=True)
        self.ff = nn.Linear(d, d)

    def forward(self, x):
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return x + torch.tanh(self.ff(x))


class HandWritten(nn.Module):
    def __init__(self, d=8):
        super().__init__()
        self.trunk = nn.ModuleList(Block(d) for _ in range(3))

    def forward(self, x):
        for block in self.trunk:
            x = block(x)
        return x


def test_a_hand_written_module():
    torch.manual_seed(0)
    model, x = HandWritten(), torch.randn(2, 5, 8)
    profile = dynsim.probe(model, x=x, points=(*POINTS,))
    assert profile.stacks == ["trunk"]
    assert profile.residual("mu").shape == (4, 2)
    with torch.no_grad():
        y = model.trunk[0](x)
        _, A = model.trunk[1].attn(y, y, y, average_attn_weights=False)
    found = profile.heads["trunk"]["entropy"][1]
    np.testing.assert_allclose(found, -(A * A.log()).sum(-1).mean(-1).numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_torchs_own_encoder_is_seen_in_spite_of_its_fast_path():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 3).eval()
    profile = dynsim.probe(model, src=torch.randn(2, 6, 16))
    assert profile.residual("mu").shape == (4, 2)
    assert profile.heads["layers"]["entropy"].shape == (3, 2, 4)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_sink_in_the_softmax_takes_mass_from_the_rows():
    config = models.transformers.GptOssConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=60,
        intermediate_size=32, num_hidden_layers=2, num_local_experts=2, num_experts_per_tok=1,
        max_position_embeddings=64, pad_token_id=0,
    )  # fmt: skip
    model = models.transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.sinks.fill_(2.0)
    profile = dynsim.probe(model, **models.inputs("Llama"))
    mass = profile.heads["layers"]["row_mass"]
    A = outputs(model, **models.inputs("Llama"), output_attentions=True).attentions
    np.testing.assert_allclose(mass[0], A[0].sum(-1).mean(-1).numpy(), atol=1e-5)
    assert np.all(mass < 0.9)


# --- nothing is changed -----------------------------------------------------------------------


@pytest.mark.parametrize("name", models.CONFIGS)
def test_outputs_do_not_change_by_a_bit_and_nothing_is_left_behind(name):
    model, inputs = models.make(name), models.inputs(name)
    before = outputs(model, **inputs)[0]
    with dynsim.trace(model, points=(*POINTS,), measured=ALL) as traced:
        during = outputs(model, **inputs)[0]
    assert torch.equal(before, during)
    assert traced.profile.samples == 2
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_nothing_is_left_behind_after_an_error():
    model, inputs = models.make("BERT"), models.inputs("BERT")
    model.train()
    with pytest.raises(IndexError):
        dynsim.probe(model, **inputs, token_type_ids=inputs["input_ids"] + 1000)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`")
def test_a_model_in_training_is_measured_with_its_gradients_left_alone():
    model, inputs = models.make("GPT-2"), models.inputs("GPT-2")
    model.gradient_checkpointing_enable()
    model.train()
    torch.manual_seed(3)
    model(**inputs)[0].sum().backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(3)
    with dynsim.trace(model) as traced:
        model(**inputs)[0].sum().backward()  # blocks are run again for the gradient
    assert all(torch.equal(a, p.grad) for a, p in zip(plain, model.parameters(), strict=True))
    assert traced.profile.residual("mu").shape == (4, 2)
    assert traced.profile.facts["mode"] == "train"


def test_train_mode_measures_with_dropout_and_the_same_seed_gives_the_same():
    model, inputs = models.make("BERT"), models.inputs("BERT")
    plain = dynsim.probe(model, **inputs).residual("mu")
    torch.manual_seed(5)
    noisy = dynsim.probe(model, train_mode=True, **inputs)
    torch.manual_seed(5)
    again = dynsim.probe(model, train_mode=True, **inputs)
    assert "train mode" in str(noisy)
    assert not np.allclose(noisy.residual("mu"), plain, rtol=1e-3)
    assert np.array_equal(noisy.residual("mu"), again.residual("mu"))
    assert not model.training


# --- traps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", models.TEXTS)
def test_padded_texts_are_measured_like_unpadded_ones(name, side):
    model, inputs = models.make(name), models.inputs(name, samples=1, tokens=7)
    ids = inputs["input_ids"]
    pad = torch.zeros(1, 4, dtype=ids.dtype)
    parts = [pad, ids] if side == "left" else [ids, pad]
    padded = {"input_ids": torch.cat(parts, 1)}
    padded["attention_mask"] = (padded["input_ids"] > 0).long()
    padded["position_ids"] = (padded["attention_mask"].cumsum(1) - 1).clamp(min=0)
    alone, beside = dynsim.probe(model, **inputs), dynsim.probe(model, **padded)
    assert beside.residual("tokens").max() == 7
    for measure in ("mu", "stable_rank", "mean_abs_cosine"):
        np.testing.assert_allclose(beside.residual(measure), alone.residual(measure), rtol=1e-4)
    stack = alone.stacks[0]
    for statistic, values in alone.heads[stack].items():
        np.testing.assert_allclose(beside.heads[stack][statistic], values, atol=1e-4)
    for norm, table in alone.norms.items():
        if norm in beside.norms and "layer" in norm:
            np.testing.assert_allclose(beside.norms[norm]["rotation"], table["rotation"], atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_floor_is_that_of_the_models_type(dtype):
    profile = dynsim.probe(models.make("Llama", dtype=dtype), **models.inputs("Llama"))
    assert profile.facts["dtype"] == str(dtype).removeprefix("torch.")
    assert profile.residual("floor")[0, 0] == pytest.approx(8 * torch.finfo(dtype).eps)


@pytest.mark.filterwarnings("ignore")  # torch moves its quantisation to another package
def test_a_dynamically_quantised_model_is_measured():
    model, inputs = models.make("BERT"), models.inputs("BERT")
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear})
    found = dynsim.probe(quantised, **inputs).residual("relative_mu")
    np.testing.assert_allclose(
        found, dynsim.probe(model, **inputs).residual("relative_mu"), rtol=0.1
    )


def test_batches_give_what_all_at_once_gives():
    model, inputs = models.make("GPT-2", dtype=torch.float64), models.inputs("GPT-2", samples=5)
    shares = []
    whole = dynsim.probe(model, **inputs)
    parts = dynsim.probe(model, batch_size=2, progress=shares.append, **inputs)
    assert shares == [0.4, 0.8, 1.0]
    assert parts.samples == 5
    np.testing.assert_allclose(parts.residual("mu"), whole.residual("mu"), rtol=1e-12)


def test_several_calls_number_their_samples_on():
    model = models.make("BERT")
    with dynsim.trace(model) as traced:
        for seed in range(3):
            outputs(model, **models.inputs("BERT", tokens=6 + seed, seed=seed))
    profile = traced.profile
    assert profile.samples == 6
    assert list(profile.residual("tokens")[0]) == [6, 6, 7, 7, 8, 8]


class Compiled(nn.Module):
    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


class Streams(HandWritten):
    def forward(self, x):
        return self.trunk[0](x)[..., None].unsqueeze(0)


def one_nan():
    model = models.make("GPT-2")
    with torch.no_grad():
        model.h[1].mlp.c_proj.bias[3] = torch.nan
    return model


LONG = {"input_ids": torch.ones(1, 65, dtype=torch.long)}
SHORT = {"input_ids": torch.ones(1, 1, dtype=torch.long)}
PADDED = {
    "input_ids": torch.ones(2, 4, dtype=torch.long),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]),
}


@pytest.mark.parametrize(
    ("make", "inputs", "options", "words"),
    [
        (lambda: "gpt2", {}, {}, "a model is a torch.nn.Module; got str"),
        (lambda: nn.Linear(2, 2), {"input": torch.ones(2, 2)}, {}, "Linear has no list of blocks"),
        (lambda: models.make("BERT"), LONG, {}, "65 tokens is longer than the model's 64"),
        (lambda: models.make("GPT-2"), LONG, {}, "longer than the model's 64 positions"),
        (lambda: models.make("BERT"), SHORT, {}, "a text of one token has nothing to collapse"),
        (lambda: models.make("BERT"), PADDED, {}, "text 1 has 1 token"),
        (lambda: models.make("BERT"), {}, {}, "there is no input"),
        (lambda: models.make("BERT"), {"input_ids": [[1, 99]]}, {}, "0 to 59; got 1 to 99"),
        (lambda: models.make("T5"), {"input_ids": [[1, 9]]}, {}, "give decoder_input_ids"),
        (lambda: Compiled(models.make("BERT")), SHORT, {}, "compiled, and hooks are not called"),
        (lambda: models.make("BERT").to("meta"), LONG, {}, "meta device and has no values"),
        (
            lambda: models.make("BERT"), models.inputs("BERT"), {"points": ["layer_output"]},
            "did you mean 'layers_output'",
        ),
        (
            lambda: models.make("BERT"), models.inputs("BERT"),
            {"points": ["final_norm"], "measured": ["norms"]},
            "the model has none at final_norm; name a point that it has",
        ),
        (lambda: models.make("BERT"), models.inputs("BERT"), {"points": []}, "there is no point"),
        (
            lambda: models.make("BERT"), models.inputs("BERT"), {"measured": ["head"]},
            "did you mean 'heads'",
        ),
        (
            lambda: models.make("BERT"), models.inputs("BERT"), {"blocks": "encoder.layers"},
            "lists here: encoder.layer",
        ),
        (lambda: models.make("BERT"), models.inputs("BERT"), {"threshold": 0.0}, "above 0"),
        (lambda: models.make("BERT"), models.inputs("BERT"), {"batch_size": 0}, "batch size"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_one_clear_line(make, inputs, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        dynsim.probe(make(), **options, **inputs)
    assert "\n" not in str(caught.value)


def test_a_compiled_module_is_refused():
    model = models.make("BERT")
    model.encoder.compile(backend="eager")
    with pytest.raises(ValueError, match=r"^encoder is compiled"):
        dynsim.probe(model, **models.inputs("BERT"))


def test_a_number_that_is_not_finite_is_named():
    with pytest.raises(FloatingPointError, match=r"layers_output of layer 1, sample 0: .*nan in"):
        dynsim.probe(one_nan(), **models.inputs("GPT-2"))


def test_a_model_that_is_not_its_own_is_refused():
    class Drifting(HandWritten):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) + self.calls

    with pytest.raises(ValueError, match="output with hooks is not that without"):
        dynsim.probe(Drifting(), x=torch.randn(1, 4, 8))


def test_a_trace_without_a_call_says_so():
    model = models.make("BERT")
    with dynsim.trace(model) as traced:
        pass
    with pytest.raises(ValueError, match="nothing was measured; call the very model"):
        traced.profile  # noqa: B018


def test_a_step_of_generation_is_refused_in_words():
    model = models.make("GPT-2")
    with dynsim.trace(model), pytest.raises(ValueError, match="trace the pass over the prompt"):
        outputs(model, input_ids=torch.ones(1, 1, dtype=torch.long))


# --- arrays and files -------------------------------------------------------------------------


def test_arrays_tensors_and_files_are_measured_alike(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 2, 6, 4)).astype(np.float32)
    expected = dynsim.measure(x).residual("mu")
    assert expected.shape == (3, 2)
    np.savez(tmp_path / "x.npz", **{f"layer_{k}": layer for k, layer in enumerate(x)})
    np.save(tmp_path / "x.npy", x)
    for same in (
        list(x),
        torch.from_numpy(x).requires_grad_(),
        [torch.from_numpy(layer) for layer in x],
        dict(enumerate(x)),
        str(tmp_path / "x.npz"),
        tmp_path / "x.npy",
    ):
        assert np.array_equal(dynsim.measure(same).residual("mu"), expected)
    half = dynsim.measure([torch.from_numpy(layer).bfloat16() for layer in x])
    np.testing.assert_allclose(half.residual("mu"), expected, rtol=1e-2)
    assert half.residual("floor")[0, 0] == pytest.approx(8 * 2**-7)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([], "at least one layer"),
        (3, "hidden states are layers"),
        ([np.ones(3)], r"a layer is \(N, d\)"),
        ([np.ones((1, 3))], "one token"),
        ([np.ones((2, 3), int)], "floating-point numbers; got int64"),
        ([torch.ones(2, 3, dtype=torch.int32)], "floating-point numbers; got torch.int32"),
        ("no_such_file.npz", "no file at"),
    ],
)
def test_wrong_hidden_states_are_one_clear_line(states, words):
    with pytest.raises(ValueError, match=words):
        dynsim.measure(states)


def test_hidden_states_that_are_not_finite():
    x = np.ones((2, 3))
    x[1, 2] = np.inf
    with pytest.raises(FloatingPointError, match=r"layer 0, sample 0: .*inf in dimension 2"):
        dynsim.measure([x])


# --- the result -------------------------------------------------------------------------------


def test_a_profile_is_kept_and_read_whole(tmp_path):
    profile = dynsim.probe(models.make("T5"), measured=ALL, **models.inputs("T5"))
    path = profile.save(tmp_path / "run.nc")
    again = load_profile(path)
    assert str(again) == str(profile)
    assert again.facts == profile.facts
    assert again.to_dict() == profile.to_dict()
    (tmp_path / "other.nc").write_text("no")
    for bad in ("other.nc", "none.nc"):
        with pytest.raises(ValueError, match="profile"):
            load_profile(tmp_path / bad)


def test_the_dataset_has_a_variable_a_measure():
    dataset = dynsim.probe(models.make("BERT"), **models.inputs("BERT")).dataset
    assert dataset["mu"].dims == ("point", "layer", "sample")
    assert dataset["mu"].sel(point="layers_output").shape == (3, 2)
    assert dataset["entropy"].dims == ("layer", "sample", "head")
    assert np.isnan(dataset["mu"].sel(point="embeddings", layer=1)).all()
    dataset = dynsim.probe(models.make("T5"), **models.inputs("T5")).dataset
    assert dataset["mu"].dims == ("stack", "point", "layer", "sample")
    assert list(dataset["stack"].values) == ["encoder.block", "decoder.block"]


def test_profiles_of_one_model_are_joined_and_others_are_not():
    model = models.make("BERT")
    a, b = (dynsim.probe(model, **models.inputs("BERT", seed=seed)) for seed in (0, 1))
    both = joined([a, b])
    assert both.samples == 4
    assert np.array_equal(both.residual("mu")[:, 2:], b.residual("mu"))
    with pytest.raises(ValueError, match="of one model"):
        joined([a, dynsim.probe(models.make("GPT-2"), **models.inputs("GPT-2"))])


def test_the_figure_of_several_profiles():
    model = models.make("BERT")
    profile = dynsim.probe(model, **models.inputs("BERT"))
    bare = dynsim.probe(models.make("BERT", seed=1), measured=(), **models.inputs("BERT"))
    figure = profile.plot({"another": bare})
    words = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(words) == ["BertModel", "another"]
    assert figure.axes[0].get_title(loc="left").endswith("dashed: all tokens")


def diagnosed(mu, stable=5.0, others=None, sinks=0.0):
    mu = np.asarray(mu)[:, None]
    full = np.ones_like(mu)
    return diagnose({
        "relative_mu": mu, "relative_mu_without_sinks": mu, "stable_rank": stable * full,
        "stable_rank_without_sinks": (stable if others is None else others) * full,
        "sinks": sinks * full, "floor": 1e-6 * full,
    }).kind  # fmt: skip


def test_each_diagnosis():
    assert diagnosed([0.9, 0.5, 0.005]) == "collapsed"
    assert diagnosed([0.9, 0.6, 0.3]) == "collapsing"
    assert diagnosed([0.9, 0.8, 0.65]) == "slowly collapsing"
    assert diagnosed([0.9, 0.9, 0.9]) == "healthy"
    assert diagnosed([0.9, 0.9], stable=1.0, others=4.0, sinks=1.0) == "sink only"
    assert diagnosed([0.9, 0.9], stable=1.0) == "rank one"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted({*dynsim.measures.MEASURES} - {"attention_entropy"}))
def test_measures_take_tensors_with_gradients(name, dtype):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    measure = getattr(dynsim.measures, name)
    assert np.array_equal(measure(x), measure(x.detach().float().numpy()), equal_nan=True)
