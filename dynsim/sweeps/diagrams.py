"""Phase diagrams: a store, two of its parameters, and what is kept as colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator

from dynsim._values import shown, unknown
from dynsim.masks.connectivity import lambda_2
from dynsim.masks.walk import SecondEigenvalue
from dynsim.measures import MEASURES
from dynsim.results import style
from dynsim.sweeps.parameters import PARAMETERS, read_axis
from dynsim.sweeps.settings import mask_of

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

__all__ = ["COLORS", "LABELS", "Diagram", "combined", "diagrams", "draw"]

#: What a figure calls what is kept, where its name does not say it.
LABELS = {
    "late_rate": "late rate: factor of mu per layer",
    "limit_rank": "rank of the last state",
    "law": "law by which mu falls",
    "share": "share of the starts",
    "stable_rank": "largest rank of a stable equilibrium",
    "least_radius": "least spectral radius",
    "exponent": "Lyapunov exponent (nats per layer)",
}
#: Arrays of a store that are about the sweep, not about the dynamics.
_OF_SWEEP = ("status", "error")
#: One colour for a word, in every diagram: those of outcomes, then Okabe and Ito's, then greys.
COLORS = style.OUTCOMES | {
    "mixed": style.INDIGO,
    "zero": "#000000",
    "short": "#BBBBBB",
    "none": "#888888",
    "exponential": "#56B4E9",
    "algebraic": "#F0E442",
    "doubly exponential": "#0072B2",
    "fixed": "#0072B2",
    "sign flip": "#56B4E9",
    "period 2": "#009E73",
    "rotating": "#E69F00",
    "chaotic": "#D55E00",
    "unsettled": "#BBBBBB",
    "order": "#0072B2",
    "rotation": "#E69F00",
    "marginal": "#F0E442",
    "chaos": "#D55E00",
    "not decided": "#BBBBBB",
    "healthy": "#009E73",
    "slowly collapsing": "#F0E442",
    "sink only": "#E69F00",
}
#: The colour of cells without a value.
_MISSING = "#DDDDDD"
#: Parameters of the mask alone, on which lambda_2 depends.
_OF_MASK = ("mask", "window", "tokens")
#: Families of W_V that turn tokens and nothing else, for which the late rate is lambda_2.
_TURNING = ("orthogonal", "identity")
#: Figures have so many panels at most.
_MOST_PANELS = 24


@dataclass(frozen=True)
class Diagram:
    """One panel.

    x, y : values of the parameters
    values : (len(y), len(x)), medians over seeds and samples; of words the commonest. NaN or ""
        where there is none. Of a design of points: (points,), as x and y then are.
    agree : how many seeds have the commonest verdict, of `seeds`; None where no verdict was kept
    theory : lambda_2 of the mask of each column, where the late rate is that, with the power of t
        that it brings
    """

    title: str
    x: list
    y: list
    values: np.ndarray
    agree: np.ndarray | None
    seeds: int
    theory: list[SecondEigenvalue] | None = None

    @property
    def is_scatter(self) -> bool:
        return self.values.ndim == 1

    @property
    def agreement(self) -> str:
        """How many seeds agree, in words."""
        if self.agree is None or self.seeds == 1:
            return ""
        computed = self.agree[self.agree > 0]
        whole = int((computed == self.seeds).sum())
        return f"all {self.seeds} seeds have one verdict in {whole} of {computed.size} cells"


def diagrams(
    dataset: xarray.Dataset,
    x: str,
    y: str,
    color: str,
    panels: str | None = None,
    at: Mapping[str, str] | None = None,
) -> list[Diagram]:
    """The diagrams of a store, one for each value of the parameter `panels`.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `dynsim.sweeps.results` opens it.
    x, y, panels : str
        Parameters that were swept.
    color : str
        Something that was kept, as "late_rate", "limit_rank", "verdict" or "share", or a measure,
        at the last depth.
    at : mapping of str to str, optional
        The value of each other parameter that was swept, and of each other dimension of the colour
        that has labels, as "rank".

    Raises ValueError for names and values that are not there, and where a parameter is left over.
    """
    swept = [str(name) for name in dataset.coords if name in PARAMETERS]
    at = dict(at or {})
    values, labels = _color(dataset, color, swept, at)
    verdict = dataset.get("verdict")
    for name in (x, y, *([panels] if panels else []), *at):
        if name not in swept:
            raise ValueError(unknown("swept parameter", name, swept))
    if len({x, y, panels}) < 3:
        raise ValueError(f"x, y and panels are three parameters; got {x}, {y}, {panels}")
    chosen = {name: _chosen(dataset, name, words) for name, words in at.items()}
    free = [n for n in swept if n not in (x, y, panels, "seed", *chosen)]
    scatter = dataset[x].dims == dataset[y].dims == ("point",)
    if free and not scatter:
        listed = ", ".join(map(str, dataset[free[0]].values.tolist()))
        raise ValueError(f"{free[0]} has several values; choose one of {listed}, or make it panels")
    each = [None] if panels is None else list(dict.fromkeys(dataset[panels].values.tolist()))
    if len(each) > _MOST_PANELS:
        raise ValueError(f"{panels} has {len(each)} values, more than {_MOST_PANELS} panels")
    found = []
    for value in each:
        setting = chosen if panels is None else chosen | {panels: value}
        title = ", ".join(f"{name} = {v}" for name, v in (setting | labels).items())
        part = _at(values, setting)
        votes = None if verdict is None else _at(verdict, setting)
        found.append(_diagram(part, votes, x, y, title, _theory(dataset, setting, x, y, color)))
    return found


def _color(
    dataset: xarray.Dataset, color: str, swept: Sequence[str], at: dict[str, str]
) -> tuple[xarray.DataArray, dict[str, Any]]:
    """What the colour shows, and the labels that `at` chooses, which are taken out of it."""
    kept = [str(name) for name in dataset.data_vars if name not in _OF_SWEEP]
    measures = dataset["measure"].values.tolist() if "end" in dataset else []
    if color in measures:
        return dataset["end"].sel(measure=color), {}
    if color not in kept:
        raise ValueError(unknown("colour", color, [*kept, *measures]))
    values, chosen = dataset[color], {}
    for name in [str(d) for d in values.dims if d in values.coords and d not in swept]:
        labels = values[name].values.tolist()
        meant = [label for label in labels if str(label) == at.get(name)]
        if not meant:
            listed = ", ".join(map(str, labels))
            raise ValueError(f"{color} has one value for each {name}; choose one, {name}={listed}")
        values = values.sel({name: meant[0]}, drop=True)
        chosen[name] = meant[0]
        del at[name]
    return values, chosen


def _chosen(dataset: xarray.Dataset, name: str, words: str) -> Any:
    """The value among those of a coordinate that is meant."""
    there = dataset[name].values.tolist()
    (wanted,) = read_axis(name, words).values or (None,)
    nearest = [v for v in there if v == wanted or (isinstance(v, float) and np.isclose(v, wanted))]
    if not nearest:
        raise ValueError(f"{name} was not {shown(wanted)}; it was {', '.join(map(str, there))}")
    return nearest[0]


def _at(array: xarray.DataArray, setting: Mapping[str, Any]) -> xarray.DataArray:
    for name, value in setting.items():
        array = array.isel({array[name].dims[0]: array[name].values == value})
    return array.squeeze([array[n].dims[0] for n in setting if array[n].dims[0] != "point"])


def _diagram(
    values: xarray.DataArray,
    votes: xarray.DataArray | None,
    x: str,
    y: str,
    title: str,
    theory: list[SecondEigenvalue] | None,
) -> Diagram:
    axes = ["point"] if values[x].dims == ("point",) else [y, x]
    seeds = values.sizes.get("seed", 1)
    agree = None
    if votes is not None:
        ordered = votes.transpose(*axes, *[d for d in votes.dims if d not in axes]).values
        agree = _commonest(ordered.reshape(*ordered.shape[: len(axes)], -1))[1]
    return Diagram(
        title,
        values[x].values.tolist(),
        values[y].values.tolist(),
        combined(values, axes),
        agree,
        seeds,
        theory,
    )


def combined(values: xarray.DataArray, axes: Sequence[str]) -> np.ndarray:
    """Medians over all dimensions but `axes`, in their order; of words the commonest.

    NaN or "" where there is no value.
    """
    others = [d for d in values.dims if d not in axes]
    array = values.transpose(*axes, *others).values
    array = array.reshape(*array.shape[: len(axes)], -1)
    if array.dtype.kind != "f":
        return _commonest(array)[0]
    with np.errstate(all="ignore"):
        known = ~np.isnan(array)
        middle = np.nanmedian(np.where(known.any(-1, keepdims=True), array, 0.0), axis=-1)
        return np.where(known.any(axis=-1), middle, np.nan)


def _commonest(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The commonest word along the last axis, "" where there are none, and how often it is there;
    of several the first in the alphabet."""
    shape = words.shape[:-1]
    best, count = np.full(shape, "", object), np.zeros(shape, int)
    for index in np.ndindex(*shape):
        there = [word for word in words[index].tolist() if word]
        if there:
            best[index] = max(sorted(set(there)), key=there.count)
            count[index] = there.count(best[index])
    return best, count


def _theory(
    dataset: xarray.Dataset, setting: Mapping[str, Any], x: str, y: str, color: str
) -> list[SecondEigenvalue] | None:
    """lambda_2 of the mask of every column, where the late rate near consensus is that."""
    if color != "late_rate" or x not in _OF_MASK or y in _OF_MASK:
        return None
    written = dataset.attrs["specification"]
    if written["cell"] != "run":
        return None
    fixed = written["defaults"] | written["parameters"] | dict(setting)
    if fixed["value"] not in _TURNING or dataset[x].dims != (x,):
        return None
    columns = [fixed | {x: value} for value in dataset[x].values.tolist()]
    return [lambda_2(mask_of(settings)) for settings in columns]


# --- figures --------------------------------------------------------------------------------------


def draw(found: list[Diagram], x: str, y: str, color: str, title: str) -> Figure:
    """The diagrams side by side, with one scale of colours.

    Cells without a value are grey; a dot marks cells whose seeds disagree about the verdict. Above
    a diagram of late rates lies, in the same colours, what theory expects of each column: lambda_2.
    """
    columns = min(len(found), 3)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(1.6 + 3.6 * columns, 0.9 + 3.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for spare in axes.flat[len(found) :]:
        spare.set_visible(False)
    scale = _Scale(found)
    for diagram, panel in zip(found, axes.flat, strict=False):
        mapped = (_scatter if diagram.is_scatter else _mesh)(panel, diagram, scale)
        panel.set(xlabel=x, ylabel=y)
        words = [w for w in (diagram.title, diagram.agreement) if w]
        if diagram.theory is None:
            panel.set_title("\n".join(words), fontsize=9)
        else:
            _strip(panel, diagram.theory, scale).set_title("\n".join(words), fontsize=9)
    bar = figure.colorbar(mapped, ax=axes, label=_label(color))
    if scale.words:
        bar.set_ticks([float(k) for k in range(len(scale.words))], labels=scale.words)
        bar.ax.minorticks_off()
    figure.suptitle(title, fontsize=11)
    return figure


def _label(color: str) -> str:
    if color in MEASURES:
        return f"{MEASURES[color].label} at the last depth"
    return LABELS.get(color, color)


class _Scale:
    """One scale of colours and contours for all panels: of numbers, or a colour for each word."""

    def __init__(self, found: list[Diagram]) -> None:
        values = np.concatenate([diagram.values.ravel() for diagram in found])
        self.words: list[str] = []
        self.levels: Sequence[float] = []
        if values.dtype.kind != "f":
            self.words = [w for w in COLORS if w in values]
            self.words += sorted(set(values.tolist()) - {*COLORS, ""})
            colors = [COLORS.get(word, "#444444") for word in self.words] or [_MISSING]
            edges = np.arange(len(colors) + 1) - 0.5
            self.look: dict[str, Any] = {
                "cmap": ListedColormap(colors),
                "norm": BoundaryNorm(edges, len(colors)),
            }
            return
        theory = [second.value for diagram in found for second in diagram.theory or ()]
        known = np.concatenate([values[np.isfinite(values)], theory])
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        self.levels = [float(v) for v in MaxNLocator(5).tick_values(low, high)]
        self.look = {"cmap": "viridis", "vmin": low, "vmax": high if high > low else low + 1.0}

    def numbers(self, values: np.ndarray) -> np.ma.MaskedArray:
        if not self.words:
            return np.ma.masked_invalid(values.astype(float))
        place = {word: k for k, word in enumerate(self.words)}
        return np.ma.masked_less(np.vectorize(lambda w: place.get(w, -1))(values), 0)


def _mesh(panel: Axes, diagram: Diagram, scale: _Scale) -> ScalarMappable:
    panel.set_facecolor(_MISSING)
    values = scale.numbers(diagram.values)
    mapped = panel.pcolormesh(values, edgecolors="white", linewidth=0.3, **scale.look)
    for axis, entries in ((panel.xaxis, diagram.x), (panel.yaxis, diagram.y)):
        step = -(-len(entries) // 9)
        axis.set_ticks(
            np.arange(0, len(entries), step) + 0.5, labels=[_tick(v) for v in entries[::step]]
        )
    rows, columns = diagram.values.shape
    known = values.compressed()
    within = [v for v in scale.levels if known.size and known.min() < v < known.max()]
    if within and min(rows, columns) > 2:
        centres = np.arange(columns) + 0.5, np.arange(rows) + 0.5
        lines = panel.contour(*centres, values, levels=within, colors="white", linewidths=0.8)
        edge: list[AbstractPathEffect] = [withStroke(linewidth=1.8, foreground="black")]
        for text in panel.clabel(lines, fontsize=7, fmt="%.3g"):
            text.set_path_effects(edge)
        lines.set_path_effects(edge)
    if diagram.agree is not None and diagram.seeds > 1:
        row, column = np.nonzero((diagram.agree > 0) & (diagram.agree < diagram.seeds))
        panel.plot(column + 0.5, row + 0.5, "o", color="white", markeredgecolor="black", ms=3)
    return mapped


def _scatter(panel: Axes, diagram: Diagram, scale: _Scale) -> ScalarMappable:
    values = scale.numbers(diagram.values)
    missing = np.ma.getmaskarray(values)
    x, y = np.array(diagram.x, object), np.array(diagram.y, object)
    panel.scatter(x[missing], y[missing], color=_MISSING, s=18)
    return panel.scatter(x[~missing], y[~missing], c=values[~missing], s=18, **scale.look)


def _strip(panel: Axes, theory: list[SecondEigenvalue], scale: _Scale) -> Axes:
    """A row above the panel in the same colours; t^p where deviations go like t^p lambda_2^t."""
    strip = panel.inset_axes((0.0, 1.02, 1.0, 0.09), sharex=panel)
    values = np.array([[second.value for second in theory]])
    strip.pcolormesh(values, edgecolors="white", linewidth=0.3, **scale.look)
    edge: list[AbstractPathEffect] = [withStroke(linewidth=1.8, foreground="black")]
    for k, second in enumerate(theory):
        if second.power:
            strip.text(
                k + 0.5, 0.45, f"$t^{{{second.power}}}$", ha="center", va="center", fontsize=7,
                color="white", path_effects=edge,
            )  # fmt: skip
    strip.tick_params(bottom=False, labelbottom=False)
    strip.set_yticks([0.5], labels=["λ₂"])
    return strip


def _tick(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
