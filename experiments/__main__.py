"""``python -m experiments list | run NAME | all | soundness``"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from experiments import did_you_mean, experiments
from experiments.record import carry_out, write_report

FIGURES = Path(__file__).parent.parent / "figures"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 no claim fails, 1 some do, 2 bad input, 130 interrupted."""
    try:
        return _main(argv)
    except ModuleNotFoundError as error:
        print(f"experiments: {error.name} is missing; pip install -e '.[all]'", file=sys.stderr)
        return 2


def _main(argv: list[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="experiments", description=__doc__.strip("`"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every experiment and the paper's item")
    one = commands.add_parser("run", help="compute, draw and judge one experiment")
    one.add_argument("name")
    every = commands.add_parser("all", help="run every experiment")
    for command in (one, every):
        command.add_argument(
            "--settings", default="default", choices=("smoke", "default", "paper"),
            help="seconds, minutes, or as published, which not all have (default: default)",
        )  # fmt: skip
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--out", type=Path, default=FIGURES, metavar="DIR")
    storm = commands.add_parser(
        "soundness", help="try every proof, bound and exact claim against independent referees"
    )
    storm.add_argument("names", nargs="*", metavar="STORM", help="some of them (default: all)")
    storm.add_argument(
        "--share", type=float, default=0.5, metavar="F",
        help="share of the systems to try, above 0; all of them, 1, take twice the ten minutes of "
        "the default on two cores (default: 0.5)",
    )  # fmt: skip
    storm.add_argument("--seed", type=int, default=0, help="(default: 0)")
    storm.add_argument("--workers", type=int, help="processes (default: the number of cores)")
    storm.add_argument(
        "--out", type=Path, default=FIGURES, metavar="DIR",
        help="where soundness.json goes (default: figures)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if options.command == "soundness":
        return _soundness(options)
    known = experiments()
    if options.command == "list":
        for name, experiment in known.items():
            print(f"{name}\n    {experiment.PAPER}")
        return 0
    if options.command == "run" and options.name not in known:
        print(f"experiments: {_unknown('name', options.name, known)}", file=sys.stderr)
        return 2
    if options.command == "run" and options.settings not in known[options.name].SETTINGS:
        print(f"experiments: {options.name} has no settings as published; use --settings default",
              file=sys.stderr)  # fmt: skip
        return 2
    if problem := _problem_with(options.out):
        print(f"experiments: {problem}", file=sys.stderr)
        return 2
    names = [options.name] if options.command == "run" else list(known)
    names = [name for name in names if options.settings in known[name].SETTINGS]
    try:
        verdicts = [v for name in names for v in _run(name, known[name], options)]
    except KeyboardInterrupt:
        print("experiments: interrupted; the experiment under way wrote no results",
              file=sys.stderr)  # fmt: skip
        return 130
    return 1 if any(verdict.failed for verdict in verdicts) else 0


def _unknown(kind: str, name: str, known) -> str:
    return f"unknown {kind} {name!r}; {did_you_mean(name, known)}known are {', '.join(known)}"


def _problem_with(folder: Path) -> str | None:
    """What keeps files from being written there; makes the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"--out {folder}: cannot write there ({error.strerror}); name another folder"


def _run(name, experiment, options):
    with _progress(name) as report:
        verdicts = carry_out(name, experiment, options.settings, options.seed, options.out, report)
    for verdict in verdicts:
        print(f"{name}: {verdict.outcome}: {verdict.statement}")
        for key, value in verdict.measured.items():
            print(f"    {key}: {value}")
    for suffix in ("png", "npz", "json"):
        print(f"    wrote {options.out / name}.{suffix}")
    return verdicts


def _soundness(options) -> int:
    """Exit status: 0 nothing violated, 1 something, 2 bad input, 130 interrupted."""
    from experiments.soundness import storm

    known = storm.storms()
    workers = options.workers if options.workers is not None else os.cpu_count() or 1
    problem = None
    if unknown := set(options.names) - set(known):
        problem = _unknown("storm", min(unknown), known)
    elif not (np.isfinite(options.share) and options.share > 0):
        problem = f"--share is a number above 0; got {options.share}"
    elif workers < 1 or options.seed < 0:
        problem = "--workers is at least 1, --seed at least 0"
    else:
        problem = _problem_with(options.out)
    if problem:
        print(f"experiments: {problem}", file=sys.stderr)
        return 2
    reports = []
    try:
        for name in options.names or known:
            systems = max(1, round(options.share * known[name].SYSTEMS))
            with _progress(name) as progress:
                reports.append(storm.run(name, systems, options.seed, workers, progress))
            print(reports[-1], flush=True)
    except KeyboardInterrupt:
        print("experiments: interrupted; the storms that ended are above", file=sys.stderr)
        return 130
    write_report(reports, options.out)
    print(f"wrote {options.out / 'soundness.json'}")
    return 1 if any(report.violations for report in reports) else 0


@contextmanager
def _progress(name: str):
    """A bar on a terminal only; yields callable(share done, 0 to 1)."""
    if not sys.stderr.isatty():
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda share: bar.update(task, completed=share)


if __name__ == "__main__":
    sys.exit(main())
