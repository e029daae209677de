"""Vectors as a Numba type: explicit SIMD without a C compiler.

A `Vector` is some numbers side by side in a register. It knows + - * / between vectors, and the
functions below, which are written into the code where they are called. Memory is a pointer of type
`Numbers`, which says how many numbers a vector takes, and the index of an element; nothing checks
that index.
"""

import math
import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from dynsim.kernels import llvm

__all__ = [
    "Numbers",
    "absolute",
    "all_within",
    "at",
    "compact",
    "element",
    "erf",
    "exp",
    "exp4",
    "extract",
    "fma",
    "largest",
    "llvm_type",
    "load",
    "log",
    "maximum",
    "minimum",
    "prefetch",
    "put",
    "safe",
    "splat",
    "spread",
    "sqrt",
    "store",
    "tanh",
    "total",
    "transpose",
    "vector_of",
    "where_within",
    "width",
    "within",
]


class Vector(types.Type):
    """`count` numbers of type `dtype` side by side."""

    def __init__(self, dtype, count):
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Vector({dtype}, {count})")


class Numbers(types.Type):
    """A pointer to numbers of type `dtype`, that vectors of `count` are made of."""

    def __init__(self, dtype, count):
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Numbers({dtype}, {count})")


def vector_of(pointer: Numbers) -> Vector:
    """What is loaded from there."""
    return Vector(pointer.dtype, pointer.count)


def llvm_type(vector: Vector) -> ir.VectorType:
    """What a vector is to LLVM."""
    element = ir.DoubleType() if vector.dtype == types.float64 else ir.FloatType()
    return ir.VectorType(element, vector.count)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, llvm_type(fe_type))


@register_model(Numbers)
class _NumbersModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        element = dmm.lookup(fe_type.dtype).get_data_type()
        super().__init__(dmm, fe_type, element.as_pointer())


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


fma = _of_vectors(3, lambda builder, x, y, z: llvm.call(builder, "fmuladd", x, y, z))  # x y + z
log = _of_vectors(1, lambda builder, x: llvm.call(builder, "log", x))  # lane by lane
sqrt = _of_vectors(1, lambda builder, x: llvm.call(builder, "sqrt", x))
absolute = _of_vectors(1, lambda builder, x: llvm.call(builder, "fabs", x))
maximum = _of_vectors(2, _larger)
minimum = _of_vectors(2, _smaller)


def _lane_by_lane(name):
    """A function of the C library for every lane."""

    def build(builder, x):
        number = x.type.element
        kind = ir.FunctionType(number, [number])
        symbol = name if number == ir.DoubleType() else f"{name}f"
        function = cgutils.get_or_insert_function(builder.module, kind, symbol)
        for k in map(ir.IntType(32), range(x.type.count)):
            y = builder.call(function, [builder.extract_element(x, k)])
            x = builder.insert_element(x, y, k)
        return x

    return _of_vectors(1, build)


tanh, erf = _lane_by_lane("tanh"), _lane_by_lane("erf")


#: Per bits of a number: bits of its fraction, least x whose e^x is well within the normal numbers,
#: ln 2 in two parts, and q with e^r = 1 + r + r^2 q(r) for |r| <= ln 2 / 2, to 4e-18 and 3e-9
#: (Remez).
_EXP = {
    64: (
        52, -708.0, (0.693147180369123816490, 1.90821492927058770002e-10),
        (0.5000000000000011, 0.16666666666666413, 0.041666666666530155, 0.008333333333494461,
         0.0013888888943630134, 0.00019841269506578723, 2.480149309888739e-05,
         2.755758637378518e-06, 2.763024838532302e-07, 2.500006162553128e-08),
    ),
    32: (
        23, -87.0, (0.693359375, -2.12194440e-4),
        (0.49999993447796487, 0.16666520631709497, 0.041668388045313996, 0.00836871687972814,
         0.0013814598646664034),
    ),
}  # fmt: skip


def _exps(builder, *xs):
    """2^k (1 + r + r^2 q(r)) with x = k ln 2 + r, q by Estrin's scheme.

    All of one step before the next: a processor looks too short a way ahead to overlap them itself.
    """
    kind = xs[0].type
    bits = 64 if kind.element == ir.DoubleType() else 32
    fraction, lowest, ln2, q = _EXP[bits]
    words = ir.VectorType(ir.IntType(bits), kind.count)

    def number(value):
        return llvm.same(kind, value)

    def fused(a, b, c):
        return [llvm.call(builder, "fmuladd", *abc) for abc in zip(a, b, c, strict=True)]

    def times(a, b):
        return list(map(builder.fmul, a, b))

    def every(value):
        return [number(value)] * len(xs)

    # adding it rounds to a whole number, whose last bits are then k with the exponent's bias
    magic = 1.5 * 2.0**fraction + (2.0 ** (bits - fraction - 2) - 1)
    shifted = fused(xs, every(1.0 / math.log(2.0)), every(magic))
    k = [builder.fsub(s, number(magic)) for s in shifted]
    r = fused(k, every(-ln2[0]), xs)
    r = fused(k, every(-ln2[1]), r)
    terms, power = [every(c) for c in q], r
    while len(terms) > 1:
        pairs = list(zip(terms[::2], terms[1::2], strict=False))
        rest = terms[len(pairs) * 2 :]
        terms = [fused(high, power, low) for low, high in pairs] + rest
        power = times(power, power)
    tail = fused(times(r, r), terms[0], r)
    p = [builder.fadd(number(1.0), t) for t in tail]
    whole = [builder.shl(builder.bitcast(s, words), llvm.same(words, fraction)) for s in shifted]
    values = times(p, [builder.bitcast(w, kind) for w in whole])
    small = [builder.fcmp_ordered("<", x, number(lowest)) for x in xs]
    return [builder.select(s, number(0.0), v) for s, v in zip(small, values, strict=True)]


@intrinsic
def exp4(typing, x, y, z, u):
    """`exp` of four; the bits of one do not depend on the others."""

    def code(context, builder, sig, args):
        return context.make_tuple(builder, sig.return_type, _exps(builder, *args))

    return types.UniTuple(x, 4)(x, x, x, x), code


#: e^x for x <= 0, to 1 ulp or so; 0 below -708 (float32: -87), where e^x is next to subnormal.
exp = _of_vectors(1, lambda builder, x: _exps(builder, x)[0])


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
        *llvm.gep(args)
    )


@intrinsic
def prefetch(typing, pointer, offset):
    """Have memory brought into the cache."""

    def code(context, builder, sig, args):
        number = ir.IntType(32)
        bytes_ = builder.bitcast(builder.gep(*llvm.gep(args)), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [bytes_.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [bytes_, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(pointer, types.intp), code


@intrinsic
def width(typing, pointer):
    """How many numbers of the pointer's type a vector holds."""
    count = pointer.count
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
    kind = vector_of(pointer)

    def code(context, builder, sig, args):
        scalar = context.cast(builder, args[1], number, pointer.dtype)
        return llvm.spread(builder, scalar, kind.count)

    return kind(pointer, number), code


@intrinsic
def element(typing, pointer, offset):
    """One element."""

    def code(context, builder, sig, args):
        return builder.load(builder.gep(*llvm.gep(args)))

    return pointer.dtype(pointer, types.intp), code


@intrinsic
def put(typing, pointer, offset, number):
    """Write one element."""

    def code(context, builder, sig, args):
        value = context.cast(builder, args[2], number, pointer.dtype)
        builder.store(value, builder.gep(*llvm.gep(args[:2])))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, number), code


@intrinsic
def spread(typing, pointer, offset):
    """One element in every lane."""
    kind = vector_of(pointer)

    def code(context, builder, sig, args):
        return llvm.spread(builder, builder.load(builder.gep(*llvm.gep(args))), kind.count)

    return kind(pointer, types.intp), code


@intrinsic
def load(typing, pointer, offset):
    """Consecutive elements."""
    kind = vector_of(pointer)

    def code(context, builder, sig, args):
        return llvm.load(builder, *args, llvm_type(kind))

    return kind(pointer, types.intp), code


@intrinsic
def store(typing, pointer, offset, vector):
    """Into consecutive elements, of either precision."""

    def code(context, builder, sig, args):
        kind, value = llvm_type(Vector(pointer.dtype, vector.count)), args[2]
        if value.type != kind:
            value = (builder.fptrunc if vector.dtype == types.float64 else builder.fpext)(
                value, kind
            )
        llvm.store(builder, value, *args[:2])
        return context.get_dummy_value()

    return types.void(pointer, types.intp, vector), code


@intrinsic
def extract(typing, vector, lane):
    """The number in one lane."""

    def code(context, builder, sig, args):
        return builder.extract_element(*args)

    return vector.dtype(vector, types.intp), code


def _everywhere(combine):
    """A reduction over the lanes, halves upon halves in the same order; it is in every lane."""

    def code(context, builder, sig, args):
        value, half = args[0], args[0].type.count // 2
        while half:
            lanes = [lane ^ half for lane in range(value.type.count)]
            other = builder.shuffle_vector(value, value, llvm.indices(lanes))
            value, half = combine(builder, value, other), half // 2
        return value

    return intrinsic(lambda typing, vector: (vector(vector), code))


total = _everywhere(lambda builder, x, y: builder.fadd(x, y))
largest = _everywhere(_larger)


def _inside(builder, value, low, high):
    above = builder.fcmp_ordered(">=", value, llvm.spread(builder, low, value.type.count))
    below = builder.fcmp_ordered("<=", value, llvm.spread(builder, high, value.type.count))
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
        number = builder.add(llvm.spread(builder, first_, count), lanes)
        above = builder.icmp_signed(">=", number, llvm.spread(builder, low_, count))
        below = builder.icmp_signed("<", number, llvm.spread(builder, high_, count))
        other_ = context.cast(builder, other_, types.float64, vector.dtype)
        return builder.select(
            builder.and_(above, below), vector_, llvm.spread(builder, other_, count)
        )

    n = types.intp
    return vector(vector, n, n, n, types.float64), code


@intrinsic
def transpose(typing, source, down, target, across):
    """target[c across + r] = source[r down + c] for as many r and c as a vector has lanes."""
    vector = llvm_type(vector_of(source))

    def code(context, builder, sig, args):
        source_, down_, target_, across_ = args
        offsets = [ir.IntType(64)(n) for n in range(vector.count)]
        rows = [llvm.load(builder, source_, builder.mul(down_, n), vector) for n in offsets]
        step = 1
        while step < vector.count:
            for r in range(vector.count):
                if not r & step:
                    rows[r], rows[r + step] = llvm.interleaved(
                        builder, rows[r], rows[r + step], step
                    )
            step *= 2
        for n, row in zip(offsets, rows, strict=True):
            llvm.store(builder, row, target_, builder.mul(across_, n))
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), code
