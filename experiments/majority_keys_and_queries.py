"""Keys and queries of the majority task in three dimensions, with and without the projection.

Each class has one key LN(x) and one query LN(x) W_Q W_K^T / sqrt(d), so a picture of 3-dimensional
tokens shows all there is to see: with the projection the keys lie on a circle orthogonal to **1**.
As published, one picture shows the keys and queries of all seeds.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from dynsim.results import style
from experiments import majority_task
from experiments.majority_task import LAYERNORM, PUBLISHED, RMS
from experiments.record import Verdict

PAPER = "BRODY, arXiv 2305.02582, Fig. 1a and 1b: keys and queries of the majority task, d = 3"

_AS_PUBLISHED = {
    "samples": 7500, "length": 30, "classes": 10, "lead": 6, "dim": 3, "members": 10, "batch": 6000,
    "steps": 10_000, "rate": 1e-3, "decay": None, "every": 500,
}  # fmt: skip
EXTRAS = ("torch",)
#: As published, full batches of 6,000 sequences; the default has 120. A quarter as many are
#: held out, to tell the accuracy. "paper" takes one core about 3 hours.
SETTINGS = {
    "smoke": majority_task.SETTINGS["smoke"] | {"dim": 3},
    "default": _AS_PUBLISHED | {"samples": 150},
    "paper": _AS_PUBLISHED,
}
VARIANTS = (LAYERNORM, RMS, PUBLISHED)


def compute(settings: dict, seed: int, progress, checkpoints) -> dict[str, np.ndarray]:
    """Keys and queries (variant, seed, class, 3), test accuracy (variant, seed)."""
    keys, queries, accuracy = [], [], []
    for ensemble, seen in majority_task.learnt(VARIANTS, settings, seed, progress, checkpoints):
        models = list(ensemble.members())
        keys.append([model.keys().numpy() for model in models])
        queries.append([model.queries().numpy() for model in models])
        accuracy.append(seen["accuracy"][-1])
    return {"keys": np.array(keys), "queries": np.array(queries), "accuracy": np.array(accuracy)}


def angles_to_line_of_ones(vectors: np.ndarray) -> np.ndarray:
    """Degrees, 0 to 90: (..., 3) -> (...)."""
    cosine = np.abs(vectors.sum(axis=-1)) / (3**0.5 * np.linalg.norm(vectors, axis=-1))
    return np.degrees(np.arccos(np.minimum(cosine, 1.0)))


def draw(data) -> Figure:
    """Keys, queries and the line of **1** of all seeds, each vector drawn with length 1."""
    figure = Figure(figsize=(style.PAGE, 2.9), layout="constrained")
    angle = angles_to_line_of_ones(data["queries"]).mean(axis=(1, 2))
    panels = [figure.add_subplot(1, len(VARIANTS), v + 1, projection="3d")
              for v in range(len(VARIANTS))]  # fmt: skip
    for v, (name, axes) in enumerate(zip(VARIANTS, panels, strict=True)):
        keys, queries = (
            (data[kind][v] / np.linalg.norm(data[kind][v], axis=-1, keepdims=True)).reshape(-1, 3)
            for kind in ("keys", "queries")
        )
        end = 3**-0.5
        axes.plot(*[[-end, end]] * 3, color="0.4", linestyle=(0, (2, 2)), linewidth=1)
        axes.scatter(*queries.T, color=style.VERMILION, marker="^", s=6, depthshade=False)
        axes.scatter(*keys.T, color=style.BLUE, marker="o", s=4, depthshade=False)
        axes.set(
            title=f"{name}\nqueries at {angle[v]:.0f}° to the line of 1",
            xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1),
            xticks=(-1, 0, 1), yticks=(-1, 0, 1), zticks=(-1, 0, 1),
        )  # fmt: skip
        axes.tick_params(labelsize=6, pad=-3)
        axes.set_box_aspect((1, 1, 1), zoom=1.04)
        axes.view_init(elev=15, azim=-70)
    style.letters(panels)
    words = (("▲ queries", style.VERMILION), ("● keys", style.BLUE), ("┄ line of 1", "0.4"))
    for x, (text, colour) in zip((0.02, 0.3, 0.5), words, strict=True):
        panels[0].text2D(x, 0.97, text, color=colour, fontsize=7, transform=panels[0].transAxes)
    style.finding(figure, _headline(data))
    return figure


def _headline(data) -> str:
    if claim(data).reproduced:
        return (
            "With LayerNorm's projection the keys lie in a plane and the queries near its normal, "
            "the line of 1; without it neither does"
        )
    return "Keys and queries of the majority task in three dimensions"


def claim(data) -> Verdict:
    """With the projection keys are orthogonal to **1** and queries nearer to its line."""
    key, query = (angles_to_line_of_ones(data[kind]).mean(axis=-1) for kind in ("keys", "queries"))
    nearer = [stats.ttest_rel(query[0], query[v]).confidence_interval(0.95).high for v in (1, 2)]
    orthogonal = bool((key[0] > 89.99).all())
    return Verdict(
        statement="in three dimensions the keys of the model with projection lie in the plane "
        "orthogonal to 1 and its queries are nearer to the line of 1 than without",
        paper="Fig. 1a and 1b as drawn: queries along 1 with projection, in all directions without",
        measured={
            name: {
                "angle of keys": round(float(key[v].mean()), 2),
                "angle of queries, by seed": [round(float(a), 1) for a in query[v]],
                "accuracy": round(float(data["accuracy"][v].mean()), 4),
            }
            for v, name in enumerate(VARIANTS)
        },
        tolerance="95% intervals (t, seeds paired) of the difference in angle below 0",
        reproduced=orthogonal and bool(max(nearer) < 0),
    )
