"""Many small trajectories near consensus, one in every lane of a vector: `deviations` for `lanes`.

Where samples differ in the formula that fits them, both are computed and each lane takes its own.
"""

import math

from dynsim.kernels.compiler import inner
from dynsim.kernels.deviations import relative_exp
from dynsim.kernels.lanes import exponentials, measure, multiply, normalise, project, span
from dynsim.kernels.limits import DIRECT, LARGE, NOTHING, SHORT
from dynsim.kernels.shapes import LANE_ROWS, PAD
from dynsim.kernels.simd import (
    absolute,
    all_within,
    at,
    compact,
    element,
    exp,
    fma,
    load,
    maximum,
    put,
    splat,
    spread,
    sqrt,
    store,
    where_within,
    width,
)

__all__ = ["advance"]

_LOG_LARGE, _MOST, _LN10 = math.log(LARGE), 1.7e308, math.log(10.0)


@inner
def _exp(x, log):
    """e^log, with 0 for what comes near denormal numbers; x is any pointer."""
    z = exp(splat(x, 0.0) - absolute(log))
    z = where_within(log, -math.inf, 0.0, z, splat(x, 1.0) / z)
    return where_within(log, -700.0, math.inf, z, splat(x, 0.0))


@inner
def _log(x, number):
    """The natural logarithm; x is memory of a vector."""
    store(x, 0, number)
    for lane in range(width(x)):
        put(x, lane, math.log(element(x, lane)))
    return load(x, 0)


@inner
def _not_zero(x, number):
    """The number, and 1 for 0."""
    return where_within(number, 0.0, 0.0, splat(x, 1.0), number)


@inner
def _product(y, x, matrix, columns, depth):
    """y += x matrix for one token x."""
    compact()
    w = width(x)
    for k in range(columns):
        sum_ = load(y, k * w)
        for j in range(depth):
            sum_ = fma(load(x, j * w), spread(matrix, j * columns + k), sum_)
        store(y, k * w, sum_)


@inner
def _centred(x, y, d):
    """y = x less its mean over d dimensions; y may be x."""
    compact()
    w = width(x)
    first, mean = load(x, 0), splat(x, 0.0)
    for k in range(0, d * w, w):
        mean += load(x, k) - first
    mean /= splat(x, d)
    for k in range(0, d * w, w):
        store(y, k, load(x, k) - first - mean)


@inner
def _normalised(x, c, log, n, d, row, centre, scale, shift, gain, bias, y, p, token, work):
    """`dynsim.deviation.normalised`: y and c of 1 c + e^log x, and their log; y may be x.

    p and token are memory of a token, work of a vector.
    """
    compact()
    w, zero, one = width(x), splat(x, 0.0), splat(x, 1.0)
    first, whole = at(token, d * w), _exp(x, log)
    if centre:
        _centred(c, p, d)
    else:
        for k in range(0, d * w, w):
            store(p, k, load(c, k))
    unit, sum_ = zero, zero
    for k in range(0, d * w, w):
        unit = maximum(unit, absolute(load(p, k)))
    unit = _not_zero(x, unit)
    for k in range(0, d * w, w):
        z = load(p, k) / unit
        sum_ = fma(z, z, sum_)
    size = unit * sqrt(sum_ + splat(x, shift) / unit / unit)
    log_tau = log - _log(work, size)
    # lanes in which all tokens are normalised as they are: the first is c
    as_tokens = not all_within(log_tau, -math.inf, _LOG_LARGE)
    tau = _exp(x, where_within(log_tau, -math.inf, _LOG_LARGE, log_tau, zero))
    if as_tokens:
        normalise(c, token, d, centre, scale, shift, gain, bias)
    for k in range(d):
        store(p, k * w, load(p, k * w) / size)
        z = fma(load(p, k * w) * splat(x, scale), spread(gain, k), spread(bias, k))
        z = where_within(log_tau, -math.inf, _LOG_LARGE, z, load(token, k * w))
        store(first, k * w, z)
    unscaled = one / (tau * splat(x, scale))
    unscaled = where_within(log_tau, -math.inf, _LOG_LARGE, unscaled, one)
    for i in range(n):
        u, out = at(x, i * row), at(y, i * row)
        for k in range(0, d * w, w):
            store(token, k, fma(load(u, k), whole, load(c, k)))
        if centre:
            _centred(u, out, d)
            u = out
        along, squared = zero, zero
        for k in range(0, d * w, w):
            z = load(u, k)
            along, squared = fma(z, load(p, k), along), fma(z, z, squared)
        h = along + along + tau * squared
        square = where_within(log_tau, -math.inf, _LOG_LARGE, fma(tau, h, one), zero)
        fits = not as_tokens and all_within(square, SHORT, math.inf)
        if not fits:
            normalise(token, token, d, centre, scale, shift, gain, bias)
        q = sqrt(where_within(square, SHORT, math.inf, square, one))
        kept, back = one / q, h / (q * (one + q))
        for k in range(d):
            e = k * w
            z = (load(u, e) * kept - load(p, e) * back) * spread(gain, k)
            if not fits:
                other = (load(token, e) - load(first, e)) * unscaled
                z = where_within(square, SHORT, math.inf, z, other)
            store(out, e, z)
    for k in range(0, d * w, w):
        store(c, k, load(first, k))
    return where_within(log_tau, -math.inf, _LOG_LARGE, log_tau + splat(x, math.log(scale)), zero)


@inner
def _to_norm_one(x, log, y, n, d, row, work):
    """y = x in units of the norm of x less its mean; the log of that norm is added to log."""
    compact()
    w, unit, squared = width(x), splat(x, 1e-300), splat(x, 0.0)
    for i in range(n):
        for e in range(i * row, i * row + d * w, w):
            unit = maximum(unit, absolute(load(x, e)))
    inverse = splat(x, 1.0) / unit
    for k in range(0, d * w, w):
        mean = splat(x, 0.0)
        for i in range(n):
            mean = fma(load(x, i * row + k), inverse, mean)
        mean /= splat(x, n)
        for i in range(n):
            z = load(x, i * row + k) * inverse - mean
            squared = fma(z, z, squared)
    size = sqrt(squared)
    log += _log(work, unit * size)
    inverse /= _not_zero(x, size)
    for i in range(n):
        for e in range(i * row, i * row + d * w, w):
            store(y, e, load(x, e) * inverse)
    return where_within(log, NOTHING, math.inf, log, splat(x, -math.inf))


@inner
def _add_head(h, i, tall, matrix, mixed, v, v_row, columns, out, y):
    """Rows i, i + 1, ... of y gain what head h makes of `mixed`; the first head sets them."""
    compact()
    w = width(mixed)
    row = columns * w
    y = at(y, i * row)
    if h == 0:
        project(y, row, mixed, v_row, matrix, columns, tall, v)
        return
    project(out, row, mixed, v_row, matrix, columns, tall, v)
    for e in range(0, tall * row, w):
        store(y, e, load(y, e) + load(out, e))


@inner
def _attend(
    source, size, query, output, turn, indptr, indices, heads, n, d, p, p_wide, v, v_wide, rows,
    columns, head_keys, keys, head_values, values, shifts, q, scores, weights, mixed, out, work,
    y,
):  # fmt: skip
    """y = sum over heads of softmax_j(x_i W_Q . s k_j) applied to the values of Z."""
    compact()
    w = width(source)
    row, q_row, s_row, v_row = columns * w, p_wide * w, rows * w, v_wide * w
    for i in range(0, n, LANE_ROWS):
        tall = LANE_ROWS if i + LANE_ROWS <= n else n - i
        first, last = span(indptr, indices, i, i + tall)
        for h in range(heads):
            here = turn * heads + h
            project(q, q_row, at(source, i * row), row, at(query, here * d * p_wide), p_wide,
                     tall, d)  # fmt: skip
            for k in range(0, q_row, w):
                shared = load(shifts, h * q_row + k)
                for e in range(k, tall * q_row, q_row):
                    store(q, e, fma(load(q, e), size, shared) * size)
            side, other = at(keys, h * head_keys), at(values, h * head_values)
            multiply(at(scores, first * w), s_row, q, q_row, at(side, first * q_row), w, q_row,
                      last - first, p)  # fmt: skip
            for r in range(tall):
                begin, end = element(indptr, i + r), element(indptr, i + r + 1)
                total = exponentials(
                    at(scores, r * s_row), at(weights, r * s_row), indices, begin, end, first,
                    last, False, work,
                )  # fmt: skip
                store(work, r * w, splat(source, 1.0) / total)
            multiply(mixed, v_row, at(weights, first * w), s_row, at(other, first * v_row), v_row,
                      w, v_wide, last - first)  # fmt: skip
            for r in range(tall):
                share = load(work, r * w)
                for e in range(r * v_row, (r + 1) * v_row, w):
                    store(mixed, e, load(mixed, e) * share)
            _add_head(h, i, tall, at(output, here * v * columns), mixed, v, v_row, columns, out, y)


@inner
def _attend_alike(
    source, size, query, output, turn, indptr, indices, heads, n, d, p, p_wide, v, v_wide, rows,
    columns, head_keys, keys, head_values, values, shifts, q, scores, weights, mixed, out, work,
    row_, moved, y,
):  # fmt: skip
    """`dynsim.deviation.attended_alike`: y in units of s^3, and how c is moved in units of s.

    Returns the largest scores between deviations. `row_` is memory of the common row p and its mean
    value.
    """
    compact()
    w = width(source)
    row, q_row, s_row, v_row = columns * w, p_wide * w, rows * w, v_wide * w
    begin, end = element(indptr, 0), element(indptr, 1)
    first = element(indices, begin) // PAD * PAD
    last = element(indices, end - 1) + 1
    mean, squared, most = at(row_, s_row), size * size, splat(source, 0.0)
    one = splat(source, 1.0)
    for k in range(0, row, w):
        store(moved, k, splat(source, 0.0))
    for h in range(heads):
        here = turn * heads + h
        side = at(keys, h * head_keys + first * q_row)
        other = at(values, h * head_values + first * v_row)
        for k in range(0, q_row, w):
            store(q, k, load(shifts, h * q_row + k) * size)
        multiply(at(scores, first * w), s_row, q, q_row, side, w, q_row, last - first, p)
        total = exponentials(scores, row_, indices, begin, end, first, last, False, work)
        share = one / total
        for k in range(0, v_row, w):
            store(mean, k, splat(source, 0.0))
        for j in range(first, last):
            z = load(row_, j * w) * share
            store(row_, j * w, z)
            for k in range(0, v_row, w):
                value = load(other, (j - first) * v_row + k)
                store(mean, k, fma(z, value, load(mean, k)))
        _product(moved, mean, at(output, here * v * columns), columns, v)
        for i in range(0, n, LANE_ROWS):
            tall = LANE_ROWS if i + LANE_ROWS <= n else n - i
            project(q, q_row, at(source, i * row), row, at(query, here * d * p_wide), p_wide,
                     tall, d)  # fmt: skip
            multiply(at(scores, first * w), s_row, q, q_row, side, w, q_row, last - first, p)
            for r in range(tall):
                sum_ = splat(source, 0.0)
                for j in range(first, last):
                    score = load(scores, r * s_row + j * w)
                    b = score * squared
                    most = maximum(most, absolute(b))
                    weight = load(row_, j * w) * score * relative_exp(source, b)
                    store(weights, r * s_row + j * w, weight)
                    sum_ += weight
                store(work, r * w, sum_)
            multiply(mixed, v_row, at(weights, first * w), s_row, other, v_row, w, v_wide,
                      last - first)  # fmt: skip
            for r in range(tall):
                own = load(work, r * w)
                kept = one / fma(own, squared, one)
                for k in range(0, v_row, w):
                    e = r * v_row + k
                    store(mixed, e, (load(mixed, e) - own * load(mean, k)) * kept)
            _add_head(h, i, tall, at(output, here * v * columns), mixed, v, v_row, columns, out, y)
    return most


def advance(
    z, center, log_size, query, query_bias, key, value, output, output_bias, indptr, indices,
    alike, given, layers, blocks, rows, columns, heads, n, d, p, p_wide, v, v_wide,
    biased, has_keys, has_values, skip, before, branch, after, centre, scale, shift, gain, bias,
    x, next_, seen, keys, values, q, scores, weights, mixed, out, totals, work,
    tokens, shifts, row_, observed,
):  # fmt: skip
    """Layers of attention on 1 center + e^log_size z, in place.

    z (blocks, rows, columns, lanes), center (blocks, columns, lanes), log_size (blocks, lanes).
    Other arguments are as for `lanes.advance`; `alike` says that all tokens attend to the same
    ones. x .. row_ is memory (`shapes.deviation_lane_memory`), observed (layers, 6, blocks, lanes)
    takes the cheap measures and log10 mu.
    """
    compact()
    w = width(z)
    row, q_row, v_row = columns * w, p_wide * w, v_wide * w
    step, zero = blocks * w, splat(z, 0.0)
    head_keys, head_values = has_keys * rows * q_row, has_values * rows * v_row
    own_keys, own_values = keys, values
    c, c_next, moved, here_p = tokens, at(tokens, row), at(tokens, 2 * row), at(tokens, 3 * row)
    token = at(tokens, 4 * row)  # and the first token behind it
    for block in range(blocks):
        log = load(log_size, block * w)
        for t in range(layers):
            turn = t % given
            source, log_seen = z, log
            for k in range(0, row, w):
                store(c, k, load(center, k))
                store(c_next, k, spread(output_bias, turn * columns + k // w))
            if before:
                source = seen
                log_seen = _normalised(z, c, log, n, d, row, centre, scale, shift, gain, bias,
                                       seen, here_p, token, totals)  # fmt: skip
            size = _exp(z, log_seen)
            # what all tokens have in common: c W_V, and c W_Q + b
            for h in range(heads):
                here = turn * heads + h
                for k in range(p_wide):
                    store(shifts, h * q_row + k * w, spread(query_bias, here * p_wide + k))
                _product(at(shifts, h * q_row), c, at(query, here * d * p_wide), p_wide, d)
                common = c
                if has_values:
                    common = row_
                    for k in range(0, v_row, w):
                        store(common, k, zero)
                    _product(common, c, at(value, here * d * v_wide), v_wide, d)
                _product(c_next, common, at(output, here * v * columns), columns, v)
            # keys and values of the deviations
            keys, values = source, source
            if has_keys:
                keys = own_keys
                for h in range(heads):
                    matrix = at(key, (turn * heads + h) * d * p_wide)
                    side = at(keys, h * head_keys)
                    project(side, q_row, source, row, matrix, p_wide, rows, d)
            if has_values:
                values = own_values
                for h in range(heads):
                    matrix = at(value, (turn * heads + h) * d * v_wide)
                    side = at(values, h * head_values)
                    project(side, v_row, source, row, matrix, v_wide, rows, d)
            # attention
            to, most = next_, splat(z, math.inf)
            if alike:
                to = x
                most = _attend_alike(
                    source, size, query, output, turn, indptr, indices, heads, n, d, p, p_wide, v,
                    v_wide, rows, columns, head_keys, keys, head_values, values, shifts, q, scores,
                    weights, mixed, out, totals, row_, moved, next_,
                )  # fmt: skip
            if not all_within(most, 0.0, DIRECT):
                _attend(
                    source, size, query, output, turn, indptr, indices, heads, n, d, p, p_wide, v,
                    v_wide, rows, columns, head_keys, keys, head_values, values, shifts, q, scores,
                    weights, mixed, out, totals, to,
                )  # fmt: skip
                for e in range(0, n * row, w):
                    store(next_, e, where_within(most, 0.0, DIRECT, load(next_, e), load(to, e)))
            if alike:
                for k in range(0, row, w):
                    added = where_within(most, 0.0, DIRECT, load(moved, k) * size, zero)
                    store(c_next, k, load(c_next, k) + added)
                cubed = log_seen + log_seen + log_seen
                log_seen = where_within(most, 0.0, DIRECT, cubed, log_seen)
                size = _exp(z, log_seen)
            for k in range(0, row, w):
                first = load(next_, k)
                store(c_next, k, fma(first, size, load(c_next, k)))
                for e in range(k, n * row, row):
                    store(next_, e, load(next_, e) - first)
            # the rest of the layer
            if branch:
                log_seen = _normalised(next_, c_next, log_seen, n, d, row, centre, scale, shift,
                                       gain, bias, next_, here_p, token, totals)  # fmt: skip
            if skip != 0.0:
                top = maximum(log, log_seen)
                top = where_within(top, -_MOST, math.inf, top, zero)
                kept, added = splat(z, skip) * _exp(z, log - top), _exp(z, log_seen - top)
                for e in range(0, n * row, w):
                    store(next_, e, fma(load(z, e), kept, load(next_, e) * added))
                for k in range(0, row, w):
                    store(c_next, k, fma(load(center, k), splat(z, skip), load(c_next, k)))
                log_seen = top
            if after:
                log_seen = _normalised(next_, c_next, log_seen, n, d, row, centre, scale, shift,
                                       gain, bias, next_, here_p, token, totals)  # fmt: skip
            for k in range(0, row, w):
                store(center, k, load(c_next, k))
            log = _to_norm_one(next_, log_seen, z, n, d, row, totals)
            # measures
            size = _exp(z, log)
            for k in range(0, row, w):
                for e in range(k, n * row, row):
                    store(x, e, fma(load(z, e), size, load(center, k)))
            place = at(observed, (t * 6 * blocks + block) * w)
            measure(x, n, d, row, next_, work, place, step)
            nan = load(place, 4 * step) - load(place, 4 * step)
            store(place, 0, size + nan)
            store(place, 5 * step, log / splat(z, _LN10) + nan)
        store(log_size, block * w, log)
        z, center = at(z, rows * row), at(center, row)
