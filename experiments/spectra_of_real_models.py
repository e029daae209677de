"""Rank of hidden states in real models: WU's Fig. 4, 8 and 9."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import plots
from experiments.real_models import CHECKPOINTS, real_models, residual_stream, stacked
from experiments.record import Verdict

PAPER = (
    "WU, arXiv 2405.18781, Fig. 4, 8 and 9: share of full rank, smallest singular value and mean "
    "|cosine| by layer; all singular values by layer; cosines of the embeddings"
)

SETTINGS = {
    "smoke": {"models": ["MiniLM", "BERT", "ALBERT"], "tokens": 24, "excerpts": 2,
              "shown": 2, "sizes": {"dim": 48, "heads": 4, "layers": 3}},
    "default": {"models": list(CHECKPOINTS), "tokens": 128, "excerpts": 12, "shown": 3,
                "sizes": {"dim": 768, "heads": 12, "layers": 12}},
}  # fmt: skip

MEASURES = (
    "rank",
    "sigma_min",
    "sigma_max",
    "mean_abs_cosine",
    "mean_cosine",
    "norm_median",
    "sinks",
    "rank_without_sinks",
    "floor",
    "stable_rank",
    "stable_rank_without_sinks",
)
#: Edges of the histogram of cosines.
EDGES = np.linspace(-1.0, 1.0, 81)


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    n, count, shown = settings["tokens"], settings["excerpts"], settings["shown"]
    rows: list[dict] = []
    names = settings["models"]
    for real in real_models(names, n, count, seed, settings["sizes"]):
        profile = dynsim.probe(
            real.model, points=("embeddings", "layers_output"), measured=(), batch_size=4,
            **real.inputs,
        )  # fmt: skip
        row = {name: profile.residual(name, profile.stacks[0]) for name in MEASURES}
        states = residual_stream(real.model, {k: v[:shown] for k, v in real.inputs.items()})
        row["singular_values"] = np.linalg.svd(states, compute_uv=False)
        cosines = _cosines(states[0])
        row["cosines"] = np.histogram(cosines, EDGES)[0]
        row["least_cosine"] = cosines.min()
        row["dim"] = states.shape[-1]
        rows.append(row | {"model": real.name, "trained": real.trained})
        progress((names.index(real.name) + (0.5 if real.trained else 1.0)) / len(names))
    return {name: stacked([row[name] for row in rows]) for name in rows[0]}


def _cosines(x: np.ndarray) -> np.ndarray:
    """Of all pairs of tokens of each excerpt, (samples, pairs)."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    i, j = np.triu_indices(x.shape[1], 1)
    return np.sum(unit[:, i] * unit[:, j], axis=-1)
