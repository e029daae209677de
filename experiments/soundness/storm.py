"""What a storm is, and how it is run: independent trials, each with a stream of its own."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from zlib import crc32

import numpy as np

import experiments.soundness as package

__all__ = ["KINDS", "Outcome", "Report", "run", "storms", "stream"]

#: How a trial may end. "holds": the statement was tested and is true. "flagged": dynsim said that
#: it cannot tell (or refused), so that nothing was claimed. "violated": it claimed what is false.
KINDS = ("holds", "flagged", "violated")
#: Trials that a worker carries out in one go.
_CHUNK = 50


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, what kind of system it was (counted), and what to reproduce it by.

    `error` is a number that the storm's report keeps the largest of, where there is one.
    """

    kind: str
    group: str = ""
    detail: str = ""
    error: float | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"a trial ends as one of {', '.join(KINDS)}; got {self.kind!r}")


@dataclass
class Report:
    """What came of a storm."""

    name: str
    statement: str
    referee: str
    seed: int
    kinds: Counter = field(default_factory=Counter)
    groups: Counter = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    worst: float | None = None
    seconds: float = 0.0

    @property
    def systems(self) -> int:
        return self.kinds.total()

    def add(self, index: int, outcome: Outcome) -> None:
        self.kinds[outcome.kind] += 1
        self.groups[f"{outcome.group}: {outcome.kind}" if outcome.group else outcome.kind] += 1
        if outcome.kind == "violated":
            self.violations.append(f"trial {index}: {outcome.detail}")
        if outcome.error is not None:
            self.worst = max(outcome.error, self.worst or 0.0)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.kinds[kind]} {kind}" for kind in KINDS)
        worst = "" if self.worst is None else f"; largest error {self.worst:.2g}"
        lines = [
            f"{self.name}: {self.systems} systems: {counts}{worst}; {self.seconds:.0f} s",
            f"    {self.statement}",
            f"    referee: {self.referee}",
        ]
        lines += [f"    {group}: {count}" for group, count in sorted(self.groups.items())]
        lines += [f"    VIOLATED, {detail}" for detail in self.violations[:10]]
        return "\n".join(lines)

    def to_dict(self) -> dict:
        return {
            "statement": self.statement,
            "referee": self.referee,
            "seed": self.seed,
            "systems": self.systems,
            **{kind: self.kinds[kind] for kind in KINDS},
            "groups": dict(sorted(self.groups.items())),
            "largest_error": self.worst,
            "violations": self.violations[:100],
            "seconds": round(self.seconds, 1),
        }


def storms() -> dict[str, ModuleType]:
    """All storms by name."""
    names = (m.name for m in iter_modules(package.__path__) if not m.name.startswith("__"))
    modules = {name: import_module(f"experiments.soundness.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "trial")}


def run(name: str, systems: int, seed: int = 0, workers: int = 1,
        report: Callable[[float], None] = lambda share: None) -> Report:  # fmt: skip
    """Carry out trials 0 .. systems - 1 of a storm; the same whatever the number of workers.

    Raises whatever a trial raises: an error that is not the storm's to judge is a failure.
    """
    storm = import_module(f"experiments.soundness.{name}")
    found = Report(name, storm.STATEMENT, storm.REFEREE, seed)
    begun = time.perf_counter()
    for index, outcome in enumerate(_outcomes(name, systems, seed, workers)):
        found.add(index, outcome)
        report((index + 1) / systems)
    found.seconds = time.perf_counter() - begun
    return found


def _outcomes(name: str, systems: int, seed: int, workers: int) -> Iterator[Outcome]:
    chunks = [(name, seed, first, min(first + _CHUNK, systems))
              for first in range(0, systems, _CHUNK)]  # fmt: skip
    if workers == 1:
        for chunk in chunks:
            yield from _trials(chunk)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _one_thread) as pool:
        for outcomes in pool.imap(_trials, chunks):
            yield from outcomes


def _one_thread() -> None:
    """Workers share the cores by processes, not by threads."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def _trials(chunk: tuple[str, int, int, int]) -> list[Outcome]:
    name, seed, first, last = chunk
    trial = import_module(f"experiments.soundness.{name}").trial
    return [trial(stream(name, seed, index)) for index in range(first, last)]


def stream(name: str, seed: int, index: int) -> np.random.Generator:
    """Random numbers of one trial, its own by storm, seed and number."""
    return np.random.default_rng([seed, crc32(name.encode()), index])
