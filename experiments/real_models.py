"""Real models and their inputs, for the experiments on them: trained ones and initialised ones.

MiniLM and SmolLM2 come with packages. Of the papers' own models trained weights are used where they
lie in the cache of Hugging Face; everywhere else these four are made from their configurations, as
transformers initialises them, in evaluation mode. To random embeddings it does not matter which
number a word has, so that those models read the word pieces of BERT's tokenizer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from dynsim.models import excerpts
from experiments import bert

__all__ = [
    "CHECKPOINTS",
    "Real",
    "norms_of",
    "one_thread",
    "real_models",
    "residual_stream",
    "stacked",
]

#: Names of trained weights: of packages, and of the Hub.
CHECKPOINTS = {
    "MiniLM": "minilm",
    "SmolLM2": "smollm2",
    "BERT": "bert-base-uncased",
    "GPT-2": "gpt2",
    "T5": "t5-base",
    "ALBERT": "albert-base-v2",
}


class Real(NamedTuple):
    """A model, whether it is trained, and what it is given."""

    name: str
    trained: bool
    model: Any
    inputs: dict[str, Any]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: on so small matrices several wait for each other longer than they
    compute, where others share the cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def real_models(
    names: Iterable[str], n_tokens: int, samples: int, seed: int, sizes: dict[str, int]
) -> Iterator[Real]:
    """Of every name the trained model, if it can be had, and the same architecture initialised.

    Models are made one after another, on `one_thread`. What is left out is said on standard error.

    n_tokens, samples : of the excerpts, the first ones of `experiments.bert.text`
    sizes : dim, heads and layers of the papers' four as they are initialised
    """
    with one_thread():
        for name in names:
            yield from _both(name, n_tokens, samples, seed, sizes)


def _both(name: str, n_tokens: int, samples: int, seed: int, sizes) -> Iterator[Real]:
    from dynsim.models.sources import open_source

    try:
        source = open_source(CHECKPOINTS[name])
    except ValueError as error:
        print(f"no trained {name}: {str(error).split(';')[0]}", file=sys.stderr)
        if name in _CONFIGURATIONS:
            yield _initialised(name, n_tokens, samples, seed, sizes)
        return
    inputs = excerpts(source, bert.text(samples * n_tokens), n_tokens, samples)
    yield Real(name, True, source.model, inputs)
    fresh = source.untrained(seed)
    del source  # and the trained weights with it
    yield Real(name, False, fresh.model, inputs)


def _initialised(name: str, n_tokens: int, samples: int, seed: int, sizes) -> Real:
    import torch
    import transformers

    config = _CONFIGURATIONS[name](transformers, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = transformers.AutoModel.from_config(config, dtype=torch.float32).eval()
    ids = torch.from_numpy(bert.word_pieces(samples, n_tokens)) % config.vocab_size
    decoder = {"decoder_input_ids": ids[:, :2]} if config.is_encoder_decoder else {}
    return Real(name, False, model, {"input_ids": ids, **decoder})


def _bert(transformers, dim: int, heads: int, layers: int):
    return transformers.BertConfig(
        hidden_size=dim, num_attention_heads=heads, num_hidden_layers=layers,
        intermediate_size=4 * dim,
    )  # fmt: skip


def _gpt2(transformers, dim: int, heads: int, layers: int):
    return transformers.GPT2Config(n_embd=dim, n_head=heads, n_layer=layers)


def _t5(transformers, dim: int, heads: int, layers: int):
    return transformers.T5Config(
        d_model=dim, num_heads=heads, d_kv=dim // heads, num_layers=layers, d_ff=4 * dim
    )


def _albert(transformers, dim: int, heads: int, layers: int):
    return transformers.AlbertConfig(
        embedding_size=dim // 6, hidden_size=dim, num_attention_heads=heads,
        num_hidden_layers=layers, intermediate_size=4 * dim,
    )  # fmt: skip


#: Of sizes 768, 12, 12 those of bert-base-uncased, gpt2, t5-base and albert-base-v2.
_CONFIGURATIONS = {"BERT": _bert, "GPT-2": _gpt2, "T5": _t5, "ALBERT": _albert}


def residual_stream(model: Any, inputs: dict[str, Any]) -> np.ndarray:
    """Embeddings and the residual stream after every block of the first stack, before any final
    norm: (layers + 1, samples, N, d) in float64. For few samples: it holds them all."""
    import torch

    from dynsim.models.architecture import find_stacks

    states: list[torch.Tensor] = []

    def before(module, args, kwargs):
        if not states:
            states.append(args[0] if args else kwargs["hidden_states"])

    def after(module, args, out):
        states.append(out[0] if isinstance(out, tuple) else out)

    blocks = dict.fromkeys(find_stacks(model)[0].blocks)  # ALBERT's is one, called again and again
    hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks]
    hooks += [block.register_forward_hook(after) for block in blocks]
    _run_once(model, inputs, hooks)
    return np.stack([state.double().numpy() for state in states])


def _run_once(model: Any, inputs: dict[str, Any], hooks: list[Any]) -> None:
    """One forward pass; the hooks are gone afterwards."""
    import torch

    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()


def norms_of(model: Any, inputs: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What enters and what leaves every norm by name, in the order in which they are called:
    (samples, N, d) each, in float32. It holds them all."""

    from dynsim.models.architecture import is_norm

    seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def note(name):
        def hook(module, args, out):
            seen[name] = args[0].numpy().copy(), out.numpy().copy()

        return hook

    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if is_norm(module)
    ]
    _run_once(model, inputs, hooks)
    return seen


def stacked(parts: Iterable) -> np.ndarray:
    """One array of those of several models, with NaN where one has fewer layers or heads."""
    arrays = [np.asarray(part) for part in parts]
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    shape = np.max([array.shape for array in arrays], axis=0)
    whole = np.full((len(arrays), *shape), np.nan)
    for row, array in zip(whole, arrays, strict=True):
        row[tuple(map(slice, array.shape))] = array
    return whole
