"""Make given tokens an equilibrium, and make it stable.

Tokens X (unit rows) are an equilibrium of X' = Unit(A(X) X W_V) exactly when A X W_V = diag(nu) X
with all nu_i > 0; nu_i is the norm that is divided out of token i. For given X, mask and scores
this is a linear equation for W_V.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import numpy as np

from dynsim.dynamics import AttentionDynamics
from dynsim.equilibria.newton import solve
from dynsim.equilibria.stability import Stability, stability
from dynsim.jacobian import linearise
from dynsim.layout import compile_layout
from dynsim.norms import Unit
from dynsim.values import whole
from dynsim.weights import Fixed

__all__ = ["Design", "Stabilised", "design_value_matrix", "stabilise"]

#: A X with a larger condition number is refused: W_V would be made of rounding.
_WORST_CONDITION = 1e10


@dataclass(frozen=True, eq=False)
class Design:
    """A value matrix for wanted tokens.

    W_V : (d, d), of least norm where several serve
    residual : ||A X W_V - diag(nu) X||_F / ||diag(nu) X||_F, rounding where X is an equilibrium
    condition : of A X, the ratio of its extreme singular values
    dynamics : the layer with this W_V, unit norm
    """

    W_V: np.ndarray
    residual: float
    condition: float
    dynamics: AttentionDynamics

    @property
    def is_exact(self) -> bool:
        """True when the tokens are an equilibrium to rounding."""
        return self.residual <= 1e-15 * self.condition * len(self.W_V)


def design_value_matrix(X, mask: nx.DiGraph, scores=None, norms=None) -> Design:
    """W_V that makes the unit tokens X, (N, d), an equilibrium under a mask and scores M.

    The least-squares solution of A X W_V = diag(nu) X. It is exact if and only if every row
    combination that A X annihilates annihilates diag(nu) X as well; always when A X has rank N
    (then N <= d, and W_V = (A X)^-1 diag(nu) X for N = d), for N > d only for special tokens.
    For M = 0 and the causal mask, N = d, its eigenvalues are k nu_k, k = 1..N.

    Parameters
    ----------
    scores : array (d, d), optional
        M = W_Q W_K^T / sqrt(d_QK); 0 when not given.
    norms : array (N,), optional
        The positive nu; 1 when not given.

    Raises
    ------
    ValueError
        When tokens are not unit, nu is not positive, or A X is singular (condition over 1e10).

    Examples
    --------
    >>> from dynsim import masks
    >>> design = design_value_matrix(np.eye(3), masks.causal(3))
    >>> design.is_exact, bool(np.allclose(design.dynamics.step(np.eye(3)), np.eye(3)))
    (True, True)
    """
    X = np.array(X, np.float64)
    if X.ndim != 2 or not np.allclose(np.linalg.norm(X, axis=1), 1, rtol=0, atol=1e-9):
        raise ValueError(
            "tokens of an equilibrium have norm 1, shape (N, d); divide each by its norm"
        )
    n, d = X.shape
    M = np.zeros((d, d)) if scores is None else np.asarray(scores, np.float64)
    nu = np.ones(n) if norms is None else np.asarray(norms, np.float64)
    if nu.shape != (n,) or not np.all((nu > 0) & np.isfinite(nu)):
        raise ValueError(f"norms are {n} positive numbers, one a token; got {norms}")
    A = AttentionDynamics(mask, Fixed(M, np.eye(d)), Unit()).attention(X)[0]
    wanted = nu[:, None] * X
    singular = np.linalg.svd(A @ X, compute_uv=False)
    rank = np.linalg.matrix_rank(X)
    condition = float(singular[0] / max(singular[rank - 1], 1e-300))
    if condition > _WORST_CONDITION:
        raise ValueError(
            f"A X is singular (condition {condition:.1e}) though X has rank {rank}: attention "
            f"loses a direction that X needs; change tokens or scores"
        )
    W_V = np.linalg.pinv(A @ X, rcond=0.1 / condition) @ wanted
    residual = np.linalg.norm(A @ X @ W_V - wanted) / np.linalg.norm(wanted)
    dynamics = AttentionDynamics(mask, Fixed(M, W_V), Unit())
    return Design(W_V, float(residual), condition, dynamics)


# --- stable ones --------------------------------------------------------------------------------


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
    uniform : bool
        Keep M = 0.
    goal : float
        The spectral radius at which to stop.
    tries, steps : int
        Random starts, and gradient steps for each.

    Returns
    -------
    Stabilised
        The try of smallest spectral radius; look at its `stability.kind`.

    Raises
    ------
    ValueError
        When the rank is impossible, or when no try ends at an equilibrium of this rank.
    """
    n = compile_layout(mask).n_tokens
    dim, rank = whole("dimension", dim, least=1), whole("rank", rank, least=1)
    if rank > min(n, dim):
        raise ValueError(f"the rank is at most min(N, d) = {min(n, dim)}; got {rank}")
    allowed = AttentionDynamics(mask, Fixed(np.eye(dim), np.eye(dim)), Unit()).allowed()
    best = None
    for k in range(whole("number of tries", tries, least=1)):
        found = _one_try(allowed, dim, rank, uniform, goal, least_singular, steps, [seed, k])
        found = found and _exact(mask, rank, least_singular, *found)
        if found and (best is None or found[2].spectral_radius < best[2].spectral_radius):
            best = found
        if progress is not None:
            progress((k + 1) / tries)
        if best is not None and best[2].spectral_radius < (1 + goal) / 2:
            break
    if best is None:
        raise ValueError(
            f"no equilibrium of rank {rank} came out of {tries} tries; use more tries or steps"
        )
    return Stabilised(*best, tries=k + 1)


def _one_try(allowed, d, rank, uniform, goal, least_singular, steps, seed):
    """The best (X, M, W_V) of one descent, or None."""
    import torch

    rng = np.random.default_rng(seed)
    n = len(allowed)
    mask = torch.from_numpy(allowed)

    def parameter(array):
        return torch.tensor(array, dtype=torch.float64, requires_grad=True)

    B = parameter(np.eye(n)[:, :rank] if rank == n else rng.standard_normal((n, rank)))
    C = parameter(rng.standard_normal((rank, d)))
    M = parameter(np.zeros((d, d)) if uniform else 2 * rng.standard_normal((d, d)))
    log_nu = parameter(0.3 * rng.standard_normal(n))
    learned = [C, log_nu, *([] if rank == n else [B]), *([] if uniform else [M])]
    optimiser = torch.optim.Adam(learned, lr=0.03)
    best = (np.inf, None)
    for _ in range(steps):
        X = torch.nn.functional.normalize(B @ C, dim=1)
        A = torch.softmax((X @ M @ X.T).masked_fill(~mask, -torch.inf), dim=1)
        wanted = torch.exp(log_nu)[:, None] * X
        if n == rank == d:
            W_V = torch.linalg.solve(A @ X, wanted)
        else:
            W_V = torch.linalg.pinv(A @ X, rtol=1e-6) @ wanted
        misfit = torch.linalg.norm(A @ X @ W_V - wanted)
        radius = torch.linalg.eigvals(_jacobian(X, A, M, W_V)).abs().max()
        singular = torch.linalg.svdvals(X)[rank - 1]
        thin = torch.relu(least_singular - singular)
        loss = torch.log(radius) + 5 * thin + 10 * misfit
        if not torch.isfinite(loss):
            break
        score = radius.item() + 100 * max(0.0, misfit.item() - 1e-3)
        if score < best[0] and singular.item() > 0.8 * least_singular:
            best = score, tuple(t.detach().numpy().copy() for t in (X, M, W_V))
        if radius.item() < goal and misfit.item() < 1e-3 and thin.item() == 0:
            break
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
    return best[1]


def _jacobian(X, A, M, W_V):
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


def _exact(mask, rank, least_singular, X, M, W_V):
    """(dynamics, tokens, stability) with X moved onto the equilibrium beside it, or None."""
    dynamics = AttentionDynamics(mask, Fixed(M, W_V), Unit())

    def system(x, which):
        out, slope = linearise(dynamics, x)
        size = X.size
        return (out - x).reshape(-1, size), slope.reshape(-1, size, size) - np.eye(size)

    x = solve(system, X[None], dynamics.norm.apply)[0]
    singular = np.linalg.svd(x, compute_uv=False)
    if np.abs(dynamics.step(x) - x).max() > 1e-12 or singular[rank - 1] < 0.5 * least_singular:
        return None
    if rank < len(singular) and singular[rank] > 1e-9:
        return None
    return dynamics, x, stability(dynamics, x)
