"""``dynsim sweep``: compute many settings, into one store."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from dynsim.cli.command import Command, Outcome
from dynsim.cli.completion import completes
from dynsim.sweeps.cells import CELLS
from dynsim.sweeps.designs import DESIGNS
from dynsim.sweeps.execution import Cluster, Local, Machines
from dynsim.sweeps.parameters import PARAMETERS
from dynsim.sweeps.specification import Specification, from_toml
from dynsim.sweeps.store import State, Store, results, state
from dynsim.sweeps.sweep import Interrupted, complete

if TYPE_CHECKING:
    from dynsim.reports.page import Page

__all__ = ["COMMAND", "main"]

EXAMPLES = """\
  python -m dynsim sweep --grid mask=local,causal-local window=1:16:log5 value=orthogonal \\
                                beta=0.1:10:log9 norm=unit depth=200 seeds=5 --out STORE
      450 cells, in as many processes as there are cores; --explain says what it would take
  python -m dynsim sweep SPEC.toml --out STORE
      the same from a file: design, points, keep, cell, and a table [parameters]
  python -m dynsim sweep --design sobol --points 256 --grid beta=0.1:10:log skip=0:1 --out STORE
      256 points of two intervals
  python -m dynsim sweep --cell basins --grid mask=causal,complete value=jordan:2,orthogonal \\
                                starts=1000 seeds=3 --out STORE
      where random starts end; other cells are equilibria, lyapunov and probe
  python -m dynsim sweep status STORE
      how many cells are done, which failed and why, how long the rest takes
  python -m dynsim sweep status STORE --json
      the same for scripts
"""
NOTES = """\
words for values: A,B,... (A;B where values hold commas); of numbers A..B, A..B..STEP, A:B:lin5,
A:B:log5; intervals of sobol and latin: A:B, A:B:log. A parameter of one value holds in all cells.
{cells}
The same command goes on with a store that is not complete. Read it with
dynsim.sweeps.results(STORE), or xarray.open_zarr(STORE, consolidated=False).
"""
#: Failed cells that `status` lists.
_LISTED = 20


class Plan(NamedTuple):
    """What to do: the sweep, or only to tell of a store."""

    store: Path | None
    specification: Specification | None
    machines: Machines | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="*", metavar="SPEC.toml | status STORE",
        help="a file instead of --grid, or: how far the sweep of a store is (default: --grid)",
    )  # fmt: skip
    group = parser.add_argument_group("sweep")
    grid = group.add_argument(
        "--grid", nargs="+", default=[], metavar="NAME=VALUES",
        help=f"values of parameters: {', '.join(CELLS['run'].defaults)}; seeds=K for the seeds 0 "
        f"to K - 1 (default: none)",
    )  # fmt: skip
    completes(grid, [f"{name}=" for name in (*PARAMETERS, "seeds")])
    design = group.add_argument(
        "--design", metavar="NAME", help=f"{', '.join(DESIGNS)} (default: grid)"
    )
    completes(design, DESIGNS)
    group.add_argument(
        "--points", type=int, metavar="P", help="points of sobol and latin (default: none)"
    )
    group.add_argument(
        "--design-seed", type=int, metavar="K", help="seed of sobol and latin (default: 0)"
    )
    cell = group.add_argument(
        "--cell", metavar="NAME",
        help=f"what a cell is: {', '.join(CELLS)}; below is what each takes (default: run)",
    )  # fmt: skip
    completes(cell, CELLS)
    run = CELLS["run"]
    group.add_argument(
        "--keep", metavar="A,B,...",
        help=f"what is kept of a cell: {', '.join(run.keep)} (default: {','.join(run.kept)})",
    )  # fmt: skip
    group.add_argument(
        "--out", metavar="STORE", help="folder of the store; a sweep needs it (default: none)"
    )
    group.add_argument(
        "--workers", type=int, metavar="P", help="processes (default: the number of cores)"
    )
    group.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="use the workers of the Dask cluster whose scheduler is there, as tcp://host:8786 "
        "(default: processes of this machine)",
    )  # fmt: skip
    group.add_argument(
        "--explain", action="store_true", help="say what it would take, and compute nothing"
    )
    group.add_argument("--retry", action="store_true", help="compute cells that failed once more")


def prepare(options: argparse.Namespace, words: list[str]) -> Plan:
    if options.workers is not None and options.workers < 1:
        raise ValueError(f"--workers is at least 1; got {options.workers}")
    if options.what[:1] == ["status"]:
        if len(options.what) != 2:
            raise ValueError("sweep status takes one store: sweep status STORE")
        results(options.what[1])
        return Plan(Path(options.what[1]), None)
    specification = _specification(options)
    if options.explain and options.report is not None:
        raise ValueError("--explain computes nothing to report; leave --report out")
    if options.explain:
        return Plan(None, specification)
    if options.out is None:
        raise ValueError("a sweep needs a place for its results: --out STORE")
    machines = _machines(options)
    with Store(options.out, specification).locked():
        return Plan(Path(options.out), specification, machines)


def _machines(options: argparse.Namespace) -> Machines:
    if options.scheduler is None:
        return Local(options.workers)
    if options.workers is not None:
        raise ValueError("--workers are processes here; --scheduler has its own; leave one out")
    import distributed  # noqa: F401  its loggers are set by that

    for name in logging.root.manager.loggerDict:  # errors are one line, and ours
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return Cluster(options.scheduler)


def _specification(options: argparse.Namespace) -> Specification:
    if bool(options.what) == bool(options.grid) or len(options.what) > 1:
        raise ValueError("a sweep is a file SPEC.toml or --grid NAME=VALUES ..., one of the two")
    given = from_toml(options.what[0]) if options.what else {"parameters": _parameters(options)}
    keep = options.keep and [word.strip() for word in options.keep.split(",") if word.strip()]
    own = {
        "cell": options.cell,
        "design": options.design,
        "points": options.points,
        "design_seed": options.design_seed,
        "keep": keep,
    }
    return Specification.of(**given | {k: v for k, v in own.items() if v is not None})


def _parameters(options: argparse.Namespace) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for word in options.grid:
        name, equals, listed = word.partition("=")
        name = name.replace("-", "_")
        if not equals:
            raise ValueError(f"--grid wants NAME=VALUES; got {word!r}")
        if name in parameters:
            raise ValueError(f"--grid {name}= is given twice; write all values in one list")
        parameters[name] = listed
    return parameters


def announce(plan: Plan) -> str:
    if plan.specification is None or isinstance(plan.machines, Cluster):
        return ""
    return plan.specification.warning


def compute(plan: Plan, options: argparse.Namespace, progress: Callable[[float], None]) -> Outcome:
    if plan.specification is None:
        assert plan.store is not None
        return _of_state(state(plan.store), plan.store)
    if plan.store is None or plan.machines is None:
        return _explained(plan.specification, Local(options.workers).workers)
    try:
        store = Store(plan.store, plan.specification)
        complete(store, plan.machines, options.retry, progress)
    except Interrupted as stop:
        raise KeyboardInterrupt(f"{stop}; the same command goes on") from None
    return _of_state(state(plan.store), plan.store)


def _explained(specification: Specification, workers: int) -> Outcome:
    batch = specification.n_cells / specification.n_batches
    needs = {
        "cells": specification.n_cells,
        "batches": specification.n_batches,
        "seconds": specification.seconds / workers,
        "bytes": specification.bytes,
        "memory": int(batch * specification.bytes / specification.n_cells * (2 * workers + 2)),
    }
    dims = " x ".join(f"{name} {size}" for name, size in specification.dims.items())
    lines = [
        ("cells", f"{needs['cells']} ({dims})"),
        ("batches", f"{needs['batches']}, one file of each array and one task each"),
        ("time", f"about {_time(needs['seconds'])} with {workers} workers, by a model of costs"),
        ("disk", f"at most {_size(needs['bytes'])}, before compression"),
        ("memory", f"{_size(needs['memory'])} of results under way, beside the workers' own"),
    ]
    table = "\n".join(f"{name:<10}{words}" for name, words in lines)
    return Outcome(needs, f"a sweep of {needs['cells']} cells; nothing was computed", table)


def _of_state(found: State, store: Path) -> Outcome:
    data = {
        "store": str(store),
        "cells": found.cells,
        "done": found.done,
        "failed": [at | {"error": error} for at, error in found.failed],
        "remaining": found.remaining,
        "seconds_left": found.seconds_left,
    }
    lines = [f"{name:<10}{data[name]}" for name in ("cells", "done")]
    lines += [f"{'failed':<10}{len(found.failed)}", f"{'remaining':<10}{found.remaining}"]
    if found.remaining and found.seconds_left is not None:
        lines.append(f"{'time left':<10}about {_time(found.seconds_left)}, at the pace so far")
    for at, error in found.failed[:_LISTED]:
        where = ", ".join(f"{name}={value}" for name, value in at.items())
        lines.append(f"failed at {where}: {error}")
    if len(found.failed) > _LISTED:
        lines.append(f"and {len(found.failed) - _LISTED} more; --json lists all")
    words = f"{found.done} of {found.cells} cells are done"
    if found.failed:
        words += f", {len(found.failed)} failed; --retry computes these once more"
    if found.remaining:
        words += f", {found.remaining} remain; the command of the sweep goes on with them"
    table = "\n".join(lines) + f"\n{'store':<10}{os.path.relpath(store)}"
    return Outcome(
        data, words, table, page=lambda: _page(store, words), status=1 if found.failed else 0
    )


def _page(store: Path, sentence: str) -> Page:
    """The page of --report."""
    from dynsim.reports import sweeps

    return sweeps.page(store, [sentence])


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} seconds"


def _size(number: float) -> str:
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} bytes"


def _packages(options: argparse.Namespace) -> tuple[str, ...]:
    of_cell = CELLS[options.cell].packages if options.cell in CELLS else ()
    return ("zarr", *(("distributed",) if options.scheduler else ()), *of_cell)


def _cells_in_words() -> str:
    """What the kinds of cells other than runs are, take and keep."""
    lines = []
    for name, kind in CELLS.items():
        if name != "run":
            own = [p for p in kind.defaults if p not in CELLS["run"].defaults]
            shared = [p for p in kind.defaults if p not in own]
            lines += [
                f"--cell {name}: {kind.about}",
                *wrap(f"parameters {', '.join(own + shared)}; keeps {', '.join(kind.keep)}",
                      96, initial_indent="    ", subsequent_indent="    "),
            ]  # fmt: skip
    return "\n".join(lines)


COMMAND = Command(
    name="sweep",
    description="Compute a run, or another cell, for many settings, into one store that loses "
    "nothing.",
    add_options=add_options,
    prepare=prepare,
    announce=announce,
    compute=compute,
    packages=_packages,
    examples=EXAMPLES,
    notes=NOTES.format(cells=_cells_in_words()),
    label="sweeping",
    reports=True,
    writes=False,
)
main = COMMAND.main
