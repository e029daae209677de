"""What is measured of hidden states: distances, ranks, angles, with sink tokens and without.

A sink token is one with a norm of more than `SINK` times the median of its text, or one that takes
more than `SINK_MASS` of all attention; where that would be more than half of the tokens, none is.
One sink token makes the stable rank about 1 while nothing has collapsed, so every measure of rank
and distance is given for the other tokens as well.
"""

from __future__ import annotations

import numpy as np

from dynsim.measures import angles, distance, spectrum

__all__ = [
    "RANKS",
    "SINK",
    "SINK_MASS",
    "STATE",
    "find_sinks",
    "measure_state",
]

SINK = 8.0
SINK_MASS = 0.3
#: Machine epsilon up to which a Gram matrix in float64 has too few digits.
_HALF_DIGITS = 1e-8

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


def find_sinks(x: np.ndarray, mass: np.ndarray | None = None) -> np.ndarray:
    """True for each sink token of one text, (N,).

    x : (N, d). mass : share of all attention that each token receives, (N,), if known.
    """
    norms = np.linalg.norm(x, axis=-1)
    sinks = norms > SINK * np.median(norms)
    if mass is not None:
        sinks |= mass > SINK_MASS
    return sinks & (2 * sinks.sum() <= len(x))


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
    sinks, gram = find_sinks(x, mass), _gram(x, eps)
    found = _ranks(x, eps, gram)
    others = ~sinks
    rest = found if others.all() else _ranks(x[others], eps, _part(gram, others))
    found |= {f"{name}_without_sinks": rest[name] for name in RANKS}
    norms = np.linalg.norm(x, axis=-1)
    to_ones = _cosines(x, np.ones_like(x))
    return found | {
        "mean_cosine": float(angles.mean_cosine(x)),
        "mean_abs_cosine": _mean_abs_cosine(x, gram),
        "angle_to_ones": _mean_angle(to_ones),
        "cosine_to_ones": float(np.sqrt(x.shape[-1]) * np.abs(to_ones).mean()),
        "norm_median": float(np.median(norms)),
        "norm_max": float(norms.max()),
        "sinks": float(sinks.sum()),
        "tokens": float(len(x)),
        "floor": float(distance.floor(1.0)) * eps / np.finfo(float).eps,
    }


def _cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cosine of each row of x to that of y, (N,); 0 for a row of zeros."""
    sizes = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    cosines = np.divide(np.sum(x * y, axis=-1), sizes, out=np.zeros(len(x)), where=sizes > 0)
    return np.clip(cosines, -1, 1)


def _mean_angle(cosines: np.ndarray) -> float:
    return float(np.degrees(np.arccos(cosines)).mean())


def _gram(x: np.ndarray, eps: float) -> np.ndarray | None:
    """X X^T, from which singular values and cosines are had five times as fast as from X, right to
    1e-8 of the largest; None where it is the larger Gram matrix, or x has more digits than that."""
    return x @ x.T if len(x) <= x.shape[1] and eps > _HALF_DIGITS else None


def _part(gram: np.ndarray | None, tokens: np.ndarray) -> np.ndarray | None:
    return None if gram is None else gram[np.ix_(tokens, tokens)]


def _mean_abs_cosine(x: np.ndarray, gram: np.ndarray | None) -> float:
    if gram is None:
        return float(angles.mean_abs_cosine(x))
    norms = np.sqrt(np.diagonal(gram))
    sizes = np.outer(norms, norms)
    cosines = np.divide(np.abs(gram), sizes, out=np.zeros_like(gram), where=sizes > 0)
    n = len(x)
    return float((cosines.sum() - np.trace(cosines)) / (n * (n - 1)))


def _ranks(x: np.ndarray, eps: float, gram: np.ndarray | None) -> dict[str, float]:
    """RANKS and the ends of the spectrum."""
    size, mu = float(distance.frobenius_norm(x)), float(distance.mu(x))
    sigma = _singular_values(x, eps, gram)
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


def _singular_values(x: np.ndarray, eps: float, gram: np.ndarray | None) -> np.ndarray:
    """Largest first, from the smaller Gram matrix where that has digits enough."""
    if eps <= _HALF_DIGITS:
        return spectrum.singular_values(x)
    gram = x.T @ x if gram is None else gram
    return np.sqrt(np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None))


def _where(x: np.ndarray) -> str:
    token, k = np.argwhere(~np.isfinite(x))[0]
    return f"{x[token, k]} in dimension {k} of token {token}"
