"""Measures: functions of tokens, and how far rounding may have moved them.

Every function takes tokens X of shape (..., N, d), returns an array of shape (...), and raises
ValueError for what is no array of real numbers. `distance` has those from consensus, `spectrum`
rank one, the ranks and `numerical_rank`, `angles` those between tokens. `registry` names them all,
and `rounding` bounds what rounding did to each.
"""

from dynsim.measures import angles, distance, registry, spectrum
from dynsim.measures.angles import *  # noqa: F403
from dynsim.measures.distance import *  # noqa: F403
from dynsim.measures.registry import *  # noqa: F403
from dynsim.measures.scaling import deviations
from dynsim.measures.spectrum import *  # noqa: F403

__all__ = [
    "deviations",
    *angles.__all__,
    *distance.__all__,
    *registry.__all__,
    *spectrum.__all__,
]
