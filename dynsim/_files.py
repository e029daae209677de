"""Files: arrays read without pickle and with clear errors; results written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from dynsim._values import real_array, unknown

__all__ = ["SUFFIXES", "read_arrays", "read_named_arrays", "written_whole"]


def read_named_arrays(path) -> dict[str, np.ndarray]:
    """All arrays of a file by name; a file of one array gives the name "".

    Raises ValueError when the file is missing, unreadable, pickled, empty or not finite numbers.
    """
    path = Path(path)
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"{path}: {unknown('kind of file', path.suffix, SUFFIXES)}")
    try:
        arrays = _READERS[path.suffix.lower()](path)
    except FileNotFoundError:
        raise ValueError(f"no file at {path}; check the path given") from None
    except ImportError:
        raise ValueError(
            f"{path}: .safetensors files need the safetensors package; pip install 'dynsim[models]'"
        ) from None
    except Exception as error:  # the parsers behind this raise types of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path}: not readable as {path.suffix} ({reason}); pickled arrays are not read"
        ) from None
    if not arrays:
        raise ValueError(f"{path}: holds no array")
    for name, array in arrays.items():
        label = f" {name!r}" if name else ""
        real_array(f"{path}: array{label}", array)
        if not np.all(np.isfinite(array)):
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(f"{path}: array{label} has {array[where]} at index {where}")
    return arrays


def read_arrays(path, prefer: str) -> np.ndarray:
    """The only array of a file, or the one named `prefer`; float32 if stored so, else float64."""
    arrays = read_named_arrays(path)
    if len(arrays) > 1 and prefer not in arrays:
        raise ValueError(
            f"{path}: holds several arrays ({', '.join(arrays)}); name one of them {prefer!r}"
        )
    array = arrays.get(prefer, next(iter(arrays.values())))
    return real_array(f"{path}", array, own=(np.float32,))


def _read_npy(path: Path) -> dict:
    return {"": np.load(path, allow_pickle=False)}


def _read_npz(path: Path) -> dict:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_csv(path: Path) -> dict:
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if lines and not any(_is_number(cell) for cell in lines[0].split(",")):
        lines = lines[1:]  # a heading; a row with one bad cell is an error, not a heading
    return {"": np.loadtxt(lines, delimiter=",", ndmin=2)} if lines else {}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_safetensors(path: Path) -> dict:
    from safetensors.numpy import load_file

    if not path.exists():
        raise FileNotFoundError(path)
    return load_file(path)


_READERS = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".safetensors": _read_safetensors,
}
#: Suffixes of the files that hold arrays.
SUFFIXES = tuple(_READERS)


class written_whole:
    """Context manager: write beside `path`, then rename, so that no half file is ever left.

    >>> with written_whole("note.txt") as temporary:  # doctest: +SKIP
    ...     Path(temporary).write_text("all of it")
    """

    def __init__(self, path):
        self.path = Path(path)

    def __enter__(self) -> Path:
        if self.path.is_dir() and self.path.suffix != ".zarr":
            raise ValueError(f"{self.path} is a folder and is not replaced; choose another name")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        self.temporary = self._folder / self.path.name
        return self.temporary

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                if self.path.is_dir():  # a Zarr store cannot be renamed over
                    os.replace(self.path, self._folder / "old")
                os.replace(self.temporary, self.path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
