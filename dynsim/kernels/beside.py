"""A first run compiles its kernels side by side: a compiler uses one core.

Where a kernel is not kept yet, those that most runs need next are compiled meanwhile, each by a
process of its own, on the cores that are left. Such a process writes what it made where kernels are
kept and does nothing else; whatever becomes of it, what is not there is compiled as ever.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

__all__ = ["begin", "claim"]

_lock = Lock()


class _Job:
    """A kernel to be compiled by a process, unless this one comes to it before."""

    def __init__(self, kernel: str):
        self.kernel, self.done, self._taken = kernel, Event(), False

    def take(self) -> bool:
        """True for the first who asks."""
        with _lock:
            first, self._taken = not self._taken, True
            return first


_jobs: dict[Path, _Job] = {}


def begin(kernels: dict[Path, str]) -> None:
    """Begin to compile kernels of `table`, for float64, by where their code belongs; each once."""
    new = {place: _Job(name) for place, name in kernels.items() if place not in _jobs}
    if not sys.executable or getattr(sys, "frozen", False):  # no interpreter to be started
        return
    _jobs.update(new)
    for _ in range(min(len(new), (os.cpu_count() or 1) - 1)):
        Thread(target=_work, args=(list(new.values()),), daemon=True).start()


def claim(place: Path) -> None:
    """Wait for the code there if a process is making it; else keep processes from it."""
    job = _jobs.get(place)
    if job is not None and not job.take():
        job.done.wait()


def _work(jobs: list[_Job]) -> None:
    """Jobs that nobody has taken, one after another."""
    for job in jobs:
        if job.take():
            try:
                _compile(job.kernel)
            finally:
                job.done.set()


def _compile(kernel: str) -> None:
    """Have a process compile it, with this very dynsim and no module of the current folder."""
    nothing, paths = subprocess.DEVNULL, [str(Path(__file__).parents[2])]
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    with suppress(OSError):
        subprocess.run(
            [sys.executable, "-P", "-m", "dynsim.kernels.beside", kernel], check=False,
            stdin=nothing, stdout=nothing, stderr=nothing,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip


def _main(name: str) -> None:
    from dynsim.kernels.table import KERNELS

    KERNELS[name].make_usual()


if __name__ == "__main__":
    _main(sys.argv[1])
