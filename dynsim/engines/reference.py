"""The definition itself, one sample after another: slow, readable, exact."""

from __future__ import annotations

import numpy as np

from dynsim.engines.base import Advanced, TokenEngine
from dynsim.measures import observe
from dynsim.network.dynamics import AttentionDynamics

__all__ = ["ReferenceEngine"]


class ReferenceEngine(TokenEngine):
    """Iterates `AttentionDynamics.step`."""

    def __init__(self, dynamics: AttentionDynamics):
        self.dynamics = dynamics

    def advance(self, x: np.ndarray, start: int, stop: int, entropy: bool = False) -> Advanced:
        entropies, observed = self._entropies(x, start) if entropy else None, []
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            for t in range(start, stop):
                steps = [self.dynamics.step(x[k], t, s) for k, s in enumerate(self.numbers(len(x)))]
                x = np.stack(steps).astype(x.dtype)
                observed.append(observe(x))
        return x, np.stack(observed, axis=-1), entropies

    def _entropies(self, x: np.ndarray, t: int) -> np.ndarray:
        def mean(sample: np.ndarray) -> float:
            p = self.dynamics.attention(sample, t)
            return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1).mean()

        return np.array([mean(sample) for sample in x])
