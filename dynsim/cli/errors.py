"""What every command does about errors: one line, a status, nothing half done."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dynsim._memory import TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["exit_status", "one_line"]


def exit_status(prog: str, work: Callable[[], int]) -> int:
    """The exit status of work(): 1 for overflow, 2 for bad input, 130 when interrupted, each with
    one line on standard error; 1 in silence when the reader of the output went away."""

    def say(words: str, status: int) -> int:
        print(f"{prog}: {words}", file=sys.stderr)
        return status

    try:
        with _terminate_as_interrupt():
            try:
                return work()
            finally:
                _flush_output()
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        return 1
    except FloatingPointError as error:
        return say(one_line(error), 1)
    except (ValueError, ImportError, OSError, TooLarge) as error:
        return say(f"error: {one_line(error)}", 2)
    except MemoryError as error:
        advice = "use fewer tokens, dimensions or samples"
        return say(f"error: {one_line(error) or 'out of memory'}; {advice}", 2)
    except KeyboardInterrupt as error:
        return say(f"interrupted; {one_line(error) or 'nothing was left half written'}", 130)


def _flush_output() -> None:
    """Write out what was printed. Where that fails the rest is discarded, so that the end of the
    process does not fail again."""
    if sys.stdout is None:  # closed before the start
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """A polite kill (SIGTERM) ends like Ctrl-C: what was computed is saved."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
