"""``python -m dynsim`` and the command ``dynsim``: lists the commands or runs one."""

import gc
import os
import sys
from importlib import import_module
from typing import NoReturn

import dynsim
from dynsim.cli import COMMANDS


def main(argv: list[str] | None = None) -> int:
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: dynsim COMMAND [options]   (each command has --help)\n")
        for command, summary in COMMANDS.items():
            print(f"  {command:<12}{summary}")
        return 0
    if name == "--version":
        print(f"dynsim {dynsim.__version__}")
        return 0
    if name not in COMMANDS:
        print(f"dynsim: unknown command {name!r}; known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return import_module(f"dynsim.cli.{name}").main(rest)


def command(argv: list[str] | None = None) -> NoReturn:
    """`main` as a process of its own, quick to start and to leave."""
    gc.set_threshold(100_000)  # imports make many objects and no garbage
    try:
        status = main(argv)
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


if __name__ == "__main__":
    command()
