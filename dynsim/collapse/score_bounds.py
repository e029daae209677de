"""Bounds on mu with every constant in plain sight, from a bound of the scores alone.

Where all scores lie within +-B, attention on an edge is at least 1 / (1 + (deg - 1) e^(2B)) (lemma
`attention-floor`), that is at least c times the uniform walk U, c = min_i deg_i / (1 + (deg_i - 1)
e^(2B)) >= e^(-2B). Products of r layers are at least c^r U^r, so that their coefficient of
ergodicity is at most 1 - c^r (1 - tau(U^r)) (lemma `walk-floor`): the best r is taken. WU's
Theorem 1 (arXiv 2405.18781) keeps of this one entry, eps^r: 1 - eps^r with eps = e^(-2B) / N in
place of 1 - c under the complete mask, where the first tends to 1 as N grows and c does not.

QK-norm bounds the scores by its gain, whatever weights and tokens are; without it unit tokens do,
by ||M||_2. With the unit norm after attention and orthogonal W_V the tokens move in a chart of
their hemisphere (lemma `hemisphere`), where heights h act as scores log h: 2B + log(h_max / h_min)
takes the place of 2B. All is computed in floating point, to rounding; `dynsim.bounds` has proofs in
ball arithmetic, which need the tokens of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import real_array, real_number, whole
from dynsim.collapse.bounds import Bound, Bounds
from dynsim.collapse.contraction import dobrushin_coefficient, pole
from dynsim.masks.connectivity import is_quasi_strongly_connected, radius
from dynsim.network.attention import QKNorm
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.norms import NoNorm, Unit
from dynsim.network.parts import check_plain, reason_against
from dynsim.network.positions import RoPE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["attention_floor", "largest_score", "score_bounds", "walk_floor"]

#: Matrices are orthogonal up to a factor, and tokens of length 1, to this.
_ORTHOGONAL = 1e-10
#: Powers of the walk that are tried as blocks.
_MOST_LAYERS = 256


def attention_floor(score_bound: float, degree: ArrayLike) -> np.ndarray:
    """The least attention on an edge of a token that attends to `degree` tokens, |scores| <= B.

    1 / (1 + (degree - 1) e^(2 B)), attained (lemma `attention-floor`).

    >>> float(attention_floor(0.0, 8)), float(attention_floor(1.0, 8).round(5))
    (0.125, 0.01897)
    """
    B, degree = _score_bound(score_bound), real_array("degrees", degree)
    return 1.0 / (1.0 + (degree - 1.0) * np.exp(2.0 * B))


def walk_floor(score_bound: float, degrees: ArrayLike) -> float:
    """c = min_i deg_i / (1 + (deg_i - 1) e^(2 B)): attention is at least c times the uniform walk.

    >>> round(walk_floor(1.0, [1, 2, 8]), 5)
    0.15174
    """
    degrees = real_array("degrees", degrees)
    return float(np.min(degrees * attention_floor(score_bound, degrees)))


def _score_bound(value: float) -> float:
    B = real_number("the bound of scores", value)
    if not (np.isfinite(B) and B >= 0):
        raise ValueError(f"a bound of |scores| is finite and at least 0; got {B}")
    return B


def largest_score(dynamics: AttentionDynamics, x0: ArrayLike, depth: int) -> float:
    """B with |scores| <= B in all of `depth` layers from tokens x0.

    With QK-norm the product of its gains, times sqrt(p) for the kind "rms", p numbers a key: from
    no tokens and no weights at all. Without, where the unit norm stands before attention, or after
    it and x0 has unit tokens: |x_i M x_j| <= ||M||_2, with a query bias |x_i M x_j + u x_j| <=
    ||M||_2 + ||u||.

    Raises ValueError where tokens may grow, so that there is no such bound.
    """
    check_dynamics(dynamics)
    x0 = real_array("tokens", x0, axes=2)
    depth = whole("depth", depth, least=1)
    check_plain(dynamics, "a bound of scores", ("qk_norm", "skip", "placement", "gate", RoPE))
    if isinstance(dynamics.qk_norm, QKNorm):
        width = dynamics.weights.layer(0, x0.shape[-1]).query.shape[2]
        return _largest_gain(dynamics.qk_norm, width, depth)
    sizes = np.linalg.norm(x0, axis=-1)
    is_unit = all(isinstance(norm, Unit) for norm in dynamics.norm.each)
    places = [dynamics.places(t) for t in range(depth)]
    before = all("before" in names for names in places)
    after = all("after" in names for names in places)
    on_sphere = before or (after and np.all(np.abs(sizes - 1.0) <= 1e-9))
    if not (is_unit and on_sphere and not dynamics.mlp.active):
        raise ValueError(
            "scores are bounded where attention sees unit tokens: the norm Unit() before it, or "
            "after it and unit tokens as input, and no MLP; give the bound itself, score_bound=..."
        )
    layers = 1 if dynamics.weights.is_constant else depth
    largest = 0.0
    for t in range(layers):
        layer = dynamics.weights.layer(t, x0.shape[-1])
        keys = layer.key if layer.key.size else np.eye(x0.shape[-1])[None]
        biases = np.linalg.norm(keys @ layer.query_bias[..., None], axis=(-2, -1))
        largest = max(largest, float(np.max(np.linalg.norm(layer.M, 2, axis=(1, 2)) + biases)))
    return largest


def _largest_gain(qk_norm: QKNorm, width: int, depth: int) -> float:
    """Queries and keys of length 1, or sqrt(p), times their gains: Cauchy and Schwarz."""
    largest = 0.0
    for t in range(1 if qk_norm.is_constant else depth):
        query_gain, key_gain, _ = qk_norm.layer(t).factors(width)
        largest = max(largest, float(np.abs(query_gain).max() * np.abs(key_gain).max()))
    return largest


def score_bounds(
    dynamics: AttentionDynamics, x0: ArrayLike, depth: int, score_bound: float | None = None
) -> Bounds:
    """Bounds of mu for `depth` layers from tokens x0, (N, d) or (samples, N, d), by name.

    "WU theorem 1, explicit eps" and "walk" without norm; "walk in the hemisphere" with the unit
    norm after attention, orthogonal W_V and unit tokens that lie in a hemisphere. One head, no
    skip connection, no MLP.

    score_bound : B with |scores| <= B in all layers; that of `largest_score` unless given.

    Raises ValueError for a bound that is none, and for a mask without a center node.

    >>> from dynsim import masks, tokens
    >>> from dynsim.network import weights
    >>> pure = AttentionDynamics(masks.complete(8), weights.Identity())
    >>> print(score_bounds(pure, tokens.sphere(1, 8, 3), depth=1, score_bound=0.5)["walk"])
    walk: mu <= 10^0.3492 at depth 1 (B = 0.5, c = 0.3994, r = 1)
    """
    check_dynamics(dynamics)
    dynamics.require_deterministic("a bound")
    x0 = real_array("tokens", x0)
    dynamics.check_tokens(x0)
    depth = whole("depth", depth, least=1)
    if dynamics.n_tokens == 1:
        raise ValueError("one token is always at consensus; give two or more")
    if not is_quasi_strongly_connected(dynamics.mask):
        raise ValueError("a mask without a center node brings tokens together nowhere")
    B = largest_score(dynamics, x0, depth) if score_bound is None else _score_bound(score_bound)
    tokens = x0.reshape(-1, *x0.shape[-2:])
    blocks = _Blocks(dynamics.allowed(), B, depth)
    reason = _reason_against(dynamics, tokens, depth)
    made = {name: _bound_of(name, dynamics, tokens, blocks, reason) for name in _BOUNDS}
    unknown = np.array([-np.inf, np.inf])[:, None, None]
    return Bounds(made, log10_mu=np.broadcast_to(unknown, (2, len(tokens), depth + 1)))


def _reason_against(dynamics: AttentionDynamics, x0: np.ndarray, depth: int) -> str:
    """Why no bound applies; empty where some may."""
    heads = len(dynamics.weights.layer(0, x0.shape[-1]).query)
    if heads > 1:
        return f"there are {heads} heads; it is for one"
    unusual = reason_against(dynamics, ("qk_norm", RoPE))
    if unusual is not None:
        return f"it is {unusual}"
    if dynamics.residual.has_skip:
        return "there is a skip connection"
    if dynamics.mlp.active:
        return "there is an MLP"
    return ""


class _Blocks:
    """The uniform walk's powers, as far as blocks of so many layers can be the best.

    depth : layers. B : bound of the scores. coefficients : tau(U^r) by r.
    """

    def __init__(self, allowed: np.ndarray, B: float, depth: int) -> None:
        self.B, self.depth = B, depth
        self.degrees = np.unique(allowed.sum(axis=1))
        walk = allowed / allowed.sum(axis=1, keepdims=True)
        self.coefficients: dict[int, float] = {}
        power, best = np.eye(len(walk)), 0.0
        for r in range(1, min(depth, _MOST_LAYERS) + 1):
            power = walk @ power
            self.coefficients[r] = float(dobrushin_coefficient(power))
            best = max(best, self.gain(r) / r)
            if self.floor() ** (r + 1) <= best * (r + 1):
                break

    def floor(self, more: float = 0.0) -> float:
        """c where scores of a row differ by `more` than 2 B."""
        return walk_floor(self.B + more / 2.0, self.degrees)

    def gain(self, r: int, more: float = 0.0) -> float:
        """How much r layers bring tokens together at least: 1 - tau of their product."""
        return self.floor(more) ** r * (1.0 - self.coefficients[r])

    def log_left(self, r: int, more: float = 0.0) -> float:
        """log(1 - gain): -inf where r layers make all tokens equal."""
        with np.errstate(divide="ignore"):
            return float(np.log1p(-self.gain(r, more)))

    def fall(self, r: int) -> np.ndarray:
        """log of what blocks of r layers leave of a diameter, (depth + 1,)."""
        whole = self.blocks(r)
        return np.where(whole > 0, self.log_left(r) * np.maximum(whole, 1), 0.0)

    def blocks(self, r: int) -> np.ndarray:
        """Whole blocks of r layers before each depth, (depth + 1,)."""
        return np.arange(self.depth + 1) // r


def _diameter(x: np.ndarray) -> float:
    from scipy.spatial.distance import pdist

    return float(pdist(x).max())


def _log(value: float) -> float:
    with np.errstate(divide="ignore"):
        return float(np.log(value))


def _log_values(dynamics: AttentionDynamics, d: int, depth: int) -> np.ndarray:
    """log ||W_V^(0) ... W_V^(t-1)||_2, (depth + 1,), by products kept at size 1."""
    logs, product, total = np.zeros(depth + 1), np.eye(d), 0.0
    for t in range(depth):
        product = product @ dynamics.weights.layer(t, d).W_V[0]
        size = float(np.linalg.norm(product, 2))
        if size == 0.0:
            logs[t + 1 :] = -np.inf
            break
        product, total = product / size, total + np.log(size)
        logs[t + 1] = total
    return logs


def _without_norm(dynamics: AttentionDynamics, x0: np.ndarray, depth: int) -> np.ndarray:
    """log of sqrt((N - 1) / 2) diameter ||W_V ... W_V||, (samples, depth + 1)."""
    if not isinstance(dynamics.norm, NoNorm):
        raise _DoesNotApply("it is for no norm")
    values = _log_values(dynamics, x0.shape[-1], depth)
    starts = np.array([_log(_diameter(x)) for x in x0]) + 0.5 * np.log((x0.shape[1] - 1) / 2.0)
    return starts[:, None] + values


def _theorem_1(
    dynamics: AttentionDynamics, x0: np.ndarray, blocks: _Blocks
) -> tuple[np.ndarray, dict]:
    eps, r = float(attention_floor(blocks.B, blocks.degrees.max())), int(radius(dynamics.mask))
    if not dynamics.layout.has_self_loops:
        raise _DoesNotApply("some token does not attend to itself")
    logs = _without_norm(dynamics, x0, blocks.depth) + blocks.blocks(r) * np.log1p(-(eps**r))
    return logs, {"B": blocks.B, "eps": eps, "r": r}


def _walk(dynamics: AttentionDynamics, x0: np.ndarray, blocks: _Blocks) -> tuple[np.ndarray, dict]:
    falls = {r: blocks.fall(r) for r in blocks.coefficients}
    best = min(falls, key=lambda r: falls[r][-1])
    logs = _without_norm(dynamics, x0, blocks.depth) + np.min(list(falls.values()), axis=0)
    return logs, {"B": blocks.B, "c": blocks.floor(), "r": best}


def _hemisphere(
    dynamics: AttentionDynamics, x0: np.ndarray, blocks: _Blocks
) -> tuple[np.ndarray, dict]:
    if not (isinstance(dynamics.norm, Unit) and dynamics.placement == "post"):
        raise _DoesNotApply("it is for the unit norm after attention")
    if np.any(np.abs(np.linalg.norm(x0, axis=-1) - 1.0) > 1e-9):
        raise _DoesNotApply("tokens of the input are not of length 1")
    _require_orthogonal(dynamics, x0.shape[-1], blocks.depth)
    found = [_in_hemisphere(x, blocks) for x in x0]
    return np.stack([logs for logs, _ in found]), {
        "B": blocks.B, "h": np.array([h for _, h in found]),
    }  # fmt: skip


def _require_orthogonal(dynamics: AttentionDynamics, d: int, depth: int) -> None:
    for t in range(1 if dynamics.weights.is_constant else depth):
        layer = dynamics.weights.layer(t, d)
        gram = layer.W_V[0].T @ layer.W_V[0]
        size = np.trace(gram) / d
        if not (size > 0 and np.abs(gram - size * np.eye(d)).max() <= _ORTHOGONAL * size):
            raise _DoesNotApply(f"W_V of layer {t} is not orthogonal")
        if layer.output_bias.any():
            raise _DoesNotApply("attention has an output bias")


def _in_hemisphere(x: np.ndarray, blocks: _Blocks) -> tuple[np.ndarray, float]:
    """(log of the bound, least height): NaN where the tokens lie in no hemisphere.

    E >= the diameter of the chart p_i = x_i / h_i. Heights in one row differ by a factor of 1 / h
    at most, and of 1 + E, as 1 / h_i = ||p_i|| >= 1.
    """
    v = pole(x)
    if v is None:
        return np.full(blocks.depth + 1, np.nan), np.nan
    heights = x @ v
    h, start = float(heights.min()), _diameter(x / heights[:, None])
    best = np.full(blocks.depth + 1, np.inf)
    for r in blocks.coefficients:
        sizes = [_log(start)]
        for _ in range(blocks.depth // r):
            uneven = min(-np.log(h), np.log1p(np.exp(sizes[-1])))
            sizes.append(sizes[-1] + blocks.log_left(r, uneven))
        best = np.minimum(best, np.array(sizes)[blocks.blocks(r)])
    n = len(x)
    return np.minimum(best + 0.5 * np.log((n - 1) / 2.0), 0.5 * np.log(n)), h


class _DoesNotApply(Exception):
    """A hypothesis fails; the message says which."""


def _bound_of(
    name: str, dynamics: AttentionDynamics, x0: np.ndarray, blocks: _Blocks, reason: str
) -> Bound:
    source, bound = _BOUNDS[name]
    try:
        if reason:
            raise _DoesNotApply(reason)
        logs, constants = bound(dynamics, x0, blocks)
    except _DoesNotApply as fails:
        logs, constants = np.full((len(x0), blocks.depth + 1), np.nan), {}
        return Bound(name, source, logs, constants, dict.fromkeys(range(len(x0)), str(fails)))
    lost = np.flatnonzero(np.isnan(logs[:, -1]))
    words = "the tokens lie in no hemisphere"
    return Bound(name, source, logs / np.log(10.0), constants, {int(k): words for k in lost})


_BOUNDS = {
    "WU theorem 1, explicit eps": ("WU, arXiv 2405.18781, Theorem 1, from B alone", _theorem_1),
    "walk": ("products of layers are at least c^r times the walk's", _walk),
    "walk in the hemisphere": ("the same in the gnomonic chart of a hemisphere", _hemisphere),
}
