"""The page of a search for equilibria."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynsim.equilibria import KINDS
from dynsim.reports.page import Case, Page
from dynsim.reports.states import States, attention_of
from dynsim.reports.views import Bars, Frames, Plane
from dynsim.results import style

if TYPE_CHECKING:
    from dynsim.equilibria import Equilibrium, Search
    from dynsim.network.dynamics import AttentionDynamics

__all__ = ["page"]

#: Equilibria whose tokens are shown.
_MOST = 64


def page(
    search: Search,
    dynamics: AttentionDynamics,
    title: str = "",
    sentences: Sequence[str] | None = None,
    settings: Sequence[tuple[str, str]] = (),
) -> Page:
    """The page of what `dynsim.equilibria.find_equilibria` found of a dynamics.

    The slider goes from equilibrium to equilibrium, by rank and then by stability. Raises
    ValueError where nothing was found.
    """
    ordered = sorted(search.equilibria, key=lambda e: (e.rank, KINDS.index(e.kind)))
    if not ordered:
        raise ValueError("no equilibrium was found, so there is nothing to show; use more starts")
    shown = ordered[:_MOST]
    tokens = np.stack([e.tokens for e in shown])
    labels = [f"{k}: rank {e.rank}, {e.kind}{_turned(e)}" for k, e in enumerate(shown)]
    states = States(
        Frames("equilibrium", labels), tokens, attention_of(dynamics, tokens, [0] * len(shown))
    )
    plane = Plane(
        title="multipliers",
        note="eigenvalues of the layer's derivative; green: inside the unit circle, orange: "
        "outside, yellow: rounding does not tell",
        notes=[f"spectral radius {e.spectral_radius:.6g}" for e in shown],
        points=[e.stability.multipliers for e in shown],
        kinds=[_sides(e) for e in shown],
        colors=[style.KINDS[kind] for kind in ("stable", "marginal", "unstable")],
    )
    counted = sum(len(e.orbit) for e in search.equilibria)
    if sentences is None:
        sentences = [f"{counted} equilibria found from {search.starts} starts"]
    notes = [
        f"One of each orbit under the symmetries of the dynamics is shown, {len(shown)} of "
        f"{len(ordered)}; attention is that of the layer on the equilibrium, by the definition.",
        f"Another start would find something new with probability about {search.unseen:.2g}.",
    ]
    case = Case("", states.frames, [*states.views(), plane])
    name = title or f"equilibria of the {dynamics.mask.name} mask"
    return Page(name, sentences, settings, [case], [_counts(search)], notes)


def _sides(equilibrium: Equilibrium) -> np.ndarray:
    """Of each multiplier 0 inside the unit circle, 2 outside, 1 where its error does not tell."""
    sizes, errors = np.abs(equilibrium.stability.multipliers), equilibrium.stability.errors
    return (sizes + errors >= 1).astype(int) + (sizes - errors > 1)


def _turned(equilibrium: Equilibrium) -> str:
    return "" if equilibrium.type == "fixed" else f", {equilibrium.type}"


def _counts(search: Search) -> Bars:
    """How many there are of each rank, by stability."""
    rows = search.table()
    return Bars(
        title="equilibria found", note="orbits are counted whole", x_label="rank", y_label="number",
        x=[str(row["rank"]) for row in rows],
        series=[
            (kind, colour, [row[kind] for row in rows]) for kind, colour in style.KINDS.items()
        ],
    )  # fmt: skip
