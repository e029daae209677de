"""A run enclosed: numbers between which the exact tokens and attention lie, layer by layer.

The run is that of exact arithmetic from the tokens and matrices given, whose floating-point numbers
are taken as they are. Two enclosures hold at once, and each layer uses the narrower:

- **Balls** (Arb, through python-flint): the tokens are propagated in ball arithmetic. Their radii
  grow from layer to layer, the more digits the later they matter.
- **Near consensus** no digits are needed. In row i the scores (x_i W_Q + b).(W_K^T x_j) differ by
  at most sigma = ||x W_Q + b|| ||W_K|| delta, delta the diameter of the tokens, so that every
  weight w_ij exp(score) / sum lies within a factor e^sigma of its value at equal scores (lemma
  `near_uniform` of theory/).

Everything below is one head, no skip connection, no MLP, and no norm or the unit norm after
attention. Needs python-flint, the extra `certify`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dynsim.network.weights import LayerWeights

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from flint import arb, arb_mat

__all__ = [
    "Attention",
    "Balls",
    "LayerBalls",
    "NoInformation",
    "above",
    "ball_arithmetic",
    "below",
    "log_above",
    "log_below",
    "log_diameter_above",
    "log_norm_above",
]

#: Half a unit in the last place of float64.
_ULP = 2.0**-53
#: Bits of what needs no more than float64 has: spectral norms, logarithms.
_BITS = 128


class NoInformation(Exception):
    """Balls have grown until they say nothing; more bits would help."""


def ball_arithmetic() -> ModuleType:
    """The module flint. Raises ImportError, which says how to get it."""
    try:
        import flint
    except ImportError:
        raise ImportError(
            "bounds are computed in ball arithmetic, by python-flint; pip install 'dynsim[certify]'"
        ) from None
    return flint


# --- from balls to floats, rounded outwards -------------------------------------------------------


def above(ball: arb) -> float:
    """A float at least as large as every number in the ball; infinite where there is none."""
    if not ball.is_finite():
        return math.inf
    return math.nextafter(float(ball.upper()), math.inf)


def below(ball: arb) -> float:
    """A float at most as large as every number in the ball."""
    if not ball.is_finite():
        return -math.inf
    return math.nextafter(float(ball.lower()), -math.inf)


def log_above(ball: arb) -> float:
    """A float at least as large as the logarithm of every number in a ball of numbers >= 0."""
    upper = ball.upper()
    return above(_log(upper)) if upper > 0 else -math.inf


def log_below(ball: arb) -> float:
    """A float at most as large as the logarithm of every number in a ball of numbers >= 0."""
    lower = ball.lower()
    return below(_log(lower)) if lower > 0 else -math.inf


def _log(number: arb) -> arb:
    """A ball around the logarithm, of more digits than a float has."""
    with ball_arithmetic().ctx.workprec(_BITS):
        return number.log()


def _sum(entries: Iterable[arb], flint: ModuleType) -> arb:
    return sum(entries, flint.arb(0))


def _norm_above(entries: Iterable[arb], flint: ModuleType) -> arb:
    """The square root of the sum of squares, or a little more."""
    return _sum((v.abs_upper() ** 2 for v in entries), flint).sqrt()


def _norm_below(entries: Iterable[arb], flint: ModuleType) -> arb:
    """The square root of the sum of squares, or less."""
    return _sum((v.abs_lower() ** 2 for v in entries), flint).sqrt()


def _rows(matrix: arb_mat) -> list[list[arb]]:
    entries, d = matrix.entries(), matrix.ncols()
    return [entries[k : k + d] for k in range(0, len(entries), d)]


def _floats(matrix: arb_mat) -> np.ndarray:
    """Midpoints, rounded."""
    shape = matrix.nrows(), matrix.ncols()
    return np.array([float(v.mid()) for v in matrix.entries()]).reshape(shape)


def log_norm_above(matrix: arb_mat, flint: ModuleType) -> float:
    """An upper bound of log ||matrix||_2, all but sharp.

    With any U, s, V: ||W||_2 <= ||U||_2 max|s| ||V||_2 + ||W - U s V||_F, and ||U||_2^2 <= 1 +
    ||U^T U - 1||_F. U, s, V come from floating point, the rest is computed in balls.
    """
    largest = max((abs(v).upper() for v in matrix.entries()), default=flint.arb(0))
    if not largest.is_finite():
        return math.inf
    if not largest > 0:
        return -math.inf
    scaled = matrix * (1 / largest)
    U, s, V = (flint.arb_mat(np.atleast_2d(a).tolist()) for a in _svd(_floats(scaled)))
    stretched = [[U[i, k] * s[0, k] for k in range(s.ncols())] for i in range(U.nrows())]
    rest = scaled - flint.arb_mat(stretched) * V
    size = max(abs(v).upper() for v in s.entries())
    for factor in (U.transpose() * U, V * V.transpose()):
        off = factor - _identity(factor.nrows(), flint)
        size = size * (1 + _norm_above(off.entries(), flint)).sqrt()
    return log_above((size + _norm_above(rest.entries(), flint)) * largest)


def _svd(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.linalg.svd(matrix, full_matrices=False)


def _identity(n: int, flint: ModuleType) -> arb_mat:
    return flint.arb_mat([[int(i == j) for j in range(n)] for i in range(n)])


def log_diameter_above(points: arb_mat, flint: ModuleType) -> float:
    """An upper bound of the log of the largest distance of two rows of balls."""
    from scipy.spatial.distance import pdist

    largest = max(v.abs_upper() for v in points.entries())
    if not largest.is_finite():
        return math.inf
    if not largest > 0:
        return -math.inf
    scaled = points * (1 / largest)
    mids, d = _floats(scaled), points.ncols()
    off = max(above(v.rad()) for v in scaled.entries()) + _ULP  # |entry| <= 1, rounded to float
    distance = pdist(mids).max() * (1 + 2 * (d + 8) * _ULP) + 2 * off * math.sqrt(d) + 1e-300
    return math.log(distance) * (1 + _ULP) + 4 * _ULP + log_above(largest)


# --- a layer's matrices ---------------------------------------------------------------------------


class LayerBalls:
    """The matrices of one layer with one head, exactly, and bounds on their norms.

    query, key (None for 0 and for the identity), W_V : balls; query_bias, output_bias: (1, d) or
    None. log_value, log_query, log_key >= logs of ||W_V||_2, ||W_Q||_2, ||W_K||_2; log_bias and
    log_shift >= logs of the norms of the biases.
    """

    def __init__(self, layer: LayerWeights, flint: ModuleType) -> None:
        self.flint = flint

        def exact(array: np.ndarray) -> arb_mat | None:
            return flint.arb_mat(np.atleast_2d(array).tolist()) if array.any() else None

        self.query, self.query_bias = exact(layer.query[0]), exact(layer.query_bias[0])
        self.key = flint.arb_mat(layer.key[0].tolist()) if layer.key.size else None
        self.output_bias = exact(layer.output_bias)
        output = flint.arb_mat(layer.output[0].tolist())
        self.W_V = flint.arb_mat(layer.value[0].tolist()) * output if layer.value.size else output

    @cached_property
    def log_value(self) -> float:
        return self._log_norm(self.W_V)

    @cached_property
    def log_query(self) -> float:
        return self._log_norm(self.query)

    @cached_property
    def log_key(self) -> float:
        return 0.0 if self.key is None else self._log_norm(self.key)

    @cached_property
    def log_bias(self) -> float:
        return self._log_norm(self.query_bias)

    @cached_property
    def log_shift(self) -> float:
        return self._log_norm(self.output_bias)

    def _log_norm(self, matrix: arb_mat | None) -> float:
        if matrix is None:
            return -math.inf
        with self.flint.ctx.workprec(_BITS):
            return log_norm_above(matrix, self.flint)

    @property
    def scores_vanish(self) -> bool:
        return self.query is None and self.query_bias is None

    def score_range(self, log_size: float, log_delta: float) -> float:
        """(||x|| ||W_Q|| + ||b||) ||W_K|| delta, by which scores of a row differ at most.

        log_size, log_delta : of the largest ||x|| and of the diameter of the tokens
        """
        log_query = np.logaddexp(log_size + self.log_query, self.log_bias)
        return math.exp(min(log_query + self.log_key + log_delta, 700.0))

    @cached_property
    def isometry(self) -> float:
        """||W_V W_V^T / size - 1||_2 at most, size the mean of the diagonal of W_V W_V^T."""
        flint, W = self.flint, self.W_V
        with flint.ctx.workprec(_BITS):
            gram, d = W * W.transpose(), W.nrows()
            size = _sum((gram[a, a] for a in range(d)), flint).mid() / d
            if not size > 0:
                return math.inf
            off = gram * (1 / size) - _identity(d, flint)
            return above(_norm_above(off.entries(), flint))


# --- attention ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attention:
    """Row-stochastic matrices within `error` of `matrix`, in the l1 norm of every row.

    `log_least` is at most the logarithm of every weight on an edge.
    """

    matrix: np.ndarray
    error: float
    log_least: float

    @classmethod
    def near_uniform(cls, allowed: np.ndarray, sigma: float) -> Attention:
        """Weights within a factor e^sigma of those of equal scores.

        |w - u| <= (e^sigma - 1) u entry by entry, and u sums to 1 in every row.
        """
        counts = allowed.sum(axis=1, keepdims=True)
        error = math.expm1(sigma) if sigma < 1.0 else math.inf
        rounding = 2 * _ULP  # of 1 / count, relative
        return cls(allowed / counts, error + rounding, -sigma - math.log(counts.max()) - rounding)

    @classmethod
    def from_balls(
        cls, rows: list[list[arb]], neighbours: list[np.ndarray], log_least: float
    ) -> Attention:
        """From the balls of every row's weights on its edges."""
        matrix, worst = np.zeros((len(rows),) * 2), 0.0
        for i, (row, js) in enumerate(zip(rows, neighbours, strict=True)):
            mids = np.array([float(v.mid()) for v in row])
            radii = np.array([float(v.rad()) for v in row])
            matrix[i, js] = mids
            worst = max(worst, float(np.sum(radii + 2 * _ULP * mids)))
        return cls(matrix, worst * (1 + 1e-12) + 1e-300, log_least)


class Balls:
    """Tokens in ball arithmetic, at the precision that flint's context has.

    tokens : arb_mat (N, d). pole : arb_mat (d, 1) or None; where there is one, it is carried along
    as v' = W_V^-1 v, so that <v', x_j W_V> = <v, x_j>.
    """

    def __init__(
        self, x: np.ndarray, neighbours: list[np.ndarray], is_unit: bool, flint: ModuleType
    ) -> None:
        self.flint, self.neighbours, self.is_unit = flint, neighbours, is_unit
        self.tokens = flint.arb_mat(x.astype(float).tolist())
        self.pole: arb_mat | None = None

    # what is known of the tokens

    def log_mu(self) -> tuple[float, float]:
        """Bounds (below, above) of log mu(X)."""
        rows = _rows(self.tokens)
        apart = [[v - a for v, a in zip(row, rows[0], strict=True)] for row in rows]
        means = [_sum(column, self.flint) / len(rows) for column in zip(*apart, strict=True)]
        rest = [v - m for row in apart for v, m in zip(row, means, strict=True)]
        return log_below(_norm_below(rest, self.flint)), log_above(_norm_above(rest, self.flint))

    def log_size(self) -> float:
        """A bound from above of the log of the largest ||x_i||."""
        return max(log_above(_norm_above(row, self.flint)) for row in _rows(self.tokens))

    def sizes(self) -> list[arb]:
        """The balls of all ||x_i||."""
        return [_sum((v * v for v in row), self.flint).sqrt() for row in _rows(self.tokens)]

    def midpoints(self) -> np.ndarray:
        """The tokens to rounding, (N, d)."""
        return _floats(self.tokens)

    def heights(self) -> list[arb]:
        """The balls of all <v, x_i>."""
        return (self.tokens * self.pole).entries()

    def chart(self) -> arb_mat:
        """x_i / <v, x_i>, (N, d)."""
        pairs = zip(_rows(self.tokens), self.heights(), strict=True)
        return self.flint.arb_mat([[a / h for a in row] for row, h in pairs])

    def smallest_cosine(self) -> tuple[float, int, int]:
        """A bound from below of the smallest cosine of two tokens, and which these are."""
        pairs = zip(_rows(self.tokens), self.sizes(), strict=True)
        unit = self.flint.arb_mat([[a / size for a in row] for row, size in pairs])
        gram = _rows(unit * unit.transpose())
        return min((below(gram[j][i]), i, j) for j in range(len(gram)) for i in range(j))

    # a layer

    def attention(self, layer: LayerBalls) -> tuple[list[list[arb]], float]:
        """(weights on the edges of every row, a bound from below of the log of the smallest)."""
        flint = self.flint
        if layer.scores_vanish:
            shares = [[flint.arb(1) / len(js)] * len(js) for js in self.neighbours]
            return shares, -math.log(max(map(len, self.neighbours))) - 2 * _ULP
        d = self.tokens.ncols()
        query = flint.arb_mat(self.tokens.nrows(), d) if layer.query is None \
            else self.tokens * layer.query  # fmt: skip
        if layer.query_bias is not None:
            query = query + self._in_every_row(layer.query_bias)
        key = self.tokens if layer.key is None else self.tokens * layer.key
        scores = _rows(query * key.transpose())
        rows, least = [], math.inf
        for row, js in zip(scores, self.neighbours, strict=True):
            edges = [row[j] for j in js]
            if not all(s.is_finite() for s in edges):
                raise NoInformation
            top = max(s.mid() for s in edges)
            weights = [(s - top).exp() for s in edges]
            total = _sum(weights, flint)
            if not (total.is_finite() and total > 0):
                raise NoInformation
            rows.append([w / total for w in weights])
            least = min(least, min(below(s - top) for s in edges) - above(total.log()))
        return rows, math.nextafter(least, -math.inf)

    def _in_every_row(self, row: arb_mat) -> arb_mat:
        return self.flint.arb_mat([[1]] * self.tokens.nrows()) * row

    def reweighted(self, rows: list[list[arb]]) -> list[list[arb]]:
        """A_ij h_j / sum_k A_ik h_k, h the heights: how the chart x_i / h_i moves."""
        heights, out = self.heights(), []
        for row, js in zip(rows, self.neighbours, strict=True):
            weights = [a * heights[j] for a, j in zip(row, js, strict=True)]
            total = _sum(weights, self.flint)
            if not (total.is_finite() and total > 0):
                raise NoInformation
            out.append([w / total for w in weights])
        return out

    def advance(self, rows: list[list[arb]], layer: LayerBalls) -> None:
        """One layer, with the given attention."""
        flint, n = self.flint, len(rows)
        A = flint.arb_mat(n, n)
        for i, (row, js) in enumerate(zip(rows, self.neighbours, strict=True)):
            for a, j in zip(row, js, strict=True):
                A[i, int(j)] = a
        x = A * (self.tokens * layer.W_V)
        if layer.output_bias is not None:
            x = x + self._in_every_row(layer.output_bias)
        if self.is_unit:
            out = []
            for row in _rows(x):
                size = _sum((v * v for v in row), flint).sqrt()
                if not (size.is_finite() and size > 0):
                    raise NoInformation
                out.append([v / size for v in row])
            x = flint.arb_mat(out)
        if not all(v.is_finite() for v in x.entries()):
            raise NoInformation
        self.tokens = x
        if self.pole is not None:
            try:
                self.pole = layer.W_V.solve(self.pole)
            except ZeroDivisionError:
                raise NoInformation from None
