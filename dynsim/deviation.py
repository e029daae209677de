"""Tokens near consensus as X = 1 c + s Z, with log s kept apart, and what a layer does to them.

c is the first token, Z the difference to it in units of s = mu(X), however far below 1e-16 ||X|| or
below 1e-308. Z loses nothing when s shrinks, because every operation here is written for c, Z and
log s: where a large common part would cancel, it is left out from the start. (With the mean for c,
tokens that agree with the first ever more closely, as under a causal window, would be lost.)

Every array has a leading axis over samples.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from dynsim.measures import deviations, mu
from dynsim.norms import Norm
from dynsim.weights import LayerWeights

__all__ = [
    "Deviation",
    "attended_alike",
    "normalised",
    "scores_bound",
    "through_values",
]

#: A deviation above this share of the mean token is normalised token by token.
_LARGE = 0.3
#: Below this, exp(b) - 1 = b for the scores b between deviations.
_LINEAR = 1e-17
#: Tokens with a smaller log mu count as equal.
_NOTHING = -1e100
#: Scores in one batched product.
_BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class Deviation:
    """Tokens X = 1 center + exp(log_size) shape of several samples.

    Attributes
    ----------
    center : array (samples, d)
        The first token.
    shape : array (samples, N, d)
        Z, of which the first row is 0; less its mean it has Frobenius norm 1.
    log_size : array (samples,)
        Natural logarithm of mu; -inf when all tokens are equal, and below -1e100.

    A sample far from consensus is kept whole: center 0, log_size 0, and shape X itself, bit for
    bit.

    >>> near = Deviation.split(np.array([[[1.0, 2.0], [1.0, 2.0 + 2e-12]]]))
    >>> near.center, near.log_size.round(3)
    (array([[1., 2.]]), array([-27.284]))
    """

    center: np.ndarray
    shape: np.ndarray
    log_size: np.ndarray

    @classmethod
    def whole(cls, x: np.ndarray) -> Deviation:
        """Tokens (samples, N, d) as they are."""
        samples, _, d = x.shape
        return cls(np.zeros((samples, d)), x, np.zeros(samples))

    @classmethod
    def split(cls, x: np.ndarray) -> Deviation:
        """Tokens (samples, N, d) as the first one and differences to it."""
        samples, _, d = x.shape
        return cls.of(np.zeros((samples, d)), x, np.zeros(samples))

    @classmethod
    def of(cls, center: np.ndarray, v: np.ndarray, log_scale: np.ndarray) -> Deviation:
        """1 center + exp(log_scale) v for any v (samples, N, d)."""
        first = v[:, 0]
        rest = v - first[:, None]
        unit = np.abs(rest).max(axis=(1, 2))
        unit[unit == 0] = 1.0
        rest /= unit[:, None, None]  # squares neither vanish nor overflow
        apart = deviations(rest)
        size = np.sqrt(np.einsum("snd,snd->s", apart, apart))
        with np.errstate(divide="ignore"):
            log_size = log_scale + np.log(unit) + np.log(size)
        log_size[log_size < _NOTHING] = -np.inf
        rest /= np.where(size == 0, 1.0, size)[:, None, None]
        return cls(center + _exp(log_scale)[:, None] * first, rest, log_size)

    @property
    def is_whole(self) -> np.ndarray:
        """Which samples are kept as the tokens themselves, (samples,)."""
        return (self.log_size == 0) & ~self.center.any(axis=1)

    @property
    def tokens(self) -> np.ndarray:
        """X, (samples, N, d), as far as floating point shows it."""
        return self.center[:, None] + _exp(self.log_size)[:, None, None] * self.shape

    @property
    def log_mu(self) -> np.ndarray:
        """Natural logarithm of mu(X), (samples,)."""
        whole = self.is_whole
        log_mu = self.log_size.copy()
        with np.errstate(divide="ignore"):
            log_mu[whole] = np.log(mu(self.shape[whole]))
        return log_mu

    def __getitem__(self, samples) -> Deviation:
        return Deviation(self.center[samples], self.shape[samples], self.log_size[samples])

    def __eq__(self, other) -> bool:
        """Bit for bit."""
        return isinstance(other, Deviation) and all(
            np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        )

    __hash__ = None

    def without_tokens(self) -> Deviation:
        """The sizes alone."""
        return Deviation(self.center, self.shape[:, :0], self.log_size)

    def replaced(self, samples: np.ndarray, by: Deviation) -> Deviation:
        """A copy with the given samples taken from `by`."""
        arrays = [getattr(self, field.name).copy() for field in fields(self)]
        for array, field in zip(arrays, fields(self), strict=True):
            array[samples] = getattr(by, field.name)
        return Deviation(*arrays)


def _exp(log: np.ndarray) -> np.ndarray:
    """exp, with 0 for what comes near denormal numbers."""
    return np.where(log > -700.0, np.exp(np.maximum(log, -700.0)), 0.0)


def normalised(state: Deviation, norm: Norm) -> Deviation:
    """The norm of every token (`dynsim.norms`).

    With p = c and u = z, both centred if the norm centres, n^2 = |p|^2 + d eps, tau = s / n,
    p^ = p / n, h = 2 u.p^ + tau |u|^2 and q = sqrt(1 + tau h), the deviation is
    scale gain tau (u / q - p^ h / (q (1 + q))), in which nothing large cancels. A deviation that
    is not small against n is normalised as tokens.
    """
    numbers = norm.switches(state.shape.shape[2])
    if not numbers.active:
        return state
    p, u = state.center, state.shape
    if numbers.centre:
        p, u = p - p.mean(axis=1, keepdims=True), u - u.mean(axis=2, keepdims=True)
    unit = np.abs(p).max(axis=1)
    unit[unit == 0] = 1.0
    n = unit * np.sqrt(np.sum((p / unit[:, None]) ** 2, axis=1) + numbers.shift / unit / unit)
    log_tau = state.log_size - np.log(n)
    large = ~(log_tau < np.log(_LARGE))
    tau, direction = np.where(large, 0.0, _exp(log_tau))[:, None], p / n[:, None]
    h = 2.0 * np.einsum("snd,sd->sn", u, direction) + tau * np.einsum("snd,snd->sn", u, u)
    q = np.sqrt(1.0 + tau * h)
    v = u / q[:, :, None] - (h / (q * (1.0 + q)))[:, :, None] * direction[:, None]
    center = numbers.gain * direction * numbers.scale + numbers.bias
    out = Deviation.of(center, numbers.gain * v, log_tau + np.log(numbers.scale))
    if large.any():
        out = out.replaced(large, Deviation.split(norm.apply(state[large].tokens)))
    return out


def through_values(center: np.ndarray, layer: LayerWeights) -> np.ndarray:
    """What attention makes of a token that all share: sum over heads of c W_V^h, and the bias."""
    c = center[:, None, None]  # one small product a sample: its bits do not depend on the others
    value = c @ layer.value if layer.value.size else c
    return (value @ layer.output).sum(axis=1)[:, 0] + layer.output_bias


def scores_bound(state: Deviation, layer: LayerWeights) -> np.ndarray:
    """A bound of the scores between deviations, s^2 |z_i M z_j|, over all i, j and heads."""
    key = layer.key if layer.key.size else [np.eye(state.shape.shape[2])] * len(layer.query)
    sizes = [
        np.linalg.norm(state.shape @ q, axis=2).max(axis=1)
        * np.linalg.norm(state.shape @ k, axis=2).max(axis=1)
        for q, k in zip(layer.query, key, strict=True)
    ]
    return 2.0 * _exp(2.0 * state.log_size) * np.max(sizes, axis=0)


def attended_alike(state: Deviation, layer: LayerWeights, keys: np.ndarray) -> Deviation:
    """Attention where every token attends to the same `keys`, for scores_bound < 1.

    Row-constant parts of the scores cancel in the softmax and leave a_j = s (c W_Q + b) . k_j,
    the same in all rows, and b_ij = s^2 q_i . k_j, with k = z W_K. What follows from a is one row
    for all, p = softmax(a), and moves the center only. With z~ = z - p Z the rest is

        sum_j A_ij z~_j = sum_j p_j expm1(b_ij) z~_j / (1 + sum_j p_j expm1(b_ij)),

    of size s^2: hence deviation' ~ s^3 (theory: log s' = 3 log s + log ||Z M Z^T Z / N|| for
    W_V = I). Below 1e-17, expm1(b) = b and the sum is q_i (sum_j p_j k~_j z~_j).
    """
    z = state.shape
    s = _exp(state.log_size)[:, None]
    linear = scores_bound(state, layer) < _LINEAR
    center = through_values(state.center, layer)
    v = np.zeros_like(z)
    for h in range(len(layer.query)):
        seen = z[:, keys]
        key = seen @ layer.key[h] if layer.key.size else seen
        common = state.center[:, None] @ layer.query[h] + layer.query_bias[h]
        a = s * (key @ common.swapaxes(1, 2))[..., 0]
        p = np.exp(a - a.max(axis=1, keepdims=True))
        p = (p / p.sum(axis=1, keepdims=True))[:, None]  # (samples, 1, keys)
        mean = p @ seen
        seen, key = seen - mean, key - p @ key
        query = z @ layer.query[h]
        moved = query @ ((key * p.swapaxes(1, 2)).swapaxes(1, 2) @ seen)
        for part in _blocks(np.flatnonzero(~linear), z.shape[1], len(keys)):
            moved[part] = _beyond_linear(
                query[part], key[part[0]], seen[part[0]], p[part[0]], s[part[0]]
            )
        value = [layer.value[h]] if layer.value.size else []
        for matrix in (*value, layer.output[h]):
            moved, mean = moved @ matrix, mean @ matrix
        v += moved
        center = center + s * mean[:, 0]
    return Deviation.of(center, v, 3.0 * state.log_size)


def _beyond_linear(query, key, seen, p, s):
    """sum_j p_j expm1(b_ij) z~_j / (1 + sum_j p_j expm1(b_ij)) / s^2, (samples, rows, d)."""
    s_squared = (s * s)[..., None]
    weight = p * np.expm1(s_squared * (query @ key.swapaxes(1, 2)))
    return weight @ seen / (1.0 + weight.sum(axis=2, keepdims=True)) / s_squared


def _blocks(samples: np.ndarray, rows: int, keys: int):
    """Pairs (samples, rows) that cover all rows of these samples in blocks of bounded size."""
    height = max(1, min(rows, _BLOCK // keys))
    together = max(1, _BLOCK // (height * keys))
    for k in range(0, len(samples), together):
        for row in range(0, rows, height):
            yield samples[k : k + together], slice(row, row + height)
