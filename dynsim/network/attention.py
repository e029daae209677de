"""Kinds of attention: how the scores s_ij of a row become the weights A_ij of the values.

`Softmax`, with or without a sink, `Sigmoid`, `Softpick` and `Hardmax`; and `QKNorm`, which scales
queries and keys before they make scores. n_i is the number of tokens that token i may attend to;
sums are over those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dynsim._values import Value, check_name, real_array, real_number
from dynsim.network.norms import NoNorm, Norm, RMSNorm
from dynsim.network.positions import check_heads, per_head
from dynsim.network.schedules import Schedule

__all__ = [
    "ATTENTION",
    "QK_NORMS",
    "AttentionKind",
    "Hardmax",
    "NoQKNorm",
    "QKNorm",
    "Sigmoid",
    "Softmax",
    "Softpick",
    "masked_softmax",
    "with_sink",
]


def masked_softmax(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Softmax of each row over the allowed entries; 0 elsewhere. Safe for scores of any size.

    scores (..., N, N), mask (N, N) boolean with at least one True in every row.
    """
    allowed = np.where(mask, scores, -np.inf)
    weights = np.exp(allowed - allowed.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


class AttentionKind(Value):
    """Base of the kinds of attention."""

    #: True when every row of A sums to 1, so that values are averaged.
    is_average = False

    def check(self, n_heads: int) -> None:
        """Raise ValueError unless this kind fits so many heads."""

    def weights(self, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """A of scores (..., H, N, N) and the mask (N, N), which has no empty row: (..., H, N, N)"""
        raise NotImplementedError

    def slopes(self, scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """G and B (..., H, N, N) of the derivative dA_ij = G_ij ds_ij - A_ij sum_k B_ik ds_ik."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, repr=False)
class Softmax(AttentionKind):
    """A_ij = e^s_ij / (sum_k e^s_ik + e^b_h), with a sink logit b_h if there is one (GPT-OSS).

    With a sink rows sum to less than 1, by what goes to a token that has no value.

    sink : a number for all heads, one for each, or None for no sink.

    >>> Softmax(sink=0.0).weights(np.zeros((1, 2, 2)), np.eye(2) > 0)
    array([[[0.5, 0. ],
            [0. , 0.5]]])
    """

    sink: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.sink is not None:
            object.__setattr__(self, "sink", per_head("sink logit", self.sink))

    @property
    def is_average(self) -> bool:  # type: ignore[override]
        return self.sink is None

    def check(self, n_heads: int) -> None:
        check_heads("sink logit", self.sink, n_heads)

    def weights(self, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if self.sink is None:
            return masked_softmax(scores, mask)
        sink = np.asarray(self.sink, scores.dtype).reshape(-1, 1, 1)
        column = np.broadcast_to(sink, (*scores.shape[:-1], 1))
        with_sink = np.concatenate([scores, column], axis=-1)
        allowed = np.concatenate([mask, np.ones((len(mask), 1), bool)], axis=-1)
        return masked_softmax(with_sink, allowed)[..., :-1]

    def slopes(self, scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        A = self.weights(scores, mask)
        return A, A


@dataclass(frozen=True, eq=False, repr=False)
class Sigmoid(AttentionKind):
    """A_ij = 1 / (1 + e^(log n_i - s_ij)): every weight by itself (arXiv 2409.04431).

    The bias -log n_i is that paper's, with the number of tokens that row i may attend to.

    >>> Sigmoid().weights(np.zeros((1, 1)), np.eye(1) > 0)
    array([[0.5]])
    """

    def weights(self, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
        shifted = scores - np.log(mask.sum(axis=-1, keepdims=True)).astype(scores.dtype)
        smaller = np.exp(-np.abs(shifted))  # does not overflow
        weights = np.where(shifted < 0, smaller, 1.0) / (1.0 + smaller)
        return np.where(mask, weights, 0.0).astype(scores.dtype, copy=False)

    def slopes(self, scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        A = self.weights(scores, mask)
        return A * (1.0 - A), np.zeros_like(A)


@dataclass(frozen=True, eq=False, repr=False)
class Softpick(AttentionKind):
    """A_ij = max(e^s_ij - 1, 0) / (sum_k |e^s_ik - 1| + eps): rectified (arXiv 2504.20966).

    Rows sum to 1 or less, and to 0 where no score is above 0.

    eps : a number, positive.

    >>> Softpick(eps=1.0).weights(np.log([[2.0, 1.0]]), np.ones((1, 2)) > 0)
    array([[0.5, 0. ]])
    """

    eps: float = 1e-6

    def __post_init__(self) -> None:
        eps = real_number("the eps of softpick", self.eps)
        if not 0.0 < eps < np.inf:
            raise ValueError(f"the eps of softpick is finite and positive; got {eps:g}")
        object.__setattr__(self, "eps", eps)

    def weights(self, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rest, _, total = self._parts(scores, mask)
        return (np.maximum(rest, 0.0) / total).astype(scores.dtype, copy=False)

    def slopes(self, scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest, power, total = self._parts(scores, mask)
        return np.where(rest > 0, power, 0.0) / total, np.sign(rest) * power / total

    def _parts(self, scores: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, ...]:
        """e^s - 1, e^s and the sum below, each times e^-m with m = max(s, 0) of the row."""
        allowed = np.where(mask, scores, -np.inf)
        most = np.maximum(allowed.max(axis=-1, keepdims=True), 0.0)
        power, one = np.exp(allowed - most), np.exp(-most)
        near = np.expm1(np.minimum(allowed, 1.0)) * one  # without cancellation
        rest = np.where(mask, np.where(allowed < 1.0, near, power - one), 0.0)
        total = np.abs(rest).sum(axis=-1, keepdims=True) + self.eps * one
        return rest, power, total


@dataclass(frozen=True, eq=False, repr=False)
class Hardmax(AttentionKind):
    """The largest score takes all, equal ones share: softmax(beta s) for beta to infinity.

    arXiv 2508.09628. Scores that differ by rounding alone are not equal.

    >>> Hardmax().weights(np.array([[3.0, 3.0, 1.0]]), np.ones((1, 3)) > 0)
    array([[0.5, 0.5, 0. ]])
    """

    is_average = True

    def weights(self, scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
        allowed = np.where(mask, scores, -np.inf)
        largest = (allowed == allowed.max(axis=-1, keepdims=True)).astype(scores.dtype)
        return largest / largest.sum(axis=-1, keepdims=True)


#: Every kind of attention by the name that the command line gives it.
ATTENTION = {"softmax": Softmax, "sigmoid": Sigmoid, "softpick": Softpick, "hardmax": Hardmax}


def with_sink(kind: AttentionKind, sink: float | tuple[float, ...] | None) -> AttentionKind:
    """The softmax with this sink logit; the kind as it is where there is none.

    Raises ValueError for a sink beside another kind than the softmax, or beside its own.
    """
    if sink is None:
        return kind
    if kind != Softmax():
        raise ValueError(f"a sink is for the softmax; got {kind}; leave one of them out")
    return Softmax(sink)


#: What queries and keys are divided by: their size, or the root of the mean of their squares.
_KINDS = ("unit", "rms")


@dataclass(frozen=True, eq=False, repr=False)
class NoQKNorm(Value):
    """Queries and keys make scores as they are."""

    active = False
    n_layers = None
    is_constant = True

    def layer(self, t: int) -> NoQKNorm:
        return self

    def check(self, width: int) -> None:
        """Nothing to check."""

    def normalised(self, query: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return query, key

    def norms(self, width: int) -> tuple[Norm, Norm]:
        return NoNorm(), NoNorm()


@dataclass(frozen=True, eq=False, repr=False)
class QKNorm(Value):
    """Queries and keys of every head are normalised before they make scores.

    unit: s_ij = g (q / |q|) . (k / |k|), so that |s_ij| <= |g| (arXiv 2010.04245). rms: with q and
    k divided by sqrt(mean(q^2) + eps), s_ij = g q . k / sqrt(p), p numbers a key (Qwen3, OLMo 2).
    Gains stand behind the norms and before `RoPE`. It needs queries and keys, W_Q and W_K.

    Parameters
    ----------
    gain : float, tuple of float or Schedule
        g, for queries: a number, one for each of the p numbers, or a number by layer
        (`dynsim.schedules`). It is the inverse temperature: nothing is left of the weights' own.
    kind : str
        "unit" or "rms".
    key_gain : float or tuple of float
        The same for keys.
    eps : float
        Added to |q|^2 (unit) or to the mean of the squares (rms). With eps > 0 the sizes of queries
        count: a factor 1 / sqrt(d_QK) in them, too.

    Raises ValueError for an unknown kind, and for numbers that are not finite or of a wrong number.
    """

    gain: float | tuple[float, ...] | Schedule = 1.0
    kind: str = "unit"
    key_gain: float | tuple[float, ...] = 1.0
    eps: float = 0.0
    active = True

    def __post_init__(self) -> None:
        check_name("kind of QK-norm", self.kind, _KINDS)
        for name in ("gain", "key_gain"):
            given = getattr(self, name)
            if isinstance(given, Schedule) and name == "gain":
                continue
            array = real_array(f"the {name} of QK-norm", given)
            if array.ndim > 1 or not array.size or not np.all(np.isfinite(array)):
                raise ValueError(
                    f"the {name} of QK-norm is a finite number, or one for each number of a key; "
                    f"got shape {array.shape}"
                )
            object.__setattr__(self, name, tuple(array.tolist()) if array.ndim else float(array))
        eps = real_number("the eps of QK-norm", self.eps)
        if not 0.0 <= eps < np.inf:
            raise ValueError(f"the eps of QK-norm is finite and not negative; got {eps:g}")
        object.__setattr__(self, "eps", eps)

    @property
    def n_layers(self) -> int | None:
        """How many layers there are gains for; None when there is no end."""
        return self.gain.n_layers if isinstance(self.gain, Schedule) else None

    @property
    def is_constant(self) -> bool:
        """True when all layers are alike."""
        return not isinstance(self.gain, Schedule) or self.gain.is_constant

    def layer(self, t: int) -> QKNorm:
        """That of layer t, which all layers have."""
        return replace(self, gain=self.gain.at(t)) if isinstance(self.gain, Schedule) else self

    def check(self, width: int) -> None:
        """Raise ValueError unless the gains fit keys of so many numbers."""
        for name in ("gain", "key_gain"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != width:
                raise ValueError(
                    f"the {name} of QK-norm has one entry for each number of a key; got "
                    f"{len(given)} for keys of {width}; give {width}, or one number"
                )

    def factors(self, width: int) -> tuple[np.ndarray, np.ndarray, float]:
        """(g, h, shift) for queries and keys of p numbers: q becomes g q / sqrt(|q|^2 + shift), k
        the same with h; g and h are (p,)."""
        scale, shift = (1.0, self.eps) if self.kind == "unit" else (width**0.5, width * self.eps)
        if isinstance(self.gain, Schedule):
            raise ValueError("there is a gain for each layer; take that of one, qk_norm.layer(t)")
        g, h = np.array(self.gain), np.array(self.key_gain) * scale
        return np.broadcast_to(g, width), np.broadcast_to(h, width), shift

    def normalised(self, query: np.ndarray, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Queries and keys, (..., N, p), so that their products are the scores."""
        norm_q, norm_k = self.norms(query.shape[-1])
        return norm_q.apply(query), norm_k.apply(key)

    def norms(self, width: int) -> tuple[Norm, Norm]:
        """What queries and what keys of p numbers are normalised by, as norms of tokens."""
        g, h, shift = self.factors(width)
        scale = width**-0.5  # of RMSNorm, to undo
        return RMSNorm(g * scale, shift / width), RMSNorm(h * scale, shift / width)


def _unit(gain: float = 1.0, eps: float = 0.0) -> QKNorm:
    """s_ij = g (q_i / |q_i|) . (k_j / |k_j|), so that |s_ij| <= |g| (arXiv 2010.04245)."""
    return QKNorm(gain, "unit", eps=eps)


def _rms(gain: float = 1.0, eps: float = 0.0) -> QKNorm:
    """s_ij = g q_i . k_j / sqrt(p) with q and k of mean square 1 (Qwen3, OLMo 2)."""
    return QKNorm(gain, "rms", eps=eps)


#: QK-norms by the name that the command line gives them.
QK_NORMS: dict[str, Callable[..., QKNorm | NoQKNorm]] = {
    "none": NoQKNorm, "unit": _unit, "rms": _rms,
}  # fmt: skip
