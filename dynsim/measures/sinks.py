"""Measures of the tokens but the first, which takes the part of a sink in causal networks.

One token of great size hides the others: it alone makes sigma_1, and with it the stable rank 1
(massive activations, arXiv 2510.06477). Beside the same measure of all tokens these tell the two
apart. A state of one token has distance and rank 0 without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import real_array
from dynsim.measures.distance import mu
from dynsim.measures.spectrum import stable_rank

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

__all__ = ["mu_without_first", "stable_rank_without_first"]


def _of_others(measure: Callable, x: ArrayLike) -> np.ndarray:
    x = real_array("tokens", x, own=(np.float32,), axes=2)
    return measure(x[..., 1:, :]) if x.shape[-2] > 1 else np.zeros(x.shape[:-2])


def mu_without_first(x: ArrayLike) -> np.ndarray:
    """Distance to consensus of tokens 2..N: `mu` without the first token.

    >>> float(mu_without_first([[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0]]))
    1.4142135623730951
    """
    return _of_others(mu, x)


def stable_rank_without_first(x: ArrayLike) -> np.ndarray:
    """Stable rank of tokens 2..N: `stable_rank` without the first token.

    >>> float(stable_rank_without_first([[1e9, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    1.25
    """
    return _of_others(stable_rank, x)
