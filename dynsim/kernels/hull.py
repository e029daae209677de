"""The point of a convex hull nearest to a given point, by active sets.

Wolfe, Finding the nearest point in a polytope, Math. Programming 11 (1976). The members of an
active set are affinely independent; with the matrix M of columns (a_j, 1) and M = Q R, the point of
their affine hull nearest to 0 has the weights mu / sum(mu), R mu = the last row of Q.
"""

import math

from dynsim.kernels.compiler import inner
from dynsim.kernels.simd import (
    at,
    element,
    extract,
    fma,
    largest,
    load,
    minimum,
    put,
    splat,
    spread,
    store,
    total,
    width,
)

__all__ = ["nearest"]

#: A new member this near to the affine hull of the others, in the points' unit, adds nothing.
_FLAT = 1e-14
#: Distances are known to this much times the dimension, in the points' unit.
_ROUNDING = 4e-16


@inner
def _dot(a, b, size):
    z = splat(a, 0.0)
    for e in range(0, size, width(a)):
        z = fma(load(a, e), load(b, e), z)
    return extract(total(z), 0)


@inner
def _add(a, factor, b, size):
    """a += factor b"""
    for e in range(0, size, width(a)):
        store(a, e, fma(splat(a, factor), load(b, e), load(a, e)))


@inner
def _scale(a, factor, size):
    for e in range(0, size, width(a)):
        store(a, e, load(a, e) * splat(a, factor))


@inner
def _direction(a, rows, own, j, keys, down):
    """a = row j less the own point; rows from `keys` on are directions already."""
    for e in range(0, down, width(a)):
        z = load(rows, j * down + e)
        if j < keys:
            z -= load(own, e)
        store(a, e, z)


@inner
def _scores(out, x, columns, begin, end, across, d, less):
    """out = x . column - less for the columns begin .. end."""
    w = width(x)
    for j in range(begin, end, w):
        z = splat(x, -less)
        for k in range(d):
            z = fma(spread(x, k), load(columns, k * across + j), z)
        store(out, j, z)


@inner
def _lowest(scores, across):
    """The place of the smallest of them."""
    low = load(scores, 0)
    for j in range(width(scores), across, width(scores)):
        low = minimum(low, load(scores, j))
    smallest = -extract(largest(splat(scores, 0.0) - low), 0)
    place = 0
    while element(scores, place) != smallest:
        place += 1
    return place


@inner
def _farthest(scores, x, own, columns, i, n, free, keys, across, d, down):
    """The place of the point lowest along x, point i left out."""
    _scores(scores, x, columns, 0, keys, across, d, _dot(x, own, down))
    _scores(scores, x, columns, keys, across, across, d, 0.0)
    put(scores, i, math.inf)
    for j in range(n, keys):
        put(scores, j, math.inf)
    for j in range(keys + free, across):
        put(scores, j, math.inf)
    return _lowest(scores, across)


@inner
def _join(basis, triangle, a, count, d, down):
    """A column (a, 1) more in Q and R, orthogonal to working precision; False if it is too near."""
    new, column = at(basis, count * down), at(triangle, count * down)
    for e in range(0, down, width(a)):
        store(new, e, load(a, e))
        store(column, e, splat(a, 0.0))
    put(new, d, 1.0)
    for _ in range(2):  # twice is enough
        for k in range(count):
            r = _dot(at(basis, k * down), new, down)
            put(column, k, element(column, k) + r)
            _add(new, -r, at(basis, k * down), down)
    size = math.sqrt(_dot(new, new, down))
    put(column, count, size)
    if not size > _FLAT:
        return False
    _scale(new, 1.0 / size, down)
    return True


@inner
def _leave(basis, triangle, members, share, p, count, down):
    """Member p out of R and Q, by rotations; R stays zero below its diagonal."""
    for c in range(p, count - 1):
        put(members, c, element(members, c + 1))
        put(share, c, element(share, c + 1))
        for e in range(0, down, width(basis)):
            store(triangle, c * down + e, load(triangle, (c + 1) * down + e))
    for k in range(p, count - 1):
        a, b = element(triangle, k * down + k), element(triangle, k * down + k + 1)
        size = math.hypot(a, b)
        cosine, sine = a / size, b / size
        for c in range(k, count - 1):
            y, z = element(triangle, c * down + k), element(triangle, c * down + k + 1)
            put(triangle, c * down + k, cosine * y + sine * z)
            put(triangle, c * down + k + 1, cosine * z - sine * y)
        put(triangle, k * down + k + 1, 0.0)
        for e in range(0, down, width(basis)):
            y, z = load(basis, k * down + e), load(basis, (k + 1) * down + e)
            cos, sin = splat(basis, cosine), splat(basis, sine)
            store(basis, k * down + e, cos * y + sin * z)
            store(basis, (k + 1) * down + e, cos * z - sin * y)


@inner
def _affine(wanted, right, basis, triangle, count, d, down):
    """The weights, of sum 1, of the point of the members' affine hull nearest to 0."""
    for k in range(count):
        put(right, k, element(basis, k * down + d))
    sum_ = 0.0
    for c in range(count - 1, -1, -1):
        mu = element(right, c) / element(triangle, c * down + c)
        put(wanted, c, mu)
        sum_ += mu
        _add(right, -mu, at(triangle, c * down), c)  # whole vectors: also what is not read again
    for c in range(count):
        put(wanted, c, element(wanted, c) / sum_)


@inner
def _normal(y, basis, count, d, down):
    """The unit vector along which all members lie equally high, and lowest: the direction of the
    point that `_affine` weighs, but exact however near to 0 that is. False if there is none."""
    for e in range(0, down, width(y)):
        store(y, e, splat(y, 0.0))
    put(y, d, -1.0)
    for _ in range(2):
        for k in range(count):
            _add(y, -_dot(at(basis, k * down), y, down), at(basis, k * down), down)
        size = math.sqrt(_dot(y, y, down))
        if not size > 0.0:
            return False
        _scale(y, 1.0 / size, down)
    put(y, d, 0.0)
    size = math.sqrt(_dot(y, y, down))
    _scale(y, 1.0 / size, down)
    return size > 0.0


@inner
def _shrink(basis, triangle, members, share, wanted, right, count, d, down):
    """Move the weights to the nearest point of the affine hull, losing members on the way that
    would turn negative; how many are left."""
    while True:
        _affine(wanted, right, basis, triangle, count, d, down)
        step, leaving = 1.0, -1
        for k in range(count):
            have, want = element(share, k), element(wanted, k)
            if want <= 0.0 and have < step * (have - want):
                step, leaving = have / (have - want), k
        for k in range(count):
            have, want = element(share, k), element(wanted, k)
            put(share, k, max(have + step * (want - have), 0.0))
        if leaving < 0:
            return count
        _leave(basis, triangle, members, share, leaving, count, down)
        count -= 1


def nearest(r):
    """For every point of each of r.sets sets: the point nearest to it in the hull of the others.

    The fields are those of `fields.HULL`. The search is in the hull of a_j = row_j - row_i + step,
    j != i, and of the directions. It ends when some x has x . a_j > enough ||x|| for all j, if that
    will do (`early`), at a point x of the hull shorter than `enough`, or at the nearest. query
    takes the -x of largest margin min_j x . a_j / ||x||; support and weights the shortest x as a
    convex combination of rows.
    """
    rows, columns, query, support, weights = r.rows, r.columns, r.query, r.support, r.weights
    own, x, a, scores, basis, triangle = r.own, r.x, r.a, r.scores, r.basis, r.triangle
    members, share, wanted, right, step = r.members, r.share, r.wanted, r.right, r.step
    n, d, free, keys, across, down = r.n, r.d, r.free, r.keys, r.across, r.down
    enough, early = r.enough, r.early
    w = width(rows)
    for _ in range(r.sets):
        for i in range(n):
            for e in range(0, down, w):
                store(own, e, load(rows, i * down + e) - load(step, e))
                store(x, e, splat(x, 0.0) - load(rows, i * down + e))
            size = math.sqrt(_dot(x, x, down))  # away from the middle: often wins, and is cheap
            j = _farthest(scores, x, own, columns, i, n, free, keys, across, d, down)
            best = element(scores, j) / size if size > 0.0 else -math.inf
            for k in range(d):
                put(query, i * d + k, -element(x, k))
            count, shortest = 0, math.inf
            while not (early and best > enough):
                _direction(x, rows, own, j, keys, down)
                if not _join(basis, triangle, x, count, d, down):
                    break
                put(members, count, j)
                put(share, count, 0.0 if count else 1.0)
                count = _shrink(basis, triangle, members, share, wanted, right, count + 1, d, down)
                for e in range(0, down, w):
                    store(x, e, splat(x, 0.0))
                for k in range(count):
                    _direction(a, rows, own, element(members, k), keys, down)
                    _add(x, element(share, k), a, down)
                size = math.sqrt(_dot(x, x, down))
                if not size < shortest:
                    break
                shortest = size
                for k in range(d + 1):
                    place = i * (d + 1) + k
                    put(support, place, element(members, k) if k < count else 0)
                    put(weights, place, element(share, k) if k < count else 0.0)
                if size <= enough or not _normal(x, basis, count, d, down):
                    break
                j = _farthest(scores, x, own, columns, i, n, free, keys, across, d, down)
                margin = element(scores, j)
                if margin > best:
                    best = margin
                    for k in range(d):
                        put(query, i * d + k, -element(x, k))
                if size - margin <= _ROUNDING * d:
                    break
        rows, columns = at(rows, across * down), at(columns, d * across)
        query, support = at(query, n * d), at(support, n * (d + 1))
        weights = at(weights, n * (d + 1))
