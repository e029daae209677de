"""The command ``dynsim``: lists the commands or runs one."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

from dynsim._values import unknown
from dynsim._version import __version__
from dynsim.cli import COMMANDS
from dynsim.cli.errors import exit_status

__all__ = ["command", "main"]


#: The end of the list of commands.
COMPLETION = """
To have the shell complete commands, options and names: pip install 'dynsim[completion]', then
  eval "$(register-python-argcomplete dynsim)"
"""


def main(argv: list[str] | None = None) -> int:
    """Exit status of the command that the first word names."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        return import_module(f"dynsim.cli.{name}").main(rest)
    return exit_status("dynsim", lambda: _about(name))


def _about(name: str) -> int:
    if name in ("-h", "--help"):
        print("usage: dynsim COMMAND [options]   (each command has --help)\n")
        for command, summary in COMMANDS.items():
            print(f"  {command:<14}{summary}")
        print(COMPLETION, end="")
    elif name == "--version":
        print(f"dynsim {__version__}")
    else:
        raise ValueError(unknown("command", name, COMMANDS))
    return 0


def command(*words: str) -> NoReturn:
    """`main` as a process of its own, with `words` before its arguments."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what the word under the cursor may be
        from dynsim.cli.completion import answer

        answer()
    sys.exit(main([*words, *sys.argv[1:]]))
