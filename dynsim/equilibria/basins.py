"""Where orbits end, and how much of the space of starts ends where.

Every start is followed until it settles (doubling the depth each time it has not); its limit set
has a rank and a type. Shares over random starts come with exact binomial (Clopper and Pearson)
confidence intervals.

Whether an orbit that never settles is chaotic is told by its largest Lyapunov exponent, which takes
many times as long as following it. It is therefore taken for a sample of such orbits of each
rank, and the shares of rotating and chaotic ones are estimated from that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dynsim._memory import require_memory
from dynsim._seeds import TOKENS, stream
from dynsim._values import real_array, whole
from dynsim.equilibria.lyapunov import largest_exponents
from dynsim.equilibria.stability import check_equilibria_possible
from dynsim.measures import SETTLED_RTOL, numerical_rank, singular_values
from dynsim.network import tokens
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.jacobian import image, jvp
from dynsim.simulation import Record, simulate

if TYPE_CHECKING:
    from typing import Any

__all__ = ["TYPES", "Basins", "LimitSets", "Stopped", "basins", "circle_pairs", "limit_sets"]

#: x' = x; x' = -x; x'' = x; none of these, with no positive Lyapunov exponent; with one; and none
#: of these, with an exponent that was not taken.
TYPES = ("fixed", "sign flip", "period 2", "rotating", "chaotic", "unsettled")
_ROTATING, _CHAOTIC, _UNSETTLED = (TYPES.index(n) for n in ("rotating", "chaotic", "unsettled"))
#: An orbit has settled when its entries move by less than this.
_STILL = 1e-6
_FIRST_LOOK = 64
#: Starts that are followed together, and are lost together to Ctrl-C.
_BLOCK = 1024
#: States whose exponents are taken at once, and layers that one takes.
_AT_ONCE, _AVERAGED, _DISCARDED = 64, 1500, 200


@dataclass(frozen=True, eq=False)
class LimitSets:
    """rank (S,), type (S,) as an index into TYPES, depth (S,) at which it had settled; final."""

    rank: np.ndarray
    type: np.ndarray
    depth: np.ndarray
    final: np.ndarray

    @property
    def settled(self) -> np.ndarray:
        """True for a start whose orbit repeats: fixed, sign flip or period 2, (S,)."""
        return self.type < _ROTATING


class Stopped(KeyboardInterrupt):
    """Ctrl-C came. `limits` are those of the first starts, as many as were followed to the end;
    `basins` their shares. Both are None when there are none."""

    limits: LimitSets | None = None
    basins: Basins | None = None


def limit_sets(
    dynamics: AttentionDynamics,
    x0: np.ndarray,
    *,
    depth: int = 4096,
    rtol: float = SETTLED_RTOL,
    exponents: int | None = 64,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> LimitSets:
    """The limit set of the orbit of every start x0, (samples, N, d).

    Looks at depths 64, 128, 256, ... up to `depth`. Fixed, flipping and period-2 orbits are taken
    as such when they repeat to 1e-6; algebraic convergence counts. What never settles is chaotic
    when its largest Lyapunov exponent over 1500 more layers is positive by more than its error
    (`dynsim.lyapunov.error_of_mean`), else rotating; unsettled where no exponent was taken.

    Parameters
    ----------
    depth : int
        Layers to follow a start for, at most; at least 64.
    rtol : float
        Of the rank, as in `dynsim.measures.numerical_rank`.
    exponents : int, optional
        How many starts of each rank, of those that never settle, have their exponent taken; all
        when None. They are chosen at random, by the seed and the number of starts alone.
    seed : int
        Of that choice.
    progress : callable, optional
        Called with the share of the work that is done, 0 to 1, as estimated from the time so far.

    Returns
    -------
    LimitSets
        Start by start.

    Raises
    ------
    ValueError
        When the layers differ, or the starts cannot be states.
    Stopped
        (a KeyboardInterrupt) on Ctrl-C; its `limits` are those of the starts done.

    Examples
    --------
    >>> from dynsim import masks
    >>> from dynsim.network import norms, weights
    >>> layer = AttentionDynamics(masks.complete(2), weights.Diagonal((-2.0, 1.0)), norms.Unit())
    >>> ends = limit_sets(layer, tokens.sphere(3, 2, 2))
    >>> ends.rank, [TYPES[k] for k in ends.type]
    (array([1, 1, 1]), ['sign flip', 'sign flip', 'sign flip'])
    """
    check_equilibria_possible(dynamics)
    x = real_array("tokens", x0)
    if x.ndim != 3 or not x.size:
        raise ValueError(f"starts are an array (samples, N, d), none of them 0; got {x.shape}")
    dynamics.check_tokens(x)
    return _limit_sets(
        dynamics, len(x), lambda first, number: x[first : first + number],
        depth=depth, rtol=rtol, exponents=exponents, seed=seed, progress=progress,
    )  # fmt: skip


def _limit_sets(
    dynamics: AttentionDynamics,
    starts: int,
    some: Callable[[int, int], np.ndarray],
    *,
    depth: int = 4096,
    rtol: float = SETTLED_RTOL,
    exponents: int | None = 64,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> LimitSets:
    """`limit_sets` of so many starts, of which some(first, number) are asked for as they come."""
    depth = whole("depth", depth, least=_FIRST_LOOK)
    exponents = starts if exponents is None else whole("number of exponents", exponents, least=0)
    order = stream(seed, TOKENS, starts).permutation(starts)
    work = _Work(dynamics, starts, some(0, min(starts, _AT_ONCE)), depth, exponents, progress)
    ends, blocks = None, []
    try:
        for first in range(0, starts, _BLOCK):
            x = some(first, min(_BLOCK, starts - first))
            blocks.append(_followed(dynamics, x, depth, rtol, work))
        ends = _joined(blocks)
        _tell_chaos(dynamics, ends, order, exponents, work)
    except KeyboardInterrupt:
        ends = ends or (_joined(blocks) if blocks else None)
        done = 0 if ends is None else len(ends.rank)
        stopped = Stopped(f"stopped after {done} of {starts} starts")
        stopped.limits = ends
        raise stopped from None
    return ends


def _followed(
    dynamics: AttentionDynamics, x0: np.ndarray, depth: int, rtol: float, work: _Work
) -> LimitSets:
    """The limit sets of some starts; unsettled where they are none of the first three types."""
    final = x0.copy()
    kind = np.full(len(final), _UNSETTLED)
    settled = np.full(len(final), depth)
    moving, at = np.arange(len(final)), 0
    work.begin_block(len(final))
    while len(moving) and at < depth:
        layers = min(max(at, _FIRST_LOOK), depth - at)
        run = simulate(
            dynamics, final[moving], layers, record=Record(measures=()),
            progress=partial(work.ahead, at),
        )  # fmt: skip
        at += layers
        final[moving] = run.final
        kind[moving] = _repeats(dynamics, run.final)
        settled[moving[kind[moving] != _UNSETTLED]] = at
        moving = moving[kind[moving] == _UNSETTLED]
        work.still(len(moving))
    work.end_block()
    return LimitSets(numerical_rank(singular_values(final), rtol), kind, settled, final)


def _joined(blocks: list[LimitSets]) -> LimitSets:
    names = [field.name for field in fields(LimitSets)]
    return LimitSets(*(np.concatenate([getattr(b, name) for b in blocks]) for name in names))


def _tell_chaos(
    dynamics: AttentionDynamics, ends: LimitSets, order: np.ndarray, exponents: int, work: _Work
) -> None:
    """Writes into `ends` which of the unsettled are rotating and which chaotic: of each rank the
    first so many in `order`."""
    unsettled = order[ends.type[order] == _UNSETTLED]
    ranks = np.unique(ends.rank[unsettled])
    chosen = [unsettled[ends.rank[unsettled] == rank][:exponents] for rank in ranks]
    work.begin_exponents(sum(map(len, chosen)))
    for of_rank in chosen:
        for some in np.split(of_rank, range(_AT_ONCE, len(of_rank), _AT_ONCE)):
            if len(some):
                value, error = largest_exponents(dynamics, ends.final[some], _AVERAGED, _DISCARDED)
                ends.type[some] = np.where(value > error, _CHAOTIC, _ROTATING)
                work.exponents_taken(len(some))


def _repeats(dynamics: AttentionDynamics, x: np.ndarray) -> np.ndarray:
    """Index into TYPES of how each state repeats; that of unsettled where it does not."""
    once = image(dynamics, x)
    twice = image(dynamics, once)
    kind = np.full(len(x), _UNSETTLED)
    for k, (after, before) in enumerate(((once, x), (once, -x), (twice, x))):
        still = np.abs(after - before).max(axis=(1, 2)) < _STILL
        kind[still & (kind == _UNSETTLED)] = k
    return kind


class _Work:
    """How much of the work is done: for the estimate of the time that is left.

    In units of one start's layer. What is still to come of a start is taken to be what the average
    start before it took, and all of `depth` in the first block, where none is known.
    """

    def __init__(
        self,
        dynamics: AttentionDynamics,
        starts: int,
        some: np.ndarray,
        depth: int,
        exponents: int,
        progress: Callable[[float], None] | None,
    ) -> None:
        self.starts, self.depth, self.exponents = starts, depth, exponents
        self.progress = progress or (lambda share: None)
        self.done, self.followed, self.block, self.moving, self.layer = 0.0, 0, 0, 0, 0
        self.unsettled, self.shown = 0, 0.0
        self.seconds = _seconds_of_exponent(dynamics, some) if progress else 0.0
        self.begun = time.perf_counter()

    def begin_block(self, starts: int) -> None:
        self.block = self.moving = starts
        self.layer = 0

    def ahead(self, before: int, layers: int) -> None:
        """All starts that still move have passed `layers` beyond the first `before`."""
        layer = before + layers
        self.done += self.moving * (layer - self.layer)
        self.layer = layer
        self._show()

    def still(self, moving: int) -> None:
        self.moving = moving
        self._show()

    def end_block(self) -> None:
        self.unsettled += self.moving
        self.followed += self.block
        self.block = self.moving = 0

    def begin_exponents(self, number: int) -> None:
        self.unsettled = self.exponents = number

    def exponents_taken(self, number: int) -> None:
        self.unsettled -= number
        self._show()

    def _show(self) -> None:
        spent = time.perf_counter() - self.begun
        each = self.done / self.followed if self.followed else self.depth
        layers: float = self.moving * (self.depth - self.layer)
        layers += (self.starts - self.followed - self.block) * each
        exponents = min(self.exponents, self.unsettled + self.moving)
        left = layers * spent / max(self.done, 1.0) + exponents * self.seconds
        self.shown = max(self.shown, spent / max(spent + left, 1e-9))
        self.progress(self.shown)


def _seconds_of_exponent(dynamics: AttentionDynamics, some: np.ndarray) -> float:
    """How long one start's exponent takes among so many."""
    jvp(dynamics, some, some)  # the first call reads weights and mask
    begun = time.perf_counter()
    jvp(dynamics, some, some)
    return (time.perf_counter() - begun) * (_AVERAGED + _DISCARDED) / len(some)


@dataclass(frozen=True, eq=False)
class Basins:
    """Shares of the starts by rank and type of limit set.

    rows : list of dict
        {"rank", "type", "count", "share", "low", "high", "median_depth", "sampled"}, with the
        interval of 95% confidence of the share from "low" to "high". "sampled" is None where every
        start was counted. Where exponents were taken of a sample of the starts of a rank that never
        settle, it is the size of the sample; count, share and interval are then estimates, the
        interval with 97.5% for either of the two shares that it multiplies.
    limits : LimitSets
        Those of all starts.
    """

    rows: list[dict]
    limits: LimitSets

    def share(self, rank: int) -> float:
        """Of the starts that end at this rank, of whatever type."""
        return sum(row["share"] for row in self.rows if row["rank"] == rank)


def basins(
    dynamics: AttentionDynamics,
    x0: np.ndarray | int,
    *,
    dim: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Basins:
    """Shares of starts by where they end.

    Parameters
    ----------
    x0 : array (samples, N, d) or int
        The starts, or how many to draw uniformly on the spheres, of dimension `dim`.
    seed : int
        Of the draw, and of the choice of starts whose exponents are taken.
    options
        Those of `limit_sets`.

    Raises
    ------
    ValueError
        When the layers differ, the starts cannot be states, or the dimension is open.
    MemoryError
        When this machine cannot hold so many starts.
    Stopped
        (a KeyboardInterrupt) on Ctrl-C; its `basins` count the starts done.

    Examples
    --------
    >>> from dynsim.equilibria import jordan_dynamics
    >>> shares = basins(jordan_dynamics(2, 2.0), 200)
    >>> [(row["rank"], row["type"], row["count"]) for row in shares.rows]
    [(1, 'fixed', 183), (2, 'fixed', 17)]
    """
    try:
        if isinstance(x0, (int, np.integer)):
            check_equilibria_possible(dynamics)
            n, d = dynamics.n_tokens, _dimension(dynamics, x0, dim)
            dynamics.check_tokens(tokens.sphere(1, n, d, seed))

            def drawn(first: int, number: int) -> np.ndarray:
                return tokens.sphere(number, n, d, seed, first)

            limits = _limit_sets(dynamics, int(x0), drawn, seed=seed, **options)
        else:
            limits = limit_sets(dynamics, x0, seed=seed, **options)
    except Stopped as stopped:
        if stopped.limits is not None:
            stopped.basins = Basins(_rows(stopped.limits), stopped.limits)
        raise
    return Basins(_rows(limits), limits)


def _dimension(dynamics: AttentionDynamics, starts: int, dim: int | None) -> int:
    """Of the tokens of so many starts, which this machine can hold."""
    starts, n, d = whole("number of starts", starts, least=1), dynamics.n_tokens, dim
    if dynamics.weights.dim is not None:
        d = dynamics.weights.dim
        if dim is not None and whole("dimension", dim, least=1) != d:
            raise ValueError(f"these weights are for dimension {d}; got dim={dim}; leave it out")
    if d is None:
        raise ValueError("these weights fit any dimension; say which, dim=D")
    d = whole("dimension", d, least=1)
    what = f"{starts} starts of {n} tokens of dimension {d}, and where they end"
    require_memory(8.0 * starts * (4 * n * d + 8), what, "use fewer starts")
    return d


def _rows(limits: LimitSets) -> list[dict]:
    rows = []
    for rank in np.unique(limits.rank):
        mine = limits.rank == rank
        judged = mine & np.isin(limits.type, (_ROTATING, _CHAOTIC))
        unsettled = mine & (judged | (limits.type == _UNSETTLED))
        estimated = judged.any() and judged.sum() < unsettled.sum()
        for k, name in enumerate(TYPES):
            of_type = mine & (limits.type == k)
            if not of_type.any() or (estimated and k == _UNSETTLED):
                continue
            if estimated and k in (_ROTATING, _CHAOTIC):
                shares = _estimate(unsettled, judged, of_type)
            else:
                shares = _counted(of_type)
            depth = float(np.median(limits.depth[of_type]))
            rows.append({"rank": int(rank), "type": name, **shares, "median_depth": depth})
    return rows


def _counted(mine: np.ndarray) -> dict:
    count, total = int(mine.sum()), len(mine)
    low, high = _interval(count, total, 0.95)
    return {"count": count, "share": count / total, "low": low, "high": high, "sampled": None}


def _estimate(unsettled: np.ndarray, judged: np.ndarray, mine: np.ndarray) -> dict:
    """The share of the unsettled times the share of one type among those of them judged."""
    (n, total), (k, sampled) = (int(unsettled.sum()), len(unsettled)), (mine.sum(), judged.sum())
    k, sampled = int(k), int(sampled)
    whole_, part = _interval(n, total, 0.975), _interval(k, sampled, 0.975)
    share = n / total * k / sampled
    return {
        "count": round(share * total),
        "share": share,
        "low": whole_[0] * part[0],
        "high": whole_[1] * part[1],
        "sampled": sampled,
    }


def _interval(count: int, total: int, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's."""
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def circle_pairs(n: int) -> np.ndarray:
    """Pairs of tokens on the unit circle, all n x n pairs of angles: (n * n, 2, 2).

    Entry [i * n + j] has token 1 at angle 2 pi (i + 1/4) / n and token 2 at 2 pi (j + 1/2) / n: the
    starts of a picture of the basins of two tokens in the plane (WU, Fig. 1 and 5). None are
    opposite, where the average is 0 and has no direction.

    Raises ValueError unless n is a whole number of at least 1, MemoryError for more than fit.
    """
    n = whole("number of angles", n, least=1)
    require_memory(64.0 * n * n, f"{n} x {n} pairs of tokens", "use fewer angles")

    def points(shift: float) -> np.ndarray:
        angle = 2 * np.pi * (np.arange(n) + shift) / n
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    return np.stack([np.repeat(points(0.25), n, axis=0), np.tile(points(0.5), (n, 1))], axis=1)
