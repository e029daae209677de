"""What a simulation asks of an engine about its state, where that is the tokens themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from dynsim import measures
from dynsim.network.deviation import Deviation

__all__ = ["Advanced", "Engine", "Every", "State", "TokenEngine", "Work", "all_layers"]

#: What an engine carries from layer to layer.
State = np.ndarray | Deviation

#: Tokens after some layers, what is observed of each, and entropies, if asked for.
Advanced = tuple[np.ndarray, np.ndarray, np.ndarray | None]
#: What a job does: one part whenever it is asked for the next, so that it can end between two.
Work = Callable[[Any], Iterator[None]]
#: every(work, jobs): all parts of work(job) for all jobs, each on its own thread, at once.
Every = Callable[[Work, Sequence[Any]], None]


def all_layers(pieces: list[np.ndarray]) -> np.ndarray:
    """What was seen of all layers, (K, samples, layers), from pieces one after another."""
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)


class Engine(Protocol):
    """What a simulation asks of an engine; `dynsim.engines` says it in words."""

    first_sample: int

    def begin(self, given: State, /) -> State: ...
    def advance(
        self, state: State, start: int, stop: int, entropy: bool = False
    ) -> tuple[State, np.ndarray, np.ndarray | None]: ...
    def tokens(self, state: State) -> np.ndarray: ...
    def deviation(self, state: State) -> Deviation | None: ...
    def observe(self, state: State) -> np.ndarray: ...
    def deviations(self, state: State) -> np.ndarray: ...


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
