"""A dynamics in the arrays that the kernels take: weights of many layers, and the norm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dynsim.network.dynamics import PLACEMENTS
from dynsim.network.norms import Norm
from dynsim.network.weights import LayerArrays, LayerWeights

__all__ = [
    "NormNumbers",
    "Scratch",
    "aligned",
    "aligned_parts",
    "in_panels",
    "norm_numbers",
    "padded",
    "stacked",
]


class NormNumbers(NamedTuple):
    """Where the norm is applied, and the numbers of its formula (`dynsim.norms`)."""

    before: bool
    branch: bool
    after: bool
    centre: bool
    scale: float
    shift: float
    gain: np.ndarray
    bias: np.ndarray


def norm_numbers(norm: Norm, placement: str, d: int, columns: int, dtype) -> NormNumbers:
    """Gain and bias have `columns` entries, 0 from d on."""
    numbers = norm.switches(d)
    places = PLACEMENTS[placement] if numbers.active else ()
    gain, bias = aligned(columns, dtype), aligned(columns, dtype)
    gain[:d], bias[:d] = numbers.gain, numbers.bias
    return NormNumbers(
        "before" in places, "branch" in places, "after" in places,
        bool(numbers.centre), float(numbers.scale), float(numbers.shift), gain, bias,
    )  # fmt: skip


def stacked(layers: list[LayerWeights]) -> LayerArrays:
    """The weights of several layers, all of one shape, with a leading axis over layers."""
    return LayerArrays(*(np.stack(arrays) for arrays in zip(*layers, strict=True)))


def aligned(shape, dtype) -> np.ndarray:
    """Zeros that begin at a multiple of 64 bytes, so that no vector lies across two cache lines."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size].view(dtype).reshape(shape)


def aligned_parts(sizes: list[int], dtype) -> list[np.ndarray]:
    """Zeros of these sizes, each aligned, from one piece of memory."""
    step = 64 // np.dtype(dtype).itemsize
    ends = np.cumsum([-(-size // step) * step for size in sizes])
    memory = aligned(ends[-1], dtype)
    starts = [0, *ends[:-1]]
    return [memory[a : a + size] for a, size in zip(starts, sizes, strict=True)]


class Scratch:
    """Memory that is kept between calls: fresh pages of the system cost more than small layers."""

    def __init__(self):
        self._parts = {}

    def __call__(self, purpose, sizes: list[int], dtype) -> list[np.ndarray]:
        """`aligned_parts`, with what the last call for this purpose left in them."""
        key = (purpose, tuple(sizes), dtype)
        if key not in self._parts:
            self._parts[key] = aligned_parts(sizes, dtype)
        return self._parts[key]


def padded(array: np.ndarray, multiple: int) -> np.ndarray:
    """Zeros added to the last axis up to a multiple."""
    *lead, columns = array.shape
    out = aligned((*lead, -(-columns // multiple) * multiple), array.dtype)
    out[..., :columns] = array
    return out


def in_panels(matrices: np.ndarray, columns: int) -> np.ndarray:
    """(..., K, n) as panels of so many columns, each contiguous: (..., n / columns, K, columns)."""
    wide = padded(matrices, columns)
    *lead, depth, n = wide.shape
    out = aligned((*lead, n // columns, depth, columns), wide.dtype)
    out[...] = np.moveaxis(wide.reshape(*lead, depth, n // columns, columns), -2, -3)
    return out
