"""A layer: the attention of a block of tokens, and what comes after it; for any arrangement."""

from collections.abc import Callable
from typing import NamedTuple

from dynsim.kernels.arrangement import Arrangement
from dynsim.kernels.arrays import add, scale
from dynsim.kernels.compiler import inlined, inner
from dynsim.kernels.shaping import shaping
from dynsim.kernels.simd import (
    at,
    compact,
    element,
    exp,
    exp4,
    fma,
    load,
    log,
    maximum,
    splat,
    spread,
    store,
    width,
)

__all__ = ["Attention", "attention", "composed", "exponential_function", "first_layer", "reach"]


def exponential_function(joined: Callable, peak: Callable, parts: bool) -> Callable:
    """exponentials(r, h, s, begin, end, note): s = e^(s - max s) from `begin` to `end`; their sum.

    Where entropies are wanted, note gains that of these weights. With `parts`, the sink of head h
    is one score more, if `r.has_sinks`: it counts in the maximum and in the sum.
    """

    @inlined
    def exponentials(r, h, s, begin, end, note):
        w = width(s)
        top = load(s, begin)
        for e in range(begin + w, end, w):
            top = maximum(top, load(s, e))
        top = peak(top)
        if parts and r.has_sinks:
            top = maximum(top, spread(r.sinks, h))
        total, moment, least = splat(s, 0.0), splat(s, 0.0), splat(s, -800.0)
        e = begin
        while e + 4 * w <= end:
            y0, y1 = load(s, e) - top, load(s, e + w) - top
            y2, y3 = load(s, e + 2 * w) - top, load(s, e + 3 * w) - top
            z0, z1, z2, z3 = exp4(y0, y1, y2, y3)
            store(s, e, z0)
            store(s, e + w, z1)
            store(s, e + 2 * w, z2)
            store(s, e + 3 * w, z3)
            total = total + z0 + z1 + z2 + z3  # one by one: wherever a block begins
            if r.wanted:
                moment = fma(z1, maximum(y1, least), fma(z0, maximum(y0, least), moment))
                moment = fma(z3, maximum(y3, least), fma(z2, maximum(y2, least), moment))
            e += 4 * w
        for rest in range(e, end, w):
            y0 = load(s, rest) - top
            z0 = exp(y0)
            store(s, rest, z0)
            total += z0
            moment = fma(z0, maximum(y0, least), moment)
        total = joined(total)
        if parts and r.has_sinks:
            kept = total
            total += exp(spread(r.sinks, h) - top)
            if r.wanted:
                store(note, 0, load(note, 0) + (log(total) * kept - joined(moment)) / total)
        elif r.wanted:
            store(note, 0, load(note, 0) + (log(total) - joined(moment) / total))
        return total

    return exponentials


@inner
def first_layer(r, sample):
    """The number of the first layer that is the sample's own."""
    if r.systems > 1:
        return element(r.system, sample) * r.given
    return 0


@inner
def reach(r, i, tall):
    """(first, last): tokens i .. i + tall - 1 attend to keys from the first to before the last."""
    first, last = element(r.begin, i), element(r.end, i)
    for k in range(i + 1, i + tall):
        first, last = min(first, element(r.begin, k)), max(last, element(r.end, k))
    return first, last


class Attention(NamedTuple):
    """Functions of blocks of tokens.

    attended(r, h, i, tall, keys, values, note): r.mixed = softmax(r.q keys) values, for head h
    attend(r, turn, i, tall, z, keys, values, to, shifts, size, note): `to` takes what attention
        makes of the tokens i .. i + tall - 1, which are z, before the bias of the output. `shifts`
        are added to the queries of each head. Of deviations, z of `size`, the queries are
        (size q + shift) size.
    """

    attended: Callable
    attend: Callable


def attention(arrangement: Arrangement, parts: bool) -> Attention:
    """The functions for this arrangement. With `parts` queries are shaped (`shaping.shaped`)."""
    span, score, softmax = arrangement.span, arrangement.score, arrangement.softmax
    mix, listed, project = arrangement.mix, arrangement.listed, arrangement.project
    shaped = shaping(arrangement.joined, arrangement.peak)

    @inner
    def attended(r, h, i, tall, keys, values, note):
        compact()
        w = width(r.x)
        if not listed(r, h, i, tall, keys, values, note):
            first, last = span(r, i, tall)
            score(r, keys, first, last)
            for k in range(tall):
                s = at(r.scores, k * r.s_row)
                total = softmax(r, h, i + k, s, first, last, at(note, k * w))
                store(r.shares, k * w, splat(r.x, 1.0) / total)
            mix(r, values, first, last)
        for k in range(tall):
            share = load(r.shares, k * w)
            mixed = at(r.mixed, k * r.v_row)
            scale(mixed, mixed, share, r.v_row)

    @inner
    def attend(r, turn, i, tall, z, keys, values, to, shifts, size, note):
        compact()
        w, p_row, row = width(r.x), r.p_row, r.row
        for h in range(r.heads):
            here = turn * r.heads + h
            query = at(r.query, here * r.d * r.p_wide)
            project(r.q, p_row, z, row, query, r.p_wide, r.block, r.d)
            for k in range(0, p_row, w):
                shift = load(shifts, h * p_row + k)
                if r.followed:
                    for c in range(tall):
                        e = c * p_row + k
                        store(r.q, e, fma(load(r.q, e), size, shift) * size)
                elif r.biased:
                    for c in range(tall):
                        e = c * p_row + k
                        store(r.q, e, load(r.q, e) + shift)
            if parts:
                shaped(r, r.q, i, tall, r.query_gain)
            attended(r, h, i, tall, at(keys, h * r.head_keys), at(values, h * r.head_values), note)
            matrix = at(r.output, here * r.v * r.columns)
            if h == 0:
                project(to, row, r.mixed, r.v_row, matrix, r.columns, r.block, r.v)
            else:
                project(r.head, row, r.mixed, r.v_row, matrix, r.columns, r.block, r.v)
                add(to, r.head, tall * row)

    return Attention(attended, attend)


def composed(normalise: Callable, skip: Callable) -> Callable:
    """finish(r, x, c, log_x, y, c_y, log_y, count): a layer's rest, from its attention on.

    States are (tokens, first token, log of a size): the input x, and y, what attention makes of it,
    which becomes the output; its log is returned. normalise(r, y, c, log, count) and skip(r, x, c,
    log_x, y, c_y, log_y, count), which is r.weight y + r.skip x, change y and return its log. For
    tokens as they are the first token and the log mean nothing.
    """

    @inner
    def finish(r, x, c, log_x, y, c_y, log_y, count):
        if r.branch:
            log_y = normalise(r, y, c_y, log_y, count)
        if r.skip != 0.0 or r.weight != 1.0:
            log_y = skip(r, x, c, log_x, y, c_y, log_y, count)
        if r.after:
            log_y = normalise(r, y, c_y, log_y, count)
        return log_y

    return finish
