"""Measures: functions of tokens, and how far rounding may have moved them.

Every function takes tokens X of shape (..., N, d), returns an array of shape (...), and raises
ValueError for what is no array of real numbers. `distance` has those from consensus, `spectrum`
rank one, the ranks and `numerical_rank`, `angles` those between tokens, `sinks` some without the
first token. `registry` names them all, and `rounding` bounds what rounding did to each. `attention`
is of matrices of attention instead: influence of positions, share of a sink, spectrum.
"""

from dynsim.measures import angles, attention, distance, registry, sinks, spectrum
from dynsim.measures.angles import *  # noqa: F403
from dynsim.measures.attention import *  # noqa: F403
from dynsim.measures.distance import *  # noqa: F403
from dynsim.measures.registry import *  # noqa: F403
from dynsim.measures.scaling import deviations
from dynsim.measures.sinks import *  # noqa: F403
from dynsim.measures.spectrum import *  # noqa: F403

__all__ = [
    "deviations",
    *angles.__all__,
    *attention.__all__,
    *distance.__all__,
    *registry.__all__,
    *sinks.__all__,
    *spectrum.__all__,
]
