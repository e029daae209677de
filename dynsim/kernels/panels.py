"""Columns of matrices in lanes: sums of products and updates in registers, and choices per lane.

A panel is a pair (pointer, distance between its columns, in elements); its columns are contiguous
and an element of them is a vector. A vector here may be longer than a register: its halves are then
independent, and one is worked on while the other waits. Its length is that of an argument `like`.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dynsim.kernels import emit
from dynsim.kernels.processor import vector_width
from dynsim.kernels.simd import Vector, llvm_type

__all__ = [
    "any_less",
    "combine",
    "dots",
    "lanes",
    "number",
    "power_of_two",
    "read",
    "where_between",
    "where_less",
    "zeros",
]


def zeros(registers: int):
    """An intrinsic: a vector of so many registers of float64, all 0."""
    kind = Vector(types.float64, registers * vector_width(64))

    @intrinsic
    def made(typing):
        return kind(), lambda context, builder, sig, args: emit.same(llvm_type(kind), 0.0)

    return made


@intrinsic
def lanes(typing, like):
    """How many numbers the vector holds."""
    return types.intp(like), lambda context, builder, sig, args: ir.IntType(64)(like.count)


@intrinsic
def number(typing, like, value):
    """A number in every lane."""

    def code(context, builder, sig, args):
        return emit.spread(builder, context.cast(builder, args[1], value, like.dtype), like.count)

    return like(like, value), code


@intrinsic
def read(typing, like, pointer, offset):
    """The vector at an offset, in elements."""

    def code(context, builder, sig, args):
        return emit.load(builder, args[1], args[2], llvm_type(like))

    return like(like, pointer, types.intp), code


def _choice(count, condition):
    """An intrinsic of `count` vectors and two more, x and y: x where the condition holds, else y."""

    def code(context, builder, sig, args):
        return builder.select(condition(builder, *args[:count]), *args[count:])

    if count == 2:
        return intrinsic(lambda typing, a, b, x, y: (x(a, b, x, y), code))
    return intrinsic(lambda typing, a, b, c, x, y: (x(a, b, c, x, y), code))


def _less(builder, a, b):
    return builder.fcmp_ordered("<", a, b)


def _between(builder, a, low, high):
    return builder.and_(builder.fcmp_ordered(">=", a, low), builder.fcmp_ordered("<", a, high))


where_less = _choice(2, _less)  # (a, b, x, y): x where a < b
where_between = _choice(3, _between)  # (a, low, high, x, y): x where low <= a < high


@intrinsic
def any_less(typing, a, b):
    """True where a < b in any lane."""

    def code(context, builder, sig, args):
        bits = builder.bitcast(_less(builder, *args), ir.IntType(a.count))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(a, b), code


@intrinsic
def power_of_two(typing, x):
    """The largest power of two up to x, for x > 0 that is not subnormal; 0 or inf for 0 or inf."""

    def code(context, builder, sig, args):
        words = ir.VectorType(ir.IntType(64), x.count)
        bits = builder.bitcast(args[0], words)
        kept = builder.and_(bits, emit.same(words, 0x7FF0000000000000))
        return builder.bitcast(kept, args[0].type)

    return x(x), code


def _columns(builder, panel, count, vectors):
    """Pointers to the columns of a panel, given as LLVM's pair."""
    pointer, across = builder.extract_value(panel, 0), builder.extract_value(panel, 1)
    whole = across.type
    places = [builder.gep(pointer, [builder.mul(across, whole(c))]) for c in range(count)]
    return [builder.bitcast(place, vectors.as_pointer()) for place in places]


def _at(builder, columns, k):
    return [builder.load(builder.gep(column, [k]), align=8) for column in columns]


def dots(left: int, right: int):
    """An intrinsic: out[s right + c] = sum_i v_s[i] a_c[i] for `left` and `right` columns."""

    @intrinsic
    def sums(typing, like, out, v, a, rows):
        vector = llvm_type(like)

        def code(context, builder, sig, args):
            _, out_, v_, a_, rows_ = args
            v_columns = _columns(builder, v_, left, vector)
            a_columns = _columns(builder, a_, right, vector)

            def more(i, sums):
                v_now, a_now = _at(builder, v_columns, i), _at(builder, a_columns, i)
                pairs = [(x, y) for x in v_now for y in a_now]
                return [
                    emit.call(builder, "fmuladd", x, y, old)
                    for (x, y), old in zip(pairs, sums, strict=True)
                ]

            start = [emit.same(vector, 0.0)] * (left * right)
            for k, value in enumerate(emit.summed(builder, rows_, start, more)):
                emit.store(builder, value, out_, rows_.type(k * like.count))
            return context.get_dummy_value()

        return types.void(like, out, v, a, types.intp), code

    return sums


def combine(left: int, right: int, dotted: bool = False):
    """An intrinsic: a_c[i] += sum_s v_s[i] coefficients_s[c], for `left` columns v and
    coefficients, and `right` columns a; with dotted also out[c] = sum_i a_c[i] p[i] after that."""

    def added(like, a, v, coefficients, rows, out=None, p=None):
        vector = llvm_type(like)

        def code(context, builder, sig, args):
            _, a_, v_, coefficients_, rows_, *rest = args
            a_columns = _columns(builder, a_, right, vector)
            v_columns = _columns(builder, v_, left, vector)
            factors = _columns(builder, coefficients_, left, vector)
            factors = [_at(builder, factors, rows_.type(c)) for c in range(right)]

            def more(i, sums):
                v_now, new = _at(builder, v_columns, i), []
                for column, factor in zip(a_columns, factors, strict=True):
                    place = builder.gep(column, [i])
                    value = builder.load(place, align=8)
                    for x, y in zip(v_now, factor, strict=True):
                        value = emit.call(builder, "fmuladd", x, y, value)
                    builder.store(value, place, align=8)
                    new.append(value)
                if not dotted:
                    return []
                weight = emit.load(
                    builder, rest[1], builder.mul(i, i.type(like.count)), vector
                )
                return [
                    emit.call(builder, "fmuladd", value, weight, old)
                    for value, old in zip(new, sums, strict=True)
                ]

            start = [emit.same(vector, 0.0)] * right * dotted
            for c, value in enumerate(emit.summed(builder, rows_, start, more)):
                emit.store(builder, value, rest[0], rows_.type(c * like.count))
            return context.get_dummy_value()

        more_types = (out, p) if dotted else ()
        return types.void(like, a, v, coefficients, types.intp, *more_types), code

    if dotted:
        return intrinsic(
            lambda typing, like, a, v, coefficients, rows, out, p: added(
                like, a, v, coefficients, rows, out, p
            )
        )
    return intrinsic(
        lambda typing, like, a, v, coefficients, rows: added(like, a, v, coefficients, rows)
    )
