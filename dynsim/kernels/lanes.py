"""Many small trajectories, one in every lane of a vector, all layers in one call.

Every number of the definition is a vector here, so the code reads as the definition does for one
trajectory; lanes never meet, so results do not depend on what else is in the batch.
"""

import math

import numpy as np

from dynsim.kernels.compiler import inner, kernel
from dynsim.kernels.simd import (
    TILE_ROWS,
    absolute,
    all_within,
    at,
    compact,
    data,
    element,
    exp,
    extract,
    fma,
    load,
    maximum,
    minimum,
    safe,
    splat,
    spread,
    sqrt,
    store,
    tile,
    where_within,
    width,
)

__all__ = ["PAD", "advance", "parts"]

#: Tokens and dimensions are padded with zeros to a multiple of this: the columns of a tile.
PAD = 4
_ROWS = TILE_ROWS // 2

_lanes_by_numbers = tile(_ROWS, PAD, a_lanes=True, b_lanes=False)
_lanes_by_lanes = tile(_ROWS, PAD, a_lanes=True, b_lanes=True)


def parts(w, rows, columns, heads, p, v, d, has_keys, has_values):
    """Where each part of the scratch memory of `advance` starts, in the order of its use there."""
    state = rows * columns * w
    sizes = [state, state, state, has_keys * heads * rows * p * w]
    sizes += [has_values * heads * rows * v * w, _ROWS * p * w, _ROWS * rows * w]
    sizes += [_ROWS * rows * w, _ROWS * v * w, 2 * _ROWS * columns * w, _ROWS * w, 2 * d * w]
    return np.cumsum([0, *sizes])


@inner
def _project(out, down, x, x_down, matrix, columns, rows, depth):
    """out = x matrix for tokens x, rows x depth, and a matrix of `columns` columns."""
    compact()
    w = width(x)
    for i in range(0, rows, _ROWS):
        for k in range(0, columns, PAD):
            _lanes_by_numbers(
                at(out, i * down + k * w), down, w, at(x, i * x_down), x_down, w,
                at(matrix, k), columns, 1, depth,
            )  # fmt: skip


@inner
def _multiply(out, down, a, a_down, b, b_down, b_across, columns, depth):
    """out = a b for _ROWS rows of a."""
    compact()
    w = width(a)
    for k in range(0, columns, PAD):
        _lanes_by_lanes(
            at(out, k * w), down, w, a, a_down, w, at(b, k * b_across), b_down, b_across, depth
        )


@inner
def _normalise(x, y, d, centre, scale, shift, gain, bias):
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
def _measure(x, n, d, row, spare, work, out, step):
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
def _exponentials(s, p, indices, begin, end, first, last, wanted):
    """p = e^(s - max s) over the tokens indices[begin:end] and 0 elsewhere in first .. last.

    Returns the sum of p and, if wanted, that of p log p.
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
    for e in range(begin, end):
        j = element(indices, e) * w
        z = exp(load(s, j) - top)
        store(p, j, z)
        total += z
    moment = splat(s, 0.0)
    if wanted:
        for e in range(begin, end):
            j = element(indices, e) * w
            moment = fma(load(p, j), load(s, j) - top, moment)
    return total, moment


@kernel
def advance(
    x, query, query_bias, key, value, output, output_bias, indptr, indices, d, p, v, n, biased,
    skip, before, branch, after, centre, scale, shift, gain, bias, places, scratch, observed,
    entropy,
):  # fmt: skip
    """Layers of attention on x (blocks, N', d', lanes), in place; N', d' are padded to tiles.

    The weights are those of `weights.LayerWeights` with a leading axis over layers, used in turn,
    and a last axis padded likewise: query (T, H, d, p'), query_bias (T, H, p'), key (T, H, d, p')
    or empty for the identity, value (T, H, d, v') or empty, output (T, H, v, d'), output_bias
    (T, d'). Token i attends to indices[indptr[i]:indptr[i + 1]], in ascending order. The norm,
    centre .. bias, is applied `before`, in the `branch` and `after`. observed (layers, 5, blocks,
    lanes) takes the cheap measures after each layer; entropy (blocks, lanes), unless empty, gains
    the entropies of all attention rows in nats.
    """
    compact()
    w, layers, blocks, heads = width(data(x)), observed.shape[0], x.shape[0], query.shape[1]
    rows, columns, across_p, across_v = x.shape[1], x.shape[2], query.shape[3], x.shape[2]
    has_keys, has_values = key.size > 0, value.size > 0
    if has_values:
        across_v = value.shape[3]
    gain, bias, lists = data(gain), data(bias), data(indices)
    memory = data(scratch)
    now, next_, seen = memory, at(memory, places[1]), at(memory, places[2])
    q, scores, weights = at(memory, places[5]), at(memory, places[6]), at(memory, places[7])
    mixed, out, totals = at(memory, places[8]), at(memory, places[9]), at(memory, places[10])
    work, state = at(memory, places[11]), rows * columns * w
    row, q_row, s_row, v_row = columns * w, across_p * w, rows * w, across_v * w
    for block in range(blocks):
        source = at(data(x), block * state)
        for e in range(0, state, w):
            store(now, e, load(source, e))
            store(next_, e, splat(now, 0.0))
        for t in range(layers):
            wq = at(data(query), t % query.shape[0] * heads * d * across_p)
            bq = at(data(query_bias), t % query_bias.shape[0] * heads * across_p)
            wo = at(data(output), t % output.shape[0] * heads * v * columns)
            bo = at(data(output_bias), t % output_bias.shape[0] * columns)
            z = now
            if before:
                z = seen
                for i in range(n):
                    _normalise(
                        at(now, i * row), at(z, i * row), d, centre, scale, shift, gain, bias
                    )
            keys, values = z, z
            if has_keys:
                keys = at(memory, places[3])
                wk = at(data(key), t % key.shape[0] * heads * d * across_p)
                for h in range(heads):
                    to, matrix = at(keys, h * rows * q_row), at(wk, h * d * across_p)
                    _project(to, q_row, z, row, matrix, across_p, rows, d)
            if has_values:
                values = at(memory, places[4])
                wv = at(data(value), t % value.shape[0] * heads * d * across_v)
                for h in range(heads):
                    to, matrix = at(values, h * rows * v_row), at(wv, h * d * across_v)
                    _project(to, v_row, z, row, matrix, across_v, rows, d)
            for i in range(0, n, _ROWS):
                tall = _ROWS if i + _ROWS <= n else n - i
                first, last = rows, 0
                for r in range(i, i + tall):
                    low, high = indices[indptr[r]], indices[indptr[r + 1] - 1] + 1
                    first = low if low < first else first
                    last = high if high > last else last
                first = first // PAD * PAD
                for h in range(heads):
                    matrix = at(wq, h * d * across_p)
                    _project(q, q_row, at(z, i * row), row, matrix, across_p, tall, d)
                    if biased:
                        for r in range(tall):
                            for k in range(p):
                                e = r * q_row + k * w
                                store(q, e, load(q, e) + spread(bq, h * across_p + k))
                    side = at(keys, h * rows * q_row if has_keys else 0)
                    to, side = at(scores, first * w), at(side, first * q_row)
                    _multiply(to, s_row, q, q_row, side, w, q_row, last - first, p)
                    side = at(values, h * rows * v_row if has_values else 0)
                    for r in range(tall):
                        total, moment = _exponentials(
                            at(scores, r * s_row), at(weights, r * s_row), lists,
                            indptr[i + r], indptr[i + r + 1], first, last, entropy.size > 0,
                        )  # fmt: skip
                        store(totals, r * w, total)
                        if entropy.size:
                            moment /= total
                            for lane in range(w):
                                entropy[block, lane] += math.log(extract(total, lane))
                                entropy[block, lane] -= extract(moment, lane)
                    side, p_ = at(side, first * v_row), at(weights, first * w)
                    _multiply(mixed, v_row, p_, s_row, side, v_row, w, across_v, last - first)
                    for r in range(tall):
                        share = splat(now, 1.0) / load(totals, r * w)
                        for k in range(v):
                            e = r * v_row + k * w
                            store(mixed, e, load(mixed, e) * share)
                    to, matrix = at(out, _ROWS * row if h else 0), at(wo, h * v * columns)
                    _project(to, row, mixed, v_row, matrix, columns, tall, v)
                    if h:
                        for e in range(0, tall * row, w):
                            store(out, e, load(out, e) + load(to, e))
                for r in range(tall):
                    y, own = at(out, r * row), at(now, (i + r) * row)
                    target = at(next_, (i + r) * row)
                    for k in range(d):
                        store(y, k * w, load(y, k * w) + spread(bo, k))
                    if branch:
                        _normalise(y, y, d, centre, scale, shift, gain, bias)
                    for k in range(d):
                        e = load(y, k * w)
                        if skip != 0:
                            e = fma(splat(now, skip), load(own, k * w), e)
                        store(target, k * w, e)
                    if after:
                        _normalise(target, target, d, centre, scale, shift, gain, bias)
            now, next_ = next_, now
            place = at(data(observed), (t * 5 * blocks + block) * w)
            _measure(now, n, d, row, next_, work, place, blocks * w)
        for e in range(0, state, w):
            store(source, e, load(now, e))
