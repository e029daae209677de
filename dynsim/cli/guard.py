"""What every command does about errors: one line, a status, nothing half done."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager

from dynsim._memory import TooLarge

__all__ = ["guarded", "one_line"]


def guarded(
    parser: argparse.ArgumentParser,
    argv: list[str] | None,
    work: Callable[[argparse.Namespace], int],
    interrupted: str = "nothing was left half written",
) -> int:
    """work(options)'s exit status, or 2 for bad input, 130 when interrupted, with one line said.

    argv : arguments; by default those of the process.
    interrupted : what is said after Ctrl-C, with options in braces.
    """
    options, prog = parser.parse_args(argv), parser.prog
    with _terminate_as_interrupt():
        try:
            return work(options)
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (ValueError, ImportError, OSError, TooLarge) as error:
            print(f"{prog}: error: {one_line(error)}", file=sys.stderr)
            return 2
        except MemoryError as error:
            advice = "use fewer tokens, dimensions or samples"
            print(f"{prog}: error: {one_line(error)}; {advice}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{prog}: interrupted; {interrupted.format(**vars(options))}", file=sys.stderr)
            return 130


@contextmanager
def _terminate_as_interrupt():
    """A polite kill (SIGTERM) ends like Ctrl-C: what was computed is saved."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
