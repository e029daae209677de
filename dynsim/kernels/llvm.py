"""What an LLVM builder is told of vectors: the instructions behind `simd` and `products`."""

from llvmlite import ir
from numba.core import cgutils

__all__ = [
    "call",
    "gep",
    "indices",
    "interleaved",
    "load",
    "same",
    "spread",
    "store",
    "summed",
]


def indices(values):
    """Lanes, for a shuffle."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(values)), list(values))


def same(llvm_type, value):
    """A constant vector."""
    return ir.Constant(llvm_type, [value] * llvm_type.count)


def spread(builder, scalar, count):
    """A scalar in every lane."""
    one = ir.VectorType(scalar.type, 1)
    start = builder.insert_element(ir.Constant(one, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(start, start, indices([0] * count))


def call(builder, name, *args):
    """An LLVM intrinsic on vectors of one type."""
    kind = args[0].type
    bits = 64 if kind.element == ir.DoubleType() else 32
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(args)),
        f"llvm.{name}.v{kind.count}f{bits}",
    )
    return builder.call(function, args)


def gep(args):
    """Pointer and offset as llvmlite wants them."""
    return args[0], [args[1]]


def load(builder, pointer, offset, kind):
    """A vector from consecutive elements."""
    address = builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())
    return builder.load(address, align=8 if kind.element == ir.DoubleType() else 4)


def store(builder, value, pointer, offset):
    """A vector into consecutive elements."""
    address = builder.bitcast(builder.gep(pointer, [offset]), value.type.as_pointer())
    builder.store(value, address, align=8 if value.type.element == ir.DoubleType() else 4)


def interleaved(builder, a, b, step):
    """Lanes c and c + step of a side by side with those of b: one step of a transpose."""
    count = a.type.count
    low = [c if not c & step else count + c - step for c in range(count)]
    high = [c + step if not c & step else count + c for c in range(count)]
    return tuple(builder.shuffle_vector(a, b, indices(lanes)) for lanes in (low, high))


def summed(builder, count, start, body):
    """Sums over k < count of body(k, sums so far) -> new sums, from `start`."""
    whole, before = count.type, builder.block
    loop, after = (builder.append_basic_block(name) for name in ("sum", "summed"))
    builder.cbranch(builder.icmp_signed(">", count, whole(0)), loop, after)
    builder.position_at_end(loop)
    k = builder.phi(whole)
    sums = [builder.phi(value.type) for value in start]
    new = body(k, sums)
    following = builder.add(k, whole(1))
    end = builder.block
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    results = [builder.phi(value.type) for value in start]
    for phi, first, then in zip([k, *sums], [whole(0), *start], [following, *new], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, end)
    for phi, first, then in zip(results, start, new, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, end)
    return results
