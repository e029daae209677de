"""What the rounds of a search found, kept in a file so that an interrupted search can go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim._files import read_named_arrays, written_whole
from dynsim._values import describe
from dynsim._version import __version__

if TYPE_CHECKING:
    from dynsim.network.dynamics import AttentionDynamics

__all__ = ["Memory", "Round"]


@dataclass(frozen=True, eq=False)
class Round:
    """What one round found for one sign.

    tokens : (leaves, N, d), equilibria, those that symmetries relate one by one
    found : (leaves,), how many starts ended at each
    blur : (leaves,), how far each may lie from the true one
    first : (leaves,), how many starts of the round had been used when it was met
    counts : (3,), starts used, starts that converged, branches dropped
    """

    tokens: np.ndarray
    found: np.ndarray
    blur: np.ndarray
    first: np.ndarray
    counts: np.ndarray


class Memory:
    """The rounds of one search by name, in a file of the folder if one is given.

    The file is named after dynamics, dimension and seed, and written whole after every round.
    """

    def __init__(self, folder: str | Path | None, dynamics: AttentionDynamics, d: int, seed: int):
        content = json.dumps([__version__, describe(dynamics), d, seed])
        digest = hashlib.sha256(content.encode()).hexdigest()[:12]
        self.path = None if folder is None else Path(folder) / f"search_{digest}.npz"
        self._arrays: dict[str, Any] = {}
        if self.path is not None and self.path.exists():
            self._arrays = read_named_arrays(self.path)

    def get(self, name: str) -> Round | None:
        if f"{name}.counts" not in self._arrays:
            return None
        return Round(**{f.name: self._arrays[f"{name}.{f.name}"] for f in fields(Round)})

    def put(self, name: str, results: Round) -> None:
        self._arrays |= {f"{name}.{f.name}": getattr(results, f.name) for f in fields(Round)}
        if self.path is not None:
            with written_whole(self.path) as temporary:
                np.savez_compressed(temporary, **self._arrays)
