"""Dropout, as in training: entries of a layer set to zero at random, the others scaled up.

y = x * kept / (1 - p) with kept independent of x, 0 with probability p and 1 otherwise, as
`torch.nn.Dropout`. BERT's layers have it at two places: on what the projection of the attention,
and of the MLP, gives (hidden), and on the attention weights after the softmax (attention).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynsim._seeds import DROPOUT, stream
from dynsim._values import Value, check_name, real_number, whole

__all__ = ["PLACES", "Dropout"]

#: Where entries are dropped, and the part of the streams' key that stands for the place.
PLACES = {"attention": 0, "projection": 1, "mlp": 2}


@dataclass(frozen=True, eq=False, repr=False)
class Dropout(Value):
    """Dropout of every layer, with streams by seed, layer, sample and place.

    What is dropped depends on those and on the shape alone: all engines drop the same entries,
    however many samples, layers or threads there are. The numbers are of 32 bits, so that an entry
    is dropped with probability p to within 2^-33.

    Parameters
    ----------
    hidden : float
        Probability for an entry of the output of the attention's projection (the sum over heads
        with its bias), and of the MLP's: before the norm of the branch, the skip connection and the
        norm after it.
    attention : float
        Probability for an entry of A, head by head, after the softmax. Rows then do not sum to 1.
    seed : int
        Of the streams.

    Raises
    ------
    ValueError
        Unless the probabilities are real numbers with 0 <= p < 1, the seed a whole number.

    Examples
    --------
    >>> Dropout(hidden=0.5).scaled(np.ones((1, 6)), "mlp", 0, 0)
    array([[0., 2., 0., 0., 2., 2.]])
    """

    hidden: float = 0.0
    attention: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "attention"):
            p = real_number(f"the {name} dropout", getattr(self, name))
            if not 0.0 <= p < 1.0:
                raise ValueError(
                    f"the {name} dropout is a probability, at least 0 and below 1; got {p}; use 0 "
                    f"for none"
                )
            object.__setattr__(self, name, p)
        whole("seed of dropout", self.seed, least=0, most=np.inf)

    @property
    def active(self) -> bool:
        return bool(self.hidden or self.attention)

    def probability(self, place: str) -> float:
        """The probability at one of `PLACES`; ValueError for any other name."""
        check_name("place of dropout", place, PLACES)
        return self.attention if place == "attention" else self.hidden

    def kept(self, place: str, t: int, sample: int, size: int) -> np.ndarray:
        """Which of `size` entries stay in layer t of a sample: boolean, (size,)."""
        bits = stream(self.seed, DROPOUT, t, sample, PLACES[place]).bit_generator
        numbers = bits.random_raw(-(-size // 2)).astype("<u8", copy=False).view("<u4")[:size]
        return numbers >= np.uint32(min(round(self.probability(place) * 2**32), 2**32 - 1))

    def scaled(self, x: np.ndarray, place: str, t: int, samples: int | Sequence[int]) -> np.ndarray:
        """x, (N, k) of one sample or (S, N, k) of S numbered ones, after dropout in layer t.

        Without dropout at this place, x itself.
        """
        p = self.probability(place)
        if not p:
            return x
        if isinstance(samples, (int, np.integer)):
            return self.scaled(x[None], place, t, [samples])[0]
        kept = np.stack([self.kept(place, t, sample, x[0].size) for sample in samples])
        return x * (kept.reshape(x.shape) * x.dtype.type(1.0 / (1.0 - p)))
