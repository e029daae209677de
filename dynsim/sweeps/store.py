"""The store of a sweep: one Zarr group on disk, the only memory of how far the sweep is.

    zarr.json            the specification and the versions of what computes, as attributes
    PARAMETER/           the values of a parameter, a coordinate
    NAME/                what is kept: dimensions are those of the cells, then sample, measure, ...
    error/               why a cell failed; empty elsewhere
    status/              1 where a cell is done, 2 where it failed, 0 where it is not computed

A chunk of every array is the cells of one batch, and one file. The chunk of `status` is written
last, by a rename: a batch is there when that file is, and was computed anew to the same bits where
it is not. One process writes, and holds a lock on zarr.json meanwhile; workers write nothing.
Nothing in it depends on time, workers or order, so equal sweeps leave equal bytes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dynsim._files import as_path, written_whole
from dynsim._values import shown
from dynsim._version import __version__

if TYPE_CHECKING:
    import xarray
    import zarr

    from dynsim.sweeps.specification import Specification

__all__ = ["DONE", "FAILED", "State", "Store", "results", "state", "versions"]

#: The status of a cell that was computed, and of one that failed.
DONE, FAILED = 1, 2
#: The attribute of the group that holds the specification.
_SPECIFICATION, _VERSIONS = "specification", "versions"


def versions() -> dict[str, str]:
    """Of everything that decides bits."""
    return {"dynsim": __version__} | {name: version(name) for name in ("numpy", "numba")}


class State(NamedTuple):
    """How far a sweep is.

    failed : the settings that vary, and the error, of each cell that failed
    seconds_left : by the pace of the batches that are there; None where nothing tells
    """

    cells: int
    done: int
    failed: list[tuple[dict[str, Any], str]]
    seconds_left: float | None

    @property
    def remaining(self) -> int:
        return self.cells - self.done - len(self.failed)


class Store:
    """A store to write into, of one specification; made where it is missing.

    Raises ValueError where the path holds something else, or a store of another specification or
    version; OSError where the system does not let it write.
    """

    def __init__(self, path: str | Path, specification: Specification) -> None:

        self.path, self.specification = as_path(path), specification
        if not self.path.exists():
            try:
                with written_whole(self.path, replaces=False) as temporary:
                    _create(temporary, specification)
            except OSError:
                if not _is_store(self.path):  # else another process made it meanwhile
                    raise
        group = _open(self.path, "r+")
        _refuse_another(self.path, dict(group.attrs), _attributes(specification))
        self._arrays: dict[str, zarr.Array] = dict(group.arrays())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """As the only process that writes. Raises ValueError while another one does."""
        try:
            with open(self.path / "zarr.json", "r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ValueError(
                        f"another process computes into {self.path}; wait for it, or give another "
                        f"store"
                    ) from None
                for part in self.path.rglob("*.partial"):  # of a process that was killed
                    part.unlink(missing_ok=True)
                yield
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise ValueError(
                f"{self.path}: cannot write there ({os.strerror(error.errno)}); make it writable, "
                f"or give another store"
            ) from None

    def has(self, batch: Sequence[int]) -> bool:
        return (self.path / "status" / "c" / "/".join(map(str, batch))).exists()

    def write(self, batch: Sequence[int], computed: Sequence[Mapping[str, Any] | str]) -> None:
        """Keep what `dynsim.sweeps.cells.compute` gave of the cells of a batch."""
        region = self.specification.region(batch)
        shape = tuple(part.stop - part.start for part in region)
        failed = np.array([isinstance(cell, str) for cell in computed])
        for name in self.specification.arrays:
            values = [None if isinstance(cell, str) else cell[name] for cell in computed]
            self._put(name, region, shape, values)
        if failed.any():
            self._put("error", region, shape, [c if isinstance(c, str) else "" for c in computed])
        elif self._stored_errors(batch):
            self._put("error", region, shape, [""] * len(computed))
        self._arrays["status"][region] = np.where(failed, FAILED, DONE).reshape(shape)

    def _stored_errors(self, batch: Sequence[int]) -> bool:
        return (self.path / "error" / "c" / "/".join(map(str, batch))).exists()

    def _put(self, name: str, region: tuple, shape: tuple, values: list) -> None:
        array = self._arrays[name]
        inner = array.shape[len(shape) :]
        kind: Any = object if _is_text(array) else np.float64
        missing = "" if _is_text(array) else np.nan
        block = np.full((len(values), *inner), missing, kind)
        for k, value in enumerate(values):
            if value is not None:  # a cell may have fewer ranks, say, than the largest one
                corner: Any = tuple(slice(size) for size in np.shape(value))
                block[(k, *corner)] = value
        array[region] = block.reshape(shape + inner)

    def failed_cells(self, batch: Sequence[int]) -> list[int]:
        """The places in a finished batch of the cells that failed."""
        status = self._arrays["status"][self.specification.region(batch)]
        return np.flatnonzero(np.ravel(status) == FAILED).tolist()

    def read(self, batch: Sequence[int]) -> list[dict[str, Any] | str]:
        """What `write` was given of a finished batch."""
        region = self.specification.region(batch)
        cells = self.specification.size(batch)
        status = np.ravel(self._arrays["status"][region])
        errors = np.ravel(self._arrays["error"][region])
        blocks = {}
        for name in self.specification.arrays:
            block = np.asarray(self._arrays[name][region])
            blocks[name] = block.reshape(cells, *block.shape[len(region) :])
        return [
            str(errors[k]) if status[k] == FAILED else {n: b[k] for n, b in blocks.items()}
            for k in range(cells)
        ]


def results(path: str | Path) -> xarray.Dataset:
    """The store as a dataset that reads what is looked at, and only that.

    Its dimensions are those of the cells, then sample, measure, ...; a cell that is not computed
    or failed is NaN, or "". ``status`` is 1 where a cell is done and 2 where it failed.

    Raises ValueError where there is no store of a sweep.
    """
    import xarray as xr

    _open(as_path(path), "r")
    dataset = xr.open_zarr(path, consolidated=False, chunks=None)
    # a file system lists arrays in an order of its own; parameters come as they were given
    given = [n for n in dataset.attrs[_SPECIFICATION]["parameters"] if n in dataset.coords]
    names = [*given, *sorted(set(map(str, dataset.coords)) - set(given))]
    coords = {name: dataset.coords[name] for name in names}
    return xr.Dataset(dataset.data_vars, coords, dataset.attrs)


def state(path: str | Path) -> State:
    """How far the sweep of a store is. Raises as `results`."""
    dataset = results(path)
    status = dataset["status"].values
    failed = []
    if (status == FAILED).any():
        for index in np.argwhere(status == FAILED):
            cell = dataset["error"][tuple(index)]
            at = {str(name): value.item() for name, value in cell.coords.items()}
            failed.append((at, str(cell.values)))
    done = int((status == DONE).sum())
    left = int((status == 0).sum())
    return State(status.size, done, failed, _seconds_left(as_path(path), left / status.size))


def _seconds_left(path: Path, share_left: float) -> float | None:
    times = [f.stat().st_mtime for f in (path / "status" / "c").rglob("*") if f.is_file()]
    if share_left == 0.0 or len(times) < 2:
        return 0.0 if share_left == 0.0 else None
    pace = (max(times) - min(times)) / (len(times) - 1)
    return pace * len(times) * share_left / (1.0 - share_left)


# --- the group ------------------------------------------------------------------------------------


def _create(path: Path, specification: Specification) -> None:
    import zarr

    group = zarr.create_group(path, attributes=_attributes(specification))
    dims = specification.dims
    for name, column in specification.columns.items():
        _coordinate(group, name, column.dimension, column.values)
    for name, labels in specification.labels.items():
        _coordinate(group, name, name, labels)
    arrays = {
        **specification.arrays,
        "error": ((), "string"),
        "status": ((), "int8"),
    }
    for name, (inner, kind) in arrays.items():
        sizes = tuple(specification.inner[d] for d in inner)
        group.create_array(
            name,
            shape=(*dims.values(), *sizes),
            chunks=(*specification.batch, *sizes),
            dtype=kind,
            fill_value={"float64": np.nan, "string": "", "int8": 0}[kind],
            dimension_names=(*dims, *inner),
            attributes={"coordinates": " ".join(specification.columns)},
        )


def _coordinate(group: zarr.Group, name: str, dimension: str, values: Sequence) -> None:
    texts = isinstance(values[0], str)
    kind = "string" if texts else np.asarray(values).dtype
    array = group.create_array(
        name, shape=(len(values),), chunks=(len(values),), dtype=kind, dimension_names=(dimension,)
    )
    array[:] = np.array(values, dtype=object if texts else None)


def _is_text(array: zarr.Array) -> bool:
    return array.dtype.kind not in "fib"


def _attributes(specification: Specification) -> dict[str, Any]:
    written = {_SPECIFICATION: specification.description, _VERSIONS: versions()}
    return json.loads(json.dumps(written))


def _is_store(path: Path) -> bool:
    return (path / "zarr.json").is_file()


def _open(path: Path, mode: Any) -> zarr.Group:
    import zarr

    if not _is_store(path):
        raise ValueError(f"there is no store of a sweep at {path}; check the path given")
    try:
        group = zarr.open_group(path, mode=mode)
    except Exception as error:  # zarr raises types of its own
        raise ValueError(f"{path}: not a Zarr group ({error})") from None
    if _SPECIFICATION not in group.attrs:
        raise ValueError(f"{path} is a Zarr group, but not of a sweep; give another path")
    return group


def _refuse_another(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise ValueError with the first entries that differ."""
    there, here = _flat(theirs), _flat(ours)
    different = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    if not different:
        return
    words = "; ".join(
        f"{name} is {shown(there.get(name))} there and {shown(here.get(name))} here"
        for name in different[:3]
    )
    raise ValueError(f"{path} is the store of another sweep: {words}; give another store")


def _flat(entries: Mapping[str, Any], names: tuple[str, ...] = ()) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, (*names, name))
        else:
            flat[" ".join((*names[1:], name))] = value
    return flat
