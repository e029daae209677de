"""The dynamics from their definition in as many digits as are asked for, with mpmath alone.

Slow, and independent of dynsim: what the log-scale engine is measured against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mpmath as mp
import numpy as np

__all__ = ["Layer", "log10_sizes", "log_mu"]


@dataclass(frozen=True)
class Layer:
    """x' = after(skip x + branch(sum_h A_h(z) z W_V^h)), z = before(x), the norms as `norm` says.

    heads : sequence of (M, W_V). allowed : (N, N), True where i may attend to j.
    norm : "none", "unit", "rms" or "layernorm". placement : "post", "pre" or "peri".
    """

    heads: Sequence[tuple[np.ndarray, np.ndarray]]
    allowed: np.ndarray
    norm: str = "none"
    placement: str = "post"
    skip: float = 0.0
    gain: Sequence[float] = ()
    bias: Sequence[float] = ()
    eps: float = 0.0

    def step(self, x):
        """One layer of tokens, a list of rows."""
        z = self.normalised(x) if self.placement in ("pre", "peri") else x
        y = [[mp.mpf(0)] * len(x[0]) for _ in x]
        for M, W_V in self.heads:
            added = _product(_attended(z, _exact(M), self.allowed), _exact(W_V))
            y = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(y, added, strict=True)]
        if self.placement == "peri":
            y = self.normalised(y)
        if self.skip:
            skip = mp.mpf(self.skip)
            y = [[skip * a + b for a, b in zip(*r, strict=True)] for r in zip(x, y, strict=True)]
        return self.normalised(y) if self.placement == "post" else y

    def normalised(self, x):
        """The norm of every token."""
        return x if self.norm == "none" else [self.normalised_token(a) for a in x]

    def normalised_token(self, a):
        """The norm of a token, from mean and variance."""
        if self.norm == "layernorm":
            mean = mp.fsum(a) / len(a)
            a = [v - mean for v in a]
        squares = mp.fdot(a, a)
        if self.norm == "unit":
            return [v / mp.sqrt(squares) for v in a]
        size = mp.sqrt(squares / len(a) + mp.mpf(self.eps))
        gain, bias = self.gain or [1.0] * len(a), self.bias or [0.0] * len(a)
        return [mp.mpf(g) * v / size + mp.mpf(b) for v, g, b in zip(a, gain, bias, strict=True)]


def _exact(matrix):
    return [[mp.mpf(float(v)) for v in row] for row in matrix]


def _product(a, b):
    columns = list(zip(*b, strict=True))
    return [[mp.fdot(row, column) for column in columns] for row in a]


def _attended(x, M, allowed):
    """A x, row by row."""
    queries, rows = _product(x, M), []
    for query, seen in zip(queries, allowed, strict=True):
        keys = [x[j] for j in np.flatnonzero(seen)]
        weights = [mp.exp(mp.fdot(query, key)) for key in keys]
        total = mp.fsum(weights)
        columns = zip(*keys, strict=True)
        rows.append([mp.fdot(weights, column) / total for column in columns])
    return rows


def _mu_squared(x):
    means = [mp.fsum(column) / len(x) for column in zip(*x, strict=True)]
    return mp.fsum((v - m) ** 2 for row in x for v, m in zip(row, means, strict=True))


def _log_mu(x):
    squares = _mu_squared(x)
    return mp.log(squares) / 2 if squares else mp.ninf


def log_mu(x0: np.ndarray, layers: Sequence[Layer], digits: int = 60) -> np.ndarray:
    """Natural logarithm of mu at depths 0 .. len(layers), for tokens x0, (N, d).

    Computed with more and more digits until two runs agree to 1e-14. mu must not become 0.
    """
    earlier = _with_digits(x0, layers, digits)
    while True:
        digits *= 2
        found = _with_digits(x0, layers, digits)
        if np.isfinite(found).all() and np.allclose(found, earlier, rtol=1e-14, atol=1e-14):
            return found
        earlier = found


def _with_digits(x0, layers, digits: int) -> np.ndarray:
    with mp.workdps(digits):
        x = _exact(x0)
        found = [_log_mu(x)]
        for layer in layers:
            x = layer.step(x)
            found.append(_log_mu(x))
        return np.array([float(value) for value in found])


def log10_sizes(
    x0: np.ndarray, layers: Sequence[Layer], digits: int, lost: float = -np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """(log10 mu, log10 of mu / ||X||_F) by depth, with so many digits; both -inf where mu is 0.

    Ends where a token has no size left for the norm, and at the first depth at which mu / ||X||_F
    is below 10^lost.
    """
    with mp.workdps(digits):
        x = _exact(x0)
        found = [_log10_size(x)]
        for layer in layers:
            try:
                x = layer.step(x)
            except ZeroDivisionError:
                break
            found.append(_log10_size(x))
            if found[-1][1] < lost:
                break
    return tuple(np.array(found).T)


def _log10_size(x) -> tuple[float, float]:
    apart = _mu_squared(x)
    if not apart:
        return -np.inf, -np.inf
    size = mp.fsum(mp.fdot(row, row) for row in x)
    with mp.workdps(25):  # logarithms to more digits than a float holds would take most of the time
        return float(mp.log10(apart) / 2), float(mp.log10(apart / size) / 2)
