"""Certificates: proved bounds on mu by depth, with all constants, that check their own hypotheses.

All rest on one fact. A row-stochastic P brings points together: the diameter, the largest
||x_i - x_j||, of P X is at most tau(P) times that of X, tau Dobrushin's coefficient of ergodicity,
and mu^2 = sum_ij ||x_i - x_j||^2 / (2 N) <= (N - 1) / 2 * diameter^2. In logarithms throughout, so
that nothing under- or overflows. What is computed from attention matrices allows for their
rounding. Dense: O(N^2) memory and O(N^3) work per layer and sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dynsim.connectivity import diameter, is_quasi_strongly_connected, is_strongly_connected, radius
from dynsim.dynamics import AttentionDynamics
from dynsim.norms import NoNorm, Unit
from dynsim.values import whole

__all__ = ["CERTIFICATES", "Certificate", "Certificates", "certificates", "dobrushin"]

#: Rounding of a sum of absolute differences of rows, per layer of a product and per token.
_ROUNDING = 4.0 * float(np.finfo(np.float64).eps)
#: Rows of attention that are given sum to 1 as nearly as this.
_STOCHASTIC = 1e-6
#: A product of attention matrices is long enough when it brings points together by this factor.
_CONTRACTED = 1e-9
#: A matrix is orthogonal, up to a factor, when W^T W is as near to a multiple of I as this.
_ORTHOGONAL = 1e-10


def dobrushin(P) -> np.ndarray:
    """Dobrushin's coefficient max_ik (1/2) sum_j |P_ij - P_kj| of row-stochastic P (..., N, N).

    Raises ValueError unless entries are at least 0 and rows sum to 1, to 1e-6.

    >>> float(dobrushin([[0.5, 0.5], [0.25, 0.75]]))
    0.25
    """
    P = np.asarray(P, np.float64)
    if P.ndim < 2 or P.shape[-1] != P.shape[-2] or not P.size:
        raise ValueError(f"matrices of attention are square, (..., N, N); got shape {P.shape}")
    sums = P.sum(axis=-1)
    if not (np.all(P >= 0) and np.all(np.abs(sums - 1.0) <= _STOCHASTIC)):
        raise ValueError(
            f"rows of attention hold numbers of at least 0 that sum to 1; got entries from "
            f"{P.min():.4g} and sums from {sums.min():.4g} to {sums.max():.4g}; divide each row by "
            f"its sum"
        )
    return _dobrushin(P)


def _dobrushin(P: np.ndarray) -> np.ndarray:
    rows = range(P.shape[-2])  # one at a time: no (N, N, N) array
    apart = [np.abs(P[..., i:, :] - P[..., i : i + 1, :]).sum(axis=-1).max(axis=-1) for i in rows]
    return np.max(apart, axis=0) / 2.0


# --- the results ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
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


class Certificates(dict):
    """Every certificate by name; prints one a line."""

    def __str__(self) -> str:
        return "\n".join(str(certificate) for certificate in self.values())


def certificates(
    dynamics: AttentionDynamics, states, start: int = 0, window: int | None = None
) -> Certificates:
    """All bounds on mu for a run of which every state is known.

    `states` are tokens at depths 0..T, (samples, T+1, N, d) or (T+1, N, d), as a trajectory
    recorded with ``Record(states=1)`` has them; `start` is the number of the first layer. `window`
    is how many layers the products of attention matrices span: the radius of the mask for WU's form
    of the bound, by default as many as it takes to bring points together by 1e-9 (the longer, the
    sharper). What a bound says is about exact arithmetic: measured mu may exceed it by its
    floating-point floor.

    >>> import dynsim
    >>> pure = AttentionDynamics(dynsim.masks.causal(4), dynsim.weights.Identity())
    >>> x0 = dynsim.tokens.gaussian(samples=1, n=4, d=2)
    >>> run = dynsim.simulate(pure, x0, depth=8, record=dynsim.Record(states=1))
    >>> print(certificates(pure, run.states)["Dobrushin"])
    Dobrushin: mu <= 10^-1.483 at depth 8
    """
    states = np.asarray(states, np.float64)
    if states.ndim not in (3, 4) or states.shape[-2] != dynamics.n_tokens:
        raise ValueError(
            f"states are (samples, depths, N, d) with N = {dynamics.n_tokens}; got shape "
            f"{states.shape}; record them with Record(states=1)"
        )
    if window is not None:
        whole("window", window, least=1)
    if not np.isfinite(states).all():
        raise FloatingPointError("the states are not finite; certify the layers before")
    if dynamics.n_tokens == 1:
        raise ValueError("one token is always at consensus; give two or more")
    dynamics.check_tokens(states)
    run = _Run(dynamics, states if states.ndim == 4 else states[None], start, window)
    return Certificates({name: _certify(run, name) for name in CERTIFICATES})


def _certify(run: _Run, name: str) -> Certificate:
    source, bound = CERTIFICATES[name]
    try:
        logs, constants, reasons = bound(run)
    except _DoesNotApply as fails:
        logs = np.full((run.n_samples, run.depth + 1), np.nan)
        constants, reasons = {}, dict.fromkeys(range(run.n_samples), str(fails))
    logs[list(reasons)] = np.nan
    return Certificate(name, source, logs / np.log(10.0), constants, reasons)


class _DoesNotApply(Exception):
    """A hypothesis fails for all samples; the message says which."""


# --- what certificates are computed from ----------------------------------------------------------


class _Run:
    """A run and what several certificates need of it, computed once."""

    def __init__(self, dynamics, states, start, window):
        self.dynamics, self.states, self.start = dynamics, states, start
        self.n_samples, self.depth = states.shape[0], states.shape[1] - 1
        self.n_tokens, self.dim = states.shape[2:]
        self.radius = radius(dynamics.mask)
        self.window = window

    def attention(self, t: int) -> np.ndarray:
        """Of every sample in layer t: (samples, N, N)."""
        return self.dynamics.attention(self.states[:, t, None], self.start + t)[:, 0]

    def W_V(self, t: int) -> np.ndarray:
        return self.dynamics.weights.layer(self.start + t, self.dim).W_V[0]

    @cached_property
    def log_eps(self) -> np.ndarray:
        """log of the smallest attention on an edge in layers 0..t-1: (samples, T+1)."""
        allowed = self.dynamics.allowed()
        out = np.zeros((self.n_samples, self.depth + 1))
        for t in range(self.depth):
            with np.errstate(divide="ignore"):  # attention that underflows certifies nothing
                out[:, t + 1] = np.log(self.attention(t)[:, allowed].min(axis=1))
        return np.minimum.accumulate(out, axis=1)

    @cached_property
    def log_size(self) -> np.ndarray:
        """log ||X||_F, which mu never exceeds: (samples, T+1)."""
        return np.log(np.linalg.norm(self.states, axis=(-2, -1)))

    @cached_property
    def on_sphere(self) -> np.ndarray:
        """Where all tokens have norm 1, as after every layer: (samples, T+1)."""
        return np.all(np.abs(np.linalg.norm(self.states, axis=-1) - 1.0) <= 1e-12, axis=-1)

    @cached_property
    def hemisphere(self) -> _Hemisphere:
        return _Hemisphere(self)

    @cached_property
    def cosines(self) -> np.ndarray:
        """The smallest cosine of two tokens at every depth: (samples, T+1)."""
        return _cosines(self.states).min(axis=(-2, -1))

    def log_products(self, matrices) -> np.ndarray:
        """log of the product of Dobrushin coefficients of windows of layers: (samples, T+1).

        matrices(t) are row-stochastic, (samples, N, N). The windows follow one another; the last
        one ends at each depth in turn. The coefficient of a product is at most the product of
        coefficients, so windows are as long as rounding lets them be.
        """
        out = np.zeros((self.n_samples, self.depth + 1))
        whole = np.tile(np.eye(self.n_tokens), (self.n_samples, 1, 1))
        layers, before = np.zeros(self.n_samples), np.zeros(self.n_samples)
        for t in range(self.depth):
            whole, layers = matrices(t) @ whole, layers + 1
            rounding = _ROUNDING * self.n_tokens * layers
            contraction = np.minimum(_dobrushin(whole) + rounding, 1.0)
            out[:, t + 1] = before + np.log(contraction)
            full = layers == self.window if self.window else contraction < _CONTRACTED
            whole[full], layers[full], before[full] = np.eye(self.n_tokens), 0, out[full, t + 1]
        return out

    # hypotheses

    def require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise _DoesNotApply(otherwise)

    def require_plain_attention(self, norm: type, norm_name: str) -> None:
        """One head, no skip connection, no MLP, and this norm, after attention."""
        dynamics = self.dynamics
        heads = len(dynamics.weights.layer(self.start, self.dim).query)
        self.require(heads == 1, f"there are {heads} heads; it is for one")
        self.require(not dynamics.skip, "there is a skip connection")
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
            gram = self.W_V(t).T @ self.W_V(t)
            size = np.trace(gram) / self.dim
            off = np.abs(gram - size * np.eye(self.dim)).max()
            self.require(
                size > 0 and off <= _ORTHOGONAL * size,
                f"W_V of layer {self.start + t} is not orthogonal",
            )
            bias = self.dynamics.weights.layer(self.start + t, self.dim).output_bias
            self.require(not bias.any(), "attention has an output bias")

    # blocks of r layers

    def log_blocks(self, log_gain, r: int, first=0) -> np.ndarray:
        """floor((t - first) / r) log(1 - gain), where gain is given by its logarithm."""
        t = np.arange(self.depth + 1)
        blocks = np.maximum(t - np.asarray(first)[..., None], 0) // r
        with np.errstate(divide="ignore"):
            log_left = np.log1p(-np.exp(np.minimum(log_gain, 0.0)))
        return np.where(blocks > 0, blocks * np.where(blocks > 0, log_left, 0.0), 0.0)


def _cosines(x: np.ndarray) -> np.ndarray:
    """Of all pairs of tokens x, (..., N, d): (..., N, N)."""
    directions = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return directions @ directions.swapaxes(-1, -2)


def _log_mu_from_diameter(x: np.ndarray) -> np.ndarray:
    """log of sqrt((N - 1) / 2) times the largest distance of two tokens: (samples, 1)."""
    from scipy.spatial.distance import pdist

    diameters = np.array([pdist(tokens).max() for tokens in x])
    with np.errstate(divide="ignore"):  # equal tokens
        return np.log(diameters * np.sqrt((x.shape[1] - 1) / 2.0))[:, None]


# --- without norm ---------------------------------------------------------------------------------


def _log_value_norms(run: _Run) -> np.ndarray:
    """log ||W_V^(0) ... W_V^(t-1)||_2, (T+1,)."""
    out = np.zeros(run.depth + 1)
    product, scale = np.eye(run.dim), 0.0
    for t in range(run.depth):
        product = product @ run.W_V(t)
        size = np.linalg.norm(product, 2)
        if size == 0:
            out[t + 1 :] = -np.inf
            break
        product, scale = product / size, scale + np.log(size)
        out[t + 1] = scale
    return out


def _wu_theorem_1(run: _Run):
    run.require_plain_attention(NoNorm, "no norm")
    run.require_radius()
    r = int(run.radius)
    blocks = run.log_blocks(r * run.log_eps, r)
    logs = _log_mu_from_diameter(run.states[:, 0]) + blocks + _log_value_norms(run)
    return logs, _eps(run) | {"r": r}, {}


def _dobrushin_products(run: _Run):
    run.require_plain_attention(NoNorm, "no norm")
    start = _log_mu_from_diameter(run.states[:, 0])
    logs = start + run.log_products(run.attention) + _log_value_norms(run)
    return logs, _window(run), {}


def _window(run: _Run) -> dict:
    return {"window": run.window} if run.window else {}


def _eps(run: _Run) -> dict:
    return {"eps": np.exp(run.log_eps[:, -1])}


# --- with unit norm and orthogonal W_V ------------------------------------------------------------


def _require_sphere(run: _Run) -> None:
    run.require_plain_attention(Unit, "unit norm")
    run.require_radius()
    run.require_isometry()


def _by_cosines(run: _Run, r: int, centers: int):
    """1 - phi shrinks by 1 - centers eps^2r in r layers, once all cosines are >= 0.

    From <x_i', x_k'> >= sum_jl P_ij P_kl <x_j, x_l> for the product P of r attention matrices, with
    P_ij >= eps^r for every center j. mu^2 = sum_ij (1 - cosine) / N <= (N - 1) (1 - phi).
    """
    fine = run.on_sphere & (run.cosines >= 0)
    first = np.argmax(fine, axis=1)
    reasons = {int(s): _negative_pair(run.states[s, -1]) for s in np.flatnonzero(~fine.any(axis=1))}
    apart = 1.0 - np.take_along_axis(run.cosines, first[:, None], axis=1) + _ROUNDING * run.dim
    log_gain = np.log(centers) + 2 * r * run.log_eps
    logs = 0.5 * (np.log((run.n_tokens - 1) * apart) + run.log_blocks(log_gain, r, first))
    return _from(first, logs, run), _eps(run) | {"r": r, "first layer": first}, reasons


def _from(first: np.ndarray, logs: np.ndarray, run: _Run) -> np.ndarray:
    """`logs` from the first layer at which the hypotheses hold, and log ||X||_F before."""
    return np.where(np.arange(run.depth + 1) < first[:, None], run.log_size, logs)


def _negative_pair(x: np.ndarray) -> str:
    cosines = _cosines(x)
    i, j = sorted(int(k) for k in np.unravel_index(np.argmin(cosines), cosines.shape))
    return f"tokens {i} and {j} have negative cosine, {cosines[i, j]:.3g}, to the end"


def _wu_theorem_2(run: _Run):
    _require_sphere(run)
    run.require(is_strongly_connected(run.dynamics.mask), "the mask is not strongly connected")
    run.require(run.n_tokens <= run.dim, f"it needs N <= d; N = {run.n_tokens}, d = {run.dim}")
    r = int(diameter(run.dynamics.mask))
    logs, constants, reasons = _by_cosines(run, r, run.n_tokens)
    for sample, rank in enumerate(np.linalg.matrix_rank(run.states[:, 0])):
        if rank < run.n_tokens:
            reasons[sample] = f"the tokens have rank {rank} at the start"
    return logs, constants, reasons


def _wu_corollary_1(run: _Run):
    _require_sphere(run)
    return _by_cosines(run, int(run.radius), 1)


class _Hemisphere:
    """v with h_i = <v, x_i> > 0 for all tokens: the chart p_i = x_i / h_i, per sample.

    One layer takes v to v W_V and p to the convex combinations A~ p W_V, with the row-stochastic
    A~_ij = A_ij h_j / sum_k A_ik h_k; the smallest h never falls, and ||x_i - x_j|| <=
    ||p_i - p_j||. v is the direction of the point of the tokens' convex hull nearest to 0, which
    makes the smallest h largest, at the `first` layer at which there is one.
    """

    def __init__(self, run: _Run):
        _require_sphere(run)
        self.run, self.reasons = run, {}
        self.first = np.zeros(run.n_samples, int)
        self.heights = np.ones((run.n_samples, run.depth + 1, run.n_tokens))
        for sample, states in enumerate(run.states):
            self._follow(sample, states)
        at = (np.arange(run.n_samples), self.first)
        self.lowest = self.heights[at].min(axis=1)
        chart = run.states[at] / self.heights[at][..., None]
        self.log_start = _log_mu_from_diameter(chart)

    def _follow(self, sample: int, states: np.ndarray) -> None:
        for first in np.flatnonzero(self.run.on_sphere[sample]):
            pole = _pole(states[first])
            if pole is not None:
                break
        else:
            self.reasons[sample] = "the tokens lie in no hemisphere, to the end"
            return
        self.first[sample] = first
        for t in range(first, self.run.depth + 1):
            self.heights[sample, t] = states[t] @ pole
            if t < self.run.depth:
                pole = pole @ self.run.W_V(t)
                pole = pole / np.linalg.norm(pole)

    def attention(self, t: int) -> np.ndarray:
        """A~ of layer t; the identity before the first layer."""
        weighted = self.run.attention(t) * self.heights[:, t, None, :]
        before = (t < self.first)[:, None, None]
        return np.where(
            before, np.eye(self.run.n_tokens), weighted / weighted.sum(axis=-1, keepdims=True)
        )


def _pole(x: np.ndarray) -> np.ndarray | None:
    """The unit vector with the largest smallest <v, x_i>, x (N, d); None if it is not positive."""
    from scipy.optimize import nnls

    target = np.append(np.zeros(x.shape[1]), 1.0)
    weights = nnls(np.vstack([x.T, np.ones(len(x))]), target)[0]
    nearest = weights @ x  # in the direction of the point of the hull nearest to 0
    size = np.linalg.norm(nearest)
    if size == 0 or (x @ nearest).min() <= _ROUNDING * len(x) * size:
        return None
    return nearest / size


def _hemisphere(run: _Run):
    found = run.hemisphere
    r = int(run.radius)
    log_gain = r * (run.log_eps + np.log(found.lowest)[:, None])
    logs = found.log_start + run.log_blocks(log_gain, r, found.first)
    constants = {"h": found.lowest, "first layer": found.first}
    return _from(found.first, logs, run), _eps(run) | {"r": r} | constants, found.reasons


def _hemisphere_products(run: _Run):
    found = run.hemisphere
    logs = found.log_start + run.log_products(found.attention)
    constants = _window(run) | {"first layer": found.first}
    return _from(found.first, logs, run), constants, found.reasons


#: Every certificate by name: its source, and a function of a run that gives log of the bound
#: (samples, T+1), its constants, and reasons why it does not apply by sample.
CERTIFICATES: dict[str, tuple[str, Callable]] = {
    "WU theorem 1": ("WU, arXiv 2405.18781, Theorem 1, with constants", _wu_theorem_1),
    "Dobrushin": ("as WU's Theorem 1, with the attention matrices met", _dobrushin_products),
    "WU theorem 2": (
        "WU, arXiv 2405.18781, Theorem 2, from the first layer with all cosines >= 0",
        _wu_theorem_2,
    ),
    "WU corollary 1": (
        "WU, arXiv 2405.18781, Corollary 1, from the first layer with all cosines >= 0",
        _wu_corollary_1,
    ),
    "hemisphere": ("gnomonic chart of a hemisphere that holds all tokens", _hemisphere),
    "hemisphere Dobrushin": ("the same, with the attention matrices met", _hemisphere_products),
}
