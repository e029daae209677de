"""What dynsim is compared with. Every rival does the same work and may bring several forms of it.

A rival is a function of (problem, setting) that gives its forms by name; a form is a function of
the number of layers that returns an `Outcome`. The fastest form of a rival counts. A rival that
cannot do a case raises `Absent` with the reason, which is printed in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple

import numpy as np

import dynsim
from experiments.benchmarks.cases import Problem

__all__ = ["RIVALS", "Absent", "Outcome", "Setting", "chunks", "forms_of", "need_dense", "ours"]


class Absent(Exception):
    """Why a rival is not in a comparison."""


class Outcome(NamedTuple):
    """Tokens after the last layer, (B, N, d), and two measures after each layer, (B, layers)."""

    x: np.ndarray
    mu: np.ndarray
    cosine: np.ndarray

    def distance(self, other: Outcome) -> float:
        """The largest difference, in units of token size; mu in units of ||X||_F."""
        size = np.linalg.norm(other.x, axis=-1).max()
        whole = np.linalg.norm(other.x, axis=(1, 2)).max()
        parts = zip(self, other, (size, whole, 1.0), strict=True)
        return float(max(np.abs(mine - theirs).max() / unit for mine, theirs, unit in parts))


@dataclass(frozen=True)
class Setting:
    """What all variants share: threads, and the seconds that one layer may take at most."""

    threads: int
    patience: float = 20.0


Form = Callable[[int], Outcome]

#: Rival by the short name that options and targets use: heading, module, function.
RIVALS = {
    "loop": ("numpy loop", "rivals_numpy", "loop"),
    "numpy": ("numpy batched", "rivals_numpy", "batched"),
    "torch": ("torch eager", "rivals_torch", "eager"),
    "compiled": ("torch compile", "rivals_torch", "compiled"),
    "sdpa": ("torch SDPA", "rivals_torch", "sdpa"),
    "flex": ("torch flex", "rivals_torch", "flex"),
    "jax": ("JAX scan", "rivals_jax", "scan"),
}


def forms_of(name: str, problem: Problem, setting: Setting) -> dict[str, Form]:
    """The forms of a rival. Raises Absent."""
    heading, module, function = RIVALS[name]
    try:
        rival = getattr(import_module(f"experiments.benchmarks.{module}"), function)
    except ImportError as error:
        package = (error.name or heading).split(".")[0]
        raise Absent(f"{package} is not installed; pip install 'dynsim[benchmarks]'") from None
    return rival(problem, setting)


def ours(problem: Problem, setting: Setting) -> Form:
    dynamics, record = problem.dynamics, dynsim.Record(measures=())

    def run(layers: int) -> Outcome:
        found = dynsim.simulate(
            dynamics, problem.x0, layers, record=record, threads=setting.threads
        )
        return Outcome(found.final, found["mu"][:, 1:], found["mean_cosine"][:, 1:])

    return run


def need_dense(problem: Problem, setting: Setting) -> None:
    """Raise Absent where the (N, N) scores of one trajectory are out of reach."""
    n, d = problem.case.n, problem.case.d
    seconds = n * n * (d / 10 + 8) * 1e-9  # of one core; a guess is enough to refuse by
    if seconds > setting.patience:
        raise Absent(
            f"needs {n} x {n} scores: {8e-9 * n * n:.0f} GB and about {seconds:.0f} s a layer, "
            f"longer than {setting.patience:g} s"
        )


def chunks(problem: Problem) -> list[slice]:
    """The samples in parts whose scores, about a megabyte, stay in cache from layer to layer."""
    samples, n = problem.case.samples, problem.case.n
    size = max(1, min(samples, 2**17 // n**2))
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]
