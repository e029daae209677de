"""Compiled attention on batches of samples, split over threads; the rest as it is defined."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from dynsim.dynamics import AttentionDynamics
from dynsim.kernels import attention as kernels
from dynsim.layout import Ranges
from dynsim.measures import observe
from dynsim.weights import LayerWeights

__all__ = ["CompiledEngine"]

#: Multiply-adds in a layer below which another thread costs more than it brings.
_THREAD_WORK = 10_000_000


class CompiledEngine:
    """Numba kernels. Samples are independent: their bits do not depend on batch or threads."""

    def __init__(self, dynamics: AttentionDynamics, threads: int):
        self.dynamics = dynamics
        self.threads = threads
        layout = dynamics.layout
        if isinstance(layout, Ranges):
            self._kernel, self._mask = kernels.attend_ranges, (layout.lo, layout.hi)
        else:
            self._kernel, self._mask = kernels.attend_rows, (layout.indptr, layout.indices)

    def advance(self, x, start, stop):
        out = np.empty_like(x)

        def work(part):
            state, seen = x[part], []
            with np.errstate(all="ignore"):  # the caller looks for what is not finite
                for t in range(start, stop):
                    state = self.dynamics.compose(state, t, self._attend)
                    seen.append(observe(state))
            out[part] = state
            return np.stack(seen, axis=-1)

        observed = self._over_samples(work, x.shape)
        return out, np.concatenate(observed, axis=1)

    def attention_entropy(self, x, t):
        seen, layer = self.dynamics.attention_input(x, t)
        parts = self._over_samples(lambda part: self._mixed(seen[part], layer)[1], x.shape)
        return np.concatenate(parts)

    def _over_samples(self, work, shape: tuple[int, int, int]) -> list:
        """work(slice) for parts of the samples, one a thread."""
        n_samples, n, d = shape
        layer_work = n_samples * d * (self.dynamics.layout.n_edges + n * d)
        workers = min(self.threads, n_samples, 1 + layer_work // _THREAD_WORK)
        edges = [n_samples * k // workers for k in range(workers + 1)]
        parts = [slice(a, b) for a, b in pairwise(edges)]
        if workers == 1:
            return [work(parts[0])]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(work, parts))

    def _attend(self, x: np.ndarray, layer: LayerWeights) -> np.ndarray:
        """sum_h A_h x W_V^h + bias for samples x, (S, N, d)."""
        mixed, _ = self._mixed(x, layer)
        return (mixed @ layer.output).sum(axis=1) + layer.output_bias

    def _mixed(self, x: np.ndarray, layer: LayerWeights) -> tuple[np.ndarray, np.ndarray]:
        """A_h V_h, (S, H, N, q), and the entropy of A, mean over heads and tokens, (S,)."""
        samples, n, _ = x.shape
        heads, width, _ = layer.output.shape
        query = x[:, None] @ layer.query + layer.query_bias[:, None, :]  # (S, H, N, p)
        key = x[:, None] @ layer.key if layer.key.size else _for_heads(x, heads)
        value = x[:, None] @ layer.value if layer.value.size else _for_heads(x, heads)
        key_t = np.ascontiguousarray(key.swapaxes(2, 3))
        mixed = np.empty((samples, heads, n, width), x.dtype)
        entropy = np.empty((samples, heads, n))

        def flat(array):  # samples and heads are one axis to the kernel
            return np.ascontiguousarray(array).reshape(-1, *array.shape[2:])

        self._kernel(flat(query), flat(key_t), flat(value), *self._mask, flat(mixed), flat(entropy))
        return mixed, entropy.mean(axis=(1, 2))


def _for_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """The tokens themselves, once for every head: (S, H, N, d)."""
    return np.broadcast_to(x[:, None], (len(x), heads, *x.shape[1:]))
