"""What a command leaves: files, a progress bar, a report for people or one JSON object."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dynsim._files import written_whole
from dynsim.cli.artist import Artist
from dynsim.cli.jobs import Job, file_name

__all__ = [
    "EXPORTS",
    "FIGURE_FORMATS",
    "add_output_options",
    "check",
    "check_folder",
    "drawing",
    "print_files",
    "print_input",
    "print_json",
    "print_result",
    "progress",
    "share_done",
    "stem",
    "write",
    "write_found",
    "write_summary",
]

FIGURE_FORMATS = ("png", "svg", "pdf")
#: Further files that may be asked for: how each is written, from a trajectory and a path's stem.
EXPORTS = {
    "csv": lambda trajectory, stem: trajectory.to_csv(f"{stem}.csv"),
    "json": lambda trajectory, stem: trajectory.to_json(f"{stem}.samples.json"),
    "zarr": lambda trajectory, stem: trajectory.save(f"{stem}.zarr"),
}


def check(options, jobs: list[Job]) -> list[str]:
    """Make sure that the output can be written; the exports that are asked for."""
    exports = [word.strip() for word in options.export.split(",") if word.strip()]
    for export in exports:
        if export not in EXPORTS:
            raise ValueError(f"unknown export {export!r}; known are {', '.join(EXPORTS)}")
    if options.name and (options.name != file_name(options.name) or not options.name.strip(".")):
        raise ValueError(f"--name is up to 60 letters, digits and .=+_-; got {options.name!r}")
    folder = Path(options.out)
    check_folder(folder)
    for job in jobs:
        if (folder / f"{job.name}.nc").is_dir():
            raise ValueError(f"{folder / job.name}.nc is a folder; choose another --name or --out")
    return exports


def check_folder(folder: Path) -> None:
    """Raise ValueError unless files can be written there; makes the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--out {folder}: cannot write there ({error.strerror}); choose another folder"
        ) from None


def add_output_options(group) -> None:
    """--out, --name, --format, --no-figure and --json, for a group of a parser."""
    group.add_argument("--out", default="results", metavar="DIR", help="where files go (results)")
    group.add_argument("--name", metavar="NAME", help="of the files (made from the options)")
    group.add_argument(
        "--format", default="png", choices=FIGURE_FORMATS, help="of the figure (png)"
    )
    group.add_argument("--no-figure", action="store_true", help="draw nothing")
    group.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, nothing else"
    )


def stem(command: str, subject: str, found: dict, options) -> Path:
    """Where the files of a command go, less the suffix: named after its subject, the name of a
    mask or model, and after the content."""
    digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:8]
    subject = subject.split("(")[0] or "graph"
    return Path(options.out) / (options.name or file_name(command, subject, digest))


def write_found(stem: Path, found: dict, options, draw=None) -> list[str]:
    """`found` as one JSON object and, unless refused, the figure draw(dynsim.plots); the paths."""
    files = [f"{stem}.json"]
    with written_whole(files[0]) as temporary:
        temporary.write_text(json.dumps(found, allow_nan=False) + "\n")
    if draw is not None and not options.no_figure:
        from dynsim.results import plots

        files.append(f"{stem}.{options.format}")
        plots.save(draw(plots), files[-1])
    return files


def write(job: Job, trajectory, options, exports: list[str]) -> list[str]:
    """Save a trajectory and its exports; the paths."""
    stem = Path(options.out) / job.name
    paths = [trajectory.save(f"{stem}.nc")]
    paths += [EXPORTS[name](trajectory, stem) for name in exports]
    return [str(path) for path in paths]


def write_summary(jobs: list[Job], done: dict, options) -> list[str]:
    """The JSON object of the run or comparison; its path in a list."""
    path = f"{_stem(jobs, options)}.json"
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(_summary(done, options), allow_nan=False) + "\n")
    return [path]


def _stem(jobs: list[Job], options) -> Path:
    """Where summary and figure go, less the suffix."""
    name = jobs[0].name
    if options.compare:
        digest = hashlib.sha256("".join(job.name for job in jobs).encode()).hexdigest()[:8]
        name = options.name or file_name("compare", options.compare, digest)
    return Path(options.out) / name


@contextmanager
def drawing(jobs: list[Job], options):
    """Yields a function of what is done that begins the figure and names its path in a list.

    On leaving the figure is finished. Where there are two cores it costs next to no time.
    """
    if options.no_figure:
        yield lambda done: []
        return
    with Artist() as artist:

        def begin(done: dict) -> list[str]:
            path = f"{_stem(jobs, options)}.{options.format}"
            runs = {label: outcome.trajectory for label, outcome in done.items()}
            theory = next(iter(done.values())).theory if len(done) == 1 else None
            curves = {} if theory is None else theory.curves()
            artist.begin(runs, _title(jobs, done, options), curves, path)
            return [path]

        yield begin
        artist.finish()


def _title(jobs: list[Job], done: dict, options) -> str:
    if options.compare:
        return f"comparing {options.compare.replace(',', ', ')}"
    facts, _, verdict, *_ = done[jobs[0].label]
    return f"{facts.name}, {type(jobs[0].dynamics.norm).__name__}: {verdict.sentence}"


def _summary(done: dict, options) -> dict:
    from dynsim.cli.report import summary

    runs = {label: summary(outcome) for label, outcome in done.items()}
    return {"runs": runs} if options.compare else next(iter(runs.values()))


def print_json(done: dict, files: list[str], options) -> None:
    """One object on standard output, and nothing else."""
    print(json.dumps({**_summary(done, options), "files": files}, allow_nan=False))


def print_input(job: Job, facts, compared: bool) -> None:
    """Mask facts and dynamics of a run, or those of the first run of a comparison."""
    from dynsim.cli import report

    if compared:
        print(f"first run {job.label}")
    else:
        for name, value in report.describe_mask(facts):
            print(f"{name:<10}{value}")
            if name == "mask":
                print(f"{'attends':<10}{report.describe_attended(job.dynamics)}")
    print(f"dynamics  {report.describe_dynamics(job.dynamics)}")
    print(f"input     {_input_words(job)}\n", flush=True)


def print_result(done: dict) -> None:
    """A short table and the verdict; of a comparison, one row and one sentence a run."""
    from dynsim.cli import report

    if len(done) == 1:
        (outcome,) = done.values()
        print(report.measure_table(outcome.trajectory))
        print(f"\nverdict   {outcome.verdict.sentence}\n")
        if outcome.theory is not None:
            print(f"{outcome.theory}\n")
        return
    print(report.comparison_table(done), end="\n\n")
    for label, outcome in done.items():
        print(f"{label}: {outcome.verdict.sentence}")
    print()


def print_files(files: list[str]) -> None:
    """The paths that were written."""
    for path in files:
        print(f"wrote     {os.path.relpath(path)}")


def _input_words(job: Job) -> str:
    shape = job.x0.shape if job.x0.ndim == 3 else (1, *job.x0.shape)
    source = job.options.x0 or job.options.text or f"{job.options.start}, seed {job.options.seed}"
    return f"{shape[0]} samples of {shape[1]} tokens of dimension {shape[2]} ({source})"


@contextmanager
def progress():
    """A bar with the time left, on a terminal and for work of more than a second.

    Yields job -> callable(depth reached).
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda job: lambda depth: None
        return
    begun = time.monotonic()
    with ExitStack() as shown:
        bar = None

        def report(job: Job):
            task = None

            def reached(depth: int) -> None:
                nonlocal bar, task
                if time.monotonic() - begun < 1.0:
                    return
                bar = bar or shown.enter_context(_bar())
                if task is None:
                    task = bar.add_task(f"{job.label or 'simulating'}, layers", total=job.depth)
                bar.update(task, completed=depth)

            return reached

        yield report


@contextmanager
def share_done(label: str):
    """A bar on a terminal only; yields callable(share done, 0 to 1)."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda share: None
        return
    with _bar() as bar:
        task = bar.add_task(label, total=100)
        yield lambda share: bar.update(task, completed=round(100 * share))


def _bar():
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
