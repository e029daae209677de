"""What stands on a page: each view is data by frame, which `page.js` draws.

A frame is a layer, an equilibrium or a setting, whatever the slider of the page chooses. Large
arrays travel once, as base64 of float32, or of attention as 16-bit shares of its largest weight.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

__all__ = ["Attention", "Bars", "Curves", "Dots", "Frames", "Line", "Map", "Plane", "Spectrum",
           "Sphere", "View", "plain"]  # fmt: skip

#: Digits of numbers that stand in the page as text.
_DIGITS = 6


@dataclass(frozen=True)
class Frames:
    """What the slider chooses: "layer" 0, 4, 8, ...; positions on the axis of curves, if any."""

    name: str
    labels: Sequence[str]
    positions: Sequence[float] | None = None

    def data(self) -> dict[str, Any]:
        return _plain_fields(self)


@dataclass(frozen=True)
class Line:
    """A curve: y (K,) over x, with a band from low to high."""

    name: str
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    x: np.ndarray | None = None

    def data(self) -> dict[str, Any]:
        return _plain_fields(self)


@dataclass(frozen=True, kw_only=True)
class View:
    """One picture: its title, what stands below it, and below it at each frame."""

    title: str
    note: str = ""
    notes: Sequence[str] | None = None

    def data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"kind": type(self).__name__.lower(), **_plain_fields(self)}


@dataclass(frozen=True, kw_only=True)
class Curves(View):
    """Lines over layers, with a mark at the frame."""

    x: np.ndarray
    lines: Sequence[Line]
    x_label: str
    y_label: str
    log: bool = False
    y_range: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Spectrum(View):
    """Singular values by frame as shares of the largest, (frames, K); `first` names frame 0."""

    values: np.ndarray
    first: str

    def data(self) -> dict[str, Any]:
        least = np.min(self.values, where=self.values > 0, initial=1.0)
        packed = _packed(self.values[None])
        packed["shape"] = packed["shape"][1:]
        return super().data() | {"values": packed, "lowest": float(np.log10(least)) - 0.15}


@dataclass(frozen=True, kw_only=True)
class Sphere(View):
    """Tokens in the unit ball by frame, (frames, N, 3), with their names.

    dim : 2 where they lie on a circle
    apart, apart_note : their differences, magnified, (frames, N, 3), and what stands below these
    """

    points: np.ndarray
    tokens: Sequence[str]
    dim: int
    apart: np.ndarray
    apart_note: str

    def data(self) -> dict[str, Any]:
        return super().data() | {"points": _packed(self.points), "apart": _packed(self.apart)}


@dataclass(frozen=True, kw_only=True)
class Attention(View):
    """Attention by frame and head, (frames or fewer, H, N, N), as a matrix and as arcs.

    Where no layer follows the last frames their attention is left out.
    """

    weights: np.ndarray
    heads: Sequence[str]
    tokens: Sequence[str]
    arcs_title: str
    arcs_note: str
    most_arcs: int

    def data(self) -> dict[str, Any]:
        ahead = np.triu(self.weights.max(axis=(0, 1)), 1).any()
        largest = np.maximum(self.weights.max(axis=(0, 2, 3)), 1e-12)
        return super().data() | {
            "weights": _packed(self.weights, shares=True),
            "largest": largest.tolist(),
            "ahead": bool(ahead),
        }


@dataclass(frozen=True, kw_only=True)
class Plane(View):
    """Points of the complex plane by frame, each (K,), beside the unit circle.

    kinds : number of the colour of each point
    """

    points: Sequence[np.ndarray]
    kinds: Sequence[np.ndarray]
    colors: Sequence[str]

    def data(self) -> dict[str, Any]:
        pairs = [plain(np.stack([z.real, z.imag], axis=-1)) for z in self.points]
        return super().data() | {"points": pairs}


@dataclass(frozen=True, kw_only=True)
class Bars(View):
    """Stacked bars: series of (name, colour, values)."""

    x: Sequence[str]
    series: Sequence[tuple[str, str, Sequence[float]]]
    x_label: str
    y_label: str

    def data(self) -> dict[str, Any]:
        names = ("name", "color", "values")
        return super().data() | {"series": [dict(zip(names, s, strict=True)) for s in self.series]}


@dataclass(frozen=True, kw_only=True)
class Map(View):
    """A table as colours by frame, (frames, len(y), len(x)), NaN where there is no value.

    words, colors : where values are numbers of words
    limits : the ends of the scale; the least and the largest value unless given
    """

    x: Sequence[str]
    y: Sequence[str]
    x_label: str
    y_label: str
    values: np.ndarray
    words: Sequence[str] = field(default=())
    colors: Sequence[str] = field(default=())
    limits: tuple[float, float] | None = None

    def data(self) -> dict[str, Any]:
        known = self.values[np.isfinite(self.values)]
        low, high = self.limits or ((known.min(), known.max()) if known.size else (0.0, 1.0))
        return super().data() | {"range": plain(np.array([low, high if high > low else low + 1]))}


@dataclass(frozen=True, kw_only=True)
class Dots(View):
    """Dots at x (K,), y (K,) with values (K,) as colours; words and colours as of `Map`."""

    x: np.ndarray
    y: np.ndarray
    x_label: str
    y_label: str
    values: np.ndarray
    words: Sequence[str] = field(default=())
    colors: Sequence[str] = field(default=())


def plain(values: Any) -> Any:
    """JSON-ready: arrays as lists of numbers of six digits, None for what is not finite."""
    if isinstance(values, np.ndarray):
        return plain(values.tolist())
    if isinstance(values, (list, tuple)):
        return [plain(value) for value in values]
    if isinstance(values, float):
        return float(f"{values:.{_DIGITS}g}") if np.isfinite(values) else None
    return values.data() if isinstance(values, Line) else values


def _plain_fields(value: Any) -> dict[str, Any]:
    """What is there of a dataclass, less the arrays that are packed."""
    own = {f.name: getattr(value, f.name) for f in fields(value)}
    large = {name for name, v in own.items() if isinstance(v, np.ndarray) and v.ndim > 3}
    return {k: plain(v) for k, v in own.items() if v is not None and k not in large}


def _packed(values: np.ndarray, shares: bool = False) -> dict[str, Any]:
    """An array as base64: of float32, or of 16-bit shares of its largest entry."""
    if shares:
        scale = float(max(values.max(), 1e-12)) / 65535
        kind, numbers = "u2", np.round(values / scale).astype("<u2")
    else:
        scale, kind, numbers = 1.0, "f4", values.astype("<f4")
    data = base64.b64encode(np.ascontiguousarray(numbers).tobytes()).decode()
    return {"shape": list(values.shape), "type": kind, "scale": scale, "data": data}
