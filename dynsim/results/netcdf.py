"""NetCDF4 files of labelled arrays, as xarray writes and reads them, without its start-up time."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Labelled", "read", "write"]


class Labelled(NamedTuple):
    """Arrays by name as (dimensions, values, attributes), and attributes of the whole.

    An array of the name of its only dimension is that dimension's coordinate.
    """

    arrays: Mapping[str, tuple[tuple[str, ...], np.ndarray, Mapping]]
    attributes: Mapping[str, str]


def write(path: str | Path, labelled: Labelled) -> None:
    """Make a NetCDF4 file that any reader of the format opens; NaN stands for missing.

    It is made in memory: where a disk is full, the HDF5 library ends the process.
    """
    import h5netcdf

    memory = BytesIO()
    with h5netcdf.File(memory, "w") as file:
        for dimensions, values, _ in labelled.arrays.values():
            for name, size in zip(dimensions, values.shape, strict=True):
                if name not in file.dimensions:
                    file.dimensions[name] = size
        for name, (dimensions, values, attributes) in labelled.arrays.items():
            missing = values.dtype.type(np.nan) if values.dtype.kind == "f" else None
            variable = file.create_variable(
                name, dimensions, values.dtype, data=values, fillvalue=missing
            )
            variable.attrs.update(attributes)
        file.attrs.update(labelled.attributes)
    Path(path).write_bytes(memory.getbuffer())


def read(path: str | Path) -> Labelled:
    """All that is in a NetCDF4 file."""
    import h5netcdf

    with h5netcdf.File(path, "r") as file:
        arrays = {
            name: (variable.dimensions, variable[...], dict(variable.attrs))
            for name, variable in file.variables.items()
        }
        return Labelled(arrays, dict(file.attrs))
