"""Where orbits end, and how much of the space of starts ends where.

Every start is followed until it settles (doubling the depth each time it has not); its limit set
has a rank and a type. Shares over random starts come with exact binomial (Clopper and Pearson)
confidence intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dynsim._values import real_array, whole
from dynsim.measures import singular_values
from dynsim.network import tokens
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.jacobian import image, linearise
from dynsim.simulation import Record, simulate

__all__ = ["TYPES", "Basins", "LimitSets", "basins", "circle_pairs", "limit_sets"]

#: x' = x; x' = -x; x'' = x; none of these, with and without a positive Lyapunov exponent.
TYPES = ("fixed", "sign flip", "period 2", "rotating", "chaotic")
#: An orbit has settled when its entries move by less than this.
_STILL = 1e-6
_FIRST_LOOK = 64
#: A largest Lyapunov exponent above this is chaos; rotations show 0 and averages of 1500 scatter.
_CHAOTIC = 0.02
#: States for which a derivative is taken at once.
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class LimitSets:
    """rank (S,), type (S,) as an index into TYPES, depth (S,) at which it had settled; final."""

    rank: np.ndarray
    type: np.ndarray
    depth: np.ndarray
    final: np.ndarray


def limit_sets(
    dynamics: AttentionDynamics,
    x0: np.ndarray,
    *,
    depth: int = 4096,
    rank_tolerance: float = 1e-2,
    progress: Callable[[float], None] | None = None,
) -> LimitSets:
    """The limit set of the orbit of every start x0, (samples, N, d).

    Looks at depths 64, 128, 256, ... up to `depth`. Fixed, flipping and period-2 orbits are taken
    as such when they repeat to 1e-6; algebraic convergence counts. What never settles is chaotic
    when its largest Lyapunov exponent over 1500 more layers is above 0.02, else rotating. The rank
    counts singular values above `rank_tolerance` of the largest.

    Raises ValueError when the layers differ, or the starts cannot be states.
    """
    from dynsim.equilibria.stability import check_equilibria_possible

    check_equilibria_possible(dynamics)
    depth = whole("depth", depth, least=_FIRST_LOOK)
    final = real_array("tokens", x0).copy()
    kind = np.full(len(final), -1)
    settled = np.full(len(final), depth)
    moving, at = np.arange(len(final)), 0
    while len(moving) and at < depth:
        layers = min(max(at, _FIRST_LOOK), depth - at)
        run = simulate(dynamics, final[moving], layers, record=Record(measures=()))
        at += layers
        final[moving] = run.final
        kind[moving] = _repeats(dynamics, run.final)
        settled[moving[kind[moving] >= 0]] = at
        moving = moving[kind[moving] < 0]
        if progress is not None:
            progress(max(at / depth, 1 - len(moving) / len(final)))
    for some in np.split(moving, range(_AT_ONCE, len(moving), _AT_ONCE)):
        if len(some):
            chaotic = _largest_exponent(dynamics, final[some]) > _CHAOTIC
            kind[some] = np.where(chaotic, TYPES.index("chaotic"), TYPES.index("rotating"))
    sigma = singular_values(final)
    rank = np.sum(sigma > rank_tolerance * sigma[:, :1], axis=1)
    return LimitSets(rank, kind, settled, final)


def _repeats(dynamics, x) -> np.ndarray:
    """Index into TYPES of how each state repeats, -1 where it does not."""
    once = image(dynamics, x)
    twice = image(dynamics, once)
    kind = np.full(len(x), -1)
    for k, (after, before) in enumerate(((once, x), (once, -x), (twice, x))):
        still = np.abs(after - before).max(axis=(1, 2)) < _STILL
        kind[still & (kind < 0)] = k
    return kind


def _largest_exponent(dynamics, x, layers: int = 1500, discard: int = 200) -> np.ndarray:
    """The largest Lyapunov exponent of each orbit, from one tangent vector each."""
    rng = np.random.default_rng(0)
    v = rng.standard_normal(x.shape)
    total = np.zeros(len(x))
    for t in range(discard + layers):
        x, slope = linearise(dynamics, x)
        v = np.einsum("siajb,sjb->sia", slope, v)
        size = np.linalg.norm(v, axis=(1, 2), keepdims=True)
        v = v / np.maximum(size, 1e-300)
        if t >= discard:
            total += np.log(np.maximum(size[:, 0, 0], 1e-300))
    return total / layers


@dataclass(frozen=True, eq=False)
class Basins:
    """Shares of the starts by (rank, type): {"rank", "type", "count", "share", "low", "high",
    "median_depth"}, the interval of 95% confidence; and all limit sets."""

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
    **options,
) -> Basins:
    """Shares of starts by where they end.

    x0 : array (samples, N, d) or int
        The starts, or how many to draw uniformly on the spheres, of dimension `dim`.
    options : those of `limit_sets`
    """
    from scipy.stats import binomtest

    if isinstance(x0, (int, np.integer)):
        d = dynamics.weights.dim or dim
        if d is None:
            raise ValueError("these weights fit any dimension; say which, dim=D")
        x0 = tokens.sphere(x0, dynamics.n_tokens, d, seed)
    limits = limit_sets(dynamics, x0, **options)
    rows = []
    for rank in np.unique(limits.rank):
        for k, name in enumerate(TYPES):
            mine = (limits.rank == rank) & (limits.type == k)
            if count := int(mine.sum()):
                interval = binomtest(count, len(mine)).proportion_ci(method="exact")
                rows.append(
                    {
                        "rank": int(rank),
                        "type": name,
                        "count": count,
                        "share": count / len(mine),
                        "low": float(interval.low),
                        "high": float(interval.high),
                        "median_depth": float(np.median(limits.depth[mine])),
                    }
                )
    return Basins(rows, limits)


def circle_pairs(n: int) -> np.ndarray:
    """Pairs of tokens on the unit circle, all n x n pairs of angles: (n * n, 2, 2).

    Entry [i * n + j] has token 1 at angle 2 pi (i + 1/4) / n and token 2 at 2 pi (j + 1/2) / n: the
    starts of a picture of the basins of two tokens in the plane (WU, Fig. 1 and 5). None are
    opposite, where the average is 0 and has no direction.
    """

    def points(shift):
        angle = 2 * np.pi * (np.arange(n) + shift) / n
        return np.stack([np.cos(angle), np.sin(angle)], axis=-1)

    return np.stack([np.repeat(points(0.25), n, axis=0), np.tile(points(0.5), (n, 1))], axis=1)
