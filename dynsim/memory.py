"""Work that would not fit into this machine is refused before it begins."""

from __future__ import annotations

import os

__all__ = ["require_memory", "there_is"]


def there_is() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(needed: float, what: str, remedy: str) -> None:
    """Raise MemoryError, which says the rule, both numbers and the remedy, unless that is there."""
    if needed > there_is():
        raise MemoryError(
            f"{what} take {needed / 2**30:.3g} GiB, and this machine has "
            f"{there_is() / 2**30:.3g}; {remedy}"
        )
