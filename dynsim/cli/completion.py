"""What the shell may complete a word to: commands, options and the names that they take."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from importlib import import_module

from dynsim.cli import COMMANDS

__all__ = ["answer", "completes"]


def completes(option: argparse.Action, names: Iterable[str]) -> None:
    """Have argcomplete offer these names as the value of an option."""
    option.completer = lambda **context: list(names)  # type: ignore[attr-defined]


def answer() -> None:
    """Tell the shell that asks, and end the process; nothing where argcomplete is missing."""
    try:
        import argcomplete
    except ImportError:
        return
    parser = argparse.ArgumentParser(prog="dynsim", allow_abbrev=False)
    commands = parser.add_subparsers()
    for name, summary in COMMANDS.items():
        command = import_module(f"dynsim.cli.{name}").COMMAND
        command.add_all_options(commands.add_parser(name, help=summary))
    argcomplete.autocomplete(parser)
