"""``dynsim continuation``: follow equilibria while a parameter changes, and draw the branches."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from dynsim._files import written_whole
from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.cli import output
from dynsim.cli.guard import guarded, one_line
from dynsim.equilibria.continuation import FAMILIES
from dynsim.network import tokens

__all__ = ["main"]

EPILOG = """Unless said otherwise tokens are scaled to unit norm (--ln on), attention is uniform
(--scores zero), weights are the same in all layers, and the dimension is the number of tokens.
Parameters: beta, a factor of the scores (1 / temperature); skip, the weight of the skip connection;
gain, a factor of the norm's gain; w, that of --value jordan:W.

examples:
  python -m dynsim design --tokens 3 --name three
  python -m dynsim continuation --vary beta=1:3 --value results/three.npz \\
      --scores results/three.npz --x0 results/three.npz
      the stable equilibrium that was designed, as attention grows sharper
  python -m dynsim continuation --vary skip=0:1 --value diagonal:2,1 --scores gaussian --tokens 2
      every equilibrium that a search finds, as a skip connection is added
"""


def parser() -> argparse.ArgumentParser:
    parser = shared.OneLineParser(
        prog="dynsim continuation",
        description="Follow equilibria while a parameter changes, through folds; find where they "
        "lose or gain stability.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_iterated_options(parser)
    group = parser.add_argument_group("continuation")
    group.add_argument(
        "--vary", required=True, metavar="NAME=A:B", help=f"{', '.join(FAMILIES)}, from A to B"
    )
    group.add_argument("--x0", metavar="FILE", help="an equilibrium (N, d) at A (all found there)")
    group.add_argument("--starts", type=int, default=64, metavar="S", help="of the search (64)")
    group.add_argument("--points", type=int, default=500, metavar="P", help="at most (500)")
    output.add_output_options(parser.add_argument_group("output"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, 130 interrupted."""
    return guarded(parser(), argv, _carry_out)


def _carry_out(options) -> int:
    dynamics, d = shared.make_iterated(options)
    name, start, stop = _varied(options.vary)
    if options.points < 2:
        raise ValueError(f"--points is at least 2; got {options.points}")

    def family(value):
        return FAMILIES[name](dynamics, d, value)

    output.check_folder(Path(options.out))
    states = _states(options, family(start), d)
    branches = _branches(family, states, start, stop, options.points)
    found = {
        "dynamics": describe(dynamics),
        "parameter": {"name": name, "from": start, "to": stop},
        "branches": [_entry(branch) for branch in branches],
    }
    stem = output.stem("continuation", dynamics.mask.name, found, options)
    title = f"{dynamics.mask.name}, {type(dynamics.norm).__name__}: {len(branches)} branches"
    files = [f"{stem}.npz"]
    with written_whole(files[0]) as temporary:
        np.savez_compressed(temporary, **{f"tokens_{k}": b.tokens for k, b in enumerate(branches)})
    files += output.write_found(
        stem, found, options, lambda plots: plots.branches(branches, name, title)
    )
    if options.json:
        print(json.dumps({**found, "files": files}, allow_nan=False))
        return 0
    print(f"{'branch':>6}{'rank':>6}{'points':>8}  {name + ' from, to':<20}{'stable':>8}  ended")
    for k, branch in enumerate(branches):
        ranks = "-".join(map(str, sorted({branch.rank.min(), branch.rank.max()})))
        reach = f"{branch.parameter[0]:.5g}, {branch.parameter[-1]:.5g}"
        stable = np.mean(branch.spectral_radius < 1)
        print(f"{k:>6}{ranks:>6}{len(branch.parameter):>8}  {reach:<20}{stable:>8.0%}  "
              f"{branch.ended}")  # fmt: skip
        for kind, value in branch.bifurcations:
            print(f"{'':>14}{kind} at {name} = {value:.6g}")
    output.print_files(files)
    return 0


def _varied(text: str) -> tuple[str, float, float]:
    name, _, values = text.partition("=")
    if name not in FAMILIES:
        raise ValueError(f"--vary knows {', '.join(FAMILIES)}; got {name!r}")
    try:
        start, stop = map(float, values.split(":"))
    except ValueError:
        raise ValueError(f"--vary is NAME=A:B with two numbers; got {text!r}") from None
    if start == stop or not np.isfinite([start, stop]).all():
        raise ValueError(f"--vary goes from one finite number to another; got {text!r}")
    return name, start, stop


def _states(options, dynamics, d: int) -> list[np.ndarray]:
    """The equilibrium of the file, or all that a search finds."""
    from dynsim.equilibria import find_equilibria

    if options.x0:
        x = tokens.from_file(options.x0)
        if x.shape != (dynamics.n_tokens, d):
            wanted = (dynamics.n_tokens, d)
            raise ValueError(f"{options.x0}: one state {wanted} is needed; got shape {x.shape}")
        return [x]
    with output.share_done("searching, %") as progress:
        search = find_equilibria(
            dynamics, dim=d, starts=options.starts, basin_samples=0, seed=options.seed,
            progress=progress,
        )  # fmt: skip
    return [e.tokens for e in search.equilibria if e.type != "rotating"]


def _branches(family, states, start: float, stop: float, points: int):
    """A branch through each state; those that have none are named on standard error."""
    from dynsim.equilibria.continuation import continue_equilibrium

    branches, refused = [], []
    with output.share_done("following branches, %") as progress:
        for k, x in enumerate(states):
            try:
                branches.append(continue_equilibrium(family, x, start, stop, points=points))
            except ValueError as error:
                refused.append(f"equilibrium {k}: {one_line(error)}")
            progress((k + 1) / len(states))
    if not branches:
        raise ValueError(refused[0] if refused else "the search found no equilibrium to follow")
    for line in refused:
        print(f"dynsim continuation: {line}", file=sys.stderr)
    return branches


def _entry(branch) -> dict:
    return {
        "ended": branch.ended,
        "bifurcations": [{"type": kind, "parameter": p} for kind, p in branch.bifurcations],
        "parameter": branch.parameter.tolist(),
        "rank": branch.rank.tolist(),
        "spectral_radius": branch.spectral_radius.tolist(),
    }
