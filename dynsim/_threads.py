"""How many threads dynsim uses: one knob for its kernels, for BLAS and for torch."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

from dynsim._values import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from threadpoolctl import ThreadpoolController

__all__ = ["available", "blas_alone", "set_threads", "threads", "torch_threads", "using_threads"]

_chosen: int | None = None
#: What a caller has for all that it calls; 0 where nothing is said.
_held: ContextVar[int] = ContextVar("threads", default=0)


def available() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux: respects a cluster's or container's share
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(number: int | None) -> None:
    """Use `number` threads from now on wherever none are asked for; None for all cores.

    More than there are cores are never used. Results do not depend on it, to the last bit. Raises
    ValueError for less than 1.

    >>> set_threads(1)
    >>> threads()
    1
    >>> set_threads(None)
    """
    global _chosen
    _chosen = None if number is None else whole("number of threads", number, least=1)


def threads(number: int | None = None) -> int:
    """The number of threads to use: what is asked for, what the caller has, what was set, or all
    cores.

    Never more than there are cores: threads that wait for one another would take turns. Raises
    ValueError for less than 1.
    """
    if number is None:
        number = _held.get() or (available() if _chosen is None else _chosen)
    return min(whole("number of threads", number, least=1), available())


@contextmanager
def using_threads(number: int) -> Iterator[None]:
    """So many threads within, wherever none are asked for."""
    token = _held.set(number)
    try:
        yield
    finally:
        _held.reset(token)


@contextmanager
def blas_alone() -> Iterator[None]:
    """BLAS on one thread: ours are the only ones, and its sums do not depend on their number."""
    with _libraries(len(sys.modules)).limit(limits=1, user_api="blas"):
        yield


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Torch on so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """Those loaded now; looked for anew, which takes milliseconds, when more modules are there."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
