"""``dynsim run``: simulate, draw the rank trajectory and judge it."""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dynsim._values import evenly, unknown
from dynsim.cli import options as shared
from dynsim.cli import output, report, runs
from dynsim.cli.command import Command, Outcome
from dynsim.cli.completion import completes
from dynsim.cli.errors import one_line
from dynsim.cli.output import file_name
from dynsim.collapse.verdicts import groups, together
from dynsim.engines import ENGINES
from dynsim.measures import MEASURES
from dynsim.simulation import Overflow, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from dynsim.reports.animation import Animation
    from dynsim.reports.page import Page
    from dynsim.reports.states import States
    from dynsim.results.trajectory import Trajectory

__all__ = ["COMMAND", "main"]

EXAMPLES = """\
  python -m dynsim.run --mask local --ln on --depth 200
      sliding window +-1 with WU's LayerNorm, fresh random weights
  python -m dynsim.run --compare mask=global,causal,local,causal-local --ln on
      four masks in one figure and table (the shape of WU's Fig. 2)
  python -m dynsim.run --compare mask=local,causal-local --compare window=1..4 --ln on
      a grid: both masks with windows of 1, 2, 3 and 4 (ranges also A..B..STEP)
  python -m dynsim.run --mask causal --scores zero --value jordan:2 --tokens 2 --dim 2 --ln on \
                       --samples 200 --depth 2000
      WU, section 4.3.1: most starts collapse, some keep rank two
  python -m dynsim.run --mask causal --ln on --value orthogonal --theory
      measured mu, the predicted late rate and proved bounds in one figure
  python -m dynsim.run --compare dropout=0,.1 --norm layernorm --dim 256 --theory
      the noise of training keeps LayerNorm from collapse, at sqrt((N - 1) d p)
  python -m dynsim.run --norm layernorm --skip 1 --heads 4 --dropout .1 --attention-dropout .1
      both kinds of dropout at the rates that BERT is trained with
  python -m dynsim.run --text README.md --weights minilm:all
      real text through all six layers of MiniLM, whole (needs dynsim[minilm])
  python -m dynsim.run --text README.md --weights minilm:0 --ln on --skip 1
      through the matrices of one layer alone, again and again
  python -m dynsim.run --compare mask=complete,causal,local --ln on --value identity --dim 3 \
                       --tokens 32 --depth 60 --animate collapse.gif --report collapse.html
      the tokens on the sphere as a moving picture, and a page with a slider over the layers
  python -m dynsim.run --resume results/NAME.nc --depth 1000
      go on where a saved run ended, or was interrupted
"""

#: Runs that an animation shows side by side, at most.
MOST_PANELS = 4
#: Further files that may be asked for: how each is written, from a trajectory and a path's stem.
EXPORTS = {
    "csv": lambda trajectory, stem: trajectory.to_csv(f"{stem}.csv"),
    "json": lambda trajectory, stem: trajectory.to_json(f"{stem}.samples.json"),
    "zarr": lambda trajectory, stem: trajectory.save(f"{stem}.zarr"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_mask_options(parser)
    shared.add_dynamics_options(parser)
    shared.add_dropout_options(parser)
    shared.add_token_options(parser)
    group = parser.add_argument_group("run")
    group.add_argument(
        "--depth", type=int, metavar="T",
        help=f"number of layers (default: {runs.DEFAULT_DEPTH}, or as many as there are weights "
        f"for)",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="K", help="seed of all random draws")
    group.add_argument(
        "--compare",
        metavar="OPTION=A,B,...",
        action="append",
        help="overlay runs that differ in an option: mask=global,local,causal, ln=on,off, ... "
        "(separate values that hold commas by ';'); a range of whole numbers window=1..16, or with "
        "a step beta=0..2..0.5; given twice, all combinations (default: one run)",
    )
    group.add_argument(
        "--resume",
        metavar="FILE",
        help="go on from a saved run; only --depth and output options count (default: none)",
    )
    costly = group.add_argument(
        "--measures", metavar="A,B,...",
        help="costly measures to record, or 'all' (default: a selection)",
    )  # fmt: skip
    completes(costly, ["all", *MEASURES])
    group.add_argument(
        "--stride", default="auto", metavar="K",
        help="layers between costly measures; auto: by their cost, as dynsim.Record says",
    )  # fmt: skip
    group.add_argument(
        "--states", type=int, default=0, metavar="K",
        help="keep the tokens at every K-th layer; 0: at none",
    )  # fmt: skip
    group.add_argument(
        "--theory",
        action="store_true",
        help="lay predicted rates and proved bounds beside what is measured: as curves in the "
        "figure of one run; with --compare in the table only, the figure shows what is measured",
    )
    engine = group.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help=f"{', '.join(ENGINES)}, or auto: logscale, which follows mu below the floating-point "
        f"floor; where it does not apply numba, torch or reference",
    )
    completes(engine, ["auto", *ENGINES])
    group.add_argument("--threads", type=int, metavar="P", help="over samples (default: all cores)")
    group.add_argument(
        "--device",
        metavar="NAME",
        help="where the torch engine runs: auto, cpu, cuda, cuda:1, mps, ... (default: auto, "
        "a CUDA GPU or the cpu)",
    )
    output.add_animation(
        group, "tokens of the first sample on the circle or sphere, layer by layer; runs that are "
        "compared stand side by side",
    )  # fmt: skip
    exports = group.add_argument(
        "--export", default="", metavar="A,B",
        help=f"further files: {', '.join(EXPORTS)} (default: none)",
    )  # fmt: skip
    completes(exports, EXPORTS)


def packages(options: argparse.Namespace) -> tuple[str, ...]:
    torch = ("torch",) if options.engine == "torch" else ()
    zarr = ("zarr",) if "zarr" in options.export else ()
    return (*shared.packages(options), *torch, *zarr)


def prepare(options: argparse.Namespace, words: list[str]) -> list[runs.Run]:
    for name in _exports(options):
        if name not in EXPORTS:
            raise ValueError(unknown("export", name, EXPORTS))
    planned = runs.prepare(COMMAND.parser().parse_args, options, words)
    if options.animate is not None and len(planned) > MOST_PANELS:
        raise ValueError(
            f"--animate shows {MOST_PANELS} runs side by side at most; got {len(planned)}; "
            f"vary less"
        )
    return planned


def _exports(options: argparse.Namespace) -> list[str]:
    return [word.strip() for word in options.export.split(",") if word.strip()]


#: Seconds from which on it is said how long a run may take.
_LONG = 600.0


def _in_words(seconds: float) -> str:
    """One unit, one digit.

    >>> _in_words(7000), _in_words(9e5)
    ('2 hours', '10 days')
    """
    for size, unit in ((86400, "days"), (3600, "hours")):
        if seconds > 1.5 * size:
            return f"{float(f'{seconds / size:.1g}'):g} {unit}"
    return f"{float(f'{seconds / 60:.1g}'):g} minutes"


def announce(planned: list[runs.Run]) -> str:
    """Mask facts, dynamics and input of the run, or of the first of a comparison."""
    first = planned[0]
    lines = []
    if len(planned) > 1:
        lines.append(("first run", first.label))
    else:
        for name, value in report.describe_mask(first.facts):
            lines.append((name, value))
            if name == "mask":
                lines.append(("attends", report.describe_attended(first.dynamics)))
    options = first.options
    source = options.x0 or options.text or f"{options.start}, seed {options.seed}"
    lines += shared.describe_preset(options)
    lines.append(("dynamics", report.describe_dynamics(first.dynamics)))
    lines.append(("input", f"{report.describe_shape(first.shape)} ({source})"))
    if (seconds := sum(run.expected_seconds for run in planned)) > _LONG:
        lines.append(("time", f"about {_in_words(seconds)}, by a rough model of costs"))
    return "\n".join(f"{name:<10}{value}" for name, value in lines)


def compute(
    planned: list[runs.Run], options: argparse.Namespace, progress: Callable[..., None]
) -> Outcome:
    done, files, status = {}, [], 0
    for k, run in enumerate(planned):
        if run.floored:
            _say(run, f"mu is followed to the floating-point floor only: {run.floored}")

        def reached(depth: int, k: int = k, run: runs.Run = run) -> None:
            share = (k + depth / run.depth) / len(planned)
            progress(share, f"{run.label or 'simulating'}, {run.depth} layers")

        trajectory, ended, error = _simulated(run, reached)
        status = ended or status
        stem = Path(options.out) / run.name
        files.append(str(trajectory.save(f"{stem}.nc")))  # whatever becomes of the rest
        files += [str(EXPORTS[name](trajectory, stem)) for name in _exports(options)]
        if error is not None:
            hint = f"; go on with --resume {stem}.nc --depth {run.depth}" * (ended == 130)
            _say(run, error + hint)
        parts = groups(trajectory)
        judged = together(trajectory, parts)
        theory = None if ended == 130 else run.compare_with_theory(trajectory)
        if theory is not None:
            judged = replace(judged, sentence=f"{judged.sentence}; {theory.distance}")
        done[run.label] = report.Result(run.facts, trajectory, judged, error, theory, parts)
        if ended == 130:
            break
    outcome = _of_comparison(planned, done, options) if options.compare else _of_one(planned, done)
    return replace(
        outcome, files=files, status=status, page=lambda: _page(planned, done, options),
        animation=options.animate and (lambda: _animation(planned, done)),
    )  # fmt: skip


def _animation(planned: list[runs.Run], done: dict[str, report.Result]) -> Animation:
    """The moving picture of --animate."""
    from dynsim.reports import animation
    from dynsim.reports.states import affordable

    panels = []
    for run in planned:
        if run.label in done:
            result = done[run.label]
            most = affordable(*run.shape[1:], animation.MOST_FRAMES)
            depths = evenly(result.trajectory.depth - run.start, most)
            tokens = run.followed(depths)
            layers = (run.start + depths[: len(tokens)]).tolist()
            share = result.trajectory["mu"][0] / result.trajectory["frobenius_norm"][0]
            title = run.label or _title(planned, done, run.options)
            panels.append(animation.Moving(title, layers, tokens, share))
    return animation.tokens(panels)


def _page(
    planned: list[runs.Run], done: dict[str, report.Result], options: argparse.Namespace
) -> Page:
    """The page of --report."""
    from dynsim.reports import runs as pages
    from dynsim.reports.settings import rows

    first = planned[0]
    trajectories = {label: result.trajectory for label, result in done.items()}
    shown = [run for run in planned if run.label in done][: pages.MOST_CASES]
    settings = report.describe_mask(first.facts) if len(planned) == 1 else []
    settings += [("dynamics", report.describe_dynamics(first.dynamics))]
    settings += rows(trajectories[first.label].provenance)
    return pages.page(
        trajectories,
        {run.label: _states(run, trajectories[run.label]) for run in shown},
        title=_title(planned, done, options),
        sentences=[
            f"{label}: {result.verdict.sentence}" if label else result.verdict.sentence
            for label, result in done.items()
        ],
        settings=settings,
    )


def _states(run: runs.Run, trajectory: Trajectory) -> States:
    """At most 33 states of the first sample, closer together at the beginning."""
    from dynsim.reports.runs import states_of
    from dynsim.reports.states import affordable, early

    depths = early(trajectory.depth - run.start, affordable(*run.shape[1:]))
    tokens = run.followed(depths)
    layers = (run.start + depths[: len(tokens)]).tolist()
    return states_of(run.dynamics, layers, tokens, f"sample 0 of {run.shape[0]}")


def _title(
    planned: list[runs.Run], done: dict[str, report.Result], options: argparse.Namespace
) -> str:
    if options.compare:
        return f"comparing {'; '.join(options.compare).replace(',', ', ')}"
    (result,) = done.values()
    return f"{result.facts.name}, {report.norm_in_words(planned[0].dynamics.norm)}"


def _simulated(run: runs.Run, reached: Callable[[int], None]) -> tuple[Trajectory, int, str | None]:
    """The trajectory, and exit status and reason where it ended early."""
    try:
        return run.simulate(reached), 0, None
    except (Overflow, Stopped) as ended:
        status = 1 if isinstance(ended, Overflow) else 130
        return ended.trajectory, status, one_line(ended)


def _say(run: runs.Run, words: str) -> None:
    print(f"dynsim run: {run.label}{': ' * bool(run.label)}{words}", file=sys.stderr)


def _of_one(planned: list[runs.Run], done: dict[str, report.Result]) -> Outcome:
    (result,) = done.values()
    run, theory = planned[0], result.theory
    curves = {} if theory is None else theory.curves(result.trajectory["frobenius_norm"])
    parts = [
        result.facts.name,
        report.describe_dynamics(run.dynamics),
        report.describe_shape(run.shape),
    ]
    parts += [] if theory is None else [theory.distance, report.describe_bounded(theory, run.shape)]
    return Outcome(
        data=report.summary(result),
        verdict=result.verdict.sentence,
        table=report.measure_table(result.trajectory),
        notes="" if result.theory is None else str(result.theory),
        name=planned[0].name,
        draw=lambda plots: plots.rank_trajectory(
            {"": result.trajectory},
            report.headline(done),
            curves,
            subtitle="; ".join(filter(None, parts)),
            groups={"": _grouped(plots, result)},
        ),
    )


def _grouped(plots: ModuleType, result: report.Result) -> list:
    """The samples of a run by outcome, as the figure wants them."""
    return [plots.Group(one.kind, which) for one, which in result.groups]


def _of_comparison(
    planned: list[runs.Run], done: dict[str, report.Result], options: argparse.Namespace
) -> Outcome:
    varied = "; ".join(options.compare)
    digest = hashlib.sha256("".join(run.name for run in planned).encode()).hexdigest()[:8]
    sentences = {label: result.verdict.sentence for label, result in done.items()}
    named = dict(zip(report.short_labels(list(done)), done.values(), strict=True))
    subtitle = f"comparing {varied.replace(',', ', ')}; {report.describe_shape(planned[0].shape)}"
    return Outcome(
        data={"runs": {label: report.summary(result) for label, result in done.items()}}
        | {"verdict": sentences},
        verdict="\n          ".join(f"{label}: {words}" for label, words in sentences.items()),
        table=report.comparison_table(done),
        name=file_name("compare", varied, digest),
        draw=lambda plots: plots.rank_trajectory(
            {label: result.trajectory for label, result in named.items()},
            report.headline(named),
            subtitle=subtitle,
            groups={label: _grouped(plots, result) for label, result in named.items()},
        ),
    )


COMMAND = Command(
    name="run",
    description="Iterate self-attention, draw the rank trajectory and say if it collapses.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    announce=announce,
    packages=packages,
    examples=EXAMPLES,
    label="simulating",
    reports=True,
)
main = COMMAND.main
