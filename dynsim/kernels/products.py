"""Sums of products that stay in registers: the loops that kernels spend their time in."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dynsim.kernels import llvm
from dynsim.kernels.simd import llvm_type, vector_of

__all__ = ["dots", "gather", "tile"]


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
        vector = llvm_type(vector_of(out))

        def code(context, builder, sig, args):
            out, down, across, a, a_down, a_across, b, b_down, b_across, depth = args
            whole = down.type

            def places(pointer, step, count):
                return [builder.gep(pointer, [builder.mul(step, whole(n))]) for n in range(count)]

            def read(pointer, offset, lanes):
                if lanes:
                    return llvm.load(builder, pointer, offset, vector)
                return llvm.spread(
                    builder, builder.load(builder.gep(pointer, [offset])), vector.count
                )

            a_rows = [_kept(builder, place) for place in places(a, a_down, rows)]
            b_columns = places(b, b_across, columns)

            def more(k, sums):
                a_at, b_at = builder.mul(k, a_across), builder.mul(k, b_down)
                b_now = [read(column, b_at, b_lanes) for column in b_columns]
                new = []
                for r, row in enumerate(a_rows):
                    a_now = read(row, a_at, a_lanes)
                    new += [
                        llvm.call(builder, "fmuladd", a_now, b_now[c], sums[r * columns + c])
                        for c in range(columns)
                    ]
                return new

            found = iter(
                llvm.summed(builder, depth, [llvm.same(vector, 0.0)] * rows * columns, more)
            )
            for row in places(out, down, rows):
                for c in range(columns):
                    llvm.store(builder, next(found), row, builder.mul(across, whole(c)))
            return context.get_dummy_value()

        n = types.intp
        return types.void(out, n, n, a, n, n, b, n, n, n), code

    return sums


@intrinsic
def dots(typing, x, rows, down, indices, count, depth):
    """x . rows[indices[n]] for the first `count` >= 1 indices, one in each lane, over `depth`
    vectors; lanes from `count` on repeat the last."""
    kind = vector_of(x)

    def code(context, builder, sig, args):
        x_, rows_, down_, indices_, count_, depth_ = args
        whole, vector = down_.type, llvm_type(kind)
        last, places = builder.sub(count_, whole(1)), []
        for lane in range(vector.count):
            n = builder.select(builder.icmp_signed("<", last, whole(lane)), last, whole(lane))
            j = builder.sext(builder.load(builder.gep(indices_, [n])), whole)
            places.append(builder.gep(rows_, [builder.mul(j, down_)]))

        def more(k, sums):
            offset = builder.mul(k, whole(vector.count))
            factor = llvm.load(builder, x_, offset, vector)
            return [
                llvm.call(
                    builder,
                    "fmuladd",
                    factor,
                    llvm.load(builder, place, offset, vector),
                    old,
                )
                for place, old in zip(places, sums, strict=True)
            ]

        sums, step = (
            llvm.summed(builder, depth_, [llvm.same(vector, 0.0)] * vector.count, more),
            1,
        )
        while len(sums) > 1:  # lane n ends with the sum over the lanes of sums[n]
            pairs = zip(sums[::2], sums[1::2], strict=True)
            sums = [builder.fadd(*llvm.interleaved(builder, a, b, step)) for a, b in pairs]
            step *= 2
        return sums[0]

    n = types.intp
    return kind(x, rows, n, indices, n, n), code


def gather(vectors: int):
    """An intrinsic: out = sum_n weights[n] rows[indices[n]] for `vectors` vectors of a row."""

    @intrinsic
    def sums(typing, out, weights, rows, down, indices, count):
        vector = llvm_type(vector_of(out))

        def code(context, builder, sig, args):
            out_, weights_, rows_, down_, indices_, count_ = args
            whole = down_.type
            offsets = [whole(n * vector.count) for n in range(vectors)]

            def more(n, sums):
                j = builder.sext(builder.load(builder.gep(indices_, [n])), whole)
                row = builder.gep(rows_, [builder.mul(j, down_)])
                weight = builder.load(builder.gep(weights_, [n]))
                weight = llvm.spread(builder, weight, vector.count)
                return [
                    llvm.call(
                        builder,
                        "fmuladd",
                        weight,
                        llvm.load(builder, row, offset, vector),
                        old,
                    )
                    for offset, old in zip(offsets, sums, strict=True)
                ]

            found = llvm.summed(builder, count_, [llvm.same(vector, 0.0)] * vectors, more)
            for offset, value in zip(offsets, found, strict=True):
                llvm.store(builder, value, out_, offset)
            return context.get_dummy_value()

        n = types.intp
        return types.void(out, weights, rows, n, indices, n), code

    return sums
