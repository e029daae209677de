"""What all commands are made of: options, checks, work, and what is left of it.

A command's own file holds its options, its checks, its computation and its table; `Command` does
everything else, and does it alike for all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from dynsim._version import __version__
from dynsim.cli import output
from dynsim.cli.errors import exit_status
from dynsim.cli.parsing import Parser, require_packages

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from matplotlib.figure import Figure

    from dynsim.reports.animation import Animation
    from dynsim.reports.page import Page

__all__ = ["Command", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What a command computed, and what it says of it.

    data : JSON-ready; verdict and provenance are added where it has none
    verdict : one sentence
    table, notes : for people, before and after the verdict
    subject : what it is about, the name of a mask or model, for the names of the files
    name : of the files, instead of one made from the subject and the data
    draw : callable(dynsim.results.plots) -> Figure
    page : callable() -> dynsim.reports.page.Page, for --report
    animation : callable() -> dynsim.reports.animation.Animation, for --animate
    arrays : by name, for one file .npz
    files : paths that are written already
    status : the exit status
    """

    data: dict
    verdict: str
    table: str = ""
    notes: str = ""
    subject: str = ""
    name: str | None = None
    draw: Callable[[ModuleType], Figure] | None = None
    page: Callable[[], Page] | None = None
    animation: Callable[[], Animation] | None = None
    arrays: Mapping[str, np.ndarray] | None = None
    files: list[str] = field(default_factory=list)
    status: int = 0


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    name, description : the word after "dynsim", and what it does
    add_options : called with the parser
    prepare : callable(options, words) -> plan: every check, without any work or anything printed
    compute : callable(plan, options, progress) -> Outcome, with progress(share done, 0 to 1)
    announce : callable(plan) -> what is printed before the work, if anything
    examples, notes : the end of --help
    packages : callable(options) -> names of optional packages that the options need
    label : of the progress bar
    resume : what is said after Ctrl-C, with options in braces, where the work says nothing itself
    writes, draws, reports : whether it leaves files, a figure among them, and has --report
    """

    name: str
    description: str
    add_options: Callable[[argparse.ArgumentParser], None]
    prepare: Callable[[argparse.Namespace, list[str]], Any]
    compute: Callable[[Any, argparse.Namespace, Callable[[float], None]], Outcome]
    examples: str
    notes: str = ""
    announce: Callable[[Any], str] = lambda plan: ""
    packages: Callable[[argparse.Namespace], Iterable[str]] = lambda options: ()
    label: str = "computing"
    resume: str = "nothing was written; the same command begins anew"
    writes: bool = True
    draws: bool = True
    reports: bool = False

    def main(self, argv: list[str] | None = None) -> int:
        """Exit status: 0 done, 1 a check failed or tokens stopped being finite, 2 bad input, 130
        interrupted."""
        return exit_status(f"dynsim {self.name}", lambda: self._carry_out(argv))

    def parser(self) -> Parser:
        notes = f"{self.notes}\n" if self.notes else ""
        parser = Parser(
            prog=f"dynsim {self.name}",
            description=self.description,
            epilog=f"{notes}examples:\n{self.examples}",
        )
        self.add_all_options(parser)
        return parser

    def add_all_options(self, parser: argparse.ArgumentParser) -> None:
        """The command's own options, then those of its output."""
        self.add_options(parser)
        output.add_options(parser, self.writes, self.draws, self.reports)

    def _carry_out(self, argv: list[str] | None) -> int:
        parser = self.parser()
        words = parser.words(argv)
        options = parser.parse_args(words)
        require_packages(self.packages(options))
        if self.reports:
            require_packages(("plotly",) * (options.report is not None))
        if self.writes:
            output.check_name(options.name)
        plan = self.prepare(options, words)
        if self.writes:
            output.check_folder(options)
        if self.reports:
            output.check_report(options)
        output.check_animation(options)
        if not options.json and (announced := self.announce(plan)):
            print(announced, end="\n\n", flush=True)
        try:
            with output.progress_bar(self.label) as progress:
                outcome = self.compute(plan, options, progress)
        except KeyboardInterrupt as stop:
            own = stop.args[0] if type(stop) is KeyboardInterrupt and stop.args else ""
            raise KeyboardInterrupt(own or self.resume.format(**vars(options))) from None
        data = outcome.data | {
            "verdict": outcome.data.get("verdict", {"sentence": outcome.verdict}),
            "provenance": outcome.data.get("provenance", self._provenance(options)),
        }
        files = output.write(self.name, outcome, data, options) if self.writes else []
        if self.reports and options.report is not None and outcome.page is not None:
            files.append(str(outcome.page().save(options.report)))
        if outcome.animation is not None:
            files.append(str(outcome.animation().save(options.animate)))
        if options.json:
            print(json.dumps(data | {"files": files}, allow_nan=False))
        else:
            print(output.report(outcome, files))
        return outcome.status

    def _provenance(self, options: argparse.Namespace) -> dict:
        """How to compute it again."""
        versions = {"dynsim": __version__, "python": platform.python_version()}
        return {
            "command": self.name,
            "seed": getattr(options, "seed", None),
            "options": {k: v for k, v in vars(options).items() if k not in output.OPTIONS},
            "versions": versions | {name: version(name) for name in ("numpy", "numba")},
        }
