"""Work that would not fit into this machine is refused before it begins."""

from __future__ import annotations

import os

__all__ = ["TooLarge", "require_memory", "there_is"]


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
