"""Masks: which token may attend to which.

A mask is a `networkx.DiGraph` on tokens 0..N-1 whose edge j -> i says that i may attend to j.
`constructors` makes them, `layout` finds their cheapest form, `connectivity` their facts (center
nodes, radius, diameter), and `walk` the eigenvalue lambda_2 of the uniform walk on them.
"""

from dynsim.masks.constructors import *  # noqa: F403
from dynsim.masks.constructors import __all__ as __all__
