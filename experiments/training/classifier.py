"""A classifier of texts without LayerNorm (BRODY, arXiv 2305.02582, Table 4): source or prose?"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from experiments.training.ensembles import Ensemble, Training, train
from experiments.training.gpt import GPT
from experiments.training.norms import FactoredNorm
from experiments.training.text import (
    VOCABULARY,
    excerpts,
    language_reference,
    standard_library,
)

__all__ = ["Classifier", "drawn", "learn", "untrained"]


def no_norm(d: int) -> FactoredNorm:
    """The identity, where `GPT` has its norms."""
    return FactoredNorm(d, project=False, length=None, affine=False)


class Classifier(nn.Module):
    """Every character sees all others; no norm anywhere; one logit from the mean of all."""

    def __init__(self, positions: int, d: int, layers: int, heads: int):
        super().__init__()
        self.encoder = GPT(
            len(VOCABULARY), positions, d, layers, heads, no_norm, no_norm, causal=False
        )
        self.head = nn.Linear(d, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits, (B,), that these texts (B, N) are prose."""
        return self.head(self.encoder.states(ids).mean(dim=1))[:, 0]


def drawn(which: int, count: int, length: int, rng) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts (count, length) and 1 for prose, 0 for source: the first half is source.

    which : 0 for training text, 1 for what is held out.
    """
    parts = (standard_library()[which], language_reference()[which])
    half = count // 2
    ids = [
        excerpts(text, n, length, rng) for text, n in zip(parts, (half, count - half), strict=True)
    ]
    return torch.from_numpy(np.concatenate(ids)), (torch.arange(count) >= half).float()


def untrained(settings: dict, seed: int) -> Ensemble:
    """An ensemble as it is initialised."""
    shape = (settings["context"], settings["dim"], settings["layers"], settings["heads"])
    return Ensemble(lambda: Classifier(*shape), settings["members"], seed)


def learn(settings: dict, seed: int, checkpoint, progress) -> tuple[Ensemble, dict]:
    """Train an ensemble to tell Python's sources from the text of its help; held-out accuracy."""
    context, members, batch = settings["context"], settings["members"], settings["batch"]
    ensemble = untrained(settings, seed)
    ids, labels = drawn(1, settings["tests"], context, np.random.default_rng([seed, 0]))

    def batch_losses(step):
        rng = np.random.default_rng([seed, 1, step])
        texts, answers = zip(*(drawn(0, batch, context, rng) for _ in range(members)), strict=True)
        outputs = ensemble.one_by_one(torch.stack(texts))
        return torch.stack(
            [
                functional.binary_cross_entropy_with_logits(logits, answer)
                for logits, answer in zip(outputs, answers, strict=True)
            ]
        )

    def observe():
        right = [((model(ids) > 0) == (labels > 0)).float().mean() for model in ensemble.members()]
        return {"accuracy": np.array(right)}

    plan = Training(settings["steps"], settings["rate"], settings["every"])
    return ensemble, train(ensemble, batch_losses, observe, plan, checkpoint, progress)
