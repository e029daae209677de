"""The calls of the kernels of measures: all of this room that knows how kernels are called."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from dynsim._threads import threads as thread_count
from dynsim.kernels.fields import GROUP
from dynsim.kernels.library import Kernel
from dynsim.kernels.processor import vector_width
from dynsim.kernels.record import Arguments
from dynsim.kernels.table import KERNELS

__all__ = ["fit_lanes", "smallest_cosines", "values_in_lanes"]

#: Matrices up to which a kernel for few takes less time: 3 times less for one, and no more than
#: LAPACK.
_FEW = 4

#: Numbers in a matrix up to which 8 at a time are faster than LAPACK, one by one: 14 times at
#: 8 x 4, 4 times at 256 x 64, 2.5 times at 128 x 128; beyond, they leave a core's own cache.
_UP_TO = 16_384
#: Numbers below which another thread costs more than it brings.
_THREAD_WORK = 32_768


def fit_lanes(n: int, d: int) -> bool:
    """Whether many matrices N x d go to the kernels.

    By shape alone, so that the bits of a sample do not depend on how many there are.
    """
    return n * d <= _UP_TO


def values_in_lanes(x: np.ndarray) -> np.ndarray:
    """Singular values (count, min(N, d)) of x (count, N, d), contiguous in float64.

    NaN for matrices that are not finite. The bits of one depend neither on the others nor on the
    number of threads. Values of all matrices lie side by side, first the largest: measures of them
    are taken faster so.
    """
    count, n, d = x.shape
    sigma = np.empty((min(n, d), count))
    kernel = _kernel("singular", count)

    def work(part: slice) -> None:
        mine = x[part]
        place = sigma.reshape(-1)[part.start :]
        _call(kernel, count=len(mine), n=n, d=d, across=count, x=mine, sigma=place)

    _shared(work, x)
    return sigma.T


def smallest_cosines(x: np.ndarray) -> np.ndarray:
    """The least cosine (count,) of x (count, N, d), contiguous in float64; as above."""
    _, n, d = x.shape
    cosines = np.empty(len(x))
    kernel = _kernel("cosines", len(x))

    def work(part: slice) -> None:
        mine = x[part]
        _call(kernel, count=len(mine), n=n, d=d, x=mine, smallest=cosines[part])

    _shared(work, x)
    return cosines


def _kernel(module: str, count: int) -> Kernel:
    return KERNELS[f"{module}.advance_few" if count <= _FEW else f"{module}.advance"]


def _call(kernel: Kernel, **fields: int | np.ndarray) -> None:
    given = Arguments(kernel.record, np.float64, vector_width(64), **fields)
    given.set(work=np.empty(kernel.record.arrays["work"].size(given.sizes)))
    kernel(given)


def _shared(work: Callable[[slice], None], x: np.ndarray) -> None:
    """work(part) for all parts of x, in whole groups, on as many threads as are worth it."""
    if not x.size:
        return
    groups = -(-len(x) // GROUP)
    workers = max(1, min(thread_count(), groups, x.size // _THREAD_WORK))
    edges = [*(GROUP * (groups * k // workers) for k in range(workers)), len(x)]
    parts = list(map(slice, edges[:-1], edges[1:]))
    others = [_pool().submit(work, part) for part in parts[1:]]
    work(parts[0])
    for other in others:
        other.result()


@lru_cache
def _pool() -> ThreadPoolExecutor:
    """Threads, started as they are needed."""
    return ThreadPoolExecutor(thread_name_prefix="dynsim-measures")


if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
