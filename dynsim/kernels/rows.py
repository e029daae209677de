"""One state of any size, all layers in one call, alone or by a team of threads.

Tokens are taken in blocks of rows; no N x N array is made. With contiguous ranges a block meets
keys that lie transposed in panels, COLUMNS to a panel, and values in panels of COLUMNS dimensions,
so that sums stay in registers; with lists of neighbours (CSR) it gathers their rows. What a block
gives is measured and turned into keys and values of the next layer while it is in cache. Sums are
taken in an order that does not depend on the threads.
"""

import math

from dynsim.kernels.arrangement import Arrangement
from dynsim.kernels.arrays import add, copy
from dynsim.kernels.compiler import inner
from dynsim.kernels.deviations import following
from dynsim.kernels.fields import STRIP
from dynsim.kernels.layer import attention, exponential_function, reach
from dynsim.kernels.processor import TILE_COLUMNS, TILE_ROWS
from dynsim.kernels.products import dots, gather, tile
from dynsim.kernels.shaping import shaping
from dynsim.kernels.simd import (
    at,
    compact,
    element,
    largest,
    load,
    prefetch,
    splat,
    spread,
    store,
    total,
    transpose,
    width,
    within,
)
from dynsim.kernels.threads import barrier, take
from dynsim.kernels.tokens import token_functions

__all__ = ["advance", "advance_with_parts", "follow"]

_GATHERED = 8

_numbers_by_lanes = tile(TILE_ROWS, TILE_COLUMNS, a_lanes=False, b_lanes=True)
_gather_many, _gather_one = gather(_GATHERED), gather(1)


@inner
def _head(x):
    return spread(x, 0)


@inner
def _inside(z, e, d):
    return within(z, e, 0, d, 0.0)


@inner
def _panels(out, down, step, x, x_down, panels, panel, rows, columns, depth):
    """out = x matrix: x is rows x depth, the matrix in panels `panel` apart, out in columns of
    panels `step` apart."""
    compact()
    w = width(x)
    for _ in range(0, columns, TILE_COLUMNS * w):
        for k in range(0, rows, TILE_ROWS):
            _numbers_by_lanes(
                at(out, k * down), down, w, at(x, k * x_down), x_down, 1, panels,
                TILE_COLUMNS * w, w, depth,
            )  # fmt: skip
        out, panels = at(out, step), at(panels, panel)


@inner
def _project(out, down, x, x_down, matrix, columns, rows, depth):
    panel = TILE_COLUMNS * width(x)
    _panels(out, down, panel, x, x_down, matrix, depth * panel, rows, columns, depth)


@inner
def _published(r, z):
    return r.keys, r.values


@inner
def _span(r, i, tall):
    """The first is a multiple of COLUMNS."""
    panel = TILE_COLUMNS * width(r.x)
    first, last = reach(r, i, tall)
    return first // panel * panel, last


@inner
def _scored(x, first, last):
    panel = TILE_COLUMNS * width(x)
    return (last - first + panel - 1) // panel * panel


@inner
def _score(r, keys, first, last):
    panel, wide = TILE_COLUMNS * width(keys), _scored(keys, first, last)
    _panels(r.scores, r.s_row, panel, r.q, r.p_row, at(keys, first * r.p_row), panel * r.p_row,
            r.block, wide, r.p)  # fmt: skip


@inner
def _mix(r, values, first, last):
    panel = TILE_COLUMNS * width(values)
    _panels(r.mixed, r.v_row, panel, r.scores, r.s_row, at(values, first * panel), r.value_step,
            r.block, r.v_wide, last - first)  # fmt: skip


def _arranged(parts: bool) -> Arrangement:
    """The arrangement; with `parts` it has positions, QK-norm and sinks, where the record does."""
    exponentials, shaped = exponential_function(total, largest, parts), shaping(total, largest)

    @inner
    def publish(r, turn, z, i, tall, keys, values):
        """Keys of ranges lie transposed in panels, those of lists as rows; so do the values."""
        compact()
        w, row, p_row, v_row = width(z), r.row, r.p_row, r.v_row
        panel = TILE_COLUMNS * w
        for h in range(r.heads if r.has_keys else 1):
            source, down = z, row
            if r.has_keys:
                source, down = r.mixed, p_row
                matrix = at(r.key, (turn * r.heads + h) * r.d * r.p_wide)
                _project(source, down, z, row, matrix, r.p_wide, r.block, r.d)
                if parts:
                    shaped(r, source, i, tall, r.key_gain)
            side = at(keys, h * r.head_keys)
            if r.lists:
                for k in range(tall):
                    copy(at(side, (i + k) * p_row), at(source, k * down), p_row)
            else:
                for k in range(0, r.block, w):
                    to = at(side, (i + k) // panel * panel * p_row + (i + k) % panel)
                    for e in range(0, p_row, w):
                        transpose(at(source, k * down + e), down, at(to, e * panel), panel)
        across = panel
        if r.lists:
            across = v_row
        for h in range(r.heads if r.has_values else 1):
            side = at(values, h * r.head_values + i * across)
            if r.has_values:
                matrix = at(r.value, (turn * r.heads + h) * r.d * r.v_wide)
                _panels(
                    side, across, r.value_step, z, row, matrix, r.d * panel, r.block, r.v_wide, r.d
                )
            elif not (r.lists and not r.has_keys):  # else keys serve as values
                for k in range(r.block):
                    for e in range(0, v_row, w):
                        to = at(side, e // panel * r.value_step + e % panel)
                        store(to, k * across, load(z, k * row + e))

    @inner
    def softmax(r, h, i, s, first, last, note):
        w, wide = width(s), _scored(s, first, last)
        begin, end = element(r.begin, i) - first, element(r.end, i) - first
        if parts and r.has_biases:
            add(s, at(r.biases, h * r.bias_row + r.n - 1 - i + first), wide)
        for e in range(0, wide, w):
            if e < begin or e + w > end:
                store(s, e, within(load(s, e), e, begin, end, -math.inf))
        return exponentials(r, h, s, 0, wide, note)

    @inner
    def listed(r, h, i, tall, keys, values, note):
        """One row after another, with gathered keys and values, where the mask is in lists."""
        compact()
        if not r.lists:
            return False
        w, s, p_row, v_row = width(keys), r.scores, r.p_row, r.v_row
        if not (r.has_keys or r.has_values):  # fetched once
            values = keys
        for k in range(tall):
            begin, end = element(r.begin, i + k), element(r.end, i + k)
            own, count = at(r.indices, begin), end - begin
            if k + 1 < tall:  # the keys of the next row, while there is work on this one
                for e in range(end, element(r.end, i + k + 1)):
                    row = element(r.indices, e) * p_row
                    for c in range(0, p_row, w):
                        prefetch(keys, row + c)
            for j in range(0, count, w):
                found = dots(at(r.q, k * p_row), keys, p_row, at(own, j), count - j, p_row // w)
                if parts and r.has_biases:
                    found += load(r.biases, h * r.bias_row + begin + j)
                store(s, j, within(found, j, 0, count, -math.inf))
            wide = (count + w - 1) // w * w
            total_ = exponentials(r, h, s, 0, wide, at(note, k * w))
            store(r.shares, k * w, splat(s, 1.0) / total_)
            c = 0
            while c + _GATHERED * w <= v_row:
                _gather_many(at(r.mixed, k * v_row + c), s, at(values, c), v_row, own, count)
                c += _GATHERED * w
            while c < v_row:
                _gather_one(at(r.mixed, k * v_row + c), s, at(values, c), v_row, own, count)
                c += w
        return True

    return Arrangement(
        _head, _inside, total, largest, _project, publish, _published, _span, _scored, _score,
        softmax, _mix, listed,
    )  # fmt: skip


def _advancing(arrangement, attention_, tokens):
    """The kernel advance(r) for this arrangement."""
    attend, normalise, finish = attention_.attend, tokens.normalise, tokens.finish
    summed, merged = tokens.summed, tokens.merged
    publish = arrangement.publish

    def advance(r):
        """Layers of attention on the tokens of one state, r.x (rows, columns), in place: what one
        member of a team does of them.

        A round at the end of each layer makes keys and values of the next; the first round makes
        those of the first layer and nothing else.
        """
        compact()
        w, row, n, block = width(r.x), r.row, r.n, r.block
        keys, values, other_keys, other_values = r.keys, r.values, r.other_keys, r.other_values
        sums, other_sums, one = r.sums, r.other_sums, splat(r.x, 1.0)
        strips, stride = (n + STRIP - 1) // STRIP, 2 * row + 6 * w
        z = r.x
        if r.before:
            z = r.seen
        for t in range(-1, r.layers):
            turn, following_ = (r.start + t) % r.given, (r.start + t + 1) % r.given
            strip = take(r.meeting)
            while strip < strips:
                top, bottom = strip * STRIP, min(strip * STRIP + STRIP, n)
                for b in range((bottom - top + block - 1) // block):
                    i = top + b * block
                    tall, own = min(block, n - i), at(z, i * row)
                    if t >= 0:
                        attend(
                            r, turn, i, tall, own, keys, values, r.out,
                            at(r.query_bias, turn * r.heads * r.p_row), one,
                            at(r.entropy, r.wanted * i * w),
                        )  # fmt: skip
                        token = at(r.x, i * row)
                        for k in range(tall):
                            add(at(r.out, k * row), at(r.output_bias, turn * row), row)
                        finish(r, token, token, 0.0, r.out, r.out, 0.0, tall)
                        copy(token, r.out, tall * row)
                    if t + 1 < r.layers:
                        if r.before:
                            for k in range(tall):
                                normalise(r, at(r.x, (i + k) * row), at(own, k * row))
                        publish(r, following_, own, i, tall, other_keys, other_values)
                if t >= 0:
                    place = at(sums, strip * stride)
                    summed(r, at(r.x, top * row), bottom - top, place)
                strip = take(r.meeting)
            barrier(r.meeting, r.members)
            if r.member == 0 and t >= 0:
                merged(r, strips, sums, at(r.observed, 5 * t * w), w)
            keys, other_keys, values, other_values = other_keys, keys, other_values, values
            sums, other_sums = other_sums, sums

    return advance


_ARRANGEMENT, _WITH_PARTS = _arranged(parts=False), _arranged(parts=True)
_attention, _tokens = attention(_ARRANGEMENT, parts=False), token_functions(_ARRANGEMENT)
follow = following(_ARRANGEMENT, _attention, _tokens)
advance = _advancing(_ARRANGEMENT, _attention, _tokens)
advance_with_parts = _advancing(_WITH_PARTS, attention(_WITH_PARTS, parts=True), _tokens)
