"""Vectors as a Numba type: explicit SIMD without a C compiler.

A `Vector` holds as many numbers as fit a register of this processor: 64 bytes with AVX-512, 32 with
AVX, 16 otherwise. It knows + - * / between vectors, and the functions below, which are written
into the code where they are called. Memory is a pointer and the index of an element; nothing checks
that index.
"""

import math
import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from dynsim.kernels.processor import vector_width

__all__ = [
    "absolute",
    "all_within",
    "at",
    "compact",
    "dots",
    "element",
    "exp",
    "extract",
    "fma",
    "gather",
    "largest",
    "load",
    "maximum",
    "minimum",
    "put",
    "safe",
    "splat",
    "spread",
    "sqrt",
    "store",
    "tile",
    "total",
    "transpose",
    "where_within",
    "width",
    "within",
]


class Vector(types.Type):
    """`count` numbers of type `dtype` side by side."""

    def __init__(self, dtype, count):
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Vector({dtype}, {count})")


def _width(dtype) -> int:
    return vector_width(dtype.bitwidth)


def _vector(dtype) -> Vector:
    return Vector(dtype, _width(dtype))


def _llvm(vector):
    element = ir.DoubleType() if vector.dtype == types.float64 else ir.FloatType()
    return ir.VectorType(element, vector.count)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _llvm(fe_type))


def _indices(values):
    return ir.Constant(ir.VectorType(ir.IntType(32), len(values)), list(values))


def _same(llvm_type, value):
    """A constant vector."""
    return ir.Constant(llvm_type, [value] * llvm_type.count)


def _spread(builder, scalar, count):
    """A scalar in every lane."""
    one = ir.VectorType(scalar.type, 1)
    start = builder.insert_element(ir.Constant(one, ir.Undefined), scalar, ir.IntType(32)(0))
    return builder.shuffle_vector(start, start, _indices([0] * count))


def _call(builder, name, *args):
    """An LLVM intrinsic on vectors of one type."""
    kind = args[0].type
    bits = 64 if kind.element == ir.DoubleType() else 32
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(args)),
        f"llvm.{name}.v{kind.count}f{bits}",
    )
    return builder.call(function, args)


def _gep(args):
    """Pointer and offset as llvmlite wants them."""
    return args[0], [args[1]]


def _load(builder, pointer, offset, kind):
    address = builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())
    return builder.load(address, align=8 if kind.element == ir.DoubleType() else 4)


def _store(builder, value, pointer, offset):
    address = builder.bitcast(builder.gep(pointer, [offset]), value.type.as_pointer())
    builder.store(value, address, align=8 if value.type.element == ir.DoubleType() else 4)


# --- arithmetic -----------------------------------------------------------------------------------


def _binary(operation, instruction):
    @infer_global(operation)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)

    @lower_builtin(operation, Vector, Vector)
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


for _name, _instruction in {"add": "fadd", "sub": "fsub", "mul": "fmul", "truediv": "fdiv"}.items():
    _binary(getattr(operator, _name), _instruction)
    _binary(getattr(operator, f"i{_name}"), _instruction)


def _of_vectors(count, build):
    """An intrinsic of `count` vectors of one type that gives another."""

    def code(context, builder, sig, args):
        return build(builder, *args)

    if count == 1:
        return intrinsic(lambda typing, x: (x(x), code))
    if count == 2:
        return intrinsic(lambda typing, x, y: (x(x, y), code))
    return intrinsic(lambda typing, x, y, z: (x(x, y, z), code))


def _larger(builder, x, y):
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def _smaller(builder, x, y):
    return builder.select(builder.fcmp_ordered("<", x, y), x, y)


fma = _of_vectors(3, lambda builder, x, y, z: _call(builder, "fmuladd", x, y, z))  # x y + z
sqrt = _of_vectors(1, lambda builder, x: _call(builder, "sqrt", x))
absolute = _of_vectors(1, lambda builder, x: _call(builder, "fabs", x))
maximum = _of_vectors(2, _larger)
minimum = _of_vectors(2, _smaller)


def _exp(builder, x):
    """2^k p(r) with x = k ln 2 + r, |r| <= ln 2 / 2 and p the Taylor polynomial, by Estrin."""
    kind = x.type
    double = kind.element == ir.DoubleType()
    bits, mantissa, lowest, degree = (64, 52, -708.0, 13) if double else (32, 23, -87.0, 7)
    ln2_high, ln2_low = (
        (0.693147180369123816490, 1.90821492927058770002e-10)
        if double
        else (0.693359375, -2.12194440e-4)
    )

    def fused(a, b, c):
        return _call(builder, "fmuladd", a, b, c)

    magic = _same(kind, 1.5 * 2.0**mantissa)  # adding it rounds to a whole number
    shifted = fused(x, _same(kind, 1.0 / math.log(2.0)), magic)
    k = builder.fsub(shifted, magic)
    r = fused(k, _same(kind, -ln2_high), x)
    r = fused(k, _same(kind, -ln2_low), r)
    terms = [_same(kind, 1.0 / math.factorial(n)) for n in range(2, degree + 1)]
    power = r
    while len(terms) > 1:
        pairs = list(zip(terms[::2], terms[1::2], strict=False))
        rest = terms[len(pairs) * 2 :]
        terms = [fused(high, power, low) for low, high in pairs] + rest
        power = builder.fmul(power, power)
    tail = fused(builder.fmul(r, r), terms[0], r)
    p = builder.fadd(_same(kind, 1.0), tail)
    whole = ir.VectorType(ir.IntType(bits), kind.count)
    exponent = builder.shl(builder.bitcast(shifted, whole), _same(whole, mantissa))
    value = builder.bitcast(builder.add(builder.bitcast(p, whole), exponent), kind)
    value = builder.select(
        builder.fcmp_ordered("<", x, _same(kind, lowest)), _same(kind, 0.0), value
    )
    return builder.select(builder.fcmp_unordered("uno", x, x), x, value)


#: e^x for x <= 0, to 1 ulp or so; 0 below -708 (float32: -87), where e^x is next to subnormal.
exp = _of_vectors(1, _exp)


# --- between memory, numbers and vectors ----------------------------------------------------------


@intrinsic
def compact(typing):
    """Keep the calling function small: its loops are over vectors, and unrolled by hand or not at
    all. Halves the time of compilation."""

    def code(context, builder, sig, args):
        builder.function.attributes.add("optsize")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def at(typing, pointer, offset):
    """The pointer moved by so many elements."""
    return pointer(pointer, types.intp), lambda context, builder, sig, args: builder.gep(
        *_gep(args)
    )


@intrinsic
def width(typing, pointer):
    """How many numbers of the pointer's type a vector holds."""
    count = _width(pointer.dtype)
    return types.intp(pointer), lambda context, builder, sig, args: ir.IntType(64)(count)


@intrinsic
def safe(typing, pointer):
    """(low, high): squares of this type in between are neither subnormal nor near overflow."""
    low, high = (1e-280, 1e280) if pointer.dtype == types.float64 else (1e-30, 1e30)
    pair = types.UniTuple(types.float64, 2)

    def code(context, builder, sig, args):
        return ir.Constant(ir.ArrayType(ir.DoubleType(), 2), [low, high])

    return pair(pointer), code


@intrinsic
def splat(typing, pointer, number):
    """A number in every lane of a vector of the pointer's type."""
    kind = _vector(pointer.dtype)

    def code(context, builder, sig, args):
        scalar = context.cast(builder, args[1], number, pointer.dtype)
        return _spread(builder, scalar, kind.count)

    return kind(pointer, number), code


@intrinsic
def element(typing, pointer, offset):
    """One element."""

    def code(context, builder, sig, args):
        return builder.load(builder.gep(*_gep(args)))

    return pointer.dtype(pointer, types.intp), code


@intrinsic
def put(typing, pointer, offset, number):
    """Write one element."""

    def code(context, builder, sig, args):
        value = context.cast(builder, args[2], number, pointer.dtype)
        builder.store(value, builder.gep(*_gep(args[:2])))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, number), code


@intrinsic
def spread(typing, pointer, offset):
    """One element in every lane."""
    kind = _vector(pointer.dtype)

    def code(context, builder, sig, args):
        return _spread(builder, builder.load(builder.gep(*_gep(args))), kind.count)

    return kind(pointer, types.intp), code


@intrinsic
def load(typing, pointer, offset):
    """Consecutive elements."""
    kind = _vector(pointer.dtype)

    def code(context, builder, sig, args):
        return _load(builder, *args, _llvm(kind))

    return kind(pointer, types.intp), code


@intrinsic
def store(typing, pointer, offset, vector):
    """Into consecutive elements, of either precision."""

    def code(context, builder, sig, args):
        kind, value = _llvm(Vector(pointer.dtype, vector.count)), args[2]
        if value.type != kind:
            value = (builder.fptrunc if vector.dtype == types.float64 else builder.fpext)(
                value, kind
            )
        _store(builder, value, *args[:2])
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector), code


@intrinsic
def extract(typing, vector, lane):
    """The number in one lane."""

    def code(context, builder, sig, args):
        return builder.extract_element(*args)

    return vector.dtype(vector, types.intp), code


def _halved(combine):
    """A horizontal reduction, halves upon halves: always in the same order."""

    def code(context, builder, sig, args):
        value = args[0]
        while value.type.count > 1:
            half = value.type.count // 2
            low = builder.shuffle_vector(value, value, _indices(range(half)))
            high = builder.shuffle_vector(value, value, _indices(range(half, 2 * half)))
            value = combine(builder, low, high)
        return builder.extract_element(value, ir.IntType(32)(0))

    return intrinsic(lambda typing, vector: (vector.dtype(vector), code))


total = _halved(lambda builder, x, y: builder.fadd(x, y))
largest = _halved(_larger)


def _inside(builder, value, low, high):
    above = builder.fcmp_ordered(">=", value, _spread(builder, low, value.type.count))
    below = builder.fcmp_ordered("<=", value, _spread(builder, high, value.type.count))
    return builder.and_(above, below)


@intrinsic
def all_within(typing, vector, low, high):
    """True when every lane lies in [low, high]."""

    def code(context, builder, sig, args):
        low, high = (context.cast(builder, a, sig.args[1], vector.dtype) for a in args[1:])
        inside = _inside(builder, args[0], low, high)
        every = builder.bitcast(inside, ir.IntType(vector.count))
        return builder.icmp_unsigned("==", every, ir.Constant(every.type, -1))

    return types.boolean(vector, types.float64, types.float64), code


@intrinsic
def where_within(typing, vector, low, high, x, y):
    """x in the lanes where the vector lies in [low, high], y in the others."""

    def code(context, builder, sig, args):
        low, high = (context.cast(builder, a, sig.args[1], vector.dtype) for a in args[1:3])
        return builder.select(_inside(builder, args[0], low, high), args[3], args[4])

    return x(vector, types.float64, types.float64, x, x), code


@intrinsic
def within(typing, vector, first, low, high, other):
    """The vector of numbers first, first + 1, ..., with `other` outside low <= number < high."""

    def code(context, builder, sig, args):
        vector_, first_, low_, high_, other_ = args
        count, whole = vector.count, ir.VectorType(ir.IntType(64), vector.count)
        lanes = ir.Constant(whole, list(range(count)))
        number = builder.add(_spread(builder, first_, count), lanes)
        above = builder.icmp_signed(">=", number, _spread(builder, low_, count))
        below = builder.icmp_signed("<", number, _spread(builder, high_, count))
        other_ = context.cast(builder, other_, types.float64, vector.dtype)
        return builder.select(builder.and_(above, below), vector_, _spread(builder, other_, count))

    n = types.intp
    return vector(vector, n, n, n, types.float64), code


def _interleaved(builder, a, b, step):
    """Lanes c and c + step of a side by side with those of b: one step of a transpose."""
    count = a.type.count
    low = [c if not c & step else count + c - step for c in range(count)]
    high = [c + step if not c & step else count + c for c in range(count)]
    return tuple(builder.shuffle_vector(a, b, _indices(lanes)) for lanes in (low, high))


@intrinsic
def transpose(typing, source, down, target, across):
    """target[c across + r] = source[r down + c] for as many r and c as a vector has lanes."""
    vector = _llvm(_vector(source.dtype))

    def code(context, builder, sig, args):
        source_, down_, target_, across_ = args
        offsets = [ir.IntType(64)(n) for n in range(vector.count)]
        rows = [_load(builder, source_, builder.mul(down_, n), vector) for n in offsets]
        step = 1
        while step < vector.count:
            for r in range(vector.count):
                if not r & step:
                    rows[r], rows[r + step] = _interleaved(builder, rows[r], rows[r + step], step)
            step *= 2
        for n, row in zip(offsets, rows, strict=True):
            _store(builder, row, target_, builder.mul(across_, n))
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), code


# --- loops that keep their sums in registers ------------------------------------------------------


def _summed(builder, count, start, body):
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


def _kept(builder, pointer):
    """The pointer, in a register of its own: LLVM would derive those of a tile from one another,
    again in every round."""
    identity = ir.FunctionType(pointer.type, [pointer.type])
    return builder.asm(identity, "", "=r,0", [pointer], False)


def tile(rows: int, columns: int, a_lanes: bool, b_lanes: bool):
    """An intrinsic that sums products of `depth` pairs into rows x columns vectors:

        out[r, c] = sum_k a[r, k] b[k, c]

    Elements are ``down`` (rows) and ``across`` (columns) apart. A matrix holds vectors (lanes) or
    numbers, which are spread over the lanes.
    """

    @intrinsic
    def sums(typing, out, down, across, a, a_down, a_across, b, b_down, b_across, depth):
        vector = _llvm(_vector(out.dtype))

        def code(context, builder, sig, args):
            out, down, across, a, a_down, a_across, b, b_down, b_across, depth = args
            whole = down.type

            def places(pointer, step, count):
                return [builder.gep(pointer, [builder.mul(step, whole(n))]) for n in range(count)]

            def read(pointer, offset, lanes):
                if lanes:
                    return _load(builder, pointer, offset, vector)
                return _spread(builder, builder.load(builder.gep(pointer, [offset])), vector.count)

            a_rows = [_kept(builder, place) for place in places(a, a_down, rows)]
            b_columns = places(b, b_across, columns)

            def more(k, sums):
                a_at, b_at = builder.mul(k, a_across), builder.mul(k, b_down)
                b_now = [read(column, b_at, b_lanes) for column in b_columns]
                new = []
                for r, row in enumerate(a_rows):
                    a_now = read(row, a_at, a_lanes)
                    new += [
                        _call(builder, "fmuladd", a_now, b_now[c], sums[r * columns + c])
                        for c in range(columns)
                    ]
                return new

            found = iter(_summed(builder, depth, [_same(vector, 0.0)] * rows * columns, more))
            for row in places(out, down, rows):
                for c in range(columns):
                    _store(builder, next(found), row, builder.mul(across, whole(c)))
            return context.get_dummy_value()

        n = types.intp
        return types.void(out, n, n, a, n, n, b, n, n, n), code

    return sums


@intrinsic
def dots(typing, x, rows, down, indices, count, depth):
    """x . rows[indices[n]] for the first `count` >= 1 indices, one in each lane, over `depth`
    vectors; lanes from `count` on repeat the last."""
    kind = _vector(x.dtype)

    def code(context, builder, sig, args):
        x_, rows_, down_, indices_, count_, depth_ = args
        whole, vector = down_.type, _llvm(kind)
        last, places = builder.sub(count_, whole(1)), []
        for lane in range(vector.count):
            n = builder.select(builder.icmp_signed("<", last, whole(lane)), last, whole(lane))
            j = builder.sext(builder.load(builder.gep(indices_, [n])), whole)
            places.append(builder.gep(rows_, [builder.mul(j, down_)]))

        def more(k, sums):
            offset = builder.mul(k, whole(vector.count))
            factor = _load(builder, x_, offset, vector)
            return [
                _call(builder, "fmuladd", factor, _load(builder, place, offset, vector), old)
                for place, old in zip(places, sums, strict=True)
            ]

        sums, step = _summed(builder, depth_, [_same(vector, 0.0)] * vector.count, more), 1
        while len(sums) > 1:  # lane n ends with the sum over the lanes of sums[n]
            pairs = zip(sums[::2], sums[1::2], strict=True)
            sums = [builder.fadd(*_interleaved(builder, a, b, step)) for a, b in pairs]
            step *= 2
        return sums[0]

    n = types.intp
    return kind(x, rows, n, indices, n, n), code


def gather(vectors: int):
    """An intrinsic: out = sum_n weights[n] rows[indices[n]] for `vectors` vectors of a row."""

    @intrinsic
    def sums(typing, out, weights, rows, down, indices, count):
        vector = _llvm(_vector(out.dtype))

        def code(context, builder, sig, args):
            out_, weights_, rows_, down_, indices_, count_ = args
            whole = down_.type
            offsets = [whole(n * vector.count) for n in range(vectors)]

            def more(n, sums):
                j = builder.sext(builder.load(builder.gep(indices_, [n])), whole)
                row = builder.gep(rows_, [builder.mul(j, down_)])
                weight = builder.load(builder.gep(weights_, [n]))
                weight = _spread(builder, weight, vector.count)
                return [
                    _call(builder, "fmuladd", weight, _load(builder, row, offset, vector), old)
                    for offset, old in zip(offsets, sums, strict=True)
                ]

            found = _summed(builder, count_, [_same(vector, 0.0)] * vectors, more)
            for offset, value in zip(offsets, found, strict=True):
                _store(builder, value, out_, offset)
            return context.get_dummy_value()

        n = types.intp
        return types.void(out, weights, rows, n, indices, n), code

    return sums
