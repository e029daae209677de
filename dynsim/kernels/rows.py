"""One trajectory of any size, all layers in one call, alone or by a team of threads.

Tokens are taken in blocks of rows; no N x N array is made. With contiguous ranges a block meets
keys that lie transposed in panels, COLUMNS to a panel, and values in panels of COLUMNS dimensions,
so that sums stay in registers; with lists of neighbours (CSR) it gathers their rows. What a block
gives is measured and turned into keys and values of the next layer while it is in cache. Sums are
taken in an order that does not depend on the threads.
"""

import math

from dynsim.kernels.compiler import inner
from dynsim.kernels.processor import TILE_COLUMNS, TILE_ROWS
from dynsim.kernels.shapes import STRIP
from dynsim.kernels.simd import (
    absolute,
    at,
    compact,
    element,
    exp,
    fma,
    largest,
    load,
    maximum,
    prefetch,
    put,
    safe,
    splat,
    spread,
    store,
    total,
    transpose,
    width,
    within,
)
from dynsim.kernels.sums import dots, gather, tile
from dynsim.kernels.team import barrier, take

__all__ = [
    "advance",
    "attend_list",
    "attend_range",
    "measure",
    "merge",
    "normalise",
    "project",
    "publish_keys",
]

_GATHERED = 8

_numbers_by_lanes = tile(TILE_ROWS, TILE_COLUMNS, a_lanes=False, b_lanes=True)
_gather_many, _gather_one = gather(_GATHERED), gather(1)


@inner
def project(out, down, step, x, x_down, panels, panel, rows, columns, depth):
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
def normalise(x, y, d, columns, centre, scale, shift, gain, bias):
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
def measure(x, n, columns, spare, out, scalars):
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
    put(scalars, 0, deviation)
    put(scalars, 1, smallest)
    put(scalars, 2, most)
    put(scalars, 3, all_)
    put(scalars, 4, sized)
    put(scalars, 5, unit)
    put(scalars, 6, n)


@inner
def merge(strips, sums, scalars, columns, mean, out):
    """The five cheap measures from the sums of all strips (Chan's formula, in their order)."""
    compact()
    w = width(sums)
    directions = at(mean, columns)
    unit = 0.0
    for s in range(strips):
        own = element(scalars, 8 * s + 5)
        unit = own if own > unit else unit
    for k in range(0, 2 * columns, w):
        store(mean, k, splat(sums, 0.0))
    seen, deviation, smallest, most, all_, sized = 0.0, 0.0, math.inf, 0.0, 0.0, 0.0
    for s in range(strips):
        own, found = at(sums, s * 2 * columns), at(scalars, 8 * s)
        share, count = element(found, 5) / unit, element(found, 6)
        weight, apart = splat(sums, count / (seen + count)), splat(sums, 0.0)
        for k in range(0, columns, w):
            z = load(own, k) - load(mean, k)
            store(mean, k, fma(z, weight, load(mean, k)))
            z /= splat(sums, unit)
            apart = fma(z, z, apart)
            store(directions, k, load(directions, k) + load(own, columns + k))
        share *= share
        deviation += element(found, 0) * share
        if s:
            deviation += total(apart) * (seen * count / (seen + count))
        low, high = element(found, 1) * share, element(found, 2) * share
        smallest = low if low < smallest else smallest
        most = high if high > most else most
        all_ += element(found, 3) * share
        sized, seen = sized + element(found, 4), seen + count
    cosines = splat(sums, 0.0)
    for k in range(0, columns, w):
        cosines = fma(load(directions, k), load(directions, k), cosines)
    nan = all_ - all_  # not finite, not measured
    cosine = (total(cosines) - sized) / (seen * (seen - 1.0)) if seen > 1.0 else 1.0
    put(out, 0, unit * math.sqrt(deviation) + nan)
    put(out, 1, cosine + nan)
    put(out, 2, unit * math.sqrt(smallest) + nan)
    put(out, 3, unit * math.sqrt(most) + nan)
    put(out, 4, unit * math.sqrt(all_) + nan)


@inner
def _exponentials(s, wide, wanted, entropy):
    """s = e^(s - max s) for `wide` scores; returns the sum. The entropy of s is added to
    entropy[0] if wanted."""
    compact()
    w = width(s)
    best = load(s, 0)
    for j in range(w, wide, w):
        best = maximum(best, load(s, j))
    top = splat(s, largest(best))
    sum_, moment = splat(s, 0.0), splat(s, 0.0)
    for j in range(0, wide, w):
        z = load(s, j) - top
        e = exp(z)
        store(s, j, e)
        sum_ += e
        if wanted:
            moment = fma(e, maximum(z, splat(s, -800.0)), moment)
    found = total(sum_)
    if wanted:
        put(entropy, 0, element(entropy, 0) + math.log(found) - total(moment) / found)
    return found


@inner
def attend_range(q, p_wide, p, keys, values, v_wide, step, begin, end, tall, s, s_down, u,
                  shares, block, wanted, entropy):  # fmt: skip
    """u = softmax(q keys) values for a block whose row r attends to begin[r] .. end[r] - 1; rows
    of u are still to be multiplied by their shares."""
    compact()
    w = width(q)
    panel = TILE_COLUMNS * w
    first, last = element(begin, 0), element(end, 0)
    for r in range(1, tall):
        low, high = element(begin, r), element(end, r)
        first = low if low < first else first
        last = high if high > last else last
    first = first // panel * panel
    wide = (last - first + panel - 1) // panel * panel
    project(s, s_down, panel, q, p_wide, at(keys, first * p_wide), panel * p_wide, block, wide, p)
    for r in range(tall):
        row, a, b = at(s, r * s_down), element(begin, r) - first, element(end, r) - first
        for j in range(0, wide, w):
            if j < a or j + w > b:
                store(row, j, within(load(row, j), j, a, b, -math.inf))
        put(shares, r, 1.0 / _exponentials(row, wide, wanted, at(entropy, r)))
    project(u, v_wide, panel, s, s_down, at(values, first * panel), step, block, v_wide,
             last - first)  # fmt: skip


@inner
def attend_list(q, p_wide, keys, values, v_wide, begin, end, indices, tall, s, u, shares,
                 wanted, entropy):  # fmt: skip
    """As `attend_range`, for row r and the tokens indices[begin[r]:end[r]]."""
    compact()
    w = width(q)
    for r in range(tall):
        own, count = at(indices, element(begin, r)), element(end, r) - element(begin, r)
        if r + 1 < tall:  # the keys of the next row, while there is work on this one
            for e in range(element(begin, r + 1), element(end, r + 1)):
                row = element(indices, e) * p_wide
                for k in range(0, p_wide, w):
                    prefetch(keys, row + k)
        for j in range(0, count, w):
            found = dots(at(q, r * p_wide), keys, p_wide, at(own, j), count - j, p_wide // w)
            store(s, j, within(found, j, 0, count, -math.inf))
        wide = (count + w - 1) // w * w
        put(shares, r, 1.0 / _exponentials(s, wide, wanted, at(entropy, r)))
        k = 0
        while k + _GATHERED * w <= v_wide:
            _gather_many(at(u, r * v_wide + k), s, at(values, k), v_wide, own, count)
            k += _GATHERED * w
        while k < v_wide:
            _gather_one(at(u, r * v_wide + k), s, at(values, k), v_wide, own, count)
            k += w


@inner
def publish_keys(z, i, block, down, p_wide, keys, indices):
    """Rows z, `down` apart, as keys of tokens i, i + 1, ...: in panels, or as rows for lists."""
    compact()
    w = width(z)
    panel = TILE_COLUMNS * w
    for r in range(0, block, w):
        j = i + r
        if indices is None:
            to = at(keys, j // panel * panel * p_wide + j % panel)
            for k in range(0, p_wide, w):
                transpose(at(z, r * down + k), down, at(to, k * panel), panel)
        else:
            for e in range(r, min(block, r + w)):
                for k in range(0, p_wide, w):
                    store(keys, (i + e) * p_wide + k, load(z, e * down + k))


def advance(
    x, query, query_bias, key, value, output, output_bias, begin, end, indices,
    given, layers, rows, columns, heads, n, d, p, p_wide, v, v_wide,
    biased, has_keys, has_values, skip, before, branch, after, centre, scale, shift, gain, bias,
    seen, keys, other_keys, values, other_values, sums, other_sums, scalars, other_scalars,
    q, s, u, o, spare, mean, shares, s_down, block, team, member, members, observed, wanted,
    entropy,
):  # fmt: skip
    """Layers of attention on x (rows, columns), in place: what one member of a team does of them.

    Arguments are as for `lanes.advance`, but matrices lie in panels of COLUMNS columns, query
    (T, H, p_wide / COLUMNS, d, COLUMNS) and so on. Token i attends to begin[i] .. end[i] - 1, or to
    indices[begin[i]:end[i]] unless indices is None. seen .. other_scalars is memory of all members
    (`shapes.shared_memory`, scalars (strips, 8)), q .. shares of each (`shapes.private_memory`),
    who takes `block` rows at a time. observed (layers, 5) and entropy (n) are one for all; entropy
    gains those of each row in the first layer, in nats, if wanted.
    """
    compact()
    w = width(x)
    panel, gap = TILE_COLUMNS * w, 3 * w
    step, down = rows * panel + gap, panel  # of values
    head_keys, head_values = rows * p_wide * has_keys, v_wide // panel * step * has_values
    if indices is not None:
        step, down, head_values = panel, v_wide, rows * v_wide * has_values
    keys_are_values = indices is not None and not has_keys and not has_values
    z = x
    if before:
        z = seen
    strips = (n + STRIP - 1) // STRIP
    for t in range(-1, layers):  # -1: keys and values of the first layer, nothing else
        turn, following = t % given, (t + 1) % given
        strip = take(team)
        while strip < strips:
            top = strip * STRIP
            bottom = top + STRIP if top + STRIP < n else n
            for i in range(top, bottom, block):
                tall = block if i + block < n else n - i
                own = at(z, i * columns)
                if t >= 0:
                    for h in range(heads):
                        here = turn * heads + h
                        project(q, p_wide, panel, own, columns, at(query, here * d * p_wide),
                                 d * panel, block, p_wide, d)  # fmt: skip
                        if biased:
                            for r in range(tall):
                                for k in range(0, p_wide, w):
                                    e = r * p_wide + k
                                    store(q, e, load(q, e) + load(query_bias, here * p_wide + k))
                        side, other = at(keys, h * head_keys), at(values, h * head_values)
                        if keys_are_values:  # fetched once
                            other = side
                        mine = at(entropy, i)
                        if indices is None:
                            attend_range(
                                q, p_wide, p, side, other, v_wide, step, at(begin, i), at(end, i),
                                tall, s, s_down, u, shares, block, wanted and t == 0, mine,
                            )  # fmt: skip
                        else:
                            attend_list(
                                q, p_wide, side, other, v_wide, at(begin, i), at(end, i), indices,
                                tall, s, u, shares, wanted and t == 0, mine,
                            )  # fmt: skip
                        for r in range(tall):
                            for k in range(r * v_wide, (r + 1) * v_wide, w):
                                store(u, k, load(u, k) * spread(shares, r))
                        to = o
                        if h:
                            to = spare
                        project(to, columns, panel, u, v_wide, at(output, here * v * columns),
                                 v * panel, block, columns, v)  # fmt: skip
                        if h:
                            for e in range(0, tall * columns, w):
                                store(o, e, load(o, e) + load(spare, e))
                    for r in range(tall):
                        y, token = at(o, r * columns), at(x, (i + r) * columns)
                        for k in range(0, columns, w):
                            store(y, k, load(y, k) + load(output_bias, turn * columns + k))
                        if branch:
                            normalise(y, y, d, columns, centre, scale, shift, gain, bias)
                        if skip != 0.0:
                            for k in range(0, columns, w):
                                store(y, k, fma(splat(x, skip), load(token, k), load(y, k)))
                        if after:
                            normalise(y, y, d, columns, centre, scale, shift, gain, bias)
                        for k in range(0, columns, w):
                            store(token, k, load(y, k))
                if t + 1 == layers:
                    continue
                if before:
                    for r in range(tall):
                        token = at(x, (i + r) * columns)
                        normalise(token, at(own, r * columns), d, columns, centre, scale, shift,
                                   gain, bias)  # fmt: skip
                for h in range(heads if has_keys else 1):
                    here, source, apart = following * heads + h, own, columns
                    if has_keys:
                        source, apart = u, p_wide
                        project(u, p_wide, panel, own, columns, at(key, here * d * p_wide),
                                 d * panel, block, p_wide, d)  # fmt: skip
                    side = at(other_keys, h * head_keys)
                    publish_keys(source, i, block, apart, p_wide, side, indices)
                for h in range(heads if has_values else 1):
                    here, side = following * heads + h, at(other_values, h * head_values + i * down)
                    if has_values:
                        project(side, down, step, own, columns, at(value, here * d * v_wide),
                                 d * panel, block, v_wide, d)  # fmt: skip
                    elif not keys_are_values:
                        for r in range(block):
                            for k in range(0, v_wide, w):
                                to = at(side, k // panel * step + k % panel)
                                store(to, r * down, load(own, r * columns + k))
            if t >= 0:
                measure(
                    at(x, top * columns), bottom - top, columns, spare,
                    at(sums, strip * 2 * columns), at(scalars, strip * 8),
                )  # fmt: skip
            strip = take(team)
        barrier(team, members)
        if member == 0 and t >= 0:
            merge(strips, sums, scalars, columns, mean, at(observed, 5 * t))
        keys, other_keys, values, other_values = other_keys, keys, other_values, values
        sums, other_sums, scalars, other_scalars = other_sums, sums, other_scalars, scalars
