"""Batches carried out: by processes of this machine, or by the workers of a Dask cluster.

Workers are given settings and send back what is kept; they write nothing, so that one that dies
takes nothing with it. So many batches are under way as keep all workers busy, however many there
are to come.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dynsim._threads import available
from dynsim.sweeps.cells import compute
from dynsim.sweeps.devices import number_worker
from dynsim.sweeps.store import versions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from distributed import Client

__all__ = ["DIED", "Cluster", "Local", "Machines", "OtherVersion", "carry_out"]

#: What is kept of the cells of a batch whose worker died twice while it had nothing else to do.
DIED = "the worker that computed it died twice; it may need more memory than there is"

#: A scheduler answers within so many seconds, or is not there.
_ANSWER_SECONDS = 10.0

#: A batch: its number along every dimension, and the settings of its cells.
Batch = tuple[tuple[int, ...], list[dict[str, Any]]]


class OtherVersion(ValueError):
    """A worker has other versions of what decides bits."""


def compute_batch(
    cells: Sequence[dict[str, Any]], keep: Sequence[str], expected: dict[str, str]
) -> list[dict[str, Any] | str]:
    """What a worker does. Raises OtherVersion, for results of other versions are others."""
    ours = versions()
    different = [name for name in expected if ours[name] != expected[name]]
    if different:
        words = "; ".join(f"{n} {ours[n]} there and {expected[n]} here" for n in different)
        raise OtherVersion(f"a worker has other versions: {words}; install the same ones")
    return compute(cells, keep)


class Machines(Protocol):
    """Where batches are carried out."""

    @property
    def workers(self) -> int:
        """How many batches are computed at the same time."""

    def executor(self) -> AbstractContextManager[Executor]:
        """What they are submitted to."""

    def is_death(self, error: BaseException) -> bool:
        """Whether a batch failed because its worker died."""


class Local:
    """Processes of this machine, each of which begins anew (spawn) and uses one thread."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = available() if workers is None else workers

    @property
    def workers(self) -> int:
        return self._workers

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        context = get_context("spawn")
        pool = ProcessPoolExecutor(
            self.workers, mp_context=context, initializer=_begin_worker,
            initargs=(context.Value("q", 0),),
        )  # fmt: skip
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def is_death(self, error: BaseException) -> bool:
        return isinstance(error, BrokenExecutor)


class Cluster:
    """The workers of a Dask cluster: whatever are there, now or later.

    scheduler : address of a scheduler, or a `distributed.Client`

    Raises OSError where no scheduler answers within 10 seconds.
    """

    def __init__(self, scheduler: str | Client) -> None:
        from distributed import Client

        if not isinstance(scheduler, Client):
            try:
                scheduler = Client(scheduler, timeout=_ANSWER_SECONDS)
            except (OSError, ValueError) as error:
                raise OSError(
                    f"no scheduler answers at {scheduler} ({error}); start one: dask scheduler"
                ) from None
        self.client, self._workers, self._asked = scheduler, 1, -np.inf

    @property
    def workers(self) -> int:
        """Threads of the workers that are there, asked for once a second at most."""
        if time.monotonic() > self._asked + 1.0:
            self._workers = max(1, sum(self.client.nthreads().values()))
            self._asked = time.monotonic()
        return self._workers

    @contextmanager
    def executor(self) -> Iterator[Executor]:
        from distributed.client import ClosedClientError
        from distributed.comm.core import CommClosedError

        pool = self.client.get_executor(pure=False)
        try:
            yield pool
        except (CancelledError, ClosedClientError, CommClosedError):
            raise OSError(
                "the scheduler went away; finished batches are kept, and the same command goes on "
                "with them"
            ) from None
        finally:
            if self.client.status == "running":
                pool.shutdown(wait=False)

    def is_death(self, error: BaseException) -> bool:
        from distributed import KilledWorker

        return isinstance(error, KilledWorker)


def _begin_worker(started: Any) -> None:
    """Ctrl-C is for the parent alone, and a worker ends when its parent is gone; it has the number
    of those that were started before."""
    with started.get_lock():
        number_worker(started.value)
        started.value += 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def carry_out(
    batches: Iterable[Batch],
    keep: Sequence[str],
    machines: Machines,
    done: Callable[[Batch, list[dict[str, Any] | str]], None],
) -> None:
    """Have all batches computed, and call done(batch, cells) for each in the order of completion.

    When a worker dies, batches that were under way are computed again one at a time, which shows
    whose fault it was; one that kills its worker twice on its own fails.
    """
    suspects: list[Batch] = []
    left = iter(batches)
    while True:
        suspects += _until_death(left, keep, machines, done)
        if not suspects:
            return
        for batch in suspects:
            for _ in range(2):
                if not _until_death(iter([batch]), keep, machines, done):
                    break
            else:
                done(batch, [DIED] * len(batch[1]))
        suspects = []


def _until_death(
    batches: Iterator[Batch],
    keep: Sequence[str],
    machines: Machines,
    done: Callable[[Batch, list[dict[str, Any] | str]], None],
) -> list[Batch]:
    """Carry out batches until there are no more, or a worker dies; those that died with it."""
    expected = versions()
    died: list[Batch] = []
    running: dict[Future, Batch] = {}
    first = next(batches, None)
    if first is None:
        return died
    with machines.executor() as executor:
        waiting = [first]
        while True:
            if not died:
                window = 2 * machines.workers + 2
                waiting += islice(batches, max(0, window - len(running) - len(waiting)))
            while waiting and not died:
                batch = waiting.pop(0)
                try:
                    running[executor.submit(compute_batch, batch[1], keep, expected)] = batch
                except Exception as error:
                    if not machines.is_death(error):
                        raise
                    died.append(batch)
            if not running:
                return died + waiting
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                batch = running.pop(future)
                try:
                    computed = future.result()
                except Exception as error:
                    if not machines.is_death(error):
                        raise
                    died.append(batch)
                else:
                    done(batch, computed)
