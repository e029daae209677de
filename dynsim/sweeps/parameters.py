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

__all__ = ["PARAMETERS", "Axis", "read_axis"]


#: The type of the values of every parameter; `dynsim.sweeps.cells` says which kind of cell has it.
PARAMETERS: dict[str, type] = {
    "mask": str,
    "window": int,
    "norm": str,
    "ln_scaling": bool,
    "placement": str,
    "skip": float,
    "gate": str,
    "value": str,
    "scores": str,
    "beta": float,
    "position": str,
    "attention": str,
    "sink": float,
    "qk_norm": str,
    "d_qk": float,
    "heads": int,
    "shared": bool,
    "mlp": str,
    "dropout": float,
    "attention_dropout": float,
    "tokens": int,
    "dim": int,
    "samples": int,
    "start": str,
    "seed": int,
    "depth": int,
    "engine": str,
    "device": str,
    # of basins, equilibria, Lyapunov exponents and probes
    "starts": int,
    "exponents": int,
    "flips": bool,
    "basin_samples": int,
    "count": int,
    "layers": int,
    "discard": int,
    "model": str,
    "text": str,
    "untrained": bool,
}

#: Parameters that are numbers, or names: one axis has either.
_WORDS_TOO = {"skip"}

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
        if PARAMETERS[self.name] is int and not logarithmic:
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
    kind = PARAMETERS[name]
    if name in _WORDS_TOO and not _are_numbers(given):
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
    kind = PARAMETERS[name]
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
    kind = PARAMETERS[name]
    return [kind(v) for v in (np.rint(numbers) if kind is int else numbers).tolist()]
