"""Sweeps: a dynamics over many settings, computed by many processes, kept in one store.

A `Specification` says which cells there are, `Store` keeps what was computed of them and is the
only memory of how far a sweep is, `sweep` computes what the store lacks, and `results` opens it
as a labelled dataset.
"""

from dynsim.sweeps.cells import CELLS
from dynsim.sweeps.designs import DESIGNS
from dynsim.sweeps.parameters import PARAMETERS
from dynsim.sweeps.specification import Specification, from_toml
from dynsim.sweeps.store import Store, results
from dynsim.sweeps.sweep import Interrupted, sweep

__all__ = [
    "CELLS",
    "DESIGNS",
    "PARAMETERS",
    "Interrupted",
    "Specification",
    "Store",
    "from_toml",
    "results",
    "sweep",
]
