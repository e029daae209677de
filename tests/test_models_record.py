"""The tokens and attention of one text are those that the model itself gives."""

import numpy as np
import pytest
import tiny_models as models
import torch

from dynsim.models import Change, record
from dynsim.reports import profiles


def outputs(model, **inputs):
    with torch.no_grad():
        return model(**inputs)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", models.CONFIGS)
def test_tokens_and_attention_are_the_models_own(name, attention):
    inputs = {k: x.double() if x.is_floating_point() else x for k, x in models.inputs(name).items()}
    exact = {"dtype": torch.float64}
    out = outputs(
        models.make(name, "eager", **exact),
        **inputs,
        output_hidden_states=True,
        output_attentions=True,
    )
    states = out.decoder_hidden_states if name == "T5" else out.hidden_states
    weights = out.decoder_attentions if name == "T5" else out.attentions
    model = models.make(name, attention, **exact)
    before = outputs(model, **inputs)[0]
    recording = record(model, **inputs)
    assert torch.equal(outputs(model, **inputs)[0], before)  # nothing is left behind
    assert list(recording.layers) == list(range(-1, len(weights)))
    assert recording.texts == 2
    for x, state in zip(recording.tokens[:-1], states[:-1], strict=True):
        own = state[0].double().numpy()
        np.testing.assert_allclose(x, own, atol=1e-5 * np.abs(own).max())  # eager softmax: float32
    for A, of_layer in zip(recording.attention, weights, strict=True):
        np.testing.assert_allclose(A, of_layer[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("name", models.TEXTS)
def test_padding_is_left_out(name):
    model, inputs = models.make(name), models.inputs(name, samples=1, tokens=7)
    ids = inputs["input_ids"]
    padded = {"input_ids": torch.cat([torch.zeros(1, 4, dtype=ids.dtype), ids], 1)}
    padded["attention_mask"] = (padded["input_ids"] > 0).long()
    padded["position_ids"] = (padded["attention_mask"].cumsum(1) - 1).clamp(min=0)
    alone, beside = record(model, **inputs), record(model, **padded)
    np.testing.assert_allclose(beside.tokens, alone.tokens, atol=1e-5)


def test_a_change_is_recorded():
    model, inputs = models.make("GPT-2"), models.inputs("GPT-2")
    plain = record(model, **inputs)
    changed = record(model, change=Change(mask="complete"), **inputs)
    assert not np.triu(plain.attention[0], 1).any()
    assert np.triu(changed.attention[0], 1).any()


def test_names_and_the_type_of_the_model():
    model, inputs = models.make("BERT", dtype=torch.bfloat16), models.inputs("BERT")
    recording = record(model, names="abcdefghijklmn", **inputs)
    assert recording.names == list("abcdefghi")
    assert recording.eps == torch.finfo(torch.bfloat16).eps
    assert record(model, names="abc", **inputs).names is None  # of another text
    states = profiles._states(recording)
    assert "below 8e-03 they are rounding" in states.views()[1].note
    assert states.views()[0].tokens[1] == "1: b"
    assert states.frames.labels[:2] == ["embeddings", "after block 0"]


def test_long_texts_and_many_layers_are_bounded(monkeypatch):
    monkeypatch.setattr("dynsim.models.recording._MOST_TOKENS", 5)
    monkeypatch.setattr("dynsim.models.recording._MOST_LAYERS", 3)
    recording = record(models.make("Llama"), **models.inputs("Llama"))
    assert recording.tokens.shape[:2] == (3, 5)
    assert list(recording.layers) == [-1, 1, 2]
    assert len(recording.attention) == 2


def test_states_that_are_not_finite_are_refused():
    model = models.make("BERT")
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias[0] = torch.nan
    with pytest.raises(FloatingPointError, match="after block 1 are not finite"):
        record(model, **models.inputs("BERT"))
