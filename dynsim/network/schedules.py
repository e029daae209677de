"""Numbers that depend on the layer: a schedule gives one for every layer t, the first of them 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynsim._values import Value, check_instance, entry_of_layer, real_number, whole

__all__ = ["SCHEDULES", "Constant", "Linear", "Listed", "Schedule", "as_schedule"]


class Schedule(Value):
    """Base of the schedules."""

    #: How many layers there are numbers for; None when there is no end.
    n_layers: int | None = None
    #: True when all layers have the same number.
    is_constant = False

    def at(self, t: int) -> float:
        """The number of layer t."""
        raise NotImplementedError

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest of the numbers."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Schedule):
    """The same number in every layer.

    >>> Constant(2.0).at(7)
    2.0
    """

    value: float = 1.0
    is_constant = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _finite("the number of a schedule", self.value))

    def at(self, t: int) -> float:
        return self.value

    @property
    def ends(self) -> tuple[float, float]:
        return self.value, self.value


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Schedule):
    """From `first` in layer 0 to `last` in layer `layers` - 1, in equal steps; `last` from there.

    >>> [Linear(1.0, 2.0, layers=3).at(t) for t in range(4)]
    [1.0, 1.5, 2.0, 2.0]
    """

    first: float
    last: float
    layers: int

    def __post_init__(self) -> None:
        for name in ("first", "last"):
            object.__setattr__(self, name, _finite(f"{name} of a schedule", getattr(self, name)))
        whole("number of layers of a schedule", self.layers, least=2)

    def at(self, t: int) -> float:
        share = min(t / (self.layers - 1), 1.0)
        return self.first + share * (self.last - self.first)

    @property
    def ends(self) -> tuple[float, float]:
        return min(self.first, self.last), max(self.first, self.last)


@dataclass(frozen=True, eq=False, repr=False)
class Listed(Schedule):
    """Entry t in layer t; there are no further layers.

    >>> Listed((1.0, 4.0)).at(1)
    4.0
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        check_instance("a listed schedule", self.values, (tuple, list, np.ndarray), "(1.0, 2.0)")
        values = tuple(_finite("an entry of a schedule", value) for value in self.values)
        object.__setattr__(self, "values", values)
        if not values:
            raise ValueError("a listed schedule has one number or more; got none")

    @property
    def is_constant(self) -> bool:  # type: ignore[override]
        return len(self.values) == 1

    @property
    def n_layers(self) -> int | None:  # type: ignore[override]
        return None if self.is_constant else len(self.values)

    def at(self, t: int) -> float:
        return entry_of_layer("numbers", self.values, t)

    @property
    def ends(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


#: Every schedule by the name that the command line gives it.
SCHEDULES = {"constant": Constant, "linear": Linear, "list": Listed}


def as_schedule(name: str, given: float | Schedule) -> Schedule:
    """A schedule as it is, a number as the same in every layer; ValueError for anything else."""
    return given if isinstance(given, Schedule) else Constant(_finite(name, given))


def _finite(name: str, value: float) -> float:
    number = real_number(name, value)
    if not np.isfinite(number):
        raise ValueError(f"{name} is finite; got {number}")
    return number
