"""Equilibria x' = x and sign flips x' = -x: construct, search, design, judge."""

from dynsim.equilibria.construct import (
    complete_pair,
    complete_pair_dynamics,
    hyperbolic_dynamics,
    hyperbolic_pair,
    jordan_dynamics,
    jordan_family,
)
from dynsim.equilibria.search import Equilibrium, Search, find_equilibria, symmetries
from dynsim.equilibria.stability import (
    Stability,
    Transient,
    approach,
    basin_radius,
    stability,
    transient,
)

__all__ = [
    "Equilibrium",
    "Search",
    "Stability",
    "Transient",
    "approach",
    "basin_radius",
    "complete_pair",
    "complete_pair_dynamics",
    "find_equilibria",
    "hyperbolic_dynamics",
    "hyperbolic_pair",
    "jordan_dynamics",
    "jordan_family",
    "stability",
    "symmetries",
    "transient",
]
