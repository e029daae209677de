"""Measures of a state: how far from consensus, from rank one; how many directions are in use.

Every function takes tokens X of shape (..., N, d) and returns an array of shape (...). sigma_1 >=
sigma_2 >= ... are the singular values of X, taken from X itself, never from its Gram matrix. By
convention a zero matrix has rank and effective ranks 0, and a zero token has cosine 0 with all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import numpy as np

from dynsim.values import real_array

__all__ = [
    "CHEAP",
    "DEFAULT",
    "EVERY_LAYER",
    "MEASURES",
    "Measure",
    "clusters",
    "deviation_effective_rank",
    "deviation_stable_rank",
    "deviations",
    "dong_residual",
    "effective_rank",
    "floor",
    "frobenius_norm",
    "log10_mu",
    "log10_mu_error",
    "mean_abs_cosine",
    "mean_cosine",
    "min_cosine",
    "mu",
    "norm_max",
    "norm_min",
    "observe",
    "participation_ratio",
    "rank",
    "rank_is_sure",
    "rank_one_distance",
    "sigma_max",
    "sigma_min",
    "singular_values",
    "stable_rank",
]

#: A singular value counts towards the numerical rank above this many machine epsilons of the
#: largest: a share of 9e-13 for float64 tokens, 5e-4 for float32.
RANK_TOLERANCE = 4096
#: Error of tokens over ||X||_F, in machine epsilons of their type, after a layer.
SHARE = 8.0


def _scaled(x) -> tuple[np.ndarray, np.ndarray]:
    """x in units of its largest entry, and that unit: squares then neither vanish nor overflow."""
    x = real_array("tokens", x)
    unit = np.abs(x).max(axis=(-2, -1))
    unit = np.where(unit > 0, unit, 1.0)
    return x / unit[..., None, None], unit


def _ratio(numerator, denominator):
    """numerator / denominator, and 0 where the denominator is 0 (a zero matrix)."""
    out = np.zeros(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)))
    return np.divide(numerator, denominator, out=out, where=np.asarray(denominator) > 0)


def _of_scaled(formula):
    """Make a measure of tokens from a formula of tokens in units of their largest entry.

    The formula stays at hand as ``measure.formula``, so that one scaling serves many.
    """

    @wraps(formula)
    def measure(x):
        return formula(*_scaled(x))

    del measure.__wrapped__  # the signature is (x), not the formula's
    measure.formula = formula
    return measure


# --- distances ----------------------------------------------------------------------------------


def deviations(x):
    """Tokens less their mean, (..., N, d); exactly 0 for equal tokens, however many they are."""
    x = x - x[..., :1, :]
    return x - x.mean(axis=-2, keepdims=True)


@_of_scaled
def mu(z, unit):
    """Distance to consensus: mu(X) = ||X - 1 1^T X / N||_F (WU, arXiv 2405.18781, section 3).

    mu^2 = sum_ij ||x_i - x_j||^2 / (2 N). Zero exactly when all tokens are equal.

    >>> float(mu([[1.0, 0.0], [-1.0, 0.0]]))
    1.4142135623730951
    """
    return unit * np.sqrt(np.sum(deviations(z) ** 2, axis=(-2, -1)))


def log10_mu(x):
    """log10 of mu; -inf when all tokens are equal.

    The engine "logscale" knows it from mu's own logarithm, to 10^-100000 and beyond; from tokens
    it has their floor (see `floor`).
    """
    with np.errstate(divide="ignore"):
        return np.log10(mu(x))


def log10_mu_error(x):
    """Estimate of the error of log10_mu by rounding: floor / mu, in units of log10.

    The engine "logscale" adds it up from layer to layer.
    """
    x = np.asarray(x)
    dtype = x.dtype if x.dtype == np.float32 else np.float64
    with np.errstate(divide="ignore", invalid="ignore"):
        return relative_floor(mu(x), frobenius_norm(x), dtype)


def relative_floor(mu, frobenius, dtype=np.float64):
    """floor / (mu ln 10); infinite for mu = 0, but 0 for tokens that are all 0."""
    frobenius = np.asarray(frobenius)
    return np.where(frobenius == 0, 0.0, floor(frobenius, dtype) / mu / np.log(10.0))


def dong_residual(x):
    """||R||_{1,inf} = sqrt(||R||_1 ||R||_inf), R = X - 1 mean(X) (DONG, arXiv 2103.03404).

    ||R||_1 is the largest column sum and ||R||_inf the largest row sum of |R|. DONG subtract the
    row that minimises the norm; the mean is what their code, and this, use.
    """
    residual = np.abs(deviations(real_array("tokens", x)))
    columns, rows = residual.sum(axis=-2).max(axis=-1), residual.sum(axis=-1).max(axis=-1)
    return np.sqrt(columns) * np.sqrt(rows)


def floor(frobenius, dtype=np.float64):
    """The mu (or sigma) below which tokens show rounding: 8 machine eps times ||X||_F.

    Above 1e-16 ||X||_F because a layer of rounded sums leaves a few ulps in every entry. `dtype`
    is that of the tokens.
    """
    return SHARE * float(np.finfo(dtype).eps) * np.asarray(frobenius)


# --- singular values and ranks ------------------------------------------------------------------


def singular_values(x):
    """All singular values, largest first: (..., min(N, d)); in float32 for float32 tokens.

    X is multiplied by a power of two, which changes no digit: from equal tokens rounding leaves
    columns of 1, 1e-16, 1e-32, ..., and where these get below 1e-308 arithmetic is slow.
    """
    z = real_array("tokens", x)
    shift = 440 - np.frexp(np.abs(z).max(axis=(-2, -1)))[1]  # LAPACK scales above 2**459 itself
    sigma = np.linalg.svd(np.ldexp(z, shift[..., None, None]), compute_uv=False)
    sigma = np.ldexp(sigma, -shift[..., None])
    return sigma.astype(np.float32) if np.asarray(x).dtype == np.float32 else sigma


def _of_singular_values(formula):
    """Make a measure of tokens from a formula of their singular values.

    The formula stays at hand as ``measure.formula``, so that one decomposition serves many.
    """

    @wraps(formula)
    def measure(x):
        return formula(singular_values(x))

    del measure.__wrapped__  # the signature is (x), not the formula's
    measure.formula = formula
    return measure


def _squares(sigma):
    """(sigma_k / sigma_1)^2: nothing under- or overflows; zeros for a zero matrix."""
    return _ratio(sigma, sigma[..., :1]) ** 2


@_of_singular_values
def rank_one_distance(sigma):
    """Distance to the nearest rank-one matrix: sqrt(sum_{k >= 2} sigma_k^2) (Eckart-Young).

    Not mu: antipodal tokens are rank one and far from consensus.

    >>> float(rank_one_distance([[1.0, 0.0], [-1.0, 0.0]]))
    0.0
    """
    return sigma[..., 0] * np.sqrt(np.sum(_squares(sigma)[..., 1:], axis=-1))


@_of_singular_values
def rank(sigma):
    """Numerical rank: how many sigma_k exceed RANK_TOLERANCE machine epsilons of sigma_1."""
    tolerance = RANK_TOLERANCE * np.finfo(sigma.dtype).eps
    return np.sum(sigma > tolerance * sigma[..., :1], axis=-1).astype(np.float64)


def rank_is_sure(x):
    """False where a singular value lies within a factor 100 of the edge of the numerical rank: what
    the rank is then depends on where the edge is, or on rounding. True for a zero matrix."""
    sigma = singular_values(x)
    share = _ratio(sigma, RANK_TOLERANCE * np.finfo(sigma.dtype).eps * sigma[..., :1])
    return ~np.any((share > 0.01) & (share < 100.0), axis=-1)


@_of_singular_values
def stable_rank(sigma):
    """||X||_F^2 / ||X||_2^2 = sum sigma^2 / sigma_1^2, between 1 and the rank."""
    return np.sum(_squares(sigma), axis=-1)


@_of_singular_values
def effective_rank(sigma):
    """exp(-sum p log p) with p = sigma / sum sigma (Roy and Vetterli, EUSIPCO 2007)."""
    p = _ratio(sigma, np.sum(sigma, axis=-1, keepdims=True))
    entropy = -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)
    return np.where(sigma[..., 0] > 0, np.exp(entropy), 0.0)


@_of_singular_values
def participation_ratio(sigma):
    """(sum sigma^2)^2 / sum sigma^4: the number of directions that share the variance."""
    squares = _squares(sigma)
    return _ratio(np.sum(squares, axis=-1) ** 2, np.sum(squares**2, axis=-1))


@_of_singular_values
def sigma_max(sigma):
    """The largest singular value ||X||_2."""
    return sigma[..., 0]


@_of_singular_values
def sigma_min(sigma):
    """The smallest of the min(N, d) singular values."""
    return sigma[..., -1]


def _of_deviations(formula):
    """As `_of_singular_values`, for those of the tokens less their mean."""
    of_tokens = _of_singular_values(formula)

    @wraps(formula)
    def measure(x):
        return of_tokens(deviations(real_array("tokens", x)))

    del measure.__wrapped__  # the signature is (x), not the formula's
    measure.formula = formula
    return measure


@_of_deviations
def deviation_stable_rank(sigma):
    """Stable rank of the tokens less their mean: how many directions collapse together.

    The engine "logscale" gives it below the floor too, from the shape of the deviation.
    """
    return stable_rank.formula(sigma)


@_of_deviations
def deviation_effective_rank(sigma):
    """Effective rank of the tokens less their mean; see `deviation_stable_rank`."""
    return effective_rank.formula(sigma)


# --- angles and norms ---------------------------------------------------------------------------


def _directions(z):
    return _ratio(z, np.linalg.norm(z, axis=-1, keepdims=True))


@_of_scaled
def mean_cosine(z, unit):
    """Mean cosine over pairs i != j, by sums: (||sum x_i/||x_i|| ||^2 - N) / (N (N - 1)).

    1 for a single token.
    """
    directions = _directions(z)
    n = directions.shape[-2]
    if n == 1:
        return np.ones(directions.shape[:-2])
    squared_sum = np.sum(directions.sum(axis=-2) ** 2, axis=-1)
    return (squared_sum - np.sum(directions**2, axis=(-2, -1))) / (n * (n - 1))


def _over_pairs(x, reduce, combine):
    """combine over blocks of rows of reduce(cosines of the block with tokens, where later)."""
    directions = _directions(_scaled(x)[0])
    n = directions.shape[-2]
    if n == 1:
        return np.ones(directions.shape[:-2])
    found = []
    for start in range(0, n - 1, 256):  # blocks, so that no (N, N) array is made
        block = directions[..., start : start + 256, :]
        cosines = np.clip(block @ np.swapaxes(directions[..., start:, :], -1, -2), -1.0, 1.0)
        rows, columns = cosines.shape[-2:]
        later = np.arange(columns) > np.arange(rows)[:, None]
        found.append(reduce(cosines, later))
    return combine(np.stack(found), axis=0)


def _sum_of_sizes(cosines, where):
    return np.sum(np.abs(cosines), axis=(-2, -1), where=where)


def mean_abs_cosine(x):
    """Mean |cosine| over pairs (WU, arXiv 2405.18781, Fig. 4). O(N^2 d)."""
    n = np.shape(x)[-2]
    pairs = max(1, n * (n - 1) // 2)
    total = _over_pairs(x, _sum_of_sizes, np.sum)
    return total / pairs


def min_cosine(x):
    """Smallest cosine over pairs: phi of WU's Theorem 2 and Corollary 1. O(N^2 d)."""
    return _over_pairs(x, lambda cosines, _: np.min(cosines, axis=(-2, -1)), np.min)


@_of_scaled
def norm_min(z, unit):
    """The smallest token norm."""
    return unit * np.linalg.norm(z, axis=-1).min(axis=-1)


@_of_scaled
def norm_max(z, unit):
    """The largest token norm."""
    return unit * np.linalg.norm(z, axis=-1).max(axis=-1)


@_of_scaled
def frobenius_norm(z, unit):
    """||X||_F."""
    return unit * np.sqrt(np.sum(z**2, axis=(-2, -1)))


def clusters(x, tolerance: float = 1e-3):
    """Number of clusters: components of the graph of pairs with ||x_i - x_j|| <= tolerance * size.

    The size is the root mean square token norm, so the count does not change with scale.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    z, _ = _scaled(x)
    n = z.shape[-2]
    out = np.empty(z.shape[:-2])
    for index in np.ndindex(out.shape):
        tokens = z[index]
        reach = tolerance * np.sqrt(np.mean(np.sum(tokens**2, axis=-1)))
        pairs = cKDTree(tokens).query_pairs(reach, output_type="ndarray")
        graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(n, n))
        out[index] = connected_components(graph, directed=False)[0]
    return out


# --- registry -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """An entry of MEASURES: what `function` needs decides how often it is recorded.

    needs: "sums" or "mu" (every layer), "singular values", "deviations", "pairs" or "attention"
    (on the stride).
    """

    function: Callable | None
    needs: str
    label: str


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
    "attention_entropy": Measure(None, "attention", "attention entropy (nats)"),
}

#: The sums of a state, in the order in which engines return them.
CHEAP = tuple(name for name, measure in MEASURES.items() if measure.needs == "sums")
#: Numbers of a state that are observed together, with what is made of them.
_IN_CACHE = 16_384
#: Recorded at every layer.
EVERY_LAYER = (*CHEAP, "log10_mu", "log10_mu_error")


def observe(x) -> np.ndarray:
    """The measures of CHEAP for samples x (S, N, d): (len(CHEAP), S); NaN where not finite."""
    out = np.full((len(CHEAP), len(x)), np.nan)
    some = max(1, _IN_CACHE // x[0].size)
    for start in range(0, len(x), some):
        part, seen = x[start : start + some], out[:, start : start + some]
        finite = np.isfinite(part).all(axis=(1, 2))
        if finite.all():
            finite = slice(None)
        z, unit = _scaled(part[finite])
        for k, name in enumerate(CHEAP):
            seen[k, finite] = MEASURES[name].function.formula(z, unit)
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
