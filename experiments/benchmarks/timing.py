"""How long a variant takes: sized to be long enough, in turns, judged by the median."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Load", "TooSlow", "in_turns", "sized", "slope", "spread"]


#: Layers of one timing at least, unless they take so many seconds.
_LEAST, _LONG = 12, 3.0
#: Seconds between two turns: threads that the last variant left spinning go to sleep.
PAUSE = 0.1


class TooSlow(Exception):
    """A single layer takes longer than there is patience for; the message says how long."""


@dataclass(frozen=True)
class Load:
    """What one timing is: `calls` runs of `layers` layers."""

    layers: int
    calls: int
    layer_seconds: float  # as found when it was sized

    def timed(self, run: Callable[[int], object]) -> float:
        """Seconds per layer."""
        begun = time.perf_counter()
        for _ in range(self.calls):
            run(self.layers)
        return (time.perf_counter() - begun) / (self.calls * self.layers)


def sized(
    run: Callable[[int], object],
    most: int,
    seconds: float,
    patience: float = np.inf,
    first: int = 1,
) -> Load:
    """Layers, up to `most`, and calls that make one timing of `run` last about `seconds`, or longer
    for layers that are long: a trajectory has many, and what it costs to begin is not theirs.

    `run` has been called with `first` layers before; a run of any other length comes before the
    one that is timed, for what compiles by length.
    """
    layers = min(first, most)
    while True:
        load = Load(layers, 1, 0.0)
        load = Load(layers, 1, load.timed(run))
        whole = load.layer_seconds * layers
        if load.layer_seconds > patience:
            raise TooSlow(f"a layer takes {load.layer_seconds:.3g} s, longer than {patience:g} s")
        if whole >= seconds / 2:
            least = min(_LEAST, most, int(_LONG / load.layer_seconds))
            fitting = max(1, least, int(seconds / load.layer_seconds))
            if layers < least or (whole > 2 * seconds and layers > fitting):
                run(fitting)
                return Load(fitting, 1, load.layer_seconds)
        if layers == most or whole >= seconds / 2:
            return Load(layers, max(1, round(seconds / whole)), load.layer_seconds)
        layers = min(most, max(layers + 1, int(layers * min(seconds / whole, 32))))
        run(layers)


def in_turns(timers: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call all timers, every round in the other direction: drifts of the machine even out."""
    found = {name: [] for name in timers}
    for k in range(rounds):
        for name in list(timers)[:: 1 if k % 2 == 0 else -1]:
            time.sleep(PAUSE)
            found[name].append(timers[name]())
    return found


def spread(values) -> float:
    """Half the interquartile range, as a share of the median."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float((high - low) / (2 * middle))


def slope(sizes, values) -> float:
    """The exponent p of values ~ sizes^p, by least squares in logarithms.

    >>> round(slope([1, 2, 4], [3, 12, 48]), 12)
    2.0
    """
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
