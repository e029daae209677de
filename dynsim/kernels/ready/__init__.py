"""LLVM's source of the kernels, made beforehand: without it their first use waits for Numba.

Numba takes some five seconds for a kernel. What it makes of the kernels in float64, for vectors of
16, 32 and 64 bytes, is kept here and used as long as the kernels' Python is the one it was made
of; other types go through Numba. After a change to a kernel, `python -m dynsim.kernels.ready`
makes it anew.
"""

import hashlib
import json
import lzma
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from dynsim.kernels.processor import REGISTER_BYTES

__all__ = ["HERE", "WIDTHS", "made_of", "source", "title"]

HERE = Path(__file__).parent
WIDTHS = (16, 32, 64)
#: Modules that find, keep and call code, and have no say in what is in it.
_USERS = ("library.py", "special.py")


def source(module: str, function: str, kinds: Iterable[str]) -> bytes | None:
    """The symbol of a kernel for arguments of these kinds, a zero byte and its LLVM source.

    None if there is none, or if it was made of other Python than what is here.
    """
    made_of_, sources = _kept()
    found = sources.get(title(module, function, kinds))
    return found.encode() if found and made_of_ == made_of() else None


def title(module: str, function: str, kinds: Iterable[str]) -> str:
    """The name under which a source is kept."""
    return " ".join([module, function, *kinds])


@lru_cache
def made_of() -> str:
    """A mark of all Python that kernels are made of."""
    files = sorted(file for file in HERE.parent.glob("*.py") if file.name not in _USERS)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@lru_cache
def _kept() -> tuple[str, dict[str, str]]:
    """The mark of what the sources were made of, and the sources by title."""
    file = HERE / f"{REGISTER_BYTES}.json.xz"
    if not file.exists():
        return "", {}
    kept = json.loads(lzma.decompress(file.read_bytes()))
    return kept["made of"], kept["sources"]
