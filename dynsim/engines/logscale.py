"""Below the floating-point floor: mu followed to any depth, with an estimate of its error.

The tokens are followed by one `Follower`, and once more by another whose weights and first tokens
are a few rounding errors larger or smaller, each number at random. By how much the two come to
differ in log10 mu shows what the dynamics make of rounding, chaos included. The error of log10 mu
(`log10_mu_error`) is the largest such difference so far, times a factor of safety, and what single
layers lose (`dynsim.engines.follower`). It is an estimate, and a rough one once it is large; storms
of hostile systems are tried against it (experiments/soundness/log_scale.py).

Where a norm leaves nothing of a token but a sign, a second perturbed run moves every number the
other way: a sign that rounding decided differs in one of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dynsim.engines import compiled
from dynsim.engines.base import Work
from dynsim.engines.follower import Follower
from dynsim.engines.workers import Workers
from dynsim.measures import CHEAP, deviations
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.ensemble import Ensemble
from dynsim.network.parts import reason_against as unknown_part
from dynsim.network.weights import LayerSource, LayerWeights

__all__ = ["LogScaleEngine", "reason_against", "refuse"]

_LOG10_MU = len(CHEAP)

#: By how much numbers are larger or smaller in a perturbed run at most: 16 rounding errors.
_PERTURBED = 16.0 * float(np.finfo(np.float64).eps)
#: Rounding may move both runs alike by chance; their difference counts so many times.
_SAFETY = 16.0


def reason_against(dynamics: AttentionDynamics, dtype: DTypeLike) -> str | None:
    """Why the log-scale engine cannot follow this dynamics on tokens of this type, or None."""
    if dynamics.mlp.active:
        return "an MLP does not keep the mean and the deviation of tokens apart"
    if dynamics.dropout.active:
        return "dropout does not keep the mean and the deviation of tokens apart"
    if not dynamics.residual.are_numbers:
        return "its kernels take one weight of skip and branch for all dimensions"
    reason = unknown_part(dynamics, ("placement", "skip"))
    if reason is not None:
        return reason
    if dtype != np.float64:
        return f"it needs float64 tokens, not {np.dtype(dtype)}"
    return None


def refuse(dynamics: AttentionDynamics, dtype: DTypeLike) -> None:
    """Raise ValueError when the engine cannot follow this dynamics on tokens of this type."""
    reason = reason_against(dynamics, dtype)
    if reason is not None:
        other = "numba" if compiled.reason_against(dynamics) is None else "torch"
        raise ValueError(f"the logscale engine does not apply: {reason}; use engine={other!r}")


class LogScaleEngine:
    """State: a `Deviation`, its perturbed run included. Bits do not depend on batch or threads."""

    def __init__(self, dynamics: AttentionDynamics, threads: int):
        refuse(dynamics, np.float64)
        self.dynamics, self._threads = dynamics, threads
        self._workers: Workers | None = None
        self._weights = _through(dynamics.weights, _Kept)
        self._exact = self._follower(self._weights)
        self._perturbed = {
            sign: self._follower(_through(self._weights, partial(_Perturbed, sign)))
            for sign in (1.0, -1.0)
        }

    def _follower(self, weights: LayerSource) -> Follower:
        return Follower(replace(self.dynamics, weights=weights), self._threads)

    def begin(self, given: np.ndarray | Deviation) -> Deviation:
        if isinstance(given, Deviation) and given.perturbed:
            return given
        if not isinstance(given, Deviation):
            refuse(self.dynamics, given.dtype)
            given = Deviation.whole(given)
        d = given.shape.shape[2]
        numbers = [norm.switches(d) for norm in self.dynamics.norm.each]
        only_signs = any(norm.active and d - norm.centre == 1 for norm in numbers)
        perturbed = tuple(
            self._perturbed[sign].begin(_moved(given, sign))
            for sign in ((1.0, -1.0) if only_signs else (1.0,))
        )
        return _joined(self._exact.begin(given), perturbed, np.zeros(len(given.log_size)))

    def tokens(self, state: Deviation) -> np.ndarray:
        return state.tokens

    def deviation(self, state: Deviation) -> Deviation:
        return state

    def deviations(self, state: Deviation) -> np.ndarray:
        return deviations(state.shape)

    def observe(self, state: Deviation) -> np.ndarray:
        """The measures of CHEAP, log10_mu and its error, (len(CHEAP) + 2, samples)."""
        *seen, lost, apart = state.observed.T
        with np.errstate(over="ignore"):
            return np.stack([*seen, lost + apart])

    def advance(
        self, state: Deviation, start: int, stop: int, entropy: bool = False
    ) -> tuple[Deviation, np.ndarray, np.ndarray | None]:
        _through(self._weights, partial(_Kept.forget, before=start))
        alone = replace(state, observed=state.observed[:, :-1], perturbed=())
        runs = [(self._exact, alone), *zip(self._perturbed.values(), state.perturbed, strict=False)]
        done: list[Any] = [None] * len(runs)

        def work(k: int) -> Iterator[None]:
            follower, run = runs[k]
            done[k] = follower.advance(run, start, stop, entropy and k == 0)
            yield

        self._every(work, range(len(runs)), self._exact.is_one_job(state.shape.shape, stop - start))
        (after, seen, entropies), *others = done
        apart = state.observed[:, -1:]
        for _, beside, _ in others:
            apart = np.maximum(apart, _SAFETY * _distance(seen[_LOG10_MU], beside[_LOG10_MU]))
        apart = np.maximum.accumulate(apart, axis=1)
        state = _joined(after, tuple(moved for moved, _, _ in others), apart[:, -1])
        with np.errstate(over="ignore"):
            seen[-1] += apart
        return state, seen, entropies

    def _every(self, work: Work, runs: range, at_once: bool) -> None:
        """work(run) for all runs, at once where each leaves threads without work."""
        if self._workers is not None:
            self._workers.settle()
        if not at_once:
            for run in runs:
                next(work(run))
            return
        if self._workers is None:
            self._workers = Workers(len(runs))
        self._workers.every(work, runs)


def _distance(log_mu: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|difference|; 0 where both are -inf, inf where one is, or is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.where(log_mu == other, 0.0, np.abs(log_mu - other))
    return np.where(np.isnan(apart), np.inf, apart)


def _joined(exact: Deviation, perturbed: tuple[Deviation, ...], apart: np.ndarray) -> Deviation:
    """All runs as one state; `apart` is the largest difference of log10 mu so far, (samples,)."""
    observed = np.column_stack([exact.observed, apart])
    return replace(exact, observed=observed, perturbed=perturbed)


def _moved(state: Deviation, sign: float) -> Deviation:
    """Every number a few rounding errors larger or smaller, the same for equal tokens."""
    factors = 1.0 + sign * _PERTURBED * _parts_by_token(state.shape)
    return replace(state, center=state.center * factors[:, 0], shape=state.shape * factors)


def _parts_by_token(x: np.ndarray) -> np.ndarray:
    """Random numbers from -1 to 1 for tokens (samples, N, d), the same for equal tokens.

    A hash of the bits of the token.
    """
    odd = 2 * np.random.default_rng(0).integers(2**62, size=(2, x.shape[-1]), dtype=np.uint64) + 1
    bits = np.ascontiguousarray(x + 0.0).view(np.uint64)  # -0 is 0
    mixed = (bits ^ (bits >> np.uint64(29))) * odd[0]
    token = (mixed ^ (mixed >> np.uint64(32))).sum(axis=-1, keepdims=True)
    return (token * odd[1]).view(np.int64) / 2.0**63


def _through(weights: LayerSource, change: Callable[[LayerSource], LayerSource]) -> LayerSource:
    """The weights changed so, or those of every system of an ensemble."""
    return weights.through(change) if isinstance(weights, Ensemble) else change(weights)


class _Kept(LayerSource):
    """Weights of which the layers of one call are kept, so that both runs draw them once."""

    n_heads: int
    is_constant: bool
    n_layers: int | None
    dim: int | None

    def __init__(self, weights: LayerSource):
        self._weights, self._lock = weights, Lock()
        self._layers: dict[int, LayerWeights] = {}
        self.n_heads, self.n_layers = weights.n_heads, weights.n_layers
        self.is_constant, self.dim = weights.is_constant, weights.dim

    def layer(self, t: int, d: int) -> LayerWeights:
        if self.is_constant:
            t = 0
        with self._lock:
            if t not in self._layers:
                self._layers[t] = self._weights.layer(t, d)
            return self._layers[t]

    def forget(self, before: int) -> _Kept:
        """Layers before this one are drawn again if they are asked for."""
        if not self.is_constant:
            self._layers = {t: layer for t, layer in self._layers.items() if t >= before}
        return self


class _Perturbed(_Kept):
    """Weights each number of which is larger or smaller by a few rounding errors.

    By the same shares in all layers.
    """

    def __init__(self, sign: float, weights: LayerSource):
        super().__init__(weights)
        self._sign = sign

    def layer(self, t: int, d: int) -> LayerWeights:
        return LayerWeights(*map(self._perturbed, range(6), self._weights.layer(t, d)))

    def _perturbed(self, field: int, array: np.ndarray) -> np.ndarray:
        return array * _factors(self._sign, field, array.shape)


@lru_cache(maxsize=64)
def _factors(sign: float, field: int, shape: tuple[int, ...]) -> np.ndarray:
    """By what the numbers of an array of weights are larger in a perturbed run."""
    return 1.0 + sign * _PERTURBED * np.random.default_rng(field).uniform(-1.0, 1.0, shape)
