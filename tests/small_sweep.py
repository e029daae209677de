"""A small sweep for tests, and workers in this process."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from dynsim.sweeps import Specification, Store
from dynsim.sweeps.execution import Local
from dynsim.sweeps.sweep import complete

#: A sweep of 24 cells in 12 batches, each of a few milliseconds.
SMALL = {
    "mask": "local,causal",
    "beta": "0.1:10:log3",
    "value": "identity,orthogonal",
    "seeds": 2,
    "norm": "unit",
    "tokens": 6,
    "dim": 3,
    "samples": 2,
    "depth": 20,
}
GRID = ["--grid", *(f"{name}={value}" for name, value in SMALL.items())]


class Threads(Local):
    """Workers in this process, for tests that are not about processes."""

    @contextmanager
    def executor(self):
        with ThreadPoolExecutor(self.workers) as pool:
            yield pool


def small(**more):
    return Specification.of(SMALL | more)


def content(path):
    """All files of a store and their bytes."""
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def computed(path):
    """The content of the store of SMALL, computed in one go."""
    store = Store(path, small())
    complete(store, Threads(1))
    return content(store.path)
