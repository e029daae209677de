"""Compiled kernels, many layers in one call: lanes for small states, rows for the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np

from dynsim.engines.base import Advanced, TokenEngine, Work, all_layers
from dynsim.engines.kernel_inputs import stacked
from dynsim.engines.lanes import LANES_UP_TO, Lanes
from dynsim.engines.rows import Rows
from dynsim.engines.workers import Workers
from dynsim.kernels.processor import vector_width
from dynsim.kernels.record import Scratch
from dynsim.kernels.table import KERNELS
from dynsim.measures import observe
from dynsim.network.attention import Softmax
from dynsim.network.dropout import Dropout
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.ensemble import Ensemble
from dynsim.network.mlp import NoMLP
from dynsim.network.norms import NoNorm
from dynsim.network.parts import reason_against as unknown_part
from dynsim.network.weights import LayerArrays, LayerWeights

__all__ = ["CompiledEngine", "reason_against", "refuse"]

#: Multiply-adds in a call below which another thread costs more than it brings.
_THREAD_WORK = 4_000_000

#: Parts that the kernels know.
_CARRIED = ("position", "qk_norm", Softmax, "norm", "mlp_norm", "placement", "skip")


def reason_against(dynamics: AttentionDynamics) -> str | None:
    """Why the compiled kernels cannot carry out this dynamics, or None."""
    if dynamics.dropout.attention:
        return "its kernels never hold the attention weights that are dropped"
    return unknown_part(dynamics, _CARRIED)


def refuse(dynamics: AttentionDynamics) -> None:
    """Raise ValueError when the kernels cannot carry out this dynamics."""
    reason = reason_against(dynamics)
    if reason is not None:
        raise ValueError(
            f"the numba engine does not apply: {reason}; use engine='torch' or 'reference'"
        )


def _fit_lanes(n: int, d: int) -> bool:
    """Whether samples of N tokens share vectors."""
    return n * d <= LANES_UP_TO


class CompiledEngine(TokenEngine):
    """Numba kernels. The bits of a sample do not depend on batch or threads.

    Under hidden dropout, and with weights of skip and branch by dimension, the kernels do the
    attention, layer by layer, and numpy what comes after.

    Raises ValueError for dropout of the attention weights, which the kernels never hold, for other
    kinds of attention than the softmax, and for gates.
    """

    def __init__(self, dynamics: AttentionDynamics, threads: int):
        refuse(dynamics)
        self.dynamics = dynamics
        self.threads = threads
        if isinstance(dynamics.weights, Ensemble):
            self._refuse_ensemble()
        self._workers: Workers | None = None
        self._carriers: dict[tuple, Any] = {}
        self._scratch = Scratch()

    def advance(
        self,
        x: np.ndarray,
        start: int,
        stop: int,
        entropy: bool = False,
        samples: np.ndarray | None = None,
    ) -> Advanced:
        """As of all engines. samples : the numbers of these samples in an ensemble of systems; by
        default they are all of it."""
        with np.errstate(all="ignore"):  # the caller looks for what is not finite
            if self._is_composed:
                return self._composed(x, start, stop, entropy)
            if not self.dynamics.mlp.active:
                return self._attention(x, start, stop, entropy, samples)
            seen, entropies = [], None
            for t in range(start, stop):
                x, _, found = self._attention(x, t, t + 1, entropy and t == start)
                x = self.dynamics.feed_forward(x, t)
                seen.append(observe(x))
                entropies = found if t == start else entropies
            return x, np.stack(seen, axis=-1), entropies

    def _composed(self, x: np.ndarray, start: int, stop: int, entropy: bool) -> Advanced:
        seen, entropies = [], None
        for t in range(start, stop):
            found = None

            def attend(z: np.ndarray, layer: LayerWeights, t: int = t) -> np.ndarray:
                nonlocal found
                branch, _, found = self._projected.advance(z, t, t + 1, entropy and t == start)
                return branch

            x = self.dynamics.compose(x, t, attend, self.numbers(len(x)))
            seen.append(observe(x))
            entropies = found if t == start else entropies
        return x, np.stack(seen, axis=-1), entropies

    @property
    def _is_composed(self) -> bool:
        """Whether numpy does what comes after the attention."""
        return self.dynamics.dropout.active or not self.dynamics.residual.are_numbers

    def _refuse_ensemble(self) -> None:
        """Raise ValueError for an ensemble of more than attention with layers that are alike."""
        if self._is_composed or self.dynamics.mlp.active or not self._same_beside:
            raise ValueError(
                "an ensemble of systems has attention, norm and skip alone, the same in every "
                "layer; simulate each system by itself"
            )

    @cached_property
    def _projected(self) -> CompiledEngine:
        """The kernels for the output of the attention's projection alone."""
        bare = replace(
            self.dynamics, norm=NoNorm(), mlp_norm=NoNorm(), placement="post", skip=0.0,
            mlp=NoMLP(), dropout=Dropout(),
        )  # fmt: skip
        return CompiledEngine(bare, self.threads)

    def _attention(
        self,
        x: np.ndarray,
        start: int,
        stop: int,
        entropy: bool,
        samples: np.ndarray | None = None,
    ) -> Advanced:
        """Attention's part of the layers, as `advance`."""
        workers, systems = self.workers(x.shape, stop - start), self.systems(len(x), samples)
        seen: list[np.ndarray] = []
        entropies = []
        for carrier, layers in self.carried(x.shape, x.dtype, start, stop):
            wanted = entropy and not seen
            x, observed, found = carrier.advance(x, layers, workers, self.every, wanted, **systems)
            seen.append(observed)
            entropies.append(found)
        return x, all_layers(seen), entropies[0]

    @staticmethod
    def jobs(shape: tuple[int, ...]) -> int:
        """Between how many threads following such tokens can be shared."""
        samples, n, d = shape
        return -(-samples // vector_width(64)) if _fit_lanes(n, d) else samples

    @staticmethod
    def prepare_to_follow(shape: tuple[int, ...]) -> None:
        """Have the kernel for deviations of these tokens ready, the one that takes longest."""
        _, n, d = shape
        KERNELS["lanes.follow" if _fit_lanes(n, d) else "rows.follow"].prepare()

    def workers(self, shape: tuple[int, ...], layers: int) -> int:
        """Threads worth using for so many layers."""
        samples, n, d = shape
        work = samples * d * (self.dynamics.layout.n_edges + n * d) * layers
        return 1 if work < _THREAD_WORK else self.threads

    def systems(self, count: int, samples: np.ndarray | None) -> dict[str, np.ndarray]:
        """The system of each of so many samples, all or those of these numbers, as a keyword for
        carriers; nothing where there is one."""
        weights = self.dynamics.weights
        if not isinstance(weights, Ensemble):
            return {}
        if samples is None:
            samples = np.arange(count)
            if count != weights.n_systems * weights.each:
                raise ValueError(
                    f"an ensemble of {weights.n_systems} systems of {weights.each} samples each "
                    f"has {weights.n_systems * weights.each}; got {count}"
                )
        return {"systems": samples // weights.each}

    def carried(
        self, shape: tuple[int, ...], dtype: np.dtype, start: int, stop: int
    ) -> Iterator[tuple[Lanes | Rows, int]]:
        """(carrier, number of layers) for all layers: one, unless the norm, its place, the weights
        of skip and branch or the shapes of weights change.

        No job of an interrupted call is at work any more: carriers share the memory of those.
        """
        if self._workers is not None:
            self._workers.settle()
        weights, norm, (_, n, d) = self.dynamics.weights, self.dynamics.norm, shape
        kind, qk_norm = Lanes if _fit_lanes(n, d) else Rows, self.dynamics.qk_norm

        def beside(t: int) -> tuple:
            """What layer t has beside its weights, to be compared."""
            norms = id(norm.layer(t)), id(qk_norm.layer(t))
            return *norms, self.dynamics.places(t), self.dynamics.residual.layer(t)

        def made(layers: LayerArrays, t: int) -> Lanes | Rows:
            norms = norm.layer(t), qk_norm.layer(t)
            return kind(self.dynamics, layers, norms[0], n, d, self._scratch, norms[1], t)

        if isinstance(weights, Ensemble):
            yield self._of_systems(weights, n, d, dtype, start, stop), stop - start
            return
        if weights.is_constant:
            for t in (start,) if self._same_beside else range(start, stop):
                key = (n, d, dtype, beside(t))
                if key not in self._carriers:
                    layer = stacked([weights.layer(t, d).astype(dtype)])
                    self._carriers[key] = made(layer, t)
                yield self._carriers[key], stop - start if self._same_beside else 1
            return
        drawn = [(t, weights.layer(t, d).astype(dtype)) for t in range(start, stop)]
        for _, alike in groupby(drawn, lambda one: (beside(one[0]), [a.shape for a in one[1]])):
            numbers, layers = zip(*alike, strict=True)
            yield made(stacked(list(layers)), numbers[0]), len(layers)

    def _of_systems(
        self, weights: Ensemble, n: int, d: int, dtype: np.dtype, start: int, stop: int
    ) -> Lanes:
        """The carrier of an ensemble's layers; that of constant ones is kept.

        Raises ValueError for tokens that are not carried in lanes.
        """
        if not _fit_lanes(n, d):
            raise ValueError(
                f"an ensemble has tokens of up to {LANES_UP_TO} numbers; got {n} x {d}; simulate "
                f"each system by itself"
            )
        span = range(1) if weights.is_constant else range(start, stop)
        key = (n, d, dtype, span)
        if key not in self._carriers:
            layers = [m.layer(t, d).astype(dtype) for m in weights.members for t in span]
            self._carriers = {key: Lanes(
                self.dynamics, stacked(layers), self.dynamics.norm, n, d, self._scratch,
                systems=weights.n_systems,
            )}  # fmt: skip
        return self._carriers[key]

    @cached_property
    def _same_beside(self) -> bool:
        """True when all layers have the same beside their weights."""
        dynamics = self.dynamics
        norms = dynamics.norm.n_layers is None and dynamics.qk_norm.is_constant
        return norms and isinstance(dynamics.placement, str) and dynamics.residual.is_constant

    def every(self, work: Work, jobs: Sequence[Any]) -> None:
        """All parts of work(job) for all jobs, each on its own thread, at once."""
        if len(jobs) == 1:
            for _ in work(jobs[0]):
                pass
            return
        if self._workers is None:
            self._workers = Workers(self.threads)
        self._workers.every(work, jobs)
