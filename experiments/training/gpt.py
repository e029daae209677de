"""Language models of GPT-2's shape, without dropout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.training.ensembles import Ensemble, Training, train
from experiments.training.text import VOCABULARY, excerpts, standard_library

__all__ = ["GPT", "learn", "losses"]

Norm = Callable[[int], nn.Module]


class Block(nn.Module):
    """x + attention(norm(x)), then + mlp(norm(x)): GELU, width 4 d, causal or not.

    Queries, keys and values have no bias, as in BRODY, arXiv 2305.02582; all else has.
    """

    def __init__(self, d: int, heads: int, attention_norm: Norm, norm: Norm, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.attention_norm = attention_norm(d)
        self.queries_keys_values = nn.Linear(d, 3 * d, bias=False)
        self.output = nn.Linear(d, d)
        self.mlp_norm = norm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU("tanh"), nn.Linear(4 * d, d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, N, d) -> (B, N, d)
        parts = self.queries_keys_values(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)  # (B, H, N, w)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.output(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """Learned positions, `layers` blocks, a last norm, and the embedding's rows as the head.

    Initialised as GPT-2: matrices N(0, .02^2), those that end a skip branch smaller by
    sqrt(2 layers), biases 0. `attention_norm` makes the norm before attention, `norm` the others.
    """

    def __init__(
        self, vocabulary: int, positions: int, d: int, layers: int, heads: int,
        attention_norm: Norm, norm: Norm, causal: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.characters = nn.Embedding(vocabulary, d)
        self.positions = nn.Embedding(positions, d)
        self.blocks = nn.ModuleList(
            [Block(d, heads, attention_norm, norm, causal) for _ in range(layers)]
        )
        self.last_norm = norm(d)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for last in (block.output, block.mlp[2]):
                nn.init.normal_(last.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Logits (B, N, vocabulary) for characters (B, N) that stand at positions first, ..."""
        return self.states(ids, first) @ self.characters.weight.T

    def states(self, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        """What the last norm gives for these characters, (B, N, d)."""
        x = self.characters(ids) + self.positions.weight[first : first + ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)


def losses(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each next character, in nats: (B, N, vocabulary), (B, N) -> ()."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def learn(
    attention_norm: Norm, norm: Norm, settings: dict, seed: int, checkpoint, progress, measure=None
) -> tuple[Ensemble, dict]:
    """Train an ensemble on the standard library; it, and the held-out loss on the way.

    Excerpts of `context` characters stand at a random one of the `positions`, so that a model
    learns all positions from shorter texts. `measure(model) -> {name: array}` adds more to what is
    observed. Texts depend on the seed alone: all variants learn from the same.
    """
    context, members, batch = settings["context"], settings["members"], settings["batch"]
    positions, d, heads = settings["positions"], settings["dim"], settings["heads"]
    shape = (len(VOCABULARY), positions, d, settings["layers"], heads)
    ensemble = Ensemble(lambda: GPT(*shape, attention_norm, norm), members, seed)
    text, held_out = standard_library()
    rng = np.random.default_rng([seed, 0])
    test = torch.from_numpy(excerpts(held_out, settings["tests"], context, rng))

    def batch_losses(step):
        rng = np.random.default_rng([seed, 1, step])
        first = int(rng.integers(positions - context + 1))
        ids = torch.from_numpy(excerpts(text, members * batch, context, rng))
        ids = ids.unflatten(0, (members, batch))
        outputs = ensemble.one_by_one(ids, first=first)
        return torch.stack(
            [losses(logits, seen) for logits, seen in zip(outputs, ids, strict=True)]
        )

    def observe():
        rows = []
        for model in ensemble.members():
            row = {"loss": losses(model(test), test).numpy()}
            rows.append(row | (measure(model) if measure else {}))
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    plan = Training(settings["steps"], settings["rate"], settings["every"])
    return ensemble, train(ensemble, batch_losses, observe, plan, checkpoint, progress)
