"""The work that is timed: x' = Unit(A(x) x W_V), and mu and mean cosine after every layer.

All layers share M and W_V. Per layer and trajectory, with E the allowed pairs (N^2 on the complete
graph), the least work is counted as

    flops   4 E d (scores and A x) + 4 N d^2 (x M and W_V) + 8 N d (norm and measures)
    exps    E
    bytes   16 N d (x read, x' written) where both do not stay in a core's cache; 4 E for a
            mask that is a list of neighbours
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import networkx as nx
import numpy as np
from scipy import sparse

import dynsim

__all__ = ["CASES", "Case", "Problem"]

#: Bytes of state, x and x', that a core's second-level cache is taken to hold.
CACHED = 2**20


@dataclass(frozen=True)
class Case:
    """One size of one regime; `target` is a plan (rival -> ratio to reach), never a result."""

    name: str
    regime: str
    n: int
    d: int
    samples: int = 1
    mask: str = "complete"  # complete, causal, local or random
    reach: int = 0  # window of local, mean degree of random
    layers: int = 200
    serial: bool = False  # too small a step to share between threads
    quick: bool = False
    dtype: str = "float64"
    target: dict = field(default_factory=dict, compare=False)

    @property
    def size(self) -> str:
        mask = self.mask + (f" {self.reach}" if self.reach else "")
        short = "" if self.dtype == "float64" else f" {self.dtype}"
        return f"N={self.n} d={self.d} B={self.samples} {mask}{short}"

    @property
    def pairs(self) -> int:
        """Allowed pairs; for random graphs, on average."""
        n, w = self.n, self.reach
        return {
            "complete": n * n,
            "causal": n * (n + 1) // 2,
            "local": n * (2 * w + 1) - w * (w + 1),
            "random": n * w,
        }[self.mask]

    def build(self, seed: int = 0, score_size: float | None = None) -> Problem:
        """The case with its random matrices; `score_size` scales M to that largest |score|."""
        rng = np.random.default_rng([seed, self.n, self.d])
        x0 = dynsim.tokens.sphere(self.samples, self.n, self.d, seed)
        W_Q, W_K = rng.standard_normal((2, self.d, self.d)) / self.d**0.5
        M = 2.0 * W_Q @ W_K.T
        if score_size is not None:
            M *= score_size / np.abs(x0 @ M @ x0.swapaxes(1, 2)).max()
        W_V = np.linalg.qr(rng.standard_normal((self.d, self.d)))[0]
        allowed = _random_graph(self.n, self.reach, rng) if self.mask == "random" else None
        return Problem(self, *(array.astype(self.dtype) for array in (x0, M, W_V)), allowed)


def _random_graph(n: int, degree: int, rng: np.random.Generator) -> sparse.csr_array:
    """Every token sees itself; every other pair is allowed with the same probability."""
    drawn = rng.binomial(n - 1, (degree - 1) / (n - 1), size=n)
    columns = [np.append(rng.choice(n, k, replace=False), i) for i, k in enumerate(drawn)]
    columns = [np.unique(row) for row in columns]
    indptr = np.cumsum([0, *map(len, columns)])
    indices = np.concatenate(columns)
    return sparse.csr_array((np.ones(len(indices)), indices, indptr), shape=(n, n))


@dataclass(frozen=True, eq=False)
class Problem:
    """A case made concrete: tokens (B, N, d), M and W_V (d, d), and who may attend to whom."""

    case: Case
    x0: np.ndarray
    M: np.ndarray
    W_V: np.ndarray
    neighbours: sparse.csr_array | None  # of random masks

    @cached_property
    def graph(self) -> nx.DiGraph:
        case = self.case
        if case.mask == "random":
            return dynsim.masks.from_array(self.neighbours)
        if case.mask == "local":
            return dynsim.masks.local(case.n, case.reach)
        return dynsim.masks.MASKS[case.mask](case.n)

    @property
    def dynamics(self) -> dynsim.AttentionDynamics:
        fixed = dynsim.weights.Fixed(self.M, self.W_V)
        return dynsim.AttentionDynamics(self.graph, fixed, dynsim.norms.Unit())

    def allowed(self) -> np.ndarray | None:
        """The mask as a dense (N, N) boolean array; None when all is allowed."""
        case = self.case
        i = np.arange(case.n)
        if case.mask == "complete":
            return None
        if case.mask == "causal":
            return i <= i[:, None]
        if case.mask == "local":
            return np.abs(i - i[:, None]) <= case.reach
        return self.neighbours.toarray() > 0

    def padded_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Neighbours of each token of a random mask, (N, longest), and which of them are real."""
        degrees = np.diff(self.neighbours.indptr)
        present = np.arange(degrees.max()) < degrees[:, None]
        rows = np.zeros(present.shape, np.int64)
        rows[present] = self.neighbours.indices
        return rows, present

    @cached_property
    def counts(self) -> dict[str, int]:
        """flops, exps and bytes per layer and trajectory, as the head of this file says."""
        n, d = self.case.n, self.case.d
        pairs = self.case.pairs if self.neighbours is None else self.neighbours.nnz
        state = 16 * n * d
        return {
            "flops": 4 * pairs * d + 4 * n * d * d + 8 * n * d,
            "exps": pairs,
            "bytes": state * (state > CACHED) + 4 * pairs * (self.neighbours is not None),
        }


def _small(n, d, samples, quick=False, **target):
    return Case(f"small-{n}x{d}", "small", n, d, samples, quick=quick, target=target)


def _medium(n, d, samples, mask, quick=False, **target):
    name = f"medium-{n}x{d}-{mask}"
    return Case(name, "medium", n, d, samples, mask, quick=quick, target=target)


def _local(n, window, quick=False, **target):
    name = f"local-{n}-w{window}"
    return Case(name, "local", n, 64, 1, "local", window, quick=quick, target=target)


def _single(n, samples, mask, quick=False, reach=0):
    name = f"float32-{n}-{mask}"
    return Case(name, "float32", n, 64, samples, mask, reach, quick=quick, dtype="float32")


#: Targets are the ratios rival / dynsim that the prototypes reached on two Zen 5 cores.
CASES = {
    case.name: case
    for case in (
        _small(8, 4, 4096, jax=5.6, torch=18, compiled=37, numpy=40),
        _small(16, 8, 2048, True, jax=3.6, torch=9.8, compiled=17, numpy=19),
        _small(32, 16, 512, jax=2.5, torch=6.6, compiled=7.5),
        _small(64, 32, 128, jax=2.2, torch=3.9, compiled=4.2, numpy=6),
        _medium(128, 64, 32, "complete", True, jax=2.4, torch=4.2, compiled=3.7, numpy=4),
        _medium(256, 64, 8, "complete", jax=2.1, torch=3.0, compiled=3.7),
        _medium(512, 64, 4, "complete", jax=1.6, torch=2.8, compiled=3.4),
        _medium(512, 128, 1, "complete", jax=1.6, torch=2.5, compiled=2.6),
        _medium(128, 64, 32, "causal", True, jax=2.3, sdpa=3.8),
        _medium(256, 64, 8, "causal", jax=2.3, sdpa=3.8),
        _medium(512, 64, 4, "causal", jax=2.3, sdpa=3.8),
        _medium(512, 128, 1, "causal", jax=2.3, sdpa=3.8),
        _local(4096, 8, jax=2.5, torch=5.1),
        _local(4096, 32, True, jax=3.2, torch=7.5),
        _local(4096, 128, jax=4.2, torch=6.8),
        _local(16384, 32, jax=4.3, torch=6.1),
        _local(65536, 32, jax=6.4, torch=8.3),
        Case("random-16384-k32", "local", 16384, 64, 1, "random", 32, quick=True,
             target={"numpy": 22, "jax": 25, "compiled": 25}),
        _single(128, 32, "complete", True),
        _single(512, 4, "causal"),
        _single(16384, 1, "local", reach=32),
        Case("long-4x3", "long", 4, 3, 1, layers=10**6, serial=True, quick=True,
             target={"jax": 17, "numpy": 270, "torch": 340}),
    )
}  # fmt: skip
