"""Settings of a cell to objects: mask, dynamics, tokens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dynsim import masks
from dynsim._values import check_name
from dynsim._words import build
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

if TYPE_CHECKING:
    import networkx as nx
    import numpy as np

__all__ = ["Settings", "check_least", "make_dynamics", "make_tokens", "make_weights", "mask_of"]

#: The value of every parameter by name, and under "cell" what the cell is.
Settings = Mapping[str, Any]


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
    """The dynamics of a cell: that of the command line with these options.

    Raises ValueError for a cell that cannot be, MemoryError for one that is too large.
    """
    shared, seed, layers = settings["shared"], settings["seed"], settings.get("depth")
    norm = build("norm", NORMS, settings["norm"])
    if settings.get("ln_scaling"):
        norm = ln_scaling(norm, settings["depth"])
    draws = {"shared": shared, "seed": seed}
    return AttentionDynamics(
        mask=mask_of(settings),
        weights=make_weights(settings),
        norm=norm,
        placement=read_placement(settings["placement"], layers),
        skip=read_skip(settings["skip"], layers),
        mlp=build("MLP", MLPS, settings["mlp"], given=draws),
        dropout=Dropout(settings.get("dropout", 0.0), settings.get("attention_dropout", 0.0), seed),
        gate=build("gate", GATES, settings.get("gate", "none"), given=draws),
        position=build("position", POSITIONS, settings.get("position", "none")),
        kind=with_sink(
            build("attention", ATTENTION, settings.get("attention", "softmax")),
            settings.get("sink"),
        ),
        qk_norm=build("QK-norm", QK_NORMS, settings.get("qk_norm", "none")),
    )


def make_weights(settings: Settings) -> Weights:
    """The matrices of a cell's dynamics."""
    return Weights(
        scores=build("scores family", WEIGHTS, settings["scores"]),
        value=build("value family", WEIGHTS, settings["value"]),
        n_heads=settings["heads"],
        d_qk=settings["d_qk"],
        beta=settings["beta"],
        shared=settings["shared"],
        seed=settings["seed"],
    )


def make_tokens(settings: Settings, samples: int | None = None) -> np.ndarray:
    """The tokens that a run begins with, (samples, N, d)."""
    check_name("start", settings["start"], TOKENS)
    draw = TOKENS[settings["start"]]
    samples = settings["samples"] if samples is None else samples
    return draw(samples, settings["tokens"], settings["dim"], settings["seed"])


def check_least(settings: Settings, **least: int) -> None:
    """Raise ValueError unless each of these settings, where it is set, is at least so much."""
    for name, smallest in least.items():
        value = settings[name]
        if value is not None and value < smallest:
            raise ValueError(f"{name} is at least {smallest}; got {value}")
