"""The four invariant arcs of token 2 on the circle, and where each of them leads.

WU's App. E: causal, N = d = 2, M = 0, W_V = [[1, w], [0, 1]], w > 1, unit norm, token 1 held at
(0, 1), which is a fixed point. Token 2 then moves on the circle by

    x' = (x_1, w x_1 + x_2 + 1) / norm,    in y = x_2 / x_1:  y' = w + y + sign(x_1) sqrt(1 + y^2)

with the fixed points A, B = (-1/w, +- sqrt(1 - 1/w^2)) and (0, 1); at (0, -1) the sum is 0. Between
these four points lie four arcs, each of which is mapped into itself. The multipliers, slopes of the
map at its fixed points, are 1/2 at (0, 1) and 1 - sqrt(1 - 1/w^2) at B.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import equilibria
from dynsim.results import style
from experiments.record import Verdict

PAPER = "WU, arXiv 2405.18781, Fig. 5 and App. E: the four invariant arcs of token 2"

#: There is no number of starts as published.
SETTINGS = {
    "smoke": {"w": 2.0, "starts": 10, "depth": 60},
    "default": {"w": 2.0, "starts": 100, "depth": 60},
}
#: By arc, counterclockwise from (0, 1): its ends and where it leads.
ARCS = (("(0, 1)", "A", "(0, 1)"), ("A", "B", "B"), ("B", "(0, −1)", "B"),
        ("(0, −1)", "(0, 1)", "(0, 1)"))  # fmt: skip
COLOURS = (style.SKY, style.VERMILION, style.ORANGE, style.BLUE)
#: Distance of an end from the exact point, and relative error of a rate, that are allowed.
TOLERANCE, RATE_TOLERANCE = 1e-9, 0.02


def points(w: float) -> dict[str, float]:
    """Angles of the ends of the arcs, from (0, 1) counterclockwise once around."""
    a = np.pi - np.arccos(1 / w)
    return {"(0, 1)": np.pi / 2, "A": a, "B": 2 * np.pi - a, "(0, −1)": 1.5 * np.pi,
            "(0, 1) again": 2.5 * np.pi}  # fmt: skip


def multiplier(w: float, end: str) -> float:
    """The slope of the map at the end of an arc that attracts."""
    return 1 - np.sqrt(1 - 1 / w**2) if end == "B" else 0.5


def starts_on(arc: int, w: float, count: int) -> np.ndarray:
    """Angles inside an arc, evenly."""
    ends = list(points(w).values())
    return ends[arc] + (ends[arc + 1] - ends[arc]) * (np.arange(count) + 0.5) / count


def pairs(angle: np.ndarray) -> np.ndarray:
    """Tokens (count, 2, 2): token 1 at (0, 1), token 2 at each angle."""
    second = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return np.stack([np.broadcast_to([0.0, 1.0], second.shape), second], axis=1)


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Token 2 (arc, start, depth, 2) and token 1 at the last depth (arc, start, 2)."""
    w, depth = settings["w"], settings["depth"]
    dynamics = equilibria.jordan_dynamics(2, w)
    record = dynsim.Record(measures=(), states=1)
    second, first = [], []
    for arc in range(len(ARCS)):
        x0 = pairs(starts_on(arc, w, settings["starts"]))
        states = dynsim.simulate(dynamics, x0, depth, record=record).states
        second.append(states[:, :, 1])
        first.append(states[:, -1, 0])
        progress((arc + 1) / len(ARCS))
    return {"w": np.array(w), "second": np.array(second), "first": np.array(first)}


def unwrapped(data) -> np.ndarray:
    """Angles (arc, start, depth) between pi/2 and 5 pi/2."""
    x = data["second"]
    angle = np.arctan2(x[..., 1], x[..., 0])
    start = np.pi / 2 - 1e-12
    whole = (angle - start) % (2 * np.pi) + start
    near_top = np.abs(whole - np.pi / 2) < 1e-6  # the end of the last arc is the first angle again
    whole[-1] = np.where(near_top[-1], whole[-1] + 2 * np.pi, whole[-1])
    return whole


def distance(data) -> np.ndarray:
    """Of token 2 from the end of its arc, (arc, start, depth)."""
    at = points(float(data["w"]))
    ends = np.array([[np.cos(at[end]), np.sin(at[end])] for *_, end in ARCS])
    return np.linalg.norm(data["second"] - ends[:, None, None], axis=-1)


def rates(data) -> np.ndarray:
    """Factor per layer of the distance by arc: median over starts, where it is 1e-3 to 1e-9."""
    found = []
    for of_arc in distance(data):
        late = (of_arc[:, :-1] < 1e-3) & (of_arc[:, 1:] > 1e-9)
        found.append(np.median((of_arc[:, 1:] / np.maximum(of_arc[:, :-1], 1e-300))[late]))
    return np.array(found)


def draw(data) -> Figure:
    """The circle with its arcs; the angle of token 2 by layer; its distance from the end."""
    w = float(data["w"])
    figure, ((circle, angles, falls),) = style.panels(
        1, 3, height=2.45, extra=0.5, width_ratios=(1.1, 1, 1)
    )
    draw_circle(circle, w)
    at, layers = points(w), np.arange(data["second"].shape[2])
    for arc, (colour, (_, high, end)) in enumerate(zip(COLOURS, ARCS, strict=True)):
        ends = list(at.values())[arc : arc + 2]
        middle = np.mean(ends)
        circle.plot(*_arc(*ends, 1.0), color=colour, linewidth=3, solid_capstyle="butt")
        circle.text(0.72 * np.cos(middle), 0.72 * np.sin(middle), ["I", "II", "III", "IV"][arc],
                    color=colour, ha="center", va="center", fontweight="bold")  # fmt: skip
        _arrow(circle, middle, towards_high=end == high, colour=colour)
        some = np.unique(np.linspace(0, data["second"].shape[1] - 1, 7).astype(int))
        angles.plot(layers, unwrapped(data)[arc, some].T, color=colour, linewidth=0.9)
        falls.plot(
            layers, np.maximum(distance(data)[arc, some], 1e-17).T, color=colour, linewidth=0.7
        )
    angles.set(xlim=(0, 12), xlabel="layer", ylabel="angle of token 2", title="to (0, 1) or to B")
    angles.set_yticks(list(at.values()), [name.replace(" again", "") for name in at])
    falls.set(yscale="log", ylim=(1e-12, 3), xlim=(0, 60), xlabel="layer",
              title="distance from that end")  # fmt: skip
    fall = np.arange(0, 60)
    for k, end in enumerate(("B", "(0, 1)")):
        slope, dash = multiplier(w, end), ("--", ":")[k]
        falls.plot(fall, 3 * slope**fall, color="black", linewidth=1, linestyle=dash)
        words = f"{('- -', '···')[k]} {slope:.3g}ᵗ, towards {end}"
        style.note(falls, words, 0.97, 0.97 - 0.09 * k, color="black")
    style.letters((circle, angles, falls))
    style.finding(
        figure,
        f"Token 2 never leaves its arc: two arcs lead to B, where rank 2 survives, and two to "
        f"(0, 1), the consensus (w = {w:g})"
        if claim(data).reproduced
        else f"Four arcs of token 2 on the circle, w = {w:g}",
    )
    return figure


def draw_circle(axes, w: float, names=("(0, 1)", "A", "B", "(0, −1)")) -> None:
    """The unit circle with the named points: filled marks attract."""
    axes.plot(*_arc(0, 2 * np.pi, 1.0), color="0.8", linewidth=0.8)
    for name in names:
        x, y = np.cos(points(w)[name]), np.sin(points(w)[name])
        face = "black" if name in ("B", "(0, 1)") else "white"
        axes.plot([x], [y], "o", color="black", markersize=4, zorder=4, markerfacecolor=face)
        side = "right" if x < -0.1 else "center"
        axes.text(1.16 * x, 1.16 * y, name, ha=side, va="center", fontsize=7.5)
    axes.set(aspect="equal", xlim=(-1.5, 1.25), ylim=(-1.3, 1.3))
    axes.set_axis_off()


def _arc(low: float, high: float, radius: float):
    turn = np.linspace(low, high, 200)
    return radius * np.cos(turn), radius * np.sin(turn)


def _arrow(axes, angle: float, towards_high: bool, colour) -> None:
    step = 0.09 if towards_high else -0.09
    tip, tail = (np.array([np.cos(a), np.sin(a)]) for a in (angle + step, angle - step))
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 0, "mutation_scale": 13}
    axes.annotate("", tip, tail, arrowprops=look | {"shrinkA": 0, "shrinkB": 0})


def claim(data) -> Verdict:
    """No start leaves its arc, and all end where the paper says, at the slope of the map."""
    w, angle = float(data["w"]), unwrapped(data)
    ends = list(points(w).values())
    inside = [
        bool(((of_arc >= low - 1e-9) & (of_arc <= high + 1e-9)).all())
        for of_arc, low, high in zip(angle, ends[:-1], ends[1:], strict=True)
    ]
    off, found = distance(data)[..., -1].max(axis=1), rates(data)
    expected = np.array([multiplier(w, end) for *_, end in ARCS])
    held = float(np.abs(data["first"] - [0.0, 1.0]).max())
    return Verdict(
        statement="with token 1 at (0, 1) each of four arcs is mapped into itself; token 2 ends at "
        "B from the two arcs beside B, and at (0, 1), a consensus, from the other two, at the rate "
        "of the slope of the map there",
        paper="Fig. 5 as drawn, App. E: four invariant arcs between A, B, (0, 1) and (0, -1), two "
        "of which lead to B and two to (0, 1)",
        measured={
            f"arc {number} from {low} to {high}": {
                "stays inside": inside[k],
                f"largest distance from {end} at the end": float(f"{off[k]:.2g}"),
                "factor per layer, and slope of the map": [
                    round(float(found[k]), 4), round(float(expected[k]), 4)
                ],
            }
            for k, (number, (low, high, end)) in enumerate(
                zip(["I", "II", "III", "IV"], ARCS, strict=True)
            )
        },
        tolerance=f"{TOLERANCE:g} in the end, {RATE_TOLERANCE:g} of the rate; no start outside its "
        "arc at any layer, token 1 at (0, 1) throughout",
        reproduced=bool(
            all(inside) and off.max() < TOLERANCE and held == 0
            and np.all(np.abs(found / expected - 1) < RATE_TOLERANCE)
        ),
    )  # fmt: skip
