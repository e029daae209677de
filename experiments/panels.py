"""Panels of figures: a letter, a light grid, and names beside the ends of lines."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

__all__ = ["label_ends", "tidy"]


def tidy(panels: Iterable) -> None:
    """Letters from a on before the titles, a grid behind, no frame at the top and on the right."""
    for letter, axes in zip("abcdefghijklmnopqrstuvwxyz", panels, strict=False):
        title = axes.get_title()
        axes.set_title("")
        axes.set_title(f"$\\bf{{{letter}}}$  {title}", loc="left", fontsize=10)
        axes.grid(True, color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)


def label_ends(axes, ends: Iterable[tuple[float, float, str, str]], apart: float = 0.075) -> None:
    """Names at the right of lines, at least `apart` of the panel's height from each other.

    ends : (x, y, name, colour); set the panel's limits first, with room on the right.
    """
    axes.get_xlim(), axes.get_ylim()  # limits are settled when they are asked for
    placed = []
    for x, y, name, color in ends:
        across, height = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
        placed.append([min(max(height, 0.03), 0.97), across, name, color])
    placed.sort(key=lambda one: one[0])
    for _ in range(100):  # neighbours push each other away, within the panel
        for below, above in pairwise(placed):
            push = max(0.0, apart - (above[0] - below[0])) / 2
            below[0], above[0] = max(0.03, below[0] - push), min(0.97, above[0] + push)
    for height, across, name, color in placed:
        axes.text(across + 0.02, height, name, color=color, fontsize=8, va="center",
                  transform=axes.transAxes)  # fmt: skip
