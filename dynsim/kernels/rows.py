"""One trajectory of any size, all layers in one call, alone or by a team of threads.

Tokens are taken in blocks of rows; no N x N array is made. With contiguous ranges a block meets
keys that lie transposed in panels, COLUMNS to a panel, and values in panels of COLUMNS dimensions,
so that sums stay in registers; with lists of neighbours (CSR) it gathers their rows. What a block
gives is measured and turned into keys and values of the next layer while it is in cache. Sums are
taken in an order that does not depend on the threads.
"""

import math

import numpy as np

from dynsim.kernels.compiler import inner, kernel
from dynsim.kernels.simd import (
    TILE_COLUMNS,
    TILE_ROWS,
    absolute,
    at,
    compact,
    data,
    dots,
    element,
    exp,
    fma,
    gather,
    largest,
    load,
    maximum,
    safe,
    splat,
    store,
    tile,
    total,
    transpose,
    width,
    within,
)
from dynsim.kernels.team import barrier, take

__all__ = ["STRIP", "advance", "block_rows", "panel_columns", "parts"]

#: Rows that are measured together, and given to a thread together.
STRIP = 32
_GATHERED = 4

_numbers_by_lanes = tile(TILE_ROWS, TILE_COLUMNS, a_lanes=False, b_lanes=True)
_gather_many, _gather_one = gather(_GATHERED), gather(1)


def panel_columns(w):
    """Columns of a panel, for vectors of w numbers."""
    return TILE_COLUMNS * w


def block_rows(w):
    """Rows of a block: whole tiles and whole squares to transpose."""
    return max(TILE_ROWS, w)


def parts(w, rows, columns, heads, p, v, widest, before, has_keys, has_values):
    """Where the parts of the shared and of the private scratch memory of `advance` start.

    `widest` is the largest number of scores of a row that are in memory at once.
    """
    spare = 3 * w  # keeps columns from meeting in one set of the cache
    keys = (has_keys * heads or 1) * rows * p
    value = rows * v + (v // panel_columns(w)) * spare
    values = (has_values * heads or 1) * value
    strips = -(-rows // STRIP)
    shared = [before * rows * columns, keys, keys, values, values, 2 * strips * (2 * columns + 8)]
    block = block_rows(w)
    private = [block * p, block * (widest + w), block * max(v, p), block * columns]
    private += [STRIP * columns, 2 * columns, block]
    return np.cumsum([0, *shared]), np.cumsum([0, *private])


@inner
def _project(out, down, step, x, x_down, panels, panel, rows, columns, depth):
    """out = x matrix: x is rows x depth, the matrix in panels `panel` apart, out in columns of
    panels `step` apart."""
    compact()
    w = width(x)
    for _ in range(0, columns, TILE_COLUMNS * w):
        for r in range(0, rows, TILE_ROWS):
            _numbers_by_lanes(
                at(out, r * down), down, w, at(x, r * x_down), x_down, 1, panels,
                TILE_COLUMNS * w, w, depth,
            )  # fmt: skip
        out, panels = at(out, step), at(panels, panel)


@inner
def _normalise(x, y, d, columns, centre, scale, shift, gain, bias):
    """The one formula of `dynsim.norms` for the token x; y may be x. See `lanes`."""
    compact()
    w = width(x)
    low, high = safe(x)
    if centre:
        first, sum_ = splat(x, element(x, 0)), splat(x, 0.0)
        for k in range(0, columns, w):
            sum_ += within(load(x, k) - first, k, 0, d, 0.0)
        mean = splat(x, total(sum_)) / splat(x, d)
        for k in range(0, columns, w):
            store(y, k, within(load(x, k) - first - mean, k, 0, d, 0.0))
        x = y
    sum_ = splat(x, 0.0)
    for k in range(0, columns, w):
        sum_ = fma(load(x, k), load(x, k), sum_)
    size = total(sum_) + shift
    if not low <= size <= high:
        most = splat(x, 0.0)
        for k in range(0, columns, w):
            most = maximum(most, absolute(load(x, k)))
        unit = largest(most)
        if unit == 0.0:
            unit = largest(splat(x, 1.0))
        sum_ = splat(x, 0.0)
        for k in range(0, columns, w):
            z = load(x, k) / splat(x, unit)
            store(y, k, z)
            sum_ = fma(z, z, sum_)
        size = total(sum_) + shift / unit / unit
        x = y
    factor = splat(x, scale) / splat(x, math.sqrt(size))
    for k in range(0, columns, w):
        store(y, k, fma(load(x, k) * factor, load(gain, k), load(bias, k)))


@inner
def _strip(x, n, columns, out):
    """Sums of n <= STRIP tokens: mean, sum of directions, and into the last places of `out`
    squared deviation, smallest, largest and total squared size, tokens of any size, unit, n."""
    compact()
    w = width(x)
    directions = at(out, columns)
    for k in range(0, 2 * columns, w):
        store(out, k, splat(x, 0.0))
    all_, sized, smallest, most = 0.0, 0.0, math.inf, 0.0
    for i in range(n):
        token, sum_ = at(x, i * columns), splat(x, 0.0)
        for k in range(0, columns, w):
            z = load(token, k)
            sum_ = fma(z, z, sum_)
            store(out, k, load(out, k) + (z - load(x, k)))
        size = float(total(sum_))
        all_ += size
        smallest, most = min(smallest, size), max(most, size)
        if size != 0.0:
            sized += 1.0
            inverse = splat(x, 1.0 / math.sqrt(size))
            for k in range(0, columns, w):
                store(directions, k, fma(load(token, k), inverse, load(directions, k)))
    deviation = splat(x, 0.0)
    for k in range(0, columns, w):
        mean = load(out, k) / splat(x, n)
        for i in range(n):
            z = load(x, i * columns + k) - load(x, k) - mean
            deviation = fma(z, z, deviation)
        store(out, k, load(x, k) + mean)
    return float(total(deviation)), smallest, most, all_, sized


@inner
def _measure(x, n, columns, spare, out, scalars):
    """`_strip`, in units of the largest entry where squares would leave the range of numbers."""
    compact()
    w = width(x)
    low, high = safe(x)
    deviation, smallest, most, all_, sized = _strip(x, n, columns, out)
    unit = 1.0
    if not low <= all_ <= high:
        largest_ = splat(x, 0.0)
        for e in range(0, n * columns, w):
            largest_ = maximum(largest_, absolute(load(x, e)))
        unit = float(largest(largest_))
        if unit == 0.0:
            unit = 1.0
        for e in range(0, n * columns, w):
            store(spare, e, load(x, e) / splat(x, unit))
        deviation, smallest, most, all_, sized = _strip(spare, n, columns, out)
        for k in range(0, columns, w):
            store(out, k, load(out, k) * splat(x, unit))
    scalars[0], scalars[1], scalars[2] = deviation, smallest, most
    scalars[3], scalars[4], scalars[5], scalars[6] = all_, sized, unit, n


@inner
def _merge(strips, sums, scalars, columns, mean, out):
    """The five cheap measures from the sums of all strips (Chan's formula, in their order)."""
    compact()
    w = width(sums)
    directions = at(mean, columns)
    unit = 0.0
    for s in range(strips):
        unit = max(unit, scalars[s, 5])
    for k in range(0, 2 * columns, w):
        store(mean, k, load(sums, k))
    seen, deviation, smallest, most, all_, sized = 0.0, 0.0, math.inf, 0.0, 0.0, 0.0
    for s in range(strips):
        own, share = at(sums, s * 2 * columns), scalars[s, 5] / unit
        count, apart = scalars[s, 6], splat(sums, 0.0)
        weight = splat(sums, count / (seen + count))
        for k in range(0, columns, w):
            if s:
                z = load(own, k) - load(mean, k)
                store(mean, k, fma(z, weight, load(mean, k)))
                z /= splat(sums, unit)
                apart = fma(z, z, apart)
                store(directions, k, load(directions, k) + load(own, columns + k))
        share *= share
        deviation += scalars[s, 0] * share + total(apart) * (seen * count / (seen + count))
        smallest = min(smallest, scalars[s, 1] * share)
        most, all_ = max(most, scalars[s, 2] * share), all_ + scalars[s, 3] * share
        sized, seen = sized + scalars[s, 4], seen + count
    cosines = splat(sums, 0.0)
    for k in range(0, columns, w):
        cosines = fma(load(directions, k), load(directions, k), cosines)
    nan = all_ - all_  # not finite, not measured
    out[0] = unit * math.sqrt(deviation) + nan
    out[1] = nan + ((total(cosines) - sized) / (seen * (seen - 1.0)) if seen > 1.0 else 1.0)
    out[2], out[3] = unit * math.sqrt(smallest) + nan, unit * math.sqrt(most) + nan
    out[4] = unit * math.sqrt(all_) + nan


@inner
def _exponentials(s, width_, wanted):
    """s = e^(s - max s); returns the sum, and sum s log s if wanted, else 0."""
    compact()
    w = width(s)
    top = load(s, 0)
    for j in range(w, width_, w):
        top = maximum(top, load(s, j))
    top = splat(s, largest(top))
    sum_, moment = splat(s, 0.0), splat(s, 0.0)
    for j in range(0, width_, w):
        z = load(s, j) - top
        e = exp(z)
        store(s, j, e)
        sum_ += e
        if wanted:
            moment = fma(e, maximum(z, splat(s, -800.0)), moment)
    return total(sum_), total(moment)


@inner
def _publish(z, i, block, rows, columns, d, p, v, keys, values, wk, wv, heads, sparse, spare):
    """Keys and values of the rows i .. i + block of tokens z for the next layer."""
    compact()
    w = width(z)
    panel, gap = TILE_COLUMNS * w, 3 * w
    z = at(z, i * columns)
    key_heads = heads if wk.size else 0
    value_heads = heads if wv.size else 0
    for h in range(max(1, key_heads)):
        source, down = z, columns
        if key_heads:
            source, down = spare, p
            _project(spare, p, panel, z, columns, at(data(wk), h * d * p), d * panel, block, p, d)
        own = at(keys, h * rows * p)
        if sparse:
            for r in range(block):
                for k in range(0, p, w):
                    store(own, (i + r) * p + k, load(source, r * down + k))
        else:
            for r in range(0, block, w):
                j = i + r
                to = at(own, j // panel * panel * p + j % panel)
                for k in range(0, p, w):
                    transpose(at(source, r * down + k), down, at(to, k * panel), panel)
    for h in range(max(1, value_heads)):
        if sparse:
            own, down, step = at(values, h * rows * v + i * v), v, panel
        else:
            step, down = rows * panel + gap, panel
            own = at(values, h * (v // panel) * step + i * panel)
        if value_heads:
            _project(own, down, step, z, columns, at(data(wv), h * d * v), d * panel, block, v, d)
        else:
            for k in range(0, v, w):
                to = at(own, k // panel * step + k % panel)
                for r in range(block):
                    store(to, r * down, load(z, r * columns + k))


@kernel
def advance(
    x, query, query_bias, key, value, output, output_bias, begin, end, indices, n, d, true_p,
    true_v, biased, skip, before, branch, after, centre, scale, shift, gain, bias,
    shared_places, shared, scalars, private_places, private, team, member, members, observed,
    entropy,
):  # fmt: skip
    """Layers of attention on x (N', d'), in place: what one member of a team does of them.

    Arrays are as for `lanes.advance`, but matrices lie in panels: query (T, H, p' / COLUMNS, d,
    COLUMNS) and so on. Token i attends to begin[i] .. end[i] - 1, or to indices[begin[i]:end[i]].
    shared, scalars (2, strips, 8), team, observed (layers, 5) and entropy (N) are one for all
    members, private is each member's own; `parts` says how large.
    """
    compact()
    memory, mine = data(shared), data(private)
    w = width(memory)
    panel, gap = TILE_COLUMNS * w, 3 * w
    block = TILE_ROWS if w < TILE_ROWS else w
    rows, columns, heads = x.shape[0], x.shape[1], query.shape[1]
    p, v = query.shape[2] * panel, columns
    has_keys, has_values, sparse = key.size > 0, value.size > 0, indices is not None
    if has_values:
        v = value.shape[2] * panel
    gain, bias = data(gain), data(bias)
    q, s = at(mine, private_places[0]), at(mine, private_places[1])
    u, o = at(mine, private_places[2]), at(mine, private_places[3])
    spare, mean = at(mine, private_places[4]), at(mine, private_places[5])
    x = data(x)
    z = x
    if before:
        z = at(memory, shared_places[0])
    strips = (n + STRIP - 1) // STRIP
    layers = observed.shape[0]
    s_down = (private_places[2] - private_places[1]) // block
    # keys and values of the first layer
    strip = take(team)
    while strip < strips:
        for i in range(strip * STRIP, min(n, (strip + 1) * STRIP), block):
            if before:
                for r in range(i, min(n, i + block)):
                    _normalise(
                        at(x, r * columns), at(z, r * columns), d, columns, centre, scale, shift,
                        gain, bias,
                    )  # fmt: skip
            _publish(
                z, i, block, rows, columns, d, p, v, at(memory, shared_places[1]),
                at(memory, shared_places[3]), key[0], value[0], heads, sparse, u,
            )  # fmt: skip
        strip = take(team)
    barrier(team, members)
    for t in range(layers):
        now, next_ = t % 2, (t + 1) % 2
        wq = at(data(query), t % query.shape[0] * heads * d * p)
        bq = at(data(query_bias), t % query_bias.shape[0] * heads * p)
        wo = at(data(output), t % output.shape[0] * heads * true_v * columns)
        bo = at(data(output_bias), t % output_bias.shape[0] * columns)
        keys, values = at(memory, shared_places[1 + now]), at(memory, shared_places[3 + now])
        sums = at(memory, shared_places[5] + now * strips * 2 * columns)
        strip = take(team)
        while strip < strips:
            top = strip * STRIP
            bottom = min(n, top + STRIP)
            for i in range(top, bottom, block):
                tall = min(block, n - i)
                for h in range(heads):
                    _project(
                        q, p, panel, at(z, i * columns), columns, at(wq, h * d * p), d * panel,
                        block, p, d,
                    )  # fmt: skip
                    if biased:
                        for r in range(tall):
                            for k in range(0, p, w):
                                e = r * p + k
                                store(q, e, load(q, e) + load(bq, h * p + k))
                    if indices is None:
                        first, last = begin[i], end[i]
                        for r in range(i + 1, i + tall):
                            first, last = min(first, begin[r]), max(last, end[r])
                        first = first // panel * panel
                        wide = (last - first + panel - 1) // panel * panel
                        side = at(keys, (h * rows if has_keys else 0) * p + first * p)
                        _project(s, s_down, panel, q, p, side, panel * p, block, wide, true_p)
                        for r in range(tall):
                            row, a, b = at(s, r * s_down), begin[i + r] - first, end[i + r] - first
                            for j in range(0, wide, w):
                                if j < a or j + w > b:
                                    store(row, j, within(load(row, j), j, a, b, -math.inf))
                            sum_, moment = _exponentials(row, wide, entropy.size > 0)
                            if entropy.size:
                                entropy[i + r] += math.log(sum_) - moment / sum_
                            private[private_places[6] + r] = 1.0 / sum_
                        step = rows * panel + gap
                        side = at(
                            values, (h if has_values else 0) * (v // panel) * step + first * panel
                        )
                        _project(u, v, panel, s, s_down, side, step, block, v, last - first)
                    else:
                        side = at(keys, (h * rows if has_keys else 0) * p)
                        other = at(values, (h * rows if has_values else 0) * v)
                        for r in range(tall):
                            a, count = begin[i + r], end[i + r] - begin[i + r]
                            wide = (count + w - 1) // w * w
                            lists = at(data(indices), a)
                            for j in range(0, count, w):
                                found = dots(at(q, r * p), side, p, at(lists, j), count - j, p // w)
                                store(s, j, within(found, j, 0, count, -math.inf))
                            sum_, moment = _exponentials(s, wide, entropy.size > 0)
                            if entropy.size:
                                entropy[i + r] += math.log(sum_) - moment / sum_
                            private[private_places[6] + r] = 1.0 / sum_
                            k = 0
                            while k < v:
                                to, source = at(u, r * v + k), at(other, k)
                                if k + _GATHERED * w <= v:
                                    _gather_many(to, s, source, v, lists, count)
                                    k += _GATHERED * w
                                else:
                                    _gather_one(to, s, source, v, lists, count)
                                    k += w
                    for r in range(tall):
                        share = splat(x, private[private_places[6] + r])
                        for k in range(0, v, w):
                            store(u, r * v + k, load(u, r * v + k) * share)
                    to = o
                    if h:
                        to = spare
                    _project(
                        to, columns, panel, u, v, at(wo, h * true_v * columns), true_v * panel,
                        block, columns, true_v,
                    )  # fmt: skip
                    if h:
                        for e in range(0, tall * columns, w):
                            store(o, e, load(o, e) + load(spare, e))
                for r in range(tall):
                    y, own = at(o, r * columns), at(x, (i + r) * columns)
                    for k in range(0, columns, w):
                        store(y, k, load(y, k) + load(bo, k))
                    if branch:
                        _normalise(y, y, d, columns, centre, scale, shift, gain, bias)
                    for k in range(0, columns, w):
                        e = load(y, k)
                        if skip != 0:
                            e = fma(splat(x, skip), load(own, k), e)
                        store(own, k, e)
                    if after:
                        _normalise(own, own, d, columns, centre, scale, shift, gain, bias)
                    if before:
                        _normalise(
                            own, at(z, (i + r) * columns), d, columns, centre, scale, shift, gain,
                            bias,
                        )  # fmt: skip
                if t + 1 < layers:
                    _publish(
                        z, i, block, rows, columns, d, p, v, at(memory, shared_places[1 + next_]),
                        at(memory, shared_places[3 + next_]), key[(t + 1) % len(key)],
                        value[(t + 1) % len(value)], heads, sparse, u,
                    )  # fmt: skip
            _measure(
                at(x, top * columns), bottom - top, columns, spare,
                at(sums, strip * 2 * columns), scalars[now, strip],
            )  # fmt: skip
            strip = take(team)
        barrier(team, members)
        if member == 0:
            _merge(strips, sums, scalars[now], columns, mean, observed[t])
