"""Which keys can win the attention argmax (BRODY, arXiv 2305.02582).

Key i is selectable when some query q has q . k_i > q . k_j for all j != i, that is, when k_i lies
outside the convex hull of the other keys. The distance to that hull decides, and has a witness
either way: a separating direction, the query k_i - x for the nearest point x of the hull, whose
margin is the distance; or convex weights that reproduce k_i, which show that there is none.

In floating-point numbers a key counts as selectable when a query of norm 1 wins by more than
`tolerance` times s, the largest distance of a key from the mean of the keys, and as unselectable
when convex weights of the others reproduce it to `tolerance` times s: the tolerance is 1e-12, for
float32 keys 1e-6. Every claim of the kernel is checked by numpy; what it leaves open, HiGHS (scipy)
decides, and a key that nothing is found to select is called unselectable. Equal keys are
unselectable, because neither wins alone.

So "selectable" is proved: in up to 1000 dimensions the tolerance is above all rounding.
"Unselectable" is not, where a key lies outside the hull by less than the tolerance, or a little
more in hulls that are thin; `undecided` says of which keys. It proves the others to lie in the
hull, by weights that stay positive under all rounding, or by weights in exact arithmetic.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynsim._threads import blas_alone, threads
from dynsim._values import real_array, real_number, whole
from dynsim.geometry.rational import nearest_to_zero
from dynsim.kernels.fields import HULL
from dynsim.kernels.processor import vector_width
from dynsim.kernels.record import Arguments, Scratch
from dynsim.kernels.table import KERNELS

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import ArrayLike

__all__ = [
    "Witness",
    "margins",
    "selectable",
    "undecided",
    "unselectable_fraction",
    "witness",
]

_nearest = KERNELS["hull.nearest"]
#: Numbers in the table of margins of the sets that are decided together.
_AT_ONCE = 2**18
_VECTOR = vector_width(64)
_EPS = float(np.finfo(np.float64).eps)
#: Numbers in the table of the exact method, at most.
_EXACT = 10_000


def selectable(
    keys: ArrayLike,
    biases: ArrayLike | None = None,
    *,
    gap: float = 0.0,
    bound: float | None = None,
    tolerance: float | None = None,
) -> np.ndarray:
    """True for each key that can win the argmax: keys (..., n, d) -> bool (..., n).

    There is a query with q . k_i + b_i > q . k_j + b_j + gap for all j != i.

    Parameters
    ----------
    keys : array (..., n, d)
    biases : array (..., n), optional
        b, added to the scores of each key (as the query's bias does in real attention); zeros.
    gap : float
        By how much the key must win. Without a bound any gap can be had by scaling the query.
    bound : float, optional
        Largest |entry| of the query.
    tolerance : float, optional
        See the head of this module.

    Raises
    ------
    ValueError
        For keys that are not finite numbers of two axes or more, or options that do not fit.

    Examples
    --------
    The middle of three keys on a line never wins, unless it has a bias.

    >>> selectable([[0.0], [1.0], [2.0]])
    array([ True, False,  True])
    >>> selectable([[0.0], [1.0], [2.0]], biases=[0.0, 0.5, 0.0])
    array([ True,  True,  True])
    """
    system = _system(keys, biases, gap, bound, tolerance)
    return system.decide(early=True).margin > system.tolerance


def unselectable_fraction(hidden_states: ArrayLike, **options: Any) -> np.ndarray:
    """The share of keys that no query selects: hidden states (..., n, d) -> (...).

    BRODY's tables take the hidden states of a layer, before or after its LayerNorm, as keys: the
    linear map to keys (if it is invertible) does not change what is selectable. `options` are those
    of `selectable`, and so are the errors; keys that are `undecided` count as unselectable.

    >>> float(unselectable_fraction([[0.0], [1.0], [2.0], [3.0]]))
    0.5
    """
    return 1.0 - selectable(hidden_states, **options).mean(axis=-1)


def undecided(
    keys: ArrayLike,
    biases: ArrayLike | None = None,
    *,
    gap: float = 0.0,
    bound: float | None = None,
    tolerance: float | None = None,
) -> np.ndarray:
    """True for each key whose answer by `selectable`, asked the same, is not proved: (..., n).

    All other answers are true in exact arithmetic of these very numbers. A key is undecided when
    rounding, or the tolerance, decides: mostly because it lies outside the hull of the others by
    less than the tolerance. Keys for which rounding cannot tell are decided in integers as long as
    n (d + 1) is at most 10^4, and are undecided beyond that.

    Slower than `selectable`: a (d + 1) x (d + 1) system a key, milliseconds where integers decide.
    Options and errors are those of `selectable`.

    >>> keys = [[0.0], [1.0], [1.0 + 2**-50]]
    >>> selectable(keys), undecided(keys)  # the last key wins, but by less than the tolerance
    (array([ True, False, False]), array([False, False,  True]))
    """
    system = _system(keys, biases, gap, bound, tolerance)
    decision = system.decide(early=True)
    margin = decision.margin.reshape(len(system.rows), system.n)
    doubtful = margin <= _rounding(system.d)
    lost = np.argwhere(margin <= system.tolerance)
    proved = system.surely_inside(lost, decision.support, decision.weights)
    doubtful[tuple(lost.T)] = ~proved
    if system.n * (system.d + 1) <= _EXACT:
        points = np.asarray(keys, np.float64).reshape(len(doubtful), system.n, -1)
        lift = None if biases is None else np.asarray(biases, np.float64).reshape(points.shape[:2])
        for s, i in np.argwhere(doubtful):
            first = decision.support[s, i, decision.weights[s, i] > 0]
            b = None if lift is None else lift[s]
            _, vectors = _vectors_of(points[s], i, first, b, gap, bound)
            wins = any(_combination(nearest_to_zero(vectors), vectors))
            doubtful[s, i] = wins != (margin[s, i] > system.tolerance)
    return doubtful.reshape(decision.margin.shape)


def _vectors_of(
    points: np.ndarray,
    i: int,
    first: np.ndarray,
    biases: np.ndarray | None = None,
    gap: float = 0.0,
    bound: float | None = None,
) -> tuple[list[int], list[list[Fraction]]]:
    """What a query must have positive products with for key i to win, exactly; and the other keys
    in the order in which they are taken: those numbered `first` come first.

    Without biases, gap and bound these are k_i - k_j; else (k_i - k_j, b_i - b_j - gap), (0, 1) and
    (+-e_c, bound), for the query (u, v), v > 0.
    """
    exact = [[Fraction(x) for x in point] for point in points.tolist()]
    n, d = points.shape
    others = [*(j for j in first.tolist() if j < n), *range(n)]
    others = [j for j in dict.fromkeys(others) if j != i]
    vectors = [[a - b for a, b in zip(exact[i], exact[j], strict=True)] for j in others]
    if biases is None and gap == 0.0 and bound is None:
        return others, vectors
    b = [Fraction(x) for x in np.zeros(n).tolist()] if biases is None else biases.tolist()
    for j, vector in zip(others, vectors, strict=True):
        vector.append(Fraction(b[i]) - Fraction(b[j]) - Fraction(float(gap)))
    vectors.append([Fraction(0)] * d + [Fraction(1)])
    if bound is not None:
        for c in range(d):
            for sign in (1, -1):
                wall = [Fraction(sign * (k == c)) for k in range(d)]
                vectors.append([*wall, Fraction(float(bound))])
    return others, vectors


def margins(keys: ArrayLike, *, tolerance: float | None = None) -> np.ndarray:
    """How far each key is from changing sides: keys (..., n, d) -> (..., n).

    max over ||q|| = 1 of min over j != i of q . (k_i - k_j). For a selectable key that is its
    distance to the hull of the others, and a query of norm B wins by at most B times that. For an
    unselectable key it is minus the least distance by which the key must move to become selectable,
    its depth below the facets of the hull; these are enumerated, in up to 8 dimensions. The error
    is at most the tolerance times s (head of this module): a query and weights bound each distance
    from both sides. Where these disagree, as in hulls that are thin, exact arithmetic decides; but
    a margin is only the lower bound when n (d + 1) is above 10^4.

    Raises ValueError for unselectable keys of higher dimension, and for keys whose distances are
    above the largest float.

    >>> margins([[0.0], [1.0], [5.0]])
    array([ 1., -1.,  4.])
    """
    system = _system(keys, tolerance=tolerance)
    decision = system.decide(early=False)
    outside = decision.margin
    if not np.isfinite(system.unit).all():
        raise ValueError("margins of keys this large overflow; divide the keys by 4")
    lost = outside <= system.tolerance
    shape, d = np.shape(keys)[:-1], system.d
    if lost.any() and d > _FACETS_UP_TO:
        raise ValueError(
            f"how deep unselectable keys lie is found in up to {_FACETS_UP_TO} dimensions; got "
            f"{d}; use selectable, or project the keys"
        )
    sets = system.rows[:, : system.n, :d]
    flat = outside.reshape(len(sets), -1)
    if system.n * (d + 1) <= _EXACT:
        exact = np.asarray(keys, np.float64).reshape(sets.shape)
        for s, i in system.loose(decision):
            flat[s, i] = _exact_distance(exact[s], i, decision.support[s, i], system.unit[s])
        lost = outside <= system.tolerance
    for points, margin, inside in zip(sets, flat, lost.reshape(flat.shape), strict=True):
        if inside.any():
            margin[inside] = -_depths(points, points[inside], system.tolerance)
    return (flat * system.unit[:, None]).reshape(shape)


def _combination(weights: list[Fraction], vectors: list[list[Fraction]]) -> list[Fraction]:
    """sum_j w_j a_j"""
    return [sum(w * x for w, x in zip(weights, entries, strict=True) if w)
            for entries in zip(*vectors, strict=True)]  # fmt: skip


def _exact_distance(points: np.ndarray, i: int, first: np.ndarray, unit: float) -> float:
    """Of key i from the hull of the others, in units: right to rounding, and 0 only in the hull."""
    _, vectors = _vectors_of(points, i, first)
    nearest = _combination(nearest_to_zero(vectors), vectors)
    return float(sum(x * x for x in nearest) / Fraction(unit) ** 2) ** 0.5


def _depths(points: np.ndarray, inside: np.ndarray, tolerance: float) -> np.ndarray:
    """Distances of points in the hull of `points` to its surface; 0 if the hull is flat."""
    from scipy.spatial import ConvexHull

    d = points.shape[1]
    if np.linalg.matrix_rank(points - points.mean(axis=0), tol=tolerance) < d:
        return np.zeros(len(inside))
    if d == 1:
        return np.minimum(inside - points.min(), points.max() - inside)[:, 0]
    facets = ConvexHull(points).equations
    return np.maximum(-(inside @ facets[:, :d].T + facets[:, d]).max(axis=1), 0.0)


@dataclass(frozen=True, eq=False)
class Witness:
    """Why key number `key` is selectable, or is not: one of the two that follow, None the other.

    query : (d,) or None
        A separating direction: a query of norm 1 for which the key wins.
    weights : (n,) or None
        Convex weights of the other keys, at most d + 1 of them, that reproduce the key: to the
        tolerance, unless it is `undecided`.
    """

    key: int
    query: np.ndarray | None
    weights: np.ndarray | None

    def margin(self, keys: np.ndarray) -> float:
        """By how much the query wins, or minus the distance of what the weights reproduce."""
        apart = keys[self.key] - np.delete(keys, self.key, axis=0)
        if self.query is not None:
            return float(np.min(apart @ self.query, initial=np.inf))
        assert self.weights is not None  # one of the two is there
        return -float(np.linalg.norm(np.delete(self.weights, self.key) @ apart))


def witness(keys: ArrayLike, key: int, *, tolerance: float | None = None) -> Witness:
    """The reason for what `selectable` says of key number `key` of keys (n, d), n > 1.

    A query q with q . k_i > q . k_j for all j != i, or weights w_j >= 0 with sum 1 and
    k_i = sum_j w_j k_j: by the theorem on separating hyperplanes one of the two exists.

    Raises ValueError for a key that is not there, for fewer than two, and for what `selectable`
    refuses.

    >>> witness([[0.0], [1.0], [4.0]], 1).weights
    array([0.75, 0.  , 0.25])
    >>> witness([[0.0], [1.0], [4.0]], 2).query
    array([1.])
    """
    system = _system(keys, tolerance=tolerance)
    if np.ndim(keys) != 2 or system.n < 2:
        raise ValueError(f"a witness is about keys (n, d), n > 1; got shape {np.shape(keys)}")
    if not 0 <= whole("number of the key", key, least=0) < system.n:
        raise ValueError(f"there are the keys 0..{system.n - 1}; got {key}")
    decision = system.decide(early=False)
    if decision.margin[key] > system.tolerance:
        query = decision.query[0, key]
        return Witness(key, query / np.linalg.norm(query), None)
    weights, support = np.zeros(system.n), decision.support[0, key]
    np.add.at(weights, support, decision.weights[0, key])
    off = system.distance(system.rows, np.array([[0, key]]), decision.support, decision.weights)
    if off > system.tolerance and system.n * (system.d + 1) <= _EXACT:
        others, vectors = _vectors_of(np.asarray(keys, np.float64), key, support)
        weights[:] = 0.0
        weights[others] = [float(w) for w in nearest_to_zero(vectors)]
    return Witness(key, None, weights)


# --- the system of inequalities -------------------------------------------------------------------

#: Dimensions up to which all facets of a hull can be listed.
_FACETS_UP_TO = 8


class _Decision(NamedTuple):
    """margin (..., n) verified, of query (S, n, D); support and weights (S, n, D + 1)."""

    margin: np.ndarray
    query: np.ndarray
    support: np.ndarray
    weights: np.ndarray


class _System(NamedTuple):
    """Is there a u with u . (p_i - step - p_j) > 0 for all j != i, and u . f < 0?

    Points p_j and directions f are rows (S, keys + free, down) in units of the largest point; the
    n points are padded with zeros to `keys` rows, and all rows to `down` coordinates.
    """

    shape: tuple[int, ...]
    rows: np.ndarray
    step: np.ndarray
    n: int
    free: int
    keys: int
    d: int
    unit: np.ndarray
    tolerance: float

    def decide(self, early: bool) -> _Decision:
        """For every key the margin of a query that was checked, (lead, n), and what the kernel
        found; `early` ends each search as soon as one is above the tolerance."""
        sets = len(self.rows)
        size = max(1, _AT_ONCE // (self.n * self.rows.shape[1]))
        parts = [slice(s, s + size) for s in range(0, sets, size)]
        with blas_alone(), ThreadPoolExecutor(threads()) as pool:
            decided = list(pool.map(lambda part: self._part(self.rows[part], early), parts))
        margin, *rest = map(np.concatenate, zip(*decided, strict=True))
        return _Decision(margin.reshape(*self.shape, self.n), *rest)

    def _part(
        self, rows: np.ndarray, early: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`decide` for some of the sets."""
        sets, across, down = rows.shape
        n, d = self.n, self.d
        query = np.zeros((sets, n, d))
        support, weights = np.zeros((sets, n, d + 1), np.int64), np.zeros((sets, n, d + 1))
        columns = np.ascontiguousarray(rows[..., :d].swapaxes(1, 2))
        given = Arguments(
            HULL, np.float64, _VECTOR, sets=sets, n=n, d=d, free=self.free, keys=self.keys,
            across=across, down=down, early=early, enough=self.tolerance,
            rows=np.ascontiguousarray(rows), columns=columns, step=self.step, query=query,
            support=support, weights=weights, members=np.zeros(down, np.int64),
        )  # fmt: skip
        given.allocate(Scratch(), "job", 0)
        _nearest(given)
        margin = self._margin(rows, query)
        lost = np.argwhere(margin <= self.tolerance)
        far = self.distance(rows, lost, support, weights) > self.tolerance
        for key in lost[far]:
            s, i = key
            kernels = support[s, i].copy(), weights[s, i].copy()
            before = self.distance(rows, key[None], support, weights)
            self._ask_highs(rows[s], i, query[s], support[s], weights[s])
            margin[s, i] = self._margin(rows[s : s + 1], query[s : s + 1])[0, i]
            if self.distance(rows, key[None], support, weights) > before:
                support[s, i], weights[s, i] = kernels
        return margin, query, support, weights

    def _margin(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """min over j of u . (p_i - step - p_j) and of -u . f, for ||u|| = 1."""
        d, own = self.d, np.arange(self.n)
        scores = query @ rows[..., :d].swapaxes(1, 2)
        mine = scores[:, own, own] - query @ self.step[:d]
        margin = -scores
        margin[..., : self.n] += mine[..., None]
        margin[:, own, own] = np.inf
        margin[..., self.n : self.keys] = np.inf
        margin[..., self.keys + self.free :] = np.inf
        size = np.linalg.norm(query, axis=-1)
        return margin.min(axis=-1) / np.where(size > 0, size, 1.0)

    def distance(
        self, rows: np.ndarray, lost: np.ndarray, support: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """How far from 0 the convex combination of each key in `lost` is; inf if it is none."""
        s, i = lost.T
        places, shares = support[s, i], weights[s, i]
        apart = rows[s[:, None], places, : self.d]
        own = rows[s, i, : self.d] - self.step[: self.d]
        apart = apart - np.where(places[..., None] < self.n, own[:, None], 0.0)
        distance = np.linalg.norm(np.einsum("mk,mkd->md", shares, apart), axis=1)
        convex = (np.abs(shares.sum(axis=1) - 1) < 1e-12) & np.all(shares >= 0, axis=1)
        return np.where(convex & ~np.any((places == i[:, None]) & (shares > 0), axis=1),
                        distance, np.inf)  # fmt: skip

    def loose(self, decision: _Decision) -> np.ndarray:
        """(set, key) of the margins that the distance of the weights' point exceeds by more than
        the tolerance, as happens in thin hulls: (loose, 2)."""
        margin = decision.margin.reshape(len(self.rows), self.n)
        everyone = np.argwhere(np.isfinite(margin))
        distance = self.distance(self.rows, everyone, decision.support, decision.weights)
        return everyone[distance > np.maximum(margin[tuple(everyone.T)], 0.0) + self.tolerance]

    def surely_inside(
        self, lost: np.ndarray, support: np.ndarray, weights: np.ndarray
    ) -> np.ndarray:
        """For each (set, key) of `lost`: are its weights positive whatever the rounding? (lost,)

        With A the matrix of columns (a_j, 1), A w = e = (0, ..., 0, 1). Where X is nearly its
        inverse, r = ||1 - X A|| < 1, exact weights differ from w by ||X|| ||e - A w|| / (1 - r) at
        most. Rounding in A counts to r and to e - A w; norms are largest row sums.
        """
        size = self.d + 1
        step = max(1, _AT_ONCE // size**2)
        parts = [self._surely(lost[s : s + step], support, weights)
                 for s in range(0, len(lost), step)]  # fmt: skip
        return np.concatenate([np.zeros(0, bool), *parts])

    def _surely(self, lost: np.ndarray, support: np.ndarray, weights: np.ndarray) -> np.ndarray:
        s, i = lost.T
        places, w = support[s, i], weights[s, i]
        full = np.all(w > 0, axis=1)
        s, i, places, w = s[full], i[full], places[full], w[full]
        size = self.d + 1
        A = np.ones((len(s), size, size))  # rows are the columns (a_j, 1)
        own = (self.rows[s, i] - self.step)[:, None, : self.d]
        rows = self.rows[s[:, None], places, : self.d]
        A[..., : self.d] = rows - np.where(places[..., None] < self.n, own, 0.0)
        A = A.swapaxes(1, 2)
        blur = size * _rounding(self.d)  # of A, its largest row sum
        regular = np.linalg.cond(A) < 1e13
        A[~regular] = np.eye(size)
        X = np.linalg.inv(A)
        norm = np.abs(X).sum(axis=2).max(axis=1)
        r = np.abs(np.eye(size) - X @ A).sum(axis=2).max(axis=1) + norm * blur
        off = np.eye(size)[-1] - np.einsum("mkl,ml->mk", A, w)
        error = norm * (np.abs(off).max(axis=1) + blur * w.max(axis=1))
        sure = regular & (r < 0.5) & (w.min(axis=1) > 2 * error)
        proved = np.zeros(len(full), bool)
        proved[full] = sure
        return proved

    def _ask_highs(
        self, rows: np.ndarray, i: int, query: np.ndarray, support: np.ndarray, weights: np.ndarray
    ) -> None:
        """The query of largest margin with |entries| <= 1 and its dual weights, by HiGHS."""
        from scipy.optimize import linprog

        d = self.d
        places = np.array([*range(self.n), *range(self.keys, self.keys + self.free)])
        places = places[places != i]
        own = np.where(places[:, None] < self.n, rows[i, :d] - self.step[:d], 0.0)
        slopes = np.column_stack([rows[places, :d] - own, np.ones(len(places))])
        optimum = linprog(
            np.append(np.zeros(d), -1.0), A_ub=slopes, b_ub=np.zeros(len(places)),
            bounds=[(-1, 1)] * d + [(None, None)], method="highs-ds",
        )  # fmt: skip
        if optimum.status != 0:
            raise FloatingPointError(f"no decision about key {i}: HiGHS says {optimum.message}")
        query[i] = optimum.x[:d]
        shares = -optimum.ineqlin.marginals
        chosen = np.argsort(-shares, kind="stable")[: d + 1]
        support[i, : len(chosen)], support[i, len(chosen) :] = places[chosen], 0
        weights[i, : len(chosen)], weights[i, len(chosen) :] = shares[chosen], 0.0


def _rounding(d: int) -> float:
    """What rounding may add to a margin, in the points' unit: of the points, and of products."""
    return 4 * (d + 8) * _EPS


def _system(
    keys: ArrayLike,
    biases: ArrayLike | None = None,
    gap: float = 0.0,
    bound: float | None = None,
    tolerance: float | None = None,
) -> _System:
    """What `selectable` asks of its keys, checked and scaled.

    With biases, gap or bound there is a further entry v > 0 of the query: q = u / v is asked for,
    (u, v) . (k_i - k_j, b_i - b_j - gap) > 0, and |u_c| < bound v.
    """
    real_array("keys", keys)
    array = np.asarray(keys)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"keys are numbers (..., n, d); got {array.dtype} {array.shape}")
    if not np.all(np.isfinite(array)):
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"keys are finite; found {array[where]} at index {where}")
    if tolerance is None:
        tolerance = 1e-6 if array.dtype in (np.float16, np.float32) else 1e-12
    if not 1e-13 <= tolerance < 1:
        raise ValueError(f"the tolerance is a number in [1e-13, 1); got {tolerance}")
    if array.dtype.kind in "iu" and max(-int(array.min()), int(array.max())) > 2**53:
        raise ValueError("integer keys are up to 2^53 in size, as float64 holds; divide them")
    points, unit = _scaled(array.astype(np.float64).reshape(-1, *array.shape[-2:]))
    directions, step = np.zeros((len(points), 0, array.shape[-1])), np.zeros(array.shape[-1])
    if biases is not None or gap != 0.0 or bound is not None:
        points, directions, step = _lifted(points, unit, array.shape[:-1], biases, gap, bound)
    n, free, d = points.shape[1], directions.shape[1], points.shape[2]
    keys_up_to, down = _vectors(n), _vectors(d + 1)
    rows = np.zeros((len(points), keys_up_to + _vectors(free), down))
    rows[:, :n, :d] = points
    rows[:, keys_up_to : keys_up_to + free, :d] = directions
    return _System(
        array.shape[:-2], rows, np.append(step, np.zeros(down - d)), n, free, keys_up_to, d, unit,
        float(tolerance),
    )  # fmt: skip


def _vectors(size: int) -> int:
    """The next whole number of vectors."""
    return -(-size // _VECTOR) * _VECTOR


def _scaled(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points less their mean, in units of the largest; and the unit, 1 for equal points.

    Errors are relative to that unit, however far away the points lie: powers of two scale exactly,
    and a difference is rounded in its own last digit.
    """
    points, first = _near_one(points)
    points = points - points.mean(axis=1, keepdims=True)
    points, second = _near_one(points)
    unit = np.linalg.norm(points, axis=-1).max(axis=1)
    unit = np.where(unit > 0, unit, 1.0)
    with np.errstate(over="ignore"):
        return points / unit[:, None, None], np.ldexp(unit, first + second)


def _near_one(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of each set over a power of two, so that sums and squares stay finite; and which."""
    power = np.frexp(np.abs(points).max(axis=(1, 2)))[1]
    return np.ldexp(points, -power[:, None, None]), power


def _lifted(
    points: np.ndarray,
    unit: np.ndarray,
    shape: tuple[int, ...],
    biases: ArrayLike | None,
    gap: float,
    bound: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (k, b), directions that keep v > 0 and |u_c| < bound v, and the step (0, gap)."""
    b = np.zeros(shape) if biases is None else real_array("biases", biases)
    if b.shape != shape or not np.all(np.isfinite(b)):
        raise ValueError(f"biases are finite numbers, one for each key {shape}; got {b.shape}")
    gap = real_number("gap", gap)
    bound = None if bound is None else real_number("bound", bound)
    if not np.isfinite(gap) or (bound is not None and not (np.isfinite(bound) and bound > 0)):
        raise ValueError(f"gap is a number and bound a positive one; got {gap} and {bound}")
    sets, n, d = points.shape
    b, power = _near_one(b.reshape(sets, n, 1))
    if gap != 0.0:  # one unit for all sets, for they share the step
        b, power = np.ldexp(b, (power - power.max())[:, None, None]), np.full(sets, power.max())
        shrink = max(0, int(np.frexp(gap)[1]) - int(power[0]))
        b, power = np.ldexp(b, -shrink), power + shrink
    b = b - b.mean(axis=1, keepdims=True)
    step = np.append(np.zeros(d), np.ldexp(float(gap), -power[0]))
    directions = np.zeros((sets, 1, d + 1))
    directions[..., d] = -1.0
    if bound is not None:  # u is in units of 1 / unit, v of 2^-power: |u_c| < reach v
        with np.errstate(over="ignore", under="ignore"):
            reach = (bound * np.ldexp(unit, -power))[:, None]
        walls = np.zeros((sets, 2 * d, d + 1))
        walls[:, :, :d] = np.concatenate([np.eye(d), -np.eye(d)]) / np.hypot(1.0, reach)[..., None]
        walls[:, :, d] = -1.0 / np.hypot(1.0, 1.0 / np.maximum(reach, 1e-300))
        directions = np.concatenate([directions, walls], axis=1)
    return np.concatenate([points, b], axis=-1), directions, step
