"""Basins of two tokens in the plane: where rank two survives.

WU's section 4.3.1 and App. E: causal, N = d = 2, M = 0, W_V = [[1, w], [0, 1]], unit norm. The
share of full-rank limits with token 1 held at (0, 1) and with both tokens free, and a picture over
the torus of both angles.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from dynsim import basins, equilibria, tokens
from dynsim.results import style
from experiments.record import Verdict

PAPER = "WU, arXiv 2405.18781, section 4.3.1, App. E, Fig. 1 and 5: two tokens in the plane"

SETTINGS = {
    "smoke": {"starts": 4000, "picture": 40, "depth": 2048, "strengths": [1.5, 2.0]},
    "default": {"starts": 200_000, "picture": 400, "depth": 4096,
                "strengths": [1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0]},
    "paper": {"starts": 1_000_000, "picture": 800, "depth": 8192,
              "strengths": [1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0]},
}  # fmt: skip
#: w of the picture and of the share with both tokens free.
W = 2.0


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Shares with their 95% intervals by w, (w, 3); the share with both free; the picture."""
    starts, depth = settings["starts"], settings["depth"]
    held = []
    for k, w in enumerate(settings["strengths"]):
        x0 = tokens.sphere(starts, 2, 2, seed)
        x0[:, 0] = [0.0, 1.0]
        held.append(_rank_two(basins.basins(equilibria.jordan_dynamics(2, w), x0, depth=depth)))
        progress((k + 1) / (len(settings["strengths"]) + 2))
    dynamics = equilibria.jordan_dynamics(2, W)
    free = basins.basins(dynamics, starts, seed=seed, depth=depth)
    n = settings["picture"]
    limits = basins.limit_sets(dynamics, basins.circle_pairs(n), depth=depth)
    return {
        "strengths": np.array(settings["strengths"]),
        "held": np.array(held),
        "free": np.array(_rank_two(free)),
        "settled": free.limits.depth[free.limits.rank == 2],
        "picture": (2 * (limits.rank == 2) + (limits.final[:, 0, 1] > 0)).reshape(n, n),
    }


def _rank_two(found) -> list[float]:
    (row,) = [row for row in found.rows if row["rank"] == 2]
    return [row["share"], row["low"], row["high"]]


def exact(w):
    """The share of the circle that B attracts with token 1 held: 1/4 + arccos(1/w) / (2 pi)."""
    return 0.25 + np.arccos(1 / w) / (2 * np.pi)


def draw(data) -> Figure:
    """The torus of angles by where it leads; the share against w with the closed form."""
    figure, ((torus, shares),) = style.panels(1, 2, height=2.9)
    colours = ListedColormap(["#B4B4B4", "#DEDEDE", style.VERMILION, style.BLUE])
    torus.imshow(
        data["picture"].T, origin="lower", extent=(0, 2, 0, 2), cmap=colours, vmin=-0.5, vmax=3.5
    )
    torus.grid(False)
    ticks, words = (0, 0.5, 1, 1.5, 2), ("0", "π/2", "π", "3π/2", "2π")
    torus.set(
        xlabel="angle of token 1",
        ylabel="angle of token 2",
        xticks=ticks,
        yticks=ticks,
        xticklabels=words,
        yticklabels=words,
        title=f"where pairs end, w = {W:g}",
    )
    middle = {
        3: ("rank 2", "white"),
        1: ("rank 1: both at (0, 1)", "0.25"),
        0: ("rank 1: both at (0, −1)", "0.25"),
    }
    torus.text(0.36, 1.12, middle[3][0], ha="center", va="center", color="white", fontsize=6)
    torus.text(1.36, 0.13, middle[3][0], ha="center", va="center", color="white", fontsize=6)
    torus.text(0.9, 1.0, middle[0][0], ha="center", va="center", rotation=90, fontsize=7)
    torus.text(1.75, 1.0, middle[1][0], ha="center", va="center", rotation=90, fontsize=7)
    w = np.linspace(1, data["strengths"].max(), 400)
    shares.plot(w, exact(w), color="0.4")
    share, low, high = data["held"].T
    shares.errorbar(
        data["strengths"],
        share,
        yerr=[share - low, high - share],
        fmt="o",
        capsize=2,
        color=style.BLUE,
        markersize=4,
    )
    shares.annotate(
        "token 1 held at (0, 1):\n1/4 + arccos(1/w) / 2π",
        (5, exact(5.0)),
        xytext=(0, -8),
        textcoords="offset points",
        va="top",
        fontsize=7,
        color=style.BLUE,
    )
    free, low, high = data["free"]
    shares.errorbar(
        [W],
        [free],
        yerr=[[free - low], [high - free]],
        fmt="s",
        capsize=2,
        color=style.VERMILION,
        markersize=4,
    )
    shares.annotate(
        f"both free: {100 * free:.1f}%",
        (W, free),
        xytext=(7, 0),
        va="center",
        textcoords="offset points",
        fontsize=7,
        color=style.VERMILION,
    )
    shares.set(
        xlabel="w",
        ylabel="share of starts that keep rank 2",
        ylim=(0, 0.55),
        title="measured, and in closed form (line)",
    )
    style.letters((torus, shares))
    style.finding(
        figure,
        f"Two tokens under LayerNorm: with token 1 held up to half of all starts keep rank 2, with "
        f"both free {100 * free:.1f}% at w = {W:g}"
        if claim(data).reproduced
        else "Two tokens in the plane: starts that keep rank 2",
    )
    return figure


def claim(data) -> Verdict:
    """The closed form within 4 standard deviations at every w.

    The share with both tokens free has no closed form here: it is a measurement, and not judged.
    """
    share, low, high = data["held"].T
    sd = (high - low) / (2 * 1.96)
    off = np.abs(share - exact(data["strengths"])) / sd
    return Verdict(
        statement="with token 1 held a share 1/4 + arccos(1/w) / (2 pi) of starts keeps rank 2",
        paper="App. E proves the four invariant arcs; their lengths give the share",
        measured={
            "share with token 1 held, by w": {
                f"{w:g}": [round(float(s), 5), round(float(exact(w)), 5)]
                for w, s in zip(data["strengths"], share, strict=True)
            },
            "share with both free at w = 2, 95% interval (a measurement)": [
                round(float(v), 5) for v in data["free"]
            ],
            "depth at which rank 2 had settled (median)": float(np.median(data["settled"])),
        },
        tolerance="4 standard deviations",
        reproduced=bool(np.all(off < 4)),
    )
