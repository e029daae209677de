"""Work that would not fit into this machine is refused before it begins; freed memory goes back."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

__all__ = ["TooLarge", "give_back_memory", "require_memory", "there_is"]


class TooLarge(MemoryError):
    """More than this machine holds: says so before any work, with the remedy."""


def there_is() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(needed: float, what: str, remedy: str) -> None:
    """Raise TooLarge, a MemoryError, unless so many bytes are there."""
    if needed > there_is():
        raise TooLarge(
            f"{what} take {needed / 2**30:.3g} GiB, and this machine has "
            f"{there_is() / 2**30:.3g}; {remedy}"
        )


def give_back_memory() -> None:
    """Give back what the C library keeps of freed memory.

    glibc keeps the freed blocks of a size that it has met before, up to 32 MB each, and between
    them lie holes: arrays of changing sizes, made and freed by turns, then take some hundred MB
    more than is ever in use. Where the library is another one, this does nothing.
    """
    _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
