"""Cells about one layer that is iterated: where starts end, equilibria, Lyapunov exponents.

Each is the command of that name with these options and their defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim._memory import require_memory
from dynsim.equilibria import KINDS as STABILITIES
from dynsim.equilibria import find_equilibria
from dynsim.equilibria.basins import TYPES, basins
from dynsim.equilibria.lyapunov import spectrum
from dynsim.equilibria.rotating import check_rotations
from dynsim.equilibria.stability import check_equilibria_possible
from dynsim.measures.costs import layer_cost
from dynsim.network import tokens
from dynsim.sweeps.kind import Kept, Kind, one_by_one
from dynsim.sweeps.settings import Settings, check_least, make_dynamics

if TYPE_CHECKING:
    from dynsim.equilibria import Search
    from dynsim.equilibria.basins import Basins
    from dynsim.equilibria.lyapunov import Spectrum
    from dynsim.network.dynamics import AttentionDynamics

__all__ = ["BASINS", "EQUILIBRIA", "LYAPUNOV"]

#: Parameters of a layer that is iterated, with the defaults of these commands.
_LAYER = {
    "mask": "complete",
    "window": None,
    "norm": "unit",
    "placement": "post",
    "skip": 0.0,
    "value": "gaussian",
    "scores": "zero",
    "beta": 1.0,
    "d_qk": None,
    "heads": 1,
    "shared": True,
    "mlp": "none",
    "tokens": 3,
    "dim": None,
    "seed": 0,
}


def _dim(settings: Settings) -> int:
    """The dimension of tokens: their number unless it is set."""
    return settings["dim"] or settings["tokens"]


def _dynamics(settings: Settings) -> AttentionDynamics:
    check_least(settings, tokens=1, dim=1, seed=0)
    dynamics, n, d = make_dynamics(settings), settings["tokens"], _dim(settings)
    require_memory(
        16.0 * (n * d) ** 2, f"the derivatives of {n} tokens of dimension {d}",
        "use fewer tokens or dimensions",
    )  # fmt: skip
    dynamics.check_tokens(tokens.sphere(1, n, d, settings["seed"]))
    return dynamics


def _layer_seconds(settings: Settings) -> float:
    """One layer of one state, by the model of costs."""
    n, d = settings["tokens"], _dim(settings)
    return 4e-9 * layer_cost(n, d, make_dynamics(settings).layout.n_edges * settings["heads"])


def _largest(values: Callable[[str], Sequence]) -> tuple[int, int]:
    """Of the numbers of tokens in a sweep, and of their dimensions."""
    n = max(values("tokens"))
    return n, max(d or n for d in values("dim"))


def _ranks(values: Callable[[str], Sequence]) -> list[int]:
    return list(range(min(_largest(values)) + 1))


# --- basins ---------------------------------------------------------------------------------------


def _basins(settings: Settings) -> Basins:
    return basins(
        _dynamics(settings), settings["starts"], dim=_dim(settings), seed=settings["seed"],
        depth=settings["depth"], exponents=settings["exponents"],
    )  # fmt: skip


def _check_basins(settings: Settings) -> None:
    check_least(settings, starts=1, depth=64, exponents=0)
    check_equilibria_possible(_dynamics(settings))


def _shares(found: Basins) -> dict[str, Any]:
    """Shares are 0 where no start ended, and their intervals NaN."""
    _, n, d = found.limits.final.shape
    shape = (min(n, d) + 1, len(TYPES))
    shares = {name: np.full(shape, np.nan) for name in ("low", "high")}
    shares["share"] = np.zeros(shape)
    for row in found.rows:
        for name, array in shares.items():
            array[row["rank"], TYPES.index(row["type"])] = row[name]
    largest = max(found.rows, key=lambda row: row["share"])
    return {
        "share": shares["share"],
        "share_low": shares["low"],
        "share_high": shares["high"],
        "limit_rank": float(np.argmax(shares["share"].sum(axis=1))),
        "verdict": largest["type"],
    }


def _limits(found: Basins) -> dict[str, Any]:
    limits = found.limits
    return {
        "start_rank": limits.rank.astype(float),
        "start_type": limits.type.astype(float),
        "start_depth": limits.depth.astype(float),
    }


_OF_SHARE = (("rank", "type"), "float64")
_OF_START = (("start_number",), "float64")
_OF_BASINS = {
    "shares": Kept(
        {
            "share": _OF_SHARE,
            "share_low": _OF_SHARE,
            "share_high": _OF_SHARE,
            "limit_rank": ((), "float64"),
            "verdict": ((), "string"),
        },
        _shares,
    ),
    "limits": Kept(dict.fromkeys(("start_rank", "start_type", "start_depth"), _OF_START), _limits),
}

BASINS = Kind(
    about="where random starts end: dynsim basins",
    defaults=_LAYER | {"starts": 10_000, "depth": 4096, "exponents": 64},
    keep=_OF_BASINS,
    kept=("shares",),
    dims=lambda values: {
        "rank": _ranks(values), "type": TYPES, "start_number": values("starts")[0]
    },
    single={"limits": ("starts",)},
    check=_check_basins,
    cost=lambda settings: 0.2 + 500 * settings["starts"] * _layer_seconds(settings),
    compute=one_by_one(_basins, _OF_BASINS),
)  # fmt: skip


# --- equilibria -----------------------------------------------------------------------------------


def _equilibria(settings: Settings) -> tuple[Search, int]:
    """The search, and the number of ranks that there may be."""
    search = find_equilibria(
        _dynamics(settings), dim=_dim(settings), starts=settings["starts"], flips=settings["flips"],
        basin_samples=settings["basin_samples"], seed=settings["seed"],
    )  # fmt: skip
    return search, min(settings["tokens"], _dim(settings)) + 1


def _check_equilibria(settings: Settings) -> None:
    check_least(settings, starts=2, basin_samples=0)
    dynamics, d = _dynamics(settings), _dim(settings)
    if min(settings["tokens"], d) < 2:
        raise ValueError(
            f"equilibria are searched for two or more tokens and dimensions; got "
            f"{settings['tokens']} and {d}"
        )
    check_equilibria_possible(dynamics)
    check_rotations(d)


def _counts(found: tuple[Search, int]) -> dict[str, Any]:
    search, ranks = found
    counts = np.zeros((ranks, len(STABILITIES)))
    for row in search.table():
        counts[row["rank"]] = [row[name] for name in STABILITIES]
    stable = np.flatnonzero(counts[:, STABILITIES.index("stable")])
    return {
        "found": counts,
        "stable_rank": float(stable.max()) if len(stable) else np.nan,
        "unseen": search.unseen,
    }


def _radii(found: tuple[Search, int]) -> dict[str, Any]:
    search, ranks = found
    least = np.full(ranks, np.nan)
    for e in search.equilibria:
        least[e.rank] = np.fmin(least[e.rank], e.spectral_radius)
    return {"least_radius": least}


_OF_EQUILIBRIA = {
    "counts": Kept(
        {
            "found": (("rank", "stability"), "float64"),
            "stable_rank": ((), "float64"),
            "unseen": ((), "float64"),
        },
        _counts,
    ),
    "radii": Kept({"least_radius": (("rank",), "float64")}, _radii),
}

EQUILIBRIA = Kind(
    about="a search for equilibria: dynsim equilibria",
    defaults=_LAYER | {"starts": 64, "flips": True, "basin_samples": 16},
    keep=_OF_EQUILIBRIA,
    kept=("counts", "radii"),
    dims=lambda values: {"rank": _ranks(values), "stability": STABILITIES},
    single={},
    check=_check_equilibria,
    cost=lambda settings: 0.5 + 0.01 * settings["starts"] * 2 ** min(settings["tokens"], 12),
    compute=one_by_one(_equilibria, _OF_EQUILIBRIA),
)


# --- Lyapunov exponents ---------------------------------------------------------------------------


def _lyapunov(settings: Settings) -> Spectrum:
    return _spectrum(settings, settings["layers"], settings["discard"])


def _spectrum(settings: Settings, layers: int, discard: int) -> Spectrum:
    dynamics, n, seed = _dynamics(settings), settings["tokens"], settings["seed"]
    x0 = tokens.sphere(1, n, _dim(settings), seed)[0]
    return spectrum(
        dynamics, x0, count=settings["count"], layers=layers, discard=discard, seed=seed
    )


def _check_lyapunov(settings: Settings) -> None:
    check_least(settings, count=1, layers=1, discard=0)
    size = 24.0 * settings["layers"] * settings["tokens"] * _dim(settings)
    require_memory(size, f"exponents over {settings['layers']} layers", "use fewer layers")
    _spectrum(settings, layers=1, discard=0)


def _exponents(found: Spectrum) -> dict[str, Any]:
    return {
        "exponent": found.exponents, "largest_error": found.error, "verdict": found.kind,
    }  # fmt: skip


_OF_LYAPUNOV = {
    "exponents": Kept(
        {
            "exponent": (("exponent_number",), "float64"),
            "largest_error": ((), "float64"),
            "verdict": ((), "string"),
        },
        _exponents,
    ),
}


def _exponent_numbers(values: Callable[[str], Sequence]) -> dict[str, list[int]]:
    n, d = _largest(values)
    return {"exponent_number": list(range(min(n * d, max(c or n * d for c in values("count")))))}


LYAPUNOV = Kind(
    about="the Lyapunov exponents of one orbit: dynsim lyapunov",
    defaults=_LAYER | {"count": None, "layers": 1000, "discard": 200},
    keep=_OF_LYAPUNOV,
    kept=("exponents",),
    dims=_exponent_numbers,
    single={},
    check=_check_lyapunov,
    cost=lambda settings: (
        (settings["layers"] + settings["discard"])
        * (2e-4 + 1e-8 * (settings["tokens"] * _dim(settings)) ** 2)
    ),
    compute=one_by_one(_lyapunov, _OF_LYAPUNOV),
)
