"""Follow an equilibrium while a parameter changes, through folds, and name what happens to it.

Pseudo-arclength continuation (Keller 1977; Kuznetsov, Elements of Applied Bifurcation Theory,
chapter 10): the branch is a curve of zeros of G(x, p) = F_p(x) - sign x. From a point on it a step
goes along the tangent, and Newton's method returns to the curve in the plane across the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynsim._values import check_instance, real_array
from dynsim.equilibria.stability import check_equilibria_possible
from dynsim.measures import SOLVED_RTOL, numerical_rank, singular_values
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.jacobian import image, linearise, tangent_jacobian
from dynsim.network.parts import check_plain
from dynsim.network.weights import Fixed, Jordan, Layers, Weights

__all__ = ["FAMILIES", "Branch", "continue_equilibrium"]

#: Newton steps of the corrector, and the residual at which it is content.
_CORRECTIONS, _TOLERANCE = 12, 1e-11
_LARGEST_STEP, _SMALLEST_STEP = 0.05, 1e-7
#: The end of the range is reached to this length.
_LAST_STEP = 1e-4


@dataclass(frozen=True, eq=False)
class Branch:
    """A curve of equilibria.

    parameter : (points,)
    tokens : (points, N, d)
    multipliers : (points, m), complex, by falling modulus
    bifurcations : [(name, parameter)], name one of "fold", "branch point", "flip",
        "Neimark-Sacker"
    ended : why it ends: "end of the range", "number of points" or "no convergence"
    """

    parameter: np.ndarray
    tokens: np.ndarray
    multipliers: np.ndarray
    bifurcations: list[tuple[str, float]]
    ended: str

    @property
    def spectral_radius(self) -> np.ndarray:
        """(points,)."""
        return np.abs(self.multipliers).max(axis=1)

    @property
    def rank(self) -> np.ndarray:
        """(points,)."""
        return numerical_rank(singular_values(self.tokens), SOLVED_RTOL)


def _beta(dynamics: AttentionDynamics, d: int, value: float) -> AttentionDynamics:
    layer = dynamics.weights.layer(0, d)
    if layer.query_bias.any() or layer.output_bias.any():
        raise ValueError("beta scales the scores of weights without biases; these have some")
    known = ("position", "kind", "placement", "skip", "gate")
    check_plain(dynamics, "beta as a parameter", known)
    if dynamics.needs_factors or dynamics.gate.active:
        return replace(dynamics, weights=Layers((layer.sharpened(value),)))
    return replace(dynamics, weights=Fixed(value * layer.M, layer.W_V))


def _skip(dynamics: AttentionDynamics, d: int, value: float) -> AttentionDynamics:
    return replace(dynamics, skip=value)


def _gain(dynamics: AttentionDynamics, d: int, value: float) -> AttentionDynamics:
    if not hasattr(dynamics.norm, "gain"):
        raise ValueError(f"{type(dynamics.norm).__name__} has no gain; use --norm rms or layernorm")
    norm: Any = dynamics.norm
    norm = replace(norm, gain=value * norm.gain)
    return replace(dynamics, norm=norm, mlp_norm=norm)


def _w(dynamics: AttentionDynamics, d: int, value: float) -> AttentionDynamics:
    weights = dynamics.weights
    if not (isinstance(weights, Weights) and isinstance(weights.value, Jordan)):
        raise ValueError("w is the parameter of Jordan value matrices; use --value jordan:W")
    return replace(dynamics, weights=replace(weights, value=Jordan(value)))


#: Parameters by name: callable(dynamics, dimension, value) -> dynamics. beta: factor of the scores
#: (1 / temperature); skip: weight of the skip connection; gain: factor of the norm's gain; w: of
#: `dynsim.weights.Jordan`.
FAMILIES = {"beta": _beta, "skip": _skip, "gain": _gain, "w": _w}


def continue_equilibrium(
    family: Callable[[float], AttentionDynamics],
    x: np.ndarray,
    start: float,
    stop: float,
    *,
    points: int = 500,
    step: float = 1e-2,
) -> Branch:
    """Follow the equilibrium, or sign-flip state, x of `family(start)` towards `stop`.

    It ends where the parameter leaves the range between start and stop, on either side, so a
    branch that turns at a fold comes back. Bifurcations are placed by interpolation between points.

    Parameters
    ----------
    family : callable
        The dynamics for a value of the parameter: of w, beta, the skip weight, a gain, ...
    x : array (N, d)
        The state to begin with.
    start, stop : float
        The parameter's values at the ends of its range; start may be the larger.
    points : int
        Points of the branch, at most.
    step : float
        First step, in the length of (x, p / |stop - start|).

    Returns
    -------
    Branch
        Points from `start` on, their multipliers, and the bifurcations between them.

    Raises
    ------
    ValueError
        When x is no equilibrium of family(start) or a multiplier is 1 there, when start is stop,
        and as `find_equilibria` for dynamics that have no equilibria.

    Examples
    --------
    The two full-rank equilibria of `hyperbolic_dynamics` meet at c = sqrt(3) / 2 = 0.8660:

    >>> from dynsim.equilibria import hyperbolic_dynamics, hyperbolic_pair
    >>> x = hyperbolic_pair(0.5, 1.0)[0]
    >>> branch = continue_equilibrium(lambda c: hyperbolic_dynamics(0.5, c), x, 1.0, 0.8)
    >>> [(name, round(c, 4)) for name, c in branch.bifurcations], branch.ended
    ([('fold', 0.866)], 'end of the range')

    References
    ----------
    Keller, in Applications of Bifurcation Theory (1977), 359-384; Kuznetsov, Elements of Applied
    Bifurcation Theory, chapter 10.
    """
    check_instance("family", family, Callable, "lambda w: jordan_dynamics(4, w)")
    dynamics = family(start)
    check_equilibria_possible(dynamics)
    if start == stop:
        raise ValueError(f"start and stop differ; both are {start}")
    curve = _Curve(family, real_array("tokens", x).copy(), start, stop)
    if np.abs(curve.value(curve.z0)).max() > 1e-8:
        raise ValueError(
            f"the tokens are no equilibrium at parameter {start}; begin the range where they are"
        )
    z = curve.corrected(curve.z0, np.append(np.zeros(x.size), 1.0))
    if z is None or np.linalg.cond(curve.slope(z)[:, :-1]) > 1e10:
        raise ValueError(f"a multiplier is 1 at parameter {start}; start elsewhere")
    direction = curve.tangent(z, np.append(np.zeros(x.size), 1.0))
    curve_points, directions, size, ended = [z], [direction], step, "number of points"
    while len(curve_points) < points:
        after = curve.corrected(z + size * direction, direction)
        turned = None if after is None else curve.tangent(after, direction)
        if after is None or turned is None or turned @ direction < 0.98:
            size /= 2
            if size < _SMALLEST_STEP:
                ended = "no convergence"
                break
            continue
        if not 0 <= after[-1] <= 1:
            if size > _LAST_STEP:
                size /= 2
                continue
            ended = "end of the range"
            break
        z, direction = after, turned
        curve_points.append(z)
        directions.append(direction)
        size = min(1.3 * size, _LARGEST_STEP)
    return curve.branch(curve_points, directions, ended)


class _Curve:
    """G(x, p) = 0 in the coordinates z = (x, (p - start) / (stop - start))."""

    def __init__(
        self, family: Callable[[float], AttentionDynamics], x: np.ndarray, start: float, stop: float
    ) -> None:
        self.family, self.shape, self.start, self.range = family, x.shape, start, stop - start
        self.sign = 1 if np.sum(family(start).step(x) * x) > 0 else -1
        self.z0 = np.append(x, 0.0)

    def split(self, z: np.ndarray) -> tuple[np.ndarray, float]:
        return z[:-1].reshape(self.shape), float(self.start + self.range * z[-1])

    def value(self, z: np.ndarray) -> np.ndarray:
        x, p = self.split(z)
        return (image(self.family(p), x) - self.sign * x).ravel()

    def slope(self, z: np.ndarray) -> np.ndarray:
        """dG/dz, (N d, N d + 1); the column of the parameter by central differences."""
        x, p = self.split(z)
        _, J = linearise(self.family(p), x)
        h = 1e-6
        ahead, behind = (self.value(np.append(z[:-1], z[-1] + s)) for s in (h, -h))
        square = J.reshape(x.size, x.size) - self.sign * np.eye(x.size)
        return np.column_stack([square, (ahead - behind) / (2 * h)])

    def tangent(self, z: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The unit null vector of dG/dz that points on, as `before` does."""
        null = np.linalg.svd(self.slope(z))[2][-1]
        return null if null @ before >= 0 else -null

    def corrected(self, guess: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
        """The point of the curve in the plane across `direction` at `guess`, or None."""
        z = guess
        for _ in range(_CORRECTIONS):
            with np.errstate(all="ignore"):
                r = np.append(self.value(z), direction @ (z - guess))
                if not np.all(np.isfinite(r)):
                    return None
                if np.abs(r).max() < _TOLERANCE:
                    return z
                full = np.vstack([self.slope(z), direction])
            if not np.all(np.isfinite(full)) or np.linalg.cond(full) > 1e13:
                return None
            z = z - np.linalg.solve(full, r)
        return None

    def branch(self, points: list[np.ndarray], directions: list[np.ndarray], ended: str) -> Branch:
        tokens, parameter = zip(*map(self.split, points), strict=True)
        rows = []
        for x, p in zip(tokens, parameter, strict=True):
            values = np.linalg.eigvals(self.sign * tangent_jacobian(self.family(p), x))
            rows.append(values[np.argsort(-np.abs(values), kind="stable")])
        multipliers = np.array(rows)
        bifurcations = []
        for k in range(1, len(points)):
            before, after = (
                (multipliers[i], self.range * directions[i][-1], parameter[i]) for i in (k - 1, k)
            )
            length = float(np.linalg.norm(points[k] - points[k - 1]))
            bifurcations += _bifurcations(before, after, length)
        return Branch(
            np.array(parameter), np.array(tokens), multipliers, bifurcations, ended
        )  # fmt: skip


def _bifurcations(
    before: tuple[np.ndarray, float, float], after: tuple[np.ndarray, float, float], length: float
) -> list[tuple[str, float]]:
    """What happens between two neighbouring points (multipliers, dp/ds, p), `length` apart."""
    (old, speed, p), (new, speed_after, p_after) = before, after
    bifurcations = []

    def add(name: str, f: float, g: float) -> None:  # where a test function crosses 0
        bifurcations.append((name, float(p + (p_after - p) * f / (f - g))))

    real = [np.sort(v[np.abs(v.imag) < 1e-9].real) for v in (old, new)]
    if speed * speed_after < 0:
        along = length * speed / (speed - speed_after)  # where dp/ds = 0, as it is nearly linear
        bifurcations.append(("fold", float(p + speed * along / 2)))
    elif sum(real[0] > 1) != sum(real[1] > 1) and len(real[0]) == len(real[1]):
        nearest = [v[np.argmin(np.abs(v - 1))] - 1 for v in real]
        add("branch point", *nearest)
    if sum(real[0] < -1) != sum(real[1] < -1) and len(real[0]) == len(real[1]):
        nearest = [v[np.argmin(np.abs(v + 1))] + 1 for v in real]
        add("flip", *nearest)
    turning = [v[v.imag > 1e-9] for v in (old, new)]
    outside = [int(np.sum(np.abs(v) > 1)) for v in turning]
    if outside[0] != outside[1] and len(turning[0]) == len(turning[1]):
        nearest = [np.abs(v)[np.argmin(np.abs(np.abs(v) - 1))] - 1 for v in turning]
        add("Neimark-Sacker", *nearest)
    return bifurcations
