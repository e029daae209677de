"""A command as a process of its own: quick to start and to leave."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["carry_out"]


def carry_out(main: Callable[[], int]) -> NoReturn:
    """Run `main` and end the process with the status it returns."""
    gc.set_threshold(100_000)  # imports make many objects and no garbage
    try:
        status = main()
    except SystemExit as ended:  # the parser's way to end: --help or bad words
        status = ended.code
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End the process at once: by now every file is closed, and freeing all objects one by one, as
    Python otherwise would, takes longer than many a run."""
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed before the start
            stream.flush()
    except BrokenPipeError:  # the reader went away, as `head` does
        status = status or 1
    except OSError as error:
        print(f"dynsim: error: cannot write the output ({error.strerror})", file=sys.stderr)
        status = 2
    os._exit(status)
