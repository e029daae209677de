"""Is a model collapsing, layer by layer? One sentence, a class, and the numbers it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

__all__ = ["Diagnosis", "diagnose"]

#: mu / ||X|| below which the tokens of a text are called collapsed.
COLLAPSED = 0.01
#: The share of mu / ||X|| that must go from the first to the last layer to be called falling.
FALLING, SLOWLY = 0.5, 0.8
#: Stable rank below which a text is in all but name of rank one.
RANK_ONE = 1.5


@dataclass(frozen=True)
class Diagnosis:
    """`kind`: collapsed, collapsing, slowly collapsing, rank one, sink only or healthy."""

    kind: str
    sentence: str
    numbers: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def diagnose(measures: Mapping[str, np.ndarray]) -> Diagnosis:
    """The diagnosis of measures by (layer, text), the first layer being the embeddings.

    What is judged is mu / ||X|| of the tokens that are no sinks, by its median over texts.
    """

    def at(name: str, k: int) -> float:
        return float(np.median(measures[name][k]))

    mu = np.median(measures["relative_mu_without_sinks"], axis=1)
    first, last, least = float(mu[0]), float(mu[-1]), int(mu.argmin())
    lowest = int(np.median(measures["stable_rank"], axis=1).argmin())
    stable, others = at("stable_rank", lowest), at("stable_rank_without_sinks", lowest)
    with_sinks = float(np.mean(measures["sinks"].max(axis=0) > 0))
    numbers = {
        "mu_first": first,
        "mu_last": last,
        "mu_least": float(mu[least]),
        "layer_of_least_mu": least,
        "least_stable_rank": stable,
        "its_layer": lowest,
        "the_same_without_sinks": others,
        "samples_with_sinks": with_sinks,
        "floor": at("floor", -1),
    }
    fall = f"mu / ||X|| goes from {first:.2g} at the embeddings to {last:.2g} after the last block"
    if last < max(COLLAPSED, numbers["floor"]):
        kind, said = "collapsed", f"collapsed: {fall}"
    elif last < FALLING * first:
        kind, said = "collapsing", f"collapsing: {fall}"
    elif last < SLOWLY * first:
        kind, said = "slowly collapsing", f"slowly collapsing: {fall}"
    elif others < RANK_ONE:
        kind = "rank one"
        said = (f"near rank one, not near consensus: stable rank {others:.3g} after block "
                f"{lowest - 1}, while {fall}")  # fmt: skip
    elif stable < RANK_ONE:
        kind = "sink only"
        said = (f"not collapsing: the stable rank of {stable:.3g} after block {lowest - 1} is that "
                f"of a sink token ({others:.3g} without); {fall}")  # fmt: skip
    else:
        kind, said = "healthy", f"healthy: {fall}, with a stable rank of at least {stable:.3g}"
    return Diagnosis(kind, said, numbers)
