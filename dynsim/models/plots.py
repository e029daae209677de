"""The figure of a profile: distances, ranks, norms and heads of a model by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dynsim.models.profile import Profile
from dynsim.results import style

__all__ = ["profiles"]


class _Panel(NamedTuple):
    """A pair of measures of the residual stream: what is drawn solid, and pale with dashes."""

    label: str
    solid: tuple[str, str]  # measure and name
    dashed: tuple[str, str]


_PANELS = [
    _Panel(
        "mu / ||X||",
        ("relative_mu_without_sinks", "without sinks"),
        ("relative_mu", "all tokens"),
    ),
    _Panel(
        "stable rank",
        ("stable_rank_without_sinks", "without sinks"),
        ("stable_rank", "all tokens"),
    ),
    _Panel("norm of a token", ("norm_median", "median"), ("norm_max", "largest")),
]


def profiles(named: Mapping[str, Profile], title: str = "") -> Figure:
    """Profiles by name in four panels, of the last stack of each.

    Distances to consensus and stable ranks are drawn solid without sink tokens and pale with all of
    them; lines are medians over samples, bands the 16th to 84th percentile. The fourth panel has
    each head's attention to the first token. A dotted line is the floor of the model's type.
    """
    with style.context():
        figure, axes = style.panels(2, 2, height=2.2)
        mu, ranks, norms, heads = axes.flat
        mu.set_ylim(bottom=0)
        for panel in (ranks, norms):
            panel.set_yscale("log")
        named_lines = [
            _draw_residual(*pair, named) for pair in zip(axes.flat, _PANELS, strict=False)
        ]
        _draw_floor(mu, list(named.values()))
        for panel in (ranks, norms):
            low, high = panel.get_ylim()
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else "")
        for panel, lines in zip(axes.flat, named_lines, strict=False):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            blocks = [tick for tick in panel.get_xticks() if 0 <= tick <= panel.dataLim.x1]
            style.name_lines(panel, lines, room=0.25)
            panel.set_xticks(blocks)
        _draw_heads(heads, named)
        style.letters(axes.flat)
        style.finding(figure, title or ", ".join(named))
    return figure


def _draw_residual(axes: Axes, panel: _Panel, named: Mapping[str, Profile]) -> dict[str, Line2D]:
    """The lines of a panel; those to be named."""
    lines = {}
    for (name, profile), look in zip(named.items(), style.STYLES, strict=False):
        for (measure, what), dash in ((panel.solid, "-"), (panel.dashed, "--")):
            line = _draw(axes, profile.residual(measure), look["color"], dash)
            if len(named) == 1:
                lines[what] = line
            elif dash == "-":
                lines[name] = line
    axes.set(xlabel="blocks", ylabel=panel.label)
    if len(named) > 1:
        axes.set_title(f"dashed: {panel.dashed[1]}")
    return lines


def _draw(axes: Axes, values: np.ndarray, color: Any, dash: str) -> Line2D:
    depth = np.arange(len(values))
    low, middle, high = np.nanpercentile(values, [16, 50, 84], axis=1)
    (line,) = axes.plot(
        depth, middle, color=color, alpha=1.0 if dash == "-" else 0.5, linestyle=dash
    )
    if values.shape[1] > 1:
        axes.fill_between(depth, low, high, color=color, alpha=0.12, linewidth=0)
    return line


def _draw_floor(axes: Axes, all_profiles: list[Profile]) -> None:
    floor = max(float(np.nanmax(profile.residual("floor"))) for profile in all_profiles)
    if floor > 1e-3:  # of bfloat16 and float16; others lie on the axis
        axes.axhline(floor, color="0.5", linestyle=":")
        style.note(axes, "dotted: floor of the type")


def _draw_heads(axes: Axes, named: Mapping[str, Profile]) -> None:
    """Dots, one a head, side by side for several profiles."""
    seen = False
    for k, (profile, look) in enumerate(zip(named.values(), style.STYLES, strict=False)):
        table = profile.heads.get(profile.stacks[-1])
        if table is None:
            continue
        seen = True
        first = np.nanmedian(table["first_token"], axis=1)  # (layers, heads)
        place = np.arange(len(first))[:, None] + 1 + 0.2 * (k - (len(named) - 1) / 2)
        place = np.broadcast_to(place, first.shape)
        axes.plot(place, first, ".", markersize=4, color=look["color"], alpha=0.6)
    axes.set(xlabel="blocks", ylabel="attention to the first token", ylim=(0, 1))
    if seen:
        axes.set_title("a dot: a head")
    else:
        style.note(axes, "no attention was seen", x=0.5, y=0.5, ha="center")
