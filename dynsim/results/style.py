"""One style for all figures: sizes, colours that mean one thing, panels, names beside lines.

A figure is drawn inside `context` for a page (183 mm wide, text of 7 to 9 points), and `fit` makes
of it one for a column, or one without its title. Text stays text in PDF and SVG. Colours are
Okabe and Ito's, with three of Paul Tol's for masks, so that they can be told apart by colour-blind
readers; lines differ in dash and marker, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from textwrap import wrap
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D

__all__ = [
    "COLUMN",
    "DASHES",
    "KINDS",
    "MASKS",
    "NORMS",
    "OUTCOMES",
    "PAGE",
    "RANKS",
    "STYLES",
    "WIDTHS",
    "context",
    "finding",
    "fit",
    "label_ends",
    "letters",
    "name_lines",
    "note",
    "panels",
    "ranges",
    "rank_colour",
    "shades",
]

#: Inches: one column and the whole page of a journal with two columns (89 and 183 mm).
COLUMN, PAGE = 3.5, 7.2
WIDTHS = {"column": COLUMN, "page": PAGE}

BLUE, VERMILION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
PINK, SKY, ORANGE, GREY = "#CC79A7", "#56B4E9", "#E69F00", "#666666"
TEAL, OLIVE, WINE, INDIGO, SAND = "#44AA99", "#999933", "#882255", "#332288", "#B8A04C"

#: Dashes that are told apart at the size of a column.
DASHES: tuple[Any, ...] = (
    "-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (6, 2, 1, 2)),
)  # fmt: skip

#: Colour, dash and marker of the first, second, ... series: dark and light alternate.
STYLES: list[dict[str, Any]] = [
    {"color": color, "linestyle": dash, "marker": marker}
    for color, dash, marker in zip(
        (BLUE, VERMILION, GREEN, BLACK, PINK, SKY, ORANGE, GREY), DASHES, "os^DvPX*", strict=True
    )
]

#: Colours of norms: none is grey, LayerNorm blue, RMSNorm vermilion, the unit norm pink.
NORMS = {"none": GREY, "layernorm": BLUE, "rms": VERMILION, "unit": PINK}

#: Colours of masks; none of them is a norm's.
MASKS = {
    "complete": BLACK,
    "causal": GREEN,
    "local": ORANGE,
    "causal-local": SKY,
    "ring": WINE,
    "star": OLIVE,
    "sinks": TEAL,
    "global": INDIGO,
    "random": SAND,
}

#: Colours of equilibria by stability, dark to light.
KINDS = {"stable": GREEN, "marginal": ORANGE, "saddle": SKY, "unstable": VERMILION}

#: Colours of what becomes of tokens, the kinds of `dynsim.collapse.verdicts.Verdict`.
BROWN = "#8B3A00"
OUTCOMES = {
    "collapsed": VERMILION,
    "floor": BROWN,
    "collapsing": ORANGE,
    "rank one": PINK,
    "slow": SKY,
    "staying": BLUE,
    "growing": GREEN,
}

#: Colours of ranks 1, 2, ...; higher ones begin again.
RANKS = ("#555555", BLUE, VERMILION, GREEN, PINK, ORANGE)

RC: Any = {
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "figure.titlesize": 9.0,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.0,
    "patch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.04,
    "mathtext.default": "regular",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "dynsim",
}


def context() -> AbstractContextManager[None]:
    """The style, while figures are made and written; matplotlib's own settings return after it.

    >>> with context():
    ...     figure, axes = panels(1, 2)
    >>> float(figure.get_figwidth()), axes.shape
    (7.2, (1, 2))
    """
    return mpl.rc_context(RC)


def panels(
    rows: int, columns: int, height: float = 2.1, extra: float = 0.35, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure as wide as a page with axes (rows, columns).

    height : of a row, in inches. extra : above them, for the title. options : of `Figure.subplots`.
    """
    figure = Figure(figsize=(PAGE, extra + rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def finding(figure: Figure, text: str) -> None:
    """What the figure shows, in one sentence above it: bold, from the left edge, wrapped."""
    if text:
        figure.suptitle(_wrapped(text, figure), x=0.012, ha="left")


def _wrapped(text: str, figure: Figure) -> str:
    """Lines as long as the figure is wide, in its type."""
    letters_per_inch = 12.8
    return "\n".join(wrap(text, int(letters_per_inch * figure.get_figwidth())))


def letters(axes: Iterable[Axes]) -> None:
    """Bold letters from a on before the titles of panels, which move to the left."""
    for letter, one in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
        title = one.get_title() or one.get_title(loc="left")
        one.set_title("")
        one.set_title(f"$\\mathbf{{{letter}}}$  {title}".rstrip(), loc="left")


def note(axes: Axes, text: str, x: float = 0.98, y: float = 0.03, **look: Any) -> None:
    """A remark inside a panel, in grey; x and y in shares of it, the text on the panel's side."""
    sides: dict[str, Any] = {
        "ha": "right" if x > 0.5 else "left",
        "va": "top" if y > 0.5 else "bottom",
    }
    look = sides | {"color": "0.35", "fontsize": 6.5, "linespacing": 1.15} | look
    axes.text(x, y, text, transform=axes.transAxes, **look)


def ranges(
    axes: Axes, names: Sequence[str], values: Iterable[np.ndarray], colours: Sequence[Any]
) -> None:
    """A row for each sample of numbers: median, quarters, and 1 to 99%; the first one on top."""
    quantiles = [np.percentile(one, [1, 25, 50, 75, 99]) for one in values]
    low, quarter, middle, upper, high = np.transpose(quantiles)
    at = np.arange(len(names))
    axes.hlines(at, low, high, color=colours, linewidth=0.7)
    axes.hlines(at, quarter, upper, color=colours, linewidth=2.6)
    axes.scatter(middle, at, color="white", edgecolors=colours, s=9, zorder=3, linewidths=0.8)
    axes.set_yticks(at, list(names), fontsize=6)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")


def rank_colour(rank: int) -> str:
    """The colour of a rank, 1, 2, ...; rank 0 has that of 1."""
    return RANKS[max(int(rank) - 1, 0) % len(RANKS)]


def name_lines(
    axes: Axes, named: Mapping[str, Line2D], apart: float | None = None, room: float = 0.0
) -> None:
    """The name of each line beside its right end, in its colour, in place of a legend.

    Set the panel's scales and limits first. apart : least distance of names, in shares of the
    panel's height (default: a line of text). room : share of the panel's width that is added on the
    right for the names; without it they stand beside the panel.
    """
    if room:
        low, high = axes.get_xlim()
        if axes.get_xscale() == "log":
            axes.set_xlim(low, high * (high / low) ** (room / (1 - room)))
        else:
            axes.set_xlim(low, high + (high - low) * room / (1 - room))
    ends = []
    for name, line in named.items():
        line.set_label(name)
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        last = np.flatnonzero(np.isfinite(x) & np.isfinite(y))[-1]
        ends.append((x[last], y[last], name, line.get_color()))
    label_ends(axes, ends, apart)


def label_ends(
    axes: Axes, ends: Iterable[tuple[float, float, str, Any]], apart: float | None = None
) -> None:
    """Names at the right of lines, at least `apart` of the panel's height from each other.

    ends : (x, y, name, colour); set the panel's limits first, with room on the right.
    """
    size = 7.0
    axes.get_xlim(), axes.get_ylim()  # limits are settled when they are asked for
    if apart is None:
        apart = 1.25 * size / 72 / _inches(axes)
    placed = []
    for x, y, name, color in ends:
        across, height = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        across = 1.0 if 0.93 < across < 1.0 else across  # beside the panel, not over its edge
        tall = apart * (1 + name.count("\n"))
        placed.append([min(max(height, tall / 2), 1 - tall / 2), across, tall, name, color])
    placed.sort(key=lambda one: one[0])
    for _ in range(200):  # neighbours push each other away, within the panel
        for below, above in pairwise(placed):
            push = max(0.0, (above[2] + below[2]) / 2 - (above[0] - below[0])) / 2
            below[0], above[0] = max(below[2] / 2, below[0] - push), above[0] + push
            above[0] = min(1 - above[2] / 2, above[0])
    for height, across, _, name, color in placed:
        axes.annotate(
            name, (across, height), xycoords="axes fraction", xytext=(4, 0),
            textcoords="offset points", color=color, fontsize=size, va="center", linespacing=1.0,
            annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.1},
        )  # fmt: skip


def _inches(axes: Axes) -> float:
    """About the height of a panel, before the layout is known."""
    spec, whole = axes.get_subplotspec(), axes.get_figure(root=True)
    if whole is None:
        return 1.0
    rows = 1.0
    while spec is not None:  # from the inside out
        grid = spec.get_gridspec()
        rows *= grid.nrows / len(spec.rowspan)
        spec = getattr(grid, "_subplot_spec", None)
    return max(0.72 * whole.get_figheight() / rows, 0.4)


def fit(figure: Figure, width: str = "page", title: bool = True) -> Figure:
    """The figure for a column or a page, with its title or without; it is changed.

    In a column as many panels stand side by side as have their size on a page.

    Raises ValueError for an unknown width.
    """
    if width not in WIDTHS:
        raise ValueError(f"unknown width {width!r}; known are {', '.join(WIDTHS)}")
    words = " ".join(figure.get_suptitle().split())
    narrow = width == "column" and figure.get_figwidth() > COLUMN
    with context():
        if all(axes.get_subplotspec() is None for axes in figure.axes):
            if narrow or not title:
                _stack(figure, COLUMN if narrow else figure.get_figwidth(), title)
        elif narrow:
            _to_column(figure)
        if words:
            finding(figure, words if title else " ")
    return figure


def _stack(figure: Figure, width: float, title: bool) -> None:
    """Panels that were placed in inches, and the words above them: one below the other in a column;
    on a page they keep their places."""
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    wide, tall = figure.get_size_inches()
    kept, boxes = figure.dpi, [axes.get_position() for axes in figure.axes]
    around = [axes.get_tightbbox(renderer) for axes in figure.axes]
    if width == wide:
        top = max(box.y1 / kept for box in around if box is not None) + 0.06
        places = [(b.x0 * wide, b.y0 * tall, b.width * wide, b.height * tall) for b in boxes]
    else:
        top, places = 0.06, []
        inner = [axes.bbox for axes in figure.axes]
        room = [_room(*pair, kept) for pair in zip(inner, around, strict=True)]
        left = max(one[0] for one in room) + 0.04
        for box, (_, below, right, above) in reversed(list(zip(boxes, room, strict=True))):
            places.append((left, top + below, width - left - right - 0.04, box.height * tall))
            top += below + box.height * tall + above + 0.1
        places.reverse()
    heads = sorted(figure.texts, key=lambda text: -text.get_position()[1])
    lines = []
    for text in heads:
        size = float(text.get_fontsize())
        per_line = int(width * (12.8 if text.get_fontweight() == "bold" else 14.0) * 9.0 / size)
        words = text.get_text() if width == wide else "\n".join(
            wrap(" ".join(text.get_text().split()), per_line)
        )  # fmt: skip
        text.set_text(words)
        lines.append((words.count("\n") + 1) * 1.25 * size / 72)
    height = top + (sum(lines) + 0.1 if title else 0)
    figure.set_size_inches(width, height)
    for axes, (x, y, w, h) in zip(figure.axes, places, strict=True):
        axes.set_position((x / width, y / height, max(w, 0.5) / width, h / height))
    down = 0.06
    for text, line in zip(heads, lines, strict=True):
        text.set_position((text.get_position()[0] * wide / width, 1 - down / height))
        down += line
        text.set_visible(title)


def _room(box: Any, whole: Any, dots: float) -> tuple[float, float, float, float]:
    """Inches that labels take left of a panel, below, right of it and above."""
    inner, outer = box.extents / dots, (box if whole is None else whole).extents / dots
    return (inner[0] - outer[0], inner[1] - outer[1], outer[2] - inner[2], outer[3] - inner[3])


def _to_column(figure: Figure) -> None:
    """Panels in the order of reading, fewer in a row."""
    placed = [(axes, spec) for axes in figure.axes if (spec := axes.get_subplotspec()) is not None]
    shared_bar = len(placed) < len(figure.axes)  # a scale of colours, which has no place of its own
    share = 0.0 if shared_bar else COLUMN / figure.get_figwidth()
    rows: dict[tuple[int, int], list[Axes]] = {}
    for axes, spec in placed:
        outer = spec.get_topmost_subplotspec()
        rows.setdefault((outer.rowspan.start, spec.rowspan.start), []).append(axes)
    heights, lines = [], []
    tall = figure.get_figheight() / max(len(rows), 1)
    for row in rows.values():
        across = max(1, round(len(row) * share))
        for first in range(0, len(row), across):
            lines.append(row[first : first + across])
            heights.append(tall)
    figure.set_size_inches(COLUMN, sum(heights))
    grid = GridSpec(len(lines), 1, figure=figure)
    for k, line in enumerate(lines):
        if len(line) == 1:
            line[0].set_subplotspec(grid[k, 0])
            continue
        inner = grid[k].subgridspec(1, len(line))
        for c, axes in enumerate(line):
            axes.set_subplotspec(inner[c])
    for legend in list(figure.legends):
        words = [text.get_text() for text in legend.get_texts()]
        columns = max(1, int(COLUMN / (0.55 + 0.065 * max(map(len, words)))))
        handles: Any = legend.legend_handles
        legend.remove()
        figure.legend(handles, words, loc="outside lower center", ncols=columns)


def shades(color: Any, count: int, lightest: float = 0.65) -> list[tuple[float, float, float]]:
    """So many tones of a colour, from light to the colour itself, for series in an order."""
    base = np.array(mpl.colors.to_rgb(color))
    mix = np.linspace(lightest if count > 1 else 0.0, 0.0, count)[:, None]
    return [tuple(row) for row in (1 - mix) * base + mix]
