"""Rotating (relative) equilibria x' = x R: tokens that keep their shape while all of them turn.

If every rotation e^(tB), B skew, commutes with the layer, F(x e^(tB)) = F(x) e^(tB), then x' = x R
with R one of them gives the orbit x R^t: a fixed point of the dynamics modulo rotations (Golubitsky
and Stewart, The Symmetry Perspective, chapter 6; Chossat and Lauterbach, Methods in Equivariant
Bifurcations and Dynamical Systems, chapter 7). W_V = s R with a rotation R, and M that commutes
with R, have them. Without such a symmetry rotating limit sets exist, but no power of one R gives
them; `dynsim.basins` names those.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import linalg

from dynsim._memory import require_memory
from dynsim._seeds import TOKENS, stream
from dynsim._spectra import bounded_eigenvalues
from dynsim.equilibria.equation import SAME, TOLERANCE
from dynsim.equilibria.equilibrium import Equilibrium
from dynsim.equilibria.newton import solve
from dynsim.equilibria.stability import Stability
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.jacobian import image, is_spherical, linearise, tangent_basis

__all__ = [
    "RotatingEquilibrium",
    "Rotations",
    "check_rotations",
    "find_rotating",
    "quotient_jacobian",
]

#: Null vectors of the conditions of symmetry have singular values below this.
_NULL = 1e-10
#: Layers by which half of the starts are ahead of the random ones.
_FORWARD = 60


class RotatingEquilibrium(Equilibrium):
    """x' = x turn with a rotation that commutes with the layer and is not 1 or -1 on x."""

    @property
    def type(self) -> str:
        return "rotating"

    @cached_property
    def angles(self) -> list[float]:
        """The angles by which parts of the tokens turn in one layer, in (0, pi]."""
        triangular, Z = linalg.schur(self.turn, output="complex")
        involved = np.linalg.norm(self.tokens @ Z, axis=0) > SAME
        angles = np.abs(np.angle(np.diagonal(triangular)[involved]))
        return sorted({float(angle) for angle in angles.round(12) if angle > SAME})

    def to_dict(self) -> dict:
        return {**super().to_dict(), "angles": self.angles}


def check_rotations(d: int) -> None:
    """Raise MemoryError unless a basis of the rotations of d dimensions fits into memory, twice."""
    require_memory(8.0 * d**4, f"the rotations of {d} dimensions", "use fewer dimensions")


class Rotations:
    """The rotations of space that commute with a layer, a connected group.

    generators : (k, d, d), a basis of the skew B whose e^(tB) commute with the layer; k is 0 for
        most weights, 1 for a circle of rotations
    """

    def __init__(self, dynamics: AttentionDynamics, d: int):
        """From F(x e^(tB)) = F(x) e^(tB) to first order in t at random x, linear in B."""
        check_rotations(d)
        i, j = np.triu_indices(d, 1)
        basis = np.zeros((len(i), d, d))
        basis[np.arange(len(i)), i, j], basis[np.arange(len(i)), j, i] = 1.0, -1.0
        n = dynamics.n_tokens
        x = dynamics.norm.apply(stream(0, TOKENS, d).standard_normal((d // n + 2, n, d)))
        out, slope = linearise(dynamics, x)
        moved = np.einsum("siajb,sjc,kcb->ksia", slope, x, basis, optimize=True)
        turned = np.einsum("sic,kca->ksia", out, basis, optimize=True)
        self.generators = _null((moved - turned).reshape(len(basis), x.size).T, basis)

    def __bool__(self) -> bool:
        return len(self.generators) > 0

    @cached_property
    def _commuting(self) -> np.ndarray:
        """A basis of the matrices that commute with all of the rotations: (c, d, d)."""
        d = self.generators.shape[1]
        basis = np.eye(d * d).reshape(-1, d, d)
        bracket = basis[:, None] @ self.generators - self.generators @ basis[:, None]
        return _null(bracket.reshape(len(basis), -1).T, basis)

    def features(self, x: np.ndarray) -> np.ndarray:
        """Numbers that tell states (..., N, d) apart, but not those that rotations relate.

        x S x^T for all S that commute with the rotations; x itself where there are none.
        """
        if not self:
            return x.reshape(*x.shape[:-2], -1)
        products = np.einsum("...ia,cab,...jb->...cij", x, self._commuting, x, optimize=True)
        return products.reshape(*x.shape[:-2], -1)

    def along(self, x: np.ndarray) -> np.ndarray:
        """The directions x B in which rotations move states (..., N, d): (..., k, N, d)."""
        return x[..., None, :, :] @ self.generators

    def turn(self, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """R = exp(sum_j c_j B_j) and its derivatives, of c (S, k): (S, d, d) and (S, k, d, d).

        exp [[B, E], [0, B]] = [[e^B, L], [0, e^B]] with L the derivative in the direction E
        (Higham, Functions of Matrices, theorem 3.6).
        """
        k, d, _ = self.generators.shape
        block = np.zeros((len(c), k, 2 * d, 2 * d))
        B = np.einsum("sk,kab->sab", c, self.generators)[:, None]
        block[..., :d, :d] = block[..., d:, d:] = B
        block[..., :d, d:] = self.generators
        block = linalg.expm(block)
        return block[:, 0, :d, :d], block[..., :d, d:]

    def stability(
        self, dynamics: AttentionDynamics, x: np.ndarray, turn: np.ndarray, blur: float = 0.0
    ) -> Stability:
        """Multipliers at x' = x turn, (N, d), but for those along the family that rotations make.

        They are those of x -> F(x) turn^-1 on the quotient by the rotations; `blur` as in
        `dynsim.equilibria.stability`.
        """
        J = quotient_jacobian(dynamics, x, turn, self.along(x))
        values, errors = bounded_eigenvalues(J, blur)
        order = np.argsort(-np.abs(values), kind="stable")
        return Stability(values[order], errors[order], np.zeros(len(values), int))


def _null(conditions: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """The combinations of a basis that satisfy linear conditions, (many, len(basis))."""
    if not len(basis):
        return basis
    _, sizes, rows = np.linalg.svd(conditions, full_matrices=False)
    return np.einsum("kb,b...->k...", rows[np.sum(sizes > _NULL) :], basis)


def quotient_jacobian(
    dynamics: AttentionDynamics, x: np.ndarray, turn: np.ndarray, along: np.ndarray
) -> np.ndarray:
    """The derivative of x -> F(x) turn^-1 at its fixed point x, across the directions `along`.

    On the tangent space, less the part that `along`, (k, N, d), spans: that part is mapped into
    itself, so the eigenvalues across it are the others.
    """
    basis = tangent_basis(dynamics, x)
    slope = linearise(dynamics, x)[1]
    J = np.einsum("icp,iajb,ca,jbq->ipjq", basis, slope, turn, basis, optimize=True)
    J = J.reshape(basis.shape[0] * basis.shape[2], -1)
    spanned = np.einsum("iap,kia->ipk", basis, along).reshape(len(J), -1)
    left, sizes, _ = np.linalg.svd(spanned)
    across = left[:, np.sum(sizes > SAME) :]
    return across.T @ J @ across


def find_rotating(
    dynamics: AttentionDynamics, rotations: Rotations, d: int, starts: int, seed: int
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Starts that converged: [(number, x, R)] with x' = x R, which is neither x nor -x.

    Newton's method for x' = x exp(sum_j c_j B_j) in x and c at once. The phase conditions
    <x, x_0 B_j> = 0 choose one of all the x that rotations relate, x_0 being the start.
    """
    n, k = dynamics.n_tokens, len(rotations.generators)
    rng = stream(seed, TOKENS, 0, 2)
    x = dynamics.norm.apply(rng.standard_normal((starts, n, d)))
    for _ in range(_FORWARD):
        x[::2] = image(dynamics, x[::2])
    phases = rotations.along(x).reshape(starts, k, n * d)
    angles = rng.uniform(-np.pi, np.pi, (starts, k))

    def split(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return z[:, : n * d].reshape(-1, n, d), z[:, n * d :]

    def system(z: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, c = split(z)
        turn, turned = rotations.turn(c)
        out, slope = linearise(dynamics, x)
        r = (out - x @ turn).reshape(len(z), -1)
        i = np.arange(n)
        slope[:, i, :, i, :] -= turn.swapaxes(1, 2)
        by_angle = -(x[:, None] @ turned).reshape(len(z), k, -1).swapaxes(1, 2)
        phase = phases[which]
        K = np.block(
            [[slope.reshape(len(z), n * d, -1), by_angle], [phase, np.zeros((len(z), k, k))]]
        )
        return np.concatenate([r, np.einsum("skm,sm->sk", phase, z[:, : n * d])], axis=1), K

    def retract(z: np.ndarray) -> np.ndarray:
        if not is_spherical(dynamics):
            return z
        x, c = split(z)
        return np.concatenate([dynamics.norm.apply(x).reshape(len(z), -1), c], axis=1)

    ended = solve(system, np.concatenate([x.reshape(starts, -1), angles], axis=1), retract)
    x, c = split(ended)
    turn, _ = rotations.turn(c)
    off = np.abs(image(dynamics, x) - x @ turn).max(axis=(1, 2))
    turns = [np.abs(x @ turn - sign * x).max(axis=(1, 2)) > SAME for sign in (1, -1)]
    rotates = (off <= TOLERANCE) & turns[0] & turns[1]
    return [(int(k), x[k], turn[k]) for k in np.flatnonzero(rotates)]
