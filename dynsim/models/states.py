"""What is measured of hidden states: distances, ranks, angles, with sink tokens and without.

A sink token is one with a norm of more than `SINK` times the median of its text, or one that takes
more than `SINK_MASS` of all attention. One such token makes the stable rank about 1 while nothing
has collapsed, so every measure of rank and distance is given for the other tokens as well.
"""

from __future__ import annotations

import numpy as np

from dynsim.measures import angles, distance, spectrum

__all__ = [
    "NORM",
    "RANKS",
    "SINK",
    "SINK_MASS",
    "STATE",
    "find_sinks",
    "measure_norm",
    "measure_state",
]

SINK = 8.0
SINK_MASS = 0.3

#: Measures that are given with sink tokens and, as `NAME_without_sinks`, without.
RANKS = {
    "mu": "distance to consensus",
    "relative_mu": "mu / ||X||",
    "rank_one_distance": "distance to rank one over ||X||",
    "stable_rank": "stable rank",
    "effective_rank": "effective rank",
    "rank": "numerical rank",
}
#: All measures of a state, by name, and what they are.
STATE = {
    **RANKS,
    **{f"{name}_without_sinks": f"{what}, sink tokens left out" for name, what in RANKS.items()},
    "sigma_max": "largest singular value",
    "sigma_min": "smallest singular value",
    "mean_cosine": "mean cosine of pairs of tokens",
    "mean_abs_cosine": "mean |cosine| of pairs of tokens",
    "angle_to_ones": "mean angle to the vector of ones (degrees); 90 for random directions",
    "cosine_to_ones": "mean sqrt(d) |cosine to the vector of ones|; .8 for random directions",
    "norm_median": "median norm of a token",
    "norm_max": "largest norm of a token",
    "sinks": "number of sink tokens",
    "tokens": "number of tokens",
    "floor": "mu / ||X|| below which rounding of the model's type decides",
}

#: What a norm does to the tokens of a text, by name.
NORM = {
    "norm_before": "median norm of a token before",
    "norm_after": "median norm of a token after",
    "rotation": "angle between a token before and after, mean over tokens (degrees)",
    "angle_before": "angle to the vector of ones before, mean over tokens (degrees)",
    "angle_after": "angle to the vector of ones after, mean over tokens (degrees)",
}


def find_sinks(x: np.ndarray, mass: np.ndarray | None = None) -> np.ndarray:
    """True for each sink token of one text, (N,).

    x : (N, d). mass : share of all attention that each token receives, (N,), if known.
    """
    norms = np.linalg.norm(x, axis=-1)
    sinks = norms > SINK * np.median(norms)
    if mass is not None and len(x) > 2:  # among two tokens one always takes more than that
        sinks |= mass > SINK_MASS
    return sinks


def measure_state(x: np.ndarray, eps: float, mass: np.ndarray | None = None) -> dict[str, float]:
    """All of STATE for the tokens of one text.

    Parameters
    ----------
    x : array (N, d)
        Float64, of whatever type the model computes in.
    eps : float
        Machine epsilon of that type.
    mass : array (N,), optional
        Share of all attention that each token receives.

    Raises
    ------
    FloatingPointError
        When a number is not finite.

    >>> found = measure_state(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 1e-7)
    >>> round(found["relative_mu"], 4), found["rank"], found["sinks"]
    (0.5774, 2.0, 0.0)
    """
    if not np.isfinite(x).all():
        raise FloatingPointError(f"hidden states are not finite: {_where(x)}")
    sinks = find_sinks(x, mass)
    found = _ranks(x, eps)
    others = x[~sinks]
    rest = found if not sinks.any() else _ranks(others, eps)
    found |= {f"{name}_without_sinks": rest[name] for name in RANKS}
    norms = np.linalg.norm(x, axis=-1)
    to_ones = _cosines(x, np.ones_like(x))
    return found | {
        "mean_cosine": float(angles.mean_cosine(x)),
        "mean_abs_cosine": float(angles.mean_abs_cosine(x)),
        "angle_to_ones": _mean_angle(to_ones),
        "cosine_to_ones": float(np.sqrt(x.shape[-1]) * np.abs(to_ones).mean()),
        "norm_median": float(np.median(norms)),
        "norm_max": float(norms.max()),
        "sinks": float(sinks.sum()),
        "tokens": float(len(x)),
        "floor": float(distance.floor(1.0)) * eps / np.finfo(float).eps,
    }


def measure_norm(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """All of NORM for the tokens of one text, (N, d) each (GUPTA, arXiv 2409.12951).

    >>> found = measure_norm(np.array([[1.0, 3.0]]), np.array([[-1.0, 1.0]]))
    >>> round(found["rotation"], 2), round(found["angle_after"], 2)
    (63.43, 90.0)
    """
    ones = np.ones_like(before)
    return {
        "norm_before": float(np.median(np.linalg.norm(before, axis=-1))),
        "norm_after": float(np.median(np.linalg.norm(after, axis=-1))),
        "rotation": _mean_angle(_cosines(before, after)),
        "angle_before": _mean_angle(_cosines(before, ones)),
        "angle_after": _mean_angle(_cosines(after, ones)),
    }


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of each row of x to that of y, (N,); 0 for a row of zeros."""
    sizes = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    cosines = np.divide(np.sum(x * y, axis=-1), sizes, out=np.zeros(len(x)), where=sizes > 0)
    return np.clip(cosines, -1, 1)


def _mean_angle(cosines: np.ndarray) -> float:
    return float(np.degrees(np.arccos(cosines)).mean())


def _ranks(x: np.ndarray, eps: float) -> dict[str, float]:
    """RANKS and the ends of the spectrum; of no tokens or one, those of rank one."""
    size, mu = float(distance.frobenius_norm(x)), float(distance.mu(x))
    sigma = _singular_values(x, eps)
    rtol = min(0.1, distance.SHARE * eps)
    return {
        "mu": mu,
        "relative_mu": mu / size if size else 0.0,
        "rank_one_distance": float(spectrum.rank_one_distance.formula(sigma)) / (size or 1.0),
        "stable_rank": float(spectrum.stable_rank.formula(sigma)),
        "effective_rank": float(spectrum.effective_rank.formula(sigma)),
        "rank": float(spectrum.numerical_rank(sigma, rtol)),
        "sigma_max": float(sigma[0]),
        "sigma_min": float(sigma[-1]),
    }


def _singular_values(x: np.ndarray, eps: float) -> np.ndarray:
    """Largest first. From the smaller Gram matrix, five times as fast and right to 1e-8 of the
    largest, unless x has more digits than that."""
    if eps < 1e-10:
        return spectrum.singular_values(x)
    unit = np.abs(x).max() or 1.0
    z = x / unit
    gram = z @ z.T if len(z) <= z.shape[1] else z.T @ z
    return unit * np.sqrt(np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None))


def _where(x: np.ndarray) -> str:
    token, k = np.argwhere(~np.isfinite(x))[0]
    return f"{x[token, k]} in dimension {k} of token {token}"
