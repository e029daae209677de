"""Random networks of infinite width: the Gram matrix of the tokens from layer to layer.

With fresh weights of mean 0 in every layer, G = X X^T / d, (N, N), is all that the next layer
depends on. With attention matrices A one layer is

    K = s^2 E[A G A^T + diag(a / (1 - a) sum_j A_ij^2 G_jj)],  diagonal divided by 1 - p,
    G' = normalised(skip^2 G + branch^2 K),

s^2 / d the variance of the entries of W_V (heads and output included), p the dropout of the
projection and a that of the attention weights. Scores are Gaussian with covariance c G_ik G_jl,
and the expectation is taken to first order in c; for c = 0, A = P, the uniform walk, and K is the
exact expectation of Y Y^T / d given the tokens, for the projection's output Y after dropout, in any
dimension (lemma dropout-gram). That Y Y^T / d is K, and that the norm divides by the expected
length, holds in the limit of many dimensions. mu^2 = d (tr G - 1^T G 1 / N).

Closed forms: under the complete mask without skip, mu^2 = (N - 1) d p from the second layer on
(lemma dropout-level); near consensus under any mask mu^2 = d p sum_t ||C P^t||_F^2, C = I - 11^T/N
(lemma dropout-near-consensus).

It stops where softmax is far from uniform, at scores of large variance: `Gram.spread` is their
standard deviation within a row. At a spread of 1 the first layers err by a few per cent, and where
attention falls fastest by a factor of two; above `MOST_SPREAD` there is no prediction any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynsim._threads import blas_alone
from dynsim._values import real_array, whole
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.norms import Norm
from dynsim.network.parts import check_plain
from dynsim.network.weights import Gaussian, Orthogonal, Sharpened, Weights, Zero

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["MOST_SPREAD", "Gram", "infinite_width", "scales"]

#: Standard deviation of the scores in a row up to which the expectation of softmax is expanded.
MOST_SPREAD = 1.5

#: mu^2 below this share of ||X||^2 is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Gram:
    """What infinite width predicts, by sample and depth; all (samples, T+1).

    mu, frobenius_norm : of the tokens; mu is NaN where it is rounding, both are where an earlier
        spread was above `MOST_SPREAD`.
    spread : standard deviation of the scores in a row about their mean, in the row where it is
        largest.
    """

    mu: np.ndarray
    frobenius_norm: np.ndarray
    spread: np.ndarray


def infinite_width(dynamics: AttentionDynamics, x0: ArrayLike, depth: int) -> Gram:
    """The prediction for `depth` layers from tokens x0, (N, d) or (samples, N, d).

    Norms, weights of skip and branch, placements and the inverse temperature of the scores
    (`dynsim.weights.Sharpened`) may differ by layer.

    Raises ValueError for weights that are not fresh Gaussian or orthogonal values and Gaussian or
    zero scores, for an MLP, for a norm with a bias or with a gain by dimension, for weights of skip
    and branch by dimension, and for parts that it is not known with (`dynsim.network.parts`).

    >>> from dynsim.network import dropout, norms, tokens
    >>> from dynsim import masks
    >>> noisy = AttentionDynamics(
    ...     masks.complete(128), Weights(), norms.LayerNorm(), dropout=dropout.Dropout(hidden=0.1)
    ... )
    >>> x0 = tokens.gaussian(samples=1, n=128, d=768)
    >>> round(float(infinite_width(noisy, x0, depth=3).mu[0, -1]), 2)
    98.76
    """
    check_dynamics(dynamics)
    x0 = real_array("tokens", x0)
    dynamics.check_tokens(x0)
    depth = whole("depth", depth, least=1)
    scale, score = scales(dynamics, x0.shape[-1])
    x0 = x0.reshape(-1, *x0.shape[-2:])
    layers = _Layers(dynamics, x0.shape[-1], scale, score)
    with blas_alone():
        samples = [layers.run(x, depth) for x in x0]
    return Gram(*(np.stack(columns) for columns in zip(*samples, strict=True)))


def scales(dynamics: AttentionDynamics, d: int) -> tuple[float, float]:
    """s^2, and the variance of a score between tokens of mean square 1, but for the inverse
    temperature that `Sharpened` weights have by layer."""
    weights = dynamics.weights
    if isinstance(weights, Sharpened):
        weights = weights.weights
    check_plain(dynamics, "infinite width", ("skip", "placement"))
    if not dynamics.residual.are_numbers:
        raise ValueError(
            "infinite width: not known with weights of skip and branch that differ by dimension; "
            "give numbers"
        )
    for switches in (norm.switches(d) for norm in dynamics.norm.each):
        if np.size(switches.gain) != 1 or np.any(switches.bias):
            raise ValueError("infinite width is for a norm without bias, with one number as gain")
    if dynamics.mlp.active:
        raise ValueError("infinite width is for attention alone; leave out the MLP")
    if not isinstance(weights, Weights) or weights.is_constant:
        raise ValueError("infinite width is for fresh random weights in every layer")
    value, scores, heads = weights.value, weights.scores, weights.n_heads
    if not isinstance(value, (Gaussian, Orthogonal)) or not isinstance(scores, (Gaussian, Zero)):
        raise ValueError(
            "infinite width is for Gaussian or orthogonal values and Gaussian or zero scores"
        )
    mix = weights.mix if weights.mix is not None else (value.default_mix(heads),) * heads
    squares = float(np.sum(np.square(mix)))
    scale = value.sigma**2 * squares / heads if isinstance(value, Gaussian) else squares
    if isinstance(scores, Zero):
        return scale, 0.0
    d_qk = weights.d_qk if weights.d_qk is not None else scores.default_d_qk(heads, d)
    return scale, weights.beta**2 * scores.sigma**4 * (d / heads) / d_qk


#: Gram matrices of the tokens, and of the tokens less their mean over dimensions.
Pair = tuple[np.ndarray, np.ndarray]


class _Layers:
    """The layers on a pair of Gram matrices, the second for a norm that centres."""

    def __init__(self, dynamics: AttentionDynamics, d: int, scale: float, score: float):
        self.dynamics, self.d, self.scale, self._score = dynamics, d, scale, score
        allowed = dynamics.allowed()
        self.P = allowed / allowed.sum(axis=1, keepdims=True)

    def score(self, t: int) -> float:
        """The variance of a score of layer t between tokens of mean square 1."""
        weights = self.dynamics.weights
        beta = weights.beta.at(t) if isinstance(weights, Sharpened) else 1.0
        return beta**2 * self._score

    def run(self, x: np.ndarray, depth: int) -> np.ndarray:
        """mu, ||X||_F and the spread of scores, (depth + 1,) each."""
        centred = x - x.mean(axis=1, keepdims=True)
        pair = (x @ x.T / self.d, centred @ centred.T / self.d)
        measured = [self._measured(pair, 0)]
        for t in range(depth):
            if not measured[-1][2] <= MOST_SPREAD:
                break
            pair = self._layer(pair, t)
            measured.append(self._measured(pair, t + 1))
        rest = np.full((depth + 1 - len(measured), 3), np.nan)
        return np.concatenate([measured, rest]).T

    def _layer(self, pair: Pair, t: int) -> Pair:
        (G, _), dropout = self._at("before", pair, t), self.dynamics.dropout
        K, squares = self._attended(G, self.score(t))
        each, a = np.arange(len(K)), dropout.attention
        K[each, each] += a / (1.0 - a) * (squares @ G.diagonal())
        K[each, each] /= 1.0 - dropout.hidden
        branch, _ = self._at("branch", (self.scale * K, self.scale * K), t)
        skip, weight = (float(number) ** 2 for number in self.dynamics.residual.layer(t))
        branch = weight * branch
        return self._at("after", (skip * pair[0] + branch, skip * pair[1] + branch), t)

    def _attended(self, G: np.ndarray, score: float) -> tuple[np.ndarray, np.ndarray]:
        """E[A G A^T] and E[A_ij^2], (N, N) each, to first order in the variance of scores.

        A_ij = P_ij (1 + s_ij + (s_ij^2 - sum_l P_il s_il^2) / 2 + ...) with s_ij the score less its
        mean over the row, of variance v_ij.
        """
        P, PG = self.P, self.P @ G
        M = PG @ P.T
        if not score:
            return M, P**2
        covaried = P @ (G * G) @ P.T - (PG * PG) @ P.T - P @ (PG * PG).T + M * M
        v = _variances(G, PG, M, score)
        moved = P * (v - (P * v).sum(axis=1, keepdims=True)) / 2.0
        shift = moved @ PG.T
        return M + score * G * covaried + shift + shift.T, P * (P * (1.0 + v) + 2.0 * moved)

    def _at(self, place: str, pair: Pair, t: int) -> Pair:
        """The pair after the norm, where it stands at this place in layer t."""
        norm: Norm = self.dynamics.norm.layer(t)
        active, centre, scale, shift, gain, _ = norm.switches(self.d)
        if not active or place not in self.dynamics.places(t):
            return pair
        G = pair[1] if centre else pair[0]
        with np.errstate(invalid="ignore"):  # NaN from where scores spread too far for two orders
            size = np.sqrt(G.diagonal() + shift / self.d)
        G = float(np.squeeze(gain)) ** 2 * scale**2 / self.d * G / np.outer(size, size)
        return G, G

    def _measured(self, pair: Pair, t: int) -> tuple[float, float, float]:
        """mu, ||X||_F and the spread of the scores of layer t, or of the last if there is none."""
        G, n = pair[0], len(pair[0])
        total = np.trace(G)
        squared = total - G.sum() / n
        mu = np.sqrt(self.d * squared) if squared > _ROUNDING * total else np.nan
        t = t if self.dynamics.n_layers is None else min(t, self.dynamics.n_layers - 1)
        G, P = self._at("before", pair, t)[0], self.P
        variances = (P * _variances(G, P @ G, P @ G @ P.T, self.score(t))).sum(axis=1)
        spread = np.sqrt(max(variances.max(), 0.0))
        return mu, np.sqrt(self.d * total), spread


def _variances(G: np.ndarray, PG: np.ndarray, M: np.ndarray, score: float) -> np.ndarray:
    """Of the scores less their mean over the row, (N, N)."""
    size = G.diagonal()
    return score * size[:, None] * (size - 2.0 * PG + M.diagonal()[:, None])
