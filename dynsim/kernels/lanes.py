"""Many small trajectories, one in every lane of a vector, all layers in one call.

Every number of the definition is a vector here, so the code reads as the definition does for one
trajectory; lanes never meet, so results do not depend on what else is in the batch.
"""

import math

from dynsim.kernels.compiler import inner
from dynsim.kernels.shapes import LANE_ROWS, PAD
from dynsim.kernels.simd import (
    absolute,
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
from dynsim.kernels.sums import tile

__all__ = ["advance", "exponentials", "measure", "multiply", "normalise", "project", "span"]

_lanes_by_numbers = tile(LANE_ROWS, PAD, a_lanes=True, b_lanes=False)
_lanes_by_lanes = tile(LANE_ROWS, PAD, a_lanes=True, b_lanes=True)


@inner
def project(out, down, x, x_down, matrix, columns, rows, depth):
    """out = x matrix for tokens x, rows x depth, and a matrix of `columns` columns."""
    compact()
    w = width(x)
    for i in range(0, rows, LANE_ROWS):
        for k in range(0, columns, PAD):
            _lanes_by_numbers(
                at(out, i * down + k * w), down, w, at(x, i * x_down), x_down, w,
                at(matrix, k), columns, 1, depth,
            )  # fmt: skip


@inner
def multiply(out, down, a, a_down, b, b_down, b_across, columns, depth):
    """out = a b for LANE_ROWS rows of a."""
    compact()
    w = width(a)
    for k in range(0, columns, PAD):
        _lanes_by_lanes(
            at(out, k * w), down, w, a, a_down, w, at(b, k * b_across), b_down, b_across, depth
        )


@inner
def normalise(x, y, d, centre, scale, shift, gain, bias):
    """The one formula of `dynsim.norms` for the token x in every lane; y may be x.

    Lanes whose squares leave the range of numbers are brought to size 1 first.
    """
    w = width(x)
    compact()
    low, high = safe(x)
    if centre:
        first, mean = load(x, 0), splat(x, 0.0)
        for k in range(d):
            mean += load(x, k * w) - first
        mean /= splat(x, d)
        for k in range(d):
            store(y, k * w, load(x, k * w) - first - mean)
        x = y
    size = splat(x, shift)
    for k in range(d):
        z = load(x, k * w)
        size = fma(z, z, size)
    if not all_within(size, low, high):
        one, unit = splat(x, 1.0), splat(x, 0.0)
        for k in range(d):
            unit = maximum(unit, absolute(load(x, k * w)))
        unit = where_within(size, low, high, one, where_within(unit, 0.0, 0.0, one, unit))
        size = splat(x, shift) / unit / unit
        for k in range(d):
            z = load(x, k * w) / unit
            store(y, k * w, z)
            size = fma(z, z, size)
        x = y
    factor = splat(x, scale) / sqrt(size)
    for k in range(d):
        store(y, k * w, fma(load(x, k * w) * factor, spread(gain, k), spread(bias, k)))


@inner
def _sums(x, unit, n, d, row, work, out, step):
    """mu, mean cosine, smallest and largest norm and Frobenius norm of x in units of `unit`.

    Returns the squared Frobenius norm; `work` has room for 2 d vectors.
    """
    compact()
    w, directions = width(x), at(work, d * width(x))
    zero, one = splat(x, 0.0), splat(x, 1.0)
    for k in range(2 * d):
        store(work, k * w, zero)
    frobenius, sized, smallest, most = zero, zero, splat(x, math.inf), zero
    for i in range(n):
        token, size = at(x, i * row), zero
        for k in range(d):
            z = load(token, k * w)
            size = fma(z, z, size)
            store(work, k * w, load(work, k * w) + (z - load(x, k * w)))
        frobenius += size
        smallest, most = minimum(smallest, size), maximum(most, size)
        inverse = where_within(size, 0.0, 0.0, zero, one / sqrt(size))
        sized += where_within(size, 0.0, 0.0, zero, one)
        for k in range(d):
            sum_ = fma(load(token, k * w), inverse, load(directions, k * w))
            store(directions, k * w, sum_)
    mu, cosines = zero, zero
    for k in range(d):
        mean, first = load(work, k * w) / splat(x, n), load(x, k * w)
        for i in range(n):
            z = load(x, i * row + k * w) - first - mean
            mu = fma(z, z, mu)
        z = load(directions, k * w)
        cosines = fma(z, z, cosines)
    nan = frobenius - frobenius  # not finite, not measured
    cosine = (cosines - sized) / splat(x, n * (n - 1)) if n > 1 else one
    store(out, 0, sqrt(mu) * unit + nan)
    store(out, step, cosine + nan)
    store(out, 2 * step, sqrt(smallest) * unit + nan)
    store(out, 3 * step, sqrt(most) * unit + nan)
    store(out, 4 * step, sqrt(frobenius) * unit + nan)
    return frobenius


@inner
def measure(x, n, d, row, spare, work, out, step):
    """As `_sums`, for any size: lanes out of range are measured in units of their largest entry."""
    compact()
    low, high = safe(x)
    frobenius = _sums(x, splat(x, 1.0), n, d, row, work, out, step)
    if not all_within(frobenius, low, high):
        w, one, unit = width(x), splat(x, 1.0), splat(x, 0.0)
        for e in range(0, n * row, w):
            unit = maximum(unit, absolute(load(x, e)))
        unit = where_within(frobenius, low, high, one, where_within(unit, 0.0, 0.0, one, unit))
        for e in range(0, n * row, w):
            store(spare, e, load(x, e) / unit)
        _sums(spare, unit, n, d, row, work, out, step)


@inner
def span(indptr, indices, begin, end):
    """(first, last): all keys of the tokens from begin to end lie in first .. last - 1; first is a
    multiple of PAD."""
    first, last = element(indices, element(indptr, begin)), 0
    for r in range(begin, end):
        low = element(indices, element(indptr, r))
        high = element(indices, element(indptr, r + 1) - 1)
        first = low if low < first else first
        last = high + 1 if high >= last else last
    return first // PAD * PAD, last


@inner
def exponentials(s, p, indices, begin, end, first, last, wanted, entropy):
    """p = e^(s - max s) over the tokens indices[begin:end] and 0 elsewhere in first .. last.

    Returns the sum of p; the entropies of p are added to `entropy` if wanted.
    """
    compact()
    w = width(s)
    top = load(s, element(indices, begin) * w)
    for e in range(begin, end):
        top = maximum(top, load(s, element(indices, e) * w))
    if end - begin < last - first:
        for j in range(first, last):
            store(p, j * w, splat(s, 0.0))
    total = splat(s, 0.0)
    e = begin
    while e + 4 <= end:
        j0, j1 = element(indices, e) * w, element(indices, e + 1) * w
        j2, j3 = element(indices, e + 2) * w, element(indices, e + 3) * w
        z0, z1, z2, z3 = exp4(
            load(s, j0) - top, load(s, j1) - top, load(s, j2) - top, load(s, j3) - top
        )
        store(p, j0, z0)
        store(p, j1, z1)
        store(p, j2, z2)
        store(p, j3, z3)
        total += (z0 + z1) + (z2 + z3)
        e += 4
    for rest in range(e, end):
        j = element(indices, rest) * w
        z = exp(load(s, j) - top)
        store(p, j, z)
        total += z
    if wanted:
        moment = splat(s, 0.0)
        for e in range(begin, end):
            j = element(indices, e) * w
            moment = fma(load(p, j), load(s, j) - top, moment)
        moment /= total
        for lane in range(w):
            found = math.log(extract(total, lane)) - extract(moment, lane)
            put(entropy, lane, element(entropy, lane) + found)
    return total


def advance(
    x, query, query_bias, key, value, output, output_bias, indptr, indices,
    given, start, layers, blocks, rows, columns, heads, n, d, p, p_wide, v, v_wide,
    biased, has_keys, has_values, skip, before, branch, after, centre, scale, shift, gain, bias,
    now, next_, seen, keys, values, q, scores, weights, mixed, out, totals, work,
    observed, wanted, entropy,
):  # fmt: skip
    """Layers of attention on x (blocks, rows, columns, lanes), in place.

    n tokens of dimension d are padded with zeros to rows and columns. The weights are those of
    `weights.LayerWeights`, `given` layers of them, used in turn from number `start` on, with
    padded last axes: query (T, H, d, p_wide), query_bias (T, H, p_wide), key (T, H, d, p_wide)
    unless it is the identity, value (T, H, d, v_wide) unless it is, output (T, H, v, columns),
    output_bias (T, columns).
    Token i attends to indices[indptr[i]:indptr[i + 1]], in ascending order. The norm, centre ..
    bias, is applied `before`, in the `branch` and `after`. now .. work are memory
    (`shapes.lane_memory`). observed (layers, 5, blocks, lanes) takes the cheap measures after each
    layer; entropy (blocks, lanes), if wanted, gains the entropies of all attention rows of the
    first layer, in nats.
    """
    compact()
    w = width(x)
    row, q_row, s_row, v_row = columns * w, p_wide * w, rows * w, v_wide * w
    state = rows * row
    own_keys, own_values = keys, values
    for block in range(blocks):
        for e in range(0, state, w):
            store(now, e, load(x, e))
            store(next_, e, splat(x, 0.0))
        for t in range(layers):
            turn = (start + t) % given
            z = now
            if before:
                z = seen
                for i in range(n):
                    token = at(now, i * row)
                    normalise(token, at(z, i * row), d, centre, scale, shift, gain, bias)
            keys, values = z, z
            if has_keys:
                keys = own_keys
                for h in range(heads):
                    matrix = at(key, (turn * heads + h) * d * p_wide)
                    project(at(keys, h * rows * q_row), q_row, z, row, matrix, p_wide, rows, d)
            if has_values:
                values = own_values
                for h in range(heads):
                    matrix = at(value, (turn * heads + h) * d * v_wide)
                    project(at(values, h * rows * v_row), v_row, z, row, matrix, v_wide, rows, d)
            for i in range(0, n, LANE_ROWS):
                tall = LANE_ROWS if i + LANE_ROWS <= n else n - i
                first, last = span(indptr, indices, i, i + tall)
                for h in range(heads):
                    matrix = at(query, (turn * heads + h) * d * p_wide)
                    project(q, q_row, at(z, i * row), row, matrix, p_wide, tall, d)
                    if biased:
                        shifts = at(query_bias, (turn * heads + h) * p_wide)
                        for e in range(0, tall * q_row, w):
                            store(q, e, load(q, e) + spread(shifts, e // w % p_wide))
                    side = at(keys, h * has_keys * rows * q_row + first * q_row)
                    to = at(scores, first * w)
                    multiply(to, s_row, q, q_row, side, w, q_row, last - first, p)
                    for r in range(tall):
                        begin, end = element(indptr, i + r), element(indptr, i + r + 1)
                        total = exponentials(
                            at(scores, r * s_row), at(weights, r * s_row), indices, begin, end,
                            first, last, wanted and t == 0, entropy,
                        )  # fmt: skip
                        store(totals, r * w, total)
                    side = at(values, h * has_values * rows * v_row + first * v_row)
                    source = at(weights, first * w)
                    multiply(mixed, v_row, source, s_row, side, v_row, w, v_wide, last - first)
                    for r in range(tall):
                        share = splat(x, 1.0) / load(totals, r * w)
                        for e in range(r * v_row, (r + 1) * v_row, w):
                            store(mixed, e, load(mixed, e) * share)
                    to = out
                    if h:
                        to = at(out, LANE_ROWS * row)
                    matrix = at(output, (turn * heads + h) * v * columns)
                    project(to, row, mixed, v_row, matrix, columns, tall, v)
                    if h:
                        for e in range(0, tall * row, w):
                            store(out, e, load(out, e) + load(to, e))
                for r in range(tall):
                    y, own = at(out, r * row), at(now, (i + r) * row)
                    to = at(next_, (i + r) * row)
                    for k in range(d):
                        z_ = load(y, k * w) + spread(output_bias, turn * columns + k)
                        store(to, k * w, z_)
                    if branch:
                        normalise(to, to, d, centre, scale, shift, gain, bias)
                    if skip != 0.0:
                        for k in range(0, d * w, w):
                            store(to, k, fma(splat(x, skip), load(own, k), load(to, k)))
                    if after:
                        normalise(to, to, d, centre, scale, shift, gain, bias)
            now, next_ = next_, now
            place = at(observed, (t * 5 * blocks + block) * w)
            measure(now, n, d, row, next_, work, place, blocks * w)
        for e in range(0, state, w):
            store(x, e, load(now, e))
        x = at(x, state)
        if wanted:
            entropy = at(entropy, w)
