"""Look for stable equilibria by descent: gradients of the spectral radius through the design.

The tokens are free, and so are the scores and norms; the value matrix is the one that
`dynsim.equilibria.design` has for them, so each step is at an equilibrium (up to the misfit where
N > d or the rank is smaller than both).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from dynsim._values import whole
from dynsim.equilibria.newton import solve
from dynsim.equilibria.stability import Stability, stability
from dynsim.masks.networkx_view import compile_layout
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.jacobian import linearise
from dynsim.network.norms import Unit
from dynsim.network.weights import Fixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

__all__ = ["Stabilised", "stabilise"]


@dataclass(frozen=True, eq=False)
class Stabilised:
    """What `stabilise` reached: a dynamics, its equilibrium, and the best multipliers found."""

    dynamics: AttentionDynamics
    tokens: np.ndarray
    stability: Stability
    tries: int


def stabilise(
    mask: nx.DiGraph,
    dim: int,
    rank: int,
    *,
    uniform: bool = False,
    goal: float = 0.95,
    least_singular: float = 0.15,
    tries: int = 12,
    steps: int = 400,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Stabilised:
    """Look for an asymptotically stable equilibrium of a wanted rank under a wanted mask.

    Minimises log rho(J) over tokens X = Unit(B C), B (N, rank) and C (rank, dim), scores M and
    norms nu by gradients (Adam, torch), W_V being designed for them; penalties keep the rank-th
    singular value of X above `least_singular` and the design's residual at zero. Newton's method
    with the weights held then makes X an equilibrium to rounding.

    Parameters
    ----------
    mask : networkx.DiGraph
        On N tokens.
    dim, rank : int
        d, and the rank of X, at most min(N, d).
    uniform : bool
        Keep M = 0.
    goal : float
        The spectral radius at which a try stops; no other try follows one below (1 + goal) / 2.
    least_singular : float
        What the rank-th singular value of X, whose rows are unit, is kept above.
    tries, steps : int
        Random starts, and gradient steps for each.
    seed : int
        Of the starts.
    progress : callable, optional
        Called with the share of the tries done, 0 to 1.

    Returns
    -------
    Stabilised
        The try of smallest spectral radius; look at its `stability.kind`.

    Raises
    ------
    ValueError
        When the rank is impossible, or when no try ends at an equilibrium of this rank.
    ImportError
        Without torch.

    Examples
    --------
    >>> from dynsim import masks
    >>> held = stabilise(masks.causal(2), dim=2, rank=2, tries=1, steps=60)
    >>> held.stability.kind, int(np.linalg.matrix_rank(held.tokens))
    ('stable', 2)
    """
    if find_spec("torch") is None:
        raise ImportError("descent needs the extra 'torch'; pip install \"dynsim[torch]\"")
    n = compile_layout(mask).n_tokens
    dim, rank = whole("dimension", dim, least=1), whole("rank", rank, least=1)
    if rank > min(n, dim):
        raise ValueError(f"the rank is at most min(N, d) = {min(n, dim)}; got {rank}")
    allowed = AttentionDynamics(mask, Fixed(np.eye(dim), np.eye(dim)), Unit()).allowed()
    wish = _Wish(allowed, dim, rank, uniform, goal, least_singular)
    best = None
    for k in range(whole("number of tries", tries, least=1)):
        matrices = _Descent(wish, [seed, k]).best(steps)
        solved = matrices and _exact(mask, wish, *matrices)
        if solved and (best is None or solved[2].spectral_radius < best[2].spectral_radius):
            best = solved
        if progress is not None:
            progress((k + 1) / tries)
        if best is not None and best[2].spectral_radius < (1 + goal) / 2:
            break
    if best is None:
        raise ValueError(
            f"no equilibrium of rank {rank} came out of {tries} tries; use more tries or steps"
        )
    dynamics, tokens, stability = best
    return Stabilised(dynamics, tokens, stability, tries=k + 1)


@dataclass(frozen=True, eq=False)
class _Wish:
    """What a descent is to reach."""

    allowed: np.ndarray
    dim: int
    rank: int
    uniform: bool
    goal: float
    least_singular: float


class _Descent:
    """Adam on tokens X = Unit(B C), scores M and norms nu from one random start."""

    def __init__(self, wish: _Wish, seed: Sequence[int]) -> None:
        import torch

        def parameter(array: np.ndarray) -> torch.Tensor:
            return torch.tensor(array, dtype=torch.float64, requires_grad=True)

        self.wish, rng = wish, np.random.default_rng(seed)
        n, d, rank = len(wish.allowed), wish.dim, wish.rank
        free = rank < n  # else B is no freedom beside C
        self.mask = torch.from_numpy(wish.allowed)
        self.B = parameter(rng.standard_normal((n, rank)) if free else np.eye(n))
        self.C = parameter(rng.standard_normal((rank, d)))
        self.M = parameter(np.zeros((d, d)) if wish.uniform else 2 * rng.standard_normal((d, d)))
        self.log_nu = parameter(0.3 * rng.standard_normal(n))
        self.learned = [self.C, self.log_nu, *([self.B] * free), *([self.M] * (not wish.uniform))]

    def design(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(X, A, W_V, misfit): W_V solves A X W_V = diag(nu) X, up to the misfit."""
        import torch

        X = torch.nn.functional.normalize(self.B @ self.C, dim=1)
        A = torch.softmax((X @ self.M @ X.T).masked_fill(~self.mask, -torch.inf), dim=1)
        wanted = torch.exp(self.log_nu)[:, None] * X
        if len(X) == self.wish.rank == self.wish.dim:
            W_V = torch.linalg.solve(A @ X, wanted)
        else:
            W_V = torch.linalg.pinv(A @ X, rtol=1e-6) @ wanted
        return X, A, W_V, torch.linalg.norm(A @ X @ W_V - wanted)

    def best(self, steps: int) -> tuple[np.ndarray, ...] | None:
        """The best (X, M, W_V) of the descent, or None."""
        import torch

        wish, least = self.wish, np.inf
        best: tuple[np.ndarray, ...] | None = None
        optimiser = torch.optim.Adam(self.learned, lr=0.03)
        for _ in range(steps):
            X, A, W_V, misfit = self.design()
            radius = torch.linalg.eigvals(_jacobian(X, A, self.M, W_V)).abs().max()
            singular = torch.linalg.svdvals(X)[wish.rank - 1]
            thin = torch.relu(wish.least_singular - singular)
            loss = torch.log(radius) + 5 * thin + 10 * misfit
            if not torch.isfinite(loss):
                break
            score = radius.item() + 100 * max(0.0, misfit.item() - 1e-3)
            if score < least and singular.item() > 0.8 * wish.least_singular:
                least = score
                best = tuple(t.detach().numpy().copy() for t in (X, self.M, W_V))
            if radius.item() < wish.goal and misfit.item() < 1e-3 and thin.item() == 0:
                break
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
            optimiser.step()
        return best


def _jacobian(X: torch.Tensor, A: torch.Tensor, M: torch.Tensor, W_V: torch.Tensor) -> torch.Tensor:
    """`dynsim.jacobian` of one head with unit norm, in torch: (N d, N d)."""
    import torch

    n, d = X.shape
    V = X @ W_V
    Y = A @ V
    away = V[None] - Y[:, None]
    inner = torch.einsum("ij,ab->ibja", A, W_V)
    inner = inner + torch.einsum("ij,ia,ijb->ibja", A, X @ M, away)
    own = torch.einsum("ij,ja,ijb->iba", A, X @ M.T, away)
    inner = inner + torch.einsum("ik,iba->ibka", torch.eye(n, dtype=X.dtype), own)
    size = torch.linalg.norm(Y, dim=1, keepdim=True)
    out = Y / size
    projector = (torch.eye(d, dtype=X.dtype) - out[:, :, None] * out[:, None, :]) / size[:, :, None]
    return torch.einsum("icb,ibja->icja", projector, inner).reshape(n * d, n * d)


def _exact(
    mask: nx.DiGraph, wish: _Wish, X: np.ndarray, M: np.ndarray, W_V: np.ndarray
) -> tuple[AttentionDynamics, np.ndarray, Stability] | None:
    """(dynamics, tokens, stability) with X moved onto the equilibrium beside it, or None."""
    dynamics = AttentionDynamics(mask, Fixed(M, W_V), Unit())

    def system(x: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        out, slope = linearise(dynamics, x)
        size = X.size
        return (out - x).reshape(-1, size), slope.reshape(-1, size, size) - np.eye(size)

    x = solve(system, X[None], dynamics.norm.apply)[0]
    singular = np.linalg.svd(x, compute_uv=False)
    if (
        np.abs(dynamics.step(x) - x).max() > 1e-12
        or singular[wish.rank - 1] < 0.5 * wish.least_singular
    ):
        return None
    if wish.rank < len(singular) and singular[wish.rank] > 1e-9:
        return None
    return dynamics, x, stability(dynamics, x)
