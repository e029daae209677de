"""The page of a sweep's store."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim.measures import MEASURES
from dynsim.reports.page import Case, Page
from dynsim.reports.settings import rows
from dynsim.reports.views import Curves, Dots, Frames, Line, Map, View
from dynsim.sweeps.diagrams import COLORS, LABELS, combined
from dynsim.sweeps.parameters import PARAMETERS
from dynsim.sweeps.store import results, state

if TYPE_CHECKING:
    import xarray

__all__ = ["page"]

#: Settings that the slider chooses from, and values in all, that are shown at most.
_MOST_FRAMES, _MOST_VALUES = 64, 300_000
#: Measures at the last depth that are shown, besides late rates, ranks and verdicts.
_ENDS = ("mu", "rank_one_distance", "stable_rank", "mean_cosine")
#: Of a word without a colour.
_OTHER = "#444444"


def page(store: str | Path, sentences: Sequence[str] = ()) -> Page:
    """The page of a store: one map for each thing that was kept, medians over seeds and samples.

    The two longest dimensions are the axes, the slider chooses the settings of the others. Raises
    as `dynsim.sweeps.results`.
    """
    dataset, told = results(store), state(store)
    kept: dict[str, xarray.DataArray] = {}
    for name in LABELS:
        if name in dataset:
            kept[name] = dataset[name]
    if "end" in dataset:
        kept |= {
            name: dataset["end"].sel(measure=name)
            for name in _ENDS
            if name in dataset["measure"].values
        }
    cases = [_case(dataset, name, values, len(kept)) for name, values in kept.items()]
    if not cases:
        cases = [Case("", Frames("", ["all"]), [])]
    words = f"{told.done} of {told.cells} cells are done"
    words += f", {len(told.failed)} failed" if told.failed else ""
    specification: Any = dataset.attrs.get("specification", {})
    return Page(
        f"sweep {Path(store).name}", sentences or [words],
        [("store", str(store)), *rows(specification)], cases,
        notes=["Numbers are medians over seeds and samples, words the commonest of them."],
    )  # fmt: skip


def _case(dataset: xarray.Dataset, name: str, values: xarray.DataArray, cases: int) -> Case:
    """What was kept under one name, as colours or, of one parameter, as a curve."""
    label = LABELS.get(name) or f"{MEASURES[name].label} at the last depth"
    sizes = {str(d): n for d, n in values.sizes.items() if d in PARAMETERS and d != "seed"}
    if "point" in values.sizes:
        return Case(label, Frames("", ["all"]), [_dots(dataset, label, values)])
    axes = sorted(sizes, key=lambda d: -sizes[d])
    others = [d for d in sizes if d not in axes[:2]]
    x, y = axes[0], axes[1] if len(axes) > 1 else None
    table = combined(values, [*others, *([y] if y else []), x])
    if y is None and table.dtype.kind == "f" and dataset[x].dtype.kind in "fi":
        line = Line(label, table, x=dataset[x].values.astype(float))
        curve = Curves(title=label, x=np.array([]), lines=[line], x_label=x, y_label=label)
        return Case(label, Frames("", ["all"]), [curve])
    frames = prod(sizes[d] for d in others)
    table = table.reshape(frames, sizes[y] if y else 1, sizes[x])
    room = max(1, min(_MOST_FRAMES, _MOST_VALUES // (table[0].size * cases)))
    numbers, words, colors = _numbered(table[:room])
    view = Map(
        title=label, x=_texts(dataset, x), y=_texts(dataset, y) if y else [""], x_label=x,
        y_label=y or "", values=numbers, words=words, colors=colors,
        note=f"{room} of {frames} settings are shown" if room < frames else "",
    )  # fmt: skip
    return Case(label, Frames("", _settings(dataset, others)[:room]), [view])


def _dots(dataset: xarray.Dataset, label: str, values: xarray.DataArray) -> View:
    """The cells of a design of points, along the first two parameters that are numbers."""
    numbers, words, colors = _numbered(combined(values, ["point"])[None])
    names = [
        str(c) for c in dataset.coords
        if c in PARAMETERS and dataset[c].dims == ("point",) and dataset[c].dtype.kind in "fi"
    ]  # fmt: skip
    cells = np.arange(numbers.shape[1], dtype=float)
    axes = {name: dataset[name].values.astype(float) for name in names[:2]}
    x, y = [*axes, "cell", "cell"][:2]
    return Dots(
        title=label, x=axes.get(x, cells), y=axes.get(y, cells), x_label=x, y_label=y,
        values=numbers[0], words=words, colors=colors,
    )  # fmt: skip


def _numbered(table: np.ndarray) -> tuple[np.ndarray, list[str], list[str]]:
    """Numbers; of words their numbers, the words and their colours. NaN where there is none."""
    if table.dtype.kind == "f":
        return table, [], []
    there = set(table.ravel().tolist()) - {""}
    words = [w for w in COLORS if w in there] + sorted(there - {*COLORS})
    place: dict[str, float] = {word: k for k, word in enumerate(words)}
    numbers = np.array([place.get(w, np.nan) for w in table.ravel()]).reshape(table.shape)
    return numbers, words, [COLORS.get(word, _OTHER) for word in words]


def _texts(dataset: xarray.Dataset, name: str) -> list[str]:
    values = dataset[name].values.tolist()
    return [f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]


def _settings(dataset: xarray.Dataset, names: Sequence[str]) -> list[str]:
    """The settings of these dimensions, the last fastest."""
    if not names:
        return ["all"]
    first, *others = names
    rest = _settings(dataset, others) if others else [""]
    return [
        f"{first} {value}{', ' * bool(words)}{words}"
        for value in _texts(dataset, first)
        for words in rest
    ]
