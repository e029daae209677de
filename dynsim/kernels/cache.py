"""Machine code on disk, kept between processes.

It is found again if every file of this package, the versions of the compiler and the processor are
the same; where it cannot be kept, kernels are compiled anew and one warning says so. Kept code is
run, so it is only taken from folders and files that belong to the user and that nobody else can
write to.
"""

import hashlib
import os
import sys
import tempfile
import warnings
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding as llvm

from dynsim.kernels import processor

__all__ = ["place_of", "read", "write"]


def place_of(name: str, *what) -> Path | None:
    """Where the code of a kernel lies, `what` being all that it was compiled for; None: nowhere."""
    folder = _folder()
    mark = hashlib.sha256(repr((_environment(), name, *what)).encode()).hexdigest()[:24]
    return folder and folder / f"{name}-{mark}.kernel"


@lru_cache
def _environment() -> tuple[str, ...]:
    """All that machine code depends on, beside the kernel and its types."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    versions = (version("numba"), version("llvmlite"), *map(str, sys.version_info[:2]))
    return (sources, *versions, llvm.get_process_triple(), processor.NAME, processor.FEATURES)


@lru_cache
def _folder() -> Path | None:
    """The first folder of ours that can be written: NUMBA_CACHE_DIR alone if it is set."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        places = [Path(os.environ["NUMBA_CACHE_DIR"]) / "dynsim"]
    else:
        mac = Path.home() / "Library/Caches" if sys.platform == "darwin" else None
        shared = os.environ.get("XDG_CACHE_HOME") or mac or Path.home() / ".cache"
        places = [Path(__file__).parent / "__pycache__", Path(shared) / "dynsim"]
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                place.mkdir(mode=0o700)  # a umask can only take from that
            _require_ours(place, place.stat())
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            reason = error
        else:
            return place
    _warn_unkept(reason)
    return None


def _require_ours(place: Path, status: os.stat_result) -> None:
    """Raise PermissionError where another user could have put code: machine code is run."""
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{place} belongs to another user, whose code is not run")
    if status.st_mode & 0o022:
        raise PermissionError(f"{place} can be written by other users, whose code is not run")


def read(place: Path | None) -> bytes | None:
    """What `write` wrote there; None if nothing is there, or it is damaged or not ours."""
    if place is None:
        return None
    try:
        with open(place, "rb") as file:
            _require_ours(place, os.fstat(file.fileno()))
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn("a kept kernel is not used but made anew", error)
        return None
    digest, code = content[:32], content[32:]
    if hashlib.sha256(code).digest() != digest:
        _warn("a kept kernel is damaged and made anew", place)
        return None
    return code


def write(place: Path | None, code: bytes) -> None:
    if place is None:
        return
    name = None
    try:
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
            name = file.name
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(name, place)
    except BaseException as error:
        if name is not None:
            os.unlink(name)
        if not isinstance(error, OSError):
            raise
        _warn_unkept(error)


def _warn_unkept(error: OSError) -> None:
    _warn(
        "compiled kernels cannot be kept, so they are compiled anew (seconds); set "
        "NUMBA_CACHE_DIR to a folder of yours that others cannot write to",
        error,
    )


_warned = set()


def _warn(words: str, reason) -> None:
    """Once a process for all reasons."""
    if words not in _warned:
        _warned.add(words)
        warnings.warn(f"{words} ({' '.join(str(reason).split())})", RuntimeWarning, stacklevel=2)
