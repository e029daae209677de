"""Moving pictures: tokens layer by layer on the circle or the sphere, and a basin being filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim._files import as_path, written_whole
from dynsim._values import unknown
from dynsim.measures import norm_max, norm_min
from dynsim.reports.states import directions, principal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MOST_FRAMES", "Animation", "Moving", "basin", "check_path", "tokens"]

SUFFIXES = (".gif", ".mp4")
#: Frames at most; frames a second; frames for which the last one stays.
MOST_FRAMES = 100
_FPS, _STAY = 10, 12
#: Norms that differ by less than this share are those of a sphere.
_ALIKE = 1e-6
#: How much the largest token of a layer may shrink before every layer has a scale of its own.
_SHRINKS = 20.0


@dataclass(frozen=True)
class Animation:
    """A figure and what changes in it: draw(k) for k below `frames`."""

    figure: Figure
    frames: int
    draw: Callable[[int], None]

    def save(self, path: str | Path) -> Path:
        """Write a GIF, or with ffmpeg an MP4, whole or not at all. Raises as `check_path`."""
        from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter

        path = check_path(path)
        writer: AbstractMovieWriter = PillowWriter(fps=_FPS)
        if path.suffix.lower() == ".mp4":
            writer = FFMpegWriter(fps=_FPS, extra_args=["-pix_fmt", "yuv420p"])
        with written_whole(path) as temporary, writer.saving(self.figure, str(temporary), dpi=100):
            for k in [*range(self.frames), *[self.frames - 1] * _STAY]:
                self.draw(k)
                writer.grab_frame()
        return path


def check_path(path: str | Path) -> Path:
    """The path of an animation. Raises ValueError for a suffix other than .gif and .mp4, or for
    .mp4 where ffmpeg is missing."""
    path = as_path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: {unknown('kind of animation', suffix, SUFFIXES)}")
    if suffix == ".mp4":
        from matplotlib.animation import FFMpegWriter

        if not FFMpegWriter.isAvailable():
            raise ValueError(f"{path}: .mp4 needs the program ffmpeg; install it, or write a .gif")
    return path


@dataclass(frozen=True)
class Moving:
    """A panel: tokens (F, N, d) at layers (F,), and a curve (T + 1,) below them."""

    title: str
    layers: Sequence[int]
    tokens: np.ndarray
    curve: np.ndarray


def tokens(panels: Sequence[Moving]) -> Animation:
    """Tokens of several runs side by side, layer by layer, with mu / ||X|| below.

    Two dimensions are drawn on the circle, three on the sphere, more along their three principal
    axes (`dynsim.reports.states.principal`). Where all layers leave tokens of one norm, each token
    is divided by its own, the input too. Else all are divided by the largest norm of all layers;
    where some layer has no token of a twentieth of that, each layer by its own largest norm.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(panels), 3.4))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2, len(panels), height_ratios=(3.2, 1), left=0.5 / (2.6 * len(panels)), right=0.975,
        top=0.88, bottom=0.13, hspace=0.14, wspace=0.12,
    )  # fmt: skip
    moves = [
        _panel(figure, grid, k, panel, last=max(len(p.curve) for p in panels) - 1)
        for k, panel in enumerate(panels)
    ]
    frames = max(len(panel.layers) for panel in panels)

    def draw(k: int) -> None:
        for move in moves:
            move(k)

    return Animation(figure, frames, draw)


def _panel(figure: Figure, grid: Any, k: int, panel: Moving, last: int) -> Callable[[int], None]:
    """Draw what stays, and return what draws a frame."""
    dim = panel.tokens.shape[-1]
    points, words = _scaled(panel.tokens)
    flat = dim <= 2
    above: Any = figure.add_subplot(grid[0, k], projection=None if flat else "3d")
    above.set_title(panel.title, fontsize=10, y=1.0 if flat else 1.06)
    _ground(above, flat)
    colours = np.linspace(0, 1, points.shape[1])
    first = points[0, :, : 2 if flat else 3].T
    look: dict[str, Any] = {"c": colours, "cmap": "viridis", "s": 26, "linewidths": 0.4,
                            "edgecolors": "0.2", "zorder": 3}  # fmt: skip
    dots = (
        above.scatter(*first, **look) if flat else above.scatter(*first, depthshade=False, **look)
    )
    notes = [words] * bool(words) + ["three principal axes"] * (dim > 3)
    place = (0.5, -0.02, "; ".join(notes))
    text = {
        "ha": "center",
        "va": "top",
        "fontsize": 7,
        "color": "0.35",
        "transform": above.transAxes,
    }
    if flat:
        above.text(*place, **text)
    else:
        above.text2D(*place, **text)
    below = figure.add_subplot(grid[1, k])
    below.plot(np.arange(len(panel.curve)), panel.curve, color="0.7", linewidth=1.2)
    (trace,) = below.plot([], [], color="#0072B2", linewidth=1.8)
    (dot,) = below.plot([], [], "o", color="#0072B2", markersize=4)
    below.set(xlim=(0, last), ylim=(0, 1.05), yticks=(0, 1))
    below.set_ylabel("mu / ||X||" if k == 0 else "", fontsize=8)
    below.tick_params(labelsize=7, labelleft=k == 0)
    below.spines[["top", "right"]].set_visible(False)

    def move(frame: int) -> None:
        frame = min(frame, len(panel.layers) - 1)
        x, layer = points[frame], panel.layers[frame]
        if flat:
            dots.set_offsets(x[:, :2])
        else:
            dots._offsets3d = tuple(x.T)
        trace.set_data(np.arange(layer + 1), panel.curve[: layer + 1])
        dot.set_data([layer], [panel.curve[layer]])
        below.set_xlabel(f"layer {layer}", fontsize=8)

    return move


def _scaled(x: np.ndarray) -> tuple[np.ndarray, str]:
    """Tokens (F, N, d) in the unit ball of three dimensions, and how they were scaled."""
    x = np.asarray(x, np.float64)
    largest, smallest = norm_max(x), norm_min(x)
    later = slice(len(x) > 1, None)  # the input may lie elsewhere
    if largest[later].max() - smallest[later].min() <= _ALIKE * largest[later].max():
        return principal(directions(x))[0], ""
    if largest.min() >= largest.max() / _SHRINKS:
        return principal(x / largest.max())[0], ""
    scale = np.where(largest > 0, largest, 1.0)
    return principal(x / scale[:, None, None])[0], "each layer by its largest token"


def _ground(axes: Any, flat: bool) -> None:
    """The circle or the sphere."""
    around = np.linspace(0, 2 * np.pi, 97)
    circle = np.stack([np.cos(around), np.sin(around)])
    axes.set_axis_off()
    if flat:
        axes.plot(*circle, color="0.75", linewidth=0.8, zorder=0)
        axes.set(xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal")
        return
    zero = np.zeros_like(around)
    for turned in np.linspace(0, np.pi, 6, endpoint=False):  # meridians
        c, s = np.cos(turned), np.sin(turned)
        axes.plot(c * circle[0], s * circle[0], circle[1], color="0.85", linewidth=0.5)
    for height in (-0.5, 0.0, 0.5):
        r = (1 - height**2) ** 0.5
        axes.plot(r * circle[0], r * circle[1], zero + height, color="0.85", linewidth=0.5)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=1.45)
    axes.view_init(elev=22, azim=-50)


def basin(cosines: np.ndarray, layers: Sequence[int], title: str = "") -> Animation:
    """Pairs of tokens on the circle by their two angles: how parallel they are, layer by layer.

    cosines : (F, K, K), [f, i, j] of pair i K + j of `dynsim.basins.circle_pairs`: token 0 starts
        at angle i, token 1 at angle j
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 3.8))
    FigureCanvasAgg(figure)
    axes: Axes = figure.add_axes((0.14, 0.13, 0.66, 0.72))
    image = axes.imshow(
        np.abs(cosines[0]), origin="lower", extent=(0, 360, 0, 360), vmin=0, vmax=1, cmap="viridis"
    )
    ticks = (0, 90, 180, 270, 360)
    axes.set(xlabel="angle of token 1 at the start", ylabel="angle of token 0", xticks=ticks,
             yticks=ticks)  # fmt: skip
    bar = figure.add_axes((0.83, 0.13, 0.03, 0.72))
    figure.colorbar(image, cax=bar, label="|cosine| of the two: 1 at rank one")

    def draw(k: int) -> None:
        image.set_data(np.abs(cosines[k]))
        rank_one = np.mean(np.abs(cosines[k]) > 1 - 1e-6)
        axes.set_title(f"{title}\nlayer {layers[k]}: {rank_one:.1%} at rank one", fontsize=10)

    return Animation(figure, len(layers), draw)
