"""Branches of full-rank equilibria: where they are born, and where they lose stability.

The two-token hyperbolic variant in the off-diagonal entry c of W_V (its fold is known exactly), and
a stable full-rank equilibrium of the complete mask in the inverse temperature beta, M -> beta M.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from dynsim import AttentionDynamics, continuation, equilibria, masks, norms, weights
from experiments.record import Verdict

PAPER = "WU, arXiv 2405.18781, section 4.3.1 and App. F.4, continued in a parameter"

SETTINGS = {
    "smoke": {"slopes": [0.4], "tokens": [3, 2], "points": 120, "tries": 4},
    "default": {"slopes": [0.2, 0.4, 0.6, 0.8], "tokens": [3, 3], "points": 600, "tries": 12},
    "paper": {"slopes": [0.1, 0.2, 0.4, 0.6, 0.8, 0.9], "tokens": [4, 4], "points": 2000,
              "tries": 40},
}  # fmt: skip


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Parameter, a coordinate, spectral radius and rank along each branch; bifurcations as text."""
    data = {"slopes": np.array(settings["slopes"])}
    for k, a in enumerate(settings["slopes"]):
        branch = continuation.continue_equilibrium(
            lambda c, a=a: equilibria.hyperbolic_dynamics(a, c),
            equilibria.hyperbolic_pair(a, 1.5)[0], 1.5, 0.0, points=settings["points"],
        )  # fmt: skip
        data |= _columns(f"c_{k}", branch)
        progress((k + 1) / (len(settings["slopes"]) + 2))
    n, d = settings["tokens"]
    found = equilibria.stabilise(
        masks.complete(n), d, min(n, d), tries=settings["tries"], seed=seed
    )
    layer = found.dynamics.weights.layer(0, d)

    def cooled(beta):
        return AttentionDynamics(
            masks.complete(n), weights.Fixed(beta * layer.M[0], layer.W_V[0]), norms.Unit()
        )

    for name, stop in (("up", 3.0), ("down", 0.0)):
        branch = continuation.continue_equilibrium(
            cooled, found.tokens, 1.0, stop, points=settings["points"]
        )
        data |= _columns(f"beta_{name}", branch)
    return data


def _columns(name: str, branch) -> dict[str, np.ndarray]:
    labels = [f"{kind} at {value:.8g}" for kind, value in branch.bifurcations]
    singular = np.linalg.svd(branch.tokens, compute_uv=False)
    return {
        f"{name}_parameter": branch.parameter,
        f"{name}_height": branch.tokens[:, -1, -1],
        f"{name}_radius": branch.spectral_radius,
        f"{name}_rank": np.sum(singular > 1e-6 * singular[:, :1], axis=1),
        f"{name}_events": np.array(labels, "U64"),
    }


def _branch(axes, data, name: str, colour: str, label: str) -> None:
    p, height, radius = (data[f"{name}_{key}"] for key in ("parameter", "height", "radius"))
    stable = radius < 1
    axes.plot(p, np.where(stable, height, np.nan), color=colour, linewidth=2, label=label)
    axes.plot(p, np.where(stable, np.nan, height), color=colour, linewidth=1, linestyle="--")
    for event in data[f"{name}_events"]:
        kind, _, value = str(event).rpartition(" at ")
        k = np.argmin(np.abs(p - float(value)))
        axes.plot(p[k], height[k], marker="o", color="0.2", markersize=4)
        axes.annotate(kind, (p[k], height[k]), fontsize=7, xytext=(3, 3),
                      textcoords="offset points")  # fmt: skip


def draw(data) -> Figure:
    """Last coordinate of the last token along each branch: solid stable, dashed unstable."""
    figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#56B4E9")
    for k, (a, colour) in enumerate(zip(data["slopes"], colours, strict=False)):
        _branch(left, data, f"c_{k}", colour, f"a = {a:g}")
    left.set(xlabel="c", ylabel="last coordinate of token 2", title="W_V = [[a, c], [0, 1]]")
    left.legend(frameon=False, fontsize=8)
    for name, colour in (("beta_up", "#0072B2"), ("beta_down", "#D55E00")):
        _branch(right, data, name, colour, "")
    right.set(xlabel="inverse temperature", ylabel="last coordinate of the last token",
              title="a stable full-rank equilibrium, complete mask")  # fmt: skip
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def claim(data) -> Verdict:
    """Folds at c = sqrt(1 - (1 - a)^2), stability lost at y = a - 1 or in the fold."""
    folds, off = {}, []
    for k, a in enumerate(data["slopes"]):
        exact = np.sqrt(1 - (1 - a) ** 2)
        at = [float(str(e).rpartition(" ")[2]) for e in data[f"c_{k}_events"] if "fold" in str(e)]
        folds[f"a = {a:g}"] = [*at, round(float(exact), 6)]
        off.append(abs(at[0] - exact) if len(at) == 1 else np.inf)
    events = {
        name: [str(e) for e in data[f"beta_{name}_events"]] for name in ("up", "down")
    }  # fmt: skip
    starts_stable = all(data[f"beta_{name}_radius"][0] < 1 for name in ("up", "down"))
    return Verdict(
        statement="the two full-rank equilibria of the hyperbolic variant are born together in a "
        "fold at c = sqrt(1 - (1 - a)^2); the stable equilibrium of the complete mask persists in "
        "a range of temperatures",
        paper="not in the paper; c^2 + (1 - a)^2 > 1 is the condition for a line to meet a circle",
        measured={"folds found and exact": folds, "bifurcations in beta": events},
        tolerance="1e-2 in the place of the fold",
        reproduced=bool(max(off) < 1e-2 and starts_stable),
    )
