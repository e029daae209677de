"""Two tokens on the circle, without LayerNorm and with it: the picture of WU's Fig. 1.

Causal, N = d = 2, M = 0, W_V = [[1, w], [0, 1]], w > 1, token 1 at (0, 1). Without a norm x_2 - x_1
is halved in every layer and sheared by W_V, so that the tokens meet. With LayerNorm (the unit norm)
token 2 ends at B = (-1/w, -sqrt(1 - 1/w^2)), and the rank stays two, from the arc between A and
(0, -1): a share 1/4 + arccos(1/w) / (2 pi) of the circle.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import equilibria, norms
from dynsim.results import style
from experiments.record import Verdict
from experiments.two_token_arcs import draw_circle, pairs, points

PAPER = (
    "WU, arXiv 2405.18781, Fig. 1: two tokens without LayerNorm, which meet, and with it, where "
    "token 2 ends at B from the marked arc"
)

#: There is no w as published that is known to us.
SETTINGS = {
    "smoke": {"w": 2.0, "starts": 40, "depth": 60},
    "default": {"w": 2.0, "starts": 1440, "depth": 100},
}
#: mu below which tokens have met, and distance from B that is allowed.
MET, TOLERANCE = 1e-12, 1e-9


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Token 2 (norm, start, 2, 2) and mu (norm, start, 2), first and last, without a norm and with
    it; of the starts that are drawn every layer: `paths` and `falls`.

    The starts lie evenly on the circle, none of them at an end of an arc.
    """
    w, count = settings["w"], settings["starts"]
    x0 = pairs(2 * np.pi * (np.arange(count) + 0.5 + 1e-3) / count)
    unit = equilibria.jordan_dynamics(2, w)
    found: dict[str, list] = {"second": [], "mu": [], "paths": [], "falls": []}
    drawn, ends = shown(count), [0, -1]
    for k, dynamics in enumerate((replace(unit, norm=norms.NoNorm()), unit)):
        record = dynsim.Record(measures=(), states=1)
        run = dynsim.simulate(dynamics, x0, settings["depth"], record=record)
        second, mu = run.states[:, :, 1], dynsim.measures.mu(run.states)
        for name, values, which in (("second", second, "paths"), ("mu", mu, "falls")):
            found[name].append(values[:, ends])
            found[which].append(values[drawn])
        progress((k + 1) / 2)
    return {"w": np.array(w)} | {name: np.array(values) for name, values in found.items()}


def shown(count: int) -> np.ndarray:
    """The numbers of the starts that are drawn, of so many."""
    return np.unique(np.linspace(0, count, 25)[:-1].astype(int))


def kept(data) -> np.ndarray:
    """Starts from which token 2 does not meet token 1 with the norm, (start,)."""
    return data["mu"][1, :, -1] > 0.1


def in_arc(data) -> np.ndarray:
    """Starts between A and (0, -1), on the left, (start,)."""
    start = data["second"][1, :, 0]
    angle = np.arctan2(start[:, 1], start[:, 0]) % (2 * np.pi)
    at = points(float(data["w"]))
    return (angle > at["A"]) & (angle < at["(0, −1)"])


def exact(w: float) -> float:
    """The share of the circle that B attracts."""
    return 0.25 + np.arccos(1 / w) / (2 * np.pi)


def draw(data) -> Figure:
    """Paths in the plane without a norm; on the circle with it, layers inwards; mu by layer."""
    w, both = float(data["w"]), kept(data)
    figure, ((plain, normed, falls),) = style.panels(
        1, 3, height=2.45, extra=0.5, width_ratios=(1.1, 1.1, 1)
    )
    count = data["second"].shape[1]
    drawn = shown(count)
    colours = np.where(both, style.VERMILION, style.BLUE)
    draw_circle(plain, w, names=())
    plain.plot([0], [1], "o", color="black", markersize=4, zorder=4)
    plain.text(-0.12, 1.2, "token 1", ha="right", fontsize=7.5)
    _straight(plain, data["paths"][0])
    plain.set(title="without: all meet token 1")
    draw_circle(normed, w)
    at, turn = points(w), np.linspace(0, 1, 200)
    ends = at["A"] + turn * (at["(0, −1)"] - at["A"])
    normed.plot(np.cos(ends), np.sin(ends), color=style.VERMILION, linewidth=4, alpha=0.5)
    for k, path in zip(drawn, data["paths"][1], strict=True):
        _inwards(normed, path, colours[k])
    normed.set(title="with LayerNorm, layers inwards")
    layers = np.arange(data["falls"].shape[2])
    for panel, select in ((0, np.ones(count, bool)), (1, ~both), (1, both)):
        colour = "0.5" if panel == 0 else colours[np.flatnonzero(select)[0]] if select.any() else ""
        for fall in data["falls"][panel, select[drawn]]:
            falls.plot(layers, np.maximum(fall, 1e-17), color=colour, linewidth=0.5)
    falls.set(yscale="log", ylim=(1e-14, 10), xlim=(0, 50), xlabel="layer", ylabel="mu",
              title="distance to consensus")  # fmt: skip
    share = both.mean()
    words = (("with LN, from the arc", style.VERMILION),
             ("with LN, elsewhere", style.BLUE), ("without LN", "0.4"))  # fmt: skip
    for k, (text, colour) in enumerate(words):
        style.note(falls, text, 0.97, 0.8 - 0.09 * k, color=colour)
    style.letters((plain, normed, falls))
    style.finding(
        figure,
        f"LayerNorm keeps two tokens apart from {100 * share:.0f}% of the circle; without it they "
        f"meet from everywhere (w = {w:g})"
        if claim(data).reproduced
        else f"Two tokens without LayerNorm and with it, w = {w:g}",
    )
    return figure


def _straight(axes, paths: np.ndarray) -> None:
    for path in paths:
        axes.plot(*path[:12].T, ".-", color="0.5", linewidth=0.5, markersize=1.5, zorder=2)
        axes.plot(*path[:1].T, "o", color="0.5", markersize=3)
    low, high = paths[:, :12].min(axis=(0, 1)), paths[:, :12].max(axis=(0, 1))
    axes.set(xlim=(min(low[0], -1.5) - 0.1, max(high[0], 1) + 0.25),
             ylim=(min(low[1], -1.3) - 0.1, max(high[1], 1) + 0.25))  # fmt: skip


def _inwards(axes, path: np.ndarray, colour) -> None:
    """Each layer a step towards the centre."""
    steps = 14
    angle = np.unwrap(np.arctan2(path[:steps, 1], path[:steps, 0]))
    fine = np.interp(np.linspace(0, steps - 1, 200), np.arange(steps), angle)
    radius = np.linspace(0.97, 0.3, 200)
    axes.plot(radius * np.cos(fine), radius * np.sin(fine), color=colour, linewidth=0.6)
    axes.plot(*path[:1].T, "o", color=colour, markersize=3, zorder=3)


def claim(data) -> Verdict:
    """Without a norm mu goes to 0 from all starts; with it token 2 ends at B from the arc alone."""
    w, both, arc = float(data["w"]), kept(data), in_arc(data)
    b = np.array([-1 / w, -np.sqrt(1 - 1 / w**2)])
    off = np.linalg.norm(data["second"][1, both, -1] - b, axis=-1).max(initial=0.0)
    met = data["mu"][:, :, -1] < MET
    share, error = float(both.mean()), 1.0 / len(both)
    return Verdict(
        statement="without LayerNorm both tokens meet from every start; with it token 2 ends at B, "
        "and the rank stays 2, from the arc between A and (0, -1), and nowhere else",
        paper="Fig. 1 as drawn: without LN both collapse; with LN token 2 ends at B from the "
        "marked arc",
        measured={
            "starts": len(both),
            "that meet without LayerNorm": int(met[0].sum()),
            "that end at B with it": int(both.sum()),
            "of these outside the arc, and others inside it": [
                int((both & ~arc).sum()), int((~both & arc).sum())
            ],
            "share that ends at B, exact share": [round(share, 4), round(float(exact(w)), 4)],
            "largest distance from B": float(f"{off:.2g}"),
        },
        tolerance=f"mu below {MET:g} where tokens meet, {TOLERANCE:g} from B; the share within one "
        "start of the exact one",
        reproduced=bool(
            met[0].all() and met[1, ~both].all() and off < TOLERANCE
            and np.array_equal(both, arc) and abs(share - exact(w)) <= error
        ),
    )  # fmt: skip
