"""What a kernel is given, declared once: a record of sizes, settings and pointers.

`Record` says which fields there are, and for each array how many numbers it has to hold, as a
function of the sizes. The compiler takes the places of the fields from it, `Arguments` the checks,
and the sizes of scratch memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["Arguments", "Array", "Record", "Scratch", "aligned"]


@dataclass(frozen=True)
class Array:
    """A pointer to numbers.

    size : how many there have to be, from the sizes of the record and `w`, the lanes of a vector
    numbers : "float64", "int64", "int32", or "real" for the type that the record is filled with
    scratch : "" for an array of the caller; else whose memory it is, "job" or "team"
    """

    size: Callable[[Any], int]
    numbers: str = "real"
    scratch: str = ""


class Record:
    """Fields of 8 bytes each, one after another: integers, numbers (float64) and pointers."""

    def __init__(self, integers: str, numbers: str = "", **arrays: Array):
        self.integers, self.numbers = integers.split(), numbers.split()
        self.arrays = arrays
        names = [*self.integers, *self.numbers, *arrays]
        self.places = {name: place for place, name in enumerate(names)}

    def scratch(self, owner: str) -> dict[str, Array]:
        """The arrays that are this owner's scratch memory."""
        return {name: array for name, array in self.arrays.items() if array.scratch == owner}


class Arguments:
    """A record filled in: what one call of a kernel is given.

    Parameters
    ----------
    record : Record
    real : float64 or float32
    w : int
        How many numbers the kernel takes at once.
    values
        All integers and numbers of the record, and arrays; more can be set later.

    Raises ValueError for an array of another type, or with gaps.
    """

    def __init__(self, record: Record, real, w: int, **values):
        self.record, self.real, self.w = record, np.dtype(real), w
        self.words = np.zeros(len(record.places), np.int64)
        self.sizes = SimpleNamespace(w=w)
        self.arrays: dict[str, np.ndarray] = {}
        missing = {*record.integers, *record.numbers} - set(values)
        if missing:
            raise ValueError(f"a record needs all its sizes and settings; {sorted(missing)} lack")
        self.set(**values)

    @property
    def address(self) -> int:
        return int(self.words.ctypes.data)

    def set(self, **values) -> None:
        """Set some fields; sizes before the arrays that depend on them."""
        for name, value in values.items():
            place = self.record.places[name]
            array = self.record.arrays.get(name)
            if array is not None:
                self._check(name, array, value)
                self.arrays[name] = value
                self.words[place] = value.__array_interface__["data"][0]
            elif name in self.record.numbers:
                setattr(self.sizes, name, float(value))
                self.words.view(np.float64)[place] = value
            else:
                setattr(self.sizes, name, int(value))
                self.words[place] = value

    def _check(self, name: str, array: Array, value: np.ndarray) -> None:
        dtype = self.real if array.numbers == "real" else np.dtype(array.numbers)
        if not value.flags.c_contiguous or value.dtype != dtype:
            raise ValueError(
                f"kernels take contiguous arrays, {name} of {dtype}; got {value.dtype} with "
                f"strides {value.strides}"
            )

    def allocate(self, scratch: Scratch, owner: str, number: int) -> None:
        """Set the scratch memory of an owner, the `number`-th of its kind."""
        arrays = self.record.scratch(owner)
        sizes = [array.size(self.sizes) for array in arrays.values()]
        parts = scratch((self.record, owner, number), sizes, self.real)
        self.set(**dict(zip(arrays, parts, strict=True)))

    def copy(self) -> Arguments:
        """The same, to be set otherwise."""
        other = object.__new__(Arguments)
        other.record, other.real, other.w = self.record, self.real, self.w
        other.words, other.arrays = self.words.copy(), dict(self.arrays)
        other.sizes = SimpleNamespace(**vars(self.sizes))
        return other

    def check(self) -> None:
        """Raise ValueError when an array that the kernel may touch is missing or too small."""
        for name, array in self.record.arrays.items():
            needed = array.size(self.sizes)
            if needed and (name not in self.arrays or self.arrays[name].size < needed):
                raise ValueError(f"the kernel's array {name} holds fewer than {needed} numbers")


class Scratch:
    """Memory that is kept between calls: fresh pages of the system cost more than small layers."""

    def __init__(self) -> None:
        self._parts: dict[tuple, list[np.ndarray]] = {}

    def __call__(self, purpose: tuple, sizes: list[int], dtype) -> list[np.ndarray]:
        """Aligned arrays of these sizes, with what the last call for this purpose left in them."""
        key = (purpose, tuple(sizes), dtype)
        if key not in self._parts:
            self._parts[key] = _aligned_parts(sizes, dtype)
        return self._parts[key]


def aligned(shape: int | Iterable[int], dtype) -> np.ndarray:
    """Zeros that begin at a multiple of 64 bytes, so that no vector lies across two cache lines."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size].view(dtype).reshape(shape)


def _aligned_parts(sizes: list[int], dtype) -> list[np.ndarray]:
    """Zeros of these sizes, each aligned, from one piece of memory."""
    step = 64 // np.dtype(dtype).itemsize
    ends = np.cumsum([-(-size // step) * step for size in sizes])
    memory = aligned(int(ends[-1]), dtype)
    starts = [0, *ends[:-1]]
    return [memory[a : a + size] for a, size in zip(starts, sizes, strict=True)]
