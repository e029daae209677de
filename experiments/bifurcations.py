"""Branches of equilibria: where they are born, and where they lose stability.

All equilibria of WU's Jordan family in w, from a search at each w: token 1 has the multiplier 1 at
every w, so there is no branch to follow. The two-token hyperbolic variant in the off-diagonal entry
c of W_V (its fold is known exactly), and a stable full-rank equilibrium of the complete mask in the
inverse temperature beta, M -> beta M.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dynsim import AttentionDynamics, continuation, equilibria, masks, norms, weights
from dynsim.results import style
from experiments.record import Verdict

PAPER = "WU, arXiv 2405.18781, Theorem 3, section 4.3.1 and App. F.4, continued in a parameter"

EXTRAS = ("torch",)
SETTINGS = {
    "smoke": {"slopes": [0.4], "tokens": [3, 2], "points": 80, "tries": 4,
              "jordan": 2, "strengths": [0.5, 1.5, 3.0]},
    "default": {"slopes": [0.2, 0.4, 0.6, 0.8], "tokens": [3, 3], "points": 600, "tries": 12,
                "jordan": 3, "strengths": np.geomspace(0.5, 6.0, 60).round(4).tolist()},
}  # fmt: skip
#: Starts of the search at each w; lone tokens under M = 0 are solved by algebra anyway.
STARTS = 4


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Parameter, a coordinate, spectral radius and rank along each branch; bifurcations as text."""
    data = {"slopes": np.array(settings["slopes"]), "jordan": np.array(settings["jordan"])}
    data["strengths"] = np.array(settings["strengths"])
    data["w"] = _in_w(settings["jordan"], settings["strengths"], seed)
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


def _in_w(n: int, strengths, seed: int) -> np.ndarray:
    """Rows (w, rank, kind, first tokens that are equal, last coordinate of the last token), of all
    equilibria up to sign, the one with token 1 at +e_N."""
    rows = []
    for w in strengths:
        search = equilibria.find_equilibria(
            equilibria.jordan_dynamics(n, w), starts=STARTS, flips=False, basin_samples=0, seed=seed
        )
        for e in search.equilibria:
            x = e.tokens * np.sign(e.tokens[0, -1])
            equal = np.abs(x - x[0]).max(axis=1) < 1e-6
            first = n if equal.all() else int(np.argmin(equal))
            rows.append([w, e.rank, equilibria.KINDS.index(e.kind), first, x[-1, -1]])
    return np.array(rows)


def _columns(name: str, branch) -> dict[str, np.ndarray]:
    labels = [f"{kind} at {value:.8g}" for kind, value in branch.bifurcations]
    return {
        f"{name}_parameter": branch.parameter,
        f"{name}_height": branch.tokens[:, -1, -1],
        f"{name}_radius": branch.spectral_radius,
        f"{name}_rank": branch.rank,
        f"{name}_events": np.array(labels, "U64"),
    }


def _branch(axes, data, name: str, colour: str) -> Line2D:
    """Solid where stable, dashed where not, a mark at every bifurcation."""
    p, height, radius = (data[f"{name}_{key}"] for key in ("parameter", "height", "radius"))
    stable = radius < 1
    axes.plot(p, np.where(stable, np.nan, height), color=colour, linewidth=1, linestyle="--")
    (line,) = axes.plot(p, np.where(stable, height, np.nan), color=colour, linewidth=1.8)
    for event in data[f"{name}_events"]:
        k = np.argmin(np.abs(p - float(str(event).rpartition(" at ")[2])))
        axes.plot(p[k], height[k], marker="o", color="0.2", markersize=4, zorder=4)
    return line


def draw(data) -> Figure:
    """A coordinate of the last token along each branch: solid stable, dashed unstable."""
    figure, ((family, pair, cooled),) = style.panels(1, 3, height=2.5, extra=0.5)
    _draw_in_w(family, data)
    slopes, ends = style.shades(style.BLUE, len(data["slopes"])), []
    for k, (a, colour) in enumerate(zip(data["slopes"], slopes, strict=True)):
        _branch(pair, data, f"c_{k}", colour)
        p, height = data[f"c_{k}_parameter"], data[f"c_{k}_height"]
        ends.append((p[0], height[0], f"a = {a:g}", colour))
    pair.set(xlabel="c", ylabel="last coordinate of token 2", title="W_V = [[a, c], [0, 1]]")
    pair.set_xlim(None, max(x for x, *_ in ends))
    style.label_ends(pair, ends)
    style.note(pair, "● fold: both are born,\none stable, one not", 0.03, 0.97)
    for name in ("beta_up", "beta_down"):
        _branch(cooled, data, name, style.MASKS["complete"])
    p = np.concatenate([data[f"beta_{way}_parameter"] for way in ("down", "up")])
    folds = [
        data[f"beta_{way}_parameter"][np.argmax(np.abs(data[f"beta_{way}_parameter"] - 1))]
        for way in ("down", "up")
    ]
    cooled.set(
        xlabel="inverse temperature β",
        ylabel="last coordinate of the last token",
        title="complete mask, full rank",
        xlim=(p.min() - 0.05 * np.ptp(p), p.max() + 0.05 * np.ptp(p)),
    )
    cooled.xaxis.set_major_locator(MaxNLocator(4))
    words = f"stable for β from\n{folds[0]:.3f} to {folds[1]:.3f},\nbetween two folds"
    style.note(cooled, words, 0.04, 0.04)
    style.letters((family, pair, cooled))
    style.finding(
        figure,
        "Equilibria of rank k are born at w = N − k + 1, stable ones in folds; these persist in a "
        "range of temperatures"
        if claim(data).reproduced
        else "Equilibria continued in a parameter",
    )
    return figure


def _draw_in_w(axes, data) -> None:
    """By rank; solid is marginal, dashed a saddle; none of them is stable."""
    n = int(data["jordan"])
    w, rank, kind, _, height = data["w"].T
    strengths = np.unique(w)
    for k in range(1, n + 1):
        colour = style.RANKS[k - 1]
        for name, face in (("marginal", colour), ("saddle", "white")):
            mine = (rank == k) & (kind == equilibria.KINDS.index(name))
            axes.plot(
                w[mine],
                height[mine],
                linestyle="none",
                marker="o",
                markersize=2.6,
                markerfacecolor=face,
                markeredgecolor=colour,
                markeredgewidth=0.6,
            )
    for birth in range(1, n):
        axes.axvline(birth, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
    for k in range(1, n + 1):  # beside the dashed line where it is born
        birth, side = n - k + 1, "left" if k == 2 else "right"
        across = birth + (0.1 if side == "left" else -0.1) if k > 1 else strengths.max()
        axes.annotate(
            f"rank {k}", (across, 1.14), ha=side, fontsize=7, color=style.RANKS[k - 1], va="bottom"
        )
    axes.set(
        xlabel="w",
        ylabel=f"last coordinate of token {n}",
        ylim=(-1.12, 1.42),
        yticks=(-1, -0.5, 0, 0.5, 1),
        xlim=(-0.3, strengths.max() * 1.04),
        xticks=range(1, int(strengths.max()) + 1),
        title=f"all equilibria, N = {n}",
    )
    style.note(axes, "● marginal  ○ saddle\nnone is stable", 0.97, 0.5, va="center")


def _births(data) -> dict[str, list[int]]:
    """For each rank k > 1 how many have their first n - k + 1 tokens equal: below and above
    w = n - k + 1, as lists of the numbers met; WU's family is 0 and 2^k, half of it up to sign."""
    n = int(data["jordan"])
    w, rank, _, first, _ = data["w"].T
    found = {}
    for k in range(2, n + 1):
        counts = [
            int(np.sum((w == v) & (rank == k) & (first == n - k + 1))) for v in data["strengths"]
        ]
        for words, side in (
            ("below", data["strengths"] < n - k + 1),
            ("above", data["strengths"] > n - k + 1),
        ):
            found[f"rank {k}, {words} w = {n - k + 1}"] = sorted(
                set(np.array(counts)[side].tolist())
            )
    return found


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
    births = _births(data)
    born = all(
        counts == ([0] if "below" in words else [2 ** (int(words.split()[1][:-1]) - 1)])
        for words, counts in births.items()
    )
    starts_stable = all(data[f"beta_{name}_radius"][0] < 1 for name in ("up", "down"))
    return Verdict(
        statement="WU's equilibria of rank k are born at w = N - k + 1; the two full-rank ones of "
        "the hyperbolic variant are born together in a fold at c = sqrt(1 - (1 - a)^2); the stable "
        "equilibrium of the complete mask persists in a range of temperatures",
        paper="not in the paper; c^2 + (1 - a)^2 > 1 is the condition for a line to meet a circle",
        measured={
            "of the Jordan family up to sign, by w": births,
            "folds found and exact": folds,
            "bifurcations in beta": events,
        },
        tolerance="1e-3 in the place of the fold; numbers of equilibria exact",
        reproduced=bool(max(off) < 1e-3 and starts_stable and born),
    )
