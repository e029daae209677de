"""Norms and measures of tokens, for any arrangement."""

import math
from collections.abc import Callable
from typing import NamedTuple

from dynsim.kernels.arrangement import Arrangement
from dynsim.kernels.arrays import combine, divide, fill, largest_entry, scale, squares
from dynsim.kernels.compiler import inner
from dynsim.kernels.fields import STRIP
from dynsim.kernels.layer import composed
from dynsim.kernels.simd import (
    all_within,
    at,
    compact,
    erf,
    fma,
    load,
    maximum,
    minimum,
    safe,
    splat,
    sqrt,
    store,
    tanh,
    where_within,
    width,
)

__all__ = ["TokenFunctions", "token_functions"]


class TokenFunctions(NamedTuple):
    """unit_of(x, size): the largest |entry| of `size` numbers, 1 if all are 0
    centred(r, x, y): the token x less the mean of its d numbers into y, which may be x
    normalise(r, x, y): the norm of the token x into y, which may be x
    summed(r, x, count, out): what is observed of `count` tokens, in parts
    merged(r, strips, sums, out, step): the five cheap measures of all strips, `step` apart
    finish(r, x, c, log_x, y, c_y, log_y, count): `layer.composed`, of `count` tokens
    """

    unit_of: Callable
    centred: Callable
    normalise: Callable
    summed: Callable
    merged: Callable
    finish: Callable


def token_functions(arrangement: Arrangement) -> TokenFunctions:
    """The functions for this arrangement."""
    head, inside = arrangement.head, arrangement.inside
    joined, peak = arrangement.joined, arrangement.peak

    @inner
    def unit_of(x, size):
        most = peak(largest_entry(x, size))
        return where_within(most, 0.0, 0.0, splat(x, 1.0), most)

    @inner
    def centred(r, x, y):
        w, first, mean = width(x), head(x), splat(x, 0.0)
        for e in range(0, r.long, w):
            mean += inside(load(x, e) - first, e, r.d)
        mean = joined(mean) / splat(x, r.d)
        for e in range(0, r.long, w):
            store(y, e, inside(load(x, e) - first - mean, e, r.d))

    @inner
    def elementwise(r, x, y):
        compact()
        scale, shift = splat(x, r.scale), splat(x, r.shift)
        for e in range(0, r.long, width(x)):
            z = fma(load(x, e), scale, shift)
            z = tanh(z) if r.function == 1 else erf(z)
            store(y, e, fma(z, load(r.gain, e), load(r.bias, e)))

    @inner
    def normalise(r, x, y):
        """The one formula of `dynsim.norms`, or gain f(scale x + shift) + bias where r.function.

        Tokens whose squares leave the range of numbers are brought to size 1 first.
        """
        compact()
        if r.function:
            elementwise(r, x, y)
            return
        low, high = safe(x)
        if r.centre:
            centred(r, x, y)
            x = y
        size = joined(squares(x, r.long)) + splat(x, r.shift)
        if not all_within(size, low, high):
            unit = where_within(size, low, high, splat(x, 1.0), unit_of(x, r.long))
            divide(y, x, unit, r.long)
            size = joined(squares(y, r.long)) + splat(x, r.shift) / unit / unit
            x = y
        factor = splat(x, r.scale) / sqrt(size)
        for e in range(0, r.long, width(x)):
            store(y, e, fma(load(x, e) * factor, load(r.gain, e), load(r.bias, e)))

    @inner
    def strip(r, x, count, out):
        """As `summed`, in units of 1; returns the sum of all squares."""
        compact()
        w, row, long = width(x), r.row, r.long
        directions = at(out, row)
        zero, one = splat(x, 0.0), splat(x, 1.0)
        fill(out, 0.0, 2 * row)
        total, sized, smallest, most = zero, zero, splat(x, math.inf), zero
        for i in range(count):
            token, size = at(x, i * row), zero
            for e in range(0, long, w):
                z = load(token, e)
                size = fma(z, z, size)
                store(out, e, load(out, e) + (z - load(x, e)))
            size = joined(size)
            total += size
            smallest, most = minimum(smallest, size), maximum(most, size)
            inverse = splat(x, r.inverse_size)
            if r.inverse_size == 0.0:
                inverse = where_within(size, 0.0, 0.0, zero, one / sqrt(size))
            sized += where_within(size, 0.0, 0.0, zero, one)
            for e in range(0, long, w):
                store(directions, e, fma(load(token, e), inverse, load(directions, e)))
        deviation, share = zero, one / splat(x, count)
        for e in range(0, long, w):
            mean, first = load(out, e) * share, load(x, e)
            for i in range(count):
                z = load(x, i * row + e) - first - mean
                deviation = fma(z, z, deviation)
            store(out, e, first + mean)
        found = at(out, 2 * row)
        store(found, 0, joined(deviation))
        store(found, w, smallest)
        store(found, 2 * w, most)
        store(found, 3 * w, total)
        store(found, 4 * w, sized)
        store(found, 5 * w, one)
        return total

    @inner
    def summed(r, x, count, out):
        """Of `count` <= STRIP tokens: their mean, the sum of their directions, and vectors of
        squared deviation, smallest, largest and total squared size, tokens not 0, and the unit that
        these are in: the largest entry where squares leave the range of numbers."""
        compact()
        w = width(x)
        low, high = safe(x)
        total = strip(r, x, count, out)
        if not all_within(total, low, high):
            unit = where_within(total, low, high, splat(x, 1.0), unit_of(x, count * r.row))
            divide(r.spare, x, unit, count * r.row)
            strip(r, r.spare, count, out)
            store(out, 2 * r.row + 5 * w, unit)
            scale(out, out, unit, r.long)

    @inner
    def merged(r, strips, sums, out, step):
        """The five cheap measures from the sums of all strips (Chan's formula, in their order)."""
        compact()
        w, row, long, n = width(sums), r.row, r.long, r.n
        stride = 2 * row + 6 * w
        zero, one = splat(sums, 0.0), splat(sums, 1.0)
        mean, directions = r.mean, at(r.mean, row)
        unit = zero
        for s in range(strips):
            unit = maximum(unit, load(sums, s * stride + 2 * row + 5 * w))
        fill(mean, 0.0, 2 * row)
        deviation, smallest, most = zero, splat(sums, math.inf), zero
        total, sized = zero, zero
        for s in range(strips):
            own = at(sums, s * stride)
            found = at(own, 2 * row)
            before = s * STRIP
            count = min(STRIP, n - before)
            share = load(found, 5 * w) / unit
            share *= share
            deviation = fma(load(found, 0), share, deviation)
            apart, weight = zero, splat(sums, count / (before + count))
            for e in range(0, long, w):
                z = load(own, e) - load(mean, e)
                store(mean, e, fma(z, weight, load(mean, e)))
                store(directions, e, load(directions, e) + load(own, row + e))
                if before:
                    z /= unit
                    apart = fma(z, z, apart)
            if before:
                weight = splat(sums, before * count / (before + count))
                deviation = fma(joined(apart), weight, deviation)
            smallest = minimum(smallest, load(found, w) * share)
            most = maximum(most, load(found, 2 * w) * share)
            total = fma(load(found, 3 * w), share, total)
            sized += load(found, 4 * w)
        nan = total - total  # not finite, not measured
        cosine = one
        if n > 1:
            cosine = (joined(squares(directions, long)) - sized) / splat(sums, n * (n - 1.0))
        store(out, 0, sqrt(deviation) * unit + nan)
        store(out, step, cosine + nan)
        store(out, 2 * step, sqrt(smallest) * unit + nan)
        store(out, 3 * step, sqrt(most) * unit + nan)
        store(out, 4 * step, sqrt(total) * unit + nan)

    @inner
    def normalise_all(r, y, c, log_y, count):
        for i in range(count):
            normalise(r, at(y, i * r.row), at(y, i * r.row))
        return log_y

    @inner
    def add(r, x, c, log_x, y, c_y, log_y, count):
        combine(y, splat(x, r.skip), x, splat(x, r.weight), count * r.row)
        return log_y

    finish = composed(normalise_all, add)
    return TokenFunctions(unit_of, centred, normalise, summed, merged, finish)
