"""Numba: from the Python source of a kernel to LLVM's. Needed when a kernel is first used."""

import numpy as np
from numba import njit, types
from numba.np.numpy_support import from_dtype

__all__ = ["compiled", "inner"]

_OPTIONS = {
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

#: Decorator of the functions that kernels are made of.
inner = njit(**_OPTIONS)


def compiled(function, kinds: tuple[str, ...]) -> tuple[str, str]:
    """The symbol of a kernel for arguments of these kinds, and its optimised LLVM source."""
    kernel = njit(**_OPTIONS)(function)
    kernel.compile(tuple(map(_type, kinds)))
    result = next(iter(kernel.overloads.values()))
    return result.fndesc.llvm_func_name, result.library.get_llvm_str()


def _type(kind: str):
    """The type that a kind of `library` stands for."""
    plain = {"none": types.none, "number": types.float64, "integer": types.int64}
    return plain.get(kind) or types.CPointer(from_dtype(np.dtype(kind)))
