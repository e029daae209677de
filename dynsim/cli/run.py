"""``dynsim run``: simulate, draw the rank trajectory and judge it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from dynsim.cli import options as shared
from dynsim.simulation import Overflow, Record, Stopped, simulate

__all__ = ["main"]

EPILOG = """examples:
  python -m dynsim.run --mask local --ln on --depth 200
      sliding window +-1 with WU's LayerNorm, fresh random weights
  python -m dynsim.run --compare mask=global,causal,local,causal-local --ln on
      four masks in one figure and table (the shape of WU's Fig. 2)
  python -m dynsim.run --mask causal --scores zero --value jordan:6 --tokens 5 --dim 5 --ln on
      WU's Theorem 3: layers that keep every rank
  python -m dynsim.run --text README.md --weights minilm:0 --ln on --skip 1
      real text through one real layer's matrices (needs dynsim[models])
  python -m dynsim.run --resume results/NAME.nc --depth 1000
      go on where a saved run ended, or was interrupted
"""
FIGURE_FORMATS = ("png", "svg", "pdf")
EXPORTS = ("csv", "json", "zarr")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dynsim run",
        description="Iterate self-attention, draw the rank trajectory and say if it collapses.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_mask_options(parser)
    shared.add_dynamics_options(parser)
    shared.add_token_options(parser)
    group = parser.add_argument_group("run")
    group.add_argument("--depth", type=int, metavar="T", help="number of layers (128)")
    group.add_argument("--seed", type=int, default=0, metavar="K", help="of all random draws (0)")
    group.add_argument(
        "--compare",
        metavar="OPTION=A,B,...",
        help="overlay runs that differ in one option: mask=global,local,causal, ln=on,off, ...",
    )
    group.add_argument(
        "--resume",
        metavar="FILE",
        help="go on from a saved run; only --depth and output options count",
    )
    group.add_argument(
        "--measures", metavar="A,B,...", help="costly measures to record, or 'all' (a selection)"
    )
    group.add_argument(
        "--stride", default="auto", help="layers between costly measures (auto: about a second)"
    )
    group.add_argument(
        "--states", type=int, default=0, metavar="K", help="keep the tokens at every K-th layer"
    )
    group.add_argument("--engine", default="numba", help="numba or reference (numba)")
    group.add_argument("--threads", type=int, metavar="P", help="over samples (all cores)")
    group = parser.add_argument_group("output")
    group.add_argument("--out", default="results", metavar="DIR", help="where files go (results)")
    group.add_argument(
        "--format", default="png", choices=FIGURE_FORMATS, help="of the figure (png)"
    )
    group.add_argument("--no-figure", action="store_true", help="draw nothing")
    group.add_argument(
        "--export", default="", metavar="A,B", help=f"further files: {', '.join(EXPORTS)}"
    )
    group.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, nothing else"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 tokens stopped being finite, 2 bad input, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    command = parser()
    options = command.parse_args(argv)
    with _terminate_as_interrupt():
        try:
            runs = _prepare(command, options, argv)
            return _carry_out(runs, options)
        except (ValueError, ImportError) as error:
            print(f"{command.prog}: error: {_one_line(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{command.prog}: interrupted before anything was computed", file=sys.stderr)
            return 130


@contextmanager
def _terminate_as_interrupt():
    """A polite kill (SIGTERM) ends like Ctrl-C: what was computed is saved."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


# --- before: every check that can be made without work --------------------------------------------


class _Job:
    """One run: what its options stand for, and where it goes."""

    def __init__(self, options, label: str):
        self.options, self.label = options, label
        self.earlier = _load_earlier(options)
        if self.earlier is not None:
            options = self.options = _options_of(self.earlier, options)
        self.depth = 128 if options.depth is None else options.depth
        if self.depth < 1:
            raise ValueError(f"--depth is a positive number of layers; got {self.depth}")
        self.x0 = shared.make_tokens(options)
        self.dynamics = shared.make_dynamics(options, shared.make_mask(options, self.x0.shape[-2]))
        self.dynamics.check_tokens(self.x0)
        if self.earlier is not None and self.earlier.depth >= self.depth:
            raise ValueError(
                f"{options.resume} already has depth {self.earlier.depth}; ask for a larger --depth"
            )
        self.record = _record(options)
        self.name = _name(options, self.depth)

    def simulate(self, progress):
        from dynsim.trajectory import joined

        start = 0 if self.earlier is None else self.earlier.depth
        x0 = self.x0 if self.earlier is None else self.earlier.final

        def finish(trajectory):
            if self.earlier is not None:
                trajectory = joined(self.earlier, trajectory)
            return trajectory.with_provenance(seed=self.options.seed, options=_kept(self.options))

        try:
            return finish(
                simulate(
                    self.dynamics,
                    x0,
                    self.depth - start,
                    record=self.record,
                    engine=self.options.engine,
                    threads=self.options.threads,
                    start=start,
                    progress=progress,
                )
            )
        except (Overflow, Stopped) as ended:
            ended.trajectory = finish(ended.trajectory)
            raise


def _prepare(command, options, argv) -> list[_Job]:
    from dynsim.engines import ENGINES

    if options.engine not in ENGINES:
        raise ValueError(f"unknown engine {options.engine!r}; known are {', '.join(ENGINES)}")
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"--threads is at least 1; got {options.threads}")
    for export in _exports(options):
        if export not in EXPORTS:
            raise ValueError(f"unknown export {export!r}; known are {', '.join(EXPORTS)}")
    _check_writable(Path(options.out))
    if not options.compare:
        return [_Job(options, label="")]
    key, equals, values = options.compare.partition("=")
    key = key.strip().removeprefix("--")
    comparable = {"mask", "window", "graph", "ln", "norm", "placement", "skip", "value", "scores"}
    comparable |= {"weights", "d-qk", "heads", "mlp", "tokens", "dim", "start", "seed", "x0"}
    if not equals or key not in comparable:
        raise ValueError(
            f"--compare wants OPTION=A,B,... with one of {', '.join(sorted(comparable))}; "
            f"got {options.compare!r}"
        )
    if options.resume:
        raise ValueError("--compare and --resume do not go together; resume one run at a time")
    jobs = []
    for value in dict.fromkeys(v.strip() for v in values.split(",") if v.strip()):
        varied = command.parse_args([*_without(argv, f"--{key}"), f"--{key}={value}"])
        jobs.append(_Job(varied, label=f"{key} {value}"))
    if not jobs:
        raise ValueError(f"--compare {key}= needs at least one value")
    return jobs


def _without(argv: list[str], flag: str) -> list[str]:
    """The arguments less `flag` and its value, so that `--ln on --compare norm=...` can vary."""
    rivals = {flag} | ({"--ln", "--norm"} if flag in ("--ln", "--norm") else set())
    kept, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word in rivals:
            skip = True
        elif word.split("=")[0] not in rivals:
            kept.append(word)
    return kept


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--out {folder}: cannot write there ({error.strerror}); choose another folder"
        ) from None


def _record(options) -> Record:
    from dynsim.measures import MEASURES

    names = None
    if options.measures is not None:
        words = [word.strip() for word in options.measures.split(",") if word.strip()]
        names = tuple(MEASURES) if words == ["all"] else tuple(words)
    try:
        stride = "auto" if options.stride == "auto" else int(options.stride)
    except ValueError:
        raise ValueError(f"--stride is 'auto' or a number; got {options.stride!r}") from None
    return Record(measures=names, stride=stride, states=options.states)


def _exports(options) -> list[str]:
    return [word.strip() for word in options.export.split(",") if word.strip()]


#: Options that do not change what is computed.
_OUTPUT = {"out", "format", "no_figure", "export", "json", "threads", "compare", "resume"}


def _kept(options) -> dict:
    """The options that say what was computed; a run can be made again, or resumed, from them."""
    return {key: value for key, value in vars(options).items() if key not in _OUTPUT}


def _name(options, depth: int) -> str:
    """A file name that tells the run apart: its main options, and a digest of all of them."""
    kept = _kept(options) | {"depth": depth}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
    mask = Path(options.graph).stem if options.graph else options.mask
    norm = options.norm or ("ln" if options.ln == "on" else "no-ln")
    weights = options.weights or Path(options.value).stem
    words = (mask, norm, weights, f"T{depth}", digest)
    return re.sub(r"[^A-Za-z0-9.=+_-]+", "-", "_".join(words))


def _load_earlier(options):
    from dynsim.trajectory import load

    return load(options.resume) if options.resume else None


def _options_of(earlier, options):
    """The options of the saved run, with the depth and the output of this one."""
    saved = earlier.provenance.get("options")
    if saved is None:
        raise ValueError(
            f"{options.resume} was not made by this command, so its options are not known; use "
            f"dynsim.simulate(dynamics, trajectory.final, ..., start=trajectory.depth)"
        )
    merged = argparse.Namespace(**vars(options) | saved)
    merged.depth = options.depth if options.depth is not None else saved["depth"]
    return merged


# --- the work, and what it leaves ----------------------------------------------------------------


def _carry_out(jobs: list[_Job], options) -> int:
    from dynsim.connectivity import facts
    from dynsim.verdicts import verdict

    done, files, status = {}, [], 0
    with _progress(jobs) as report:
        for job in jobs:
            try:
                trajectory = job.simulate(report(job))
            except (Overflow, Stopped) as ended:
                trajectory, status = ended.trajectory, 1 if isinstance(ended, Overflow) else 130
                print(f"dynsim run: {_one_line(ended)}", file=sys.stderr)
            files.append(str(trajectory.save(Path(options.out) / f"{job.name}.nc")))
            files += _export(job, trajectory, options)
            if trajectory.depth:
                found = facts(job.dynamics.mask)
                done[job.label] = (found, trajectory, verdict(trajectory))
            if status:
                break
    if done and not options.no_figure:
        files.append(_draw(jobs, done, options))
    if options.json:
        _print_json(done, files, compared=bool(options.compare))
    else:
        _print_report(jobs, done, files)
    return status


def _export(job: _Job, trajectory, options) -> list[str]:
    stem = Path(options.out) / job.name
    writers = {
        "csv": lambda: trajectory.to_csv(f"{stem}.csv"),
        "json": lambda: trajectory.to_json(f"{stem}.json"),
        "zarr": lambda: trajectory.save(f"{stem}.zarr"),
    }
    return [str(writers[name]()) for name in _exports(options)]


def _draw(jobs, done, options) -> str:
    from dynsim import plots

    runs = {label: trajectory for label, (_, trajectory, _) in done.items()}
    name = jobs[0].name
    if options.compare:
        digest = hashlib.sha256("".join(job.name for job in jobs).encode()).hexdigest()[:8]
        name = re.sub(r"[^A-Za-z0-9.=+_-]+", "-", f"compare_{options.compare}_{digest}")
        title = f"comparing {options.compare.replace(',', ', ')}"
    else:
        found, _, judged = done[jobs[0].label]
        norm = type(jobs[0].dynamics.norm).__name__
        title = f"{found.name}, {norm}: {judged.sentence}"
    path = Path(options.out) / f"{name}.{options.format}"
    plots.save(plots.rank_trajectory(runs, title), path)
    return str(path)


@contextmanager
def _progress(jobs):
    """A bar with the time left, on a terminal only; yields job -> callable(layers done)."""
    if not sys.stderr.isatty():
        yield lambda job: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("layers"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def report(job):
            begun = 0 if job.earlier is None else job.earlier.depth
            task = bar.add_task(job.label or "simulating", total=job.depth, completed=begun)
            return lambda layers: bar.update(task, completed=begun + layers)

        yield report


def _print_json(done, files, compared: bool) -> None:
    from dynsim.report import summary

    runs = {label: summary(*found) for label, found in done.items()}
    body = {"runs": runs} if compared else next(iter(runs.values()), {})
    print(json.dumps({**body, "files": files}))


def _print_report(jobs, done, files) -> None:
    from rich.console import Console

    from dynsim import report

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = 120
    if len(done) > 1:
        job = jobs[0]
        console.print(f"input     {_input_words(job)}; first run:", markup=False)
        console.print(f"dynamics  {report.describe_dynamics(job.dynamics)}\n", markup=False)
        console.print(report.comparison_table(done))
        console.print()
        for label, (_, _, judged) in done.items():
            console.print(f"{label}: {judged.sentence}", markup=False)
    for job in jobs[:1] if len(done) == 1 else []:
        found, trajectory, judged = done[job.label]
        for name, value in report.describe_mask(found):
            console.print(f"{name:<10}{value}", markup=False)
        console.print(f"dynamics  {report.describe_dynamics(job.dynamics)}", markup=False)
        console.print(f"input     {_input_words(job)}\n", markup=False)
        console.print(report.measure_table(trajectory))
        console.print(f"\nverdict   {judged.sentence}", markup=False)
    console.print()
    for path in files:
        console.print(f"wrote     {os.path.relpath(path)}", markup=False)


def _input_words(job) -> str:
    shape = job.x0.shape if job.x0.ndim == 3 else (1, *job.x0.shape)
    source = job.options.x0 or job.options.text or f"{job.options.start}, seed {job.options.seed}"
    return f"{shape[0]} samples of {shape[1]} tokens of dimension {shape[2]} ({source})"
