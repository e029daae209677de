"""Engines: how a simulation is carried out. The definition is `AttentionDynamics.step`.

An engine is made for one dynamics and a number of threads. It owns the type of its state, most
often the tokens (`base.TokenEngine`), and has these methods:

    begin(given) -> state
        Of tokens (samples, N, d) or of a `Deviation`.
    advance(state, start, stop, entropy=False) -> (state, observed, entropies)
        Layers start .. stop - 1 applied to the state, which is not modified. `observed` is
        (len(measures.CHEAP), samples, stop - start), the cheap measures after each layer, with two
        rows more, log10_mu and its error, from an engine that knows it below the floor; NaN where a
        sample is not finite. `entropies` (samples,) are the mean entropies of the attention rows of
        the first of these layers, in nats; None unless asked for.
    tokens(state), deviation(state), observe(state), deviations(state)
        The tokens; the state as a `Deviation`, or None; what `advance` observes; tokens less
        their mean, up to a factor.

It may have `device`, where it runs, and `packages`, whose versions belong to the provenance. Its
`first_sample`, 0 unless it is set, is the number of the first sample in the state, for dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dynsim._values import check_name

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from dynsim.engines.base import Engine
    from dynsim.network.dynamics import AttentionDynamics

    #: An engine, to be made of a dynamics and a number of threads.
    Made = Callable[[AttentionDynamics, int], Any]

__all__ = ["ENGINES", "check_applies", "find_engine", "make_engine", "preferred"]


def _numba(device: str | None) -> Made:
    from dynsim.engines.compiled import CompiledEngine

    _refuse_device("numba", device)
    return CompiledEngine


def _logscale(device: str | None) -> Made:
    from dynsim.engines.logscale import LogScaleEngine

    _refuse_device("logscale", device)
    return LogScaleEngine


def _reference(device: str | None) -> Made:
    from dynsim.engines.reference import ReferenceEngine

    _refuse_device("reference", device)
    return lambda dynamics, threads: ReferenceEngine(dynamics)  # one thread, by design


def _torch(device: str | None) -> Made:
    try:
        from dynsim.engines.torch import TorchEngine, find_device
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "the torch engine needs the extra 'torch'; pip install \"dynsim[torch]\""
        ) from None
    found = find_device(device)
    return lambda dynamics, threads: TorchEngine(dynamics, threads, found)


def _refuse_device(engine: str, device: str | None) -> None:
    if device is not None:
        raise ValueError(
            f"the {engine} engine runs on the CPU; use engine='torch' with device={device!r}"
        )


#: Every engine by name: a function of the device that gives one of the dynamics and the threads.
ENGINES = {"numba": _numba, "reference": _reference, "torch": _torch, "logscale": _logscale}


def find_engine(name: str, device: str | None = None) -> Callable:
    """The engine of this name on this device, to be made of a dynamics and a number of threads.

    Raises ValueError for an unknown name and for a device that is not there or that the engine has
    no use for; ImportError when the engine's package is not installed.
    """
    check_name("engine", name, ENGINES)
    return ENGINES[name](device)


def preferred(dynamics: AttentionDynamics, dtype: DTypeLike) -> tuple[str, str | None]:
    """The engine that follows mu furthest on tokens of this type, and what keeps it from 10^-k.

    Of those that apply: logscale, numba, torch where it is installed, reference.
    """
    from dynsim.engines import compiled, logscale

    reason = logscale.reason_against(dynamics, dtype)
    if reason is None:
        return "logscale", None
    not_compiled = compiled.reason_against(dynamics)
    if not_compiled is None:
        return "numba", reason
    name = "torch" if find_spec("torch") else "reference"
    return name, f"{reason}; the numba engine does not apply either, {not_compiled}: {name} is used"


def check_applies(name: str, dynamics: AttentionDynamics, dtype: DTypeLike) -> None:
    """Raise ValueError, as the engine itself would, when it cannot carry out this dynamics."""
    from dynsim.engines import compiled, logscale

    if name == "numba":
        compiled.refuse(dynamics)
    if name == "logscale":
        logscale.refuse(dynamics, dtype)


def make_engine(
    name: str, dynamics: AttentionDynamics, threads: int, device: str | None = None
) -> Engine:
    """The engine of this name, made for one dynamics. Raises as `find_engine`."""
    return find_engine(name, device)(dynamics, threads)
