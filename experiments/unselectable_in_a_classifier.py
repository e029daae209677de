"""Keys that no query can select, in a classifier without LayerNorm.

An encoder of GPT-2's shape whose characters see each other and which has no norm anywhere learns to
tell Python's sources from the text of its help. Without a sphere nothing keeps a key from lying
inside the hull of the others, and training does not avoid it.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from dynsim.results import style
from experiments.record import Verdict
from experiments.unselectable_in_language_models import unselectable

PAPER = (
    "BRODY, arXiv 2305.02582, Table 4: share of unselectable keys per layer in a BERT without "
    "LayerNorm, trained as a classifier of sentences (SST-2)"
)

EXTRAS = ("torch",)
#: There are no settings as published: SST-2, its word pieces and BERT's width cannot be had here.
SETTINGS = {
    "smoke": {"dim": 8, "layers": 2, "heads": 4, "context": 24, "members": 2, "batch": 4,
              "steps": 4, "rate": 3e-3, "every": 2, "tests": 8, "texts": 2},
    "default": {"dim": 8, "layers": 4, "heads": 4, "context": 128, "members": 5, "batch": 8,
                "steps": 600, "rate": 3e-3, "every": 30, "tests": 512, "texts": 32},
}  # fmt: skip


def compute(settings: dict, seed: int, progress, checkpoints) -> dict[str, np.ndarray]:
    """Held-out accuracy (time, seed); shares of unselectable keys (seed, text, layer), trained and
    at first."""
    from experiments.training import classifier
    from experiments.training.checkpoints import Checkpoint

    rng = np.random.default_rng([seed, 2])
    texts = classifier.drawn(1, settings["texts"], settings["context"], rng)[0].numpy()

    def shares(ensemble):
        return np.array(
            [[unselectable(model, text)[:, 0] for text in texts] for model in ensemble.members()]
        )

    begun = classifier.untrained(settings, seed)
    checkpoint = Checkpoint(checkpoints / "trained.safetensors", settings=settings, seed=seed)
    ensemble, seen = classifier.learn(settings, seed, checkpoint, progress)
    return {**seen, "unselectable": shares(ensemble), "at_first": shares(begun)}


def draw(data) -> Figure:
    """Accuracy over training; unselectable keys by layer, before and after training."""
    figure, ((accuracy, keys),) = style.panels(1, 2, height=2.3)
    accuracy.plot(data["step"], data["accuracy"], color=style.BLUE, linewidth=0.8)
    accuracy.axhline(0.5, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)))
    style.note(accuracy, "chance", 0.97, 0.19)
    accuracy.set(
        xlabel="training steps",
        ylabel="held-out accuracy",
        ylim=(0.4, 1.02),
        title="it learns to tell source from prose: a line a seed",
    )
    layers = 1 + np.arange(data["unselectable"].shape[-1])
    kinds = (
        ("at_first", "untrained", style.GREY, "s"),
        ("unselectable", "trained", style.BLUE, "o"),
    )
    top = max(100 * data["unselectable"].mean(axis=1).max(), 1.0)
    for k, (key, label, colour, marker) in enumerate(kinds):
        percent = 100 * data[key].mean(axis=1)  # seed, layer
        at = layers + 0.24 * (k - 0.5)
        keys.scatter(
            np.broadcast_to(at, percent.shape),
            percent,
            s=8,
            color=colour,
            marker=marker,
            facecolors="none",
            linewidths=0.7,
        )
        keys.hlines(percent.mean(axis=0), at - 0.1, at + 0.1, color=colour, linewidth=2)
        style.note(keys, f"{'○' if k else '□'} {label}", 0.03 + 0.25 * k, 0.97, color=colour)
    keys.set(
        xlabel="layer",
        ylabel="unselectable keys (%)",
        xticks=layers,
        ylim=(0, 1.25 * top),
        xlim=(0.2, len(layers) + 0.6),
        title="a mark a seed; bars: means",
    )
    keys.grid(False, axis="x")
    style.letters((accuracy, keys))
    style.finding(
        figure,
        f"Without LayerNorm {100 * data['unselectable'].mean():.0f}% of the keys of a classifier "
        "are unselectable, in every layer, trained or not"
        if claim(data).reproduced
        else "Unselectable keys of a classifier without LayerNorm",
    )
    return figure


def lower_end(values: np.ndarray) -> np.ndarray:
    """Of the 95% interval (t) of the mean over the first axis."""
    n = len(values)
    return values.mean(axis=0) - stats.t.ppf(0.975, n - 1) * values.std(axis=0, ddof=1) / n**0.5


def claim(data) -> Verdict:
    """Some keys are unselectable in every layer of a classifier that has learnt its task."""
    percent = 100 * data["unselectable"].mean(axis=1)  # seed, layer
    last = data["accuracy"][-1].astype(float)
    return Verdict(
        statement="without LayerNorm a classifier that has learnt its task has unselectable keys "
        "in every layer",
        paper="Table 4: some per cent in every layer; its numbers could not be read",
        measured={
            "% by layer, mean over seeds": percent.mean(axis=0).round(1).tolist(),
            "% by layer, lowest and highest seed": [
                percent.min(axis=0).round(1).tolist(), percent.max(axis=0).round(1).tolist()
            ],
            "% by layer before training": (100 * data["at_first"].mean(axis=(0, 1)))
            .round(1).tolist(),
            "accuracy by seed": last.round(3).tolist(),
        },
        tolerance="95% intervals (t, over seeds): shares in every layer above 0, accuracy above "
        "1/2",
        reproduced=bool((lower_end(percent) > 0).all() and lower_end(last) > 0.5),
    )  # fmt: skip
