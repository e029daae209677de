"""One trajectory of few tokens over many layers, a token in every lane of a vector.

The operations are those of `lanes` in the same order, so the bits are the same; a layer takes a
quarter of the time that it takes there when all lanes but one are idle.
"""

import math

from dynsim.kernels.compiler import inner
from dynsim.kernels.lanes import measure, normalise
from dynsim.kernels.simd import (
    all_within,
    at,
    compact,
    element,
    exp,
    exp4,
    extract,
    fma,
    load,
    maximum,
    minimum,
    put,
    safe,
    splat,
    spread,
    sqrt,
    store,
    where_within,
    width,
)

__all__ = ["advance"]


@inner
def _project(y, x, matrix, across, columns, depth):
    """y = x matrix: (columns, lanes) of (depth, lanes)."""
    compact()
    w = width(x)
    for c in range(columns):
        sum_ = splat(x, 0.0)
        for k in range(depth):
            sum_ = fma(load(x, k * w), spread(matrix, k * across + c), sum_)
        store(y, c * w, sum_)


@inner
def _exponentials(s, z, n, allowed, complete):
    """z = e^(s - max s) over the keys j < n that each lane's token may attend to, 0 elsewhere.

    Returns the sum of z. Those allowed are the first so many for every token.
    """
    compact()
    w = width(s)
    zero = splat(s, 0.0)
    top = load(s, 0)
    for j in range(n):
        larger = maximum(top, load(s, j * w))
        top = larger if complete else where_within(load(allowed, j * w), 0.5, 2.0, larger, top)
    total = zero
    j = 0
    while j + 4 <= n:
        z0, z1, z2, z3 = exp4(
            load(s, j * w) - top, load(s, (j + 1) * w) - top,
            load(s, (j + 2) * w) - top, load(s, (j + 3) * w) - top,
        )  # fmt: skip
        if not complete:
            z0 = where_within(load(allowed, j * w), 0.5, 2.0, z0, zero)
            z1 = where_within(load(allowed, (j + 1) * w), 0.5, 2.0, z1, zero)
            z2 = where_within(load(allowed, (j + 2) * w), 0.5, 2.0, z2, zero)
            z3 = where_within(load(allowed, (j + 3) * w), 0.5, 2.0, z3, zero)
        store(z, j * w, z0)
        store(z, (j + 1) * w, z1)
        store(z, (j + 2) * w, z2)
        store(z, (j + 3) * w, z3)
        four = total + ((z0 + z1) + (z2 + z3))
        if not complete:  # the last ones of a token are added one by one
            one_by_one = total + z0 + z1 + z2
            four = where_within(load(allowed, (j + 3) * w), 0.5, 2.0, four, one_by_one)
        total = four
        j += 4
    for rest in range(j, n):
        z0 = exp(load(s, rest * w) - top)
        if not complete:
            z0 = where_within(load(allowed, rest * w), 0.5, 2.0, z0, zero)
        store(z, rest * w, z0)
        total += z0
    return total


@inner
def _measure(x, n, d, sizes, observed, place):
    """The cheap measures of tokens x; False where squares leave the range of numbers."""
    compact()
    w = width(x)
    low, high = safe(x)
    zero, one = splat(x, 0.0), splat(x, 1.0)
    size = zero
    for k in range(d):
        z = load(x, k * w)
        size = fma(z, z, size)
    store(sizes, 0, size)
    inverses = at(sizes, w)
    store(inverses, 0, where_within(size, 0.0, 0.0, zero, one / sqrt(size)))
    frobenius, sized, smallest, most = zero, zero, splat(x, math.inf), zero
    for i in range(n):
        size = spread(sizes, i)
        frobenius += size
        smallest, most = minimum(smallest, size), maximum(most, size)
        sized += where_within(size, 0.0, 0.0, zero, one)
    if not all_within(frobenius, low, high):
        return False
    mu, cosines = zero, zero
    for k in range(d):
        first, sum_, direction = spread(x, k * w), zero, zero
        for i in range(n):
            z = spread(x, k * w + i)
            sum_ += z - first
            direction = fma(z, spread(inverses, i), direction)
        mean = splat(x, extract(sum_, 0) / n)
        for i in range(n):
            z = spread(x, k * w + i) - first - mean
            mu = fma(z, z, mu)
        cosines = fma(direction, direction, cosines)
    cosine = extract(cosines - sized, 0) / (n * (n - 1)) if n > 1 else 1.0
    put(observed, place, math.sqrt(extract(mu, 0)))
    put(observed, place + 1, cosine)
    put(observed, place + 2, math.sqrt(extract(smallest, 0)))
    put(observed, place + 3, math.sqrt(extract(most, 0)))
    put(observed, place + 4, math.sqrt(extract(frobenius, 0)))
    return True


def advance(
    x, query, query_bias, key, value, output, output_bias, allowed, complete,
    given, start, layers, columns, heads, n, d, p, p_wide, v, v_wide,
    biased, has_keys, has_values, skip, before, branch, after, centre, scale, shift, gain, bias,
    next_, seen, keys, values, q, scores, weights, mixed, out, sizes, apart, spare, work, found,
    observed,
):  # fmt: skip
    """Layers of attention on x (d, lanes), in place; lanes from n on repeat the last token.

    allowed (n, lanes) is 1 where a lane's token attends to key j and 0 elsewhere; who attends to j
    attends to all before, and `complete` says that all attend to all. next_ .. found is memory
    (`shapes.single_memory`), observed (layers, 5) takes the cheap measures. The rest is as for
    `lanes.advance`.
    """
    compact()
    w = width(x)
    state = d * w
    own_keys, own_values = keys, values
    for t in range(layers):
        turn = (start + t) % given
        z = x
        if before:
            z = seen
            normalise(x, z, d, centre, scale, shift, gain, bias)
        for h in range(heads):
            here = turn * heads + h
            keys, values = z, z
            if has_keys:
                keys = own_keys
                _project(keys, z, at(key, here * d * p_wide), p_wide, p, d)
            if has_values:
                values = own_values
                _project(values, z, at(value, here * d * v_wide), v_wide, v, d)
            _project(q, z, at(query, here * d * p_wide), p_wide, p, d)
            if biased:
                for k in range(p):
                    shifted = load(q, k * w) + spread(query_bias, here * p_wide + k)
                    store(q, k * w, shifted)
            for j in range(n):
                sum_ = splat(x, 0.0)
                for k in range(p):
                    sum_ = fma(load(q, k * w), spread(keys, k * w + j), sum_)
                store(scores, j * w, sum_)
            total = _exponentials(scores, weights, n, allowed, complete)
            share = splat(x, 1.0) / total
            for k in range(v):
                sum_ = splat(x, 0.0)
                for j in range(n):
                    sum_ = fma(load(weights, j * w), spread(values, k * w + j), sum_)
                store(mixed, k * w, sum_ * share)
            to = out if h else next_
            _project(to, mixed, at(output, here * v * columns), columns, d, v)
            if h:
                for e in range(0, state, w):
                    store(next_, e, load(next_, e) + load(out, e))
        for k in range(d):
            store(next_, k * w, load(next_, k * w) + spread(output_bias, turn * columns + k))
        if branch:
            normalise(next_, next_, d, centre, scale, shift, gain, bias)
        if skip != 0.0:
            for e in range(0, state, w):
                store(next_, e, fma(splat(x, skip), load(x, e), load(next_, e)))
        if after:
            normalise(next_, next_, d, centre, scale, shift, gain, bias)
        for e in range(0, state, w):
            store(x, e, load(next_, e))
        if not _measure(x, n, d, sizes, observed, 5 * t):
            for i in range(n):  # as `lanes` has them, a trajectory in every lane
                for k in range(d):
                    store(apart, (i * d + k) * w, spread(x, k * w + i))
            measure(apart, n, d, state, spare, work, found, w)
            for m in range(5):
                put(observed, 5 * t + m, element(found, m * w))
