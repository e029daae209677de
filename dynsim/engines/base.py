"""What a simulation asks of an engine about its state, where that is the tokens themselves."""

from __future__ import annotations

import numpy as np

from dynsim import measures
from dynsim.network.deviation import Deviation

__all__ = ["TokenEngine"]


class TokenEngine:
    """Base of the engines that carry tokens (samples, N, d) from layer to layer."""

    #: Number of the first sample in the state, which decides what dropout drops of it.
    first_sample = 0

    def numbers(self, samples: int) -> range:
        """The numbers of so many samples."""
        return range(self.first_sample, self.first_sample + samples)

    def begin(self, given: np.ndarray | Deviation) -> np.ndarray:
        return given.tokens if isinstance(given, Deviation) else given

    def tokens(self, state: np.ndarray) -> np.ndarray:
        return state

    def deviation(self, state: np.ndarray) -> Deviation | None:
        return None

    def observe(self, state: np.ndarray) -> np.ndarray:
        return measures.observe(state)

    def deviations(self, state: np.ndarray) -> np.ndarray:
        return measures.deviations(np.asarray(state, np.float64))
