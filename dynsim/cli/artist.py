"""A figure drawn by a process of its own, which loads matplotlib while the simulation runs.

Run as a module this is that process: it reads one order from standard input, draws the figure, and
answers with None or with the error it met.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dynsim.cli.process import carry_out

if TYPE_CHECKING:
    from dynsim.results.trajectory import Trajectory

__all__ = ["Artist", "called_ahead"]

#: A process that was called ahead and waits for its `Artist`.
_ahead: list[subprocess.Popen] = []


@contextmanager
def called_ahead():
    """Start the process of the next `Artist` now, while the command itself is loading."""
    process = _start()
    _ahead.append(process)
    try:
        yield
    finally:
        if process in _ahead:  # nobody wanted it
            _ahead.remove(process)
            _dismiss(process)


def _start() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dynsim.cli.artist"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        process_group=0,  # Ctrl-C is for the simulation; its figure is drawn all the same
    )


def _dismiss(process: subprocess.Popen) -> None:
    """Wait for the end of a process that may be drawing, or end one that has nothing to draw."""
    if not process.stdin.closed:
        process.kill()
        process.stdin.close()
    process.stdout.read()
    process.stdout.close()
    process.wait()


class Artist:
    """Context manager: a process that waits for one figure to draw, and is gone at the end."""

    def __enter__(self) -> Artist:
        self._process = _ahead.pop() if _ahead else _start()
        return self

    def begin(self, runs: Mapping[str, Trajectory], title: str, theory: Mapping, path: str) -> None:
        """Have `dynsim.plots.rank_trajectory` drawn and saved."""
        runs = {label: run.without_tokens() for label, run in runs.items()}
        try:
            with self._process.stdin as order:
                pickle.dump((runs, title, theory, path), order)
        except BrokenPipeError:
            pass  # the artist is gone: `finish` says so

    def finish(self) -> None:
        """Wait for the figure. Raises what went wrong."""
        answer = self._process.stdout.read()
        status = self._process.wait()
        if status:
            raise OSError(f"no figure: the process that draws it ended with status {status}")
        error = pickle.loads(answer)
        if error is not None:
            raise error

    def __exit__(self, *error) -> None:
        _dismiss(self._process)


def _draw_what_is_ordered() -> int:
    with ThreadPoolExecutor(1) as reader:  # so that nobody waits for matplotlib to hand it over
        reading = reader.submit(sys.stdin.buffer.read)
        from dynsim.results import plots
    order = reading.result()
    if not order:  # nobody wants a figure any more
        return 0
    runs, title, theory, path = pickle.loads(order)
    error = None
    try:
        plots.save(plots.rank_trajectory(runs, title, theory), path)
    except Exception as met:
        error = met
    pickle.dump(error, sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    carry_out(_draw_what_is_ordered)
