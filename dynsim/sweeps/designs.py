"""Designs: which cells a sweep has, made of the axes of its parameters.

Every design puts each axis along one dimension: a grid gives an axis of several values a dimension
of its own, the others put all axes along the dimension "point".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dynsim.sweeps.parameters import Axis

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DESIGNS", "POINT", "Column"]

#: The dimension of designs that are no grid.
POINT = "point"


class Column(NamedTuple):
    """The values of a parameter along a dimension."""

    dimension: str
    values: tuple


def grid(axes: Sequence[Axis], points: int | None, seed: int) -> dict[str, Column]:
    """All combinations."""
    _refuse_points("grid", points)
    _refuse_intervals("grid", axes)
    return {axis.name: Column(axis.name, axis.values) for axis in axes}


def together(axes: Sequence[Axis], points: int | None, seed: int) -> dict[str, Column]:
    """The first values of all axes, then the second ones, ...: lists of equal length."""
    _refuse_points("zip", points)
    _refuse_intervals("zip", axes)
    sizes = {axis.name: len(axis.values) for axis in axes}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} has {size}" for name, size in sizes.items())
        raise ValueError(f"a zip takes lists of equal length; {listed}")
    return {axis.name: Column(POINT, axis.values) for axis in axes}


def sobol(axes: Sequence[Axis], points: int | None, seed: int) -> dict[str, Column]:
    """Scrambled Sobol points (`scipy.stats.qmc.Sobol`); their number is a power of two."""
    from scipy.stats import qmc

    points = _required("sobol", points)
    if points & (points - 1):
        raise ValueError(f"a sobol design has a power of two of points; got {points}")
    return _sampled(axes, qmc.Sobol(len(axes), scramble=True, seed=seed).random(points))


def latin(axes: Sequence[Axis], points: int | None, seed: int) -> dict[str, Column]:
    """A Latin hypercube (`scipy.stats.qmc.LatinHypercube`)."""
    from scipy.stats import qmc

    points = _required("latin", points)
    return _sampled(axes, qmc.LatinHypercube(len(axes), seed=seed).random(points))


#: Every design by name.
DESIGNS: dict[str, Callable[[Sequence[Axis], int | None, int], dict[str, Column]]] = {
    "grid": grid,
    "zip": together,
    "sobol": sobol,
    "latin": latin,
}


def _sampled(axes: Sequence[Axis], shares: np.ndarray) -> dict[str, Column]:
    return {axis.name: Column(POINT, tuple(axis.at(shares[:, k]))) for k, axis in enumerate(axes)}


def _required(name: str, points: int | None) -> int:
    if points is None or points < 1:
        raise ValueError(f"the design {name} needs a number of points; got {points}")
    return points


def _refuse_points(name: str, points: int | None) -> None:
    if points is not None:
        raise ValueError(f"the number of points is for sobol and latin; leave it out of a {name}")


def _refuse_intervals(name: str, axes: Sequence[Axis]) -> None:
    for axis in axes:
        if axis.interval is not None:
            low, high, logarithmic = axis.interval
            scale = "log" if logarithmic else "lin"
            raise ValueError(
                f"{axis.name}: a {name} needs values, not an interval; write "
                f"{low:g}:{high:g}:{scale}8 for eight, or use the design sobol or latin"
            )
