"""The figure of a run or of several: what collapses, what stays, and how theory puts it.

A line is a median over samples that ended alike, thin lines are the samples themselves: a band
over all of them would hide the few that end otherwise. Lines are named where they end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from dynsim.measures import floor
from dynsim.results import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dynsim.results.trajectory import Trajectory

__all__ = ["Group", "rank_trajectory"]

#: Outcomes in words, where these are others than those of the kind.
_OUTCOMES = {"floor": "collapsed", "slow": "slowly falling", "short": "too short to say"}
_OTHER_COLOUR = "#555555"
#: The colours of runs that are compared; more of them are graded from dark to light.
_RUN_COLOURS = (
    *(style.BLUE, style.VERMILION, style.GREEN, style.PINK),
    *(style.ORANGE, style.SKY, style.BLACK, style.BROWN),
)
#: Dashes of bounds; all of them are grey.
_BOUND_DASHES = ((0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), "-", (0, (8, 3)), (0, (3, 3)))

#: log10 of what float64 still holds, and of the lowest share on an axis.
_RANGE, _DEEPEST = -330.0, -1000.0
#: Samples of a group, and depths of a line, that are drawn at most.
_MOST_LINES, _MOST_POINTS = 40, 400
#: Inches: the figure, its margins, the panels, room for a character of a label, and for its line.
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM = 9.6, 3.0, 0.66, 0.2, 0.46
_SIDE, _GAP, _LETTER, _LINE = 2.75, 0.62, 0.0645, 0.13
#: Behind words that stand over lines.
_PAPER = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5}
#: Raised digits as characters: mathtext would have to load and build its parser for them.
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Group(NamedTuple):
    """Samples of a run that ended alike.

    kind : a kind of `dynsim.collapse.verdicts.Verdict`
    samples : array of bool (samples,)
    """

    kind: str
    samples: np.ndarray


class _Scale(NamedTuple):
    """The axis of the distances: of the shares themselves, from 0, where all are above a tenth,
    else of their log10, from `edge`, at which exact zeros are drawn."""

    edge: float
    linear: bool

    @property
    def limits(self) -> tuple[float, float]:
        return (0.0, 1.04) if self.linear else (self.edge, -0.04 * self.edge)

    def place(self, logs: np.ndarray) -> np.ndarray:
        """Heights of shares of which these are the log10.

        They are drawn on a plain axis, also the logarithms: matplotlib's own ends at 1e-308.
        """
        logs = np.where(np.isneginf(logs), self.edge, np.maximum(logs, self.edge + _DEEPEST))
        return 10.0**logs if self.linear else logs


class _Curve(NamedTuple):
    """A group with its name and colour in the figure."""

    label: str
    colour: Any
    run: Trajectory
    samples: np.ndarray


class _End(NamedTuple):
    """What is written at the end of a line, and where that is in data coordinates."""

    words: str
    height: float
    colour: Any
    depth: int | None = None  # where it ends within the panel


def rank_trajectory(
    runs: Mapping[str, Trajectory],
    title: str = "",
    theory: Mapping[str, np.ndarray] | None = None,
    *,
    subtitle: str = "",
    groups: Mapping[str, Sequence[Group]] | None = None,
) -> Figure:
    """Distances as shares of ||X||, stable rank and cosines against depth.

    Thick lines are medians over the samples of a group, thin ones samples; a line is dotted where
    most of its samples lie within rounding (`dynsim.rounding`). Colours are outcomes in the figure
    of one run, and runs in that of several. An exact zero is drawn at the lower edge; a run that
    falls far below all others leaves the panel.

    Parameters
    ----------
    runs : mapping of str to Trajectory
        Runs by the name that the figure gives them; at least one.
    title, subtitle : str
        The finding, in one line if it has up to 120 characters; and what was run.
    theory : mapping of str to array (T+1,), optional
        log10 of bounds and predictions of mu / ||X||_F by name; NaN where there is none.
    groups : mapping of str to sequence of Group, optional
        For each run its samples by outcome; every sample is in one group.

    Returns
    -------
    matplotlib.figure.Figure
        For `dynsim.plots.save`; it belongs to no window.

    Examples
    --------
    >>> import dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.causal(4), dynsim.weights.Identity())
    >>> run = dynsim.simulate(pure, dynsim.tokens.gaussian(samples=3, n=4, d=2), depth=20)
    >>> figure = rank_trajectory({"causal": run}, "mu halves in every layer")
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['mu / ||X||   (dashed: distance to rank one)', 'stable rank', 'cosine']
    """
    curves = _curves(runs, groups or {})
    scale = _scale(curves)
    head = _Head(title, subtitle)
    figure, (distances, ranks, cosines) = _panels(head, _label_room(curves, theory or {}))
    ends = [*_draw_distances(distances, curves, scale)]
    ends += _draw_theory(distances, theory or {}, scale)
    _finish_distances(distances, curves, scale)
    _write_ends(distances, ends)
    _draw_ranks(ranks, curves)
    _draw_cosines(cosines, curves)
    depth = max(run.depth for run in runs.values())
    shown = _shown_depth(curves, depth, scale)
    for axes, name in (
        (distances, "a  distance to consensus"),
        (ranks, "b  directions that carry the tokens"),
        (cosines, "c  cosines, mean (dashed: smallest)"),
    ):
        _dress(axes, name, shown)
    ranks.tick_params(labelbottom=False)
    for axes in (distances, cosines):
        words = "depth (layers)" if shown == depth else f"depth (layers; the run has {depth})"
        axes.set_xlabel(words, fontsize=8, labelpad=2)
    head.write(figure)
    return figure


# --- what is drawn --------------------------------------------------------------------------------


def _curves(runs: Mapping[str, Trajectory], groups: Mapping[str, Sequence[Group]]) -> list[_Curve]:
    """The groups of all runs; large ones come first, so that small ones are drawn over them."""
    colours = _run_colours(len(runs))
    curves = []
    for colour, (label, run) in zip(colours, runs.items(), strict=True):
        every = Group("", np.ones(run.n_samples, dtype=bool))
        own = sorted(groups.get(label) or [every], key=lambda group: -int(group.samples.sum()))
        for kind, samples in own:
            shown = style.OUTCOMES.get(kind, _OTHER_COLOUR) if len(runs) == 1 and kind else colour
            curves.append(_Curve(_name(label, kind, samples, len(own)), shown, run, samples))
    return curves


def _run_colours(number: int) -> list:
    if number <= len(_RUN_COLOURS):
        return list(_RUN_COLOURS[:number])
    return list(colormaps["viridis"](np.linspace(0.0, 0.92, number)))


def _name(label: str, kind: str, samples: np.ndarray, n_groups: int) -> str:
    """What is written at the end of a line: the run, and how many of its samples ended so."""
    if n_groups == 1:
        return label or "to consensus"
    words = _OUTCOMES.get(kind, kind)
    return f"{label}{', ' * bool(label)}{int(samples.sum())} of {len(samples)} {words}"


def _log_shares(curve: _Curve, name: str) -> np.ndarray:
    """log10 of a distance as a share of ||X||, (samples, T+1); NaN where it was not recorded."""
    run, which = curve.run, curve.samples
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.log10(run["frobenius_norm"][which])
        log = run["log10_mu"][which] if name == "mu" else np.log10(run[name][which])
        return np.where(np.isneginf(size), -np.inf, log - size)


def _draw_distances(axes: Axes, curves: Sequence[_Curve], scale: _Scale) -> list[_End]:
    """mu of every sample and in the median, the median distance to rank one in dashes."""
    ends = []
    for k, curve in enumerate(curves):
        values = scale.place(_log_shares(curve, "mu"))
        end = _draw(axes, curve, "log10_mu", values, curves, k)
        ends.append(_End(curve.label, end, curve.colour))
        if "rank_one_distance" not in curve.run.measures:
            continue
        shares = scale.place(_log_shares(curve, "rank_one_distance"))
        end = _draw_median(axes, curve, "rank_one_distance", shares, "--", 1.3, 1.5 + 0.01 * k)
        if len(curves) == 1 and np.isfinite(end):
            ends.append(_End("to rank one", end, curve.colour))
    return ends


def _draw(
    axes: Axes, curve: _Curve, name: str, values: np.ndarray, curves: Sequence[_Curve], k: int
) -> float:
    """The samples and the median of a group; the height at which the median ends."""
    if len(values) > 1 and len(curves) <= len(_RUN_COLOURS):
        _draw_samples(axes, values, curve.colour)
    return _draw_median(axes, curve, name, values, "-", 2.2, 2.0 + 0.01 * k)


def _draw_samples(axes: Axes, values: np.ndarray, colour: Any) -> None:
    """Up to `_MOST_LINES` samples, spread evenly over where they end, lowest and highest among
    them."""
    depths = np.flatnonzero(~np.isnan(values).all(axis=0))
    if not len(depths):
        return
    depths = _thinned(depths, _MOST_POINTS)
    shown = _thinned(np.argsort(values[:, depths[-1]], kind="stable"), _MOST_LINES)
    lines = np.stack([np.broadcast_to(depths, (len(shown), len(depths))),
                      values[np.ix_(shown, depths)]], axis=-1)  # fmt: skip
    width, alpha = (0.7, 0.4) if len(shown) <= 20 else (0.5, 0.3)
    axes.add_collection(
        LineCollection(list(lines), colors=[colour], linewidths=width, alpha=alpha, zorder=1.0)
    )


def _thinned(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the values, evenly spread, the first and the last among them."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(int)]


def _draw_median(
    axes: Axes,
    curve: _Curve,
    name: str,
    values: np.ndarray,
    dash: str,
    width: float,
    order: float,
) -> float:
    """The median over samples, dotted where most of them lie within rounding; where it ends."""
    depths = np.flatnonzero(~np.isnan(values).all(axis=0))
    if not len(depths):
        return np.nan
    middle = np.median(values[:, depths], axis=0)
    within = curve.run.within_rounding(name)[curve.samples].mean(axis=0)[depths] > 0.5
    few: dict[str, Any] = {"marker": "o", "markersize": 2.5} if len(depths) < 12 else {}
    solid = np.where(within, np.nan, middle)
    axes.plot(depths, solid, dash, color=curve.colour, linewidth=width, zorder=order,
              label=f"{name}: {curve.label}", **few)  # fmt: skip
    if within.any():
        dotted = np.where(within | np.roll(within, -1), middle, np.nan)
        axes.plot(depths, dotted, ":", color=curve.colour, linewidth=1.0, zorder=order,
                  label="_rounding")  # fmt: skip
    return float(middle[-1])


def _draw_theory(axes: Axes, theory: Mapping[str, np.ndarray], scale: _Scale) -> list[_End]:
    """Bounds in grey, what is predicted in black over what is measured."""
    ends, n_bounds = [], 0
    for name, values in theory.items():
        look: dict[str, Any] = {"color": "black", "linestyle": (0, (3, 2)), "linewidth": 1.2}
        if name.startswith("bound"):
            look |= {"color": "0.45", "linestyle": _BOUND_DASHES[n_bounds % len(_BOUND_DASHES)]}
            n_bounds += 1
        elif name == "infinite width":
            look |= {"color": "#7A4FA3", "linestyle": (0, (6, 2, 1, 2))}
        values = scale.place(values)
        axes.plot(np.arange(len(values)), values, label=name, zorder=3.0, **look)
        known = np.flatnonzero(np.isfinite(values))
        if len(known):
            within = int(known[-1]) if known[-1] < len(values) - 1 else None
            ends.append(_End(name, float(values[known[-1]]), look["color"], within))
    return ends


def _scale(curves: Sequence[_Curve]) -> _Scale:
    """The axis on which the distances of these curves are seen.

    A line below the range of floating-point numbers leaves the panel if another stays, and at
    `_DEEPEST` in any case.
    """
    bottom = float(np.log10(floor(1.0, curves[0].run.final.dtype))) - 2.0
    lowest = []
    for curve in curves:
        logs = _log_shares(curve, "mu")
        least = float(np.min(logs, where=np.isfinite(logs), initial=0.0))
        lowest.append(min(least, bottom) if np.isneginf(logs).any() else least)
    staying = [low for low in lowest if low > _RANGE]
    edge = min(staying) if staying else max(*lowest, _DEEPEST)
    if len(staying) < len(lowest):
        edge = min(edge, bottom)  # the others are seen to leave
    return _Scale(min(edge - 0.03 * abs(edge), -1.0), edge > -1.0)


def _shown_depth(curves: Sequence[_Curve], depth: int, scale: _Scale) -> int:
    """The depth to which panels go: all layers, or less where most of them change nothing."""
    last = 0
    for curve in curves:
        last = max(last, _last_change(scale.place(_log_shares(curve, "mu")), *scale.limits))
        for name, low, high in (("mean_cosine", -1.0, 1.0), ("stable_rank", 1.0, 10.0)):
            if name in curve.run.measures:
                last = max(last, _last_change(curve.run[name][curve.samples], low, high))
    return depth if last == 0 or last > depth / 3 else min(depth, max(int(1.3 * last), 8))


def _last_change(values: np.ndarray, low: float, high: float) -> int:
    """The first depth from which on every sample stays within 2% of the panel of its end."""
    depths = np.flatnonzero(~np.isnan(values).all(axis=0))
    if not len(depths):
        return 0
    seen = np.clip(values[:, depths], low, high)
    moved = (np.abs(seen - seen[:, -1:]) > 0.02 * (high - low)).any(axis=0)
    after = np.flatnonzero(moved)
    return int(depths[after[-1] + 1]) if len(after) else 0


def _finish_distances(axes: Axes, curves: Sequence[_Curve], scale: _Scale) -> None:
    """Axis and floor; below the floor mu of a run that is not followed further is rounding."""
    axes.set_ylim(*scale.limits)
    words = "mu / ||X||"
    if any("rank_one_distance" in curve.run.measures for curve in curves):
        words += "   (dashed: distance to rank one)"
    axes.set_ylabel(words, fontsize=8, labelpad=2)
    if scale.linear:
        return
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=2))
    axes.yaxis.set_major_formatter(FuncFormatter(_power_of_ten))
    dtype = curves[0].run.final.dtype
    at = float(np.log10(floor(1.0, dtype)))
    if at <= scale.edge:
        return
    axes.axhline(at, color="0.35", linewidth=0.8, linestyle=(0, (1, 2)), zorder=0.5)
    words = f"{dtype} floor (dotted lines: rounding)"
    if not all(curve.run.follows_mu for curve in curves):
        axes.axhspan(scale.edge, at, color="0.92", linewidth=0, zorder=0)
        words = f"{dtype} floor: rounding below"
    axes.text(0.99, at, words, transform=axes.get_yaxis_transform(), fontsize=6.5, color="0.35",
              ha="right", va="bottom", bbox=_PAPER)  # fmt: skip


def _power_of_ten(exponent: float, position: int | None = None) -> str:
    whole = round(exponent)
    if abs(exponent - whole) > 1e-9:
        return f"{10.0**exponent:.2g}"
    if -3 < whole <= 0:
        return f"{10.0**whole:g}"
    return "10" + str(whole).translate(_SUPERSCRIPTS)


def _draw_ranks(axes: Axes, curves: Sequence[_Curve]) -> None:
    axes.set_ylabel("stable rank", fontsize=8, labelpad=2)
    largest = 2.0
    for k, curve in enumerate(curves):
        if "stable_rank" not in curve.run.measures:
            continue
        values = curve.run["stable_rank"][curve.samples]
        if np.isfinite(values).any():
            largest = max(largest, float(np.nanmax(values)))
        with np.errstate(divide="ignore"):
            logs = np.maximum(np.log10(values), 0.0)
        _draw(axes, curve, "stable_rank", logs, curves, k)
    ticks = [v * ten for ten in (1, 10, 100, 1000) for v in (1, 2, 5) if v * ten <= 1.3 * largest]
    axes.yaxis.set_major_locator(FixedLocator(np.log10(ticks).tolist()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda log, position: f"{10.0**log:g}"))
    axes.set_ylim(-0.04 * np.log10(largest), 1.05 * np.log10(largest))


def _draw_cosines(axes: Axes, curves: Sequence[_Curve]) -> None:
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set(ylim=(-1.08, 1.08), yticks=(-1, 0, 1))
    axes.set_ylabel("cosine", fontsize=8, labelpad=2)
    for k, curve in enumerate(curves):
        if "mean_cosine" in curve.run.measures:
            _draw(axes, curve, "mean_cosine", curve.run["mean_cosine"][curve.samples], curves, k)
        if "min_cosine" in curve.run.measures:
            values = curve.run["min_cosine"][curve.samples]
            _draw_median(axes, curve, "min_cosine", values, "--", 1.3, 1.5 + 0.01 * k)


# --- where it stands ------------------------------------------------------------------------------


class _Head:
    """Title and subtitle: their lines, sizes and heights."""

    def __init__(self, title: str, subtitle: str) -> None:
        room = _WIDTH - 0.2
        largest, least, letter = 11.5, 8.0, 0.0081  # points; inches that a character takes a point
        size = room / (letter * max(len(title), 1))
        self.size = min(max(size, least), largest)
        self.title = [title] if size >= least else wrap(title, int(room / (letter * least)))
        self.subtitle = wrap(subtitle, int(room / (0.0074 * 7.5)))
        self.height = 0.2 * len(self.title) + 0.14 * len(self.subtitle) + 0.1

    def write(self, figure: Figure) -> None:
        height = figure.get_figheight()
        x, top = 0.1 / _WIDTH, height - 0.07
        look: dict[str, Any] = {"ha": "left", "va": "top", "linespacing": 1.15}
        words = "\n".join(self.title)
        figure.text(x, top / height, words, fontsize=self.size, weight="bold", **look)
        top -= 0.2 * len(self.title)
        words = "\n".join(self.subtitle)
        figure.text(x, top / height, words, fontsize=7.5, color="0.3", **look)


def _label_room(curves: Sequence[_Curve], theory: Mapping[str, np.ndarray]) -> float:
    """Inches that the names of the lines take at most."""
    names = [curve.label for curve in curves] + list(theory)
    names += ["to rank one"] if len(curves) == 1 else []
    return min(0.12 + _LETTER * max(map(len, names)), 2.4)


def _panels(head: _Head, room: float) -> tuple[Figure, list[Axes]]:
    """A large panel with room for names at its right, and two small ones.

    Margins are set in inches, not found by constrained layout, which takes as long as the drawing.
    """
    height = head.height + 0.22 + _HEIGHT + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasAgg(figure)
    side = _WIDTH - _RIGHT - _SIDE
    small = (_HEIGHT - 0.32) / 2
    places = [
        (_LEFT, _BOTTOM, side - _GAP - room - _LEFT, _HEIGHT),
        (side, _BOTTOM + small + 0.32, _SIDE, small),
        (side, _BOTTOM, _SIDE, small),
    ]
    axes = [
        figure.add_axes((left / _WIDTH, bottom / height, width / _WIDTH, tall / height))
        for left, bottom, width, tall in places
    ]
    return figure, axes


def _dress(axes: Axes, name: str, depth: int) -> None:
    axes.set_xlim(0, max(depth, 1))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(name, loc="left", fontsize=8.5, y=1.0, pad=4)  # y: not searched for
    axes.tick_params(labelsize=8, length=2.5)
    axes.grid(True, color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _write_ends(axes: Axes, ends: Sequence[_End]) -> None:
    """The names of the lines, beside their ends, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    inches = _HEIGHT / (high - low)
    most = int(_HEIGHT / _LINE) - 1
    known = [end for end in ends if np.isfinite(end.height)]
    for end in known:
        if end.depth is not None:
            at = end.depth, end.height
            axes.annotate(end.words, at, (-2, -4), textcoords="offset points", color=end.colour,
                          fontsize=8, ha="right", va="top", bbox=_PAPER)  # fmt: skip
    shown = sorted((end for end in known if end.depth is None), key=lambda end: end.height)
    if len(shown) > most:
        shown = [shown[k] for k in _thinned(np.arange(len(shown)), most)]
    wanted = np.array([(np.clip(end.height, low, high) - low) * inches for end in shown])
    for end, height in zip(shown, _apart(wanted, _LINE, _HEIGHT - _LINE / 2), strict=True):
        beyond = " ↑" * bool(end.height > high) + " ↓" * bool(end.height < low)
        axes.text(1.012, height / _HEIGHT, end.words + beyond, transform=axes.transAxes,
                  color=end.colour, fontsize=8, va="center", ha="left")  # fmt: skip


def _apart(wanted: np.ndarray, gap: float, room: float) -> np.ndarray:
    """The heights nearest to those wanted (ascending) that keep `gap` between them, in [0, room].

    Less k times the gap they ascend: a regression under order, by pooling of neighbours.
    """
    pools: list[list[float]] = []  # sum, number
    for k, height in enumerate(wanted):
        pools.append([height - k * gap, 1.0])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, number = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += number
    means = np.concatenate([np.full(int(n), total / n) for total, n in pools] or [np.empty(0)])
    means = np.clip(means, 0.0, max(room - (len(wanted) - 1) * gap, 0.0))
    return means + gap * np.arange(len(wanted))
