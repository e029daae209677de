"""The parameters that a sweep sets, and the words for their values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynsim._values import check_name, shown
from dynsim._words import values

__all__ = ["PARAMETERS", "Axis", "Parameter", "read_axis"]


@dataclass(frozen=True)
class Parameter:
    """The type of a parameter's values, and what holds where a sweep does not set it.

    words : whether values may be words, too; all values of an axis then are
    """

    kind: type
    default: Any = None
    words: bool = False


#: Every parameter by name: those of ``dynsim run``, with its defaults.
PARAMETERS = {
    "mask": Parameter(str, "complete"),
    "window": Parameter(int),
    "norm": Parameter(str, "none"),
    "ln_scaling": Parameter(bool, False),
    "placement": Parameter(str, "post"),
    "skip": Parameter(float, 0.0, words=True),
    "gate": Parameter(str, "none"),
    "value": Parameter(str, "gaussian"),
    "scores": Parameter(str, "gaussian"),
    "beta": Parameter(float, 1.0),
    "position": Parameter(str, "none"),
    "attention": Parameter(str, "softmax"),
    "sink": Parameter(float),
    "qk_norm": Parameter(str, "none"),
    "d_qk": Parameter(float),
    "heads": Parameter(int, 1),
    "shared": Parameter(bool, False),
    "mlp": Parameter(str, "none"),
    "dropout": Parameter(float, 0.0),
    "attention_dropout": Parameter(float, 0.0),
    "tokens": Parameter(int, 64),
    "dim": Parameter(int, 32),
    "samples": Parameter(int, 16),
    "start": Parameter(str, "gaussian"),
    "seed": Parameter(int, 0),
    "depth": Parameter(int, 128),
    "engine": Parameter(str, "auto"),
}

#: A:B, an interval; A:B:log, an interval of the logarithm; A:B:lin5 and A:B:log5, five values.
_INTERVAL = re.compile(r"([^:,]+):([^:,]+)(?::(lin|log)(\d*))?")


@dataclass(frozen=True)
class Axis:
    """The values of one parameter: a list, or an interval from which a design draws.

    interval : low, high and whether equal shares of it are those of the logarithm
    """

    name: str
    values: tuple = ()
    interval: tuple[float, float, bool] | None = None

    def at(self, shares: np.ndarray) -> list:
        """The values at these shares of the axis, each at least 0 and below 1.

        >>> Axis("mask", ("causal", "local")).at(np.array([0.2, 0.7]))
        ['causal', 'local']
        >>> Axis("window", interval=(1, 100, True)).at(np.array([0.0, 0.5]))
        [1, 10]
        """
        if self.interval is None:
            return [self.values[int(share * len(self.values))] for share in shares]
        low, high, logarithmic = self.interval
        if PARAMETERS[self.name].kind is int and not logarithmic:
            return [int(low + share * (high + 1 - low)) for share in shares]
        return _typed(self.name, _between(low, high, shares, logarithmic))


def read_axis(name: str, given: object) -> Axis:
    """The axis that `given` stands for: one value, a list, or words.

    Words are a list with commas (semicolons where values hold commas); for numbers also A..B,
    A..B..STEP, A:B:lin5 and A:B:log5, and the intervals A:B and A:B:log. ``seeds=5`` stands for
    the seeds 0 to 4.

    >>> read_axis("window", "1:64:log4").values, read_axis("seeds", 2)
    ((1, 4, 16, 64), Axis(name='seed', values=(0, 1), interval=None))

    Raises ValueError for an unknown name, and for values that are none or not of its type.
    """
    if name == "seeds":
        (number,) = _numbers("seeds", given, int) or (0,)
        if number < 1:
            raise ValueError(f"seeds is the number of seeds, at least 1; got {shown(given)}")
        return Axis("seed", tuple(range(number)))
    check_name("parameter", name, [*PARAMETERS, "seeds"])
    kind = PARAMETERS[name].kind
    if PARAMETERS[name].words and not _are_numbers(given):
        kind, given = str, [str(item) for item in _items(given)]
    if isinstance(given, str) and kind in (int, float):
        match = _INTERVAL.fullmatch(given.strip())
        if match and not match[4]:
            return Axis(name, interval=_interval(name, match))
    found = _numbers(name, given, kind) if kind in (int, float) else _words(name, given, kind)
    if not found:
        raise ValueError(f"{name} needs at least one value; got {shown(given)}")
    return Axis(name, tuple(dict.fromkeys(found)))


def _are_numbers(given: object) -> bool:
    """Whether no value begins with a letter, as names do, or is a list."""
    words = [item for item in _items(given) if isinstance(item, str)]
    return not any(word[:1].isalpha() or "," in word for word in words)


def _items(given: object) -> list:
    if isinstance(given, str):
        return list(values(given))
    return list(given) if isinstance(given, Iterable) else [given]


def _words(name: str, given: object, kind: type) -> list:
    switches = {"on": True, "off": False, True: True, False: False}
    words: list = []
    for item in _items(given):
        if kind is bool:
            if not isinstance(item, (str, bool)) or item not in switches:
                raise ValueError(f"{name} is on or off; got {shown(item)}")
            words.append(switches[item])
        elif not isinstance(item, str):
            raise ValueError(f"{name} is a name; got {shown(item)}")
        else:
            words.append(item)
    return words


def _numbers(name: str, given: object, kind: type) -> list:
    numbers: list = []
    for item in _items(given):
        match = _INTERVAL.fullmatch(item.strip()) if isinstance(item, str) else None
        if match is None:
            numbers.append(_number(name, item, kind))
            continue
        low, high, logarithmic = _interval(name, match)
        if not match[4] or int(match[4]) < 2:
            raise ValueError(
                f"{name}: an interval in a list has a number of values of 2 or more, as in "
                f"1:64:log8; got {shown(item)}"
            )
        shares = np.linspace(0.0, 1.0, int(match[4]))
        numbers += _typed(name, _between(low, high, shares, logarithmic))
    return numbers


def _number(name: str, item: Any, kind: type) -> int | float:
    try:
        number = float(item) if isinstance(item, str) or kind is float else item
        if isinstance(item, bool) or not math.isfinite(number) or kind(number) != number:
            raise ValueError
        return kind(number)
    except (TypeError, ValueError):
        words = "a whole number" if kind is int else "a finite number"
        raise ValueError(f"{name} is {words}; got {shown(item)}") from None


def _interval(name: str, match: re.Match) -> tuple[float, float, bool]:
    kind = PARAMETERS[name].kind
    low, high = (_number(name, match[k], kind) for k in (1, 2))
    logarithmic = match[3] == "log"
    if low >= high or (logarithmic and low <= 0):
        least = "positive and " * logarithmic
        raise ValueError(f"{name}: an interval is A:B, {least}upwards; got {match[0]!r}")
    return low, high, logarithmic


def _between(low: float, high: float, shares: np.ndarray, logarithmic: bool) -> np.ndarray:
    """Values at shares of an interval, its ends exactly."""
    found = low * (high / low) ** shares if logarithmic else low + shares * (high - low)
    return np.where(shares == 0.0, low, np.where(shares == 1.0, high, found))


def _typed(name: str, numbers: np.ndarray) -> list:
    kind = PARAMETERS[name].kind
    return [kind(v) for v in (np.rint(numbers) if kind is int else numbers).tolist()]
