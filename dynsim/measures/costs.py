"""What layers and measures cost, by a model: never from the clock, so that a call records the same
depths on every machine.

Nanoseconds of one core of a Zen 4 at 2.6 GHz, fitted to the sizes (N, d) = (8, 4) .. (256, 64):
right to a factor 1.5 there. Only ratios of them count, and these vary less between machines. What
numpy does of a record runs on one thread and counts twice, as if layers had two.
"""

from __future__ import annotations

from collections.abc import Iterable

from dynsim.measures.lanes import fit_lanes
from dynsim.measures.registry import MEASURES

__all__ = ["layer_cost", "record_cost"]

#: Of a record of all samples together: some twenty calls of numpy.
_CALLS = 300_000.0


def layer_cost(n: int, d: int, pairs: int) -> float:
    """Of one layer of attention for a sample of N tokens, with so many (query, key) pairs."""
    return 100 + (2 * pairs * d + 2 * n * d * d + 4 * n * d) / 25 + 1.5 * pairs


def record_cost(names: Iterable[str], samples: int, n: int, d: int) -> float:
    """Of recording these measures once, for all samples."""
    needs = [MEASURES[name].needs for name in names]
    decompositions = len({"singular values", "deviations", "others"}.intersection(needs))
    pairs = needs.count("pairs")
    short, tall = min(n, d), max(n, d)
    work = tall * short**2 + 4 * short**3 / 3
    if fit_lanes(n, d):
        side_by_side = 3.4 * -(-samples // 2) if samples <= 4 else 8 * -(-samples // 8)
        side_by_side *= 2 if samples <= 16 else 1  # one thread works on all of them
        values = side_by_side * (work / 16 + 6.5 * short**2 + 60)
        cosines = side_by_side * (n * n * d / 40 + n * d)
    else:
        values = 2 * samples * work / 4
        cosines = 2 * samples * (n * n * d / 16 + n * n)
    formulas = 2 * samples * 6 * short
    interruption = 2 * samples * 6.5 * n * d  # the engine hands its state over, and takes it again
    each = decompositions * (values + formulas) + pairs * cosines + interruption
    return _CALLS + each if needs else 0.0
