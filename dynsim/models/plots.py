"""The figure of a profile: distances, ranks, norms and heads of a model by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from dynsim.models.profile import Profile
from dynsim.results.plots import STYLES

__all__ = ["profiles"]

#: Panels of the residual stream: title, measures with what the legend says of each.
_PANELS = [
    ("mu / ||X||", {"relative_mu_without_sinks": "", "relative_mu": "all tokens"}),
    ("stable rank", {"stable_rank_without_sinks": "", "stable_rank": "all tokens"}),
    ("norm of a token", {"norm_median": "median", "norm_max": "largest"}),
]


def profiles(named: Mapping[str, Profile], title: str = "") -> Figure:
    """Profiles by name in four panels, of the last stack of each.

    Distances to consensus and stable ranks are drawn solid without sink tokens and pale with all of
    them; lines are medians over samples, bands the 16th to 84th percentile. The fourth panel has
    each head's attention to the first token. A dotted line is the floor of the model's type.
    """
    figure = Figure(figsize=(10.5, 7.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    for (label, measures), panel in zip(_PANELS, axes.flat, strict=False):
        for (name, profile), style in zip(named.items(), STYLES, strict=False):
            for measure, what in measures.items():
                pale = what in ("all tokens", "largest")
                parts = [name] * (len(named) > 1) + [what] * bool(what)
                text = ", ".join(parts) or "without sink tokens"
                _draw(panel, profile.residual(measure), style, pale, text)
        panel.set(xlabel="blocks", ylabel=label)
        panel.legend(fontsize=8)
    _draw_floor(axes[0, 0], list(named.values()))
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 1].set_yscale("log")
    axes[0, 1].yaxis.set_major_formatter(ScalarFormatter())
    axes[0, 1].yaxis.set_minor_formatter(ScalarFormatter())
    axes[1, 0].set_yscale("log")
    _draw_heads(axes[1, 1], named)
    figure.suptitle(title or ", ".join(named))
    return figure


def _draw(axes: Axes, values: np.ndarray, style: Mapping[str, Any], pale: bool, text: str) -> None:
    depth = np.arange(len(values))
    low, middle, high = np.nanpercentile(values, [16, 50, 84], axis=1)
    look = {"color": style["color"], "alpha": 0.45 if pale else 1.0}
    axes.plot(depth, middle, **look, linestyle="--" if pale else "-", label=text)
    if values.shape[1] > 1:
        axes.fill_between(depth, low, high, color=style["color"], alpha=0.12, linewidth=0)


def _draw_floor(axes: Axes, all_profiles: list[Profile]) -> None:
    floor = max(float(np.nanmax(profile.residual("floor"))) for profile in all_profiles)
    if floor > 1e-3:  # of bfloat16 and float16; others lie on the axis
        axes.axhline(floor, color="0.5", linestyle=":", label="floor of the type")


def _draw_heads(axes: Axes, named: Mapping[str, Profile]) -> None:
    """Dots, one a head, side by side for several profiles."""
    seen = False
    for k, ((name, profile), style) in enumerate(zip(named.items(), STYLES, strict=False)):
        table = profile.heads.get(profile.stacks[-1])
        if table is None:
            continue
        seen = True
        first = np.nanmedian(table["first_token"], axis=1)  # (layers, heads)
        place = np.arange(len(first))[:, None] + 1 + 0.2 * (k - (len(named) - 1) / 2)
        place = np.broadcast_to(place, first.shape)
        axes.plot(place, first, ".", markersize=4, color=style["color"], alpha=0.6)
        axes.plot([], [], ".", color=style["color"], label=name if len(named) > 1 else "a head")
    axes.set(xlabel="blocks", ylabel="attention to the first token", ylim=(0, 1))
    if seen:
        axes.legend(fontsize=8)
    else:
        axes.text(0.5, 0.5, "no attention was seen", ha="center", transform=axes.transAxes)
