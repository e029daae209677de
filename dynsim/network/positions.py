"""Positions inside attention: what the places i and j of two tokens do to their score.

The score of token i for token j is s_ij = q_i . k_j. A position either adds a number that depends
on j - i and the head (`ALiBi`, `Decay`, `PowerDecay`), or turns queries and keys (`RoPE`). Places
are those of the rows, 0 .. N - 1, and distances |i - j| whatever the mask: on a ring too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dynsim._values import Value, real_number, shown

__all__ = ["POSITIONS", "ALiBi", "Decay", "NoPosition", "Position", "PowerDecay", "RoPE"]


class Position(Value):
    """Base of the positions: by itself it changes nothing."""

    #: True when queries and keys are turned, so that the weights need both of them.
    turns = False

    def biases(self, n_tokens: int, n_heads: int) -> np.ndarray | None:
        """What is added to the scores by the offset j - i: (H, 2 N - 1), entry N - 1 + j - i.

        None where nothing is.
        """
        return None

    def turned(self, x: np.ndarray) -> np.ndarray:
        """Queries or keys (..., N, p), each turned by its place."""
        return x

    def check(self, n_heads: int, width: int | None = None) -> None:
        """Raise ValueError unless this position fits so many heads of so many numbers a key."""

    def bias(self, n_tokens: int, n_heads: int) -> np.ndarray | None:
        """What is added to the scores, (H, N, N), or None where nothing is."""
        by_offset = self.biases(n_tokens, n_heads)
        if by_offset is None:
            return None
        place = np.arange(n_tokens)
        return by_offset[:, n_tokens - 1 + place[None, :] - place[:, None]]


@dataclass(frozen=True, eq=False, repr=False)
class NoPosition(Position):
    """Scores do not depend on the places of tokens: s_ij = q_i . k_j."""


class _ByDistance(Position):
    """Base of what adds a number that depends on |i - j|."""

    def _by_distance(self, distance: np.ndarray, n_heads: int) -> np.ndarray:
        """(H, distances)"""
        raise NotImplementedError

    def biases(self, n_tokens: int, n_heads: int) -> np.ndarray:
        distance = np.abs(np.arange(1 - n_tokens, n_tokens))
        return self._by_distance(distance, n_heads) * np.ones((n_heads, 1))


@dataclass(frozen=True, eq=False, repr=False)
class ALiBi(_ByDistance):
    """s_ij = q_i . k_j - m_h |i - j| with a slope m_h for each head (arXiv 2108.12409).

    slopes : a number for all heads, one for each, or None for the published ones: with H a power of
        two 2^(-8 h / H), h = 1 .. H; otherwise those of the next smaller power, and between them
        every second one of the next larger.

    >>> ALiBi().biases(2, n_heads=2)
    array([[-0.0625    , -0.        , -0.0625    ],
           [-0.00390625, -0.        , -0.00390625]])
    """

    slopes: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.slopes is not None:
            object.__setattr__(self, "slopes", per_head("slope of ALiBi", self.slopes))

    def check(self, n_heads: int, width: int | None = None) -> None:
        check_heads("slope of ALiBi", self.slopes, n_heads)

    def _by_distance(self, distance: np.ndarray, n_heads: int) -> np.ndarray:
        slopes = published_slopes(n_heads) if self.slopes is None else self.slopes
        return -np.reshape(slopes, (-1, 1)) * distance


def published_slopes(n_heads: int) -> tuple[float, ...]:
    """The slopes of arXiv 2108.12409 and its code, one for each head.

    >>> published_slopes(3)
    (0.0625, 0.00390625, 0.25)
    """
    power = 2 ** int(math.log2(n_heads))
    slopes = [2.0 ** (-8.0 * h / power) for h in range(1, power + 1)]
    between = [2.0 ** (-4.0 * h / power) for h in range(1, 2 * power, 2)]
    return tuple(slopes + between[: n_heads - power])


@dataclass(frozen=True, eq=False, repr=False)
class Decay(_ByDistance):
    """Weights before they are normalised fall by `rate` a token: s_ij = q_i . k_j + |i - j| log r.

    That is the decay mask of arXiv 2502.01951 with m = -log r, and ALiBi with this one slope.

    rate : a number above 0 and at most 1; 1 changes nothing.

    >>> np.exp(Decay(0.5).biases(3, n_heads=1))
    array([[0.25, 0.5 , 1.  , 0.5 , 0.25]])
    """

    rate: float

    def __post_init__(self) -> None:
        rate = real_number("the rate of decay", self.rate)
        if not 0.0 < rate <= 1.0:
            raise ValueError(
                f"the rate of decay is a factor per token, above 0 and at most 1; got {rate:g}"
            )
        object.__setattr__(self, "rate", rate)

    def _by_distance(self, distance: np.ndarray, n_heads: int) -> np.ndarray:
        return math.log(self.rate) * distance[None, :]


@dataclass(frozen=True, eq=False, repr=False)
class PowerDecay(_ByDistance):
    """Weights fall with a power of distance: s_ij = q_i . k_j - a log(1 + |i - j|).

    That is KERPLE's logarithmic kernel (arXiv 2205.09921) with r_1 = a and r_2 = 1.

    power : a number, not negative.

    >>> np.exp(PowerDecay(1.0).biases(2, n_heads=1))
    array([[0.5, 1. , 0.5]])
    """

    power: float

    def __post_init__(self) -> None:
        power = real_number("the power of decay", self.power)
        if not 0.0 <= power < np.inf:
            raise ValueError(f"the power of decay is finite and not negative; got {power:g}")
        object.__setattr__(self, "power", power)

    def _by_distance(self, distance: np.ndarray, n_heads: int) -> np.ndarray:
        return -self.power * np.log1p(distance)[None, :]


@dataclass(frozen=True, eq=False, repr=False)
class RoPE(Position):
    """s_ij = q_i^T R(j - i) k_j, rotary positions (arXiv 2104.09864).

    R turns the pair of numbers k and k + p / 2 (of the p numbers of a key, as Llama's) by the angle
    (j - i) base^(-2 k / p). It needs queries and keys, W_Q and W_K, and an even p.

    >>> RoPE().turned(np.array([[1.0, 0.0], [1.0, 0.0]])).round(3)
    array([[1.   , 0.   ],
           [0.54 , 0.841]])
    """

    base: float = 10000.0
    turns = True

    def __post_init__(self) -> None:
        base = real_number("the base of RoPE", self.base)
        if not 1.0 <= base < np.inf:
            raise ValueError(f"the base of RoPE is finite and at least 1; got {base:g}")
        object.__setattr__(self, "base", base)

    def check(self, n_heads: int, width: int | None = None) -> None:
        if width is not None and width % 2:
            raise ValueError(
                f"RoPE turns pairs of numbers, so that queries and keys of a head have an even "
                f"number of them; got {width}; choose another dimension or number of heads"
            )

    def angles(self, n_tokens: int, width: int) -> np.ndarray:
        """By how much the pairs of each token are turned, (N, width / 2)."""
        speeds = self.base ** (-2.0 * np.arange(width // 2) / width)
        return np.arange(n_tokens)[:, None] * speeds

    def turned(self, x: np.ndarray) -> np.ndarray:
        n, width = x.shape[-2:]
        angles = self.angles(n, width)
        cos, sin = (f(angles).astype(x.dtype) for f in (np.cos, np.sin))
        a, b = x[..., : width // 2], x[..., width // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


#: Every position by the name that the command line gives it.
POSITIONS = {
    "none": NoPosition, "alibi": ALiBi, "rope": RoPE, "decay": Decay, "power": PowerDecay,
}  # fmt: skip


def per_head(name: str, given: object) -> float | tuple[float, ...]:
    """A finite number, or a tuple of them for the heads. ValueError for anything else."""
    array = np.asarray(given)
    if array.dtype.kind not in "fiu" or array.ndim > 1 or not array.size:
        raise ValueError(f"the {name} is one number, or one for each head; got {shown(given)}")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"the {name} is finite; got {shown(given)}")
    return float(array) if array.ndim == 0 else tuple(array.astype(float).tolist())


def check_heads(name: str, given: float | tuple[float, ...] | None, n_heads: int) -> None:
    """Raise ValueError unless it is one number, none, or as many as there are heads."""
    if isinstance(given, tuple) and len(given) != n_heads:
        raise ValueError(
            f"the {name} is given for each head; got {len(given)} numbers for {n_heads} heads; "
            f"give {n_heads}, or one for all"
        )
