"""``kernel``: compile with Numba, and keep the machine code between processes where that can be.

Numba's own cache looks at the file of a function alone, fails where no folder can be written, and
passes on every error of the disk. This one is fresh only if every file of this package is, and
where it cannot be used kernels are compiled anew and one warning says so. A processor with other
features finds no entry of its own and compiles its own.
"""

import hashlib
import warnings
from functools import lru_cache
from pathlib import Path

from numba import njit
from numba.core.caching import FunctionCache

__all__ = ["inner", "kernel"]

#: Compiled inside the kernels that call it, and cached with them.
inner = njit(nogil=True, error_model="numpy")


def kernel(function):
    """Decorator: compiled at the first call with new types, or loaded from the cache."""
    compiled = inner(function)
    if not hasattr(compiled, "py_func"):  # NUMBA_DISABLE_JIT
        return compiled
    try:
        compiled._cache = _Cache(function)
    except (RuntimeError, OSError) as error:
        _warn(error)
    return compiled


class _Cache(FunctionCache):
    def __init__(self, function):
        super().__init__(function)
        self._cache_file._source_stamp = _sources()

    def load_overload(self, sig, target_context):
        return self._or_none(super().load_overload, sig, target_context)

    def save_overload(self, sig, data):
        self._or_none(super().save_overload, sig, data)

    def _or_none(self, access, *args):
        try:
            return access(*args)
        except Exception as error:  # whatever a damaged file or a full disk can raise
            self.disable()
            _warn(error)
            return None


@lru_cache
def _sources() -> str:
    """A digest of every file of this package."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@lru_cache
def _warn_once(advice: str) -> None:
    warnings.warn(advice, RuntimeWarning, stacklevel=2)


def _warn(error: Exception) -> None:
    _warn_once(
        "the compiled kernels cannot be kept, so every process compiles them anew (seconds); set "
        f"NUMBA_CACHE_DIR to a folder that can be written ({' '.join(str(error).split())})"
    )
