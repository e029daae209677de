"""Cells that are runs: a dynamics and tokens, simulated, and what is kept of the trajectory."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dynsim.collapse.rates import collapse_rate
from dynsim.collapse.verdicts import verdict
from dynsim.engines import check_applies, find_engine, preferred
from dynsim.engines.lanes import LANES_UP_TO
from dynsim.masks.connectivity import lambda_2
from dynsim.measures import DEFAULT, EVERY_LAYER, SETTLED_RTOL, numerical_rank, singular_values
from dynsim.measures.costs import layer_cost
from dynsim.network.ensemble import Ensemble
from dynsim.network.weights import WEIGHTS
from dynsim.simulation import Record, simulate
from dynsim.sweeps.devices import device_of
from dynsim.sweeps.kind import Computed, Kept, Kind, in_one_line
from dynsim.sweeps.settings import (
    Settings,
    check_least,
    make_dynamics,
    make_tokens,
    make_weights,
    mask_of,
)

if TYPE_CHECKING:
    from dynsim.results.trajectory import Trajectory

__all__ = ["RUN"]

#: Costly measures are recorded at so many depths, whatever a machine or a batch is: verdicts on the
#: distance to rank one need some.
_RECORDS = 16
#: Families of matrices that depend on the seed.
_DRAWN = {name for name, family in WEIGHTS.items() if getattr(family, "varies", False)}


def _check(settings: Settings) -> None:
    """Raise as `make_dynamics`, `simulate` and `find_engine` would, without the simulation."""
    check_least(settings, depth=1, samples=1)
    dynamics, x0 = make_dynamics(settings), make_tokens(settings, samples=1)
    dynamics.check_tokens(x0)
    if dynamics.n_layers is not None and dynamics.n_layers < settings["depth"]:
        raise ValueError(
            f"depth is {settings['depth']}, and there are weights for {dynamics.n_layers} layers"
        )
    if settings["engine"] != "auto":
        find_engine(settings["engine"], device_of(settings["device"]))
        check_applies(settings["engine"], dynamics, x0.dtype)
    elif settings["device"] is not None:
        raise ValueError(f"device={settings['device']} is for engine=torch; add that")


def _cost(settings: Settings) -> float:
    """Verdict and rate, layers and records; matrices that are drawn, and where the cell is a
    simulation of its own also what a record and a layer take before any number is computed."""
    layout = make_dynamics(settings).layout
    layer = layer_cost(settings["tokens"], settings["dim"], layout.n_edges * settings["heads"])
    samples, depth = settings["samples"], settings["depth"]
    seconds = 4e-3 + samples * (2e-4 + 4e-9 * layer * depth)
    if _is_alone(settings):
        seconds += 1.5e-3 * min(depth, _RECORDS) + 2e-4 * depth
    elif _is_drawn(settings):
        seconds += 1.5e-4 * (1 if settings["shared"] else depth) * settings["heads"]
    return seconds


def _dims(values: Callable[[str], Sequence]) -> dict[str, int | Sequence]:
    return {
        "measure": DEFAULT,
        "curve_measure": EVERY_LAYER,
        "sample": values("samples")[0],
        "depth": max(values("depth")) + 1,
        "token": max(values("tokens")),
        "feature": max(values("dim")),
    }


#: Settings under which attention does not become uniform as tokens become equal.
_NOT_UNIFORM = ("position", "attention", "sink", "gate")


# --- what is kept ---------------------------------------------------------------------------------


class _Found(NamedTuple):
    """A run: its trajectory, and the power of t that comes with the late rate, 0 if unknown."""

    trajectory: Trajectory
    power: int


@lru_cache(maxsize=1024)
def _power_of_walk(mask: str, window: int | None, tokens: int) -> int:
    second = lambda_2(mask_of({"mask": mask, "window": window, "tokens": tokens}))
    return 0 if second.at_most else second.power


def _power(settings: Settings) -> int:
    """Without skip and MLP deviations follow the powers of the uniform walk, and a defective
    lambda_2 of the mask brings powers of t (`dynsim.predict`)."""
    parts = any(settings[name] != RUN.defaults[name] for name in _NOT_UNIFORM)
    if parts or settings["skip"] or settings["mlp"] != "none":
        return 0
    return _power_of_walk(settings["mask"], settings["window"], settings["tokens"])


def _ends(found: _Found) -> dict[str, Any]:
    trajectory = found.trajectory
    missing = np.full(trajectory.n_samples, np.nan)
    return {"end": np.array([_last(trajectory, name, missing) for name in DEFAULT])}


def _last(trajectory: Trajectory, name: str, missing: np.ndarray) -> np.ndarray:
    return trajectory[name][:, -1] if name in trajectory.measures else missing


def _verdict(found: _Found) -> dict[str, Any]:
    return {"verdict": verdict(found.trajectory).kind}


def _rate(found: _Found) -> dict[str, Any]:
    rate = collapse_rate(found.trajectory, power=found.power)
    late, (low, high) = np.nan, (np.nan, np.nan)
    if rate.kind == "exponential" and rate.value is not None and rate.interval is not None:
        late, (low, high) = rate.value, rate.interval
    elif rate.kind == "none" and rate.value is not None:
        late = 1.0
    return {"law": rate.kind, "late_rate": late, "late_rate_low": low, "late_rate_high": high}


def _limit_rank(found: _Found) -> dict[str, Any]:
    return {"limit_rank": numerical_rank(singular_values(found.trajectory.final), SETTLED_RTOL)}


def _curves(found: _Found) -> dict[str, Any]:
    return {"curve": np.array([found.trajectory[name] for name in EVERY_LAYER])}


def _states(found: _Found) -> dict[str, Any]:
    return {"state": found.trajectory.final}


def _device(found: _Found) -> dict[str, Any]:
    """Without the number of a GPU, which depends on the worker."""
    return {"computed_on": re.sub(r":\d+", "", str(found.trajectory.provenance["device"]))}


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
    "device": Kept({"computed_on": ((), "string")}, _device),
}


# --- cells computed -------------------------------------------------------------------------------


def _compute(cells: Sequence[Settings], keep: Sequence[str]) -> list[Computed]:
    """Cells that differ in nothing but tokens and matrices are one simulation: the bits of a sample
    do not depend on how many others there are.
    """
    found: list[Computed] = [""] * len(cells)
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


def _kept(settings: Settings, trajectory: Trajectory | None, keep: Sequence[str]) -> Computed:
    try:
        if trajectory is None:
            (trajectory,) = _simulated([settings])
        found = _Found(trajectory, _power(settings) if "rate" in keep else 0)
        return {k: v for name in keep for k, v in KEEP[name].of(found).items()}
    except Exception as error:
        return in_one_line(error)


def _dynamics_key(settings: Settings) -> tuple:
    """Equal for cells that are simulated at once."""
    if _is_alone(settings):
        return tuple(settings.values())
    differ = ("seed", "start", "beta") if _is_of_ensemble(settings) else ("seed", "start")
    return tuple(value for name, value in settings.items() if name not in differ)


def _is_alone(settings: Settings) -> bool:
    """Whether more than its tokens is its own, and no ensemble can have that."""
    torch = settings["engine"] == "torch" or settings["attention"] != "softmax"
    return bool(
        torch or settings["dropout"] or settings["attention_dropout"]
        or settings["mlp"] != "none" or settings["gate"] != "none"
        or (_is_drawn(settings) and not _is_of_ensemble(settings))
    )  # fmt: skip


def _is_drawn(settings: Settings) -> bool:
    """Whether its matrices depend on the seed."""
    return any(settings[k].split(":")[0] in _DRAWN for k in ("value", "scores"))


#: Settings that cells of an ensemble leave as they are.
_NOT_IN_ENSEMBLES = (*_NOT_UNIFORM, "qk_norm", "ln_scaling")


def _is_of_ensemble(settings: Settings) -> bool:
    """Whether it can be simulated with cells that have other matrices (`Ensemble`)."""
    small = settings["tokens"] * settings["dim"] <= LANES_UP_TO
    plain = all(settings[name] == RUN.defaults[name] for name in _NOT_IN_ENSEMBLES)
    return small and plain and settings["engine"] in ("auto", "numba", "logscale")


def _simulated(cells: Sequence[Settings]) -> list[Trajectory]:
    """The trajectories of cells whose dynamics have one key."""
    first, drawn = cells[0], _is_drawn(cells[0])
    dynamics = make_dynamics(first)
    x0 = np.concatenate([make_tokens(settings) for settings in cells])
    keyed = [{**settings, "seed": settings["seed"] if drawn else 0} for settings in cells]
    members = tuple(make_weights(settings) for settings in keyed)
    if any(member != members[0] for member in members):
        dynamics = replace(dynamics, weights=Ensemble(members, first["samples"]))
    engine = first["engine"]
    if engine == "auto":
        engine, _ = preferred(dynamics, x0.dtype)
    depth, samples = first["depth"], first["samples"]
    record = Record(stride=max(1, depth // _RECORDS))
    device = device_of(first["device"])
    whole = simulate(dynamics, x0, depth, record=record, engine=engine, threads=1, device=device)
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


#: A run of ``dynsim run``, with its defaults.
RUN = Kind(
    about="a run of a dynamics",
    defaults={
        "mask": "complete",
        "window": None,
        "norm": "none",
        "ln_scaling": False,
        "placement": "post",
        "skip": 0.0,
        "gate": "none",
        "value": "gaussian",
        "scores": "gaussian",
        "beta": 1.0,
        "position": "none",
        "attention": "softmax",
        "sink": None,
        "qk_norm": "none",
        "d_qk": None,
        "heads": 1,
        "shared": False,
        "mlp": "none",
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "tokens": 64,
        "dim": 32,
        "samples": 16,
        "start": "gaussian",
        "seed": 0,
        "depth": 128,
        "engine": "auto",
        "device": None,
    },
    keep=KEEP,
    kept=("ends", "verdict", "rate", "rank"),
    dims=_dims,
    single={"": ("samples",), "curves": ("depth",), "states": ("tokens", "dim")},
    check=_check,
    cost=_cost,
    compute=_compute,
)
