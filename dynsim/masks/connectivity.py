"""Facts of a mask graph: center nodes, radius, diameter, connectivity, the uniform walk, lambda_2.

Definitions follow WU, arXiv 2405.18781, section 3 and Definition 5. Everything works on layouts
(ranges or compressed rows); nothing here makes an N x N array for a sparse mask.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from dynsim.masks.layout import (
    CSR,
    Layout,
    Ranges,
    is_circulant,
    is_interval_mask,
    strong_components,
)
from dynsim.masks.networkx_view import compile_layout
from dynsim.masks.walk import SecondEigenvalue, lambda_2, uniform_walk

if TYPE_CHECKING:
    from dynsim.kernels.library import Kernel

__all__ = [
    "MaskFacts",
    "SecondEigenvalue",
    "center_nodes",
    "diameter",
    "eccentricities",
    "facts",
    "is_quasi_strongly_connected",
    "is_strongly_connected",
    "lambda_2",
    "radius",
    "uniform_walk",
]

#: Edge visits that `facts` may spend on eccentricities before it reports bounds instead.
SEARCH_BUDGET = 1_000_000_000

# --- center nodes ---------------------------------------------------------------------------------


def _source_components(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the components that attend to nothing outside themselves."""
    labels, count = strong_components(layout)
    if isinstance(layout, Ranges) and is_interval_mask(layout):
        # components are runs: looking at both ends is enough
        leaves = (labels[layout.lo] != labels) | (labels[layout.hi - 1] != labels)
    else:
        rows = layout.to_rows()
        leaves = rows.row_of_edge[labels[rows.row_of_edge] != labels[rows.indices]]
    is_source = np.ones(count, bool)
    is_source[labels[leaves]] = False
    return labels, np.flatnonzero(is_source)


def center_nodes(graph: nx.DiGraph) -> np.ndarray:
    """Tokens from which every token can be reached along the arrows; empty when there is none.

    >>> from dynsim import masks
    >>> center_nodes(masks.causal(4))
    array([0])
    """
    return _center_nodes(*_source_components(compile_layout(graph)))


def _center_nodes(labels: np.ndarray, sources: np.ndarray) -> np.ndarray:
    return np.flatnonzero(labels == sources[0]) if len(sources) == 1 else np.array([], np.int64)


def is_quasi_strongly_connected(graph: nx.DiGraph) -> bool:
    """True when the graph has a center node.

    WU, arXiv 2405.18781, Definition 4: without one, tokens collapse in several groups.

    >>> from dynsim import masks
    >>> is_quasi_strongly_connected(masks.causal(4)), is_quasi_strongly_connected(masks.dilated(4))
    (True, False)
    """
    return len(_source_components(compile_layout(graph))[1]) == 1


def is_strongly_connected(graph: nx.DiGraph) -> bool:
    """True when every token reaches every token along the arrows.

    >>> from dynsim import masks
    >>> is_strongly_connected(masks.local(4)), is_strongly_connected(masks.causal(4))
    (True, False)
    """
    return strong_components(compile_layout(graph))[1] == 1


# --- eccentricities -----------------------------------------------------------------------------


def _interval_eccentricities(layout: Ranges) -> np.ndarray:
    """Exact for interval masks: count the leaps from each token to both ends. inf if blocked."""
    n = layout.n_tokens
    tokens = np.arange(n)
    rightmost = np.searchsorted(layout.lo, tokens, "right") - 1  # one arrow to the right of each
    leftmost = np.searchsorted(layout.hi, tokens, "right")
    right, left = np.zeros(n), np.zeros(n)
    for v in range(n - 2, -1, -1):
        right[v] = 1 + right[rightmost[v]] if rightmost[v] > v else np.inf
    for v in range(1, n):
        left[v] = 1 + left[leftmost[v]] if leftmost[v] < v else np.inf
    return np.maximum(right, left)


def _distances(rows: CSR, source: int) -> np.ndarray:
    """Arrows from `source` to every token, following row -> indices; -1 where there is no way."""
    distance = np.full(rows.n_tokens, -1, np.int64)
    from dynsim.kernels.fields import SEARCH
    from dynsim.kernels.record import Arguments

    _search()(
        Arguments(
            SEARCH, np.float64, 1, n=rows.n_tokens, source=source, edges=rows.n_edges,
            indptr=rows.indptr, indices=rows.indices, distance=distance,
            queue=np.empty_like(distance),
        )
    )  # fmt: skip
    return distance


@lru_cache
def _search() -> Kernel:
    """The compiled search, loaded when a mask first needs it."""
    from dynsim.kernels.table import KERNELS

    return KERNELS["graphs.distances_from"]


def _eccentricity_bounds(
    layout: Layout, candidates: np.ndarray, budget: float
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the eccentricity of every candidate, from pruned searches.

    d(w, v) <= ecc(w) <= d(w, v) + ecc(v) and ecc(v) - d(v, w) <= ecc(w): after Takes and Kosters,
    Algorithms 6 (2013) 100. Stops when the smallest and the largest are known, or the budget of
    edge visits is spent. All candidates must reach every token, and each other.
    """
    out, into = layout.attended_by.to_rows(), layout.to_rows()
    loops = np.bincount(into.indices[into.indices == into.row_of_edge], minlength=layout.n_tokens)
    lower = np.where(out.degrees - loops < layout.n_tokens - 1, 2.0, float(layout.n_tokens > 1))
    upper = np.full(layout.n_tokens, np.inf)
    lower, upper = lower[candidates], upper[candidates]
    if is_circulant(layout):  # all tokens look alike
        lower[:] = upper[:] = _distances(out, candidates[0]).max()
    done = np.zeros(len(candidates), bool)
    pick_wide = False
    spent = 0
    while spent <= budget and not done.all():
        small_known = lower.min() >= upper.min()
        large_known = upper.max() <= lower.max()
        if small_known and large_known:
            break
        # alternate between the node that may be most central and the one that may be farthest out
        pick_wide = not pick_wide
        open_ones = np.flatnonzero(~done)
        hubs = out.degrees[candidates[open_ones]]
        if pick_wide:
            choice = open_ones[np.lexsort((-hubs, lower[open_ones]))[0]]
        else:
            choice = open_ones[np.lexsort((hubs, -upper[open_ones]))[0]]
        forward = _distances(out, candidates[choice])
        backward = _distances(into, candidates[choice])[candidates]
        spent += 2 * layout.n_edges
        eccentricity = forward.max()
        lower = np.maximum(lower, np.maximum(backward, eccentricity - forward[candidates]))
        upper = np.minimum(upper, backward + eccentricity)
        lower[choice] = upper[choice] = eccentricity
        done[choice] = True
        done |= lower == upper
    return lower, upper


def _radius_and_diameter(
    layout: Layout, centers: np.ndarray, budget: float = np.inf
) -> tuple[tuple[float, float], tuple[float, float]]:
    """((radius low, high), (diameter low, high)); inf where there is no center or no way back."""
    if len(centers) == 0:
        return (np.inf, np.inf), (np.inf, np.inf)
    if is_interval_mask(layout):
        ecc = _interval_eccentricities(layout)
        lower = upper = ecc[centers]
    else:
        lower, upper = _eccentricity_bounds(layout, centers, budget)
    strong = len(centers) == layout.n_tokens
    widest = (lower.max(), upper.max()) if strong else (np.inf, np.inf)
    return (lower.min(), upper.min()), widest


def radius(graph: nx.DiGraph) -> float:
    """The longest distance from a center node to any node, smallest over center nodes (WU Def. 5).

    inf when there is no center node.

    >>> from dynsim import masks
    >>> radius(masks.local(128, window=1))
    64.0
    """
    return float(_radius_and_diameter(compile_layout(graph), center_nodes(graph))[0][0])


def diameter(graph: nx.DiGraph) -> float:
    """The longest distance between two tokens along the arrows; inf when some pair has no way.

    >>> from dynsim import masks
    >>> diameter(masks.local(5)), diameter(masks.causal(5))
    (4.0, inf)
    """
    return float(_radius_and_diameter(compile_layout(graph), center_nodes(graph))[1][0])


def eccentricities(graph: nx.DiGraph) -> np.ndarray:
    """The longest distance from every center node to any node, one search each.

    >>> from dynsim import masks
    >>> eccentricities(masks.local(4, window=1))
    array([3, 2, 2, 3])
    """
    out = compile_layout(graph).attended_by.to_rows()
    return np.array([_distances(out, c).max() for c in center_nodes(graph)], np.int64)


# --- all of it ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskFacts:
    """All facts of a mask. `radius` and `diameter` are (low, high), equal when exact."""

    name: str
    tokens: int
    edges: int
    degree_min: int
    degree_mean: float
    degree_max: int
    self_loops: bool
    strongly_connected: bool
    quasi_strongly_connected: bool
    center_nodes: int
    radius: tuple[float, float]
    diameter: tuple[float, float]
    lambda_2: SecondEigenvalue

    def to_dict(self) -> dict:
        """JSON-ready: infinite distances become None, exact ones a number, others [low, high]."""
        data = asdict(self)
        for key in ("radius", "diameter"):
            data[key] = _plain_distance(getattr(self, key))
        data["lambda_2"] = self.lambda_2.value if np.isfinite(self.lambda_2.value) else None
        data["lambda_2_method"] = self.lambda_2.method
        error = self.lambda_2.error
        data["lambda_2_error"] = error if np.isfinite(error) else None
        data["lambda_2_power"] = self.lambda_2.power
        data["lambda_2_power_at_most"] = self.lambda_2.at_most
        return data


def _plain_distance(bounds: tuple[float, float]) -> int | list[int | None] | None:
    low, high = (int(b) if np.isfinite(b) else None for b in bounds)
    return low if low == high else [low, high]


def facts(graph: nx.DiGraph) -> MaskFacts:
    """All facts of a mask at once. Seconds for 10^5 tokens in a window.

    Radius and diameter are exact for ranges; for other graphs a budget of edge visits applies,
    and what is not settled within it is reported as bounds (low, high).

    >>> from dynsim import masks
    >>> of_causal = facts(masks.causal(5))
    >>> of_causal.center_nodes, of_causal.radius, of_causal.strongly_connected
    (1, (1.0, 1.0), False)
    """
    layout = compile_layout(graph)
    labels, sources = _source_components(layout)
    centers = _center_nodes(labels, sources)
    radius_bounds, diameter_bounds = _radius_and_diameter(layout, centers, SEARCH_BUDGET)
    return MaskFacts(
        name=graph.name or "graph",
        tokens=layout.n_tokens,
        edges=layout.n_edges,
        degree_min=int(layout.degrees.min()),
        degree_mean=float(layout.degrees.mean()),
        degree_max=int(layout.degrees.max()),
        self_loops=layout.has_self_loops,
        strongly_connected=bool(labels.max() == 0),
        quasi_strongly_connected=len(sources) == 1,
        center_nodes=len(centers),
        radius=(float(radius_bounds[0]), float(radius_bounds[1])),
        diameter=(float(diameter_bounds[0]), float(diameter_bounds[1])),
        lambda_2=lambda_2(graph),
    )
