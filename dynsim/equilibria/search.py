"""Find the equilibria of a dynamics: fixed points x' = x and sign flips x' = -x, of every rank.

A mask that is not strongly connected is searched component by component: the tokens of a strong
component do not see later ones, so each equilibrium of the earlier tokens (a branch) is continued
by all solutions found for the next component. A causal mask thus needs N small searches, not one
large, and tokens that settle algebraically (double roots, where Newton's method is slow and
inaccurate) are found apart from the others.

Solutions that algebra gives come first: consensus on an eigenvector of the value matrices, and all
of a lone token whose equation is affine (`dynsim.equilibria.affine`). Then come starts: random
tokens, random tokens after some layers, and random ones with the solutions found so far deflated.

The starts come in rounds, each with its own random stream and ignorant of the others: what rounds
found can be kept, and a search that was interrupted goes on to the same result.

Where the layer commutes with rotations, equilibria come in circles or larger families; each
family is one, and rotating ones x' = x R are sought as well (`dynsim.equilibria.rotating`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice, product
from pathlib import Path

import networkx as nx
import numpy as np

from dynsim._seeds import TOKENS, stream
from dynsim._values import whole
from dynsim.equilibria.affine import solutions
from dynsim.equilibria.equation import ROUNDING, SAME, Equation, Hits, padded, restricted
from dynsim.equilibria.equilibrium import Equilibrium, Search
from dynsim.equilibria.newton import solve
from dynsim.equilibria.rotating import (
    RotatingEquilibrium,
    Rotations,
    find_rotating,
    quotient_jacobian,
)
from dynsim.equilibria.rounds import Memory, Round
from dynsim.equilibria.stability import (
    approach,
    basin_radius,
    check_equilibria_possible,
    components_in_order,
    layers_to_return,
    stability,
    transient_of,
)
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.jacobian import image
from dynsim.network.parts import unusual_parts

__all__ = ["find_equilibria", "symmetries"]

#: Starts of a round, for each branch and component.
_ROUND = 64
#: Automorphisms of the mask that are looked at, and branches that are followed, at most.
_PERMUTATIONS, _BRANCHES = 5040, 4096
#: Branches that are continued together.
_AT_ONCE = 32
#: Layers by which the forward starts are ahead of the random ones.
_FORWARD = 60


def find_equilibria(
    dynamics: AttentionDynamics,
    ranks: str | Iterable[int] = "all",
    *,
    dim: int | None = None,
    starts: int = 64,
    flips: bool = True,
    basin_samples: int = 16,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> Search:
    """Search for equilibria, sign flips and rotating equilibria from many starts.

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
    basin_samples : int
        Runs that measure the basin of each stable one, for each radius; 0 for none, and then no
        runs (64) that measure how many return to a marginal one either.
    folder : path, optional
        Keeps what each round of 64 starts found, in a file; rounds in that file are not repeated.
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
    basin_samples = whole("number of basin samples", basin_samples, least=0)
    d = _dimension(dynamics, dim)
    wanted = _ranks(ranks, min(dynamics.n_tokens, d))
    problem = _Problem(dynamics, d)
    memory = Memory(folder, dynamics, d, seed)
    progress = progress or (lambda share: None)
    sizes = [_ROUND] * (starts // _ROUND) + [starts % _ROUND] * (starts % _ROUND > 0)
    units = list(product(enumerate(sizes), (1, -1) if flips else (1,)))
    result = _Result(problem)
    for k, ((number, size), sign) in enumerate(units):
        name = f"{number}.{size}.{sign}"
        results = memory.get(name)
        if results is None:
            rng = stream(seed, TOKENS, number, (1 - sign) // 2)
            results = _Tree(problem, size, sign, rng).grown(
                lambda share, k=k: progress((k + share) / len(units))  # type: ignore[misc]
            )
            memory.put(name, results)
        result.add(sign, results)
    if problem.rotations:
        result.add_rotating(starts, find_rotating(dynamics, problem.rotations, d, starts, seed))
    return result.search(wanted, basin_samples)


def symmetries(dynamics: AttentionDynamics, d: int) -> tuple[np.ndarray, bool]:
    """Permutations of the tokens that commute with the layer, (count, N), and if x -> -x does.

    The permutations are the automorphisms of the mask, 5040 at most; with positions none but the
    identity is taken.

    >>> from dynsim.equilibria import complete_pair_dynamics
    >>> symmetries(complete_pair_dynamics(2.0, 2.0), 2)
    (array([[0, 1],
           [1, 0]]), True)
    """
    graph = nx.DiGraph(dynamics.mask)
    matcher = nx.isomorphism.DiGraphMatcher(graph, graph)
    automorphisms = islice(matcher.isomorphisms_iter(), _PERMUTATIONS)
    permutations = [[mapping[i] for i in range(dynamics.n_tokens)] for mapping in automorphisms]
    if "position" in unusual_parts(dynamics):
        permutations = [list(range(dynamics.n_tokens))]
    x = stream(0, TOKENS, d).standard_normal((dynamics.n_tokens, d))
    odd = np.allclose(image(dynamics, -x), -image(dynamics, x), rtol=0, atol=1e-12)
    return np.array(permutations), bool(odd)


def _dimension(dynamics: AttentionDynamics, dim: int | None) -> int:
    fixed = dynamics.weights.dim
    if dim is None and fixed is None:
        raise ValueError("these weights fit any dimension; say which, dim=D (--dim D)")
    if None not in (dim, fixed) and dim != fixed:
        raise ValueError(f"the weights are for dimension {fixed}; got dim={dim}; leave it out")
    return whole("dimension", fixed or dim, least=1)


def _ranks(ranks: str | Iterable[int], largest: int) -> set[int]:
    if isinstance(ranks, str) and ranks == "all":
        return set(range(largest + 1))
    wanted = {whole("rank", rank, least=1) for rank in ranks}
    if not wanted or max(wanted) > largest:
        raise ValueError(
            f"ranks lie in 1..{largest} = min(N, d); got {sorted(wanted)}; or say 'all'"
        )
    return wanted


class _Problem:
    """What all rounds of a search know of the dynamics."""

    def __init__(self, dynamics: AttentionDynamics, d: int):
        self.dynamics, self.d = dynamics, d
        self.components = components_in_order(dynamics)
        self.permutations, self.odd = symmetries(dynamics, d)
        self.rotations = Rotations(dynamics, d)
        W_V = dynamics.weights.layer(0, d).W_V.sum(axis=0)
        self.directions = solutions(W_V, np.zeros(d))

    def orbit(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the symmetries make of a state: (size, N, d), and its features (size, ...)."""
        images = x[self.permutations]
        if self.odd:
            images = np.concatenate([images, -images])
        features = self.rotations.features(images)
        distinct: list[int] = []
        for k, feature in enumerate(features):
            if _nearest(feature, features[distinct])[1] >= SAME:
                distinct.append(k)
        return images[distinct], features[distinct]


def _nearest(feature: np.ndarray, known: np.ndarray) -> tuple[int, float]:
    """Which row of `known` is nearest, and how far its entries are at most."""
    if not len(known):
        return -1, np.inf
    away = np.abs(known - feature).max(axis=1)
    return int(away.argmin()), float(away.min())


class _Tree:
    """One round of a search, for one sign."""

    def __init__(self, problem: _Problem, starts: int, sign: int, rng: np.random.Generator) -> None:
        self.problem, self.starts, self.sign, self.rng = problem, starts, sign, rng
        self.used = self.hits = self.dropped = 0

    def grown(self, progress: Callable[[float], None]) -> Round:
        """All branches, component by component, for x' = sign x."""
        d, components = self.problem.d, self.problem.components
        branches, found, blur, first = np.empty((1, 0, d)), [0], [0.0], [0]
        order = np.concatenate(components)
        for stage, tokens in enumerate(components):
            part = order[: branches.shape[1] + len(tokens)]
            layer = restricted(self.problem.dynamics, part)
            both = self.problem.odd and stage == 0
            before = blur, first
            grown, found, blur, first = [], [], [], []
            for k in range(0, len(branches), _AT_ONCE):
                some = branches[k : k + _AT_ONCE]
                for i, hits in enumerate(self._continued(layer, some, len(tokens), both), start=k):
                    grown += [np.concatenate([branches[i], new]) for new in hits.solutions]
                    found += hits.found
                    blur += [max(before[0][i], own) for own in hits.blur]
                    first += [max(before[1][i], own) for own in hits.first]
                progress((stage + min(1, (k + _AT_ONCE) / len(branches))) / len(components))
            self.dropped += max(0, len(grown) - _BRANCHES)
            branches = np.array(grown[:_BRANCHES]).reshape(-1, len(part), d)
        followed = slice(len(branches))
        return Round(
            branches[:, np.argsort(order)],
            np.array(found[followed], int),
            np.array(blur[followed], float),
            np.array(first[followed], int),
            np.array([self.used, self.hits, self.dropped]),
        )

    def _continued(
        self, layer: AttentionDynamics, branches: np.ndarray, n_new: int, both: bool
    ) -> list[Hits]:
        """Solutions for the next `n_new` tokens after each of some branches."""
        equations = [Equation(layer, branch[None], self.sign) for branch in branches]
        hits = [Hits(equation, both) for equation in equations]
        self._add_what_algebra_gives(layer, branches, n_new, hits)
        quarter = -(-self.starts // 4)
        together = Equation(layer, np.repeat(branches, quarter, axis=0), self.sign)
        for ahead, deflated in ((0, False), (_FORWARD, False), (0, True), (0, True)):
            x = self._random(len(branches) * quarter, n_new)
            x = together.ahead(x, ahead)
            if deflated:
                known = padded([mine.images() for mine in hits], x.shape[1:])
                known = np.repeat(known, quarter, axis=0)
                x = solve(together.system, x, together.retract, known)
            x = solve(together.system, x, together.retract)  # undisturbed by deflation
            for mine, ended in zip(hits, np.split(x, len(branches)), strict=True):
                self.used += quarter
                self.hits += mine.add(ended, first=self.used)
        return hits

    def _add_what_algebra_gives(
        self, layer: AttentionDynamics, branches: np.ndarray, n_new: int, hits: list[Hits]
    ) -> None:
        """As it comes where it is exact to rounding, else improved by Newton's method."""
        rough = []
        for mine in hits:
            candidates = self._by_algebra(mine.equation, n_new)
            mine.add(candidates, exact=True)
            rough.append(candidates[mine.equation.residual(candidates) > ROUNDING])
        counts = [len(candidates) for candidates in rough]
        together = Equation(layer, np.repeat(branches, counts, axis=0), self.sign)
        improved = solve(together.system, np.concatenate(rough), together.retract)
        for mine, ended in zip(hits, np.split(improved, np.cumsum(counts)[:-1]), strict=True):
            mine.add(ended)

    def _by_algebra(self, equation: Equation, n_new: int) -> np.ndarray:
        """Consensus on +-v for eigenvectors v of the value matrices; all that a lone token with an
        affine equation can be."""
        candidates = [np.repeat(self.problem.directions[:, None], n_new, axis=1)]
        if n_new == 1:
            candidates += [solutions(*affine)[:, None] for affine in equation.affine()]
        return np.concatenate(candidates)

    def _random(self, count: int, n_new: int) -> np.ndarray:
        x = self.rng.standard_normal((count, n_new, self.problem.d))
        return self.problem.dynamics.norm.apply(x)


@dataclass(eq=False)
class _Entry:
    """An equilibrium under way; turn (d, d) is 1 or -1 unless it rotates."""

    tokens: np.ndarray
    turn: np.ndarray
    found: int
    blur: float
    orbit: np.ndarray = field(init=False)  # when it is kept


class _Result:
    """What the rounds found, each equilibrium once: one of all that symmetries relate."""

    def __init__(self, problem: _Problem):
        self.problem = problem
        # by sign, 0 for those that rotate
        self.entries: dict[int, list[_Entry]] = {1: [], -1: [], 0: []}
        # of all states of all orbits, and the entries that these belong to
        self.features: dict[int, np.ndarray | None] = {1: None, -1: None, 0: None}
        self.owners: dict[int, list[_Entry]] = {1: [], -1: [], 0: []}
        self.used = self.hits = self.last_new = self.dropped = 0

    def add(self, sign: int, results: Round) -> None:
        turn = sign * np.eye(self.problem.d)
        leaves = zip(results.tokens, results.found, results.blur, results.first, strict=True)
        for x, count, blur, first in leaves:
            if self._take(sign, _Entry(x, turn, int(count), float(blur))):
                self.last_new = max(self.last_new, self.used + int(first))
        used, hits, dropped = map(int, results.counts)
        self.used, self.hits = self.used + used, self.hits + hits
        self.dropped = max(self.dropped, dropped)

    def add_rotating(self, starts: int, states: list[tuple[int, np.ndarray, np.ndarray]]) -> None:
        for start, x, turn in states:
            if self._take(0, _Entry(x, turn, 1, 0.0)):
                self.last_new = self.used + start + 1
        self.used, self.hits = self.used + starts, self.hits + len(states)

    def _take(self, sign: int, entry: _Entry) -> bool:
        """Keep an entry if it is new, else count it with the one it repeats; True if new."""
        known, owners = self.features[sign], self.owners[sign]
        if known is not None:
            k, away = _nearest(self.problem.rotations.features(entry.tokens), known)
            if away < max(SAME, entry.blur, owners[k].blur):
                owners[k].found += entry.found
                return False
        entry.orbit, features = self.problem.orbit(entry.tokens)
        self.features[sign] = features if known is None else np.concatenate([known, features])
        owners += [entry] * len(features)
        self.entries[sign].append(entry)
        return True

    def search(self, ranks: set[int], basin_samples: int) -> Search:
        out = [
            self._judged(sign, entry) for sign, entries in self.entries.items() for entry in entries
        ]
        seen_once = sum(e.found <= 1 for e in out)
        out = [self._measured(e, basin_samples) for e in out if e.rank in ranks]
        out.sort(key=lambda e: (e.type, e.rank, e.spectral_radius))
        return Search(
            tuple(out), self.used, self.hits, self.used - self.last_new,
            min(1.0, seen_once / self.hits) if self.hits else 1.0, self.dropped,
        )  # fmt: skip

    def _judged(self, sign: int, entry: _Entry) -> Equilibrium:
        dynamics, rotations = self.problem.dynamics, self.problem.rotations
        x, turn = entry.tokens, entry.turn
        residual = float(np.abs(dynamics.step(x) - x @ turn).max())
        if rotations:
            judged = rotations.stability(dynamics, x, turn, entry.blur)
        else:
            judged = stability(dynamics, x, entry.blur)
        made = Equilibrium if sign else RotatingEquilibrium
        return made(x, turn, residual, judged, entry.found, entry.orbit)

    def _measured(self, e: Equilibrium, samples: int) -> Equilibrium:
        """With transient growth, basin radius and approach, where there are such."""
        dynamics, rotations = self.problem.dynamics, self.problem.rotations
        if e.kind == "marginal":
            measured = samples and e.type == "fixed" and not rotations
            return replace(e, approach=approach(dynamics, e.tokens) if measured else None)
        if e.kind != "stable":
            return replace(e, basin_radius=0.0)
        J = quotient_jacobian(dynamics, e.tokens, e.turn, rotations.along(e.tokens))
        e = replace(e, transient=transient_of(J))
        if not samples:
            return e
        distance = None
        if rotations:
            at = rotations.features(e.tokens)

            def distance(states: np.ndarray) -> np.ndarray:
                return np.abs(rotations.features(states) - at).max(axis=1)

        radius = basin_radius(
            dynamics, e.tokens, samples=samples, depth=layers_to_return(e.spectral_radius),
            distance=distance,
        )  # fmt: skip
        return replace(e, basin_radius=radius)
