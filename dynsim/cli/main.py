"""The command ``dynsim``: lists the commands or runs one."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import NoReturn

from dynsim._version import __version__
from dynsim.cli import COMMANDS, WITH_ARTIST, artist
from dynsim.cli.process import carry_out

__all__ = ["command", "main"]


def main(argv: list[str] | None = None) -> int:
    """Exit status of the command that the first word names."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: dynsim COMMAND [options]   (each command has --help)\n")
        for command, summary in COMMANDS.items():
            print(f"  {command:<14}{summary}")
        return 0
    if name == "--version":
        print(f"dynsim {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"dynsim: unknown command {name!r}; known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    draws = name in WITH_ARTIST and not {"--no-figure", "--help", "-h"} & set(rest)
    with artist.called_ahead() if draws else nullcontext():
        return import_module(f"dynsim.cli.{name}").main(rest)


def command(*words: str) -> NoReturn:
    """`main` as a process of its own, with `words` before its arguments."""
    carry_out(lambda: main([*words, *sys.argv[1:]]))
