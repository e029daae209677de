"""Threads that carry out one trajectory together: who takes which rows, and when all are done.

A team shares an int64 pointer to `fields.TEAM` numbers, zero at first. Members wait for one another
by looking again and again, and give the processor away when that takes long.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dynsim.kernels.compiler import inner

__all__ = ["barrier", "take"]

# apart by a cache line: how many have arrived, how many rounds are over, the next piece of work
_ARRIVED, _ROUND, _NEXT = 0, 8, 16


def _atomic(result, build):
    """An intrinsic on memory[place], with a number."""

    def code(context, builder, sig, args):
        memory, place, number = args
        return build(context, builder, builder.gep(memory, [place]), number)

    number = types.int64
    return intrinsic(lambda typing, memory, place, n: (result(memory, number, number), code))


def _store(context, builder, pointer, number):
    builder.store_atomic(number, pointer, "seq_cst", 8)
    return context.get_dummy_value()


_add = _atomic(types.int64, lambda context, b, p, n: b.atomic_rmw("add", p, n, "seq_cst"))
_read = _atomic(types.int64, lambda context, b, p, n: b.load_atomic(p, "seq_cst", 8))
_write = _atomic(types.void, _store)


@intrinsic
def _yield(typing):
    def code(context, builder, sig, args):
        kind = ir.FunctionType(ir.IntType(32), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])

    return types.int32(), code


@inner
def take(memory):
    """The number of a piece of work that no other member has in this round: 0, 1, ..."""
    return _add(memory, _NEXT, 1)


@inner
def barrier(memory, members):
    """Return when every member is here; the pieces of work then begin at 0 again."""
    now = _read(memory, _ROUND, 0)
    if _add(memory, _ARRIVED, 1) == members - 1:
        _write(memory, _ARRIVED, 0)
        _write(memory, _NEXT, 0)
        _write(memory, _ROUND, now + 1)
    else:
        looks = 0
        while _read(memory, _ROUND, 0) == now:
            looks += 1
            if looks > 4000:
                _yield()
