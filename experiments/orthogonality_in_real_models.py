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
from dynsim.geometry import angle_to_ones, orthogonality
from dynsim.results import style
from experiments.real_models import norms_of, real_models, stacked
from experiments.record import Verdict

PAPER = (
    "GUPTA, arXiv 2409.12951: angle of hidden vectors to the uniform vector 1, norms before and "
    "after, rotation by the norm, per layer, in models with LayerNorm and with RMSNorm"
)

EXTRAS = ("models",)
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


# --- figure -------------------------------------------------------------------------------------


def draw(data) -> Figure:
    """A row a model: angle to **1**, its rank among random directions, lengths, rotation."""
    names = list(dict.fromkeys(data["model"].tolist()))
    figure, panels = style.panels(len(names), 4, height=1.9)
    for name, row, colour in zip(names, panels, _colours(names), strict=True):
        of_name = data["model"] == name
        (trained,), (fresh,) = (
            np.flatnonzero(of_name & (data["trained"] == kind)) for kind in (True, False)
        )
        looks = {
            trained: {"color": colour, "linewidth": 1.3},
            fresh: {"color": "0.45", "linewidth": 0.9, "linestyle": (0, (3, 1.5))},
        }
        _draw_angle(row[0], data, trained, looks)
        _draw_rank(row[1], data, looks)
        _draw_lengths(row[2], data, trained, looks)
        _draw_rotation(row[3], data, trained, looks)
        row[0].set_ylabel(
            f"{name} ({NORM_OF[name]}, d = {data['dim'][trained]})\nangle to 1 (°)", fontsize=7
        )
    titles = ("angle to 1", "closer to 90°",
              "length of a token", "rotation")  # fmt: skip
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title)
    for row in panels:
        norms = len(_curve(data, "offset", int(np.flatnonzero(data["model"] == names[0])[0])))
        names = names[1:]
        for axes in row:
            axes.set_xticks(np.arange(1, norms + 1, max(1, round(norms / 4))))
    for axes in panels[-1]:
        axes.set_xlabel("norm, in order of depth")
    style.letters(panels.flat)
    style.finding(figure, _headline(data))
    return figure


def _colours(names: list[str]) -> list[str]:
    """Those of the norms that the models have."""
    kinds = {"LayerNorm": "layernorm", "RMSNorm": "rms"}
    return [style.NORMS[kinds[NORM_OF[name]]] for name in names]


def _headline(data) -> str:
    nearest = [np.median(x) for x in _trained(data, "rank_of_ones").values()]
    if min(nearest) > 0.05:
        return "Near 90° to the vector of ones, but no nearer than many random directions are"
    return "Nearer to orthogonal to the vector of ones than random directions are"


def _trained(data, name: str) -> dict[str, np.ndarray]:
    """A measure of the trained models by name, (norm,): means over samples."""
    found = {}
    for model, trained, rows in zip(data["model"], data["trained"], data[name], strict=True):
        rows = rows.reshape(len(rows), -1).mean(axis=1)
        if trained:
            found[str(model)] = rows[~np.isnan(rows)]
    return found


def _curve(data, name: str, k: int) -> np.ndarray:
    rows = data[name][k]
    rows = rows.reshape(len(rows), -1).mean(axis=1)
    return rows[~np.isnan(rows)]


def _draw_angle(axes, data, trained: int, looks) -> None:
    sd = float(np.degrees(1 / np.sqrt(data["dim"][trained])))
    for k, look in looks.items():
        angle, spread = _curve(data, "angle_before", k), _curve(data, "angle_sd", k)
        at = np.arange(1, len(angle) + 1)
        axes.plot(at, angle, **look)
        if k == trained:
            axes.fill_between(at, angle - spread, angle + spread, color=look["color"], alpha=0.2,
                              linewidth=0)  # fmt: skip
    axes.axhspan(90 - sd, 90 + sd, color="0.93", zorder=0)
    axes.set(ylim=(90 - 3.2 * sd, 90 + 3.2 * sd))
    style.note(
        axes,
        "grey: random ± sd\nband: tokens ± sd\ndashed: initialised",
        0.97,
        0.03,
    )


def _draw_rank(axes, data, looks) -> None:
    for k, look in looks.items():
        rank = 100 * _curve(data, "rank_of_ones", k)
        axes.plot(np.arange(1, len(rank) + 1), rank, **(look | {"marker": ".", "markersize": 3}))
    axes.set(ylim=(-3, 103), ylabel="random directions (%)", xlim=(0.5, len(rank) + 0.5))
    axes.plot([0.5, len(rank) + 0.5], [50, 50], color="0.5", linewidth=0.8, linestyle=(0, (2, 2)))


def _draw_lengths(axes, data, trained: int, looks) -> None:
    ends = []
    for k, look in looks.items():
        for name, alpha in (("before", 1.0), ("after", 0.45)):
            length = _curve(data, f"norm_{name}", k)
            at = np.arange(1, len(length) + 1)
            axes.plot(at, length, **(look | {"alpha": alpha}))
            label = name if k == trained else f"{name}, init."
            ends.append((at[-1], length[-1], label, look["color"]))
    axes.set(yscale="log", xlim=(0.5, at[-1]), ylabel="median length")
    style.label_ends(axes, ends)


def _draw_rotation(axes, data, trained: int, looks) -> None:
    ends = []
    for k, look in looks.items():
        turned = _curve(data, "rotation", k)
        at = np.arange(1, len(turned) + 1)
        axes.plot(at, turned, **look)
        ends.append((at[-1], turned[-1], "the norm" if k == trained else "initial.",
                     look["color"]))  # fmt: skip
    centred = _curve(data, "centring", trained)
    axes.plot(at, centred, **(looks[trained] | {"linestyle": ":", "linewidth": 1.4}))
    ends.append((at[-1], centred[-1], "centring", looks[trained]["color"]))
    axes.set(xlim=(0.5, at[-1]), ylabel="angle (°)", ylim=(-1, None))
    style.label_ends(axes, ends)


# --- claims -------------------------------------------------------------------------------------

#: Standard deviations of a random direction from 90 degrees up to which an angle is called near.
NEAR = 2.0
#: Share of norms at which ones are to be among the nearer half of directions.
MOST = 0.75


def claims(data) -> list[Verdict]:
    """Two sentences of the paper, and what a random direction makes of them."""
    return [_near(data, "MiniLM"), _near(data, "SmolLM2"), _beyond_chance(data)]


def _near(data, name: str) -> Verdict:
    kind = NORM_OF[name]
    statement = (
        f"in a trained model with {kind} ({name}) hidden vectors are near orthogonal to the vector "
        f"of ones, before every norm"
    )
    paper = f"models with {kind}: the angle to the uniform vector sits near 90 degrees, all layers"
    angles = _trained(data, "angle_before")
    tolerance = (
        f"the mean angle within {NEAR:g} standard deviations of a random direction, "
        f"{NEAR:g} x 57.3 / sqrt(d) degrees, of 90; not the paper's models (1.3B to 8B parameters)"
    )
    if name not in angles:
        return Verdict(statement, paper, {}, tolerance, False, lacking=f"trained {name}")
    k = int(np.flatnonzero((data["model"] == name) & data["trained"])[0])
    allowed = NEAR * np.degrees(1 / np.sqrt(data["dim"][k]))
    angle, turned, centred = (
        _trained(data, measure)[name] for measure in ("angle_before", "rotation", "centring")
    )
    return Verdict(
        statement,
        paper,
        {
            "mean angle, by norm: least, median, largest (degrees)": [
                round(float(f(angle)), 2) for f in (np.min, np.median, np.max)
            ],
            "spread over tokens, median over norms (degrees)": round(
                float(np.median(_trained(data, "angle_sd")[name])), 2
            ),
            "allowed distance from 90 (degrees)": round(float(allowed), 2),
            "rotation by the norm, median (degrees)": round(float(np.median(turned)), 2),
            "of which taking out the mean is (would be), median": round(
                float(np.median(centred)), 2
            ),
        },
        tolerance,
        reproduced=bool((np.abs(angle - 90) <= allowed).all()),
    )


def _beyond_chance(data) -> Verdict:
    ranks = _trained(data, "rank_of_ones")
    nearer = {name: float((rank < 0.5).mean()) for name, rank in ranks.items()}
    return Verdict(
        statement="the vector of ones is nearer to orthogonal to the hidden vectors of trained "
        "models than random directions are",
        paper="no baseline: the angle near 90 degrees is taken as a property of the vector of ones",
        measured={
            f"{name}: share of norms at which every second random direction is further away": round(
                share, 2
            )
            for name, share in nearer.items()
        }
        | {
            f"{name}: random directions nearer to 90 degrees, median over norms": round(
                float(np.median(rank)), 2
            )
            for name, rank in ranks.items()
        },
        tolerance=f"at more than {MOST:g} of the norms of each model (chance: 0.5; norms along one "
        "residual stream are not independent)",
        reproduced=all(share > MOST for share in nearer.values()),
    )
