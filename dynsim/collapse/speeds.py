"""How fast tokens come together where the norm stands, in the time of the flow on the sphere.

With the unit norm after it and a skip of weight s, a layer x' = (s x + A x W_V) / ||...|| is an
Euler step h = 1/s of the flow x' = A x W_V, projected onto the sphere. A norm before attention
leaves x, which grows, and with it what one layer can turn: placements of the norm set a speed
(arXiv 2510.22026). Tokens apart by a small deviation come together, with W_V = w I, w > 0, and
lambda the uniform walk's second eigenvalue, as

    post, ngpt  1 - cos ~ C ((s + lambda w) / (s + w))^(2 layers), e^(-2 w (1 - lambda) t) for small
        steps; w = 1 where a norm of the branch takes its size away (ngpt)
    pre, peri, skip 1  1 - cos ~ C t^(-2 (1 - lambda)), as ||x|| grows like t

(lemma `placement-speeds`). Under the complete mask, lambda = 0, the speed d cos / dt is C e^(-2 t)
and C / t^3: the paper's table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynsim._values import whole
from dynsim.masks.walk import transversal_modes
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.parts import check_alike, check_plain

__all__ = ["LateSpeed", "flow_times", "late_speed"]

#: W_V is a multiple of the identity when it is one to this, relative to its size.
_SCALAR = 1e-12


def flow_times(dynamics: AttentionDynamics, depth: int) -> np.ndarray:
    """The time of the flow at depths 0..T, (depth + 1,): one layer is a step branch / skip.

    Raises ValueError unless there is a skip connection of positive weight.

    >>> from dynsim import masks, norms
    >>> from dynsim.network import weights
    >>> flow = AttentionDynamics(
    ...     masks.complete(4), weights.Identity(), norms.Unit(), skip=4.0
    ... )
    >>> flow_times(flow, depth=4)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    check_dynamics(dynamics)
    depth = whole("depth", depth, least=0)
    residual = dynamics.residual.layer(0)
    check_alike(dynamics, "the time of a flow")
    if not (residual.skip > 0 and residual.branch > 0):
        raise ValueError(
            f"a layer is a step of a flow where a skip connection of weight s > 0 makes it a small "
            f"one, h = branch / s; got s = {residual.skip}, branch {residual.branch}"
        )
    return np.arange(depth + 1) * (residual.branch / residual.skip)


@dataclass(frozen=True)
class LateSpeed:
    """How 1 - cos of two tokens falls near consensus, t the time of the flow.

    kind : "exponential", 1 - cos ~ C e^(-rate t); "algebraic", C t^(-rate); "none", where it stays
    step : h, the time of a layer
    """

    kind: str
    rate: float
    step: float

    @property
    def speed(self) -> str:
        """d cos / dt in words."""
        words = {
            "exponential": f"C e^(-{self.rate:.4g} t)",
            "algebraic": f"C / t^{self.rate + 1:.4g}",
            "none": "0 in the end",
        }
        return words[self.kind]

    def __str__(self) -> str:
        return f"tokens come together with the speed {self.speed}, t = {self.step:.4g} a layer"


def late_speed(dynamics: AttentionDynamics, d: int) -> LateSpeed:
    """The late law of 1 - cos for shared W_V = w I, w > 0, a norm that only scales, and a skip.

    d : dimension of the tokens.

    Raises ValueError for other weights and norms, for MLPs and dropout, for a walk whose second
    eigenvalue is defective (powers of t come with it), and as `flow_times`.

    >>> from dynsim import masks, norms
    >>> from dynsim.network import weights
    >>> pre = AttentionDynamics(
    ...     masks.complete(4), weights.Identity(), norms.Unit(), "pre", skip=1.0
    ... )
    >>> print(late_speed(pre, d=3))
    tokens come together with the speed C / t^3, t = 1 a layer
    """
    step = float(flow_times(dynamics, 1)[1])
    dynamics.require_deterministic("a late speed")
    check_plain(dynamics, "a late speed", ("skip", "placement"))
    places, residual = dynamics.places(0), dynamics.residual.layer(0)
    w = _value(dynamics, whole("number of dimensions", d, least=1))
    s = float(residual.skip)
    w = float(residual.branch) * (1.0 if "branch" in places else w)  # which its norm makes 1
    modes = transversal_modes(dynamics.mask)
    if "after" in places:
        multipliers = [abs((s + mode.value * w) / (s + w)) for mode in modes]
    elif s == 1.0:
        multipliers = [float(np.real(mode.value)) for mode in modes]
    else:
        multipliers = [abs(s + mode.value * (1.0 - s)) for mode in modes]
    slowest = int(np.argmax(multipliers))
    if modes[slowest].power:
        raise ValueError("the walk's second eigenvalue is defective: powers of t come with it")
    largest = multipliers[slowest]
    if "after" not in places and s == 1.0:
        return LateSpeed("algebraic", 2.0 * (1.0 - largest), step)
    if ("after" not in places and s > 1.0) or largest >= 1.0:
        return LateSpeed("none", 0.0, step)
    with np.errstate(divide="ignore"):
        return LateSpeed("exponential", float(-2.0 * np.log(largest) / step), step)


def _value(dynamics: AttentionDynamics, d: int) -> float:
    """w of W_V = w I, summed over heads."""
    layer = dynamics.weights.layer(0, d)
    W_V = layer.W_V.sum(axis=0)
    w = float(np.trace(W_V)) / d
    scalar = np.abs(W_V - w * np.eye(d)).max() <= _SCALAR * abs(w)
    if not (dynamics.is_constant and w > 0 and scalar and not dynamics.mlp.active):
        raise ValueError(
            "late speeds are for W_V = w I, w > 0, the same in all layers, and no MLP; "
            "`dynsim.predict` has rates for other weights"
        )
    norm = dynamics.norm.layer(0).switches(d)
    scales = norm.active and not (norm.shift or norm.centre or np.any(norm.bias))
    if not scales or np.size(norm.gain) != 1 or layer.output_bias.any():
        raise ValueError("late speeds are for a norm that only scales: Unit, or RMSNorm with eps 0")
    return w
