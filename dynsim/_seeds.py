"""Random streams: one integer seeds everything, and each draw has a stream of its own.

A stream depends on the seed and its key alone, so results do not depend on the order of draws, on
how many samples or layers there are, or on threads.
"""

from __future__ import annotations

import math

import numpy as np

from dynsim._values import whole

__all__ = ["DROPOUT", "GATES", "MLPS", "SCORES", "TOKENS", "VALUES", "stream"]

#: First part of a key: what is drawn. Then comes the sample or the layer; for dropout, both.
TOKENS, SCORES, VALUES, MLPS, DROPOUT, GATES = range(6)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator of this key, after `numpy.random.SeedSequence`.

    Raises ValueError unless the seed is a whole number of at least 0.
    """
    seed = whole("seed", seed, least=0, most=math.inf)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
