"""Tokens as a first one and deviations: layers of 1 c + s Z, for any arrangement.

The definitions are those of `dynsim.deviation`; c is the first token, so the first row of Z is 0,
and a state is (Z, c, log s). Row-constant scores cancel in the softmax, so queries of the tokens
meet keys and values of the deviations. Where all tokens attend to the same ones, attention is
computed as a difference to the row that all have in common. Where the lanes of a vector differ in
the formula that fits them, both are computed and each lane takes its own.
"""

import math
from collections.abc import Callable

from dynsim.kernels.arrangement import Arrangement
from dynsim.kernels.arrays import add, combine, copy, fill, scale
from dynsim.kernels.compiler import inner
from dynsim.kernels.fields import DIRECT, LARGE, NOTHING, SERIES, SHORT, STRIP
from dynsim.kernels.layer import Attention, composed, first_layer
from dynsim.kernels.simd import (
    absolute,
    all_within,
    at,
    compact,
    element,
    exp,
    fma,
    load,
    log,
    maximum,
    splat,
    sqrt,
    store,
    where_within,
    width,
)
from dynsim.kernels.tokens import TokenFunctions

__all__ = ["following"]

_LOG_LARGE, _MOST, _LN10 = math.log(LARGE), 1.7e308, math.log(10.0)
_ABOVE_DIRECT = math.nextafter(DIRECT, 1.0)
#: For scores up to here the series is 1, to the bit.
_LINEAR = 2.0**-53


@inner
def _relative_exp(x, b):
    """(e^b - 1) / b for |b| <= DIRECT; x is any pointer."""
    ratio = splat(x, SERIES[0])
    for coefficient in SERIES[1:]:
        ratio = fma(ratio, b, splat(x, coefficient))
    return ratio


@inner
def _exp(x, power):
    """e^power, with 0 for what comes near denormal numbers; x is any pointer."""
    z = exp(splat(x, 0.0) - absolute(power))
    z = where_within(power, -math.inf, 0.0, z, splat(x, 1.0) / z)
    return where_within(power, -700.0, math.inf, z, splat(x, 0.0))


@inner
def _not_zero(x, number):
    """The number, and 1 for 0."""
    return where_within(number, 0.0, 0.0, splat(x, 1.0), number)


def following(arrangement: Arrangement, attention: Attention, tokens: TokenFunctions) -> Callable:
    """The kernel follow(r) for this arrangement."""
    joined, peak, project = arrangement.joined, arrangement.peak, arrangement.project
    span, scored, score, mix = (
        arrangement.span, arrangement.scored, arrangement.score, arrangement.mix
    )  # fmt: skip
    publish, published = arrangement.publish, arrangement.published
    attended, attend = attention.attended, attention.attend
    unit_of, centred, normalise = tokens.unit_of, tokens.centred, tokens.normalise
    summed, merged = tokens.summed, tokens.merged

    @inner
    def normalised(r, y, c, log_y, count):
        """`dynsim.deviation.normalised`, in place; the log that belongs to the new y."""
        compact()
        w, row, long = width(y), r.row, r.long
        zero, one, scale = splat(y, 0.0), splat(y, 1.0), splat(y, r.scale)
        p, token, first = at(r.tokens, 3 * row), at(r.tokens, 4 * row), at(r.tokens, 5 * row)
        if r.centre:
            centred(r, c, p)
        else:
            copy(p, c, long)
        unit, size = unit_of(p, long), zero
        for e in range(0, long, w):
            z = load(p, e) / unit
            size = fma(z, z, size)
        size = unit * sqrt(joined(size) + splat(y, r.shift) / unit / unit)
        log_tau = log_y - log(size)
        # where this is large all tokens are normalised as they are: the first is c
        as_tokens = not all_within(log_tau, -math.inf, _LOG_LARGE)
        tau = _exp(y, where_within(log_tau, -math.inf, _LOG_LARGE, log_tau, zero))
        if as_tokens:
            normalise(r, c, token)
        for e in range(0, long, w):
            store(p, e, load(p, e) / size)
            z = fma(load(p, e) * scale, load(r.gain, e), load(r.bias, e))
            if as_tokens:
                z = where_within(log_tau, -math.inf, _LOG_LARGE, z, load(token, e))
            store(first, e, z)
        whole = _exp(y, log_y)
        unscaled = where_within(log_tau, -math.inf, _LOG_LARGE, one / (tau * scale), one)
        for i in range(count):
            out = at(y, i * row)
            u = out
            if r.centre:
                u = at(r.tokens, 6 * row)
                centred(r, out, u)
            along, squared = zero, zero
            for e in range(0, long, w):
                z = load(u, e)
                along, squared = fma(z, load(p, e), along), fma(z, z, squared)
            along, squared = joined(along), joined(squared)
            h = along + along + tau * squared
            square = where_within(log_tau, -math.inf, _LOG_LARGE, fma(tau, h, one), zero)
            fits = all_within(square, SHORT, math.inf)
            if not fits:
                for e in range(0, long, w):
                    store(token, e, fma(load(out, e), whole, load(c, e)))
                normalise(r, token, token)
            q = sqrt(where_within(square, SHORT, math.inf, square, one))
            inverse = one / (q * (one + q))
            kept, back = (one + q) * inverse, h * inverse
            for e in range(0, long, w):
                z = (load(u, e) * kept - load(p, e) * back) * load(r.gain, e)
                if not fits:
                    other = (load(token, e) - load(first, e)) * unscaled
                    z = where_within(square, SHORT, math.inf, z, other)
                store(out, e, z)
        copy(c, first, long)
        log_y = log_tau + splat(y, math.log(r.scale))
        return where_within(log_tau, -math.inf, _LOG_LARGE, log_y, zero)

    @inner
    def skipped(r, x, c, log_x, y, c_y, log_y, count):
        skip, weight = splat(x, r.skip), splat(x, r.weight)
        top = log_y
        if r.skip != 0.0:
            top = maximum(log_x, log_y)
        top = where_within(top, -_MOST, math.inf, top, splat(x, 0.0))
        kept, added = skip * _exp(x, log_x - top), weight * _exp(x, log_y - top)
        combine(y, kept, x, added, count * r.row)
        combine(c_y, skip, c, weight, r.long)
        return top

    finish = composed(normalised, skipped)

    @inner
    def to_norm_one(r, x, log_x, y):
        """y = x in units of the norm of x less its mean; log_x gains the log of that norm."""
        compact()
        w, row, n = width(x), r.row, r.n
        unit = maximum(unit_of(x, n * row), splat(x, 1e-300))
        inverse, squared = splat(x, 1.0) / unit, splat(x, 0.0)
        share = splat(x, 1.0) / splat(x, n)
        for k in range(0, r.long, w):
            mean = splat(x, 0.0)
            for i in range(n):
                mean = fma(load(x, i * row + k), inverse, mean)
            mean *= share
            for i in range(n):
                z = load(x, i * row + k) * inverse - mean
                squared = fma(z, z, squared)
        size = sqrt(joined(squared))
        log_x += log(unit * size)
        inverse /= _not_zero(x, size)
        scale(y, x, inverse, n * row)
        return where_within(log_x, NOTHING, math.inf, log_x, splat(x, -math.inf))

    @inner
    def in_common(r, turn, c, c_next):
        """What attention makes of the first token alone: c_next = c W_V + bias, and the queries
        that all tokens have in common, r.shifts."""
        compact()
        row, p_row = r.row, r.p_row
        copy(c_next, at(r.output_bias, turn * row), row)
        copy(r.alone, c, row)
        for h in range(r.heads):
            here = turn * r.heads + h
            project(r.q, p_row, r.alone, row, at(r.query, here * r.d * r.p_wide), r.p_wide, 1, r.d)
            shift = at(r.shifts, h * p_row)
            copy(shift, r.q, p_row)
            add(shift, at(r.query_bias, here * p_row), p_row)
            value, down = r.alone, row
            if r.has_values:
                value, down = r.mixed, r.v_row
                matrix = at(r.value, here * r.d * r.v_wide)
                project(value, down, r.alone, row, matrix, r.v_wide, 1, r.d)
            matrix = at(r.output, here * r.v * r.columns)
            project(r.head, row, value, down, matrix, r.columns, 1, r.v)
            add(c_next, r.head, row)

    @inner
    def attend_to_common(r, turn, source, size, keys, values, y, moved):
        """`deviation.attention_to_common_keys`: y in units of s^3, how c is moved in units of s.

        Returns the largest scores between deviations; above DIRECT in all lanes, nothing is said
        of y.
        """
        compact()
        w, row, p_row, v_row = width(source), r.row, r.p_row, r.v_row
        zero, one = splat(source, 0.0), splat(source, 1.0)
        first, last = span(r, 0, 1)
        extent, blocks = scored(source, first, last), (r.n + r.block - 1) // r.block
        mean, squared, most = at(r.common, r.s_row), size * size, zero
        fill(moved, 0.0, row)
        for h in range(r.heads):
            here = turn * r.heads + h
            side = at(keys, h * r.head_keys)
            other = at(values, h * r.head_values)
            output = at(r.output, here * r.v * r.columns)
            fill(r.q, 0.0, r.block * p_row)
            scale(r.q, at(r.shifts, h * p_row), size, p_row)
            attended(r, h, 0, 1, side, other, r.shares)
            share = load(r.shares, 0)
            scale(r.common, r.scores, share, extent)
            copy(mean, r.mixed, v_row)
            project(r.head, row, r.mixed, v_row, output, r.columns, 1, r.v)
            add(moved, r.head, row)
            for b in range(blocks):
                i = b * r.block
                tall = min(r.block, r.n - i)
                matrix = at(r.query, here * r.d * r.p_wide)
                project(r.q, p_row, at(source, i * row), row, matrix, r.p_wide, r.block, r.d)
                score(r, side, first, last)
                largest = zero
                for k in range(tall):
                    for e in range(0, extent, w):
                        largest = maximum(largest, absolute(load(r.scores, k * r.s_row + e)))
                most = maximum(most, peak(largest) * squared)
                if all_within(most, _ABOVE_DIRECT, math.inf):
                    return most
                linear = all_within(most, 0.0, _LINEAR)
                for k in range(tall):
                    scores, sum_ = at(r.scores, k * r.s_row), zero
                    for e in range(0, extent, w):
                        s = load(scores, e)
                        weight = load(r.common, e) * s
                        if not linear:
                            weight *= _relative_exp(source, s * squared)
                        store(scores, e, weight)
                        sum_ += weight
                    store(r.shares, k * w, joined(sum_))
                mix(r, other, first, last)
                for k in range(tall):
                    own = load(r.shares, k * w)
                    kept = one / fma(own, squared, one)
                    for e in range(0, v_row, w):
                        z = load(r.mixed, k * v_row + e) - own * load(mean, e)
                        store(r.mixed, k * v_row + e, z * kept)
                to = at(y, i * row)
                if h == 0:
                    project(to, row, r.mixed, v_row, output, r.columns, r.block, r.v)
                else:
                    project(r.head, row, r.mixed, v_row, output, r.columns, r.block, r.v)
                    add(to, r.head, tall * row)
        return most

    @inner
    def told(r, source):
        """The tokens in the order in which they are attended to."""
        if not r.ordered:
            return source
        for i in range(r.n):
            other = at(source, element(r.order, i) * r.row)
            copy(at(r.whole, i * r.row), other, r.row)
        return r.whole

    @inner
    def attention_of(r, turn, source, log_x, c_next, y, note):
        """y and c_next, which holds what c becomes alone, after attention.

        Returns the log of y, and the largest score between deviations with keys in common, or more
        than DIRECT.
        """
        compact()
        w, row, n, zero = width(source), r.row, r.n, splat(source, 0.0)
        size = _exp(source, log_x)
        sources = told(r, source)
        keys, values = published(r, sources)
        blocks = (n + r.block - 1) // r.block
        for b in range(blocks):
            i = b * r.block
            tall = min(r.block, n - i)
            publish(r, turn, at(sources, i * row), i, tall, keys, values)
        most, moved = splat(source, math.inf), at(r.tokens, 2 * row)
        if r.common_keys:
            most = attend_to_common(r, turn, source, size, keys, values, y, moved)
        if r.wanted or not all_within(most, 0.0, DIRECT):
            alone = all_within(most, _ABOVE_DIRECT, math.inf)
            to = y
            if not alone:
                to = r.whole
            for b in range(blocks):
                i = b * r.block
                tall = min(r.block, n - i)
                attend(r, turn, i, tall, at(source, i * row), keys, values, at(to, i * row),
                       r.shifts, size, at(note, r.wanted * i * w))  # fmt: skip
            if not alone:
                for e in range(0, n * row, w):
                    z = where_within(most, 0.0, DIRECT, load(y, e), load(to, e))
                    store(y, e, z)
        if r.common_keys:
            for e in range(0, r.long, w):
                z = where_within(most, 0.0, DIRECT, load(moved, e) * size, zero)
                store(c_next, e, load(c_next, e) + z)
            log_x = where_within(most, 0.0, DIRECT, log_x + log_x + log_x, log_x)
            size = _exp(source, log_x)
        for k in range(0, r.long, w):  # about the first
            first = load(y, k)
            store(c_next, k, fma(first, size, load(c_next, k)))
            for i in range(n):
                store(y, i * row + k, load(y, i * row + k) - first)
        return log_x, most

    def follow(r):
        """Layers of attention on 1 c + s Z, in place: Z is r.x, c r.center, log s r.log_size."""
        compact()
        w, row, n = width(r.x), r.row, r.n
        state, strips, step = r.rows * row, (n + STRIP - 1) // STRIP, r.samples * w
        c_seen, c_next = r.tokens, at(r.tokens, row)
        fill(r.alone, 0.0, r.block * row)
        if r.common_keys:  # scores with tokens that are not there count with weight 0
            fill(r.keys, 0.0, r.rows * r.p_row + r.head_keys * (r.heads - 1))
        fill(r.next, 0.0, state)
        fill(r.seen, 0.0, state)
        fill(r.whole, 0.0, state)
        for sample in range(r.samples):
            z, c = at(r.x, sample * state), at(r.center, sample * row)
            log_z, own = load(r.log_size, sample * w), first_layer(r, sample)
            note = r.shares
            if r.wanted:
                note = at(r.entropy, sample * n * w)
            for t in range(r.layers):
                turn = own + (r.start + t) % r.given
                source, log_seen = z, log_z
                copy(c_seen, c, row)
                if r.before:
                    source = r.seen
                    copy(source, z, n * row)
                    log_seen = normalised(r, source, c_seen, log_z, n)
                in_common(r, turn, c_seen, c_next)
                log_seen, most = attention_of(r, turn, source, log_seen, c_next, r.next, note)
                log_seen = finish(r, z, c, log_z, r.next, c_next, log_seen, n)
                copy(c, c_next, row)
                log_z = to_norm_one(r, r.next, log_seen, z)
                size = _exp(r.x, log_z)
                for k in range(0, row, w):
                    for i in range(n):
                        e = i * row + k
                        store(r.whole, e, fma(load(z, e), size, load(c, k)))
                for s in range(strips):
                    begin, place = s * STRIP, at(r.sums, s * (2 * row + 6 * w))
                    summed(r, at(r.whole, begin * row), min(STRIP, n - begin), place)
                place = at(r.observed, (t * 7 * r.samples + sample) * w)
                merged(r, strips, r.sums, place, step)
                nan = load(place, 4 * step) - load(place, 4 * step)
                store(place, 0, size + nan)
                store(place, 5 * step, log_z / splat(r.x, _LN10) + nan)
                store(place, 6 * step, most)
            store(r.log_size, sample * w, log_z)

    return follow
