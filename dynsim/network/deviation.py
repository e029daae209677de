"""Tokens as X = 1 c + s Z, with log s kept apart, and what a layer does to them.

c is the first token, Z the difference to it in units of s = mu(X), however far below 1e-16 ||X|| or
below 1e-308. Z loses nothing when s shrinks, because every operation here is written for c, Z and
log s: where a large common part would cancel, it is left out from the start. (With the mean for c,
tokens that agree with the first ever more closely, as under a causal window, would be lost.)
`normalised` and `attention_to_common_keys` define what the kernels of `dynsim.kernels` compute.

Every array has a leading axis over samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import check_instance, real_array
from dynsim.kernels.fields import LARGE, NOTHING, SHORT
from dynsim.measures import deviations
from dynsim.network.norms import Norm
from dynsim.network.weights import LayerWeights

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Deviation", "attention_to_common_keys", "normalised"]


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
    observed : array (samples, K)
        What an engine observed of it, the error of log10 mu last; by default nothing, K = 0.
    perturbed : tuple of Deviation
        The same tokens followed from a few rounding errors away (`dynsim.engines.logscale`).

    Tokens that no layer has changed yet may be kept whole: center 0, log_size 0, and shape X
    itself, bit for bit.

    >>> near = Deviation.split(np.array([[[1.0, 2.0], [1.0, 2.0 + 2e-12]]]))
    >>> near.center, near.log_size.round(3)
    (array([[1., 2.]]), array([-27.284]))
    """

    center: np.ndarray
    shape: np.ndarray
    log_size: np.ndarray
    observed: np.ndarray = None  # type: ignore[assignment]  # (samples, 0), below
    perturbed: tuple[Deviation, ...] = ()

    def __post_init__(self) -> None:
        if self.observed is None:
            object.__setattr__(self, "observed", np.empty((np.size(self.log_size), 0)))
        for name in ("center", "shape", "log_size", "observed"):
            array = real_array(f"{name} of a deviation", getattr(self, name))
            object.__setattr__(self, name, array)
        samples, _, d = (*self.shape.shape, 0, 0, 0)[:3]
        shapes = [array.shape for array in self._arrays]
        axes = [array.ndim for array in self._arrays]
        if axes != [2, 3, 1, 2] or shapes[0] != (samples, d) or {s[0] for s in shapes} != {samples}:
            raise ValueError(
                f"a deviation has center (samples, d), shape (samples, N, d), log_size (samples,) "
                f"and observed (samples, K); got {', '.join(map(str, shapes))}"
            )
        check_instance("perturbed of a deviation", self.perturbed, tuple, "(deviation,)")
        for run in self.perturbed:
            check_instance("an entry of perturbed", run, Deviation, "dynsim.deviation.Deviation")
            if run.shape.shape != self.shape.shape:
                raise ValueError(
                    f"perturbed runs are of the same shape, {self.shape.shape}; got "
                    f"{run.shape.shape}"
                )

    @classmethod
    def whole(cls, x: np.ndarray) -> Deviation:
        """Tokens (samples, N, d) as they are."""
        x = _batch(x)
        samples, _, d = x.shape
        return cls(np.zeros((samples, d)), x, np.zeros(samples))

    @classmethod
    def split(cls, x: np.ndarray) -> Deviation:
        """Tokens (samples, N, d) as the first one and differences to it."""
        x = _batch(x)
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
        log_size[log_size < NOTHING] = -np.inf
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
        return self.apart().log_size

    def __getitem__(self, samples: np.ndarray) -> Deviation:
        perturbed = tuple(run[samples] for run in self.perturbed)
        center, shape, log_size, observed = (array[samples] for array in self._arrays)
        return Deviation(center, shape, log_size, observed, perturbed)

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.center, self.shape, self.log_size, self.observed

    def __eq__(self, other: object) -> bool:
        """Bit for bit."""
        return (
            isinstance(other, Deviation)
            and all(np.array_equal(*pair) for pair in zip(self._arrays, other._arrays, strict=True))
            and self.perturbed == other.perturbed
        )

    __hash__ = None  # type: ignore[assignment]

    def without_tokens(self) -> Deviation:
        """The sizes alone."""
        perturbed = tuple(run.without_tokens() for run in self.perturbed)
        return replace(self, shape=self.shape[:, :0], perturbed=perturbed)

    def with_observed(self, observed: np.ndarray) -> Deviation:
        """The same with what was observed of it, (samples, K)."""
        return replace(self, observed=observed)

    def apart(self) -> Deviation:
        """The same with all samples split."""
        whole = self.is_whole
        if not whole.any():
            return self
        split = Deviation.split(self.shape[whole]).with_observed(self.observed[whole])
        return self.replaced(whole, split)

    def about(self, tokens: np.ndarray) -> Deviation:
        """The same, split, with these tokens for centers, one a sample."""
        chosen = self.shape[np.arange(len(tokens)), tokens]
        center = self.center + _exp(self.log_size)[:, None] * chosen
        return replace(self, center=center, shape=self.shape - chosen[:, None])

    def replaced(self, samples: np.ndarray, by: Deviation) -> Deviation:
        """A copy with the given samples taken from `by`; `observed` only where both have it.

        Perturbed runs are left out.
        """
        if by.observed.shape[1] != self.observed.shape[1]:
            nothing = np.empty((len(self.log_size), 0))
            return self.with_observed(nothing).replaced(
                samples, by.with_observed(by.observed[:, :0])
            )
        arrays = [array.copy() for array in self._arrays]
        for array, new in zip(arrays, by._arrays, strict=True):
            array[samples] = new
        center, shape, log_size, observed = arrays
        return Deviation(center, shape, log_size, observed)


def _batch(x: ArrayLike) -> np.ndarray:
    x = real_array("tokens", x)
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise ValueError(f"tokens are (samples, N, d), none of them 0; got shape {x.shape}")
    return x


def _exp(log: np.ndarray) -> np.ndarray:
    """exp, with 0 for what comes near denormal numbers."""
    return np.where(log > -700.0, np.exp(np.maximum(log, -700.0)), 0.0)


def normalised(state: Deviation, norm: Norm) -> Deviation:
    """The norm of every token (`dynsim.norms`).

    With p = c and u = z, both centred if the norm centres, n^2 = |p|^2 + d eps, tau = s / n,
    p^ = p / n, h = 2 u.p^ + tau |u|^2 and q = sqrt(1 + tau h), the deviation is
    scale gain tau (u / q - p^ h / (q (1 + q))), in which nothing large cancels unless a token is
    much shorter than the first; such tokens are normalised as they are.
    """
    check_instance("a state", state, Deviation, "dynsim.deviation.Deviation.split(x)")
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
    large = ~(log_tau < np.log(LARGE))
    tau, direction = np.where(large, 0.0, _exp(log_tau))[:, None], p / n[:, None]
    h = 2.0 * np.einsum("snd,sd->sn", u, direction) + tau * np.einsum("snd,snd->sn", u, u)
    square = 1.0 + tau * h
    short = square < SHORT
    q = np.sqrt(np.where(short, 1.0, square))
    v = u / q[:, :, None] - (h / (q * (1.0 + q)))[:, :, None] * direction[:, None]
    v *= numbers.gain
    center = numbers.gain * direction * numbers.scale + numbers.bias
    if short.any():
        apart = (norm.apply(state.tokens) - center[:, None])[short]
        v[short] = apart / (numbers.scale * tau[np.nonzero(short)[0]])
    out = Deviation.of(center, v, log_tau + np.log(numbers.scale))
    if large.any():
        out = out.replaced(large, Deviation.split(norm.apply(state[large].tokens)))
    return out


def attention_to_common_keys(state: Deviation, layer: LayerWeights, keys: np.ndarray) -> Deviation:
    """Attention where every token attends to the same `keys`.

    Row-constant parts of the scores cancel in the softmax and leave a_j = s (c W_Q + b) . k_j,
    the same in all rows, and b_ij = s^2 q_i . k_j, with k = z W_K. What follows from a is one row
    for all, p = softmax(a), and moves the center only. With z~ = z - p Z the rest is

        sum_j A_ij z~_j = s^2 sum_j w_ij z~_j / (1 + s^2 sum_j w_ij),
        w_ij = p_j (q_i . k_j) (e^b_ij - 1) / b_ij,

    hence deviation' ~ s^3 (theory: log s' = 3 log s + log ||Z M Z^T Z / N|| for W_V = I).
    """
    from scipy.special import exprel

    check_instance("a state", state, Deviation, "dynsim.deviation.Deviation.split(x)")
    z = state.shape
    s = _exp(state.log_size)[:, None, None]
    v, common = np.zeros_like(z), state.center[:, None]
    center = layer.output_bias
    for h in range(len(layer.query)):
        key = z[:, keys] @ layer.key[h] if layer.key.size else z[:, keys]
        a = s * (common @ layer.query[h] + layer.query_bias[h]) @ key.swapaxes(1, 2)
        p = np.exp(a - a.max(axis=2, keepdims=True))
        p /= p.sum(axis=2, keepdims=True)
        mean = p @ z[:, keys]
        scores = z @ layer.query[h] @ key.swapaxes(1, 2)
        w = p * scores * exprel(s * s * scores)
        moved = w @ (z[:, keys] - mean) / (1.0 + s * s * w.sum(axis=2, keepdims=True))
        value = layer.value[h] @ layer.output[h] if layer.value.size else layer.output[h]
        v += moved @ value
        center = center + ((common + s * mean) @ value)[:, 0]
    return Deviation.of(center, v, 3.0 * state.log_size)
