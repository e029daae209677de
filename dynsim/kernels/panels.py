"""Columns of matrices in lanes: sums of products and updates in registers, and choices per lane.

A panel is a pair (pointer, distance between its columns, in elements); its columns are contiguous
and an element of them is a vector. A vector here may be longer than a register: its halves are then
independent, and one is worked on while the other waits. Its length is that of an argument `like`.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dynsim.kernels import llvm
from dynsim.kernels.simd import Vector, llvm_type

__all__ = [
    "add",
    "any_less",
    "combine",
    "lanes",
    "least",
    "number",
    "power_of_two",
    "read",
    "reflect",
    "squares",
    "where_between",
    "where_less",
    "zeros",
]


def zeros(count: int):
    """An intrinsic: a vector of `count` numbers of float64, all 0."""
    kind = Vector(types.float64, count)

    @intrinsic
    def made(typing):
        return kind(), lambda context, builder, sig, args: llvm.same(llvm_type(kind), 0.0)

    return made


@intrinsic
def lanes(typing, like):
    """How many numbers the vector holds."""
    return types.intp(like), lambda context, builder, sig, args: ir.IntType(64)(like.count)


@intrinsic
def number(typing, like, value):
    """A number in every lane."""

    def code(context, builder, sig, args):
        return llvm.spread(builder, context.cast(builder, args[1], value, like.dtype), like.count)

    return like(like, value), code


@intrinsic
def read(typing, like, pointer, offset):
    """The vector at an offset, in elements."""

    def code(context, builder, sig, args):
        return llvm.load(builder, args[1], args[2], llvm_type(like))

    return like(like, pointer, types.intp), code


def _choice(count, condition):
    """An intrinsic of `count` vectors, x and y: x where the condition on them holds, else y."""

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
        kept = builder.and_(bits, llvm.same(words, 0x7FF0000000000000))
        return builder.bitcast(kept, args[0].type)

    return x(x), code


def _columns(builder, panel, count, vectors):
    """Pointers to the columns of a panel, given as LLVM's pair."""
    pointer, across = builder.extract_value(panel, 0), builder.extract_value(panel, 1)
    whole = across.type
    places = [builder.gep(pointer, [builder.mul(across, whole(c))]) for c in range(count)]
    return [builder.bitcast(place, vectors.as_pointer()) for place in places]


def _read_at(builder, columns, i):
    return [builder.load(builder.gep(column, [i]), align=8) for column in columns]


def _write_at(builder, values, columns, i):
    for value, column in zip(values, columns, strict=True):
        builder.store(value, builder.gep(column, [i]), align=8)


def _fused(builder, x, y, z):
    return llvm.call(builder, "fmuladd", x, y, z)


def _products(builder, left, right, sums):
    """sums + all products of a number on the left with one on the right, lefts first."""
    pairs = ((x, y) for x in left for y in right)
    return [_fused(builder, x, y, z) for (x, y), z in zip(pairs, sums, strict=True)]


def _plus(builder, column, left, factors):
    for x, y in zip(left, factors, strict=True):
        column = _fused(builder, x, y, column)
    return column


@intrinsic
def squares(typing, like, a, rows):
    """sum_i a[i]^2 of the first column of a panel."""
    vector = llvm_type(like)

    def code(context, builder, sig, args):
        columns = _columns(builder, args[1], 1, vector)

        def more(i, sums):
            now = _read_at(builder, columns, i)
            return _products(builder, now, now, sums)

        return llvm.summed(builder, args[2], [llvm.same(vector, 0.0)], more)[0]

    return like(like, a, types.intp), code


def least(left: int, right: int):
    """An intrinsic: the least of the products sum_i v_s[i] a_c[i] and a number."""

    @intrinsic
    def least_of(typing, like, so_far, v, a, rows):
        vector = llvm_type(like)

        def code(context, builder, sig, args):
            _, value, v_, a_, rows_ = args
            v_columns = _columns(builder, v_, left, vector)
            a_columns = _columns(builder, a_, right, vector)

            def more(i, sums):
                v_now, now = _read_at(builder, v_columns, i), _read_at(builder, a_columns, i)
                return _products(builder, v_now, now, sums)

            start = [llvm.same(vector, 0.0)] * (left * right)
            for product in llvm.summed(builder, rows_, start, more):
                value = builder.select(_less(builder, product, value), product, value)
            return value

        return like(like, so_far, v, a, types.intp), code

    return least_of


def combine(left: int, right: int):
    """An intrinsic: a_c[i] += sum_s v_s[i] coefficients_s[c], for `left` columns v and
    coefficients, and `right` columns a; then out[c] = sum_i a_c[i] p[i]."""

    @intrinsic
    def sums(typing, like, out, a, v, coefficients, p, rows):
        vector = llvm_type(like)

        def code(context, builder, sig, args):
            _, out_, a_, v_, coefficients_, p_, rows_ = args
            whole = rows_.type
            a_columns = _columns(builder, a_, right, vector)
            v_columns = _columns(builder, v_, left, vector)
            factors = _columns(builder, coefficients_, left, vector)
            factors = [_read_at(builder, factors, whole(c)) for c in range(right)]
            weights = [builder.bitcast(p_, vector.as_pointer())]

            def more(i, sums):
                now, v_now = _read_at(builder, a_columns, i), _read_at(builder, v_columns, i)
                now = [_plus(builder, a, v_now, f) for a, f in zip(now, factors, strict=True)]
                _write_at(builder, now, a_columns, i)
                return _products(builder, now, _read_at(builder, weights, i), sums)

            start = [llvm.same(vector, 0.0)] * right
            for c, value in enumerate(llvm.summed(builder, rows_, start, more)):
                llvm.store(builder, value, out_, whole(c * like.count))
            return context.get_dummy_value()

        return types.void(like, out, a, v, coefficients, p, types.intp), code

    return sums


def add(left: int):
    """An intrinsic: a[i] += sum_s v_s[i] coefficients[s] for `left` columns v."""

    @intrinsic
    def sums(typing, like, a, v, coefficients, rows):
        vector = llvm_type(like)

        def code(context, builder, sig, args):
            _, a_, v_, coefficients_, rows_ = args
            a_columns = _columns(builder, a_, 1, vector)
            v_columns = _columns(builder, v_, left, vector)
            place = builder.bitcast(coefficients_, vector.as_pointer())
            factors = [_read_at(builder, [place], rows_.type(s))[0] for s in range(left)]

            def more(i, sums):
                (now,), v_now = _read_at(builder, a_columns, i), _read_at(builder, v_columns, i)
                _write_at(builder, [_plus(builder, now, v_now, factors)], a_columns, i)
                return []

            llvm.summed(builder, rows_, [], more)
            return context.get_dummy_value()

        return types.void(like, a, v, coefficients, types.intp), code

    return sums


def reflect(left: int, right: int):
    """An intrinsic: the reflections I - tau_s (e_s, v_s) (e_s, v_s)^T, s < left, one after another
    on `right` columns (head_c, a_c).

    block[0:left] holds tau, block[4 (s + 1) + r] the product v_s.v_r for s < r. For one column also
    out[0] = a.a and out[1 + s] = v_s.a after that.
    """

    @intrinsic
    def sums(typing, like, out, a, head, v, block, rows):
        vector = llvm_type(like)

        def code(context, builder, sig, args):
            _, out_, a_, head_, v_, block_, rows_ = args
            whole, zero = rows_.type, llvm.same(vector, 0.0)
            a_columns = _columns(builder, a_, right, vector)
            v_columns = _columns(builder, v_, left, vector)
            heads = _columns(builder, head_, right, vector)
            block = builder.bitcast(block_, vector.as_pointer())

            def known(k):
                return _read_at(builder, [block], whole(k))[0]

            def both(i, sums):
                v_now, now = _read_at(builder, v_columns, i), _read_at(builder, a_columns, i)
                return _products(builder, v_now, now, sums)

            found = llvm.summed(builder, rows_, [zero] * (left * right), both)
            factors: list[list] = [[] for _ in range(right)]  # of every column, less their sign
            for s in range(left):
                for c, mine in enumerate(factors):
                    (own,) = _read_at(builder, [heads[c]], whole(s))
                    value = builder.fadd(found[s * right + c], own)
                    value = _plus(builder, value, mine, [known(4 * r + 4 + s) for r in range(s)])
                    mine.append(builder.fsub(zero, builder.fmul(value, known(s))))
                    _write_at(builder, [builder.fadd(own, mine[s])], [heads[c]], whole(s))

            def more(i, sums):
                now, v_now = _read_at(builder, a_columns, i), _read_at(builder, v_columns, i)
                now = [_plus(builder, x, v_now, f) for x, f in zip(now, factors, strict=True)]
                _write_at(builder, now, a_columns, i)
                return _products(builder, [*now, *v_now], now, sums) if right == 1 else []

            start = [zero] * (1 + left) if right == 1 else []
            for k, value in enumerate(llvm.summed(builder, rows_, start, more)):
                llvm.store(builder, value, out_, whole(k * like.count))
            return context.get_dummy_value()

        return types.void(like, out, a, head, v, block, types.intp), code

    return sums
