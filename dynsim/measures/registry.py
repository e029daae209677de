"""Every measure by name, and which are recorded when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from dynsim.measures.angles import (
    clusters,
    interaction_energy,
    mean_abs_cosine,
    mean_cosine,
    min_cosine,
    norm_max,
    norm_min,
)
from dynsim.measures.distance import dong_residual, frobenius_norm, log10_mu, log10_mu_error, mu
from dynsim.measures.scaling import OfFormula, scaled
from dynsim.measures.sinks import mu_without_first, stable_rank_without_first
from dynsim.measures.spectrum import (
    deviation_effective_rank,
    deviation_stable_rank,
    effective_rank,
    participation_ratio,
    rank,
    rank_one_distance,
    sigma_max,
    sigma_min,
    stable_rank,
)

__all__ = ["CHEAP", "DEFAULT", "EVERY_LAYER", "MEASURES", "Measure", "observe"]


@dataclass(frozen=True)
class Measure:
    """An entry of MEASURES: what `function` needs decides how often it is recorded.

    needs: "sums" or "mu" (every layer), "singular values", "deviations", "pairs", "others" (tokens
    without the first) or "attention" (on the stride).
    """

    function: Callable | None
    needs: str
    label: str

    @property
    def formula(self) -> Callable:
        """Of what it needs: "sums", "singular values" or "deviations", made once for many."""
        return cast(OfFormula, self.function).formula


#: Every measure by name. `attention_entropy` needs the dynamics: engines compute it.
MEASURES = {
    "mu": Measure(mu, "sums", "distance to consensus"),
    "mean_cosine": Measure(mean_cosine, "sums", "mean pairwise cosine"),
    "norm_min": Measure(norm_min, "sums", "smallest token norm"),
    "norm_max": Measure(norm_max, "sums", "largest token norm"),
    "frobenius_norm": Measure(frobenius_norm, "sums", "Frobenius norm"),
    "log10_mu": Measure(log10_mu, "mu", "log10 of the distance to consensus"),
    "log10_mu_error": Measure(log10_mu_error, "mu", "error of this log10, by rounding"),
    "rank_one_distance": Measure(rank_one_distance, "singular values", "distance to rank one"),
    "rank": Measure(rank, "singular values", "numerical rank"),
    "stable_rank": Measure(stable_rank, "singular values", "stable rank"),
    "effective_rank": Measure(effective_rank, "singular values", "effective rank"),
    "participation_ratio": Measure(participation_ratio, "singular values", "participation ratio"),
    "sigma_max": Measure(sigma_max, "singular values", "largest singular value"),
    "sigma_min": Measure(sigma_min, "singular values", "smallest singular value"),
    "deviation_stable_rank": Measure(
        deviation_stable_rank, "deviations", "stable rank of the deviation"
    ),
    "deviation_effective_rank": Measure(
        deviation_effective_rank, "deviations", "effective rank of the deviation"
    ),
    "dong_residual": Measure(dong_residual, "pairs", "DONG residual"),
    "mean_abs_cosine": Measure(mean_abs_cosine, "pairs", "mean |cosine|"),
    "min_cosine": Measure(min_cosine, "pairs", "smallest cosine"),
    "clusters": Measure(clusters, "pairs", "clusters"),
    "interaction_energy": Measure(interaction_energy, "pairs", "interaction energy, beta = 1"),
    "mu_without_first": Measure(
        mu_without_first, "others", "distance to consensus without the first token"
    ),
    "stable_rank_without_first": Measure(
        stable_rank_without_first, "others", "stable rank without the first token"
    ),
    "attention_entropy": Measure(None, "attention", "attention entropy (nats)"),
}

#: The sums of a state, in the order in which engines return them.
CHEAP = tuple(name for name, measure in MEASURES.items() if measure.needs == "sums")
#: Numbers of a state that are observed together, with what is made of them.
_IN_CACHE = 16_384
#: Recorded at every layer.
EVERY_LAYER = (*CHEAP, "log10_mu", "log10_mu_error")


def observe(x: np.ndarray) -> np.ndarray:
    """The measures of CHEAP for samples x (S, N, d): (len(CHEAP), S); NaN where not finite.

    >>> dict(zip(CHEAP, observe(np.ones((1, 4, 9))).ravel().tolist()))
    {'mu': 0.0, 'mean_cosine': 1.0, 'norm_min': 3.0, 'norm_max': 3.0, 'frobenius_norm': 6.0}
    """
    out = np.full((len(CHEAP), len(x)), np.nan)
    some = max(1, _IN_CACHE // x[0].size)
    for start in range(0, len(x), some):
        part, sums = x[start : start + some], out[:, start : start + some]
        whole = np.isfinite(part).all(axis=(1, 2))
        finite = slice(None) if whole.all() else whole
        z, unit = scaled(part[finite])
        for k, name in enumerate(CHEAP):
            sums[k, finite] = MEASURES[name].formula(z, unit)
    return out


#: Recorded unless asked otherwise.
DEFAULT = (
    *EVERY_LAYER,
    "rank_one_distance",
    "rank",
    "stable_rank",
    "effective_rank",
    "sigma_min",
    "sigma_max",
    "min_cosine",
    "attention_entropy",
)
