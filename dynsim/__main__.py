"""``python -m dynsim`` and the command ``dynsim``: lists the commands or runs one."""

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import NoReturn

import dynsim
from dynsim.cli import COMMANDS, WITH_ARTIST, artist
from dynsim.cli.process import carry_out


def main(argv: list[str] | None = None) -> int:
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: dynsim COMMAND [options]   (each command has --help)\n")
        for command, summary in COMMANDS.items():
            print(f"  {command:<14}{summary}")
        return 0
    if name == "--version":
        print(f"dynsim {dynsim.__version__}")
        return 0
    if name not in COMMANDS:
        print(f"dynsim: unknown command {name!r}; known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    draws = name in WITH_ARTIST and not {"--no-figure", "--help", "-h"} & set(rest)
    with artist.called_ahead() if draws else nullcontext():
        return import_module(f"dynsim.cli.{name}").main(rest)


def command() -> NoReturn:
    """`main` as a process of its own."""
    carry_out(main)


if __name__ == "__main__":
    command()
