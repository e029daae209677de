"""What a command leaves: files, a progress bar, a report for people or one JSON object."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynsim._files import written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

    from dynsim.cli.command import Outcome

__all__ = [
    "OPTIONS",
    "add_animation",
    "add_figure_options",
    "add_options",
    "check_animation",
    "check_folder",
    "check_name",
    "check_report",
    "check_written",
    "file_name",
    "formats",
    "progress_bar",
    "report",
    "stem",
    "write",
]

FIGURE_FORMATS = ("png", "svg", "pdf")
#: Seconds after which work is taken to tell how long it will last, and from which on that is said.
_TELLS, _LONG = 10.0, 3600.0
#: The options that are added here, which do not change what is computed.
OPTIONS = (
    "out", "name", "format", "width", "no_title", "no_figure", "report", "animate", "json",
)  # fmt: skip


def add_options(
    parser: argparse.ArgumentParser, writes: bool = True, draws: bool = True, reports: bool = False
) -> None:
    """--json; --out and --name of a command that writes; --format and --no-figure of one that
    draws; --report of one that has a page."""
    group = parser.add_argument_group("output")
    if writes:
        group.add_argument("--out", default="results", metavar="DIR", help="folder of the files")
        group.add_argument(
            "--name", metavar="NAME", help="name of the files (default: made from the options)"
        )
    if writes and draws:
        add_figure_options(group)
        group.add_argument("--no-figure", action="store_true", help="draw nothing")
    if reports:
        group.add_argument(
            "--report", metavar="FILE.html",
            help="one page to open in a browser, without network: a slider over layers, curves, "
            "singular values, tokens, attention (dynsim[report]) (default: none)",
        )  # fmt: skip
    group.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, nothing else"
    )


def add_figure_options(group: argparse._ActionsContainer) -> None:
    """--format, --width and --no-title."""
    group.add_argument(
        "--format", default=("png",), type=formats, metavar="F[,F]",
        help=f"formats of the figure: {', '.join(FIGURE_FORMATS)} (default: png)",
    )  # fmt: skip
    group.add_argument(
        "--width", default="page", choices=("column", "page"),
        help="width of the figure: 3.5 or 7.2 inches (default: page)",
    )  # fmt: skip
    group.add_argument("--no-title", action="store_true", help="draw no title above the figure")


def formats(words: str) -> tuple[str, ...]:
    """Formats of figures, by names with commas between them."""
    named = tuple(dict.fromkeys(words.split(",")))
    if unknown := [name for name in named if name not in FIGURE_FORMATS]:
        raise argparse.ArgumentTypeError(
            f"unknown format {unknown[0]!r}; known are {', '.join(FIGURE_FORMATS)}"
        )
    return named


def file_name(*words: str) -> str:
    """The words joined, each cut to 60 characters, fit for a file name."""
    return re.sub(r"[^A-Za-z0-9.=+_-]+", "-", "_".join(word[:60] for word in words))


def check_name(name: str | None) -> None:
    if name and (name != file_name(name) or not name.strip(".")):
        raise ValueError(f"--name is up to 60 letters, digits and .=+_-; got {name!r}")


def check_folder(options: argparse.Namespace) -> None:
    """Raise ValueError unless files can be written to --out; makes the folder."""
    folder = Path(options.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--out {folder}: cannot write there ({error.strerror}); choose another folder"
        ) from None
    for suffix in ("nc", "json", "npz", *FIGURE_FORMATS) if options.name else ():
        if (path := folder / f"{options.name}.{suffix}").is_dir():
            raise ValueError(f"{path} is a folder; choose another --name or --out")


def check_report(options: argparse.Namespace) -> None:
    """Raise ValueError unless --report, if it is given, can be written; makes its folder."""
    if options.report is not None:
        from dynsim.reports.page import check_path

        check_written("--report", check_path(options.report))


def add_animation(group: argparse._ArgumentGroup, what: str) -> None:
    """--animate, of a command that has moving pictures."""
    group.add_argument(
        "--animate", metavar="FILE", help=f"{what}: a .gif, or with ffmpeg an .mp4 (default: none)"
    )


def check_animation(options: argparse.Namespace) -> None:
    """Raise ValueError unless --animate, if it is given, can be written; makes its folder."""
    if getattr(options, "animate", None) is not None:
        from dynsim.reports.animation import check_path

        check_written("--animate", check_path(options.animate))


def check_written(option: str, path: Path) -> None:
    """Raise ValueError unless a file can be written there; makes its folder."""
    if path.is_dir():
        raise ValueError(f"{option} {path} is a folder; give the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} {path}: cannot write there ({error.strerror}); choose another folder"
        ) from None


def stem(command: str, outcome: Outcome, options: argparse.Namespace) -> Path:
    """Where the files of a command go, less the suffix: named after its subject and content."""
    name = options.name or outcome.name
    if name is None:
        digest = hashlib.sha256(json.dumps(outcome.data).encode()).hexdigest()[:8]
        name = file_name(command, outcome.subject.split("(")[0] or "graph", digest)
    return Path(options.out) / name


def write(command: str, outcome: Outcome, data: dict, options: argparse.Namespace) -> list[str]:
    """The JSON object, the arrays and the figure, unless refused; the paths of all files."""
    path = stem(command, outcome, options)
    files = [*outcome.files, f"{path}.json"]
    with written_whole(files[-1]) as temporary:
        temporary.write_text(json.dumps(data, allow_nan=False) + "\n")
    if outcome.arrays is not None:
        files.append(f"{path}.npz")
        with written_whole(files[-1]) as temporary:
            np.savez_compressed(temporary, **outcome.arrays)  # type: ignore[arg-type]
    if outcome.draw is not None and not options.no_figure:
        from dynsim.results import plots, style

        figure = style.fit(outcome.draw(plots), options.width, not options.no_title)
        for suffix in options.format:
            files.append(f"{path}.{suffix}")
            plots.save(figure, files[-1])
    return files


def report(outcome: Outcome, files: list[str]) -> str:
    """Table, verdict, notes and paths, for people."""
    parts = [outcome.table, f"verdict   {outcome.verdict}", outcome.notes]
    parts.append("\n".join(f"wrote     {os.path.relpath(path)}" for path in files))
    return "\n\n".join(filter(None, parts))


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[..., None]]:
    """A bar with the time left, on a terminal and for work of more than a second; elsewhere one
    line, where the work will last for hours.

    Yields callable(share done, 0 to 1; another label).
    """
    begun = time.monotonic()
    if sys.stderr is None or not sys.stderr.isatty():
        yield _Warner()
        return
    with ExitStack() as shown:
        bar = task = None

        def reached(share: float, now: str | None = None) -> None:
            nonlocal bar, task
            if time.monotonic() - begun < 1.0:
                return
            if bar is None:
                bar = shown.enter_context(_bar())
                task = bar.add_task(label, total=1.0)
            bar.update(task, completed=share, description=now or label)

        yield reached


class _Warner:
    """Says once, in one line on standard error, that the work will last for hours.

    By the pace since it was first called: what begins the work, as processes do, is not the work.
    """

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None
        self._told = False

    def __call__(self, share: float, label: str | None = None) -> None:
        now = time.monotonic()
        since, known = self._first = self._first or (now, share)
        if self._told or sys.stderr is None or now - since < _TELLS or share <= known:
            return
        self._told = True
        if (left := (now - since) * (1.0 - share) / (share - known)) > _LONG:
            print(f"this takes about {left / 3600:.3g} hours more", file=sys.stderr, flush=True)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
