"""One layer with asymptotically stable equilibria of every rank from 1 to N.

Causal mask, N = d, M = 0, unit norm; W_V by descent on the spectral radius of a full-rank
equilibrium. Nothing else is asked for, and yet stable equilibria of all smaller ranks come with it:
the first k tokens of a stable full-rank equilibrium are one of the first k tokens and span a space
that W_V maps into itself, where later tokens settle as well. A search lists all equilibria of the
layer; those counted here are proved stable, and of their rank at least, in ball arithmetic. So
the rank is certified from both sides for k = N alone; below N, that it is not more is read from
singular values.
"""

from __future__ import annotations

import json

import numpy as np
from matplotlib.figure import Figure

from dynsim import basins, equilibria, masks
from dynsim.results import style
from experiments.record import Verdict

PAPER = "WU, arXiv 2405.18781, Theorem 3: equilibria of every rank; theirs of rank > 1 not stable"

EXTRAS = ("torch", "certify")
SETTINGS = {
    "smoke": {"tokens": [2], "tries": 4, "steps": 600, "starts": 8, "runs": 200},
    "default": {"tokens": [2, 3, 4], "tries": 8, "steps": 600, "starts": 16, "runs": 20_000},
    "paper": {"tokens": [2, 3, 4, 5], "tries": 40, "steps": 1000, "starts": 64, "runs": 200_000},
}  # fmt: skip
DEPTH = 4096
COLUMNS = ("found", "stable", "spectral_radius", "growth", "basin_radius", "share")


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """(N, rank, column) tables, -1 where there is none; weights, tokens and certificates."""
    sizes = settings["tokens"]
    table = np.full((max(sizes) + 1, max(sizes) + 1, len(COLUMNS)), -1.0)
    saved = {}
    for k, n in enumerate(sizes):
        layer = equilibria.stabilise(
            masks.causal(n), n, n, uniform=True, goal=0.93, least_singular=0.1,
            tries=settings["tries"], steps=settings["steps"], seed=seed,
        ).dynamics  # fmt: skip
        search = equilibria.find_equilibria(
            layer, starts=settings["starts"], flips=False, seed=seed
        )
        ends = basins.basins(layer, settings["runs"], dim=n, seed=seed, depth=DEPTH)
        saved[f"W_V_{n}"] = layer.weights.layer(0, n).W_V[0]
        for row in search.table():
            rank = row["rank"]
            stable = [e for e in search.equilibria if (e.rank, e.kind) == (rank, "stable")]
            best = max(stable, key=lambda e: e.basin_radius, default=None)
            table[n, rank, :2] = row["found"], row["stable"]
            table[n, rank, 5] = ends.share(rank)
            if best is not None:
                table[n, rank, 2:5] = best.spectral_radius, best.transient.growth, best.basin_radius
                saved[f"tokens_{n}_{rank}"] = best.tokens
                saved[f"certificate_{n}_{rank}"] = np.array(_certificate(layer, best))
        progress((k + 1) / len(sizes))
    return {"table": table, **saved}


def _certificate(layer, found) -> str:
    """As JSON, "" where no proof comes out."""
    try:
        return json.dumps(equilibria.certify(layer, found.tokens))
    except ValueError:
        return ""


def draw(data) -> Figure:
    """The stable equilibrium of widest basin of each rank: how fast, how steady, how robust."""
    figure, (panels,) = style.panels(1, 3, height=2.1)
    sizes = _sizes(data)
    for axes, column in zip(panels, (2, 3, 4), strict=True):
        named = {}
        for n, colour, marker in zip(
            sizes, style.shades(style.GREEN, len(sizes)), "os^Dv", strict=False
        ):
            rows = np.where(data["table"] < 0, np.nan, data["table"])[n, 1 : n + 1]
            (named[f"N = {n}"],) = axes.plot(
                np.arange(1, n + 1), rows[:, column], color=colour, marker=marker
            )
        axes.set(xlabel="rank", xticks=range(1, len(data["table"])))
        axes.set_yscale("linear" if column == 2 else "log")
        axes.set_xlim(0.8, len(data["table"]) - 0.2)
        if column == 2:
            axes.axhline(1, color="0.4", linewidth=0.8, linestyle=(0, (2, 2)))
            axes.set_ylim(None, 1.01)
        style.name_lines(axes, named)
    speed, growth, basin = panels
    speed.set(ylabel="spectral radius", title="stable: below 1")
    growth.set(ylabel="max ‖Jᵏ‖", title="transient growth")
    basin.set(ylabel="distance", title="from where all starts return")
    style.letters(panels)
    style.finding(
        figure,
        f"One causal layer has stable equilibria of every rank at once; that of rank {sizes[-1]} "
        f"withstands {data['table'][sizes[-1], sizes[-1], 4]:.0e}"
        if claim(data).reproduced
        else "Equilibria of one causal layer, by rank",
    )
    return figure


def _sizes(data) -> list[int]:
    return [n for n in range(1, len(data["table"])) if f"W_V_{n}" in data]


def claim(data) -> Verdict:
    """A certified stable equilibrium of every rank for every N."""
    measured = {
        f"N = {n}, rank {rank}": {
            name: None if value < 0 else float(f"{value:.4g}")
            for name, value in zip(COLUMNS, data["table"][n, rank], strict=True)
        }
        | {
            "certified": bool(data.get(f"certificate_{n}_{rank}", "")),
            "rank certified": "exactly" if rank == n else "from below",
        }
        for n in _sizes(data)
        for rank in range(1, n + 1)
    }
    return Verdict(
        statement="one layer under the causal mask with uniform attention has asymptotically "
        "stable equilibria of every rank 1..N (rank k is certified from below; from above only for "
        "k = N, else singular values say so)",
        paper="Theorem 3 has equilibria of every rank; for N >= 4 those of full rank are saddles",
        measured=measured,
        tolerance="existence, rank at least k and spectral radius below 1 in ball arithmetic",
        reproduced=all(entry["certified"] for entry in measured.values()),
    )
