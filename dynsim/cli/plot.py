"""``dynsim plot``: the phase diagram of a sweep's store."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dynsim.cli.command import Command, Outcome
from dynsim.sweeps.diagrams import Diagram, diagrams, draw
from dynsim.sweeps.store import results, state

__all__ = ["COMMAND", "main"]

EXAMPLES = """\
  python -m dynsim plot STORE --x window --y beta --color late_rate --panels mask
      the late rate, with lambda_2 of the masks above it; one panel for each mask
  python -m dynsim plot STORE --x skip --y beta --color verdict --at mask=causal
      which class of end, for one of the masks
  python -m dynsim plot STORE --x value --y beta --color share --at rank=2 type=fixed
      of basins: the share of starts that settle at rank 2
"""


class Plan(NamedTuple):
    """What will be drawn, and of how much of the sweep."""

    found: list[Diagram]
    title: str


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", metavar="STORE", help="folder that dynsim sweep made")
    group = parser.add_argument_group("diagram")
    group.add_argument("--x", required=True, metavar="NAME", help="swept parameter to the right")
    group.add_argument("--y", required=True, metavar="NAME", help="swept parameter upwards")
    group.add_argument(
        "--color", default="late_rate", metavar="NAME",
        help="what was kept, as late_rate, limit_rank, verdict, law or share, or a measure at the "
        "last depth, as mu; medians over seeds and samples, of words the commonest",
    )  # fmt: skip
    group.add_argument(
        "--panels", metavar="NAME", help="one diagram for each value of it (default: one)"
    )
    group.add_argument(
        "--at", nargs="+", default=[], metavar="NAME=VALUE",
        help="the value of every other parameter that was swept, and of what else the colour "
        "depends on, as rank=2 type=fixed (default: none)",
    )  # fmt: skip


def prepare(options: argparse.Namespace, words: list[str]) -> Plan:
    at = {}
    for word in options.at:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"--at wants NAME=VALUE; got {word!r}")
        at[name] = value
    dataset = results(options.store)
    found = diagrams(dataset, options.x, options.y, options.color, options.panels, at)
    told = state(options.store)
    title = f"{options.color} in {Path(options.store).name}, {told.cells} cells"
    if told.done < told.cells:
        title += f": {told.done} are done, {len(told.failed)} failed"
    return Plan(found, title)


def compute(plan: Plan, options: argparse.Namespace, progress: Callable[[float], None]) -> Outcome:
    x, y, color = options.x, options.y, options.color
    panels = [_panel(diagram) for diagram in plan.found]
    data = {"x": x, "y": y, "color": color, "panels": panels}
    sentences = [_sentence(diagram, color) for diagram in plan.found]
    return Outcome(
        data=data,
        verdict="\n          ".join(sentences),
        subject=f"{Path(options.store).stem}-{color}",
        draw=lambda plots: draw(plan.found, x, y, color, plan.title),
    )


def _panel(diagram: Diagram) -> dict:
    return {
        "title": diagram.title,
        "x": diagram.x,
        "y": diagram.y,
        "values": _without_nan(diagram.values.tolist()),
        "seeds": diagram.seeds,
        "seeds_that_agree": None if diagram.agree is None else diagram.agree.tolist(),
        "lambda_2": diagram.theory and [second.value for second in diagram.theory],
        "powers_of_t": diagram.theory and [second.power for second in diagram.theory],
    }


def _without_nan(values: Any) -> Any:
    """Lists of numbers or words, with None for those that JSON does not have."""
    if isinstance(values, list):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and not np.isfinite(values) else values


def _sentence(diagram: Diagram, color: str) -> str:
    values = diagram.values
    if values.dtype.kind == "f":
        known = values[np.isfinite(values)]
        words = (
            f"{color} is {known.min():.4g} to {known.max():.4g}"
            if known.size
            else f"{color} has no value in any cell"
        )
        words += f" in {known.size} of {values.size} cells" * bool(known.size)
    else:
        kinds, counts = np.unique(values.astype(str), return_counts=True)
        listed = [f"{n} {kind or 'not computed'}" for kind, n in zip(kinds, counts, strict=True)]
        words = f"{color}: {', '.join(listed)}"
    return "; ".join(part for part in (f"{diagram.title}: " * bool(diagram.title) + words,
                                       diagram.agreement) if part)  # fmt: skip


COMMAND = Command(
    name="plot",
    description="The phase diagram of a sweep: two parameters, and what came out as colour.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=lambda options: ("zarr",),
    examples=EXAMPLES,
    label="drawing",
)
main = COMMAND.main
