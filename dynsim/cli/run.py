"""``dynsim run``: simulate, draw the rank trajectory and judge it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from dynsim.cli import options as shared
from dynsim.cli import output
from dynsim.cli.guard import guarded, one_line
from dynsim.cli.jobs import DEFAULT_DEPTH, Job, prepare
from dynsim.engines import ENGINES
from dynsim.simulation import Overflow, Stopped

__all__ = ["main"]

EPILOG = """examples:
  python -m dynsim.run --mask local --ln on --depth 200
      sliding window +-1 with WU's LayerNorm, fresh random weights
  python -m dynsim.run --compare mask=global,causal,local,causal-local --ln on
      four masks in one figure and table (the shape of WU's Fig. 2)
  python -m dynsim.run --mask causal --scores zero --value jordan:2 --tokens 2 --dim 2 --ln on \
                       --samples 200 --depth 2000
      WU, section 4.3.1: most starts collapse, some keep rank two
  python -m dynsim.run --mask causal --ln on --value orthogonal --theory
      measured mu, the predicted late rate and proved bounds in one figure
  python -m dynsim.run --compare dropout=0,.1 --norm layernorm --dim 256 --theory
      the noise of training keeps LayerNorm from collapse, at sqrt((N - 1) d p)
  python -m dynsim.run --norm layernorm --skip 1 --heads 4 --dropout .1 --attention-dropout .1
      both kinds of dropout at the rates that BERT is trained with
  python -m dynsim.run --text README.md --weights minilm:0 --ln on --skip 1
      real text through one real layer's matrices (needs dynsim[models])
  python -m dynsim.run --resume results/NAME.nc --depth 1000
      go on where a saved run ended, or was interrupted
"""


def parser() -> argparse.ArgumentParser:
    parser = shared.OneLineParser(
        prog="dynsim run",
        description="Iterate self-attention, draw the rank trajectory and say if it collapses.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_mask_options(parser)
    shared.add_dynamics_options(parser)
    shared.add_dropout_options(parser)
    shared.add_token_options(parser)
    group = parser.add_argument_group("run")
    group.add_argument("--depth", type=int, metavar="T", help=f"number of layers ({DEFAULT_DEPTH})")
    group.add_argument("--seed", type=int, default=0, metavar="K", help="of all random draws (0)")
    group.add_argument(
        "--compare",
        metavar="OPTION=A,B,...",
        help="overlay runs that differ in one option: mask=global,local,causal, ln=on,off, ... "
        "(separate values that hold commas by ';')",
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
        "--stride", default="auto", help="layers between costly measures (auto: about .25 s in all)"
    )
    group.add_argument(
        "--states", type=int, default=0, metavar="K", help="keep the tokens at every K-th layer"
    )
    group.add_argument(
        "--theory",
        action="store_true",
        help="lay predicted rates and proved bounds beside what is measured: as curves in the "
        "figure of one run; with --compare in the table only, the figure shows what is measured",
    )
    group.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help=f"{', '.join(ENGINES)} (auto: logscale, which follows mu below the floating-point "
        f"floor; where it does not apply numba, torch or reference)",
    )
    group.add_argument("--threads", type=int, metavar="P", help="over samples (all cores)")
    group.add_argument(
        "--device",
        metavar="NAME",
        help="of the torch engine: auto, cpu, cuda, cuda:1, mps, ... (auto: a CUDA GPU or the cpu)",
    )
    group = parser.add_argument_group("output")
    output.add_output_options(group)
    group.add_argument(
        "--export", default="", metavar="A,B", help=f"further files: {', '.join(output.EXPORTS)}"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 tokens stopped being finite, 2 bad input, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    command = parser()

    def work(options) -> int:
        jobs = prepare(command, options, argv)
        exports = output.check(options, jobs)
        return _carry_out(jobs, options, exports)

    return guarded(command, argv, work)


def _carry_out(jobs: list[Job], options, exports: list[str]) -> int:
    from dynsim.cli.report import Outcome
    from dynsim.collapse.verdicts import verdict
    from dynsim.masks.connectivity import facts

    done, files, status = {}, [], 0
    with output.drawing(jobs, options) as draw:
        first = facts(jobs[0].dynamics.mask)
        if not options.json:
            output.print_input(jobs[0], first, compared=bool(options.compare))
        with output.progress() as report:
            for job in jobs:
                if job.floored:
                    note = f"mu is followed to the floating-point floor only: {job.floored}"
                    print(f"dynsim run: {job.label}{': ' * bool(job.label)}{note}", file=sys.stderr)
                trajectory, ended, error = _simulated(job, report(job))
                status = ended or status
                try:
                    found = first if job is jobs[0] else facts(job.dynamics.mask)
                    judged = verdict(trajectory)
                    theory = None if ended == 130 else job.compare_with_theory(trajectory)
                    if theory is not None:
                        judged = replace(judged, sentence=f"{judged.sentence}; {theory.distance}")
                    done[job.label] = Outcome(found, trajectory, judged, error, theory)
                    if job is jobs[-1] or ended == 130:
                        figure = draw(done)
                finally:  # saved whatever becomes of the rest, and while the figure is drawn
                    files += output.write(job, trajectory, options, exports)
                if ended == 130:
                    break
        if not options.json:
            output.print_result(done)
        files += output.write_summary(jobs, done, options) + figure
    if options.json:
        output.print_json(done, files, options)
    else:
        output.print_files(files)
    return status


def _simulated(job: Job, progress):
    """The trajectory, and exit status and reason where it ended early."""
    try:
        return job.simulate(progress), 0, None
    except (Overflow, Stopped) as ended:
        error = one_line(ended)
        print(f"dynsim run: {job.label}{': ' * bool(job.label)}{error}", file=sys.stderr)
        return ended.trajectory, 1 if isinstance(ended, Overflow) else 130, error
