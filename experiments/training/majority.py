"""The majority task (BRODY, arXiv 2305.02582, section 4.1): say which class comes most often.

Every position of a sequence has to name the sequence's most frequent class. The model has no
positions, so a sequence is nothing but how often each class comes, and all tokens of one class get
the same answer: sequences are counts (samples, classes), and a token of class c stands for all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import torch
from torch import nn

from dynsim.geometry import angle_to_ones
from experiments.training.ensembles import Ensemble, Training, train

__all__ = ["MajorityModel", "accuracies", "epochs", "learn", "losses", "query_angles", "sequences"]


@cache
def _partitions(n: int, parts: int, largest: int) -> int:
    """In how many ways n is a sum of at most `parts` numbers, each from 1 to `largest`."""
    if n == 0:
        return 1
    if parts == 0:
        return 0
    return sum(_partitions(n - j, parts - 1, j) for j in range(1, min(n, largest) + 1))


def _draw(ways: list[int], rng: np.random.Generator) -> int:
    """An index, with the odds of its number of ways."""
    return int(np.searchsorted(np.cumsum(ways), rng.integers(sum(ways)), side="right"))


def _partition(n: int, parts: int, largest: int, rng: np.random.Generator) -> list[int]:
    """One of the partitions that `_partitions` counts, all equally likely."""
    drawn = []
    while n:
        ways = [_partitions(n - j, parts - 1, j) for j in range(1, min(n, largest) + 1)]
        largest = 1 + _draw(ways, rng)
        n, parts = n - largest, parts - 1
        drawn.append(largest)
    return drawn


def sequences(samples: int, length: int, classes: int, lead: int, rng) -> np.ndarray:
    """How often each class comes in each sequence: (samples, classes), rows sum to `length`.

    The multiplicities are a partition of `length` into 2 to `classes` parts, uniform among those
    whose largest part is ahead of the next by at least `lead`; which class has which is random.
    (The authors walk one random corner of the tree of partitions, ten sequences for each.)
    """
    ways = [
        _partitions(length - most, classes - 1, most - lead) if most > lead else 0
        for most in range(length)
    ]
    counts = np.zeros((samples, classes))
    for row in counts:
        most = _draw(ways, rng)
        parts = [most, *_partition(length - most, classes - 1, most - lead, rng)]
        row[rng.permutation(classes)[: len(parts)]] = parts
    return counts


class MajorityModel(nn.Module):
    """One pre-norm encoder layer with one head, initialised as torch's `TransformerEncoderLayer`.

    As published: feed-forward width d, no gain or bias in the norm before attention, no bias in
    queries, keys and values; the answer is read off with the embedding's own rows.
    """

    def __init__(self, classes: int, d: int, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.embedding = nn.Parameter(torch.randn(classes, d))
        projections = torch.empty(3 * d, d)
        nn.init.xavier_uniform_(projections)  # the three together, as torch draws them
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(W.T.clone()) for W in projections.chunk(3))
        self.output = nn.Linear(d, d)
        nn.init.zeros_(self.output.bias)
        self.second_norm = nn.LayerNorm(d, eps=0.0)
        self.feed_forward = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))

    def keys(self) -> torch.Tensor:
        """What attention compares queries with: the normalised tokens of all classes, (C, d)."""
        return self.norm(self.embedding)

    def queries(self) -> torch.Tensor:
        """LN(x) W_Q W_K^T / sqrt(d), so that a score is queries() . keys(): (C, d)."""
        return self.keys() @ self.W_Q @ self.W_K.T / self.keys().shape[-1] ** 0.5

    def forward(self, counts: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, C): entry [b, c] is the answer of a token of class c in sequence b."""
        scores = self.queries() @ self.keys().T  # (C, C)
        attention = (scores + counts.log()[:, None, :]).softmax(dim=-1)  # a class n_c times
        x = self.embedding + self.output(attention @ (self.keys() @ self.W_V))
        x = x + self.feed_forward(self.second_norm(x))
        return x @ self.embedding.T


def losses(logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, averaged over all positions of all sequences: (..., B, C, C) -> (...)."""
    majority = counts.argmax(dim=-1)[..., None, None].expand(*counts.shape, 1)
    told = logits.log_softmax(dim=-1).gather(-1, majority)[..., 0]  # log p of the right answer
    return -(told * counts).sum(dim=(-2, -1)) / counts.sum(dim=(-2, -1))


def accuracies(logits: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Share of all positions that name the majority: (..., B, C, C), (..., B, C) -> (...)."""
    right = logits.argmax(dim=-1) == counts.argmax(dim=-1, keepdim=True)
    return (right * counts).sum(dim=(-2, -1)) / counts.sum(dim=(-2, -1))


def query_angles(model: MajorityModel) -> np.ndarray:
    """Degrees, 0 to 90, between the query of each class and the line of **1**: (C,)."""
    angle = angle_to_ones(model.queries().numpy())
    return np.minimum(angle, 180.0 - angle)


def epochs(samples: int, batch: int, members: int, seed: int) -> Callable[[int], np.ndarray]:
    """Which samples make the batch of a step: all of them once an epoch, in an order of its own.

    The last batch of an epoch holds what is left. Gives a function of the step; its indices,
    (members, batch), depend on (seed, member, step) alone.
    """

    @lru_cache(maxsize=1)
    def order(epoch):
        streams = (np.random.default_rng([seed, 1, epoch, m]) for m in range(members))
        return np.stack([rng.permutation(samples) for rng in streams])

    def indices(step):
        epoch, place = divmod(step, -(-samples // batch))
        return order(epoch)[:, place * batch : (place + 1) * batch]

    return indices


def learn(norm, settings: dict, seed: int, checkpoint, progress) -> tuple[Ensemble, dict]:
    """Train an ensemble with this norm; it, and the test loss, accuracy and angle on the way.

    `norm(d)` makes the norm before attention; four fifths of the sequences are for training. The
    sequences depend on the seed alone, not on the norm: all variants learn from the same. The
    angle is that of `query_angles`, averaged over all positions of the test sequences, as
    published.
    """
    names = ("samples", "length", "classes", "lead")
    counts = sequences(*(settings[name] for name in names), np.random.default_rng([seed, 0]))
    counts = torch.tensor(counts, dtype=torch.float32)
    training, test = counts.split([len(counts) * 4 // 5, len(counts) - len(counts) * 4 // 5])
    classes, d, members = settings["classes"], settings["dim"], settings["members"]
    occurrence = (test.sum(dim=0) / test.sum()).double().numpy()
    batches_of = epochs(len(training), settings["batch"], members, seed)
    ensemble = Ensemble(lambda: MajorityModel(classes, d, norm(d)), members, seed)

    def batch_losses(step):
        batches = training[batches_of(step)]
        return losses(ensemble.together(batches), batches)

    def observe():
        rows = []
        for model in ensemble.members():
            logits = model(test)
            angle = query_angles(model) @ occurrence
            rows.append((losses(logits, test), accuracies(logits, test), angle))
        loss, accuracy, angle = zip(*rows, strict=True)
        return {"loss": np.array(loss), "accuracy": np.array(accuracy), "angle": np.array(angle)}

    plan = Training(settings["steps"], settings["rate"], settings["every"], settings["decay"])
    return ensemble, train(ensemble, batch_losses, observe, plan, checkpoint, progress)
