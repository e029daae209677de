"""The least cosine between tokens of many matrices, one in every lane of a vector."""

from dynsim.kernels.compiler import inner
from dynsim.kernels.fields import FEW, GROUP
from dynsim.kernels.panels import lanes, least, number, read, where_less, zeros
from dynsim.kernels.simd import at, compact, element, fma, put, sqrt, store
from dynsim.kernels.singular import run, units

__all__ = ["advance", "advance_few"]

_few, _group = zeros(FEW), zeros(GROUP // 2)
_least = least(4, 4)


@inner
def _directions(like, tokens, unit, n, d):
    """Tokens at size 1, those that are 0 left so; 0, or NaN where not all are finite."""
    compact()
    size, zero, one = lanes(like), number(like, 0.0), number(like, 1.0)
    inverse, total = one / read(like, unit, 0), zero
    for i in range(n):
        token, square = at(tokens, i * d * size), zero
        for k in range(0, d * size, size):
            value = read(like, token, k) * inverse
            store(token, k, value)
            square = fma(value, value, square)
        total += square
        scale = one / sqrt(where_less(zero, square, square, one))
        for k in range(0, d * size, size):
            store(token, k, read(like, token, k) * scale)
    return total - total


@inner
def _cosines(like, smallest, work, problem):
    """As `advance`, in the lanes of `like`."""
    compact()
    x, count, n, d = problem
    size = lanes(like)
    unit, out, tokens = work, at(work, size), at(work, 2 * size)
    down = d * size
    for first in range(0, count, size):
        source = x, n, d, first, count
        units(like, unit, source)
        run(like, tokens, 0, n * d, source)
        nothing = _directions(like, tokens, unit, n, d)
        for e in range(n * down, (n + 3) * down, size):  # the last token again
            store(tokens, e, read(like, tokens, e - down))
        value = number(like, 1.0)
        for i in range(0, n, 4):
            left = at(tokens, i * down), down
            for j in range(i, n, 4):
                value = _least(like, value, left, (at(tokens, j * down), down), d)
        bottom = number(like, -1.0)
        store(out, 0, where_less(value, bottom, bottom, value) + nothing)
        for lane in range(min(size, count - first)):
            put(smallest, first + lane, element(out, lane))


def advance(r):
    """r.smallest = min_ij <x_i, x_j> / (||x_i|| ||x_j||) of the matrices r.x (`fields.COSINES`),
    within [-1, 1]; NaN where x is not finite."""
    _cosines(_group(), r.smallest, r.work, (r.x, r.count, r.n, r.d))


def advance_few(r):
    """As `advance`, with the same bits, for a few matrices."""
    _cosines(_few(), r.smallest, r.work, (r.x, r.count, r.n, r.d))
