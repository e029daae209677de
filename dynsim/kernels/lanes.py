"""Many small states, one in every lane of a vector.

Every number of the definition is a vector here, so the code reads as the definition does for one
sample; lanes never meet, so results do not depend on what else is in the batch.
"""

from dynsim.kernels.arrangement import Arrangement
from dynsim.kernels.arrays import add, copy, fill
from dynsim.kernels.compiler import inlined, inner
from dynsim.kernels.deviations import following
from dynsim.kernels.fields import LANE_ROWS, PAD, STRIP
from dynsim.kernels.layer import attention, exponential_function, first_layer, reach
from dynsim.kernels.products import tile
from dynsim.kernels.shaping import shaping
from dynsim.kernels.simd import at, compact, element, load, splat, spread, store, width
from dynsim.kernels.tokens import token_functions

__all__ = ["advance", "advance_with_parts", "follow"]

_lanes_by_numbers = tile(LANE_ROWS, PAD, a_lanes=True, b_lanes=False)
_lanes_by_lanes = tile(LANE_ROWS, PAD, a_lanes=True, b_lanes=True)


@inner
def _head(x):
    return load(x, 0)


@inner
def _inside(z, e, d):
    return z


@inner
def _own(z):
    return z


@inner
def _project(out, down, x, x_down, matrix, columns, rows, depth):
    compact()
    w = width(x)
    for i in range(0, rows, LANE_ROWS):
        for k in range(0, columns, PAD):
            _lanes_by_numbers(
                at(out, i * down + k * w), down, w, at(x, i * x_down), x_down, w,
                at(matrix, k), columns, 1, depth,
            )  # fmt: skip


@inner
def _published(r, z):
    """Tokens are their own keys and values where there are no matrices."""
    keys, values = z, z
    if r.has_keys:
        keys = r.keys
    if r.has_values:
        values = r.values
    return keys, values


@inner
def _span(r, i, tall):
    """The first is a multiple of PAD."""
    first, last = reach(r, i, tall)
    return first // PAD * PAD, last


@inner
def _scored(x, first, last):
    return (last - first) * width(x)


@inner
def _score(r, keys, first, last):
    compact()
    w = width(keys)
    for j in range(first, last, PAD):
        _lanes_by_lanes(
            at(r.scores, (j - first) * w), r.s_row, w, r.q, r.p_row, w,
            at(keys, j * r.p_row), w, r.p_row, r.p,
        )  # fmt: skip


@inner
def _mix(r, values, first, last):
    compact()
    w = width(values)
    for k in range(0, r.v_wide, PAD):
        _lanes_by_lanes(
            at(r.mixed, k * w), r.v_row, w, r.scores, r.s_row, w,
            at(values, first * r.v_row + k * w), r.v_row, w, last - first,
        )  # fmt: skip


@inner
def _listed(r, h, i, tall, keys, values, note):
    return False


def _arranged(parts: bool) -> Arrangement:
    """The arrangement; with `parts` it has positions, QK-norm and sinks, where the record does."""
    exponentials, shaped = exponential_function(_own, _own, parts), shaping(_own, _own)

    @inner
    def publish(r, turn, z, i, tall, keys, values):
        if r.has_keys:
            for h in range(r.heads):
                matrix = at(r.key, (turn * r.heads + h) * r.d * r.p_wide)
                to = at(keys, (h * r.rows + i) * r.p_row)
                _project(to, r.p_row, z, r.row, matrix, r.p_wide, tall, r.d)
                if parts:
                    shaped(r, to, i, tall, r.key_gain)
        if r.has_values:
            for h in range(r.heads):
                matrix = at(r.value, (turn * r.heads + h) * r.d * r.v_wide)
                to = at(values, (h * r.rows + i) * r.v_row)
                _project(to, r.v_row, z, r.row, matrix, r.v_wide, tall, r.d)

    @inlined
    def softmax(r, h, i, s, first, last, note):
        w = width(s)
        begin, end = (element(r.begin, i) - first) * w, (element(r.end, i) - first) * w
        if r.has_offsets:
            for e in range(begin, end, w):
                store(s, e, load(s, e) + spread(r.offsets, i * r.n + first + e // w))
        if parts and r.has_biases:
            biases = at(r.biases, h * r.bias_row + r.n - 1 - i + first)
            for e in range(begin, end, w):
                store(s, e, load(s, e) + spread(biases, e // w))
        total = exponentials(r, h, s, begin, end, note)
        fill(s, 0.0, begin)
        fill(at(s, end), 0.0, (last - first) * w - end)
        return total

    return Arrangement(
        _head, _inside, _own, _own, _project, publish, _published, _span, _scored, _score,
        softmax, _mix, _listed,
    )  # fmt: skip


def _advancing(arrangement, attention_, tokens):
    """The kernel advance(r) for this arrangement."""
    attend, normalise, finish = attention_.attend, tokens.normalise, tokens.finish
    summed, merged = tokens.summed, tokens.merged
    publish = arrangement.publish

    def advance(r):
        """Layers of attention on tokens r.x (samples, rows, columns, lanes), in place."""
        compact()
        w, row, n = width(r.x), r.row, r.n
        state, strips, one = r.rows * row, (n + STRIP - 1) // STRIP, splat(r.x, 1.0)
        for sample in range(r.samples):
            now, following_ = at(r.x, sample * state), r.next
            fill(following_, 0.0, state)
            note, own = at(r.entropy, r.wanted * sample * n * w), first_layer(r, sample)
            for t in range(r.layers):
                turn = own + (r.start + t) % r.given
                z = now
                if r.before:
                    z = r.seen
                    fill(at(z, n * row), 0.0, state - n * row)
                    for i in range(n):
                        normalise(r, at(now, i * row), at(z, i * row))
                keys, values = _published(r, z)
                publish(r, turn, z, 0, n, keys, values)
                for i in range(0, n, LANE_ROWS):
                    tall, to = min(LANE_ROWS, n - i), at(following_, i * row)
                    attend(
                        r, turn, i, tall, at(z, i * row), keys, values, to,
                        at(r.query_bias, turn * r.heads * r.p_row), one, at(note, r.wanted * i * w),
                    )  # fmt: skip
                    for k in range(tall):
                        add(at(to, k * row), at(r.output_bias, turn * row), r.long)
                    finish(r, at(now, i * row), now, 0.0, to, to, 0.0, tall)
                now, following_ = following_, now
                for s in range(strips):
                    begin = s * STRIP
                    place = at(r.sums, s * (2 * row + 6 * w))
                    summed(r, at(now, begin * row), min(STRIP, n - begin), place)
                step = r.samples * w
                merged(r, strips, r.sums, at(r.observed, (t * 5 * r.samples + sample) * w), step)
            if r.layers % 2:
                copy(following_, now, state)

    return advance


_ARRANGEMENT, _WITH_PARTS = _arranged(parts=False), _arranged(parts=True)
_attention, _tokens = attention(_ARRANGEMENT, parts=False), token_functions(_ARRANGEMENT)
follow = following(_ARRANGEMENT, _attention, _tokens)
advance = _advancing(_ARRANGEMENT, _attention, _tokens)
advance_with_parts = _advancing(_WITH_PARTS, attention(_WITH_PARTS, parts=True), _tokens)
