"""A cell: settings made a dynamics and tokens, simulated, and what is kept of the trajectory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim import masks
from dynsim._values import check_name
from dynsim._words import build
from dynsim.collapse.rates import collapse_rate
from dynsim.collapse.verdicts import verdict
from dynsim.engines import check_applies, find_engine, preferred
from dynsim.measures import DEFAULT, EVERY_LAYER, SETTLED_RTOL, numerical_rank, singular_values
from dynsim.measures.costs import layer_cost
from dynsim.network.attention import ATTENTION, QK_NORMS, with_sink
from dynsim.network.dropout import Dropout
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.gates import GATES
from dynsim.network.mlp import MLPS
from dynsim.network.norms import NORMS, ln_scaling
from dynsim.network.positions import POSITIONS
from dynsim.network.residual import read_placement, read_skip
from dynsim.network.tokens import TOKENS
from dynsim.network.weights import WEIGHTS, Weights
from dynsim.simulation import Record, simulate

if TYPE_CHECKING:
    import networkx as nx

    from dynsim.results.trajectory import Trajectory

__all__ = ["KEEP", "Kept", "check_cell", "compute", "cost", "make_dynamics", "mask_of"]

#: The value of every parameter by name.
Settings = Mapping[str, Any]

#: Costly measures are recorded at so many depths, whatever a machine or a batch is: verdicts on the
#: distance to rank one need some.
_RECORDS = 16
#: Families of matrices that depend on the seed.
_DRAWN = {name for name, family in WEIGHTS.items() if getattr(family, "varies", False)}


# --- settings to objects --------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _mask(name: str, window: int | None, n: int) -> nx.DiGraph:
    known = masks.MASKS.get(name.split(":")[0])
    if window is not None and known and "window" not in inspect.signature(known).parameters:
        raise ValueError(f"the mask {name!r} has no window; leave window={window} out for it")
    return build("mask", masks.MASKS, name, n, given={} if window is None else {"window": window})


def mask_of(settings: Settings) -> nx.DiGraph:
    """The mask graph of a cell. Raises ValueError where there is none of these sizes."""
    return _mask(settings["mask"], settings["window"], settings["tokens"])


def make_dynamics(settings: Settings) -> AttentionDynamics:
    """The dynamics of a cell: that of ``dynsim run`` with these options.

    Raises ValueError for a cell that cannot be, MemoryError for one that is too large.
    """
    shared, seed, layers = settings["shared"], settings["seed"], settings["depth"]
    norm = build("norm", NORMS, settings["norm"])
    draws = {"shared": shared, "seed": seed}
    return AttentionDynamics(
        mask=mask_of(settings),
        weights=Weights(
            scores=build("scores family", WEIGHTS, settings["scores"]),
            value=build("value family", WEIGHTS, settings["value"]),
            n_heads=settings["heads"],
            d_qk=settings["d_qk"],
            beta=settings["beta"],
            shared=shared,
            seed=seed,
        ),
        norm=ln_scaling(norm, layers) if settings["ln_scaling"] else norm,
        placement=read_placement(settings["placement"], layers),
        skip=read_skip(settings["skip"], layers),
        mlp=build("MLP", MLPS, settings["mlp"], given=draws),
        dropout=Dropout(settings["dropout"], settings["attention_dropout"], seed),
        gate=build("gate", GATES, settings["gate"], given=draws),
        position=build("position", POSITIONS, settings["position"]),
        kind=with_sink(build("attention", ATTENTION, settings["attention"]), settings["sink"]),
        qk_norm=build("QK-norm", QK_NORMS, settings["qk_norm"]),
    )


def _tokens(settings: Settings, samples: int | None = None) -> np.ndarray:
    check_name("start", settings["start"], TOKENS)
    draw = TOKENS[settings["start"]]
    samples = settings["samples"] if samples is None else samples
    return draw(samples, settings["tokens"], settings["dim"], settings["seed"])


def check_cell(settings: Settings) -> None:
    """Raise as `make_dynamics`, `simulate` and `find_engine` would, without the simulation."""
    for name in ("depth", "samples"):
        if settings[name] < 1:
            raise ValueError(f"{name} is at least 1; got {settings[name]}")
    dynamics, x0 = make_dynamics(settings), _tokens(settings, samples=1)
    dynamics.check_tokens(x0)
    if dynamics.n_layers is not None and dynamics.n_layers < settings["depth"]:
        raise ValueError(
            f"depth is {settings['depth']}, and there are weights for {dynamics.n_layers} layers"
        )
    if settings["engine"] != "auto":
        find_engine(settings["engine"])
        check_applies(settings["engine"], dynamics, x0.dtype)


def cost(settings: Settings) -> float:
    """Seconds that a cell takes one core, by a model of its sizes: right to a factor of a few."""
    layout = make_dynamics(settings).layout
    layer = layer_cost(settings["tokens"], settings["dim"], layout.n_edges * settings["heads"])
    samples, depth = settings["samples"], settings["depth"]
    return 2e-3 + samples * (2e-4 + 4e-9 * layer * depth)


# --- what is kept ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """Something that is kept of every cell.

    arrays : by name, the dimensions beside those of the cells, and the type
    of : callable(trajectory) -> the arrays of one cell
    """

    arrays: Mapping[str, tuple[tuple[str, ...], str]]
    of: Callable[[Trajectory], dict[str, Any]]


def _ends(trajectory: Trajectory) -> dict[str, Any]:
    missing = np.full(trajectory.n_samples, np.nan)
    return {"end": np.array([_last(trajectory, name, missing) for name in DEFAULT])}


def _last(trajectory: Trajectory, name: str, missing: np.ndarray) -> np.ndarray:
    return trajectory[name][:, -1] if name in trajectory.measures else missing


def _verdict(trajectory: Trajectory) -> dict[str, Any]:
    return {"verdict": verdict(trajectory).kind}


def _rate(trajectory: Trajectory) -> dict[str, Any]:
    rate = collapse_rate(trajectory)
    late, (low, high) = np.nan, (np.nan, np.nan)
    if rate.kind == "exponential" and rate.value is not None and rate.interval is not None:
        late, (low, high) = rate.value, rate.interval
    elif rate.kind == "none" and rate.value is not None:
        late = 1.0
    return {"law": rate.kind, "late_rate": late, "late_rate_low": low, "late_rate_high": high}


def _limit_rank(trajectory: Trajectory) -> dict[str, Any]:
    return {"limit_rank": numerical_rank(singular_values(trajectory.final), SETTLED_RTOL)}


def _curves(trajectory: Trajectory) -> dict[str, Any]:
    return {"curve": np.array([trajectory[name] for name in EVERY_LAYER])}


def _states(trajectory: Trajectory) -> dict[str, Any]:
    return {"state": trajectory.final}


#: What may be kept, by name.
KEEP = {
    "ends": Kept({"end": (("measure", "sample"), "float64")}, _ends),
    "verdict": Kept({"verdict": ((), "string")}, _verdict),
    "rate": Kept(
        {"law": ((), "string")}
        | dict.fromkeys(("late_rate", "late_rate_low", "late_rate_high"), ((), "float64")),
        _rate,
    ),
    "rank": Kept({"limit_rank": (("sample",), "float64")}, _limit_rank),
    "curves": Kept({"curve": (("curve_measure", "sample", "depth"), "float64")}, _curves),
    "states": Kept({"state": (("sample", "token", "feature"), "float64")}, _states),
}


# --- cells computed -------------------------------------------------------------------------------


def compute(cells: Sequence[Settings], keep: Sequence[str]) -> list[dict[str, Any] | str]:
    """What is kept of each cell, or why it failed, in one line.

    Cells of one dynamics, which differ in their tokens alone, are samples of one simulation: the
    bits of a sample do not depend on how many others there are.
    """
    found: list[dict[str, Any] | str] = [""] * len(cells)
    groups: dict[tuple, list[int]] = {}
    for k, settings in enumerate(cells):
        groups.setdefault(_dynamics_key(settings), []).append(k)
    for members in groups.values():
        trajectories: list[Trajectory | None]
        try:
            trajectories = [*_simulated([cells[k] for k in members])]
        except Exception:  # which of them it was shows when each is alone
            trajectories = [None] * len(members)
        for k, trajectory in zip(members, trajectories, strict=True):
            found[k] = _kept(cells[k], trajectory, keep)
    return found


def _kept(
    settings: Settings, trajectory: Trajectory | None, keep: Sequence[str]
) -> dict[str, Any] | str:
    try:
        if trajectory is None:
            (trajectory,) = _simulated([settings])
        return {k: v for name in keep for k, v in KEEP[name].of(trajectory).items()}
    except Exception as error:  # a cell's failure is a result of the sweep
        return " ".join(f"{type(error).__name__}: {error}".split())


def _dynamics_key(settings: Settings) -> tuple:
    """Equal for cells that differ in nothing but the tokens they begin with, where the bits of a
    sample do not depend on the others."""
    drawn = any(settings[k].split(":")[0] in _DRAWN for k in ("value", "scores"))
    dropped = settings["dropout"] or settings["attention_dropout"]
    torch = settings["engine"] == "torch" or settings["attention"] != "softmax"
    drawn = drawn or settings["mlp"] != "none" or settings["gate"] != "none"
    if drawn or dropped or torch:
        return tuple(settings.values())
    return tuple(value for name, value in settings.items() if name not in ("seed", "start"))


def _simulated(cells: Sequence[Settings]) -> list[Trajectory]:
    """The trajectories of cells that have one dynamics."""
    first = cells[0]
    dynamics = make_dynamics(first)
    x0 = np.concatenate([_tokens(settings) for settings in cells])
    engine = first["engine"]
    if engine == "auto":
        engine, _ = preferred(dynamics, x0.dtype)
    depth, samples = first["depth"], first["samples"]
    record = Record(stride=max(1, depth // _RECORDS))
    whole = simulate(dynamics, x0, depth, record=record, engine=engine, threads=1)
    if len(cells) == 1:
        return [whole]
    return [_samples(whole, k, k + samples) for k in range(0, len(x0), samples)]


def _samples(whole: Trajectory, start: int, stop: int) -> Trajectory:
    return replace(
        whole,
        measures={name: values[start:stop] for name, values in whole.measures.items()},
        final=whole.final[start:stop],
        states=whole.states[start:stop],
    )
