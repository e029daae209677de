"""Trajectories near consensus: all layers of 1 c + s Z in one call, one sample after another.

The definitions are those of `dynsim.deviation`; c is the first token, so the first row of Z is 0.
Attention is that of `rows`: row-constant scores cancel in the softmax, so that queries of the
tokens meet keys and values of the deviations. Where all tokens attend to the same ones, it is
computed as a difference to the row that all have in common.
"""

import math

from dynsim.kernels.compiler import inner
from dynsim.kernels.limits import DIRECT, LARGE, NOTHING, SERIES, SHORT
from dynsim.kernels.processor import TILE_COLUMNS, TILE_ROWS
from dynsim.kernels.rows import (
    attend_list,
    attend_range,
    measure,
    merge,
    normalise,
    project,
    publish_keys,
)
from dynsim.kernels.shapes import STRIP
from dynsim.kernels.simd import (
    absolute,
    at,
    compact,
    element,
    fma,
    largest,
    load,
    maximum,
    put,
    splat,
    spread,
    store,
    total,
    width,
    within,
)

__all__ = ["advance", "relative_exp"]

_LOG_LARGE = math.log(LARGE)


@inner
def relative_exp(x, b):
    """(e^b - 1) / b for |b| <= DIRECT, in vectors; x is any pointer."""
    ratio = splat(x, 1.0)
    for inverse in SERIES:
        ratio = fma(ratio * b, splat(x, inverse), splat(x, 1.0))
    return ratio


@inner
def _exp(log):
    """exp, with 0 for what comes near denormal numbers."""
    return math.exp(log) if log > -700.0 else 0.0


@inner
def _largest_of(x, size):
    """The largest |entry|, and 1 when all are 0."""
    compact()
    most = splat(x, 0.0)
    for e in range(0, size, width(x)):
        most = maximum(most, absolute(load(x, e)))
    found = float(largest(most))
    return 1.0 if found == 0.0 else found


@inner
def _centred(x, y, d, columns):
    """y = x less its mean over d dimensions; y may be x."""
    compact()
    w = width(x)
    first, sum_ = splat(x, element(x, 0)), splat(x, 0.0)
    for k in range(0, columns, w):
        sum_ += within(load(x, k) - first, k, 0, d, 0.0)
    mean = splat(x, total(sum_)) / splat(x, d)
    for k in range(0, columns, w):
        store(y, k, within(load(x, k) - first - mean, k, 0, d, 0.0))


@inner
def _normalised(x, c, log, y, c_out, p, n, d, columns, centre, scale, shift, gain, bias):
    """`dynsim.deviation.normalised`: y and c_out of 1 c + e^log x, and their log; y may be x and
    c_out may be c. p is memory of a token."""
    compact()
    w = width(x)
    if centre:
        _centred(c, p, d, columns)
    else:
        for k in range(0, columns, w):
            store(p, k, load(c, k))
    unit, sum_ = _largest_of(p, columns), splat(x, 0.0)
    for k in range(0, columns, w):
        z = load(p, k) / splat(x, unit)
        sum_ = fma(z, z, sum_)
    size = unit * math.sqrt(float(total(sum_)) + shift / unit / unit)
    log_tau = log - math.log(size)
    if not log_tau < _LOG_LARGE:  # as tokens; the first is c
        for i in range(n):
            token = at(y, i * columns)
            for k in range(0, columns, w):
                store(token, k, fma(load(x, i * columns + k), splat(x, _exp(log)), load(c, k)))
            normalise(token, token, d, columns, centre, scale, shift, gain, bias)
        for k in range(0, columns, w):
            store(c_out, k, load(y, k))
        for i in range(n):
            for k in range(i * columns, (i + 1) * columns, w):
                store(y, k, load(y, k) - load(c_out, k - i * columns))
        return 0.0
    tau = _exp(log_tau)
    for k in range(0, columns, w):
        store(p, k, load(p, k) / splat(x, size))
    for i in range(n):
        u, token = at(x, i * columns), at(y, i * columns)
        if centre:
            _centred(u, token, d, columns)
            u = token
        along, squared = splat(x, 0.0), splat(x, 0.0)
        for k in range(0, columns, w):
            z = load(u, k)
            along, squared = fma(z, load(p, k), along), fma(z, z, squared)
        h = 2.0 * total(along) + tau * total(squared)
        square = 1.0 + tau * h
        if square < SHORT:  # as a token
            for k in range(0, columns, w):
                store(token, k, fma(load(u, k), splat(x, _exp(log)), load(c, k)))
            normalise(token, token, d, columns, centre, scale, shift, gain, bias)
            unscaled = splat(x, 1.0 / (tau * scale))
            for k in range(0, columns, w):
                first = fma(load(p, k) * splat(x, scale), load(gain, k), load(bias, k))
                store(token, k, (load(token, k) - first) * unscaled)
            continue
        q = math.sqrt(square)
        kept, back = splat(x, 1.0 / q), splat(x, h / (q * (1.0 + q)))
        for k in range(0, columns, w):
            store(token, k, (load(u, k) * kept - load(p, k) * back) * load(gain, k))
    for k in range(0, columns, w):
        store(c_out, k, fma(load(p, k) * splat(x, scale), load(gain, k), load(bias, k)))
    return log_tau + math.log(scale)


@inner
def _about_the_first(x, c, log, n, columns):
    """The first row of x moved to c, and out of all rows."""
    compact()
    w = width(x)
    scale = splat(x, _exp(log))
    for k in range(0, columns, w):
        first = load(x, k)
        store(c, k, fma(first, scale, load(c, k)))
        for i in range(n):
            e = i * columns + k
            store(x, e, load(x, e) - first)


@inner
def _to_norm_one(x, log, y, mean, n, columns):
    """y = x in units of the norm of x less its mean; the log of that norm is added to log."""
    compact()
    w = width(x)
    unit = max(_largest_of(x, n * columns), 1e-300)  # squares neither vanish nor overflow
    inverse, squared = splat(x, 1.0 / unit), splat(x, 0.0)
    for k in range(0, columns, w):
        sum_ = splat(x, 0.0)
        for e in range(k, n * columns, columns):
            z = load(x, e) * inverse
            sum_ += z
            store(y, e, z)
        store(mean, k, sum_ / splat(x, n))
    for i in range(n):
        for k in range(0, columns, w):
            z = load(y, i * columns + k) - load(mean, k)
            squared = fma(z, z, squared)
    size = math.sqrt(float(total(squared)))
    log += math.log(unit) + math.log(size)
    inverse = splat(x, 1.0 / size if size != 0.0 else 1.0)
    for e in range(0, n * columns, w):
        store(y, e, load(y, e) * inverse)
    return -math.inf if log < NOTHING else log


@inner
def _add_head(h, i, tall, output, spare, u, v, v_wide, columns, panel, block, next_):
    """Rows i, i + 1, ... of next_ gain what head h makes of u; the first head sets them."""
    compact()
    w = width(u)
    project(spare, columns, panel, u, v_wide, output, v * panel, block, columns, v)
    for e in range(0, tall * columns, w):
        z = load(spare, e)
        if h:
            z += load(next_, i * columns + e)
        store(next_, i * columns + e, z)


@inner
def _attend(
    source, size, query, output, turn, begin, end, indices, heads, n, d, p, p_wide, v, v_wide,
    columns, panel, block, step, head_keys, head_values, keys, values, shifts, q, s, s_down, u,
    spare, shares, next_,
):  # fmt: skip
    """next_ = sum over heads of softmax_j(x_i W_Q . s k_j) applied to the values of Z."""
    compact()
    w = width(source)
    scaled = splat(source, size)
    for i in range(0, n, block):
        tall = block if i + block < n else n - i
        for h in range(heads):
            here = turn * heads + h
            project(q, p_wide, panel, at(source, i * columns), columns,
                    at(query, here * d * p_wide), d * panel, block, p_wide, d)  # fmt: skip
            for r in range(tall):
                for k in range(0, p_wide, w):
                    e = r * p_wide + k
                    own = fma(load(q, e), scaled, load(shifts, h * p_wide + k))
                    store(q, e, own * scaled)
            side, other = at(keys, h * head_keys), at(values, h * head_values)
            if indices is None:
                attend_range(q, p_wide, p, side, other, v_wide, step, at(begin, i), at(end, i),
                             tall, s, s_down, u, shares, block, False, shares)  # fmt: skip
            else:
                attend_list(q, p_wide, side, other, v_wide, at(begin, i), at(end, i), indices,
                            tall, s, u, shares, False, shares)  # fmt: skip
            for r in range(tall):
                for k in range(r * v_wide, (r + 1) * v_wide, w):
                    store(u, k, load(u, k) * spread(shares, r))
            _add_head(h, i, tall, at(output, here * v * columns), spare, u, v, v_wide, columns,
                      panel, block, next_)  # fmt: skip


@inner
def _attend_alike(
    source, size, query, output, turn, begin, end, heads, n, d, p, p_wide, v, v_wide,
    columns, panel, block, step, head_keys, head_values, keys, values, shifts, q, s, s_down, u,
    spare, shares, row, c, moved, next_,
):  # fmt: skip
    """`dynsim.deviation.attended_alike`: next_ in units of s^3, and c moved; False where scores
    between deviations are too large for that, and c is as it was.

    `row` is memory of the common row p and its mean value, `moved` of a token.
    """
    compact()
    w = width(source)
    first = element(begin, 0) // panel * panel
    wide = (element(end, 0) - first + panel - 1) // panel * panel
    mean = at(row, wide)
    squared, most = splat(source, size * size), splat(source, 0.0)
    for k in range(0, columns, w):
        store(moved, k, splat(source, 0.0))
    for h in range(heads):
        here = turn * heads + h
        side, other = at(keys, h * head_keys), at(values, h * head_values)
        for e in range(0, block * p_wide, w):
            store(q, e, splat(source, 0.0))
        for k in range(0, p_wide, w):
            store(q, k, load(shifts, h * p_wide + k) * splat(source, size))
        attend_range(q, p_wide, p, side, other, v_wide, step, begin, end, 1, s, s_down, u, shares,
                     block, False, shares)  # fmt: skip
        share = spread(shares, 0)
        for j in range(0, wide, w):
            store(row, j, load(s, j) * share)
        for k in range(0, v_wide, w):
            store(u, k, load(u, k) * share)
            store(mean, k, load(u, k))
        _add_head(h, 0, 1, at(output, here * v * columns), spare, u, v, v_wide, columns, panel,
                  block, moved)  # fmt: skip
        for i in range(0, n, block):
            tall = block if i + block < n else n - i
            project(q, p_wide, panel, at(source, i * columns), columns,
                    at(query, here * d * p_wide), d * panel, block, p_wide, d)  # fmt: skip
            project(s, s_down, panel, q, p_wide, at(side, first * p_wide), panel * p_wide, block,
                    wide, p)  # fmt: skip
            for r in range(tall):
                scores, sum_ = at(s, r * s_down), splat(source, 0.0)
                for j in range(0, wide, w):
                    score = load(scores, j)
                    b = score * squared
                    most = maximum(most, absolute(b))
                    weight = load(row, j) * score * relative_exp(source, b)
                    store(scores, j, weight)
                    sum_ += weight
                put(shares, r, total(sum_))
            if largest(most) > DIRECT:
                return False
            project(u, v_wide, panel, s, s_down, at(other, first * panel), step, block, v_wide,
                    wide)  # fmt: skip
            for r in range(tall):
                own = spread(shares, r)
                kept = splat(source, 1.0) / fma(own, squared, splat(source, 1.0))
                for k in range(0, v_wide, w):
                    e = r * v_wide + k
                    store(u, e, (load(u, e) - own * load(mean, k)) * kept)
            _add_head(h, i, tall, at(output, here * v * columns), spare, u, v, v_wide, columns,
                      panel, block, next_)  # fmt: skip
    for k in range(0, columns, w):
        store(c, k, fma(load(moved, k), splat(source, size), load(c, k)))
    return True


def advance(
    z, center, log_size, query, query_bias, key, value, output, output_bias, begin, end, indices,
    order, alike, samples, given, layers, rows, columns, heads, n, d, p, p_wide, v, v_wide,
    biased, has_keys, has_values, skip, before, branch, after, centre, scale, shift, gain, bias,
    seen, next_, x, keys, values, sums, scalars, q, s, u, o, spare, mean, shares, tokens, shifts,
    row, s_down, observed,
):  # fmt: skip
    """Layers of attention on 1 center + e^log_size z, in place.

    z (samples, rows, columns), center (samples, columns), log_size (samples). Other arguments are
    as for `rows.advance`; begin, end and indices are places in `order`, if given, of the tokens.
    `alike` says that all tokens attend to the same ones. seen .. row is memory
    (`shapes.deviation_memory`), observed (samples, layers, 6) takes the cheap measures and log10
    mu.
    """
    compact()
    w = width(z)
    panel, gap = TILE_COLUMNS * w, 3 * w
    block = TILE_ROWS if w < TILE_ROWS else w
    step, down = rows * panel + gap, panel  # of values
    head_keys, head_values = rows * p_wide * has_keys, v_wide // panel * step * has_values
    if indices is not None:
        step, down, head_values = panel, v_wide, rows * v_wide * has_values
    strips = (n + STRIP - 1) // STRIP
    c_seen, c_next, c_spare = tokens, at(tokens, columns), at(tokens, 2 * columns)
    for sample in range(samples):
        c, log = center, element(log_size, sample)
        for t in range(layers):
            turn = t % given
            for k in range(0, columns, w):
                store(c_seen, k, load(c, k))
            source, log_seen = z, log
            if before:
                source = seen
                log_seen = _normalised(z, c, log, seen, c_seen, c_spare, n, d, columns, centre,
                                       scale, shift, gain, bias)  # fmt: skip
            size = _exp(log_seen)
            # what all tokens have in common: c W_V, and s (c W_Q + b)
            for k in range(0, columns, w):
                store(c_next, k, load(output_bias, turn * columns + k))
            for e in range(0, block * columns, w):
                store(o, e, splat(z, 0.0))
            for k in range(0, columns, w):
                store(o, k, load(c_seen, k))
            for h in range(heads):
                here = turn * heads + h
                project(q, p_wide, panel, o, columns, at(query, here * d * p_wide), d * panel,
                        block, p_wide, d)  # fmt: skip
                for k in range(0, p_wide, w):
                    e = h * p_wide + k
                    store(shifts, e, load(q, k) + load(query_bias, here * p_wide + k))
                common, apart = o, columns
                if has_values:
                    common, apart = u, v_wide
                    project(u, v_wide, panel, o, columns, at(value, here * d * v_wide), d * panel,
                            block, v_wide, d)  # fmt: skip
                project(spare, columns, panel, common, apart, at(output, here * v * columns),
                        v * panel, block, columns, v)  # fmt: skip
                for k in range(0, columns, w):
                    store(c_next, k, load(c_next, k) + load(spare, k))
            # keys and values of the deviations
            told = source
            if order is not None:
                told = x
                for i in range(n):
                    other = at(source, element(order, i) * columns)
                    for k in range(0, columns, w):
                        store(told, i * columns + k, load(other, k))
            for i in range(0, n, block):
                mine = at(told, i * columns)
                for h in range(heads if has_keys else 1):
                    rows_, across = mine, columns
                    if has_keys:
                        rows_, across = u, p_wide
                        project(u, p_wide, panel, mine, columns,
                                at(key, (turn * heads + h) * d * p_wide), d * panel, block,
                                p_wide, d)  # fmt: skip
                    publish_keys(rows_, i, block, across, p_wide, at(keys, h * head_keys), indices)
                for h in range(heads if has_values else 1):
                    side = at(values, h * head_values + i * down)
                    if has_values:
                        project(side, down, step, mine, columns,
                                at(value, (turn * heads + h) * d * v_wide), d * panel, block,
                                v_wide, d)  # fmt: skip
                    else:
                        for r in range(block):
                            for k in range(0, v_wide, w):
                                to = at(side, k // panel * step + k % panel)
                                store(to, r * down, load(mine, r * columns + k))
            held = False
            if indices is None and alike:
                held = _attend_alike(
                    source, size, query, output, turn, begin, end, heads, n, d, p, p_wide, v,
                    v_wide, columns, panel, block, step, head_keys, head_values, keys, values,
                    shifts, q, s, s_down, u, spare, shares, row, c_next, at(tokens, 3 * columns),
                    next_,
                )  # fmt: skip
                if held:
                    log_seen *= 3.0
            if not held:
                _attend(
                    source, size, query, output, turn, begin, end, indices, heads, n, d, p, p_wide,
                    v, v_wide, columns, panel, block, step, head_keys, head_values, keys, values,
                    shifts, q, s, s_down, u, spare, shares, next_,
                )  # fmt: skip
            _about_the_first(next_, c_next, log_seen, n, columns)
            # the rest of the layer
            if branch:
                log_seen = _normalised(next_, c_next, log_seen, next_, c_next, c_spare, n, d,
                                       columns, centre, scale, shift, gain, bias)  # fmt: skip
            if skip != 0.0:
                top = log if log > log_seen else log_seen
                if top == -math.inf:
                    top = 0.0
                kept, added = splat(z, skip * _exp(log - top)), splat(z, _exp(log_seen - top))
                for e in range(0, n * columns, w):
                    store(next_, e, fma(load(z, e), kept, load(next_, e) * added))
                for k in range(0, columns, w):
                    store(c_next, k, fma(load(c, k), splat(z, skip), load(c_next, k)))
                log_seen = top
            if after:
                log_seen = _normalised(next_, c_next, log_seen, next_, c_next, c_spare, n, d,
                                       columns, centre, scale, shift, gain, bias)  # fmt: skip
            for k in range(0, columns, w):
                store(c, k, load(c_next, k))
            log = _to_norm_one(next_, log_seen, z, c_spare, n, columns)
            # measures
            scaled = splat(z, _exp(log))
            for i in range(n):
                for k in range(0, columns, w):
                    e = i * columns + k
                    store(x, e, fma(load(z, e), scaled, load(c, k)))
            for strip in range(strips):
                top_row = strip * STRIP
                count = STRIP if top_row + STRIP < n else n - top_row
                measure(at(x, top_row * columns), count, columns, spare,
                        at(sums, strip * 2 * columns), at(scalars, strip * 8))  # fmt: skip
            merge(strips, sums, scalars, columns, mean, observed)
            finite = element(observed, 4) - element(observed, 4)
            put(observed, 0, math.exp(log) + finite)
            put(observed, 5, log / math.log(10.0) + finite)
            observed = at(observed, 6)
        put(log_size, sample, log)
        z, center = at(z, rows * columns), at(center, columns)
