"""What a norm and positions do to queries and keys before they make scores, for any arrangement."""

from collections.abc import Callable

from dynsim.kernels.arrays import divide, largest_entry, squares
from dynsim.kernels.compiler import inner
from dynsim.kernels.simd import (
    all_within,
    at,
    compact,
    fma,
    load,
    safe,
    splat,
    sqrt,
    store,
    where_within,
    width,
)

__all__ = ["shaping"]


def shaping(joined: Callable, peak: Callable) -> Callable:
    """shaped(r, x, i, count, gains): queries or keys x of the tokens i .. i + count - 1, in place.

    With `r.normed` each becomes gains x / sqrt(|x|^2 + shift); with `r.turned` its numbers k and
    k + half are turned by the angles of its place, whose cosines and sines are given.
    """

    @inner
    def normalise(r, x, gains):
        """Squares that leave the range of numbers are brought to size 1 first."""
        compact()
        low, high = safe(x)
        size = joined(squares(x, r.p_row)) + splat(x, r.qk_shift)
        if not all_within(size, low, high):
            most = peak(largest_entry(x, r.p_row))
            unit = where_within(size, low, high, splat(x, 1.0), most)
            unit = where_within(unit, 0.0, 0.0, splat(x, 1.0), unit)
            divide(x, x, unit, r.p_row)
            size = joined(squares(x, r.p_row)) + splat(x, r.qk_shift) / unit / unit
        factor = splat(x, 1.0) / sqrt(size)
        for e in range(0, r.p_row, width(x)):
            store(x, e, load(x, e) * factor * load(gains, e))

    @inner
    def shaped(r, x, i, count, gains):
        compact()
        w, half = width(x), r.half
        for k in range(count):
            row = at(x, k * r.p_row)
            if r.normed:
                normalise(r, row, gains)
            if r.turned:
                cosines, sines = at(r.cosines, (i + k) * half), at(r.sines, (i + k) * half)
                for e in range(0, half, w):
                    a, b = load(row, e), load(row, half + e)
                    c, s = load(cosines, e), load(sines, e)
                    store(row, e, a * c - b * s)
                    store(row, half + e, fma(a, s, b * c))

    return shaped
