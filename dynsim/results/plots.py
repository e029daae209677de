"""Figures: results in, matplotlib figures out. Nothing is computed here but medians and bands.

Lines differ in colour (Okabe and Ito's palette), dash and marker, so that they can be told apart
in grey and by colour-blind readers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dynsim._files import written_whole
from dynsim.measures import mu
from dynsim.results.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

    from dynsim.geometry import Survey

    # classes of dynsim.equilibria, a room above this one, which imports nothing from there
    Search: TypeAlias = Any
    Basins: TypeAlias = Any
    Branch: TypeAlias = Any
    Spectrum: TypeAlias = Any

__all__ = [
    "KIND_COLOURS",
    "STYLES",
    "add_branches",
    "basins",
    "branches",
    "equilibria",
    "geometry",
    "lyapunov",
    "rank_trajectory",
    "save",
]

#: Colour, dash and marker of the first, second, ... run: dark and light alternate.
STYLES: list[dict[str, Any]] = [
    {"color": color, "linestyle": dash, "marker": marker}
    for color, dash, marker in [
        ("#0072B2", "-", "o"),
        ("#D55E00", "--", "s"),
        ("#009E73", "-.", "^"),
        ("#000000", ":", "D"),
        ("#CC79A7", (0, (5, 1)), "v"),
        ("#56B4E9", (0, (3, 1, 1, 1)), "P"),
        ("#E69F00", (0, (1, 1)), "X"),
        ("#666666", (0, (6, 2, 1, 2)), "*"),
    ]
]

#: log10 of what float64 still holds, and of the lowest distance on an axis.
_RANGE, _DEEPEST = -330.0, -1000.0
#: Where a legend may stand in a panel: above what `_note` writes.
_ABOVE_NOTES = (0.0, 0.1, 1.0, 0.9)

#: What a panel says of lines that are rounding.
_THIN = "thin: within rounding"

#: Raised digits as characters: mathtext would have to load and build its parser for them.
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def rank_trajectory(
    runs: Mapping[str, Trajectory], title: str = "", theory: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """Distances with the floating-point floor, ranks and cosines against depth, run by run.

    Lines are medians over samples, bands the 16th to 84th percentile. One run shows two measures
    in each panel; several runs share the panels, the second measure paler. A line is thin where
    most samples lie within rounding (`dynsim.rounding`); dashes mark the floor of mu where it is
    not followed further. An exact zero is drawn at the lower edge. A run that falls far below all
    others leaves the panel.

    Parameters
    ----------
    runs : mapping of str to Trajectory
        Runs by the name that the legend gives them; at least one.
    title : str
        Wrapped to lines of 130 characters.
    theory : mapping of str to array (T+1,), optional
        log10 of bounds and predictions by name, drawn among the distances.

    Returns
    -------
    matplotlib.figure.Figure
        For `save`; it belongs to no window.

    Examples
    --------
    >>> import dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.causal(4), dynsim.weights.Identity())
    >>> run = dynsim.simulate(pure, dynsim.tokens.gaussian(samples=3, n=4, d=2), depth=20)
    >>> figure = rank_trajectory({"causal": run}, "mu halves in every layer")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['distance (Frobenius)', 'rank', 'pairwise cosine']
    """
    lines, theory = wrap(title, 130), theory or {}
    below = runs if len(runs) > 1 else theory
    columns = _legend_columns(below)
    figure, (distances, ranks, cosines) = _panels(len(lines), -(-len(below) // columns))
    edge = _lower_edge(runs)
    names = {"mu": "mu", "rank_one_distance": "distance to rank one"}
    rounding = _mostly_rounding(runs)
    thin = _draw_lines(distances, _in_decades(runs, edge), rounding, names, "distances")
    distances.set(ylabel="distance (Frobenius)")
    distances.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=2))
    distances.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    floor = _mark_floor(distances, runs, edge)
    _note(distances, "; ".join(filter(None, [floor, _THIN if thin else ""])))
    bounds = _draw_theory(distances, theory)
    names = {"stable_rank": "stable rank", "effective_rank": "effective rank"}
    if _draw_lines(ranks, runs, rounding, names, "ranks"):
        _note(ranks, _THIN, height=0.1)  # above lines at rank one
    ranks.set(ylabel="rank", ylim=(0, None))
    names = {"mean_cosine": "mean cosine", "min_cosine": "smallest cosine"}
    thin = _draw_lines(cosines, runs, rounding, names, "cosines")
    words = filter(None, [_THIN if thin else "", _what_lines_are(runs)])
    _note(cosines, "\n".join(words), height=0.08)  # above lines at -1
    cosines.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    cosines.set(ylabel="pairwise cosine", ylim=(-1.05, 1.05), yticks=(-1, -0.5, 0, 0.5, 1))
    for axes in (distances, ranks, cosines):
        axes.set_xlabel("depth (layers)")
        axes.grid(True, color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
        if len(runs) == 1 and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, frameon=False, loc="best", bbox_to_anchor=_ABOVE_NOTES)
    if below:
        handles = bounds if len(runs) == 1 else ranks.get_legend_handles_labels()[0]
        figure.legend(handles, list(below), loc="lower center", ncols=columns, frameon=False)
    if lines:
        figure.suptitle("\n".join(lines), fontsize=10, y=1 - 0.06 / figure.get_figheight())
    return figure


def _what_lines_are(runs: Mapping[str, Trajectory]) -> str:
    """That lines are medians and bands percentiles, where there are several samples."""
    several = any(run.n_samples > 1 for run in runs.values())
    return "lines: medians, bands: 16–84% of samples" if several else ""


def _panels(title_lines: int, legend_rows: int) -> tuple[Figure, np.ndarray]:
    """A figure of three panels, with room for a title and, below, for a legend of several rows.

    Margins are set in inches, not found by constrained layout, which takes as long as the drawing.
    """
    width, panel, gap, right = 11.5, 3.1, 0.76, 0.18
    top = 0.36 + 0.17 * title_lines
    bottom = 0.5 + (0.1 + 0.21 * legend_rows if legend_rows else 0)
    height = bottom + panel + top
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    edges = {"left": gap / width, "right": 1 - right / width}
    edges |= {"bottom": bottom / height, "top": 1 - top / height}
    between = 3 * gap / (width - 3 * gap - right)
    return figure, figure.subplots(1, 3, gridspec_kw=edges | {"wspace": between})


def _legend_columns(names: Collection[str]) -> int:
    """How many names stand side by side in a legend: up to five, fewer if they are long."""
    longest = max(map(len, names), default=0)
    return max(1, min(5, len(names), int(11 / (0.7 + 0.085 * longest))))


def _mostly_rounding(runs: Mapping[str, Trajectory]) -> dict[str, dict[str, np.ndarray]]:
    """By run and measure, the depths at which most samples lie within rounding, (T+1,)."""
    rounding = {
        label: {name: run.within_rounding(name).mean(axis=0) > 0.5 for name in run.measures}
        for label, run in runs.items()
    }
    for measures in rounding.values():
        measures["mu"] = measures["log10_mu"]  # which is what is drawn
    return rounding


def _draw_lines(
    axes: Axes,
    runs: Mapping[str, Trajectory],
    rounding: Mapping[str, Mapping[str, np.ndarray]],
    names: Mapping[str, str],
    title: str,
) -> bool:
    """Median and band of up to two measures of every run, thin where that is rounding.

    Returns whether it is anywhere.
    """
    single, any_rounding = len(runs) == 1, False
    styles = (STYLES[k % len(STYLES)] for k in range(len(runs)))
    for style, (label, run) in zip(styles, runs.items(), strict=True):
        for k, name in enumerate(name for name in names if name in run.measures):
            if single:
                look, shown = STYLES[k], names[name]
            else:
                look, shown = style | {"alpha": 0.4 if k else 1.0}, "" if k else label
            depths, values = run.recorded(name)
            low, middle, high = np.percentile(values, [16, 50, 84], axis=0)
            band_alpha = 0.18 if single or k == 0 else 0.08
            axes.fill_between(depths, low, high, color=look["color"], alpha=band_alpha, linewidth=0)
            within = rounding[label][name][depths]
            if within.any():
                any_rounding = True
                axes.plot(depths, middle, linewidth=0.6, **look | {"marker": "", "linestyle": "-"})
                middle = np.where(within, np.nan, middle)
            axes.plot(
                depths, middle, label=shown, linewidth=1.5, markersize=4,
                markevery=(0.03 + 0.06 * k, 0.12), **look,
            )  # fmt: skip
    if single:
        axes.set_title(title, y=1.0)
    else:
        tones = [
            f"{text} ({tone})" for text, tone in zip(names.values(), ("dark", "pale"), strict=True)
        ]
        axes.set_title(" and ".join(tones), fontsize=9, y=1.0)
    return any_rounding


def _draw_theory(axes: Axes, theory: Mapping[str, np.ndarray]) -> list[Line2D]:
    """Bounds and predictions as thin lines, in the colours that measures do not use."""
    lines: list[Line2D] = []
    for k, values in enumerate(theory.values()):
        look = STYLES[2 + k % (len(STYLES) - 2)] | {"marker": ""}
        lines += axes.plot(np.arange(len(values)), values, linewidth=1.3, **look)
    return lines


def _note(axes: Axes, text: str, height: float = 0.03) -> None:
    if not text:
        return
    axes.text(
        0.98, height, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=7,
        color="0.3", bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def _in_decades(runs: Mapping[str, Trajectory], edge: float) -> dict[str, Trajectory]:
    """The runs with log10 of their distances, exact zeros at `edge`.

    They are drawn on a plain axis: matplotlib's own stops short of 1e308 and of 1e-308.
    """
    in_decades = {}
    for label, run in runs.items():
        logs = {"mu": run["log10_mu"]}
        if "rank_one_distance" in run.measures:
            with np.errstate(divide="ignore"):
                logs["rank_one_distance"] = np.log10(run["rank_one_distance"])
        shown = {
            name: np.where(np.isneginf(values), edge, np.maximum(values, edge + _DEEPEST))
            for name, values in logs.items()
        }
        in_decades[label] = replace(run, measures=shown)
    return in_decades


def _power_of_ten(exponent: float, position: int | None = None) -> str:
    whole = round(exponent)
    if abs(exponent - whole) > 1e-9:
        return f"{10.0**exponent:.2g}"
    return "10" + str(whole).translate(_SUPERSCRIPTS)


def _lower_edge(runs: Mapping[str, Trajectory]) -> float:
    """log10 of where exact zeros are drawn: two decades below the floor, or below the lines.

    A line below the range of floating-point numbers leaves the panel if another stays, and at
    `_DEEPEST` in any case.
    """
    floors = np.concatenate([run.floor.ravel() for run in runs.values()])
    edge = np.log10(floors[floors > 0].min(initial=1.0)) - 2.0
    logs = [run["log10_mu"] for run in runs.values() if run.follows_mu]
    lowest = [np.min(values, where=np.isfinite(values), initial=edge) for values in logs]
    staying = [low for low in lowest if low > _RANGE]
    return float(min([*staying, edge]) if staying else max([*lowest, _DEEPEST])) if lowest else edge


def _mark_floor(axes: Axes, runs: Mapping[str, Trajectory], edge: float) -> str:
    """Shade what of mu is rounding only, or say where the floor is."""
    floors = [(run.depths, np.median(run.floor, axis=0)) for run in runs.values()]
    dtype = next(iter(runs.values())).final.dtype
    lowest = min(np.min(run["log10_mu"]) for run in runs.values())
    highest_floor = max(values.max() for _, values in floors)
    if highest_floor > 0 and lowest > 3.0 + np.log10(highest_floor):
        return f"{dtype} floor: {highest_floor:.0e}, below this axis"
    with np.errstate(divide="ignore"):
        floors = [(depths, np.maximum(np.log10(values), edge)) for depths, values in floors]
    for depths, values in floors:
        axes.plot(depths, values, color="0.35", linewidth=0.8, linestyle=(0, (2, 2)))
    logs = [run["log10_mu"] for run in runs.values()]
    highest = max(np.max(values, where=np.isfinite(values), initial=edge) for values in logs)
    axes.set_ylim(edge, highest + max(1.0, 0.05 * (highest - edge)))
    if all(run.follows_mu for run in runs.values()):
        return f"dashes: {dtype} floor"
    depths, values = max(floors, key=lambda pair: len(pair[0]))
    label = f"below the {dtype} floor: rounding" if len(runs) == 1 else ""
    axes.fill_between(depths, edge, values, color="0.85", linewidth=0, label=label)
    return ""


#: Kinds of equilibria, from dark to light.
KIND_COLOURS = {
    "stable": "#009E73", "marginal": "#E69F00", "saddle": "#56B4E9", "unstable": "#D55E00",
}  # fmt: skip


def equilibria(search: Search, title: str = "") -> Figure:
    """How many equilibria there are of each rank, by stability; and their spectral radii.

    Bars of the radii are the errors that rounding may have made. A question mark stands at ranks
    where a singular value lies near the tolerance.

    Parameters
    ----------
    search : dynsim.equilibria.Search
        From `dynsim.equilibria.find_equilibria`.
    title : str
        Wrapped to lines of 110 characters.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from dynsim.equilibria import find_equilibria, jordan_dynamics
    >>> search = find_equilibria(jordan_dynamics(2, 2.0), starts=8, basin_samples=0)
    >>> [axes.get_ylabel() for axes in equilibria(search).axes]
    ['equilibria found', 'spectral radius']
    """
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    counts, radii = figure.subplots(1, 2)
    rows = search.table()
    ranks = np.array([row["rank"] for row in rows])
    bottom = np.zeros(len(rows))
    for kind, colour in KIND_COLOURS.items():
        height = np.array([row[kind] for row in rows])
        words = "marginal: rounding decides" if kind == "marginal" else kind
        counts.bar(ranks, height, bottom=bottom, color=colour, edgecolor="0.3", label=words)
        bottom = bottom + height
        mine = [e for e in search.equilibria if e.kind == kind]
        at = [e.rank + 0.1 * (e.type != "fixed") for e in mine], [e.spectral_radius for e in mine]
        errors = [e.stability.radius_error for e in mine]
        radii.errorbar(*at, yerr=errors, fmt="none", ecolor="0.3", capsize=2, zorder=1)
        radii.scatter(*at, c=colour, edgecolors="0.3", s=30, label=kind, zorder=2)
    unsure = {e.rank for e in search.equilibria if not e.rank_is_sure}
    for rank, total in zip(ranks, bottom, strict=True):
        words = f"{total:.0f}{'?' if rank in unsure else ''}"
        counts.annotate(words, (rank, total), ha="center", va="bottom", fontsize=8)
    counts.set(xlabel="rank", ylabel="equilibria found")
    counts.legend(frameon=False, fontsize=8)
    radii.axhline(1, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)))
    radii.set(xlabel="rank (sign flips and rotating ones a little right)", ylabel="spectral radius")
    for axes in (counts, radii):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle("\n".join(wrap(title, 110)), fontsize=10)
    return figure


def basins(result: Basins, title: str = "") -> Figure:
    """Shares of starts by rank and type of their limit set, with intervals; when they settled.

    Parameters
    ----------
    result : dynsim.equilibria.basins.Basins
        From `dynsim.equilibria.basins.basins`.
    title : str
        Wrapped to lines of 110 characters.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from dynsim import AttentionDynamics, masks, norms, weights
    >>> from dynsim.equilibria import basins as counted
    >>> unit = AttentionDynamics(masks.causal(3), weights.Jordan(2.0), norms.Unit())
    >>> [axes.get_xlabel() for axes in basins(counted.basins(unit, 8, dim=3)).axes]
    ['share of starts (95% interval)', 'depth (layers)']
    """
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    shares, depths = figure.subplots(1, 2)
    rows = result.rows
    names = [f"rank {row['rank']}, {row['type']}{_sampled(row)}" for row in rows]
    share = np.array([row["share"] for row in rows])
    low, high = (np.array([row[key] for row in rows]) for key in ("low", "high"))
    shares.barh(names, share, xerr=[share - low, high - share], color="#56B4E9", edgecolor="0.3")
    shares.invert_yaxis()
    shares.set(xlabel="share of starts (95% interval)", xlim=(0, 1))
    for rank, style in zip(np.unique(result.limits.rank), STYLES, strict=False):
        mine = result.limits.rank == rank
        settled = np.sort(result.limits.depth[mine & result.limits.settled])
        look = {"color": style["color"], "linestyle": style["linestyle"]}
        left = 1 - np.arange(len(settled) + 1) / mine.sum()
        looks = [1.0, *settled, result.limits.depth.max()]
        depths.step(looks, [*left, left[-1]], where="post", label=f"rank {rank}", **look)
    depths.set(xscale="log", xlabel="depth (layers)", ylabel="share not settled", ylim=(0, 1.02))
    depths.legend(frameon=False, fontsize=8)
    for axes in (shares, depths):
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle("\n".join(wrap(title, 110)), fontsize=10)
    return figure


def _sampled(row: dict) -> str:
    """That a share is estimated, and from how many starts."""
    return f"\n(by {row['sampled']} exponents)" if row["sampled"] else ""


#: Ranks 1, 2, ...; higher ones begin again.
_RANK_COLOURS = ("#555555", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_BIFURCATION_MARKERS = {"fold": "o", "branch point": "s", "flip": "v", "Neimark-Sacker": "*"}


def branches(curves: Sequence[Branch], parameter: str, title: str = "") -> Figure:
    """Distance to consensus along branches: solid where stable, dashed where not, by rank.

    Parameters
    ----------
    curves : sequence of dynsim.equilibria.continuation.Branch
        From `dynsim.equilibria.continuation.continue_equilibrium`.
    parameter : str
        What is varied: the label of the horizontal axis.
    title : str
        Wrapped to lines of 90 characters.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from dynsim.equilibria import continuation, hyperbolic_dynamics, hyperbolic_pair
    >>> branch = continuation.continue_equilibrium(
    ...     lambda c: hyperbolic_dynamics(0.5, c), hyperbolic_pair(0.5, 1.0)[0], 1.0, 0.8
    ... )
    >>> [text.get_text() for text in branches([branch], "c").axes[0].get_legend().get_texts()]
    ['rank 2, stable', 'rank 2, not stable', 'fold']
    """
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    add_branches(axes, curves)
    axes.set(xlabel=parameter, ylabel="distance to consensus")
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle("\n".join(wrap(title, 90)), fontsize=10)
    return figure


def add_branches(axes: Axes, curves: Sequence[Branch]) -> None:
    """Draw the lines of `branches`, with a legend, on matplotlib axes."""
    labelled: dict[str, Any] = {}
    for branch in curves:
        height, stable = mu(branch.tokens), branch.spectral_radius < 1
        for rank in np.unique(branch.rank):
            colour = _RANK_COLOURS[max(rank - 1, 0) % len(_RANK_COLOURS)]
            for mine, style in ((stable, "-"), (~stable, "--")):
                shown = np.where(mine & (branch.rank == rank), height, np.nan)
                width = 2.0 if style == "-" else 1.0
                (line,) = axes.plot(branch.parameter, shown, style, color=colour, linewidth=width)
                if np.any(np.isfinite(shown)):
                    words = "stable" if style == "-" else "not stable"
                    labelled.setdefault(f"rank {rank}, {words}", line)
        for name, value in branch.bifurcations:
            k = np.argmin(np.abs(branch.parameter - value))
            (mark,) = axes.plot(
                value, height[k], _BIFURCATION_MARKERS[name], color="0.2", markersize=5
            )
            labelled.setdefault(name, mark)
    axes.legend(labelled.values(), labelled.keys(), frameon=False, fontsize=8)


def lyapunov(spectrum: Spectrum, title: str = "") -> Figure:
    """How the averages of Lyapunov exponents settle with the number of layers.

    Exponents are in nats per layer; those below -30 are left out.

    Parameters
    ----------
    spectrum : dynsim.equilibria.lyapunov.Spectrum
        From `dynsim.equilibria.lyapunov.spectrum`.
    title : str
        Wrapped to lines of 90 characters.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from dynsim import AttentionDynamics, masks, norms, weights
    >>> from dynsim.equilibria.lyapunov import spectrum as exponents
    >>> unit = AttentionDynamics(masks.complete(1), weights.Diagonal((2.0, 1.0)), norms.Unit())
    >>> figure = lyapunov(exponents(unit, np.array([[0.6, 0.8]]), layers=100))
    >>> round(float(figure.axes[0].get_lines()[0].get_ydata()[-1]), 6)  # log 1/2
    -0.693147
    """
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    layers = np.arange(1, len(spectrum.running) + 1)
    for k in np.flatnonzero(spectrum.exponents > -30):
        style = STYLES[k % len(STYLES)] | {"marker": "none", "linewidth": 1.2}
        axes.plot(layers, spectrum.running[:, k], **style)
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set(xscale="log", xlabel="layers averaged over", ylabel="exponent (nats per layer)")
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle("\n".join(wrap(title, 90)), fontsize=10)
    return figure


def geometry(surveys: Sequence[Survey], title: str = "") -> Figure:
    """LayerNorms side by side: ellipsoid, semi-axes, distances to the surface, angles to 1.

    The ellipsoid is that of the first, with its outputs along the three longest axes. Semi-axes are
    drawn at 1/1000 of the longest at least.

    Parameters
    ----------
    surveys : sequence of dynsim.geometry.Survey
        At least one, from `dynsim.geometry.survey`.
    title : str
        Wrapped to lines of 130 characters.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from dynsim import norms, tokens
    >>> from dynsim.geometry import survey
    >>> x = tokens.gaussian(samples=1, n=50, d=4)[0]
    >>> figure = geometry([survey("gains 1 to 4", norms.LayerNorm(gain=[1, 2, 3, 4]), x)])
    >>> [axes.get_title() for axes in figure.axes[1:3]]
    ['principal axes', 'where outputs land']
    """
    figure = Figure(figsize=(13.5, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 4, width_ratios=(1.25, 1, 1, 1))
    _draw_ellipsoid(figure.add_subplot(grid[0], projection="3d"), surveys[0])
    axes_of, depth, angles = (figure.add_subplot(grid[k]) for k in (1, 2, 3))
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(surveys)))
    for survey, colour in zip(surveys, colours, strict=True):
        s = survey.ellipsoid.semi_axes
        few: dict[str, Any] = {"marker": "o", "markersize": 4} if len(s) < 20 else {}
        shown = np.maximum(s, s[0] / 1e3)
        axes_of.plot(np.arange(1, len(s) + 1), shown, color=colour, label=survey.name, **few)
        inside = np.sort(np.maximum(survey.distance / s[0], 1e-17))
        depth.plot(inside, np.arange(1, len(inside) + 1) / len(inside), color=colour)
        tilt = np.sort(survey.changes.angle_before)
        angles.plot(tilt, np.arange(1, len(tilt) + 1) / len(tilt), color=colour)
    axes_of.set(yscale="log", xlabel="axis", ylabel="semi-axis", title="principal axes")
    axes_of.xaxis.set_major_locator(MaxNLocator(integer=True))
    depth.set(xscale="log", xlabel="distance to the surface / longest semi-axis",
              ylabel="share of tokens", title="where outputs land")  # fmt: skip
    angles.axvline(90, color="0.6", linewidth=0.8, linestyle=(0, (2, 2)))
    angles.set(xlabel="degrees (90: LayerNorm = RMSNorm)", ylabel="share of tokens",
               title="angle of inputs to 1")  # fmt: skip
    for axes in (axes_of, depth, angles):
        axes.spines[["top", "right"]].set_visible(False)
    if len(surveys) > 1:
        handles, labels = axes_of.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False,
                      fontsize=8)  # fmt: skip
    if title:
        figure.suptitle("\n".join(wrap(title, 130)), fontsize=10)
    return figure


def _draw_ellipsoid(axes: Any, survey: Survey) -> None:
    """Outputs along the three longest principal axes, in the ellipsoid's shadow there."""
    s, points = (np.pad(a[..., :3], [(0, 0)] * (a.ndim - 1) + [(0, max(0, 3 - a.shape[-1]))])
                 for a in (survey.ellipsoid.semi_axes, survey.points))  # fmt: skip
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 49), np.linspace(0, np.pi, 25))
    sphere = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)])
    axes.plot_wireframe(*(s[:, None, None] * sphere), color="0.6", linewidth=0.3, rstride=2,
                        cstride=2)  # fmt: skip
    axes.scatter(*points.T, s=5, color=STYLES[1]["color"], depthshade=False)
    axes.set_box_aspect((1, 1, 1), zoom=0.85)
    axes.set(xlim=(-s[0], s[0]), ylim=(-s[0], s[0]), zlim=(-s[0], s[0]))
    axes.set_xlabel("axis 1", fontsize=8)
    axes.set_ylabel("axis 2", fontsize=8)
    axes.set_zlabel("axis 3", fontsize=8)
    axes.tick_params(labelsize=6)
    k = len(survey.ellipsoid.semi_axes)
    shadow = f", shadow on 3 of {k} axes" if k > 3 else ""
    axes.set_title(survey.name + shadow, fontsize=9)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG (150 dots per inch), SVG or PDF by its suffix; whole or not at all.

    Raises ValueError for a suffix that matplotlib does not know or where a folder is in the way,
    OSError where the system does not let it write.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Figure(), f"{folder}/empty.svg")
    ...     Path(folder, "empty.svg").read_text()[:5]
    '<?xml'
    """
    with written_whole(path) as temporary:
        metadata = {"Date": None} if temporary.suffix == ".svg" else None
        figure.savefig(temporary, dpi=150, metadata=metadata)
