"""Tiny models of every architecture that is tested, with random weights, biases and gains."""

import pytest
import torch

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

_SMALL = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 60,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2, "pad_token_id": 0}
CONFIGS = {
    "BERT": lambda: transformers.BertConfig(**_SMALL),
    "RoBERTa": lambda: transformers.RobertaConfig(**_SMALL),
    "DistilBERT": lambda: transformers.DistilBertConfig(
        dim=32, n_heads=4, hidden_dim=64, vocab_size=60, n_layers=3, max_position_embeddings=64
    ),
    "GPT-2": lambda: transformers.GPT2Config(
        n_layer=3, n_embd=32, n_head=4, vocab_size=60, n_positions=64
    ),
    "T5": lambda: transformers.T5Config(
        d_model=32, d_kv=8, num_layers=2, num_decoder_layers=3, num_heads=4, d_ff=64, vocab_size=60
    ),
    "ALBERT": lambda: transformers.AlbertConfig(embedding_size=16, **_SMALL),
    "Llama": lambda: transformers.LlamaConfig(**_GROUPED),
    "Mistral": lambda: transformers.MistralConfig(sliding_window=4, **_GROUPED),
    "Qwen3": lambda: transformers.Qwen3Config(head_dim=8, **_GROUPED),
    "ViT": lambda: transformers.ViTConfig(
        hidden_size=32, num_attention_heads=4, intermediate_size=64, num_hidden_layers=3,
        image_size=16, patch_size=4,
    ),
}  # fmt: skip
#: Those of texts whose positions may be given, from 0.
TEXTS = [name for name in CONFIGS if name not in ("T5", "ViT", "RoBERTa", "DistilBERT")]
DECODERS = ("GPT-2", "Llama", "Mistral", "Qwen3")


def make(name, attention="sdpa", dtype=torch.float32, seed=0):
    """A model of this architecture in eval mode; no bias is 0 and no gain 1."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        try:
            model = transformers.AutoModel.from_config(
                CONFIGS[name](), attn_implementation=attention
            )
        except ValueError:  # before 5 transformers knows no sdpa for T5
            model = transformers.AutoModel.from_config(CONFIGS[name](), attn_implementation="eager")
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter += 0.2 * torch.randn_like(parameter)
                else:
                    parameter *= 6.0  # attention that is far from uniform
    return model.to(dtype).eval()


def inputs(name, samples=2, tokens=9, seed=0):
    """What the model takes."""
    generator = torch.Generator().manual_seed(seed)
    if name == "ViT":
        return {"pixel_values": torch.randn(samples, 3, 16, 16, generator=generator)}
    ids = torch.randint(1, 60, (samples, tokens), generator=generator)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return given | ({"decoder_input_ids": ids[:, :5]} if name == "T5" else {})
