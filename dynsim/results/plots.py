"""Figures: results in, matplotlib figures out; that of a run is in `rank_figure`.

Lines differ in colour (Okabe and Ito's palette), dash and marker, so that they can be told apart
in grey and by colour-blind readers.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dynsim._files import written_whole
from dynsim.measures import mu
from dynsim.results.rank_figure import Group, rank_trajectory

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

#: Kinds of equilibria, from dark to light.
_KIND_COLOURS = {
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
    for kind, colour in _KIND_COLOURS.items():
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
