"""Find the equilibria of a dynamics: fixed points x' = x and sign flips x' = -x, of every rank.

A mask that is not strongly connected is searched component by component: the tokens of a strong
component do not see later ones, so each equilibrium of the earlier tokens (a branch) is continued
by all solutions found for the next component. A causal mask thus needs N small searches, not one
large, and tokens that settle algebraically (double roots, where Newton's method is slow and
inaccurate) are found apart from the others.

Solutions that algebra gives come first: consensus on an eigenvector of the value matrices, and all
of a lone token whose equation is affine (`dynsim.equilibria.affine`). Then come starts: random
tokens, random tokens after some layers, and random ones with the solutions found so far deflated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import networkx as nx
import numpy as np

from dynsim import masks
from dynsim.dynamics import AttentionDynamics
from dynsim.equilibria.affine import solutions
from dynsim.equilibria.newton import solve
from dynsim.equilibria.stability import (
    Stability,
    check_equilibria_possible,
    components_in_order,
    stability,
)
from dynsim.jacobian import image, is_spherical, linearise
from dynsim.measures import singular_values
from dynsim.norms import NoNorm
from dynsim.seeds import TOKENS, stream
from dynsim.values import whole

__all__ = ["Equilibrium", "Search", "find_equilibria", "symmetries"]

#: A state is an equilibrium when no entry of x' moves by more than this.
TOLERANCE, _ROUNDING = 1e-12, 1e-14
#: Singular values count towards the rank above this share of the largest.
RANK_TOLERANCE = 1e-6
#: Hits closer than the first are one solution; multiple roots blur them, up to the second.
_SAME, _NEAR = 1e-6, 0.05
#: Automorphisms of the mask that are looked at, and branches that are followed, at most.
_PERMUTATIONS, _BRANCHES = 5040, 4096
#: Branches that are continued together.
_AT_ONCE = 32
#: Layers by which the forward starts are ahead of the random ones.
_FORWARD = 60


@dataclass(frozen=True, eq=False)
class Equilibrium:
    """One solution, representing its orbit under the symmetries of the dynamics.

    tokens : (N, d)
    sign : 1 for a fixed point, -1 for x' = -x
    residual : largest entry of |x' - sign x|
    stability : `dynsim.equilibria.stability.Stability`
    found : how many starts ended at this solution or one related by symmetry
    orbit : (size, N, d), all that symmetries (sign, automorphisms of the mask) make of it
    """

    tokens: np.ndarray
    sign: int
    residual: float
    stability: Stability
    found: int
    orbit: np.ndarray

    @cached_property
    def singular_values(self) -> np.ndarray:
        return singular_values(self.tokens)

    @property
    def rank(self) -> int:
        return int(np.sum(self.singular_values > RANK_TOLERANCE * self.singular_values[0]))

    @property
    def gap(self) -> float:
        """The smallest singular value that counts over the largest that does not."""
        counted, rest = np.split(self.singular_values, [self.rank])
        return float(counted[-1] / rest[0]) if len(rest) and rest[0] else np.inf

    @property
    def type(self) -> str:
        return "fixed" if self.sign > 0 else "sign flip"

    @property
    def kind(self) -> str:
        return self.stability.kind

    @property
    def spectral_radius(self) -> float:
        return self.stability.spectral_radius

    def to_dict(self) -> dict:
        """JSON-ready."""
        multipliers = self.stability.multipliers
        return {
            "type": self.type,
            "rank": self.rank,
            "residual": self.residual,
            "stability": self.kind,
            "spectral_radius": self.spectral_radius,
            "unstable_dimension": self.stability.unstable_dimension,
            "marginal_dimension": self.stability.marginal_dimension,
            "multipliers": [[float(z.real), float(z.imag)] for z in multipliers],
            "multiplier_errors": self.stability.errors.tolist(),
            "singular_values": self.singular_values.tolist(),
            "gap": self.gap if np.isfinite(self.gap) else None,
            "found": self.found,
            "orbit": len(self.orbit),
            "tokens": self.tokens.tolist(),
        }


@dataclass(frozen=True)
class Search:
    """What a search found, and how far one may trust that it found all.

    starts, converged : how many there were, and how many ended at a solution
    since_new : the last so many starts found nothing new
    unseen : Good and Turing's estimate of the chance that another start finds something new:
        solutions that no more than one start met / starts converged
    dropped : branches that were not followed because there were too many
    """

    equilibria: tuple[Equilibrium, ...]
    starts: int
    converged: int
    since_new: int
    unseen: float
    dropped: int

    def table(self) -> list[dict]:
        """One row a rank: orbits counted whole, {"rank", "found", and each of KINDS}."""
        rows = {}
        for e in self.equilibria:
            row = rows.setdefault(
                e.rank, {"rank": e.rank, "found": 0, "stable": 0, "marginal": 0, "saddle": 0,
                         "unstable": 0},
            )  # fmt: skip
            row["found"] += len(e.orbit)
            row[e.kind] += len(e.orbit)
        return [rows[rank] for rank in sorted(rows)]


def find_equilibria(
    dynamics: AttentionDynamics,
    ranks: str | Iterable[int] = "all",
    *,
    dim: int | None = None,
    starts: int = 64,
    flips: bool = True,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Search:
    """Search for equilibria and sign flips from many starts.

    Parameters
    ----------
    ranks : "all" or numbers
        Ranks to keep.
    dim : int, optional
        Dimension of tokens, where the weights leave it open.
    starts : int
        For each branch and strong component of the mask; half of them after deflation.
    flips : bool
        Look for x' = -x, too.
    progress : callable, optional
        Called with the share done, 0 to 1.

    Raises
    ------
    ValueError
        When the layers differ, do not end in a norm, or a rank is impossible.

    Examples
    --------
    >>> from dynsim.equilibria import find_equilibria, jordan_dynamics
    >>> search = find_equilibria(jordan_dynamics(2, 2.0), flips=False)
    >>> [(row["rank"], row["found"]) for row in search.table()]
    [(1, 2), (2, 4)]
    """
    check_equilibria_possible(dynamics)
    starts = whole("number of starts", starts, least=2)
    d = _dimension(dynamics, dim)
    wanted = _ranks(ranks, min(dynamics.n_tokens, d))
    tree = _Tree(dynamics, d, starts, seed, progress or (lambda share: None))
    signs = (1, -1) if flips else (1,)
    for k, sign in enumerate(signs):
        tree.grow(sign, k / len(signs), 1 / len(signs))
    return tree.result(wanted)


def symmetries(dynamics: AttentionDynamics, d: int) -> tuple[np.ndarray, bool]:
    """Permutations of the tokens that commute with the layer, (count, N), and if x -> -x does.

    The permutations are the automorphisms of the mask, 5040 at most.
    """
    graph = nx.DiGraph(dynamics.mask)
    matcher = nx.isomorphism.DiGraphMatcher(graph, graph)
    found = islice(matcher.isomorphisms_iter(), _PERMUTATIONS)
    permutations = [[mapping[i] for i in range(dynamics.n_tokens)] for mapping in found]
    x = stream(0, TOKENS, d).standard_normal((dynamics.n_tokens, d))
    odd = np.allclose(image(dynamics, -x), -image(dynamics, x), rtol=0, atol=1e-12)
    return np.array(permutations), bool(odd)


def _dimension(dynamics, dim) -> int:
    fixed = dynamics.weights.dim
    if dim is None and fixed is None:
        raise ValueError("these weights fit any dimension; say which, dim=D (--dim D)")
    if None not in (dim, fixed) and dim != fixed:
        raise ValueError(f"the weights are for dimension {fixed}; got dim={dim}; leave it out")
    return whole("dimension", fixed or dim, least=1)


def _ranks(ranks, largest: int) -> set[int]:
    if isinstance(ranks, str) and ranks == "all":
        return set(range(largest + 1))
    wanted = {whole("rank", rank, least=1) for rank in ranks}
    if not wanted or max(wanted) > largest:
        raise ValueError(
            f"ranks lie in 1..{largest} = min(N, d); got {sorted(wanted)}; or say 'all'"
        )
    return wanted


class _Tree:
    """A search under way."""

    def __init__(self, dynamics, d, starts, seed, progress):
        self.dynamics, self.d, self.starts, self.progress = dynamics, d, starts, progress
        self.rng = stream(seed, TOKENS, 0)
        self.components = components_in_order(dynamics)
        self.permutations, self.odd = symmetries(dynamics, d)
        W_V = dynamics.weights.layer(0, d).W_V.sum(axis=0)
        self.directions = solutions(W_V, np.zeros(d))
        self.leaves = []  # (sign, tokens, found, blur)
        self.used = self.hits = self.last_new = self.dropped = 0

    def grow(self, sign: int, begun: float, share: float) -> None:
        """All branches, component by component, for x' = sign x."""
        branches, found, blur = np.empty((1, 0, self.d)), [0], [0.0]
        order = np.concatenate(self.components)
        for stage, tokens in enumerate(self.components):
            part = order[: branches.shape[1] + len(tokens)]
            layer = _restricted(self.dynamics, part)
            both = self.odd and stage == 0
            grown, found, blur, before = [], [], [], blur
            for k in range(0, len(branches), _AT_ONCE):
                some = branches[k : k + _AT_ONCE]
                continued = self._continued(layer, some, len(tokens), sign, both)
                for i, hits in enumerate(continued):
                    grown += [np.concatenate([some[i], new]) for new in hits.solutions]
                    found += hits.found
                    blur += [max(before[k + i], own) for own in hits.blur]
                done = (stage + min(1, (k + _AT_ONCE) / len(branches))) / len(self.components)
                self.progress(begun + share * done)
            self.dropped += max(0, len(grown) - _BRANCHES)
            branches = np.array(grown[:_BRANCHES]).reshape(-1, len(part), self.d)
        places = np.argsort(order)
        for x, count, own in zip(branches, found, blur, strict=False):  # as many as were followed
            self.leaves.append((sign, x[places], count, own))

    def _continued(self, layer, branches, n_new, sign, both) -> list[_Hits]:
        """Solutions for the next `n_new` tokens after each of some branches."""
        equations = [_Equation(layer, branch[None], sign) for branch in branches]
        hits = [_Hits(equation, both) for equation in equations]
        self._add_what_algebra_gives(layer, branches, n_new, hits)
        quarter = -(-self.starts // 4)
        together = _Equation(layer, np.repeat(branches, quarter, axis=0), sign)
        for ahead, deflated in ((0, False), (_FORWARD, False), (0, True), (0, True)):
            x = self._random(len(branches) * quarter, n_new)
            x = together.ahead(x, ahead)
            if deflated:
                known = _padded([mine.images() for mine in hits], x.shape[1:])
                known = np.repeat(known, quarter, axis=0)
                x = solve(together.system, x, together.retract, known)
            x = solve(together.system, x, together.retract)  # undisturbed by deflation
            for mine, ended in zip(hits, np.split(x, len(branches)), strict=True):
                self.used += quarter
                converged, new = mine.add(ended)
                self.hits += converged
                if new:
                    self.last_new = self.used
        return hits

    def _add_what_algebra_gives(self, layer, branches, n_new, hits) -> None:
        """As it comes where it is exact to rounding, else improved by Newton's method."""
        rough = []
        for mine in hits:
            candidates = self._by_algebra(mine.equation, n_new)
            mine.add(candidates, exact=True)
            rough.append(candidates[mine.equation.residual(candidates) > _ROUNDING])
        counts = [len(candidates) for candidates in rough]
        together = _Equation(layer, np.repeat(branches, counts, axis=0), hits[0].equation.sign)
        improved = solve(together.system, np.concatenate(rough), together.retract)
        for mine, ended in zip(hits, np.split(improved, np.cumsum(counts)[:-1]), strict=True):
            mine.add(ended, counted=False)

    def _by_algebra(self, equation, n_new):
        """Consensus on +-v for eigenvectors v of the value matrices; all that a lone token with an
        affine equation can be."""
        candidates = [np.repeat(self.directions[:, None], n_new, axis=1)]
        if n_new == 1:
            candidates += [solutions(*affine)[:, None] for affine in equation.affine()]
        return np.concatenate(candidates)

    def _random(self, count, n_new):
        return self.dynamics.norm.apply(self.rng.standard_normal((count, n_new, self.d)))

    def result(self, ranks: set[int]) -> Search:
        """Leaves that symmetries relate are one equilibrium."""
        kept = []
        for sign, x, found, blur in self.leaves:
            for entry in kept:
                if entry[0] == sign and _distance_to_orbit(x, entry[4]) < _SAME:
                    entry[2] += found
                    break
            else:
                kept.append([sign, x, found, blur, self._orbit(x)])
        out = []
        for sign, x, found, blur, orbit in kept:
            residual = float(np.abs(self.dynamics.step(x) - sign * x).max())
            judged = stability(self.dynamics, x, blur)
            out.append(Equilibrium(x, sign, residual, judged, found, orbit))
        seen_once = sum(e.found <= 1 for e in out)
        out = [e for e in out if e.rank in ranks]
        out.sort(key=lambda e: (-e.sign, e.rank, e.spectral_radius))
        return Search(
            tuple(out), self.used, self.hits, self.used - self.last_new,
            min(1.0, seen_once / self.hits) if self.hits else 1.0, self.dropped,
        )  # fmt: skip

    def _orbit(self, x: np.ndarray) -> np.ndarray:
        images = x[self.permutations]
        if self.odd:
            images = np.concatenate([images, -images])
        distinct = []
        for image_ in images:
            if _distance_to_orbit(image_, np.array(distinct)) >= _SAME:
                distinct.append(image_)
        return np.array(distinct)


def _distance_to_orbit(x, orbit) -> float:
    return np.abs(orbit - x).max(axis=(1, 2)).min() if len(orbit) else np.inf


class _Equation:
    """x' = sign x for some tokens with those before them held: x is (count, tokens, d).

    held : (count, tokens before, d), or (1, ...) for the same before all
    """

    def __init__(self, layer: AttentionDynamics, held: np.ndarray, sign: int):
        self.layer, self.held, self.sign = layer, held, sign
        self.retract = layer.norm.apply if is_spherical(layer) else (lambda x: x)

    def _whole(self, x, which=None):
        held = self.held if which is None or len(self.held) == 1 else self.held[which]
        held = np.broadcast_to(held, (len(x), *held.shape[1:]))
        return np.concatenate([held, x], axis=1)

    def image(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return image(self.layer, self._whole(x))[:, self.held.shape[1] :]

    def system(self, x: np.ndarray, which=None):
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

    def affine(self):
        """[(B, c)] if a lone token enters its output before the norm as x B + c, else []."""
        d = self.held.shape[2]
        if self.layer.placement != "post" or self.layer.mlp.active or not is_spherical(self.layer):
            return []
        plain = replace(self.layer, norm=NoNorm())
        probes = np.eye(2, d)[:, None]
        out, slope = linearise(plain, self._whole(probes))
        B = slope[:, -1, :, -1].swapaxes(1, 2)
        if not np.allclose(*B, rtol=0, atol=1e-15):
            return []
        return [(B[0], out[0, -1] - probes[0, 0] @ B[0])]


class _Hits:
    """Solutions of an equation, each once."""

    def __init__(self, equation: _Equation, both: bool):
        self.equation, self.both = equation, both
        self.solutions, self.found, self.blur = [], [], []

    def images(self) -> np.ndarray:
        """All solutions, with -x where that is the same as x."""
        known = np.array(self.solutions)
        return np.concatenate([known, -known]) if self.both and len(known) else known

    def add(self, states, exact: bool = False, counted: bool = True) -> tuple[int, int]:
        """Take what solves among the states: how many do, and how many are new.

        Exact ones (which solve to rounding) are not blurred by multiple roots, and not counted.
        """
        before = len(self.solutions)
        solved = states[self.equation.residual(states) <= (_ROUNDING if exact else TOLERANCE)]
        blurs = np.zeros(len(solved)) if exact else self._blur(solved)
        for x, blur in zip(solved, blurs, strict=True):
            k = self._known(x, max(blur, _SAME))
            if k is None:
                k = len(self.solutions)
                self.solutions.append(x)
                self.found.append(0)
                self.blur.append(float(blur))
            self.found[k] += counted and not exact
        return len(solved), len(self.solutions) - before

    def _known(self, x, tolerance: float) -> int | None:
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


def _padded(groups: list[np.ndarray], shape: tuple) -> np.ndarray:
    """Groups of states as one array (groups, most, *shape), filled up with infinity."""
    out = np.full((len(groups), max([1, *map(len, groups)]), *shape), np.inf)
    for row, group in zip(out, groups, strict=True):
        row[: len(group)] = group.reshape(-1, *shape)
    return out


def _restricted(dynamics: AttentionDynamics, tokens: np.ndarray) -> AttentionDynamics:
    """The same layer on some tokens, which attend to none of the others."""
    if len(tokens) == dynamics.n_tokens and np.array_equal(tokens, np.arange(len(tokens))):
        return dynamics
    allowed = dynamics.allowed()[np.ix_(tokens, tokens)]
    return replace(dynamics, mask=masks.from_adjacency(allowed.T))
