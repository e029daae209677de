"""``dynsim basins``: where random starts end, and in what shares."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.cli import output
from dynsim.cli.guard import guarded

__all__ = ["main"]

EPILOG = """examples:
  python -m dynsim basins --mask causal --value jordan:2 --tokens 2 --starts 200000
      WU, section 4.3.1: rank two survives in 7.8% of the starts
"""


def parser() -> argparse.ArgumentParser:
    parser = shared.OneLineParser(
        prog="dynsim basins",
        description="Follow random starts on the sphere until they settle; where they end.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_iterated_options(parser)
    group = parser.add_argument_group("basins")
    group.add_argument("--starts", type=int, default=10_000, metavar="S", help="random (10000)")
    group.add_argument("--depth", type=int, default=4096, metavar="T", help="at most (4096)")
    group.add_argument(
        "--exponents", type=int, default=64, metavar="K",
        help="how many starts of each rank that never settle are told rotating from chaotic by "
        "their Lyapunov exponent; shares are estimated from these (default: 64)",
    )  # fmt: skip
    output.add_output_options(parser.add_argument_group("output"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, 130 interrupted, with the starts done so far counted."""
    return guarded(parser(), argv, _carry_out)


def _carry_out(options) -> int:
    from dynsim.equilibria.basins import Stopped, basins

    dynamics, d = shared.make_iterated(options)
    output.check_folder(Path(options.out))
    status = 0
    try:
        with output.share_done("following starts, %") as progress:
            result = basins(
                dynamics, options.starts, dim=d, seed=options.seed, depth=options.depth,
                exponents=options.exponents, progress=progress,
            )  # fmt: skip
    except Stopped as stopped:
        if stopped.basins is None:
            raise
        status, result = 130, stopped.basins
        print(f"dynsim basins: {stopped}; these are counted", file=sys.stderr)
    found = {"dynamics": describe(dynamics), "starts": len(result.limits.rank),
             "starts_asked": options.starts, "seed": options.seed, "depth": options.depth,
             "basins": result.rows}  # fmt: skip
    stem = output.stem("basins", dynamics.mask.name, found, options)
    title = f"{dynamics.mask.name}, dimension {d}"
    files = output.write_found(stem, found, options, lambda plots: plots.basins(result, title))
    if options.json:
        print(json.dumps({**found, "files": files}, allow_nan=False))
        return status
    print(f"{'rank':>4}  {'type':<10}{'share':>10}  {'95% interval':<20}{'settled by':>10}")
    for row in result.rows:
        interval = f"{row['low']:.5f} to {row['high']:.5f}"
        print(f"{row['rank']:>4}  {row['type']:<10}{row['share']:>10.5f}  {interval:<20}"
              f"{row['median_depth']:>10.0f}")  # fmt: skip
    if sampled := [row for row in result.rows if row["sampled"]]:
        each = sorted({row["sampled"] for row in sampled})
        print(f"rotating or chaotic: estimated from the exponents of {', '.join(map(str, each))} "
              f"starts of a rank (--exponents)")  # fmt: skip
    output.print_files(files)
    return status
