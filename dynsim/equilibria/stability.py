"""Is an equilibrium stable? Multipliers with their errors, transient growth, measured basins.

Near an equilibrium x the tokens move by delta' = J delta on the tangent space
(`dynsim.jacobian.tangent_jacobian`). The eigenvalues of J, the multipliers, decide what happens in
the end to small enough perturbations. They do not say how small: max_k ||J^k|| does (the largest
growth before the decay), and runs from perturbed states measure it.

Under a mask that is not strongly connected J is block triangular, one block for each strong
component, and the multipliers are those of the blocks. Computed blockwise they are much more
accurate. Eigenvalues of a defective block (WU's Jordan family has one) still move by about
eps^(1/size); every multiplier therefore carries its error (`certify` proves), and one that is not
told apart from modulus 1 makes an equilibrium marginal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dynsim._seeds import TOKENS, stream
from dynsim._spectra import bounded_eigenvalues
from dynsim._values import real_array, whole
from dynsim.collapse.transient import kreiss_constant, transient_growth
from dynsim.masks.layout import strong_components
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.jacobian import DIFFERENTIABLE, is_spherical, tangent_basis, tangent_jacobian
from dynsim.network.norms import NoNorm
from dynsim.network.parts import check_plain
from dynsim.simulation import Record, simulate

__all__ = [
    "KINDS",
    "Approach",
    "Stability",
    "Transient",
    "approach",
    "basin_radius",
    "check_equilibria_possible",
    "components_in_order",
    "layers_to_return",
    "perturbed",
    "stability",
    "transient",
    "transient_of",
]

#: All multipliers inside the unit circle; none outside but some not told apart from it; some
#: outside; all outside.
KINDS = ("stable", "marginal", "saddle", "unstable")
#: Parts with which equilibria are known; an element-wise norm has one at 0, of rank 0.
_KNOWN = tuple(part for part in DIFFERENTIABLE if part not in ("norm", "mlp_norm"))
#: Powers of J that `transient` looks at, at most.
_POWERS = 20_000
#: Layers of runs that measure a basin, at most.
_LONGEST = 20_000


def check_equilibria_possible(dynamics: AttentionDynamics) -> None:
    """Raise ValueError unless the layers are all alike, without dropout, and end in a norm."""
    check_dynamics(dynamics)
    check_plain(dynamics, "an equilibrium", _KNOWN)
    dynamics.require_deterministic("an equilibrium")
    if not dynamics.is_constant:
        raise ValueError(
            "an equilibrium needs the same weights in all layers; share them (--shared, "
            "shared=True), give the matrices, or take one layer, dynamics.layer(t)"
        )
    last = dynamics.mlp_norm if dynamics.mlp.active else dynamics.norm
    if not dynamics.ends_in_norm or isinstance(last, NoNorm):
        raise ValueError(
            "equilibria are sought for layers that end in a norm; without one only 0 or special "
            "weights stay, and whole lines of states do; use placement 'post' and norms.Unit()"
        )


def components_in_order(dynamics: AttentionDynamics) -> list[np.ndarray]:
    """The strong components of the mask as arrays of tokens, each after all it attends to.

    >>> from dynsim.equilibria import jordan_dynamics
    >>> components_in_order(jordan_dynamics(3, 2.0))
    [array([0]), array([1]), array([2])]
    """
    import networkx as nx

    labels, count = strong_components(dynamics.layout)
    edges = dynamics.layout.to_rows()
    graph = nx.DiGraph()
    graph.add_nodes_from(range(count))
    pairs = zip(labels[edges.indices].tolist(), labels[edges.row_of_edge].tolist(), strict=True)
    graph.add_edges_from((j, i) for j, i in pairs if i != j)
    order = nx.lexicographical_topological_sort(graph, key=lambda c: np.argmax(labels == c))
    return [np.flatnonzero(labels == component) for component in order]


@dataclass(frozen=True)
class Stability:
    """What the linearisation at an equilibrium says.

    multipliers : complex array, by falling modulus, component after component merged
    errors : how far rounding of J may have moved each
    token : for each multiplier, the first token of the strong component that it belongs to
    """

    multipliers: np.ndarray
    errors: np.ndarray
    token: np.ndarray

    @property
    def spectral_radius(self) -> float:
        return float(np.abs(self.multipliers).max(initial=0.0))

    @property
    def radius_error(self) -> float:
        """How far rounding may have moved the spectral radius."""
        if not len(self.multipliers):
            return 0.0
        sizes = np.abs(self.multipliers)
        low, high = (sizes - self.errors).max(), (sizes + self.errors).max()
        return float(max(high - self.spectral_radius, self.spectral_radius - low))

    @property
    def unstable_dimension(self) -> int:
        """How many multipliers lie outside the unit circle by more than their error."""
        return int(np.sum(np.abs(self.multipliers) - self.errors > 1))

    @property
    def marginal_dimension(self) -> int:
        """How many multipliers are not told apart from modulus 1."""
        return int(np.sum(np.abs(np.abs(self.multipliers) - 1) <= self.errors))

    @property
    def is_sure(self) -> bool:
        """True where every multiplier is told apart from modulus 1. Where one is not, a marginal
        equilibrium may be any of KINDS, and a saddle may be unstable."""
        return not self.marginal_dimension

    @property
    def kind(self) -> str:
        """One of KINDS."""
        if self.unstable_dimension:
            return "unstable" if self.unstable_dimension == len(self.multipliers) else "saddle"
        return "marginal" if self.marginal_dimension else "stable"


def stability(dynamics: AttentionDynamics, x: np.ndarray, blur: float = 0.0) -> Stability:
    """Multipliers at the equilibrium, or sign-flip state, x of shape (N, d).

    Where x' = -x the map -F has a fixed point; its multipliers are those of F with the other sign,
    and nothing here depends on the sign. `blur` says how far x may lie from the true equilibrium (a
    multiple root is found to half the digits or fewer); to first order it adds blur ||J|| times the
    condition number of a multiplier to its error.

    Raises ValueError for dropout, and for x that cannot be a state.

    >>> from dynsim.equilibria import hyperbolic_dynamics, hyperbolic_pair
    >>> linear = stability(hyperbolic_dynamics(0.5, 2.0), hyperbolic_pair(0.5, 2.0)[0])
    >>> linear.kind, linear.multipliers.real.round(6)
    ('stable', array([0.5     , 0.067976]))
    """
    x = real_array("tokens", x)
    J = tangent_jacobian(dynamics, x)
    width = len(J) // len(x)
    entries: list[tuple[complex, float, int]] = []
    for tokens in components_in_order(dynamics):
        rows = (tokens[:, None] * width + np.arange(width)).ravel()
        multipliers, errors = bounded_eigenvalues(J[np.ix_(rows, rows)], blur)
        entries += zip(multipliers, errors, [int(tokens[0])] * len(rows), strict=True)
    entries.sort(key=lambda entry: (-round(abs(entry[0]), 12), entry[2], entry[0].imag))
    columns = tuple(zip(*entries, strict=True)) or ((), (), ())
    return Stability(np.array(columns[0], complex), np.array(columns[1]), np.array(columns[2], int))


# --- transient growth ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Transient:
    """How much perturbations grow before they decay.

    growth : max_k ||J^k||_2 over k >= 0, infinite where no decay is seen
    power : the k at which it is reached
    kreiss : sup over |z| > 1 of (|z| - 1) ||(z - J)^-1||_2, from below: at most `growth`
    """

    growth: float
    power: int
    kreiss: float


def transient(dynamics: AttentionDynamics, x: np.ndarray) -> Transient:
    """Transient growth at the equilibrium x, (N, d): max_k ||J^k||_2. Infinite unless x is stable.

    It is at least 1, which is ||J^0||. Raises ValueError as `stability`.

    >>> from dynsim.equilibria import hyperbolic_dynamics, hyperbolic_pair
    >>> transient(hyperbolic_dynamics(0.5, 2.0), hyperbolic_pair(0.5, 2.0)[0]).growth >= 1
    True
    """
    if stability(dynamics, x).kind != "stable":
        return Transient(np.inf, 0, np.inf)
    return transient_of(tangent_jacobian(dynamics, x))


def transient_of(J: np.ndarray) -> Transient:
    """Transient growth of the powers of a matrix with spectral radius below 1.

    The Kreiss constant K bounds it, K <= max_k ||J^k|| <= e n K (Kreiss matrix theorem; see
    `dynsim.transient`). Infinite when 20,000 powers do not see the decay above their rounding.

    >>> round(transient_of(np.array([[0.5, 4.0], [0.0, 0.5]])).growth, 3)
    4.062
    """
    growth = transient_growth(J, _POWERS)
    if not growth.complete:
        return Transient(np.inf, _POWERS, np.inf)
    return Transient(growth.factor, growth.power, kreiss_constant(J))


# --- runs from perturbed states -----------------------------------------------------------------


def perturbed(
    dynamics: AttentionDynamics, x: np.ndarray, radius: float, samples: int, seed: int
) -> np.ndarray:
    """States at distance `radius` (Frobenius, along the tangent space) from x: (samples, N, d).

    On the spheres again where every layer ends with unit norm, and so a little nearer. Raises
    ValueError for less than one sample, and for x that cannot be a state.

    >>> from dynsim.equilibria import hyperbolic_dynamics, hyperbolic_pair
    >>> x = hyperbolic_pair(0.5, 2.0)[0]
    >>> moved = perturbed(hyperbolic_dynamics(0.5, 2.0), x, 1e-3, samples=5, seed=0)
    >>> np.linalg.norm(moved - x, axis=(1, 2)).round(6)
    array([0.001, 0.001, 0.001, 0.001, 0.001])
    """
    samples = whole("number of samples", samples, least=1)
    basis = tangent_basis(dynamics, x)
    rng = stream(seed, TOKENS, samples)
    direction = np.einsum("iap,sip->sia", basis, rng.standard_normal((samples, *basis.shape[::2])))
    moved = x + radius * direction / np.linalg.norm(direction, axis=(1, 2), keepdims=True)
    return dynamics.norm.apply(moved) if is_spherical(dynamics) else moved


def basin_radius(
    dynamics: AttentionDynamics,
    x: np.ndarray,
    *,
    samples: int = 64,
    depth: int | None = None,
    seed: int = 0,
    distance: Callable[[np.ndarray], np.ndarray] | None = None,
) -> float:
    """The largest radius on a grid, 10^(-8, -7.75, ..., 0.5), from which all samples return to x.

    Measured, not proved: from every smaller radius of the grid all returned as well. Returning
    means to end, after `depth` layers, closer to x than 1e-3 of the radius and than 1e-6; or, where
    rounding does not allow that, than ten times where x itself ends. 0 when they do not even return
    from 10^-8. A sign-flip state x' = -x is followed through its flips.

    Parameters
    ----------
    depth : int, optional
        As many layers as the spectral radius asks for, at most 20,000, when not given.
    distance : callable, optional
        States (samples, N, d) to their distances from what x stands for; to x itself, as it is
        after `depth` layers, when not given.

    Raises
    ------
    ValueError
        For x that cannot be a state.

    Examples
    --------
    >>> from dynsim.equilibria import hyperbolic_dynamics, hyperbolic_pair
    >>> basin_radius(hyperbolic_dynamics(0.5, 2.0), hyperbolic_pair(0.5, 2.0)[0]) > 0.1
    True
    """
    x = real_array("tokens", x)
    if depth is None:
        depth = layers_to_return(stability(dynamics, x).spectral_radius)
    if distance is None:
        sign = 1 if np.sum(dynamics.step(x) * x) > 0 else -1
        distance = _distance_to(sign**depth * x)
    radii = 10.0 ** np.arange(-8, 0.51, 0.25)
    starts = [perturbed(dynamics, x, r, samples, seed) for r in radii]
    own, *away = distance(_later(dynamics, np.concatenate([x[None], *starts]), depth))
    near = np.minimum(1e-6, np.maximum(1e-3 * radii, 10 * own))
    returned = np.all(np.reshape(away, (len(radii), samples)) < near[:, None], axis=1)
    reached = len(radii) if returned.all() else int(np.argmin(returned))
    return float(radii[reached - 1]) if reached else 0.0


def layers_to_return(spectral_radius: float) -> int:
    """Layers that shrink a distance 1e-9 times, and 100 for the way to where it shrinks so.

    >>> layers_to_return(0.5), layers_to_return(1.0)
    (130, 20000)
    """
    if spectral_radius >= 1:
        return _LONGEST
    return int(min(_LONGEST, 100 - 20.8 / np.log(max(spectral_radius, 1e-9))))


def _later(dynamics: AttentionDynamics, starts: np.ndarray, depth: int) -> np.ndarray:
    return simulate(dynamics, starts, depth, record=Record(measures=())).final


def _distance_to(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda states: np.linalg.norm(states - x, axis=(1, 2))


@dataclass(frozen=True)
class Approach:
    """How perturbed states come back to a marginal equilibrium.

    returning : share of the samples that come closer and closer
    exponent : their distance falls like t^-exponent (median), NaN when none returns
    """

    returning: float
    exponent: float


def approach(
    dynamics: AttentionDynamics,
    x: np.ndarray,
    *,
    radius: float = 1e-2,
    samples: int = 64,
    depth: int = 10_000,
    seed: int = 0,
) -> Approach:
    """Fit the algebraic convergence towards a marginal equilibrium x: (N, d).

    Each sample starts at `radius`; the exponent is -log(distance ratio) / log 4 between layers
    depth / 4 and depth, for the samples whose distance fell by a tenth at least between them.

    Raises ValueError for x that cannot be a state.

    >>> from dynsim.equilibria import jordan_dynamics, jordan_family
    >>> measured = approach(jordan_dynamics(2, 2.0), jordan_family(2, 2.0, rank=2)[1])
    >>> 0.2 < measured.returning < 0.8, round(measured.exponent, 1)
    (True, 1.0)
    """
    x = real_array("tokens", x)
    depth = whole("depth", depth, least=4)
    starts = perturbed(dynamics, x, radius, samples, seed)
    middle = _later(dynamics, starts, depth // 4)
    before = _distance_to(x)(middle)
    after = _distance_to(x)(_later(dynamics, middle, depth - depth // 4))
    back = (after < 0.9 * before) & (before < 10 * radius)
    if not back.any():
        return Approach(0.0, np.nan)
    slopes = np.log(before[back] / after[back]) / np.log(depth / (depth // 4))
    return Approach(float(back.mean()), float(np.median(slopes)))
