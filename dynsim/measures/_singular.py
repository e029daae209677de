"""The call of the kernel of singular values: all that knows how kernels are called."""

from __future__ import annotations

import numpy as np

from dynsim.kernels.library import Kernel
from dynsim.kernels.processor import vector_width

__all__ = ["in_lanes"]

_advance = Kernel("singular", "advance")
CHUNK = 32


def memory(n: int, d: int) -> int:
    """Numbers of memory for matrices n x d."""
    short, tall = min(n, d), max(n, d)
    wide = short + 4
    panels = wide * (max(tall, wide) + 1 + CHUNK + 1) + CHUNK * short
    vectors = 12 + 8 * short + 28 + panels + 5 * tall + 4 * wide
    return vectors * vector_width(64)


def in_lanes(x: np.ndarray) -> np.ndarray:
    """(count, min(N, d)) of x (count, N, d), contiguous in float64."""
    count, n, d = x.shape
    sigma = np.empty((count, min(n, d)))
    _advance(x, sigma, np.empty(memory(n, d)), count, n, d)
    return sigma
