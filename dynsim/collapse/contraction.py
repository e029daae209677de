"""How far a run is proved to bring its tokens together: coefficients of ergodicity by depth.

One pass over the layers of one sample, in which bound and enclosure help one another: what is
proved of the diameter so far bounds the scores of the next layer near consensus, whatever digits
the balls have left. Where both say nothing, the pass is done again with twice the bits, as long as
that can be afforded; after that a layer is only known to bring no two tokens further apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim.collapse.enclosures import (
    Attention,
    Balls,
    LayerBalls,
    NoInformation,
    above,
    ball_arithmetic,
    log_above,
    log_below,
    log_diameter_above,
    log_norm_above,
)
from dynsim.measures import numerical_rank, singular_values
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Unit
from dynsim.network.parts import check_plain
from dynsim.network.weights import Weights, Zero

if TYPE_CHECKING:
    from flint import arb_mat

__all__ = [
    "Contraction",
    "Start",
    "contractions",
    "dobrushin_coefficient",
    "equal_heights",
    "pole",
    "seconds",
]

_EPS = float(np.finfo(np.float64).eps)
#: A product of attention matrices is long enough when it brings points together by this factor, or
#: to within so many times of how well it is known.
_CONTRACTED, _KNOWN = 1e-9, 8.0
#: Bits of the first pass. Attention known to this, in the l1 norm of rows, needs no balls.
_BITS, _EXACT = 128, 1e-14
#: Tokens of the input have length 1 when it is 1 to this.
_SPHERE = 1e-9
#: Attention known no better than this says nothing; no better than that, it is worth more bits.
_UNKNOWN, _POOR = 0.5, 1e-12
#: Bounds that float64 computes near consensus are widened by this share.
_WIDER = 1.0 + 1e-9


@dataclass(frozen=True)
class Start:
    """The depth at which a hypothesis first holds, and what it gives from there.

    For cosines that are not negative: `log_size` >= log(1 - the smallest). For a hemisphere with
    the pole v and heights h = <v, x>: `log_size` >= log(||v|| diameter of the x_i / h_i),
    `log_height` <= log(min h / ||v||), `log_length` >= |log ||x||| for all tokens, all but 0.
    """

    depth: int
    log_size: float
    log_height: float = 0.0
    log_length: float = 0.0


@dataclass
class Contraction:
    """What is proved of one sample: arrays over depths 0..T, natural logarithms.

    log_mu : (2, T+1), mu lies between, where balls tell; else -inf and inf
    log_least : <= log of the smallest attention on an edge in the layers before
    log_tau : >= log of the coefficient of ergodicity of the layers before; with a norm, of those
        since the hemisphere began
    log_value : >= log ||W_V^(0) ... W_V^(t-1)||_2; with a norm, >= log of the product of the
        condition numbers of these
    isometry : >= sum of ||W_V W_V^T / size - 1||_2 of the layers before
    log_diameter : >= log of the diameter of the input
    log_lengths : >= log of the largest over the smallest length of the input's tokens
    widest : the smallest cosine, from below, and its tokens, where it was last looked at
    hemisphere, independent : the pole of the largest smallest height, and the one of equal heights,
        v proportional to X^+ 1, which independent rows have; the latter at the first depth only
    """

    log_mu: np.ndarray
    log_least: np.ndarray
    log_tau: np.ndarray
    log_value: np.ndarray
    isometry: np.ndarray
    log_diameter: float
    log_lengths: float
    widest: tuple[float, int, int] = (0.0, 0, 0)
    acute: Start | None = None
    hemisphere: Start | None = None
    independent: Start | None = None


def seconds(n: int, d: int, edges: int, depth: int, bits: int = 2 * _BITS) -> float:
    """About what a pass takes on one core: Python's work per edge, and products of matrices."""
    products = 2 * n * d * (n + d) + d**3
    return depth * (5e-6 * edges + 2e-5 * n + 3e-10 * bits * products + 1e-9 * n**3)


def contractions(
    dynamics: AttentionDynamics,
    x0: np.ndarray,
    depth: int,
    start: int = 0,
    window: int | None = None,
    patience: float = 20.0,
) -> list[Contraction]:
    """The runs of `depth` layers from tokens x0, (samples, N, d), from the layer `start` on.

    One head, no skip, no MLP; no norm, or the unit norm after attention with every W_V orthogonal
    up to a factor. `window` is how many layers the products of attention matrices span, by default
    as many as it takes. Bits are doubled while a pass takes about `patience` seconds at most.

    Raises ImportError without python-flint.
    """
    layers = _Layers(dynamics, depth, start, x0.shape[2])
    return [_contraction(layers, x, window, patience) for x in x0]


def _contraction(
    layers: _Layers, x0: np.ndarray, window: int | None, patience: float
) -> Contraction:
    flint, bits = ball_arithmetic(), _BITS
    n, d = x0.shape
    edges = layers.dynamics.layout.n_edges
    while True:
        last = seconds(n, d, edges, layers.depth, 2 * bits) > patience
        with flint.ctx.workprec(bits):
            try:
                return _Pass(layers, x0, window, last).carried_out()
            except NoInformation:
                bits *= 2


class _Layers:
    """The layers of a run, and what is known of them whatever the tokens and the bits.

    isometry : ||W_V W_V^T / size - 1||_2 of every layer, from above, where there is a norm
    has_scores : False where all scores are 0
    """

    def __init__(self, dynamics: AttentionDynamics, depth: int, start: int, dim: int):
        check_plain(dynamics, "a proved contraction")
        self.dynamics, self.depth, self.start, self.dim = dynamics, depth, start, dim
        self.is_unit = isinstance(dynamics.norm, Unit)
        self.allowed = dynamics.allowed()
        self.neighbours = [np.flatnonzero(row) for row in self.allowed]
        self.alike = bool((self.allowed == self.allowed[0]).all())
        weights = dynamics.weights
        no_scores = isinstance(weights, Weights) and isinstance(weights.scores, Zero)
        with ball_arithmetic().ctx.workprec(_BITS):
            count = 1 if weights.is_constant else depth
            isometry = [self.balls(t).isometry for t in range(count if self.is_unit else 0)]
            no_scores = no_scores or (weights.is_constant and self.balls(0).scores_vanish)
        self.isometry = isometry * depth if weights.is_constant else isometry
        self.has_scores = not no_scores

    def balls(self, t: int) -> LayerBalls:
        """Layer t, at the precision that flint's context has."""
        number = self.start + (0 if self.dynamics.weights.is_constant else t)
        return LayerBalls(self.dynamics.weights.layer(number, self.dim), ball_arithmetic())


class _Pass:
    """A pass under way.

    balls : the tokens; None once they say nothing, or nothing that is needed
    log_delta, log_size : >= log of the diameter, and of the largest length, of the tokens
    last : there will be no pass with more bits
    """

    def __init__(self, layers: _Layers, x0: np.ndarray, window: int | None, last: bool) -> None:
        self.flint, self.layers, self.last = ball_arithmetic(), layers, last
        self.is_unit, depth = layers.is_unit, layers.depth
        self.balls: Any = Balls(x0, layers.neighbours, self.is_unit, self.flint)
        self.products = _Products(len(x0), window)
        self.value: arb_mat | None = None  # the product of value matrices, without a norm
        log_least, log_tau, log_value, isometry = np.zeros((4, depth + 1))
        sizes = self.balls.sizes()
        self.proved = Contraction(
            np.stack([np.full(depth + 1, -np.inf), np.full(depth + 1, np.inf)]),
            log_least,
            log_tau,
            log_value,
            isometry,
            log_diameter_above(self.balls.tokens, self.flint),
            max(map(log_above, sizes)) - min(map(log_below, sizes)) + 4 * _EPS,
        )
        # a chart of tokens of other lengths would be wider
        self.first = int(max(abs(above(size - 1.0)) for size in sizes) >= _SPHERE)
        self.log_delta = self.proved.log_diameter
        self.log_size = self.log_size_before = self.balls.log_size()

    def carried_out(self) -> Contraction:
        self._observe(0)
        layer = None
        for t in range(self.layers.depth):
            if layer is None or not self.layers.dynamics.weights.is_constant:
                layer = self.layers.balls(t)
            self._advance(t, layer)
            self._observe(t + 1)
        return self.proved

    # what the balls tell at a depth

    def _observe(self, t: int) -> None:
        if self.balls is None:
            return
        low, high = self.balls.log_mu()
        self.proved.log_mu[:, t] = low, high
        self.log_delta = min(self.log_delta, high + math.log(2.0) / 2 + 4 * _EPS * (1 + abs(high)))
        self.log_size = min(self.log_size, self.balls.log_size())
        if self.is_unit and self.proved.acute is None:
            self.proved.acute = self._acute(t)
        if self.is_unit and self.proved.hemisphere is None and t >= self.first:
            self.proved.hemisphere = self._hemisphere(t, pole(self.balls.midpoints()))
        if self.is_unit and t == self.first:
            self._observe_independence(t)

    def _acute(self, t: int) -> Start | None:
        """All cosines are not negative, and stay so: W_V is an isometry up to its `isometry`."""
        self.proved.widest = self.balls.smallest_cosine()
        smallest = self.proved.widest[0]
        if not smallest >= 4.0 * sum(self.layers.isometry):
            return None
        return Start(t, math.log(max(1.0 - smallest, 0.0) + _EPS))

    def _observe_independence(self, t: int) -> None:
        carried = self.balls.pole
        self.proved.independent = self._hemisphere(t, equal_heights(self.balls.midpoints()))
        self.balls.pole = carried

    def _hemisphere(self, t: int, direction: np.ndarray | None) -> Start | None:
        """With the pole `direction`, which the balls carry along if all heights are positive."""
        if direction is None:
            return None
        self.balls.pole = self.flint.arb_mat(direction[:, None].tolist())
        heights = self.balls.heights()
        low = min(map(log_below, heights))
        if low == -math.inf:
            self.balls.pole = None
            return None
        size = log_norm_above(self.balls.pole, self.flint)
        slack = 8 * _EPS * (1 + abs(low) + abs(size))
        spread = log_diameter_above(self.balls.chart(), self.flint)
        lengths = self.balls.sizes()
        uneven = max(max(log_above(a), -log_below(a)) for a in lengths) + 4 * _EPS
        return Start(t, spread + size + slack, low - size - slack, uneven)

    # a layer

    def _advance(self, t: int, layer: LayerBalls) -> None:
        proved, options = self.proved, [self._near(layer)]
        if self._balls_are_needed(options[0]):
            options.append(self._by_balls(layer))
        else:
            self.balls = None
        steps = [one for one in options if one is not None]
        least = max((plain.log_least for plain, _ in steps), default=-math.inf)
        proved.log_least[t + 1] = min(proved.log_least[t], least)
        moves = [moving for _, moving in steps if moving is not None]
        best = min(moves, key=lambda one: one.error, default=None)
        poor = best is None or best.error > _POOR
        if poor and not self.last and (not self.is_unit or proved.hemisphere is not None):
            raise NoInformation
        if self.balls is None and self._is_pending() and not self.last:
            raise NoInformation
        if not self.is_unit or proved.hemisphere is not None:
            proved.log_tau[t + 1] = self.products.add(best, self._log_tau_alike(layer))
        self._bound(t, layer)

    def _bound(self, t: int, layer: LayerBalls) -> None:
        """The diameter and the size after the layer."""
        proved, chart = self.proved, self.proved.hemisphere
        if self.is_unit:
            e = self.layers.isometry[t]
            proved.isometry[t + 1] = proved.isometry[t] + e
            proved.log_value[t + 1] = proved.log_value[t] + e / (1.0 - e) * _WIDER
            self.log_delta, self.log_size = math.log(2.0) + _EPS, _EPS
            if chart is not None:
                condition = proved.log_value[t + 1] - proved.log_value[chart.depth]
                self.log_delta = min(
                    self.log_delta, chart.log_size + condition + proved.log_tau[t + 1]
                )
            return
        self.value = layer.W_V if self.value is None else self.value * layer.W_V
        proved.log_value[t + 1] = log_norm_above(self.value, self.flint)
        self.log_delta = proved.log_diameter + proved.log_value[t + 1] + proved.log_tau[t + 1]
        if layer.output_bias is None and self.log_size_before < math.inf:
            self.log_size = self.log_size_before + proved.log_value[t + 1]
        else:
            self.log_size = np.logaddexp(self.log_size + layer.log_value, layer.log_shift)
            self.log_size_before = math.inf

    def _is_pending(self) -> bool:
        """A bound may still begin, which takes tokens."""
        proved = self.proved
        return self.is_unit and (proved.acute is None or proved.hemisphere is None)

    def _balls_are_needed(self, near: tuple[Attention, Attention | None] | None) -> bool:
        if self.balls is None:
            return False
        if self._is_pending() or near is None or near[1] is None:
            return True
        # attention that is near uniform stays so with a norm, and without scores
        return near[1].error > _EXACT or not (self.is_unit or not self.layers.has_scores)

    def _near(self, layer: LayerBalls) -> tuple[Attention, Attention | None] | None:
        """(attention, how the tokens or the chart move) by the bound on scores near consensus."""
        sigma = layer.score_range(self.log_size, self.log_delta) * _WIDER
        if not sigma < 1.0:
            return None
        plain = Attention.near_uniform(self.layers.allowed, sigma)
        if not self.is_unit:
            return plain, plain
        chart = self.proved.hemisphere
        if chart is None:
            return plain, None
        # h_j / h_k <= 1 + ||v|| delta / min h
        condition = self.proved.log_value.max() - self.proved.log_value[chart.depth]
        heights = math.log1p(math.exp(min(self.log_delta - chart.log_height + condition, 50.0)))
        moving = Attention.near_uniform(self.layers.allowed, (sigma + heights) * _WIDER)
        return plain, moving

    def _by_balls(self, layer: LayerBalls) -> tuple[Attention, Attention | None] | None:
        """The same by balls, which go on to the next depth; None when they say nothing."""
        try:
            rows, log_least = self.balls.attention(layer)
            plain = Attention.from_balls(rows, self.balls.neighbours, log_least)
            moving = None if self.is_unit else plain
            if self.proved.hemisphere is not None:
                chart = self.balls.reweighted(rows)
                moving = Attention.from_balls(chart, self.balls.neighbours, -math.inf)
            self.balls.advance(rows, layer)
        except NoInformation:
            self.balls = None
            return None
        return plain, moving

    def _log_tau_alike(self, layer: LayerBalls) -> float:
        """>= log tau of this layer where all tokens attend to the same ones, else 0.

        Scores differ by f_j from one row to another, with f_j - f_l = (x_i - x_k) W_Q W_K^T (x_j -
        x_l) of size kappa at most. So weights differ by a factor e^kappa at most, whatever else
        they have in common (heights too), and tau <= (e^kappa - 1) / 2 <= kappa e^kappa / 2.
        """
        if not self.layers.alike:
            return 0.0
        log_kappa = layer.log_query + layer.log_key + 2.0 * self.log_delta + 1e-9
        if not log_kappa < 0.0:
            return 0.0
        return log_kappa + math.exp(log_kappa) - math.log(2.0)


class _Products:
    """Coefficients of ergodicity of products of the layers' matrices.

    The coefficient of a product is at most the product of coefficients, so windows are as long as
    rounding lets them be, or `window` layers; they follow one another.
    """

    def __init__(self, n: int, window: int | None):
        self.n, self.window = n, window
        self.before = 0.0
        self._begin()

    def _begin(self) -> None:
        self.product, self.error, self.layers = np.eye(self.n), 0.0, 0
        self.tau = 1.0

    def add(self, matrix: Attention | None, log_tau_alone: float) -> float:
        """>= log of the coefficient of all layers; `log_tau_alone` >= that of this layer's."""
        alone = self.before + math.log(self.tau) + log_tau_alone
        self.layers += 1
        if matrix is None or matrix.error > _UNKNOWN:
            self.error = math.inf
        else:
            # ||P Q - P' Q'|| <= ||P - P'|| + ||Q - Q'|| for stochastic ones, in the l1 norm of
            # rows; a product of N terms and rows that sum to 1 round by N eps
            self.product = matrix.matrix @ self.product
            self.error += matrix.error + 2.0 * (self.n + 4) * _EPS
        if self.error < 1.0:
            coefficient = float(dobrushin_coefficient(self.product)) + self.error
            self.tau = min(self.tau, coefficient * (1.0 + 2.0 * (self.n + 4) * _EPS), 1.0)
        together = self.before + math.log(self.tau)
        if self.window:
            closes = self.layers == self.window
        else:
            closes = self.error >= 1.0 or self.tau < max(_CONTRACTED, _KNOWN * self.error)
            closes = closes or alone < together
            together = min(together, alone)
        if closes:
            self.before = together
            self._begin()
        return together


def dobrushin_coefficient(P: np.ndarray) -> np.ndarray:
    """max_ik (1/2) sum_j |P_ij - P_kj| of matrices (..., N, N), of which nothing is checked.

    >>> float(dobrushin_coefficient(np.array([[0.5, 0.5], [0.25, 0.75]])))
    0.25
    """
    rows = range(P.shape[-2])  # one at a time: no (N, N, N) array
    apart = [np.abs(P[..., i:, :] - P[..., i : i + 1, :]).sum(axis=-1).max(axis=-1) for i in rows]
    return np.max(apart, axis=0) / 2.0


def pole(x: np.ndarray) -> np.ndarray | None:
    """The unit vector with the largest smallest <v, x_i>, x (N, d); None if it is not positive.

    >>> pole(np.eye(2)).round(6), pole(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    (array([0.707107, 0.707107]), None)
    """
    from scipy.optimize import nnls

    target = np.append(np.zeros(x.shape[1]), 1.0)
    weights = nnls(np.vstack([x.T, np.ones(len(x))]), target)[0]
    nearest = weights @ x  # in the direction of the point of the hull nearest to 0
    size = np.linalg.norm(nearest)
    if size == 0 or (x @ nearest).min() <= 4 * _EPS * len(x) * size:
        return None
    return nearest / size


def equal_heights(x: np.ndarray) -> np.ndarray | None:
    """The unit vector v proportional to X^+ 1: all <v, x_i> alike. None if rows are dependent.

    >>> equal_heights(np.array([[1.0, 0.0], [0.6, 0.8]])).round(6)
    array([0.894427, 0.447214])
    """
    if numerical_rank(singular_values(x)) < len(x):
        return None
    v = np.linalg.pinv(x) @ np.ones(len(x))
    return v / np.linalg.norm(v)
