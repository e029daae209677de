"""Singular values of many matrices, one in every lane of a vector: A = U B V^T, then those of B.

Tall matrices become square first, by Householder QR in chunks of rows. Householder reflections
bring A to an upper bidiagonal B (Golub and Kahan 1965), each pair of them in one pass over memory
(Howell, Demmel, Fulton, Hammarling and Marmol 2008). The values of B come from the differential
quotient-difference transform with shifts (Fernando and Parlett 1994) on q = a^2 and e = b^2 of its
diagonal a and superdiagonal b. The shifts are lower bounds of the smallest eigenvalue (Laguerre's
step from 0, from the traces of the first two powers of the inverse, as in von Matt 1997), so no
transform ever fails. All is in units of a power of two near the largest entry; an off-diagonal
entry b below 2^-54 of the largest entry of B counts as 0, which moves no value by more than that.

Lanes never meet: the values of a matrix do not depend on what is in the others.
"""

import math

from dynsim.kernels.compiler import inner
from dynsim.kernels.fields import CHUNK, FEW, GROUP
from dynsim.kernels.panels import (
    add,
    any_less,
    combine,
    lanes,
    number,
    power_of_two,
    read,
    reflect,
    squares,
    where_between,
    where_less,
    zeros,
)
from dynsim.kernels.simd import (
    absolute,
    at,
    compact,
    element,
    extract,
    fma,
    largest,
    maximum,
    minimum,
    put,
    sqrt,
    store,
    transpose,
    width,
)

__all__ = ["advance", "advance_few", "run", "units"]

#: Sums of squares, in units of the largest entry, below which a column counts as 0.
_NOTHING = 1e-280
#: Sweeps for each value after which a matrix is given up, and becomes NaN: 5 are usual.
_SWEEPS = 40
#: Vectors of what is known of each matrix: the segment of B under way, from its first to before
#: its last row, the next shift, the sum of all shifts, and what counts as 0.
_FIRST, _END, _SHIFT, _SUM, _FLOOR = range(5)

_few, _part, _group, _four = zeros(FEW), zeros(GROUP // 2), zeros(GROUP), zeros(2 * GROUP)
_add_1, _add_2, _add_4 = add(1), add(2), add(4)
_combine_1, _combine_2, _combine_4 = combine(2, 1), combine(2, 2), combine(2, 4)
_reflect_1, _reflect_2, _reflect_3, _reflect_4 = (
    reflect(1, 1), reflect(2, 1), reflect(3, 1), reflect(4, 2)
)  # fmt: skip


# --- from memory ----------------------------------------------------------------------------------


@inner
def units(like, unit, source):
    """The power of two next to the largest |entry| of each matrix."""
    compact()
    x, n, d, first, count = source
    size, four = n * d, _four()
    step = lanes(four)
    for lane in range(lanes(like)):
        matrix = at(x, min(first + lane, count - 1) * size)
        top, e = four, 0
        while e + step <= size:
            top = maximum(top, absolute(read(four, matrix, e)))
            e += step
        most = extract(largest(top), 0)
        for rest in range(e, size):
            most = max(most, abs(element(matrix, rest)))
        put(unit, lane, most)
    least = number(like, 2.0**-1022)
    store(unit, 0, power_of_two(maximum(read(like, unit, 0), least)))


@inner
def run(like, target, begin, length, source):
    """`length` consecutive numbers of the matrices from `first` on, the last one repeated."""
    compact()
    x, n, d, first, count = source
    size = lanes(like)
    w = min(size, width(x))
    for lane in range(0, size, w):
        e = 0
        if w == width(x) and first + lane + w <= count:
            matrix = at(x, (first + lane) * n * d + begin)
            while e + w <= length:
                transpose(at(matrix, e), n * d, at(target, e * size + lane), size)
                e += w
        for rest in range(e, length):
            for k in range(w):
                sample = min(first + lane + k, count - 1)
                put(target, rest * size + lane + k, element(x, sample * n * d + begin + rest))


@inner
def _take(like, panel, rows, unit, source, work):
    """Rows, as a range of up to CHUNK, of the matrices or, where these have N < d, of their
    transposes, in units of `unit`; `work` is for as many numbers."""
    compact()
    size = lanes(like)
    target, down = panel
    _, n, d, _, _ = source
    inverse = number(like, 1.0) / read(like, unit, 0)
    begin, end = rows
    if n >= d:
        run(like, work, begin * d, (end - begin) * d, source)
        for i in range(end - begin):
            for j in range(d):
                value = read(like, work, (i * d + j) * size) * inverse
                store(target, i * size + j * down, value)
    else:
        for j in range(n):
            run(like, work, j * d + begin, end - begin, source)
            for i in range(end - begin):
                store(target, i * size + j * down, read(like, work, i * size) * inverse)


# --- reflections ----------------------------------------------------------------------------------


@inner
def _reflection(like, head, rest):
    """(beta, tau, scale): I - tau v v^T with v = (1, scale x) takes (head, x) to (beta, 0), where
    rest = x.x."""
    compact()
    zero, one = number(like, 0.0), number(like, 1.0)
    nothing = number(like, _NOTHING)
    norm = sqrt(fma(head, head, rest))
    beta = where_less(head, zero, norm, zero - norm)
    beta = where_less(rest, nothing, head, beta)
    norm = where_less(rest, nothing, one, norm)
    tau = where_less(rest, nothing, zero, one + absolute(head) / norm)
    scale = one / where_less(rest, nothing, one, head - beta)
    return beta, tau, scale


@inner
def _absorb(like, r, chunk, columns, reach, work):
    """R of the QR decomposition of R above the chunk, in place; a multiple of four columns.

    reach : how many columns there are to reflect, and rows in the chunk; if not all columns, the
    rows so far are no more than that, and nothing is left of them.
    """
    compact()
    size = lanes(like)
    (top, r_down), (low, down) = r, chunk
    block, sums = work, at(work, 20 * size)
    reflected, rows = reach
    for p in range(0, reflected, 4):
        left = at(low, p * down), down
        for c in range(4):
            own = at(low, (p + c) * down), down
            head = at(top, (p + c) * r_down + p * size), r_down
            if c == 0:
                store(sums, 0, squares(like, own, rows))
            elif c == 1:
                _reflect_1(like, sums, own, head, left, block, rows)
            elif c == 2:
                _reflect_2(like, sums, own, head, left, block, rows)
            else:
                _reflect_3(like, sums, own, head, left, block, rows)
            corner = at(head[0], c * size)
            beta, tau, scale = _reflection(like, read(like, corner, 0), read(like, sums, 0))
            store(corner, 0, beta)
            store(block, c * size, tau)
            for e in range(0, rows * size, size):
                store(own[0], e, read(like, own[0], e) * scale)
            for s in range(c):
                product = read(like, sums, (1 + s) * size) * scale
                store(block, (4 * s + 4 + c) * size, product)
        for j in range(p + 4, columns, 2):
            head = at(top, j * r_down + p * size), r_down
            _reflect_4(like, sums, (at(low, j * down), down), head, left, block, rows)


@inner
def _pass(like, sums, block, left, coefficients, new, rows):
    """The reflections of the last step on up to four columns, and then products with `new`.

    A panel with a third number, of its columns.
    """
    a, columns = (block[0], block[1]), block[2]
    if columns == 4:
        _combine_4(like, sums, a, left, coefficients, new, rows)
    elif columns == 2:
        _combine_2(like, sums, a, left, coefficients, new, rows)
    else:
        _combine_1(like, sums, a, left, coefficients, new, rows)


@inner
def _add(like, target, block, factors, rows):
    """target += the columns of the block, each times its factor."""
    a, columns = (block[0], block[1]), block[2]
    if columns == 4:
        _add_4(like, target, a, factors, rows)
    elif columns == 2:
        _add_2(like, target, a, factors, rows)
    else:
        _add_1(like, target, a, factors, rows)


@inner
def _bidiagonal(like, a, n, rows, out, work):
    """The diagonal and superdiagonal of B, at out[0] and out[1] with steps of out[2], of the
    panel a, rows x n with rows >= n, which is destroyed.

    The reflections of a step are carried out in the next, A += v z^T + g u^T.
    """
    compact()
    size = lanes(like)
    matrix, down = a
    diagonal, above, step = out
    now, before, image = work, at(work, 2 * rows * size), at(work, 4 * rows * size)
    z = at(image, rows * size)
    u, r = at(z, n * size), at(z, 2 * n * size)
    sums, zero = at(z, 3 * n * size), number(like, 0.0)
    for e in range(0, 2 * rows * size, size):
        store(before, e, zero)
    for e in range(0, 2 * n * size, size):
        store(z, e, zero)
    for k in range(n):
        place, below = at(matrix, k * (down + size)), at(matrix, k * (down + size) + size)
        left, rest_of_left = at(before, k * size), at(before, (k + 1) * size)
        coefficients = at(z, k * size), n * size
        head = fma(read(like, left, 0), read(like, z, k * size), read(like, place, 0))
        head = fma(read(like, left, rows * size), read(like, u, k * size), head)
        _combine_1(like, sums, (below, down), (rest_of_left, rows * size), coefficients, below,
                   rows - k - 1)  # fmt: skip
        rest = squares(like, (below, down), rows - k - 1)
        beta, tau, scale = _reflection(like, head, rest)
        store(diagonal, k * step, beta)
        store(above, k * step, zero)
        if k + 1 < n:
            store(now, k * size, number(like, 1.0))
            for i in range(k + 1, rows):
                store(now, i * size, read(like, place, (i - k) * size) * scale)
                store(image, i * size, zero)
            new, target = at(now, k * size), (at(image, (k + 1) * size), size)
            j, rest = k + 1, zero
            while j < n:
                some = 4 if j + 4 <= n else 2 if j + 2 <= n else 1
                block = at(place, (j - k) * down), down, some
                coefficients = at(z, j * size), n * size
                _pass(like, sums, block, (left, rows * size), coefficients, new, rows - k)
                for c in range(some):
                    share = read(like, sums, c * size) * tau
                    entry = read(like, block[0], c * down) - share
                    store(z, (j + c) * size, zero - share)
                    store(r, (j + c) * size, entry)
                    if j + c > k + 1:
                        rest = fma(entry, entry, rest)
                block = at(block[0], size), down, some
                _add(like, target, block, at(r, j * size), rows - k - 1)
                j += some
            beta, tau, scale = _reflection(like, read(like, r, (k + 1) * size), rest)
            store(above, k * step, beta)
            store(u, (k + 1) * size, number(like, 1.0))
            product = read(like, z, (k + 1) * size)
            for i in range(k + 2, n):
                entry = read(like, r, i * size) * scale
                store(u, i * size, entry)
                product = fma(entry, read(like, z, i * size), product)
            for i in range(k + 1, rows):
                own = read(like, matrix, (k + 1) * down + i * size)
                seen = (read(like, image, i * size) - beta * own) * scale
                seen = fma(product, read(like, now, i * size), seen)
                store(now, (rows + i) * size, zero - tau * seen)
            now, before = before, now


# --- values of a bidiagonal matrix ----------------------------------------------------------------


@inner
def _begin(like, q, n, state):
    """Squares of B, cut where an entry e counts as 0; (segments as `_sweep` keeps them)."""
    compact()
    size, zero = lanes(like), number(like, 0.0)
    e, before, shifts = at(q, n * size), at(q, 2 * n * size), at(q, 3 * n * size)
    total, top = zero, zero
    for k in range(2 * n):
        value = read(like, q, k * size)
        value *= value
        store(q, k * size, value)
        total += value
        top = maximum(top, value)
    finite = number(like, math.inf)
    for k in range(2 * n):
        store(q, k * size, where_less(total, finite, read(like, q, k * size), zero))
    floor, first = top * number(like, 2.0**-108), zero
    for k in range(n - 1):
        value = read(like, e, k * size)
        following = number(like, k + 1)
        store(e, k * size, where_less(floor, value, value, zero))
        store(before, (k + 1) * size, first)
        store(shifts, (k + 1) * size, zero)
        first = where_less(floor, value, first, following)
    for k, value in ((_FIRST, first), (_SHIFT, zero), (_SUM, zero), (_FLOOR, floor)):
        store(state, k * size, value)
    store(state, _END * size, number(like, n))
    return total - total


@inner
def _settle(like, q, n, state):
    """(first, end) of all segments that are left together, and of what is in each of them, after
    those of one row are done with."""
    compact()
    size, low, high, latest, earliest = lanes(like), n, 0, 0, n
    before, shifts = 2 * n * size, 3 * n * size
    for lane in range(size):
        of_lane = at(state, lane)
        first, end = int(element(of_lane, _FIRST * size)), int(element(of_lane, _END * size))
        while end == first + 1:
            place = first * size + lane
            put(q, place, element(q, place) + element(of_lane, _SUM * size))
            end = first
            if first:
                put(of_lane, _SUM * size, element(q, shifts + place))
                first = int(element(q, before + place))
            put(of_lane, _FIRST * size, float(first))
            put(of_lane, _END * size, float(end))
            put(of_lane, _SHIFT * size, 0.0)
        if end:
            low, high = min(low, first), max(high, end)
        latest, earliest = max(latest, first), min(earliest, end)
    return low, high, latest, earliest


@inner
def _step(values, following, off, shift, floor):
    """One row of the transform: the new q and e, and the values to go on with.

    These are d; the e above, 0 where it is below the floor; and, of the column of the inverse of
    the new B, its square w and the sum s of its squared products with those before.
    """
    d, beyond, w, s = values
    one, zero = number(d, 1.0), number(d, 0.0)
    new = d + off
    inverse = one / new
    s = beyond * inverse * fma(w, w, s)
    w = fma(beyond, w, one) * inverse
    d = maximum(fma(d * following, inverse, zero - shift), zero)
    off = off * (following * inverse)
    return new, (d, where_less(floor, off, off, zero), w, s)


@inner
def _sweep(like, q, n, state, reach):
    """One transform of every segment, with its shift; then the next shift.

    A segment ends where e has become 0. The one above it is remembered: its first row and the sum
    of its shifts, at the row where the lower one begins.
    """
    compact()
    size, zero, one = lanes(like), number(like, 0.0), number(like, 1.0)
    low, high, latest, earliest = reach
    e, before, shifts = at(q, n * size), at(q, 2 * n * size), at(q, 3 * n * size)
    start, end = read(like, state, _FIRST * size), read(like, state, _END * size)
    shift, floor = read(like, state, _SHIFT * size), read(like, state, _FLOOR * size)
    total = read(like, state, _SUM * size) + shift
    first, last = start, end - one
    d, beyond, w, s, trace, trace_2 = zero, zero, zero, zero, zero, zero
    here, k = read(like, q, low * size), low
    while k < high - 1:
        if k > latest:  # within all segments
            while k + 2 < earliest:
                following, off = read(like, q, (k + 1) * size), read(like, e, k * size)
                new, values = _step((d, beyond, w, s), following, off, shift, floor)
                if any_less(values[1], floor):
                    break
                d, beyond, w, s = values
                trace, trace_2 = trace + w, trace_2 + fma(w, w, s + s)
                store(q, k * size, new)
                store(e, k * size, beyond)
                here, k = following, k + 1
        at_k, next_k = number(like, k), number(like, k + 1)
        d = where_between(at_k, start, start + one, maximum(here - shift, zero), d)
        following, off = read(like, q, (k + 1) * size), read(like, e, k * size)
        new, values = _step((d, beyond, w, s), following, off, shift, floor)
        d_new, off_new, w_new, s_new = values
        store(q, k * size, where_between(at_k, start, last, new, here))
        store(e, k * size, where_between(at_k, start, last, off_new, off))
        final = where_less(zero, off_new, d_new, d_new + total)
        here = where_between(next_k, last, end, final, following)
        d = where_between(at_k, start, last, d_new, d)
        beyond = where_between(at_k, start, last, off_new, beyond)
        w = where_between(at_k, start, last, w_new, w)
        s = where_between(at_k, start, last, s_new, s)
        trace += where_between(at_k, start, last, w_new, zero)
        trace_2 += where_between(at_k, start, last, fma(w_new, w_new, s_new + s_new), zero)
        cut = where_less(zero, off_new, zero, one)
        cut = where_between(next_k, start + one, last, cut, zero)
        if any_less(zero, cut):
            place = (k + 1) * size
            store(before, place, where_less(zero, cut, first, read(like, before, place)))
            store(shifts, place, where_less(zero, cut, total, read(like, shifts, place)))
            first = where_less(zero, cut, next_k, first)
            w, s = where_less(zero, cut, zero, w), where_less(zero, cut, zero, s)
            trace = where_less(zero, cut, zero, trace)
            trace_2 = where_less(zero, cut, zero, trace_2)
        k += 1
    store(q, (high - 1) * size, here)
    # the last row, where it is not done with
    inverse = one / d
    s = beyond * inverse * fma(w, w, s)
    w = fma(beyond, w, one) * inverse
    trace = where_less(zero, beyond, trace + w, trace)
    trace_2 = where_less(zero, beyond, trace_2 + fma(w, w, s + s), trace_2)
    under_way = where_less(zero, end, one, zero)
    end = where_less(zero, beyond, end, end - under_way)
    rows = end - first
    rounding = number(like, 2.0**-50) * rows
    spread = maximum(fma(rows, trace_2, zero - trace * trace), zero)
    spread = fma(rounding * rows, trace_2, spread)
    shift = rows / (trace + sqrt((rows - one) * spread)) * (one - rounding)
    shift = where_between(shift, zero, number(like, math.inf), shift, zero)
    for k, value in ((_FIRST, first), (_END, end), (_SHIFT, shift), (_SUM, total)):
        store(state, k * size, value)


@inner
def _finish(like, q, n, unit, nothing):
    """From squares to values, largest first; `nothing` is 0 or NaN."""
    compact()
    size = lanes(like)
    for k in range(n):
        store(q, k * size, sqrt(read(like, q, k * size)))
    for end in range(n - 1, 0, -1):
        for k in range(end):
            a, b = read(like, q, k * size), read(like, q, (k + 1) * size)
            store(q, k * size, maximum(a, b))
            store(q, (k + 1) * size, minimum(a, b))
    for k in range(n):
        store(q, k * size, fma(read(like, q, k * size), read(like, unit, 0), nothing))


@inner
def _reduce(like, out, unit, source, work):
    """B of the matrices from `first` on, as `_bidiagonal` gives it, in units of `unit`."""
    compact()
    size = lanes(like)
    _, n, d, _, _ = source
    short, tall = min(n, d), max(n, d)
    wide = (short + 3) // 4 * 4
    square = 2 * tall > 3 * short
    height = wide if square else tall
    small, fresh = work, at(work, 28 * size)
    panel, down = at(fresh, CHUNK * short * size), (height | 1) * size
    chunk, chunk_down = at(panel, wide * down), (CHUNK + 1) * size
    units(like, unit, source)
    if square:
        for e in range(0, wide * (down + chunk_down), size):
            store(panel, e, number(like, 0.0))
    for row in range(0, tall, CHUNK):
        rows = row, min(row + CHUNK, tall)
        if square:
            _take(like, (chunk, chunk_down), rows, unit, source, fresh)
            reach = min(wide, (rows[1] + 3) // 4 * 4), rows[1] - row
            _absorb(like, (panel, down), (chunk, chunk_down), wide, reach, small)
        else:
            _take(like, (at(panel, row * size), down), rows, unit, source, fresh)
    _bidiagonal(like, (panel, down), short, short if square else tall, out, chunk)


@inner
def _values(like, both, sigma, across, work, problem):
    """As `advance`: `both` are the lanes of a group, reduced to B in parts, the lanes of `like`."""
    compact()
    x, count, n, d = problem
    size, step, short = lanes(like), lanes(both), min(n, d)
    unit, state, q = work, at(work, step), at(work, 6 * step)
    for first in range(0, count, step):
        for part in range(0, step, size):
            out = at(q, part), at(q, short * step + part), step
            if first + part < count:
                source = x, n, d, first + part, count
                _reduce(like, out, at(unit, part), source, at(q, 4 * short * step))
            else:
                store(unit, part, number(like, 1.0))
                for k in range(0, short * step, step):
                    store(out[0], k, number(like, 0.0))
                    store(out[1], k, number(like, 0.0))
        nothing = _begin(both, q, short, state)
        reach, sweeps = _settle(both, q, short, state), 0
        while reach[1] and sweeps < _SWEEPS * short:
            _sweep(both, q, short, state, reach)
            reach, sweeps = _settle(both, q, short, state), sweeps + 1
        if reach[1]:
            gone = number(both, math.inf) - number(both, math.inf)
            left = read(both, state, _END * step)
            nothing = where_less(number(both, 0.0), left, gone, nothing)
        _finish(both, q, short, unit, nothing)
        for k in range(short):
            place = at(sigma, k * across + first)
            if first + step <= count:
                store(place, 0, read(both, q, k * step))
            else:
                for lane in range(count - first):
                    put(place, lane, element(q, k * step + lane))


def advance(r):
    """r.sigma, largest first, of the matrices r.x (`fields.SINGULAR`); NaN where x is not finite,
    or where a matrix takes too many sweeps."""
    _values(_part(), _group(), r.sigma, r.across, r.work, (r.x, r.count, r.n, r.d))


def advance_few(r):
    """As `advance`, with the same bits, for a few matrices."""
    _values(_few(), _few(), r.sigma, r.across, r.work, (r.x, r.count, r.n, r.d))
