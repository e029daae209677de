"""The equation x' = sign x of some tokens with those before them held, and the solutions met."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dynsim import masks
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.jacobian import image, is_spherical, linearise
from dynsim.network.norms import NoNorm
from dynsim.network.parts import AROUND, ATTENTION_PARTS, check_plain

__all__ = ["ROUNDING", "SAME", "TOLERANCE", "Equation", "Hits", "padded", "restricted"]

#: A state is an equilibrium when no entry of x' moves by more than this; exactly, by the second.
TOLERANCE, ROUNDING = 1e-12, 1e-14
#: Hits closer than the first are one solution; multiple roots blur them, up to the second.
SAME, _NEAR = 1e-6, 0.05


class Equation:
    """x' = sign x for some tokens with those before them held: x is (count, tokens, d).

    held : (count, tokens before, d), or (1, ...) for the same before all
    """

    def __init__(self, layer: AttentionDynamics, held: np.ndarray, sign: int):
        self.layer, self.held, self.sign = layer, held, sign
        self.retract = layer.norm.apply if is_spherical(layer) else (lambda x: x)

    def _whole(self, x: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        held = self.held if which is None or len(self.held) == 1 else self.held[which]
        held = np.broadcast_to(held, (len(x), *held.shape[1:]))
        return np.concatenate([held, x], axis=1)

    def image(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return image(self.layer, self._whole(x))[:, self.held.shape[1] :]

    def system(
        self, x: np.ndarray, which: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(x' - sign x, its derivative), flat, for the rows `which` of those held."""
        before = self.held.shape[1]
        out, slope = linearise(self.layer, self._whole(x, which))
        r = (out[:, before:] - self.sign * x).reshape(len(x), -1)
        slope = slope[:, before:, :, before:].reshape(len(x), *r.shape[1:], -1)
        return r, slope - self.sign * np.eye(r.shape[1])

    def residual(self, x: np.ndarray) -> np.ndarray:
        """The largest entry of |x' - sign x|, infinite where x' is not finite."""
        off = np.abs(self.image(x) - self.sign * x).max(axis=(1, 2))
        return np.nan_to_num(off, nan=np.inf)

    def ahead(self, x: np.ndarray, layers: int) -> np.ndarray:
        """The tokens some layers later; as they were where that is not finite."""
        later = x
        for _ in range(layers):
            later = self.image(later)
        return np.where(np.isfinite(later).all(axis=(1, 2), keepdims=True), later, x)

    def affine(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """[(B, c)] if a lone token enters its output before the norm as x B + c, else []."""
        d = self.held.shape[2]
        if self.layer.placement != "post" or self.layer.mlp.active or not is_spherical(self.layer):
            return []
        plain = replace(self.layer, norm=NoNorm())
        probes = np.eye(2, d)[:, None]
        out, slope = linearise(plain, self._whole(probes))
        B = slope[:, -1, :, -1].swapaxes(1, 2)
        if not np.allclose(B[0], B[1], rtol=0, atol=1e-15):
            return []
        return [(B[0], out[0, -1] - probes[0, 0] @ B[0])]


class Hits:
    """Solutions of an equation, each once."""

    def __init__(self, equation: Equation, both: bool):
        self.equation, self.both = equation, both
        self.solutions: list[np.ndarray] = []
        self.found: list[int] = []
        self.blur: list[float] = []
        self.first: list[int] = []

    def images(self) -> np.ndarray:
        """All solutions, with -x where that is the same as x."""
        known = np.array(self.solutions)
        return np.concatenate([known, -known]) if self.both and len(known) else known

    def add(self, states: np.ndarray, exact: bool = False, first: int = 0) -> int:
        """Take what solves among the states; how many do.

        first : how many starts had been used when these ended; 0 for what algebra gave, which is
            not counted
        exact : solutions to rounding only, which multiple roots do not blur
        """
        solved = states[self.equation.residual(states) <= (ROUNDING if exact else TOLERANCE)]
        blurs = np.zeros(len(solved)) if exact else self._blur(solved)
        for x, blur in zip(solved, blurs, strict=True):
            k = self._known(x, max(blur, SAME))
            if k is None:
                k = len(self.solutions)
                self.solutions.append(x)
                self.found.append(0)
                self.blur.append(float(blur))
                self.first.append(first)
            self.found[k] += first > 0
        return len(solved)

    def _known(self, x: np.ndarray, tolerance: float) -> int | None:
        if not self.solutions:
            return None
        known = np.array(self.solutions)
        for y in (x, -x) if self.both else (x,):
            distance = np.linalg.norm(known - y, axis=(1, 2))
            if distance.min() < tolerance:
                return int(distance.argmin())
        return None

    def _blur(self, x: np.ndarray) -> np.ndarray:
        """How far each hit may lie from the solution that it stands for.

        Near a root of multiplicity m the Newton step |r| / sigma_min(K) is 1/m of the way to it,
        so the step times a generous m tells; it is large where the root is multiple.
        """
        if not len(x):
            return np.empty(0)
        r, K = self.equation.system(x)
        smallest = np.linalg.svd(K, compute_uv=False)[:, -1]
        size = np.maximum(np.linalg.norm(r, axis=1), 1e-15)
        return np.minimum(10 * r.shape[1] * size / np.maximum(smallest, 1e-300), _NEAR)


def padded(groups: list[np.ndarray], shape: tuple) -> np.ndarray:
    """Groups of states as one array (groups, most, *shape), filled up with infinity."""
    out = np.full((len(groups), max([1, *map(len, groups)]), *shape), np.inf)
    for row, group in zip(out, groups, strict=True):
        row[: len(group)] = group.reshape(-1, *shape)
    return out


def restricted(dynamics: AttentionDynamics, tokens: np.ndarray) -> AttentionDynamics:
    """The same layer on some tokens, which attend to none of the others.

    Raises ValueError with positions, unless the tokens are neighbours: others would move.
    """
    if len(tokens) == dynamics.n_tokens and np.array_equal(tokens, np.arange(len(tokens))):
        return dynamics
    if np.any(np.diff(tokens) != 1):
        parts = [name for name in (*ATTENTION_PARTS, *AROUND) if name != "position"]
        check_plain(dynamics, "some tokens without those between them", parts)
    allowed = dynamics.allowed()[np.ix_(tokens, tokens)]
    return replace(dynamics, mask=masks.from_array(allowed))
