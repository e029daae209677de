"""Equilibria: what LayerNorm lets stay: x' = x, sign flips x' = -x, rotating ones x' = x R.

Public: families in closed form (`jordan_family`, ...), `find_equilibria`, layers made for given
tokens (`design_value_matrix`, `stabilise`), `stability` and its like, and certificates: `certify`
makes them, `check` proves them anew from their numbers alone (`exact` in rationals and square
roots, `balls` in ball arithmetic, on the `schema` of the files). In modules of their own:
`continuation` follows equilibria, `basins` says where orbits end, `lyapunov` how fast nearby ones
part.
"""

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
