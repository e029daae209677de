"""BERT as it is initialised: every matrix N(0, .02^2), biases 0, and the embedding of word pieces.

In float32, drawn layer by layer; for other dimensions than 768 the deviation is scaled so that
matrices have the same norm.
"""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from dynsim import minilm, norms
from dynsim.network.mlp import MLP, MLPWeights
from dynsim.network.weights import LayerSource, LayerWeights, Value

__all__ = ["BLOCK", "SIGMA", "Attention", "Perceptron", "embedding", "word_pieces"]

#: BERT's .02 at d = 768, in units of d^-1/2.
SIGMA = 0.02 * 768**0.5
#: Layers that are kept once they are drawn.
BLOCK = 8
_WORDS = 30_522


def _normal(d: int, *key: int):
    rng = np.random.default_rng(key)
    return lambda *shape: rng.standard_normal(shape, dtype=np.float32) * np.float32(SIGMA / d**0.5)


@dataclass(frozen=True, eq=False, repr=False)
class Attention(LayerSource, Value):
    """Fresh query, key, value and output matrices in every layer."""

    dim: int
    n_heads: int
    seed: int
    is_constant = False
    n_layers = None
    name = "of BERT at initialisation"

    def layer(self, t: int, d: int) -> LayerWeights:
        return _attention(self.seed, t, d, self.n_heads)


@lru_cache(maxsize=BLOCK)
def _attention(seed: int, t: int, d: int, n_heads: int) -> LayerWeights:
    normal, width = _normal(d, seed, t, 0), d // n_heads

    def heads(matrix):  # (d, H w) -> (H, d, w)
        return matrix.reshape(d, n_heads, width).swapaxes(0, 1)

    query, key, value, output = (normal(d, d) for _ in range(4))
    none = np.zeros((n_heads, width), np.float32), np.zeros(d, np.float32)
    query, output = query / np.float32(width**0.5), output.reshape(n_heads, width, d)
    return LayerWeights(heads(query), none[0], heads(key), heads(value), output, none[1])


@dataclass(frozen=True, eq=False, repr=False)
class Perceptron(MLP):
    """Fresh MLPs, four times as wide as tokens, with GELU."""

    seed: int
    activation = "gelu"
    active = True

    def layer(self, t: int, d: int) -> MLPWeights:
        return _perceptron(self.seed, t, d)


@lru_cache(maxsize=BLOCK)
def _perceptron(seed: int, t: int, d: int) -> MLPWeights:
    normal, wide = _normal(d, seed, t, 1), 4 * d
    zeros = np.zeros(wide, np.float32)
    return MLPWeights(normal(d, wide), zeros, normal(wide, d), zeros[:d])


def text(pieces: int) -> str:
    """At least so many word pieces of English that every Python brings along, its reference manual;
    then its sources."""
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = (path.read_text(errors="ignore") for path in sorted(library.glob("*.py")))
    return "\n".join([*topics.values(), *sources])[: 20 * pieces]


@lru_cache(maxsize=1)
def word_pieces(samples: int, n_tokens: int) -> np.ndarray:
    """The first excerpts of `text` as word pieces of BERT's uncased tokenizer, (samples, N)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(minilm.folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    passage = text(samples * n_tokens)
    ids = tokenizer.encode(passage, add_special_tokens=False).ids[: samples * n_tokens]
    return np.array(ids).reshape(samples, n_tokens)


def embedding(ids: np.ndarray, d: int, seed: int) -> np.ndarray:
    """BERT's embedding as it is initialised, in float32, of word pieces (S, N): (S, N, d).

    Word, position and segment vectors are added and pass LayerNorm; without the dropout that BERT
    has there.
    """
    normal = _normal(d, seed, 2)
    words, positions, segment = normal(_WORDS, d), normal(ids.shape[1], d), normal(d)
    return norms.LayerNorm(eps=1e-12).apply(words[ids] + positions + segment)
