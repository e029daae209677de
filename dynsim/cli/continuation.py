"""``dynsim continuation``: follow equilibria while a parameter changes, and draw the branches."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import describe, unknown
from dynsim.cli import options as shared
from dynsim.cli.command import Command, Outcome
from dynsim.cli.completion import completes
from dynsim.cli.errors import one_line
from dynsim.equilibria.continuation import FAMILIES
from dynsim.network.dynamics import AttentionDynamics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dynsim.equilibria.continuation import Branch

__all__ = ["COMMAND", "main"]

NOTES = """Unless said otherwise tokens are scaled to unit norm (--ln on), attention is uniform
(--scores zero), weights are the same in all layers, and the dimension is the number of tokens.
Parameters: beta, a factor of the scores (1 / temperature), on top of --beta; skip, the weight of
the skip connection; gain, a factor of the norm's gain; w, that of --value jordan:W.
"""
EXAMPLES = """\
  python -m dynsim design --tokens 3 --name three
  python -m dynsim continuation --vary beta=1:3 --value results/three.npz \\
      --scores results/three.npz --x0 results/three.npz
      the stable equilibrium that was designed, as attention grows sharper
  python -m dynsim continuation --vary skip=0:1 --value diagonal:2,1 --scores gaussian --tokens 2
      every equilibrium that a search finds, as a skip connection is added
"""


@dataclass(frozen=True)
class Plan:
    """What is followed: `parameter` of `dynamics`, on tokens of dimension `dim`, from start to
    stop; from the tokens x0, or from all equilibria that a search finds."""

    dynamics: AttentionDynamics
    dim: int
    parameter: str
    start: float
    stop: float
    x0: np.ndarray | None

    def family(self, value: float) -> AttentionDynamics:
        return FAMILIES[self.parameter](self.dynamics, self.dim, value)


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_iterated_options(parser)
    group = parser.add_argument_group("continuation")
    vary = group.add_argument(
        "--vary", required=True, metavar="NAME=A:B", help=f"{', '.join(FAMILIES)}, from A to B"
    )
    completes(vary, [f"{name}=" for name in FAMILIES])
    group.add_argument(
        "--x0", metavar="FILE",
        help="an equilibrium (N, d) at A (default: all that a search finds there)",
    )  # fmt: skip
    group.add_argument(
        "--starts", type=int, default=64, metavar="S", help="random starts of the search"
    )
    group.add_argument(
        "--points", type=int, default=500, metavar="P", help="points of a branch, at most"
    )


def prepare(options: argparse.Namespace, words: list[str]) -> Plan:
    dynamics, d = shared.make_iterated(options)
    name, start, stop = _varied(options.vary)
    shared.check_least(options, points=2, starts=2)
    shared.check_starts(options.starts, dynamics.n_tokens, d)
    x0 = None
    if options.x0:
        x0 = shared.read_state(options.x0)
        if x0.shape != (wanted := (dynamics.n_tokens, d)):
            raise ValueError(f"{options.x0}: one state {wanted} is needed; got shape {x0.shape}")
    plan = Plan(dynamics, d, name, start, stop, x0)
    plan.family(start)  # refused now, if it does not apply
    return plan


def _varied(text: str) -> tuple[str, float, float]:
    name, _, values = text.partition("=")
    if name not in FAMILIES:
        raise ValueError(f"--vary: {unknown('parameter', name, FAMILIES)}")
    try:
        start, stop = map(float, values.split(":"))
    except ValueError:
        raise ValueError(f"--vary is NAME=A:B with two numbers; got {text!r}") from None
    if start == stop or not np.isfinite([start, stop]).all():
        raise ValueError(f"--vary goes from one finite number to another; got {text!r}")
    return name, start, stop


def compute(plan: Plan, options: argparse.Namespace, progress: Callable[..., None]) -> Outcome:
    branches = _branches(plan, _states(plan, options, progress), options.points, progress)
    dynamics, name = plan.dynamics, plan.parameter
    title = f"{dynamics.mask.name}, {type(dynamics.norm).__name__}: {_sentence(branches, name)}"
    return Outcome(
        data={
            "dynamics": describe(dynamics),
            "parameter": {"name": name, "from": plan.start, "to": plan.stop},
            "branches": [_entry(branch) for branch in branches],
        },
        verdict=_sentence(branches, name),
        table=_table(branches, name),
        subject=dynamics.mask.name,
        arrays={f"tokens_{k}": branch.tokens for k, branch in enumerate(branches)},
        draw=lambda plots: plots.branches(branches, name, title),
    )


def _states(
    plan: Plan, options: argparse.Namespace, progress: Callable[..., None]
) -> list[np.ndarray]:
    """The equilibrium of the file, or all that a search finds."""
    from dynsim.equilibria import find_equilibria

    if plan.x0 is not None:
        return [plan.x0]
    search = find_equilibria(
        plan.family(plan.start), dim=plan.dim, starts=options.starts, basin_samples=0,
        seed=options.seed, progress=lambda share: progress(share / 2, "searching"),
    )  # fmt: skip
    return [e.tokens for e in search.equilibria if e.type != "rotating"]


def _branches(
    plan: Plan, states: list[np.ndarray], points: int, progress: Callable[..., None]
) -> list[Branch]:
    """A branch through each state; those that have none are named on standard error."""
    from dynsim.equilibria.continuation import continue_equilibrium

    branches, refused = [], []
    for k, x in enumerate(states):
        try:
            branches.append(
                continue_equilibrium(plan.family, x, plan.start, plan.stop, points=points)
            )
        except ValueError as error:
            refused.append(f"equilibrium {k}: {one_line(error)}")
        progress(0.5 + (k + 1) / len(states) / 2)
    if not branches:
        raise ValueError(refused[0] if refused else "the search found no equilibrium to follow")
    for line in refused:
        print(f"dynsim continuation: {line}", file=sys.stderr)
    return branches


def _entry(branch: Branch) -> dict:
    return {
        "ended": branch.ended,
        "bifurcations": [{"type": kind, "parameter": p} for kind, p in branch.bifurcations],
        "parameter": branch.parameter.tolist(),
        "rank": branch.rank.tolist(),
        "spectral_radius": branch.spectral_radius.tolist(),
    }


def _table(branches: Sequence[Branch], name: str) -> str:
    lines = [f"{'branch':>6}{'rank':>6}{'points':>8}  {name + ' from, to':<20}{'stable':>8}  ended"]
    for k, branch in enumerate(branches):
        ranks = "-".join(map(str, sorted({branch.rank.min(), branch.rank.max()})))
        reach = f"{branch.parameter[0]:.5g}, {branch.parameter[-1]:.5g}"
        stable = np.mean(branch.spectral_radius < 1)
        lines.append(
            f"{k:>6}{ranks:>6}{len(branch.parameter):>8}  {reach:<20}{stable:>8.0%}  {branch.ended}"
        )
        lines += [f"{'':>14}{kind} at {name} = {value:.6g}" for kind, value in branch.bifurcations]
    return "\n".join(lines)


def _sentence(branches: Sequence[Branch], name: str) -> str:
    """How many branches, where they are stable, and what happens on them."""
    stable = [np.mean(branch.spectral_radius < 1) for branch in branches]
    whole, partly = sum(s == 1 for s in stable), sum(0 < s < 1 for s in stable)
    kinds = Counter(kind for branch in branches for kind, _ in branch.bifurcations)
    events = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    number = f"{len(branches)} branch{'es' * (len(branches) > 1)}"
    return (
        f"{number} along {name}, {whole} stable throughout and {partly} in part; "
        f"{events or 'no bifurcation'}"
    )


COMMAND = Command(
    name="continuation",
    description="Follow equilibria while a parameter changes, through folds; find where they lose "
    "or gain stability.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=shared.packages,
    notes=NOTES,
    examples=EXAMPLES,
    label="following branches",
)
main = COMMAND.main
