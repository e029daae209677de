"""Make given tokens an equilibrium: the value matrix for it.

Tokens X (unit rows) are an equilibrium of X' = Unit(A(X) X W_V) exactly when A X W_V = diag(nu) X
with all nu_i > 0; nu_i is the norm that is divided out of token i. For given X, mask and scores
this is a linear equation for W_V.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from dynsim._values import real_array
from dynsim.measures import numerical_rank, singular_values
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Unit
from dynsim.network.weights import Fixed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Design", "design_value_matrix"]

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


def design_value_matrix(
    X: ArrayLike, mask: nx.DiGraph, scores: ArrayLike | None = None, norms: np.ndarray | None = None
) -> Design:
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
    X = real_array("tokens", X).copy()
    if X.ndim != 2 or not np.allclose(np.linalg.norm(X, axis=1), 1, rtol=0, atol=1e-9):
        raise ValueError(
            "tokens of an equilibrium have norm 1, shape (N, d); divide each by its norm"
        )
    n, d = X.shape
    M = np.zeros((d, d)) if scores is None else real_array("scores", scores)
    nu = np.ones(n) if norms is None else real_array("norms", norms)
    if nu.shape != (n,) or not np.all((nu > 0) & np.isfinite(nu)):
        raise ValueError(f"norms are {n} positive numbers, one a token; got {norms}")
    A = AttentionDynamics(mask, Fixed(M, np.eye(d)), Unit()).attention(X)[0]
    wanted = nu[:, None] * X
    singular = np.linalg.svd(A @ X, compute_uv=False)
    rank = int(numerical_rank(singular_values(X)))
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
