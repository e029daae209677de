"""What cells may be, by name, and a batch of them computed."""

from __future__ import annotations

from collections.abc import Sequence

from dynsim._threads import blas_alone, using_threads
from dynsim.sweeps.iterated import BASINS, EQUILIBRIA, LYAPUNOV
from dynsim.sweeps.kind import Computed, Kind
from dynsim.sweeps.probes import PROBE
from dynsim.sweeps.runs import RUN
from dynsim.sweeps.settings import Settings

__all__ = ["CELLS", "compute"]

#: Every kind of cell by name.
CELLS: dict[str, Kind] = {
    "run": RUN,
    "basins": BASINS,
    "equilibria": EQUILIBRIA,
    "lyapunov": LYAPUNOV,
    "probe": PROBE,
}


def compute(cells: Sequence[Settings], keep: Sequence[str]) -> list[Computed]:
    """What is kept of each cell, or why it failed, in one line; all are of one kind.

    One thread is used: workers are many.
    """
    if not cells:
        return []
    with using_threads(1), blas_alone():
        return CELLS[cells[0]["cell"]].compute(cells, keep)
