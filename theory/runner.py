"""Carry out checks: one in this process, or all of them on several."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from theory import lemmas
from theory.lemma import Proof

__all__ = ["Result", "carry_out", "carry_out_all"]


@dataclass(frozen=True)
class Result:
    """`error` names the exception that ended a check early, which then does not hold."""

    name: str
    proof: Proof
    seconds: float
    error: str = ""

    @property
    def holds(self) -> bool:
        return self.proof.holds and not self.error


def carry_out(name: str) -> Result:
    begun = time.perf_counter()
    proof, error = Proof(), ""
    try:
        proof = lemmas()[name].check()
    except Exception as broken:  # one broken check is a row of the table, not the end of it
        error = f"{type(broken).__name__}: {broken}"
    return Result(name, proof, time.perf_counter() - begun, error)


def carry_out_all(names, workers: int) -> Iterator[Result]:
    """Results in the order in which they are finished."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        for future in as_completed([pool.submit(carry_out, name) for name in names]):
            yield future.result()
