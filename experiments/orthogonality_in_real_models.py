"""Angle to **1**, length and rotation at every norm of two real models: GUPTA's figures.

MiniLM has LayerNorm, SmolLM2 RMSNorm; beside each the same architecture as it is initialised. An
angle near 90 degrees says little, for a random direction is as near: 57.3 / sqrt(d) degrees. So
the vector of ones is ranked among random directions: the cosine to **1**, averaged over tokens, has
the size sqrt(d) |m . 1| / sqrt(d) with m the mean unit token, and in place of **1** a random
direction has a smaller one with the probability that is drawn (a Beta distribution; exact).
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from scipy.special import betainc

import dynsim
from dynsim import plots
from dynsim.geometry import angle_to_ones, orthogonality
from experiments.real_models import norms_of, real_models, stacked
from experiments.record import Verdict

PAPER = (
    "GUPTA, arXiv 2409.12951: angle of hidden vectors to the uniform vector 1, norms before and "
    "after, rotation by the norm, per layer, in models with LayerNorm and with RMSNorm"
)

#: There are no settings as published: the paper's models (1.3B to 8B parameters) cannot be had.
SETTINGS = {
    "smoke": {"models": ["MiniLM"], "tokens": 24, "excerpts": 2},
    "default": {"models": ["MiniLM", "SmolLM2"], "tokens": 128, "excerpts": 8},
}  # fmt: skip

NORM_OF = {"MiniLM": "LayerNorm", "SmolLM2": "RMSNorm"}
#: What the probe measures of a norm, by sample.
PROBED = ("norm_before", "norm_after", "rotation", "angle_before", "angle_after")


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """By model: `PROBED` (norm, sample); over all tokens, by norm, the spread of the angle, its
    mean distance from 90 degrees (by so much taking out the mean turns a token), and how the vector
    of ones ranks among random directions."""
    rows: list[dict] = []
    names, n, count = settings["models"], settings["tokens"], settings["excerpts"]
    for real in real_models(names, n, count, seed, {}):
        profile = dynsim.probe(
            real.model, points=("embeddings",), measured=("norms",), batch_size=4, **real.inputs
        )
        row = {name: np.stack([of[name] for of in profile.norms.values()]) for name in PROBED}
        entering = [before for before, _ in norms_of(real.model, real.inputs).values()]
        row |= dict(zip(OURS, np.array([_among_directions(x) for x in entering]).T, strict=True))
        rows.append(row | {"model": real.name, "trained": real.trained,
                           "dim": entering[0].shape[-1]})  # fmt: skip
        progress((names.index(real.name) + (0.5 if real.trained else 1.0)) / len(names))
    return {name: stacked(row[name] for row in rows) for name in rows[0]}


OURS = ("angle_sd", "centring", "offset", "baseline", "rank_of_ones")


def _among_directions(x: np.ndarray) -> tuple[float, ...]:
    angle, d = angle_to_ones(x), x.shape[-1]
    offset, baseline = orthogonality(x)
    rank = betainc(0.5, (d - 1) / 2, min(1.0, (offset / baseline) ** 2 / d))
    return float(angle.std()), float(np.abs(angle - 90).mean()), offset, baseline, float(rank)
