"""What a search finds: equilibria with rank and stability, and how far to trust that it is all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dynsim.equilibria.stability import KINDS, Approach, Stability, Transient
from dynsim.measures import SOLVED_RTOL, numerical_rank, rank_is_sure, singular_values

__all__ = ["Equilibrium", "Search"]


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """One solution, representing its orbit under the symmetries of the dynamics.

    tokens : (N, d)
    turn : (d, d), x' = x turn: 1 for a fixed point, -1 for a sign flip, or a rotation
    residual : largest entry of |x' - x turn|
    stability : `dynsim.equilibria.stability.Stability`
    found : how many starts ended at this solution or one related by symmetry
    orbit : (size, N, d), all that symmetries (sign, automorphisms of the mask) make of it; where
        the layer commutes with rotations, one of each family that they make
    transient : `dynsim.equilibria.stability.Transient`, None unless it is stable
    basin_radius : measured; 0 where a multiplier leads away, None where not measured
    approach : `dynsim.equilibria.stability.Approach`, measured; None unless it is marginal
    """

    tokens: np.ndarray
    turn: np.ndarray
    residual: float
    stability: Stability
    found: int
    orbit: np.ndarray
    transient: Transient | None = None
    basin_radius: float | None = None
    approach: Approach | None = None

    @cached_property
    def singular_values(self) -> np.ndarray:
        return singular_values(self.tokens)

    @property
    def rank(self) -> int:
        """The numerical rank, with the tolerance SOLVED_RTOL."""
        return int(numerical_rank(self.singular_values, SOLVED_RTOL))

    @property
    def gap(self) -> float:
        """The smallest singular value that counts over the largest that does not."""
        counted, rest = np.split(self.singular_values, [self.rank])
        return float(counted[-1] / rest[0]) if len(rest) and rest[0] else np.inf

    @property
    def rank_is_sure(self) -> bool:
        """False where a singular value lies within a factor 100 of 1e-6 of the largest: the rank
        then depends on the tolerance."""
        return bool(rank_is_sure(self.tokens, SOLVED_RTOL))

    @property
    def type(self) -> str:
        return "fixed" if self.turn[0, 0] > 0 else "sign flip"

    @property
    def kind(self) -> str:
        return self.stability.kind

    @property
    def spectral_radius(self) -> float:
        return self.stability.spectral_radius

    def to_dict(self) -> dict:
        """JSON-ready."""
        multipliers = self.stability.multipliers
        return {
            "type": self.type,
            "rank": self.rank,
            "rank_is_sure": self.rank_is_sure,
            "residual": self.residual,
            "stability": self.kind,
            "stability_is_sure": self.stability.is_sure,
            "spectral_radius": self.spectral_radius,
            "spectral_radius_error": self.stability.radius_error,
            "unstable_dimension": self.stability.unstable_dimension,
            "marginal_dimension": self.stability.marginal_dimension,
            "multipliers": [[float(z.real), float(z.imag)] for z in multipliers],
            "multiplier_errors": self.stability.errors.tolist(),
            "growth": self.transient and _finite(self.transient.growth),
            "kreiss": self.transient and _finite(self.transient.kreiss),
            "basin_radius": self.basin_radius,
            "returning": self.approach and self.approach.returning,
            "singular_values": self.singular_values.tolist(),
            "gap": _finite(self.gap),
            "found": self.found,
            "orbit": len(self.orbit),
            "tokens": self.tokens.tolist(),
        }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class Search:
    """What a search found, and how far one may trust that it found all.

    starts, converged : how many there were, and how many ended at a solution
    since_new : the last so many starts found nothing new
    unseen : Good and Turing's estimate of the chance that another start finds something new:
        solutions that no more than one start met / starts converged
    dropped : branches that were not followed because there were too many
    """

    equilibria: tuple[Equilibrium, ...]
    starts: int
    converged: int
    since_new: int
    unseen: float
    dropped: int

    def table(self) -> list[dict]:
        """One row a rank: orbits counted whole, {"rank", "found", and each of KINDS}."""
        rows: dict[int, dict] = {}
        for e in self.equilibria:
            row = rows.setdefault(e.rank, {"rank": e.rank, "found": 0} | dict.fromkeys(KINDS, 0))
            row["found"] += len(e.orbit)
            row[e.kind] += len(e.orbit)
        return [rows[rank] for rank in sorted(rows)]
