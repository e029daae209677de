"""What a sweep is: parameters, a design and what is kept; checked before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from dynsim._files import as_path
from dynsim._values import check_name, shown, whole
from dynsim.sweeps.cells import CELLS
from dynsim.sweeps.designs import DESIGNS, POINT, Column
from dynsim.sweeps.devices import without_gpu
from dynsim.sweeps.kind import Kind
from dynsim.sweeps.parameters import Axis, read_axis

__all__ = ["Specification", "from_toml"]

#: A batch takes about so many seconds, and at most so many cells.
_BATCH_SECONDS, _BATCH_CELLS = 1.0, 1000
#: And a sweep has so many batches where it has so many cells, for the workers to share.
_LEAST_BATCHES = 16
#: Costs are averaged over so many cells, taken evenly.
_COST_CELLS = 200
#: So many cells are checked one by one before the work; of more, the rest fail alone.
_MOST_CHECKED = 10_000


@dataclass(frozen=True)
class Specification:
    """A sweep: a value or several of each parameter, and how they are combined.

    Make it with `Specification.of`. Axes of one value are settings of all cells; `replicates` are
    the seeds of ``seeds=K``, a dimension of their own in every design. `cell` is what a cell is, a
    name in `dynsim.sweeps.CELLS`.
    """

    axes: tuple[Axis, ...]
    replicates: Axis | None = None
    design: str = "grid"
    points: int | None = None
    design_seed: int = 0
    keep: tuple[str, ...] = ()
    cell: str = "run"

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, object],
        design: str = "grid",
        points: int | None = None,
        design_seed: int = 0,
        keep: Sequence[str] | None = None,
        cell: str = "run",
    ) -> Specification:
        """The specification of these parameters, each with one value, a list, or words for values
        (`dynsim.sweeps.parameters.read_axis`); every cell is checked.

        >>> sweep = Specification.of({"mask": "causal,local", "beta": "0.1:10:log3", "seeds": 2})
        >>> sweep.dims, sweep.settings((1, 2, 0))["beta"]
        ({'mask': 2, 'beta': 3, 'seed': 2}, 10.0)

        Raises ValueError for what cannot be, with the cell where it is one.
        """
        check_name("design", design, DESIGNS)
        check_name("kind of cell", cell, CELLS)
        kind = CELLS[cell]
        keep = kind.kept if keep is None else keep
        for name in keep:
            check_name(_of_kind("thing to keep", cell), name, kind.keep)
        for name in parameters:
            check_name(_of_kind("parameter", cell), name, [*kind.defaults, "seeds"])
        if {"seed", "seeds"} <= parameters.keys():
            raise ValueError("seeds=K stands for the seeds 0 to K - 1; leave seed out, or seeds")
        axes = {name: read_axis(name, given) for name, given in parameters.items()}
        replicates = axes.pop("seeds", None)
        made = cls(
            tuple(axes.values()),
            replicates,
            design,
            None if points is None else whole("number of points", points, least=1),
            whole("seed of the design", design_seed, least=0),
            tuple(dict.fromkeys(keep)),
            cell,
        )
        made._check()
        return made

    # --- the cells ------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        return CELLS[self.cell]

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """The parameters that have one value in all cells, by name."""
        single = {axis.name: axis.values[0] for axis in self.axes if _is_single(axis)}
        if self.replicates is not None and _is_single(self.replicates):
            single["seed"] = self.replicates.values[0]
        given = {axis.name for axis in self.axes} | ({"seed"} if self.replicates else set())
        return {n: v for n, v in self.kind.defaults.items() if n not in given} | single

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The parameters that vary, by name, each along one dimension."""
        varied = [axis for axis in self.axes if not _is_single(axis)]
        columns = {}
        if varied:
            columns = DESIGNS[self.design](varied, self.points, self.design_seed)
        if self.replicates is not None and not _is_single(self.replicates):
            columns["seed"] = Column("seed", self.replicates.values)
        return columns

    @cached_property
    def dims(self) -> dict[str, int]:
        """The dimensions of the cells and their sizes; the last one varies fastest."""
        dims = {column.dimension: len(column.values) for column in self.columns.values()}
        return dims or {POINT: 1}

    @property
    def n_cells(self) -> int:
        return prod(self.dims.values())

    def settings(self, index: Sequence[int]) -> dict[str, Any]:
        """The value of every parameter in the cell at this index."""
        at = dict(zip(self.dims, index, strict=True))
        varied = {
            name: column.values[at[column.dimension]] for name, column in self.columns.items()
        }
        found = self.fixed | varied
        return {"cell": self.cell} | {name: found[name] for name in self.kind.defaults}

    def values(self, name: str) -> tuple:
        """The values of a parameter in the sweep."""
        return self.columns[name].values if name in self.columns else (self.fixed[name],)

    # --- batches --------------------------------------------------------------------------------

    @cached_property
    def batch(self) -> tuple[int, ...]:
        """The cells of a batch along each dimension: whole trailing dimensions, as far as they go.

        A batch takes about a second by a model of costs, so that it is the same on every machine.
        """
        step = max(1, self.n_cells // _COST_CELLS)
        some = islice(np.ndindex(*self.dims.values()), 0, None, step)
        seconds = float(np.mean([self.kind.cost(self.settings(index)) for index in some]))
        left = max(1, min(int(_BATCH_SECONDS / seconds), _BATCH_CELLS))
        left = min(left, ceil(self.n_cells / _LEAST_BATCHES))
        sizes = []
        for size in reversed(self.dims.values()):
            sizes.append(min(size, left))
            left = max(1, left // size) if sizes[-1] == size else 1
        return tuple(reversed(sizes))

    @property
    def batches(self) -> Iterator[tuple[int, ...]]:
        """The number of every batch along each dimension."""
        sizes = zip(self.dims.values(), self.batch, strict=True)
        return product(*(range(ceil(size / cells)) for size, cells in sizes))

    @property
    def n_batches(self) -> int:
        sizes = zip(self.dims.values(), self.batch, strict=True)
        return prod(ceil(size / cells) for size, cells in sizes)

    def region(self, batch: Sequence[int]) -> tuple[slice, ...]:
        """Where a batch lies among the cells."""
        sizes = zip(batch, self.batch, self.dims.values(), strict=True)
        return tuple(slice(k * step, min((k + 1) * step, size)) for k, step, size in sizes)

    def size(self, batch: Sequence[int]) -> int:
        """The number of cells of a batch."""
        return prod(part.stop - part.start for part in self.region(batch))

    def cells(self, batch: Sequence[int]) -> list[dict[str, Any]]:
        """The settings of the cells of a batch, the last dimension fastest."""
        ranges = [range(part.start, part.stop) for part in self.region(batch)]
        return [self.settings(index) for index in product(*ranges)]

    # --- what is kept ---------------------------------------------------------------------------

    @cached_property
    def arrays(self) -> dict[str, tuple[tuple[str, ...], str]]:
        """What is kept: dimensions beside those of the cells, and type, by name."""
        table = self.kind.keep
        return {name: array for kept in self.keep for name, array in table[kept].arrays.items()}

    @cached_property
    def inner(self) -> dict[str, int]:
        """The sizes of the dimensions of what is kept that are not those of the cells."""
        return {name: n if isinstance(n, int) else len(n) for name, n in self._inner.items()}

    @cached_property
    def labels(self) -> dict[str, Sequence]:
        """The labels along those of them that have some."""
        return {name: n for name, n in self._inner.items() if not isinstance(n, int)}

    @cached_property
    def _inner(self) -> dict[str, int | Sequence]:
        used = {d for dims, _ in self.arrays.values() for d in dims}
        return {name: n for name, n in self.kind.dims(self.values).items() if name in used}

    @property
    def bytes(self) -> int:
        """What the store takes at most, before compression."""
        of_cell = 17  # status, and the words for verdict and law
        for dims, form in self.arrays.values():
            of_cell += 8 * prod(self.inner[d] for d in dims) * (form == "float64")
        return of_cell * self.n_cells

    @property
    def seconds(self) -> float:
        """Time of one core, by the same model as that of the batches."""
        step = max(1, self.n_cells // _COST_CELLS)
        some = islice(np.ndindex(*self.dims.values()), 0, None, step)
        return float(np.mean([self.kind.cost(self.settings(i)) for i in some])) * self.n_cells

    # --- words ----------------------------------------------------------------------------------

    @property
    def description(self) -> dict[str, Any]:
        """All that decides what is computed, ready for JSON; equal for equal sweeps."""
        axes = {axis.name: _described(axis) for axis in self.axes}
        if self.replicates is not None:
            axes["seeds"] = len(self.replicates.values)
        defaults = {n: v for n, v in self.kind.defaults.items() if n not in axes}
        if self.replicates is not None:
            defaults.pop("seed")
        inputs: dict[str, Any] = {}
        if self.kind.inputs is not None:
            for index in islice(self._to_check(), _MOST_CHECKED):
                inputs |= self.kind.inputs(self.settings(index))
        return {
            "cell": self.cell,
            "design": self.design,
            "points": self.points,
            "design_seed": self.design_seed,
            "keep": list(self.keep),
            "parameters": axes,
            "defaults": defaults,
            "batch": list(self.batch),
            **({"inputs": inputs} if inputs else {}),
        }

    @property
    def warning(self) -> str:
        """What is not as asked for where cells are computed on this machine; else nothing."""
        devices = self.values("device") if "device" in self.kind.defaults else ()
        return next(filter(None, map(without_gpu, devices)), "")

    def _to_check(self) -> Iterator[tuple[int, ...]]:
        """Cells that stand for all: of parameters whose values are right or wrong whatever the
        others are, one value after the other; of all others every combination."""
        sizes = [1 if name in _ALONE else size for name, size in self.dims.items()]
        yield from np.ndindex(*sizes)
        for place, (name, size) in enumerate(self.dims.items()):
            if name in _ALONE:
                for k in range(1, size):
                    yield tuple(k if i == place else 0 for i in range(len(sizes)))

    def _check(self) -> None:
        for kept, names in self.kind.single.items():
            for name in names:
                if name in self.columns and (not kept or kept in self.keep):
                    what = f"what {kept} need" if kept else "a dimension of the results"
                    raise ValueError(
                        f"{name} is {what}, so it has one value in a sweep; sweep another"
                    )
        for index in islice(self._to_check(), _MOST_CHECKED):
            settings = self.settings(index)
            try:
                self.kind.check(settings)
            except (ValueError, MemoryError) as error:
                at = ", ".join(f"{name}={settings[name]}" for name in self.columns)
                where = f"the cell {at}: " if at else ""
                raise type(error)(f"{where}{error}") from None


#: Parameters that constrain no others.
_ALONE = (
    "seed", "beta", "skip", "d_qk", "dropout", "attention_dropout", "depth", "starts", "exponents",
    "basin_samples", "flips", "layers", "discard", "untrained",
)  # fmt: skip


def _of_kind(what: str, cell: str) -> str:
    return what if cell == "run" else f"{what} of {cell}"


def _is_single(axis: Axis) -> bool:
    return len(axis.values) == 1


def _described(axis: Axis) -> Any:
    if axis.interval is not None:
        return {"from": axis.interval[0], "to": axis.interval[1], "log": axis.interval[2]}
    return axis.values[0] if _is_single(axis) else list(axis.values)


def from_toml(path: str | Path) -> dict[str, Any]:
    """The arguments of `Specification.of` in a TOML file: a table [parameters], and design, points,
    design_seed, keep and cell beside it.

    Raises ValueError when it is missing, not TOML, or has other entries.
    """
    import tomllib

    path = as_path(path)
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise ValueError(f"no specification at {path}; check the path given") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path}: not a TOML file ({error})") from None
    known = ("parameters", "design", "points", "design_seed", "keep", "cell")
    for name in content:
        check_name(f"entry of {path}", name, known)
    if not isinstance(content.get("parameters"), dict):
        raise ValueError(
            f"{path}: a table [parameters] is needed; got {shown(content.get('parameters'))}"
        )
    return content
