"""Threads that carry out the jobs of one call at once, and what becomes of them after Ctrl-C."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier
from typing import Any

from dynsim.engines.base import Work

__all__ = ["Workers"]


def _started(number: int) -> ThreadPoolExecutor:
    """An executor all of whose threads are there, so that `submit` starts none.

    Raises ValueError when the system does not give so many.
    """
    executor, all_here = ThreadPoolExecutor(number), Barrier(number)
    try:
        wait([executor.submit(all_here.wait) for _ in range(number)])
    except RuntimeError as error:  # can't start new thread
        all_here.abort()
        executor.shutdown(wait=False)
        raise ValueError(f"{number} threads cannot be started ({error}); use fewer") from None
    return executor


class Workers:
    """Threads that are kept between calls.

    Python raises KeyboardInterrupt in the main thread alone, between any two of its steps. So the
    caller only hands the jobs over, in one step, to a leader, a thread that starts the others: the
    members of a team wait for one another, and none may be missing. The jobs of an interrupted
    caller end with the part that they are at. `settle` waits for them: the leader takes one call
    after another, so when it has done nothing, all that came before is done.
    """

    def __init__(self, number: int):
        self._others, self._leader = _started(number), _started(1)
        self._settled, self._wanted = True, True

    def every(self, work: Work, jobs: Sequence) -> None:
        """All parts of work(job) for all jobs, each on its own thread, at once."""
        self._settled, self._wanted = False, True
        try:
            self._leader.submit(self._lead, work, jobs).result()
        except KeyboardInterrupt:
            self._wanted = False
            raise
        self._settled = True

    def settle(self) -> None:
        """Return when no job of an earlier call is at work."""
        if not self._settled:
            self._leader.submit(int).result()
            self._settled = True

    def _carry_out(self, work: Work, job: Any) -> None:
        for _ in work(job):
            if not self._wanted:
                return

    def _lead(self, work: Work, jobs: Sequence) -> None:
        others = [self._others.submit(self._carry_out, work, job) for job in jobs[1:]]
        try:
            self._carry_out(work, jobs[0])
        finally:
            wait(others)
        for other in others:
            other.result()  # raises what the job raised
