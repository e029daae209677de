"""Debug mode: with DYNSIM_GUARDS=1 every array of a kernel lies between guards while it runs.

Each array is moved to memory of its own: on one side a page that cannot be touched, so that the
process ends; on the other, and in what is left before the page, bytes that are NaN to who reads
them and are looked at afterwards. Scratch memory is filled with NaN, so that nothing is read before
it is written. `tests/guarded.py` runs some hundreds of shapes so.
"""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import numpy as np

from dynsim.kernels.record import Arguments

__all__ = ["around", "moved_arrays", "wanted"]

_PAGE, _NAN = mmap.PAGESIZE, 0xFF
_C = ctypes.CDLL(None, use_errno=True)
_lock = Lock()
#: Arrays that are between guards now, by place and size, with how many calls use them: the members
#: of a team share theirs.
_shared: dict[tuple, list] = {}
#: How many arrays have been moved, for tests.
moved_arrays = [0]


def wanted() -> bool:
    """Whether the debug mode is on."""
    return bool(os.environ.get("DYNSIM_GUARDS"))


class _Guarded:
    """A copy of an array between guards, at the same place within a line of the cache."""

    def __init__(self, array: np.ndarray, at_start: bool, scratch: bool):
        self.original, size = array, array.nbytes
        offset = array.ctypes.data % 64
        held = -(-(size + 64) // _PAGE) * _PAGE
        self.memory = mmap.mmap(-1, held + 2 * _PAGE)
        bytes_ = np.frombuffer(self.memory, np.uint8)
        self.base = bytes_.ctypes.data
        self.begin = offset if at_start else (held - size - offset) // 64 * 64 + offset
        self.end = self.begin + size
        self.inner = bytes_[_PAGE : _PAGE + held]
        self.inner[:] = _NAN
        self.copy = self.inner[self.begin : self.end].view(array.dtype).reshape(array.shape)
        if not scratch:
            self.copy[...] = array
        self._protect(0)

    def _protect(self, rights: int) -> None:
        for page in (0, len(self.memory) - _PAGE):
            if _C.mprotect(ctypes.c_void_p(self.base + page), ctypes.c_size_t(_PAGE), rights):
                raise OSError(ctypes.get_errno(), "mprotect")

    def give_back(self, name: str) -> None:
        """Look at the guards, and copy what was computed to the original."""
        self._protect(mmap.PROT_READ | mmap.PROT_WRITE)
        outside = np.concatenate([self.inner[: self.begin], self.inner[self.end :]])
        if (outside != _NAN).any():
            raise SystemError(f"a kernel wrote beside {name}, of shape {self.original.shape}")
        if self.original.flags.writeable:
            self.original[...] = self.copy
        elif self.original.tobytes() != self.copy.tobytes():
            raise SystemError(f"a kernel wrote into {name}, which it may only read")


@contextmanager
def around(given: Arguments) -> Iterator[Arguments]:
    """The arguments with all arrays between guards, whose contents go back at the end."""
    moved, taken = given.copy(), {}
    with _lock:
        for name, array in given.arrays.items():
            if not array.nbytes:
                continue
            key = array.ctypes.data, array.nbytes, array.dtype.char
            if key not in _shared:
                moved_arrays[0] += 1
                scratch = bool(given.record.arrays[name].scratch)
                _shared[key] = [_Guarded(array, moved_arrays[0] % 2 == 0, scratch), 0]
            if key not in taken.values():
                _shared[key][1] += 1
            taken[name] = key
            moved.set(**{name: _shared[key][0].copy})
    try:
        yield moved
    finally:
        with _lock:
            for key, name in {key: name for name, key in taken.items()}.items():
                guarded, users = _shared[key]
                _shared[key][1] = users - 1
                if users == 1:
                    del _shared[key]
                    guarded.give_back(name)
