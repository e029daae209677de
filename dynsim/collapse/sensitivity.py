"""The gradient's side: how much tokens of a layer answer to tokens of an earlier one.

The mean squared Jacobian from layer l to L is ||d x_L / d x_l||_F^2 / (N d): how the square of a
small random change of the tokens grows on average, and, backwards, that of a gradient. It vanishes
where gradients vanish.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dynsim._threads import blas_alone
from dynsim._values import real_array, whole
from dynsim.collapse.gram import scales
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.jacobian import jvp
from dynsim.network.norms import NoNorm

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["MOST_NUMBERS", "expected_squared_jacobian", "mean_squared_jacobian"]

#: Numbers of a state, N d, up to which all directions are followed: (N d)^2 numbers of memory.
MOST_NUMBERS = 2048
#: Numbers of directions, and of the scores that they change, that are held at once.
_IN_MEMORY = 4_000_000


def mean_squared_jacobian(
    dynamics: AttentionDynamics, x: ArrayLike, depth: int, start: int = 0
) -> np.ndarray:
    """||d x_(l + k) / d x_l||_F^2 / (N d) for k = 0..depth: (depth + 1,) or (samples, depth + 1).

    Exact but for rounding: all N d directions are carried through the derivatives of the layers
    (`dynsim.jacobian.jvp`), O((N d) (N^2 d + N d^2)) work a layer.

    x : array (N, d) or (samples, N, d)
        Tokens that enter layer l.
    depth : int
        Number of layers.
    start : int
        l, the number of the first of them.

    Raises ValueError for N d above 2048, for dropout, and for what is no dynamics or tokens.

    >>> from dynsim import masks
    >>> from dynsim.network import weights
    >>> mean = AttentionDynamics(masks.causal(2), weights.Identity())
    >>> mean_squared_jacobian(mean, np.eye(2), depth=2)
    array([1.    , 0.75  , 0.8125])
    """
    check_dynamics(dynamics)
    dynamics.require_deterministic("the derivative of a layer")
    x = real_array("tokens", x)
    dynamics.check_tokens(x)
    depth = whole("depth", depth, least=1)
    start = whole("number of the first layer", start, least=0)
    n, d = x.shape[-2:]
    if n * d > MOST_NUMBERS:
        raise ValueError(
            f"a Jacobian between layers is for N d <= {MOST_NUMBERS}, for it has (N d)^2 entries; "
            f"got N d = {n * d}; use fewer tokens or dimensions"
        )
    with blas_alone():
        found = [_followed(dynamics, one, depth, start) for one in x.reshape(-1, n, d)]
    return np.reshape(found, (*x.shape[:-2], depth + 1))


def _followed(dynamics: AttentionDynamics, x: np.ndarray, depth: int, start: int) -> np.ndarray:
    directions = np.eye(x.size).reshape(x.size, *x.shape)
    some = max(1, _IN_MEMORY // (len(x) ** 2 + x.size))
    squares = np.zeros(depth + 1)
    for first in range(0, x.size, some):
        state, v = x, directions[first : first + some]
        squares[0] += len(v)
        for k in range(depth):
            state, v = jvp(dynamics, state, v, start + k)
            squares[k + 1] += np.sum(v**2)
    return squares / x.size


def expected_squared_jacobian(dynamics: AttentionDynamics, d: int, depth: int) -> np.ndarray:
    """The expectation of `mean_squared_jacobian` over fresh random weights, uniform attention and
    no norm, in any dimension d: tr B_k / N with B_0 = I, B' = skip^2 B + branch^2 s^2 P B P^T.

    P is the uniform walk, s^2 / d the variance of the entries of W_V: a layer is skip I + P (x)
    W_V, the skip's and the branch's products have expectation 0, and E W W^T = s^2 I (lemma
    `expected-jacobian`). Under the complete mask without skip that is s^(2k) / N from the first
    layer on.

    Raises ValueError for a norm, for scores, and for what `dynsim.gram.infinite_width` refuses.

    >>> from dynsim import masks
    >>> from dynsim.network.weights import Weights, Zero
    >>> wide = AttentionDynamics(masks.complete(4), Weights(Zero()))
    >>> expected_squared_jacobian(wide, d=8, depth=2)
    array([1.  , 0.25, 0.25])
    """
    check_dynamics(dynamics)
    depth = whole("depth", depth, least=1)
    scale, score = scales(dynamics, whole("number of dimensions", d, least=1))
    if score or not isinstance(dynamics.norm, NoNorm) or dynamics.dropout.active:
        raise ValueError(
            "the expected Jacobian is for uniform attention without norm and dropout; use "
            "Weights(Zero()) and NoNorm()"
        )
    allowed = dynamics.allowed()
    P = allowed / allowed.sum(axis=1, keepdims=True)
    B, traces = np.eye(len(P)), [1.0]
    for t in range(depth):
        skip, branch = (float(weight) ** 2 for weight in dynamics.residual.layer(t))
        B = skip * B + branch * scale * P @ B @ P.T
        traces.append(float(np.trace(B)) / len(P))
    return np.array(traces)
