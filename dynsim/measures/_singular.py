"""The call of the kernel of singular values: all of `measures` that knows how kernels are called."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from dynsim.kernels.library import Kernel
from dynsim.kernels.singular_shapes import GROUP, memory

__all__ = ["UP_TO", "in_lanes"]

_advance = Kernel("singular", "advance")

#: Numbers in a matrix up to which 8 at a time are faster than LAPACK, one by one: 14 times at
#: 8 x 4, 4 times at 256 x 64, 2.5 times at 128 x 128; beyond, they leave a core's own cache.
UP_TO = 16_384
#: Numbers below which another thread costs more than it brings.
_THREAD_WORK = 32_768


def in_lanes(x: np.ndarray, threads: int = 1) -> np.ndarray:
    """Singular values (count, min(N, d)) of x (count, N, d), contiguous in float64.

    NaN for matrices that are not finite. The bits of one depend neither on the others nor on the
    number of threads.
    """
    count, n, d = x.shape
    sigma = np.empty((count, min(n, d)))
    if sigma.size == 0:
        return sigma
    groups = -(-count // GROUP)
    threads = max(1, min(threads, groups, x.size // _THREAD_WORK))
    edges = [GROUP * (groups * k // threads) for k in range(threads)] + [count]

    def work(part: slice) -> None:
        mine = sigma[part]
        _advance(x[part], mine, np.empty(memory(n, d)), len(mine), n, d)

    parts = list(map(slice, edges[:-1], edges[1:]))
    others = [_pool().submit(work, part) for part in parts[1:]]
    work(parts[0])
    for other in others:
        other.result()
    return sigma


@lru_cache
def _pool() -> ThreadPoolExecutor:
    """Threads, started as they are needed."""
    return ThreadPoolExecutor(thread_name_prefix="dynsim-measures")
