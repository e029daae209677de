"""Bounds on mu by depth, proved, with all constants, that check their own hypotheses.

All rest on one fact. A row-stochastic P brings points together: the diameter, the largest
||x_i - x_j||, of P X W is at most tau(P) ||W||_2 times that of X, tau Dobrushin's coefficient of
ergodicity, and mu^2 = sum_ij ||x_i - x_j||^2 / (2 N) <= (N - 1) / 2 * diameter^2.

What is bounded is the run of exact arithmetic from the tokens and matrices given. Attention and
tokens are enclosed in balls and, near consensus, by a bound on the scores (`enclosures`); what is
computed from them is rounded outwards, and all is in logarithms, so that nothing under- or
overflows. Dense: O(N^2) memory and O(N^3) work per layer and sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dynsim._threads import blas_alone
from dynsim._values import real_array, whole
from dynsim.collapse.contraction import Contraction, Start, contractions, dobrushin_coefficient
from dynsim.masks.connectivity import (
    diameter,
    eccentricities,
    is_quasi_strongly_connected,
    is_strongly_connected,
    radius,
)
from dynsim.measures import numerical_rank, singular_values
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.norms import NoNorm, Unit
from dynsim.network.parts import check_plain

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["BOUNDS", "Bound", "Bounds", "dobrushin", "mu_bounds"]

_EPS = float(np.finfo(np.float64).eps)
#: log of a bound, (T+1,), and the constants in it.
Proof = tuple[np.ndarray, dict[str, float]]

#: Rows of attention that are given sum to 1 as nearly as this.
_STOCHASTIC = 1e-6
#: A matrix is orthogonal, up to a factor, when W^T W is as near to a multiple of I as this.
_ORTHOGONAL = 1e-10


def dobrushin(P: ArrayLike) -> np.ndarray:
    """Dobrushin's coefficient max_ik (1/2) sum_j |P_ij - P_kj| of row-stochastic P (..., N, N).

    To rounding. Raises ValueError unless entries are at least 0 and rows sum to 1, to 1e-6.

    >>> float(dobrushin([[0.5, 0.5], [0.25, 0.75]]))
    0.25
    """
    P = real_array("matrices of attention", P)
    if P.ndim < 2 or P.shape[-1] != P.shape[-2] or not P.size:
        raise ValueError(f"matrices of attention are square, (..., N, N); got shape {P.shape}")
    sums = P.sum(axis=-1)
    if not (np.all(P >= 0) and np.all(np.abs(sums - 1.0) <= _STOCHASTIC)):
        raise ValueError(
            f"rows of attention hold numbers of at least 0 that sum to 1; got entries from "
            f"{P.min():.4g} and sums from {sums.min():.4g} to {sums.max():.4g}; divide each row by "
            f"its sum"
        )
    return dobrushin_coefficient(P)


# --- the results ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bound:
    """One bound: `log10_bound`, (samples, T+1), is NaN for samples to which it does not apply.

    `reasons` says why it does not, by sample; `constants` are what the bound was computed from, one
    number or one per sample.
    """

    name: str
    source: str
    log10_bound: np.ndarray
    constants: dict = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def applies(self) -> np.ndarray:
        """Per sample, (samples,)."""
        return ~np.isnan(self.log10_bound[:, -1])

    def __str__(self) -> str:
        parts = []
        if self.applies.any():
            samples, depths = self.log10_bound.shape
            last = np.median(self.log10_bound[self.applies, -1])
            constants = ", ".join(
                f"{name} = {np.median(np.broadcast_to(value, samples)[self.applies]):.4g}"
                for name, value in self.constants.items()
            )
            parts.append(
                f"mu <= 10^{last:.4g} at depth {depths - 1}" + f" ({constants})" * bool(constants)
            )
        if self.reasons:
            sample, reason = next(iter(self.reasons.items()))
            if len(self.reasons) == len(self.log10_bound) and len(set(self.reasons.values())) == 1:
                parts.append(f"does not apply: {reason}")
            else:
                whose = f"{len(self.reasons)} of {len(self.log10_bound)} samples"
                parts.append(f"does not apply to {whose} (sample {sample}: {reason})")
        return f"{self.name}: {'; '.join(parts)}"


class Bounds(dict):
    """Every bound by name; prints one a line.

    `log10_mu`, (2, samples, T+1), is what log10 mu of the exact run is proved to lie between, as
    far as the bounds had to know it; else -inf and inf.
    """

    def __init__(self, made: dict[str, Bound], log10_mu: np.ndarray):
        super().__init__(made)
        self.log10_mu = log10_mu

    def __str__(self) -> str:
        return "\n".join(str(bound) for bound in self.values())


def mu_bounds(
    dynamics: AttentionDynamics,
    x0: ArrayLike,
    depth: int,
    start: int = 0,
    window: int | None = None,
    patience: float = 20.0,
) -> Bounds:
    """All bounds on mu at depths 0..depth of the run from x0, each under hypotheses that it checks.

    mu(X_t) <= sqrt((N - 1) / 2) diameter(X_0) tau(A_t ... A_1) prod_s ||W_s||_2, and its like:
    BOUNDS names them with their sources. A bound holds for exact arithmetic. Where tokens are
    chaotic, a run in floating point parts from the exact one, and its mu may exceed what is proved
    of the other.

    Parameters
    ----------
    x0 : array (N, d) or (samples, N, d)
        Tokens at the start.
    depth : int
        Layers.
    start : int
        Number of the first layer.
    window : int, optional
        How many layers the products of attention matrices span: the radius of the mask for WU's
        form of the bound; by default as many as it takes to bring points together by 1e-9 (the
        longer, the sharper).
    patience : float
        Seconds that a sample takes at most, about, where enclosures need more digits; a bound that
        runs out of them stays where it is.

    Raises
    ------
    ValueError
        For dropout, for tokens that cannot be, and for one token.
    ImportError
        Without python-flint, where there is a bound to compute.

    Examples
    --------
    >>> import dynsim
    >>> pure = AttentionDynamics(dynsim.masks.causal(4), dynsim.weights.Identity())
    >>> x0 = dynsim.tokens.gaussian(samples=1, n=4, d=2)
    >>> print(mu_bounds(pure, x0, depth=8)["Dobrushin"])
    Dobrushin: mu <= 10^-1.483 at depth 8
    """
    x0 = real_array("tokens", x0)
    depth = whole("depth", depth, least=1)
    start = whole("number of the first layer", start, least=0)
    if window is not None:
        whole("window", window, least=1)
    check_dynamics(dynamics)
    check_plain(dynamics, "a proved bound")
    dynamics.require_deterministic("a proved bound")
    dynamics.check_tokens(x0)
    if dynamics.n_tokens == 1:
        raise ValueError("one token is always at consensus; give two or more")
    run = _Run(dynamics, x0.reshape(-1, *x0.shape[-2:]), depth, start, window, patience)
    made = {name: _bound_of(run, name) for name in BOUNDS}
    return Bounds(made, log10_mu=run.log_mu / np.log(10.0))


def _bound_of(run: _Run, name: str) -> Bound:
    source, hypotheses, bound = BOUNDS[name]
    logs = np.full((len(run.x0), run.depth + 1), np.nan)
    try:
        constants = hypotheses(run)
    except _DoesNotApply as fails:
        return Bound(name, source, logs, {}, dict.fromkeys(range(len(logs)), str(fails)))
    rows, reasons = [], {}
    for sample, proved in enumerate(run.proved):
        try:
            logs[sample], of_sample = bound(run, proved, sample, **constants)
            rows.append(of_sample)
        except _DoesNotApply as fails:
            reasons[sample] = str(fails)
            rows.append({})
    names = dict.fromkeys(name for row in rows for name in row)
    by_sample = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
    return Bound(name, source, logs / np.log(10.0), by_sample | constants, reasons)


class _DoesNotApply(Exception):
    """A hypothesis fails; the message says which."""


# --- what bounds are computed from ----------------------------------------------------------------


class _Run:
    """A run and what several bounds need of it, computed once."""

    def __init__(
        self,
        dynamics: AttentionDynamics,
        x0: np.ndarray,
        depth: int,
        start: int,
        window: int | None,
        patience: float,
    ) -> None:
        self.dynamics, self.x0, self.depth, self.start = dynamics, x0, depth, start
        self.window, self.patience = window, patience
        self.n_tokens, self.dim = x0.shape[1:]
        self.radius = radius(dynamics.mask)

    @cached_property
    def proved(self) -> list[Contraction]:
        """By sample."""
        options = (self.depth, self.start, self.window, self.patience)
        with blas_alone():
            return contractions(self.dynamics, self.x0, *options)

    @property
    def log_mu(self) -> np.ndarray:
        """Between what mu lies, (2, samples, T+1); without limits where nothing is computed."""
        if "proved" not in vars(self):
            shape = (len(self.x0), self.depth + 1)
            return np.stack([np.full(shape, -np.inf), np.full(shape, np.inf)])
        return np.stack([proved.log_mu for proved in self.proved], axis=1)

    # hypotheses

    def require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise _DoesNotApply(otherwise)

    def require_plain_attention(self, norm: type, norm_name: str) -> None:
        """One head, no skip connection, no MLP, and this norm, after attention."""
        dynamics = self.dynamics
        heads = len(dynamics.weights.layer(self.start, self.dim).query)
        self.require(heads == 1, f"there are {heads} heads; it is for one")
        self.require(not dynamics.residual.has_skip, "there is a skip connection")
        self.require(not dynamics.mlp.active, "there is an MLP")
        self.require(isinstance(dynamics.norm, norm), f"it is for {norm_name}")
        self.require(
            norm is NoNorm or dynamics.placement == "post", "it is for a norm after attention"
        )

    def require_radius(self) -> None:
        self.require(self.dynamics.layout.has_self_loops, "some token does not attend to itself")
        self.require(is_quasi_strongly_connected(self.dynamics.mask), "the mask has no center node")

    def require_isometry(self) -> None:
        """Value matrices orthogonal up to a factor, no bias."""
        for t in range(1 if self.dynamics.weights.is_constant else self.depth):
            layer = self.dynamics.weights.layer(self.start + t, self.dim)
            gram = layer.W_V[0].T @ layer.W_V[0]
            size = np.trace(gram) / self.dim
            off = np.abs(gram - size * np.eye(self.dim)).max()
            self.require(
                size > 0 and off <= _ORTHOGONAL * size,
                f"W_V of layer {self.start + t} is not orthogonal",
            )
            self.require(not layer.output_bias.any(), "attention has an output bias")

    @cached_property
    def reaches(self) -> list[tuple[int, int]]:
        """(r, how many centers reach every token within r), by r."""
        distances = np.maximum(eccentricities(self.dynamics.mask), 1)
        return [(int(r), int(np.sum(distances <= r))) for r in np.unique(distances)]

    # bounds

    def log_condition(self, proved: Contraction, start: Start) -> np.ndarray:
        """>= log of the product of the condition numbers of W_V since the start, (T+1,)."""
        return np.maximum(proved.log_value - proved.log_value[start.depth], 0.0)

    def log_mu_of(self, log_diameter: ArrayLike) -> np.ndarray:
        """>= log of sqrt((N - 1) / 2) diameter."""
        return log_diameter + 0.5 * np.log((self.n_tokens - 1) / 2.0)

    def log_blocks(self, log_gain: np.ndarray, r: int, first: int = 0) -> np.ndarray:
        """floor((t - first) / r) log(1 - gain), where gain is given by its logarithm."""
        t = np.arange(self.depth + 1)
        blocks = np.maximum(t - first, 0) // r
        with np.errstate(divide="ignore"):
            log_left = np.log1p(-np.exp(np.minimum(log_gain, 0.0)))
        return np.where(blocks > 0, blocks * np.where(blocks > 0, log_left, 0.0), 0.0)

    def from_depth(self, first: int, logs: np.ndarray, proved: Contraction) -> np.ndarray:
        """`logs` after the depth `first`; there and before, what balls tell of mu itself."""
        largest = self.log_largest(proved)
        after = np.arange(self.depth + 1) > first
        return np.minimum(np.where(after, logs, proved.log_mu[1]), largest)

    def log_largest(self, proved: Contraction) -> np.ndarray:
        """>= log mu of tokens of length 1, and of the input."""
        largest = np.full(self.depth + 1, 0.5 * np.log(self.n_tokens) + _EPS)
        largest[0] = self.log_mu_of(proved.log_diameter)
        return largest


def _outwards(*terms: np.ndarray) -> np.ndarray:
    """Their sum and a little more: every term may hold a rounding per layer."""
    whole = np.stack(np.broadcast_arrays(*terms))
    sizes = np.where(np.isfinite(whole), np.abs(whole), 0.0).sum(axis=0)
    return whole.sum(axis=0) + 4 * _EPS * (whole.shape[1] + 8) * (1.0 + sizes)


# --- without norm ---------------------------------------------------------------------------------


def _theorem_1_hypotheses(run: _Run) -> dict:
    run.require_plain_attention(NoNorm, "no norm")
    run.require_radius()
    return {"r": int(run.radius)}


def _theorem_1(run: _Run, proved: Contraction, sample: int, r: int) -> Proof:
    start = run.log_mu_of(proved.log_diameter)
    blocks = run.log_blocks(r * proved.log_least, r)
    return _outwards(start, blocks, proved.log_value), _eps(proved)


def _products_hypotheses(run: _Run) -> dict:
    run.require_plain_attention(NoNorm, "no norm")
    return {"window": run.window} if run.window else {}


def _products(run: _Run, proved: Contraction, sample: int, window: int | None = None) -> Proof:
    start = run.log_mu_of(proved.log_diameter)
    return _outwards(start, proved.log_tau, proved.log_value), {}


def _eps(proved: Contraction) -> dict:
    return {"eps": np.exp(proved.log_least[-1])}


# --- with unit norm and orthogonal W_V ------------------------------------------------------------


def _sphere_hypotheses(run: _Run) -> None:
    run.require_plain_attention(Unit, "unit norm")
    run.require_radius()
    run.require_isometry()


def _theorem_2_hypotheses(run: _Run) -> dict:
    """All tokens are centers, but all N are seen only within the diameter: WU's N eps^2r with r the
    radius is more than the step gives (lemma `cosine-step-needs-diameter` of theory/)."""
    _sphere_hypotheses(run)
    run.require(is_strongly_connected(run.dynamics.mask), "the mask is not strongly connected")
    run.require(run.n_tokens <= run.dim, f"it needs N <= d; N = {run.n_tokens}, d = {run.dim}")
    return {"r": int(diameter(run.dynamics.mask))}


def _theorem_2(run: _Run, proved: Contraction, sample: int, r: int) -> Proof:
    rank = int(numerical_rank(singular_values(run.x0[sample])))
    run.require(rank == run.n_tokens, f"the tokens have rank {rank} at the start")
    return _by_cosines(run, proved, sample, r, run.n_tokens)


def _corollary_1_hypotheses(run: _Run) -> dict:
    _sphere_hypotheses(run)
    return {"r": int(run.radius)}


def _corollary_1(run: _Run, proved: Contraction, sample: int, r: int) -> Proof:
    return _by_cosines(run, proved, sample, r, 1)


def _by_cosines(run: _Run, proved: Contraction, sample: int, r: int, centers: int) -> Proof:
    """1 - phi shrinks by 1 - centers eps^2r in r layers, once all cosines are >= 0.

    From <x_i', x_k'> >= sum_jl P_ij P_kl <x_j, x_l> for the product P of r attention matrices, with
    P_ij >= eps^r for every center j. mu^2 = sum_ij (1 - cosine) / N <= (N - 1) (1 - phi). Tokens of
    the input may have other lengths than 1: x_j = ||x_j|| u_j turns A_ij into A_ij ||x_j|| / sum_k
    A_ik ||x_k||. A layer whose W_V is an isometry up to e adds 2 e to 1 - phi.
    """
    acute = proved.acute
    cosine, i, j = proved.widest
    run.require(
        acute is not None, f"tokens {i} and {j} have negative cosine, {cosine:.3g}, to the end"
    )
    assert acute is not None
    log_least = proved.log_least - (proved.log_lengths if acute.depth == 0 else 0.0)
    log_gain = np.log(centers) + 2 * r * log_least
    logs = acute.log_size + run.log_blocks(log_gain, r, acute.depth)
    drift = 2.0 * (proved.isometry - proved.isometry[acute.depth])
    with np.errstate(divide="ignore"):
        logs = np.logaddexp(logs, np.log(np.maximum(drift, 0.0)))
    logs = _outwards(0.5 * (np.log(run.n_tokens - 1) + logs))
    constants = _eps(proved) | {"first layer": acute.depth}
    return run.from_depth(acute.depth, logs, proved), constants


def _hemisphere_hypotheses(run: _Run) -> dict:
    _sphere_hypotheses(run)
    return {}


def _hemisphere(run: _Run, proved: Contraction, sample: int) -> Proof:
    return _by_chart(run, proved, *_chart(run, proved))


def _independent_hypotheses(run: _Run) -> dict:
    _sphere_hypotheses(run)
    run.require(run.n_tokens <= run.dim, f"it needs N <= d; N = {run.n_tokens}, d = {run.dim}")
    return {}


def _independent(run: _Run, proved: Contraction, sample: int) -> Proof:
    chart = proved.independent
    run.require(chart is not None, "the tokens are not proved to be linearly independent")
    assert chart is not None
    return _by_chart(run, proved, chart, run.log_condition(proved, chart))


def _by_chart(run: _Run, proved: Contraction, chart: Start, condition: np.ndarray) -> Proof:
    """p_i = x_i / <v, x_i> moves by A_ij h_j / sum_k A_ik h_k, times W_V, as v moves to W_V^-1 v;
    and ||x_i - x_j|| <= ||v|| ||p_i - p_j||, for ||p_i|| >= 1 / ||v|| (lemma `hemisphere`).

    Over r layers the heights cancel but the first and the last: entries at a center within r are
    >= eps^r h_j(t) / h_i(t + r) >= eps^r max(h / ||v||, 1 - E_t), E_t >= ||v|| max ||p_i - p_j||,
    and E_{t+r} <= (1 - K eps^r max(...)) E_t for K such centers (lemma `independent_rows`). The
    sharpest r of the mask's; condition numbers c of W_V enter as gain / c and c E.
    """
    best, constants = None, {}
    rounding = 4 * _EPS * (run.depth + 8)
    for r, centers in run.reaches:
        sizes = [chart.log_size]
        for t in range(chart.depth, run.depth + 1 - r, r):
            log_now = sizes[-1] + condition[t] + rounding * (1 + abs(sizes[-1]))
            near = np.log(-np.expm1(log_now)) if log_now < 0 else -np.inf
            log_entry = r * proved.log_least[t + r] + max(chart.log_height, near)
            log_gain = np.log(centers) + log_entry - condition[t + r] - 2 * chart.log_length
            log_gain -= _EPS * (8 + abs(log_entry))
            sizes.append(sizes[-1] + np.log1p(-np.exp(min(log_gain, -_EPS))))
        blocks = np.maximum(np.arange(run.depth + 1) - chart.depth, 0) // r
        logs = _outwards(run.log_mu_of(np.array(sizes)[blocks]), condition)
        if best is None or logs[-1] < best[-1]:
            constants = {"r": r, "centers": centers}
        best = logs if best is None else np.minimum(best, logs)
    assert best is not None  # there is a center node
    height = {"h": np.exp(chart.log_height), "first layer": chart.depth}
    return run.from_depth(chart.depth, best, proved), _eps(proved) | height | constants


def _hemisphere_products_hypotheses(run: _Run) -> dict:
    _sphere_hypotheses(run)
    return {"window": run.window} if run.window else {}


def _hemisphere_products(
    run: _Run, proved: Contraction, sample: int, window: int | None = None
) -> Proof:
    chart, condition = _chart(run, proved)
    logs = _outwards(run.log_mu_of(chart.log_size), proved.log_tau, condition)
    return run.from_depth(chart.depth, logs, proved), {"first layer": chart.depth}


def _chart(run: _Run, proved: Contraction) -> tuple[Start, np.ndarray]:
    """The hemisphere's start, and the log of the condition numbers of W_V since."""
    chart = proved.hemisphere
    run.require(chart is not None, "the tokens lie in no hemisphere that is proved, to the end")
    assert chart is not None
    return chart, run.log_condition(proved, chart)


#: Every bound by name: its source, its hypotheses of a run (which give constants), and a
#: function of what is proved of a sample that gives log of the bound, (T+1,), and constants.
BOUNDS: dict[str, tuple[str, Callable, Callable]] = {
    "WU theorem 1": (
        "WU, arXiv 2405.18781, Theorem 1, with constants",
        _theorem_1_hypotheses,
        _theorem_1,
    ),
    "Dobrushin": (
        "as WU's Theorem 1, with the run's attention matrices",
        _products_hypotheses,
        _products,
    ),
    "WU theorem 2": (
        "WU, arXiv 2405.18781, Theorem 2, with the diameter for the radius, from the first layer "
        "with all cosines >= 0",
        _theorem_2_hypotheses,
        _theorem_2,
    ),
    "WU corollary 1": (
        "WU, arXiv 2405.18781, Corollary 1, from the first layer with all cosines >= 0",
        _corollary_1_hypotheses,
        _corollary_1,
    ),
    "independent rows": (
        "WU, arXiv 2405.18781, Theorem 2, with all constants from the start, and under every mask "
        "with a center: gnomonic chart of the pole X^+ 1",
        _independent_hypotheses,
        _independent,
    ),
    "hemisphere": (
        "gnomonic chart of a hemisphere that holds all tokens",
        _hemisphere_hypotheses,
        _hemisphere,
    ),
    "hemisphere Dobrushin": (
        "the same, with the run's attention matrices",
        _hemisphere_products_hypotheses,
        _hemisphere_products,
    ),
}
