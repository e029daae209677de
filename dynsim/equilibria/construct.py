"""Equilibria in closed form: right to rounding, up to the edge of their range; found by no search.

All are for unit norm after the layer. A causal mask with M = 0 averages the first i tokens for
token i, so token i of an equilibrium solves x_i (beta I - W_V) = (x_1 + ... + x_{i-1}) W_V.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np

from dynsim import masks
from dynsim._values import whole
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.norms import Unit
from dynsim.network.parts import unusual_parts
from dynsim.network.weights import Fixed, Jordan

__all__ = [
    "complete_pair",
    "complete_pair_dynamics",
    "hyperbolic_dynamics",
    "hyperbolic_pair",
    "jordan_dynamics",
    "jordan_family",
    "jordan_member",
]


def jordan_dynamics(n: int, w: float) -> AttentionDynamics:
    """Causal mask, M = 0, unit norm and W_V = I + w (ones on the superdiagonal), d = n.

    WU, arXiv 2405.18781, Theorem 3 and App. F; for n = 2 their section 4.3.1. Raises ValueError for
    n < 1 and a w that is not finite.

    >>> jordan_dynamics(2, 3.0).weights.layer(0, 2).W_V[0]
    array([[1., 3.],
           [0., 1.]])
    """
    n = whole("number of tokens", n, least=1)
    W_V = Jordan(w).matrix(n, np.random.default_rng(0))
    return AttentionDynamics(masks.causal(n), Fixed(np.zeros((n, n)), W_V), Unit())


def jordan_family(n: int, w: float, rank: int) -> np.ndarray:
    """The 2^rank equilibria of this rank that `jordan_dynamics(n, w)` has by WU's App. F.

    The first m = n - rank + 1 tokens are s e_n. The others follow one by one from
    x_{i+1} (I - W_V) = beta x_i, beta = m for the first of them and 1 then, which fixes all
    coordinates but the last: that is the root of 1 - (the squares of the rest), of either sign.

    Returns
    -------
    array (2^rank, n, n)
        States, in the order of `itertools.product((1, -1), repeat=rank)` over the signs of the
        last coordinates of tokens m, m + 1, ..., n.

    Raises
    ------
    ValueError
        Unless 1 <= rank <= n and |w| > n - rank + 1 (for rank > 1; smaller ones leave no root).

    Examples
    --------
    >>> jordan_family(2, 2.0, rank=2)[0]
    array([[ 0.       ,  1.       ],
           [-0.5      ,  0.8660254]])
    """
    n = whole("number of tokens", n, least=1)
    rank = whole("rank", rank, least=1)
    first = n - rank + 1
    if rank > n:
        raise ValueError(f"the rank is at most the number of tokens, {n}; got {rank}")
    if not (np.isfinite(w) and (rank == 1 or abs(w) > first)):
        raise ValueError(
            f"equilibria of rank {rank} with {n} tokens need |w| > {first}; got w = {w}; use a "
            f"larger w or rank"
        )
    signs = np.array(list(product((1.0, -1.0), repeat=rank)))
    x = np.zeros((len(signs), n, n))
    x[:, :first, -1] = signs[:, :1]
    size = abs(float(w))
    for sign, i in zip(signs.T[1:], range(first, n), strict=True):
        beta = first if i == first else 1.0
        x[:, i, :-1] = -beta * x[:, i - 1, 1:] / w
        # 1 - (the squares of the rest) for x_(i-1) of norm 1, where nothing cancels
        left = (size - beta) / size * (1.0 + beta / size) + (beta * x[:, i - 1, 0] / size) ** 2
        x[:, i, -1] = sign * np.sqrt(left)
    return x


def jordan_member(dynamics: AttentionDynamics, x: np.ndarray) -> tuple[int, ...] | None:
    """The signs of the last coordinates by which x, (N, d), is a state of WU's family; else None.

    As many signs as the rank, in the order of `jordan_family`, from which no entry of x may differ
    by 1e-6. None for all x unless the layer is that of `jordan_dynamics`.

    >>> jordan_member(jordan_dynamics(2, 2.0), jordan_family(2, 2.0, rank=2)[1])
    (1, -1)
    """
    x = np.asarray(x, float)
    n, w = len(x), _jordan_strength(dynamics, x.shape[1])
    if w is None:
        return None
    for rank in range(1, n + 1):
        if rank > 1 and abs(w) <= n - rank + 1:
            continue
        signs = tuple(1 if v > 0 else -1 for v in x[n - rank :, -1])
        index = sum((s < 0) << k for k, s in enumerate(reversed(signs)))
        if np.abs(jordan_family(n, w, rank)[index] - x).max() < 1e-6:
            return signs
    return None


def _jordan_strength(dynamics: AttentionDynamics, d: int) -> float | None:
    """The w of a layer that is `jordan_dynamics(n, w)`, else None."""
    n = dynamics.n_tokens
    plain = isinstance(dynamics.norm, Unit) and dynamics.placement == "post"
    plain = plain and not (dynamics.skip or dynamics.mlp.active or unusual_parts(dynamics))
    if not plain or not dynamics.weights.is_constant or d != n or n < 2:
        return None
    layer = dynamics.weights.layer(0, d)
    if len(layer.query) > 1 or layer.query.any() or layer.query_bias.any():
        return None
    w = float(layer.W_V[0, 0, 1])
    alike = np.array_equal(layer.W_V[0], np.eye(n) + w * np.eye(n, k=1)) and w != 0
    causal = np.array_equal(dynamics.allowed(), np.tri(n, dtype=bool))
    return w if alike and causal and not layer.output_bias.any() else None


def hyperbolic_dynamics(a: float, c: float) -> AttentionDynamics:
    """Two causal tokens in the plane, M = 0, unit norm, W_V = [[a, c], [0, 1]] with 0 < a < 1.

    Unlike in `jordan_dynamics`, token 1 settles at (0, +-1) at a rate: its multiplier is a.

    Raises ValueError for other a, and for a c that is not finite.

    >>> x = hyperbolic_pair(0.5, 2.0)[0]
    >>> bool(np.allclose(hyperbolic_dynamics(0.5, 2.0).step(x), x))
    True
    """
    if not (0 < a < 1 and np.isfinite(c)):
        raise ValueError(f"the hyperbolic variant has 0 < a < 1 and a finite c; got a={a}, c={c}")
    W_V = np.array([[a, c], [0.0, 1.0]])
    return AttentionDynamics(masks.causal(2), Fixed(np.zeros((2, 2)), W_V), Unit())


def hyperbolic_pair(a: float, c: float) -> np.ndarray:
    """The two full-rank equilibria of `hyperbolic_dynamics` with token 1 at (0, 1): (2, 2, 2).

    Token 2 = (x, y) lies where c x + (1 - a) y = -1 meets the circle; its multiplier is
    (1 + y) / a. The equilibrium of smaller y comes first; it is stable if and only if y < a - 1.

    Raises ValueError unless c^2 + (1 - a)^2 > 1: else the line misses the circle.

    >>> hyperbolic_pair(0.5, 2.0)[0].round(6)
    array([[ 0.      ,  1.      ],
           [-0.258497, -0.966012]])
    """
    hyperbolic_dynamics(a, c)
    squared = Fraction(float(c)) ** 2 + (1 - Fraction(float(a))) ** 2  # exact: 1 is subtracted
    if squared <= 1:
        raise ValueError(
            f"full-rank equilibria need c^2 + (1 - a)^2 > 1; got {float(squared):.6g}; use a "
            f"larger |c|"
        )
    size = np.hypot(c, 1.0 - a)
    normal = np.array([c, 1.0 - a]) / size
    along = np.array([-normal[1], normal[0]]) * np.sqrt(float(1 - 1 / squared))
    second = np.stack([-normal / size - along, -normal / size + along])
    second = second[np.argsort(second[:, 1], kind="stable")]
    return np.stack([np.tile([0.0, 1.0], (2, 1)), second], axis=1)


def complete_pair_dynamics(m: float, v: float) -> AttentionDynamics:
    """Two tokens in the plane under the complete mask, unit norm, M = diag(0, m), W_V = diag(1, v).

    Its full-rank equilibria (`complete_pair`) answer the question of WU's App. F.4. Raises
    ValueError for numbers that are not finite.

    >>> x = complete_pair(2.0, 2.0)
    >>> bool(np.allclose(complete_pair_dynamics(2.0, 2.0).step(x), x))
    True
    """
    return AttentionDynamics(
        masks.complete(2), Fixed(np.diag([0.0, float(m)]), np.diag([1.0, float(v)])), Unit()
    )


def complete_pair(m: float, v: float) -> np.ndarray:
    """A full-rank equilibrium of `complete_pair_dynamics`: [[c1, c2], [c1, -c2]], a saddle.

    Attention gives each token tanh(m c2^2) of its own second coordinate; v undoes it exactly when
    tanh(m c2^2) = 1 / v. WU, arXiv 2405.18781, App. F.4 conjecture that undirected masks have no
    full-rank equilibrium. Where m is near artanh(1/v), c1 is small and has an error of 1e-15 / c1.

    Raises ValueError unless v > 1 and artanh(1/v) < m, by more than rounding.

    >>> complete_pair(2.0, 2.0).round(6)
    array([[ 0.851673,  0.524074],
           [ 0.851673, -0.524074]])
    """
    if not 1 < v < np.inf or not 0 < m < np.inf:
        raise ValueError(f"the equilibrium needs v > 1 and artanh(1/v) < m; got m={m}, v={v}")
    artanh = 0.5 * np.log1p(2.0 / (v - 1.0))  # of 1/v, near v = 1 too
    if not (m - artanh) / m > 8 * np.finfo(float).eps:
        raise ValueError(
            f"the equilibrium needs v > 1 and artanh(1/v) < m; artanh(1/v) is {artanh:.6g}; got "
            f"m={m}; use a larger m or v"
        )
    c1, c2 = np.sqrt((m - artanh) / m), np.sqrt(artanh / m)
    return np.array([[c1, c2], [c1, -c2]])
