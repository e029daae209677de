"""Figures: results in, matplotlib figures out; that of a run is in `rank_figure`.

Lines differ in colour (Okabe and Ito's palette), dash and marker, so that they can be told apart
in grey and by colour-blind readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dynsim._files import written_whole
from dynsim.measures import mu
from dynsim.results import style
from dynsim.results.rank_figure import Group, rank_trajectory
from dynsim.results.style import STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import TypeAlias

    from matplotlib.axes import Axes

    from dynsim.geometry import Survey

    # classes of dynsim.equilibria, a room above this one, which imports nothing from there
    Search: TypeAlias = Any
    Basins: TypeAlias = Any
    Branch: TypeAlias = Any
    Spectrum: TypeAlias = Any

__all__ = [
    "STYLES",
    "Group",
    "basins",
    "branches",
    "equilibria",
    "geometry",
    "lyapunov",
    "rank_trajectory",
    "save",
]

#: Largest resolution and width of a PNG.
_DPI, _PIXELS = 240, 1725


def equilibria(search: Search, title: str = "") -> Figure:
    """How many equilibria there are of each rank, by stability; and their spectral radii.

    Bars of the radii are the errors that rounding may have made. A question mark stands at ranks
    where a singular value lies near the tolerance.

    Parameters
    ----------
    search : dynsim.equilibria.Search
        From `dynsim.equilibria.find_equilibria`.
    title : str
        Wrapped to the width of the figure.

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
    with style.context():
        figure, ((counts, radii),) = style.panels(1, 2, height=2.6)
        rows = search.table()
        ranks = np.array([row["rank"] for row in rows])
        bottom = np.zeros(len(rows))
        for kind, colour in style.KINDS.items():
            height = np.array([row[kind] for row in rows])
            mine = [e for e in search.equilibria if e.kind == kind]
            if not mine:
                continue
            words = "marginal: rounding decides" if kind == "marginal" else kind
            counts.bar(ranks, height, bottom=bottom, color=colour, edgecolor="0.3", label=words)
            bottom = bottom + height
            _draw_radii(radii, mine, colour)
        unsure = {e.rank for e in search.equilibria if not e.rank_is_sure}
        for rank, total in zip(ranks, bottom, strict=True):
            words = f"{total:.0f}{'?' if rank in unsure else ''}"
            counts.annotate(words, (rank, total), ha="center", va="bottom", fontsize=7)
        counts.margins(y=0.12)
        counts.set(xlabel="rank", ylabel="equilibria found")
        counts.grid(False, axis="x")
        radii.axhline(1, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)))
        radii.set(xlabel="rank (◆: sign flips and rotating ones)", ylabel="spectral radius")
        every = [e.spectral_radius for e in search.equilibria]
        if every and min(every) > 0 and max(every) > 10:
            radii.set_yscale("log")
        for axes in (counts, radii):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.letters((counts, radii))
        figure.legend(loc="outside lower center", ncols=4)
        style.finding(figure, title)
    return figure


def _draw_radii(axes: Axes, found: Sequence[Any], colour: str) -> None:
    """Spectral radii with their errors, those of a rank side by side from small to large."""
    for rank in {e.rank for e in found}:
        mine = sorted((e for e in found if e.rank == rank), key=lambda e: e.spectral_radius)
        places = rank + np.linspace(-0.3, 0.3, len(mine)) * (len(mine) > 1)
        for at, e in zip(places, mine, strict=True):
            axes.errorbar(
                [at],
                [e.spectral_radius],
                yerr=[e.stability.radius_error],
                fmt="o" if e.type == "fixed" else "D",
                color=colour,
                markeredgecolor="0.3",
                markeredgewidth=0.4,
                ecolor="0.3",
                elinewidth=0.6,
                markersize=3.5,
            )


def basins(result: Basins, title: str = "") -> Figure:
    """Shares of starts by rank and type of their limit set, with intervals; when they settled.

    Parameters
    ----------
    result : dynsim.equilibria.basins.Basins
        From `dynsim.equilibria.basins.basins`.
    title : str
        Wrapped to the width of the figure.

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
    with style.context():
        rows = result.rows
        figure, ((shares, depths),) = style.panels(1, 2, height=max(2.3, 0.8 + 0.3 * len(rows)))
        for k, row in enumerate(rows):
            colour, share = style.rank_colour(row["rank"]), row["share"]
            errors = [[max(share - row["low"], 0.0)], [max(row["high"] - share, 0.0)]]
            shares.barh([k], [share], height=0.55, color=colour, alpha=0.35, linewidth=0)
            shares.errorbar([share], [k], xerr=errors, fmt="o", color=colour, capsize=2)
            beyond = row["high"] < 0.75
            shares.annotate(
                f"{100 * share:.3g}%",
                (row["high"] if beyond else row["low"], k),
                xytext=(5 if beyond else -5, 0),
                textcoords="offset points",
                va="center",
                ha="left" if beyond else "right",
                fontsize=7,
            )
        names = [f"rank {row['rank']}, {row['type']}{_sampled(row)}" for row in rows]
        shares.set_yticks(range(len(rows)), names)
        shares.set(xlabel="share of starts (95% interval)", xlim=(0, 1.02))
        shares.set_ylim(len(rows) - 0.4, -0.6)
        shares.grid(False, axis="y")
        _draw_settling(depths, result.limits)
        style.letters((shares, depths))
        style.finding(figure, title)
    return figure


def _draw_settling(axes: Axes, limits: Any) -> None:
    """By rank, the share of its starts that have not settled, by depth."""
    lines = {}
    for k, rank in enumerate(np.unique(limits.rank)):
        mine = limits.rank == rank
        settled = np.sort(limits.depth[mine & limits.settled])
        left = 1 - np.arange(len(settled) + 1) / mine.sum()
        looks = [1.0, *settled, limits.depth.max()]
        (lines[f"rank {rank}"],) = axes.step(
            looks,
            [*left, left[-1]],
            where="post",
            color=style.rank_colour(rank),
            linestyle=style.DASHES[k % len(style.DASHES)],
        )
    axes.set(xscale="log", xlabel="depth (layers)", ylabel="share not settled", ylim=(-0.03, 1.03))
    style.name_lines(axes, lines)


def _sampled(row: dict) -> str:
    """That a share is estimated, and from how many starts."""
    return f"\n(by {row['sampled']} exponents)" if row["sampled"] else ""


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
        Wrapped to the width of the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from dynsim.equilibria import continuation, hyperbolic_dynamics, hyperbolic_pair
    >>> branch = continuation.continue_equilibrium(
    ...     lambda c: hyperbolic_dynamics(0.5, c), hyperbolic_pair(0.5, 1.0)[0], 1.0, 0.8
    ... )
    >>> [text.get_text() for text in branches([branch], "c").axes[0].texts]
    ['fold 0.866', 'rank 2']
    """
    with style.context():
        figure, ((axes,),) = style.panels(1, 1, height=2.9)
        ends: dict[int, tuple[float, float, str, str]] = {}
        for branch in curves:
            _draw_branch(axes, branch, ends)
        axes.set(xlabel=parameter, ylabel="distance to consensus")
        axes.set_title("solid: stable; dashed: not", loc="left", color="0.35", fontsize=7)
        style.label_ends(axes, ends.values())
        style.finding(figure, title)
    return figure


def _draw_branch(axes: Axes, branch: Branch, ends: dict) -> None:
    """A branch with its bifurcations; `ends` holds for each rank where it reaches furthest."""
    height, stable = mu(branch.tokens), branch.spectral_radius < 1
    for rank in np.unique(branch.rank):
        colour, mine = style.rank_colour(rank), branch.rank == rank
        for some, dash, wide in ((stable, "-", 2.0), (~stable, "--", 1.0)):
            shown = np.where(mine & some, height, np.nan)
            axes.plot(branch.parameter, shown, dash, color=colour, linewidth=wide)
        k = np.argmax(np.where(mine, branch.parameter, -np.inf))
        end = float(branch.parameter[k]), float(height[k]), f"rank {rank}", colour
        ends[rank] = max(ends.get(rank, end), end)
    for name, value in branch.bifurcations:
        k = np.argmin(np.abs(branch.parameter - value))
        axes.plot(value, height[k], _BIFURCATION_MARKERS[name], color="0.2", markersize=5, zorder=4)
        axes.annotate(
            f"{name} {value:.4g}",
            (value, height[k]),
            xytext=(6, -3),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color="0.2",
        )


#: Exponents within so much of zero are called zero in a figure, beside their own error.
_NEAR_ZERO = 1e-3


def lyapunov(spectrum: Spectrum, title: str = "") -> Figure:
    """How the averages of Lyapunov exponents settle with the number of layers, and all of them.

    Exponents are in nats per layer; those below -30 are left out. The first panel follows the
    largest one with its error, and, thin, a few of the others; the second has every exponent.

    Parameters
    ----------
    spectrum : dynsim.equilibria.lyapunov.Spectrum
        From `dynsim.equilibria.lyapunov.spectrum`.
    title : str
        Wrapped to the width of the figure.

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
    kept = np.flatnonzero(spectrum.exponents > -30)
    with style.context():
        figure, ((running, values),) = style.panels(1, 2, height=2.5, width_ratios=(1.25, 1))
        layers = np.arange(1, len(spectrum.running) + 1)
        ends = []
        for k in kept[np.unique(np.linspace(0, len(kept) - 1, 6).round().astype(int))]:
            colour = _sign_colour(spectrum.exponents[k], spectrum.error)
            running.plot(
                layers, spectrum.running[:, k], color=colour, linewidth=1.6 if k == 0 else 0.7
            )
            ends.append((layers[-1], spectrum.running[-1, k], f"λ{k + 1}", colour))
        if len(kept) and np.isfinite(spectrum.error):
            high, low = (spectrum.exponents[kept[0]] + sign * spectrum.error for sign in (1, -1))
            running.axhspan(low, high, color="0.88", linewidth=0, zorder=0)
        running.axhline(0, color="0.4", linewidth=0.8)
        running.set(
            xscale="log", xlabel="layers averaged over", ylabel="exponent (nats per layer)",
            title="grey: largest one with its error",
        )  # fmt: skip
        style.label_ends(running, ends)
        shown = spectrum.exponents[kept]
        colours = [_sign_colour(value, spectrum.error) for value in shown]
        values.scatter(kept + 1, shown, c=colours, s=8)
        values.axhline(0, color="0.4", linewidth=0.8)
        values.set(xlabel="number k", ylabel="exponent (nats per layer)", title=f"all {len(kept)}")
        values.xaxis.set_major_locator(MaxNLocator(integer=True))
        meanings = {
            style.VERMILION: "positive: states part",
            style.GREY: "zero within its error",
            style.BLUE: "negative: states meet",
        }
        for k, (colour, words) in enumerate(meanings.items()):
            if colour in colours:
                style.note(values, words, 0.03, 0.19 - 0.08 * k, color=colour)  # values fall
        style.letters((running, values))
        style.finding(figure, title)
    return figure


def _sign_colour(value: float, error: float) -> str:
    if abs(value) <= min(max(error, _NEAR_ZERO), 0.02):
        return style.GREY
    return style.VERMILION if value > 0 else style.BLUE


def geometry(surveys: Sequence[Survey], title: str = "") -> Figure:
    """LayerNorms side by side: ellipsoid, semi-axes, distances to the surface, angles to 1.

    The ellipsoid is that of the first, with its outputs along the three longest axes. Semi-axes are
    drawn at 1/1000 of the longest at least. Distances and angles: medians, quarters and 1 to 99% of
    the tokens.

    Parameters
    ----------
    surveys : sequence of dynsim.geometry.Survey
        At least one, from `dynsim.geometry.survey`.
    title : str
        Wrapped to the width of the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from dynsim import norms, tokens
    >>> from dynsim.geometry import survey
    >>> x = tokens.gaussian(samples=1, n=50, d=4)[0]
    >>> figure = geometry([survey("gains 1 to 4", norms.LayerNorm(gain=[1, 2, 3, 4]), x)])
    >>> [axes.get_title(loc="left")[13:].strip() for axes in figure.axes[1:3]]
    ['principal axes', 'where outputs land']
    """
    with style.context():
        tall = max(2.0, 0.9 + 0.13 * len(surveys))
        figure = Figure(figsize=(style.PAGE, 2.6 + tall), layout="constrained")
        FigureCanvasAgg(figure)
        rows = figure.add_gridspec(2, 1, height_ratios=(2.2, tall))
        upper, lower = (rows[k].subgridspec(1, 2) for k in range(2))
        space: Any = figure.add_subplot(upper[0], projection="3d")
        axes_of = figure.add_subplot(upper[1])
        depth, angles = (figure.add_subplot(lower[k]) for k in range(2))
        _draw_ellipsoid(space, surveys[0])
        colours = style.shades(style.BLUE, len(surveys))
        for survey, colour in zip(surveys, colours, strict=True):
            s = survey.ellipsoid.semi_axes
            marker = "o" if len(s) < 20 else None
            axes_of.plot(
                np.arange(1, len(s) + 1), np.maximum(s, s[0] / 1e3), color=colour, marker=marker
            )
        names = [survey.name for survey in surveys]
        longest = [survey.ellipsoid.semi_axes[0] for survey in surveys]
        inside = [
            np.maximum(survey.distance / s, 1e-17)
            for survey, s in zip(surveys, longest, strict=True)
        ]
        style.ranges(depth, names, inside, colours)
        style.ranges(angles, names, [survey.changes.angle_before for survey in surveys], colours)
        angles.tick_params(labelleft=False)
        axes_of.set(yscale="log", xlabel="axis", ylabel="semi-axis", title="principal axes")
        axes_of.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(surveys) > 1:
            style.note(axes_of, "light to dark: the rows below", 0.97, 0.97)
        depth.set(
            xscale="log",
            xlabel="distance to the surface / longest semi-axis",
            title="where outputs land",
        )
        angles.axvline(90, color="0.6", linewidth=0.8, linestyle=(0, (2, 2)))
        angles.set(xlabel="degrees (90: LayerNorm = RMSNorm)", title="angle of inputs to 1")
        style.letters((space, axes_of, depth, angles))
        style.finding(figure, title)
    return figure


def _draw_ellipsoid(axes: Any, survey: Survey) -> None:
    """Outputs along the three longest principal axes, in the ellipsoid's shadow there."""
    s, points = (np.pad(a[..., :3], [(0, 0)] * (a.ndim - 1) + [(0, max(0, 3 - a.shape[-1]))])
                 for a in (survey.ellipsoid.semi_axes, survey.points))  # fmt: skip
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 49), np.linspace(0, np.pi, 25))
    sphere = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)])
    axes.plot_wireframe(*(s[:, None, None] * sphere), color="0.6", linewidth=0.3, rstride=2,
                        cstride=2)  # fmt: skip
    axes.scatter(*points.T, s=3, color=style.VERMILION, depthshade=False)
    axes.set_box_aspect((1, 1, 1), zoom=0.85)
    axes.set(xlim=(-s[0], s[0]), ylim=(-s[0], s[0]), zlim=(-s[0], s[0]))
    for name, label in (("x", "axis 1"), ("y", "axis 2"), ("z", "axis 3")):
        getattr(axes, f"set_{name}label")(label, fontsize=7, labelpad=-2)
        getattr(axes, f"{name}axis").set_major_locator(MaxNLocator(2, symmetric=True))
    axes.tick_params(labelsize=6, pad=-3)
    k = len(survey.ellipsoid.semi_axes)
    shadow = f", shadow on 3 of {k} axes" if k > 3 else ""
    axes.set_title(survey.name + shadow)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG (240 dots per inch, up to 1,725 wide), SVG or PDF by its suffix.

    It is written whole or not at all, and text stays text.

    Raises ValueError for a suffix that matplotlib does not know or where a folder is in the way,
    OSError where the system does not let it write.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Figure(), f"{folder}/empty.svg")
    ...     Path(folder, "empty.svg").read_text()[:5]
    '<?xml'
    """
    with style.context(), written_whole(path) as temporary:
        metadata = {"Date": None} if temporary.suffix == ".svg" else None
        figure.savefig(temporary, dpi=min(_DPI, _PIXELS / figure.get_figwidth()), metadata=metadata)
