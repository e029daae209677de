"""``dynsim basins``: where random starts end, and in what shares."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.cli import output
from dynsim.cli.command import Command, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from dynsim.network.dynamics import AttentionDynamics
    from dynsim.reports.animation import Animation

__all__ = ["COMMAND", "main"]

EXAMPLES = """\
  python -m dynsim basins --mask causal --value jordan:2 --tokens 2 --starts 200000
      WU, section 4.3.1: rank two survives in 7.8% of the starts
"""


#: Angles of each token, and layers, of the moving picture.
_ANGLES, _LAYERS = 160, 60


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_iterated_options(parser)
    group = parser.add_argument_group("basins")
    group.add_argument("--starts", type=int, default=10_000, metavar="S", help="random starts")
    group.add_argument("--depth", type=int, default=4096, metavar="T", help="layers at most")
    group.add_argument(
        "--exponents", type=int, default=64, metavar="K",
        help="how many starts of each rank that never settle are told rotating from chaotic by "
        "their Lyapunov exponent; shares are estimated from these",
    )  # fmt: skip

    output.add_animation(
        group, "how a basin fills, of two tokens in the plane: pairs by their two angles"
    )  # fmt: skip


def prepare(options: argparse.Namespace, words: list[str]) -> tuple[AttentionDynamics, int]:
    dynamics, d = shared.make_iterated(options)
    shared.check_least(options, starts=1)
    shared.check_starts(options.starts, dynamics.n_tokens, d)
    if options.animate is not None and (dynamics.n_tokens, d) != (2, 2):
        raise ValueError(
            f"--animate shows two tokens of dimension 2; got {dynamics.n_tokens} of dimension {d}; "
            f"use --tokens 2 --dim 2"
        )
    return dynamics, d


def compute(
    plan: tuple[AttentionDynamics, int],
    options: argparse.Namespace,
    progress: Callable[[float], None],
) -> Outcome:
    from dynsim.equilibria.basins import Stopped, basins

    dynamics, d = plan
    status = 0
    try:
        result = basins(
            dynamics, options.starts, dim=d, seed=options.seed, depth=options.depth,
            exponents=options.exponents, progress=progress,
        )  # fmt: skip
    except Stopped as stopped:
        if stopped.basins is None:
            raise
        status, result = 130, stopped.basins
        print(f"dynsim basins: {stopped}; these are counted", file=sys.stderr)
    starts = len(result.limits.rank)
    data = {
        "dynamics": describe(dynamics),
        "starts": starts,
        "starts_asked": options.starts,
        "seed": options.seed,
        "depth": options.depth,
        "basins": result.rows,
    }
    largest_first = sorted(result.rows, key=lambda row: -row["share"])
    ends = [f"{row['share']:.2%} {row['type']} at rank {row['rank']}" for row in largest_first]
    title = f"{dynamics.mask.name}, d = {d}: {ends[0]}, of {starts} starts"
    return Outcome(
        data=data,
        verdict=f"of {starts} starts end {', '.join(ends)}",
        table=_table(result.rows),
        status=status,
        subject=dynamics.mask.name,
        draw=lambda plots: plots.basins(result, title),
        animation=options.animate and (lambda: _animation(dynamics)),
    )


def _animation(dynamics: AttentionDynamics) -> Animation:
    """The moving picture of --animate: all pairs of angles, followed for 60 layers."""
    from dynsim.equilibria.basins import circle_pairs
    from dynsim.reports.animation import basin
    from dynsim.simulation import Record, simulate

    run = simulate(dynamics, circle_pairs(_ANGLES), _LAYERS, record=Record(measures=()))
    cosines = run["mean_cosine"].T.reshape(-1, _ANGLES, _ANGLES)
    return basin(
        cosines, range(_LAYERS + 1), f"{dynamics.mask.name}, pairs of tokens on the circle"
    )


def _table(rows: list[dict]) -> str:
    lines = [f"{'rank':>4}  {'type':<10}{'share':>10}  {'95% interval':<20}{'settled by':>10}"]
    for row in rows:
        interval = f"{row['low']:.5f} to {row['high']:.5f}"
        lines.append(
            f"{row['rank']:>4}  {row['type']:<10}{row['share']:>10.5f}  {interval:<20}"
            f"{row['median_depth']:>10.0f}"
        )
    if sampled := sorted({row["sampled"] for row in rows if row["sampled"]}):
        lines.append(
            f"rotating or chaotic: estimated from the exponents of "
            f"{', '.join(map(str, sampled))} starts of a rank (--exponents)"
        )
    return "\n".join(lines)


COMMAND = Command(
    name="basins",
    description="Follow random starts on the sphere until they settle; where they end.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=shared.packages,
    examples=EXAMPLES,
    label="following starts",
)
main = COMMAND.main
