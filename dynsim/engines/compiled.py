"""Compiled kernels on batches of samples, split over threads."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dynsim.dynamics import PLACEMENTS, AttentionDynamics
from dynsim.kernels import attention as kernels
from dynsim.kernels import tokenwise
from dynsim.layout import Ranges
from dynsim.measures import CHEAP
from dynsim.norms import Norm

__all__ = ["CompiledEngine"]


class CompiledEngine:
    """Numba kernels. Samples are independent: their bits do not depend on batch or threads."""

    def __init__(self, dynamics: AttentionDynamics, threads: int):
        self.dynamics = dynamics
        self.threads = threads
        layout = dynamics.layout
        if isinstance(layout, Ranges):
            self._mask = (layout.lo, layout.hi)
            self._kernel = kernels.attend_ranges
        else:
            self._mask = (layout.indptr, layout.indices)
            self._kernel = kernels.attend_rows

    def advance(self, x, start, stop):
        layers = range(start, stop)
        out = np.empty_like(x)
        observed = np.empty((len(CHEAP), len(x), len(layers)))
        weights = [self._weights(t, x) for t in layers]

        def work(part):
            state = x[part].copy()
            for k, t in enumerate(layers):
                state = self._layer(state, t, weights[k])
                tokenwise.observe(state, observed[:, part, k])
            out[part] = state

        self._over_samples(work, len(x))
        return out, observed

    def attention_entropy(self, x, t):
        seen = self._normalised("before", x, self.dynamics.norm)
        weights = self._weights(t, x)
        out, entropy = np.empty_like(x), np.empty(len(x))

        def work(part):
            self._kernel(seen[part], *self._mask, weights, out[part], entropy[part])

        self._over_samples(work, len(x))
        return entropy

    def _weights(self, t, x):
        return self.dynamics.weights.layer(t, x.shape[-1]).astype(x.dtype)

    def _over_samples(self, work, n_samples: int) -> None:
        workers = min(self.threads, n_samples)
        edges = [n_samples * k // workers for k in range(workers + 1)]
        parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
        if workers == 1:
            work(parts[0])
            return
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, parts))

    def _layer(self, x, t, weights):
        dynamics = self.dynamics
        entropy = np.empty(len(x))
        x = self._sublayer(
            x, lambda z, y: self._kernel(z, *self._mask, weights, y, entropy), dynamics.norm
        )
        if not dynamics.mlp.active:
            return x
        W_1, b_1, W_2, b_2 = (
            a.astype(x.dtype, copy=False) for a in dynamics.mlp.layer(t, x.shape[-1])
        )
        is_gelu = dynamics.mlp.activation == "gelu"
        return self._sublayer(
            x,
            lambda z, y: tokenwise.perceptron(z, W_1, b_1, W_2, b_2, is_gelu, y),
            dynamics.mlp_norm,
        )

    def _sublayer(self, x, kernel, norm: Norm):
        """after(skip x + branch(f(before(x)))), as `AttentionDynamics.step` has it."""
        y = np.empty_like(x)
        kernel(self._normalised("before", x, norm), y)
        y = self._normalised("branch", y, norm)
        if self.dynamics.skip:
            y += x.dtype.type(self.dynamics.skip) * x
        return self._normalised("after", y, norm)

    def _normalised(self, place: str, x, norm: Norm):
        switches = norm.switches(x.shape[-1])
        if place not in PLACEMENTS[self.dynamics.placement] or not switches.active:
            return x
        out = np.empty_like(x)
        tokenwise.normalise(x, *switches[1:], out)
        return out
