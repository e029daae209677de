"""The attention of a run, and how much each input token has in each output token.

`dynsim.measures` has the influence of positions for matrices that are given, and its closed form
for uniform causal attention. Here they are those of a run, and a bound holds for all runs: where
token 1 and its followers get eps or more from each token that may attend to them, the shares of
tokens j, j + 1, ... in any token together are at most prod_l (s_l + 1 - (j - 1) eps) / (s_l + 1)
(lemma `influence-bound`). With s = 0 that is arXiv 2502.01951's collapse onto token 1, with the
constant 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynsim._memory import require_memory
from dynsim._values import real_array, real_number, whole
from dynsim.measures.attention import checked_skips, position_influence
from dynsim.network.dynamics import AttentionDynamics, check_dynamics

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["attention_of_run", "influence_bound", "influence_of_run"]


def attention_of_run(
    dynamics: AttentionDynamics, x0: ArrayLike, depth: int, start: int = 0
) -> np.ndarray:
    """The attention matrices of `depth` layers from one state x0, (N, d): (depth, H, N, N).

    By the definition, `AttentionDynamics.step`: O(H N^2 d) work a layer. `start` is the number of
    the first layer. With dropout, matrices before their dropout, of sample 0.

    Raises ValueError for what is no state or dynamics, MemoryError for what this machine cannot
    hold.

    >>> from dynsim import masks
    >>> from dynsim.network import weights
    >>> mean = AttentionDynamics(masks.causal(2), weights.Identity())
    >>> attention_of_run(mean, np.eye(2), depth=1)[0, 0]
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    check_dynamics(dynamics)
    x = real_array("tokens", x0)
    dynamics.check_tokens(x)
    if x.ndim != 2:
        raise ValueError(f"the attention of a run is that of one state, (N, d); got {x.shape}")
    depth = whole("depth", depth, least=1)
    start = whole("number of the first layer", start, least=0)
    heads, n = len(dynamics.weights.layer(start, x.shape[-1]).query), dynamics.n_tokens
    size = f"{depth} layers of {heads} attention matrices of {n} tokens"
    require_memory(8.0 * depth * heads * n * n, size, "use fewer layers or tokens")
    matrices = np.empty((depth, heads, n, n))
    for t in range(depth):
        matrices[t] = dynamics.attention(x, start + t)
        x = dynamics.step(x, start + t)
    return matrices


def influence_of_run(
    dynamics: AttentionDynamics, x0: ArrayLike, depth: int, start: int = 0
) -> np.ndarray:
    """`dynsim.measures.position_influence` of a run from one state x0, (N, d): (N, N).

    Entry [i, j] is the share of input token j in output token i, heads averaged and the skip
    connection counted by its weight over the branch's: what W_V, norms and MLPs do to sizes is not.

    >>> from dynsim import masks
    >>> from dynsim.network import weights
    >>> mean = AttentionDynamics(masks.causal(3), weights.Identity(), skip=1.0)
    >>> influence_of_run(mean, np.eye(3), depth=2)[-1].round(4)
    array([0.3194, 0.2361, 0.4444])
    """
    A = attention_of_run(dynamics, x0, depth, start)
    residuals = [dynamics.residual.layer(start + t) for t in range(len(A))]
    if not all(r.are_numbers and r.skip >= 0 and r.branch > 0 for r in residuals):
        raise ValueError(
            "influence is for one weight of the skip connection, at least 0, and one of the "
            "branch, above 0, in all dimensions"
        )
    return position_influence(A, [float(r.skip / r.branch) for r in residuals])


def influence_bound(n: int, depth: int, eps: float, skip: ArrayLike = 0.0) -> np.ndarray:
    """What the shares of tokens j, ..., N in any token can be together, for j = 1..N: (N,).

    prod_l (s_l + 1 - (j - 1) eps) / (s_l + 1), for causal attention whose entries on edges are eps
    or more; 1 for j = 1 (lemma `influence-bound`; arXiv 2502.01951 has C (1 - (j - 1) eps)^t).
    `dynsim.collapse.score_bounds.attention_floor` gives eps where scores are bounded.

    n : tokens. depth : layers. eps : above 0 and at most 1 / N. skip : a number, or one a layer.

    >>> influence_bound(3, depth=2, eps=1 / 3)
    array([1.        , 0.44444444, 0.11111111])
    """
    n, depth = whole("number of tokens", n, least=1), whole("depth", depth, least=0)
    eps = real_number("eps", eps)
    if not 0.0 < eps <= (1.0 + 1e-12) / n:
        raise ValueError(
            f"eps is the least entry of attention, above 0 and at most 1 / N = {1 / n:.4g}, as "
            f"rows sum to 1; got {eps}"
        )
    skips = checked_skips(skip, depth)[:, None]
    left = np.maximum(1.0 - eps * np.arange(n), 0.0)
    return np.prod((skips + left) / (skips + 1.0), axis=0)
