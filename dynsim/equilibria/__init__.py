"""Equilibria x' = x, sign flips x' = -x, rotating ones x' = x R: construct, find, design, judge."""

from dynsim.equilibria.certify import certify, save_certificate
from dynsim.equilibria.construct import (
    complete_pair,
    complete_pair_dynamics,
    hyperbolic_dynamics,
    hyperbolic_pair,
    jordan_dynamics,
    jordan_family,
    jordan_member,
)
from dynsim.equilibria.descent import Stabilised, stabilise
from dynsim.equilibria.design import Design, design_value_matrix
from dynsim.equilibria.equilibrium import Equilibrium, Search
from dynsim.equilibria.rotating import RotatingEquilibrium
from dynsim.equilibria.search import find_equilibria, symmetries
from dynsim.equilibria.stability import (
    KINDS,
    Stability,
    Transient,
    approach,
    basin_radius,
    perturbed,
    stability,
    transient,
)
from dynsim.equilibria.verification import check, load_certificate

__all__ = [
    "KINDS",
    "Design",
    "Equilibrium",
    "RotatingEquilibrium",
    "Search",
    "Stabilised",
    "Stability",
    "Transient",
    "approach",
    "basin_radius",
    "certify",
    "check",
    "complete_pair",
    "complete_pair_dynamics",
    "design_value_matrix",
    "find_equilibria",
    "hyperbolic_dynamics",
    "hyperbolic_pair",
    "jordan_dynamics",
    "jordan_family",
    "jordan_member",
    "load_certificate",
    "perturbed",
    "save_certificate",
    "stabilise",
    "stability",
    "symmetries",
    "transient",
]
