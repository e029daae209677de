"""Engines: how a simulation is carried out. The definition is `AttentionDynamics.step`.

An engine is made for one dynamics and a number of threads and has two methods:

    advance(x, start, stop) -> (x_stop, observed)
        Layers start .. stop - 1 applied to x (samples, N, d), which is not modified. `observed`
        is (len(measures.CHEAP), samples, stop - start), the cheap measures after each layer; NaN
        where a sample is not finite.
    attention_entropy(x, t) -> (samples,)
        Mean entropy of the attention rows of layer t on x, in nats.
"""

from __future__ import annotations

__all__ = ["ENGINES", "make_engine"]


def _numba(dynamics, threads):
    from dynsim.engines.compiled import CompiledEngine

    return CompiledEngine(dynamics, threads)


def _reference(dynamics, threads):
    from dynsim.engines.reference import ReferenceEngine

    return ReferenceEngine(dynamics)  # one thread, by design


#: Every engine by name: a function of the dynamics and the number of threads.
ENGINES = {"numba": _numba, "reference": _reference}


def make_engine(name: str, dynamics, threads: int):
    """The engine of this name. Raises ValueError for an unknown one."""
    if name not in ENGINES:
        raise ValueError(f"unknown engine {name!r}; known are {', '.join(ENGINES)}")
    return ENGINES[name](dynamics, threads)
