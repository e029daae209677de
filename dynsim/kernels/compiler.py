"""Numba: from the Python source of a kernel to LLVM's. Needed when a kernel is first used."""

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, lower_getattr_generic, models, register_model
from numba.np.numpy_support import from_dtype

from dynsim.kernels.record import Record
from dynsim.kernels.simd import Numbers

__all__ = ["compiled", "inlined", "inner"]

_OPTIONS = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
#: Decorator of the functions that kernels are made of.
inner = njit(**_OPTIONS)
#: The same, for functions that are written out where they are called: what does not change in the
#: loop around the call is then worked out once.
inlined = njit(**_OPTIONS, forceinline=True)


class _Given(types.Type):
    """A pointer to a record whose fields are read by name; nothing changes them meanwhile."""

    def __init__(self, record: Record, real: np.dtype, w: int):
        def pointer(numbers: str) -> Numbers:
            return Numbers(from_dtype(np.dtype(real if numbers == "real" else numbers)), w)

        kinds = {
            **dict.fromkeys(record.integers, types.int64),
            **dict.fromkeys(record.numbers, types.float64),
            **{name: pointer(array.numbers) for name, array in record.arrays.items()},
        }
        self.fields = {name: (place, kinds[name]) for name, place in record.places.items()}
        super().__init__(name=f"Given({real}, {w}, {','.join(self.fields)})")


@register_model(_Given)
class _GivenModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.IntType(64).as_pointer())


@infer_getattr
class _Fields(AttributeTemplate):
    key = _Given

    def generic_resolve(self, given, name):
        return given.fields[name][1] if name in given.fields else None


@lower_getattr_generic(_Given)
def _field(context, builder, given, value, name):
    place, kind = given.fields[name]
    word = builder.gep(value, [ir.IntType(64)(place)])
    word = builder.bitcast(word, context.get_value_type(kind).as_pointer())
    field = builder.load(word)
    field.set_metadata("invariant.load", builder.module.add_metadata([]))
    return field


def compiled(function: Callable, record: Record, real: np.dtype, w: int) -> tuple[str, str]:
    """The symbol of a kernel of this record, a C function of its address, and its LLVM source.

    Raises SystemError for a kernel that can raise an exception: nothing would report it. Numba's
    ranges do where their step is a variable, which may be 0.
    """
    kernel = cfunc(types.void(_Given(record, real, w)), error_model="numpy")(function)
    source = kernel.inspect_llvm()
    if ".const.pickledata" in source:
        raise SystemError(f"the kernel {function.__name__} can raise an exception")
    return kernel.native_name, source
