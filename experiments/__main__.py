"""``python -m experiments list | run NAME | draw | all | report | soundness``"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dynsim.cli.output import add_figure_options
from experiments import did_you_mean, experiments, extras
from experiments.record import carry_out, draw_again, read, sidecar_of, write_report

FIGURES = Path(__file__).parent.parent / "figures"


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 no claim fails, 1 some do, 2 bad input, 130 interrupted."""
    try:
        return _main(argv)
    except ModuleNotFoundError as error:
        print(f"experiments: {error.name} is missing; pip install -e '.[all]'", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="experiments", description=__doc__.strip("`"))
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every experiment, its paper's item, cost and extras")
    one = commands.add_parser("run", help="compute, draw and judge one experiment")
    one.add_argument("name")
    again = commands.add_parser("draw", help="draw figures again from their data, and judge them")
    again.add_argument(
        "names", nargs="*", metavar="NAME", help="experiments (default: all that have data)"
    )
    every = commands.add_parser("all", help="run every experiment that has no results yet")
    every.add_argument("names", nargs="*", metavar="NAME", help="some of them (default: all)")
    every.add_argument("--workers", type=int, help="processes (default: the number of cores)")
    every.add_argument("--again", action="store_true", help="run those that have results, too")
    for command in (one, every):
        command.add_argument(
            "--settings", default="default", choices=("smoke", "default", "paper"),
            help="seconds, minutes, or as published, which not all have (default: default)",
        )  # fmt: skip
        command.add_argument("--seed", type=int, default=0, help="(default: 0)")
    for command in (one, again, every):
        add_figure_options(command)
    gallery = commands.add_parser("report", help="write README.md, the gallery of all results")
    for command in (one, again, every, gallery):
        command.add_argument(
            "--out", type=Path, default=FIGURES, metavar="DIR",
            help="where results lie and go (default: figures)",
        )  # fmt: skip
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
    return parser


def _main(argv: list[str] | None) -> int:
    options = _parser().parse_args(argv)
    if options.command == "soundness":
        return _soundness(options)
    known = experiments()
    if options.command == "list":
        return _list(known)
    named = [options.name] if options.command == "run" else getattr(options, "names", [])
    problem = next((_unknown("name", name, known) for name in named if name not in known), None)
    ran = known.get(options.name) if options.command == "run" else None
    if ran is not None and options.settings not in ran.SETTINGS:
        problem = f"{options.name} has no settings as published; use --settings default"
    if not problem and getattr(options, "workers", None) is not None and options.workers < 1:
        problem = f"--workers is at least 1; got {options.workers}"
    if problem := problem or _problem_with(options.out):
        print(f"experiments: {problem}", file=sys.stderr)
        return 2
    if options.command == "report":
        from experiments.gallery import write

        print(f"wrote {write(known, options.out)}")
        return 0
    try:
        if options.command == "all":
            from experiments.everything import run_missing

            return run_missing(options, known)
        names = named or [n for n in known if (options.out / f"{n}.npz").exists()]
        verdicts = [v for name in names for v in _carry_out(name, known[name], options)]
    except FileNotFoundError as error:
        print(f"experiments: {error.filename} is not there; python -m experiments run makes it",
              file=sys.stderr)  # fmt: skip
        return 2
    except KeyboardInterrupt:
        print("experiments: interrupted; the experiment under way wrote no results",
              file=sys.stderr)  # fmt: skip
        return 130
    return 1 if any(verdict.failed for verdict in verdicts) else 0


def _list(known) -> int:
    for name, experiment in known.items():
        recorded = read(sidecar_of(FIGURES, name))
        cost = _cost(recorded) if recorded else "not run yet"
        needed = extras(experiment)
        words = f"; needs the extras {', '.join(needed)}" if needed else ""
        print(f"{name}\n    {experiment.PAPER}\n    {cost}{words}")
    return 0


def _cost(recorded: dict) -> str:
    words = f"took {recorded['runtime_s']:.0f} s"
    if "processor_s" in recorded:
        words += f", of a processor {recorded['processor_s']:.0f} s"
    return words


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


def _carry_out(name, experiment, options):
    look = {"formats": options.format, "width": options.width, "title": not options.no_title}
    if options.command == "draw":
        verdicts = draw_again(name, experiment, options.out, **look)
        written = options.format
    else:
        with _progress(name) as report:
            verdicts = carry_out(
                name, experiment, options.settings, options.seed, options.out, report, **look
            )
        written = (*options.format, "npz", "json")
    for verdict in verdicts:
        print(f"{name}: {verdict.outcome}: {verdict.statement}")
        for key, value in verdict.measured.items() if options.command == "run" else ():
            print(f"    {key}: {value}")
    for suffix in written:
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
