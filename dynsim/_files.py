"""Files: arrays read without pickle and with clear errors; results written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import real_array, shown, unknown

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["SUFFIXES", "as_path", "read_arrays", "read_named_arrays", "read_text", "written_whole"]


def as_path(path: object) -> Path:
    """`path` as a pathlib.Path. Raises ValueError unless it is one, or a str."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"a path is a str or a pathlib.Path; got {shown(path)}")
    return Path(path)


def read_text(path: str | Path) -> str:
    """A text in UTF-8. Raises ValueError when it cannot be read, or is empty."""
    try:
        text = as_path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot read the text ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text; convert it first") from None
    if not text.strip():
        raise ValueError(f"{path}: the text is empty")
    return text


def read_named_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name; a file of one array gives the name "".

    Raises ValueError when the file is missing, unreadable, pickled, empty or not finite numbers.
    """
    path = as_path(path)
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


def read_arrays(path: str | Path, prefer: str) -> np.ndarray:
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

    What is written lies in a folder of this process until then. Folders of processes that were
    killed are removed by the next one that writes into the same place on the same machine.

    With ``replaces=False`` a folder is only made where there is none: two processes that make one
    at the same time do not take it from one another.

    Raises ValueError where a folder is in the way, and OSError with path and remedy where the
    system does not let it write: no space left, no permission.

    >>> with written_whole("note.txt") as temporary:  # doctest: +SKIP
    ...     Path(temporary).write_text("all of it")
    """

    def __init__(self, path: str | Path, replaces: bool = True) -> None:
        self.path, self.replaces = Path(path), replaces

    def __enter__(self) -> Path:
        if self.path.is_dir() and self.path.suffix != ".zarr":
            raise ValueError(f"{self.path} is a folder and is not replaced; choose another name")
        parent = self.path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_what_killed_processes_left(parent)
            prefix = f".dynsim-{_machine()}-{os.getpid()}-"
            self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        except OSError as error:
            raise _with_remedy(error, self.path) from None
        self.temporary = self._folder / self.path.name
        return self.temporary

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if self.replaces and self.path.is_dir():  # a Zarr store cannot be renamed over
                    os.replace(self.path, self._folder / _REPLACED)
                os.replace(self.temporary, self.path)
        except OSError as refused:
            raise _with_remedy(refused, self.path) from None
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno and self._concerns(error.filename):
            raise _with_remedy(error, self.path) from None

    def _concerns(self, name: str | bytes | int | None) -> bool:
        """Whether an error about the file of this name, or of none, is one of writing here."""
        return name is None or str(self._folder) in str(name)


#: What an earlier folder at the path is called while a new one takes its place.
_REPLACED = "replaced"
#: A folder of `written_whole`: machine and process.
_TEMPORARY = re.compile(r"\.dynsim-([0-9a-f]{8})-(\d+)-\w+")
#: The disk is full, a quota is used up, or a file is larger than is allowed.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _with_remedy(error: OSError, path: Path) -> OSError:
    """The error as one line: what, what to do, where."""
    remedy = "free some space or write" if error.errno in _NO_SPACE else "write"
    reason = str(error) if error.errno is None else os.strerror(error.errno)
    words = f"{reason}, so nothing was written; {remedy} to another folder"
    return OSError(error.errno, words, str(path))


@lru_cache
def _machine() -> str:
    """A mark of this machine, or of this container: where a process number means one process."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        space = ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def _remove_what_killed_processes_left(parent: Path) -> None:
    for folder in parent.iterdir():
        name = _TEMPORARY.fullmatch(folder.name)
        if name is None or name[1] != _machine() or _is_alive(int(name[2])):
            continue
        if (folder / _REPLACED).exists():  # killed between two renames: the new one is whole
            for whole in folder.iterdir():
                if whole.name != _REPLACED and not (parent / whole.name).exists():
                    os.replace(whole, parent / whole.name)
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True
