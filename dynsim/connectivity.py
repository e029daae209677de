"""Facts of a mask graph: center nodes, radius, diameter, connectivity, the uniform walk, lambda_2.

Definitions follow WU, arXiv 2405.18781, section 3 and Definition 5. Everything works on layouts
(ranges or compressed rows); nothing here makes an N x N array for a sparse mask.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import networkx as nx
import numpy as np
from scipy import sparse

from dynsim.layout import Layout, Ranges, compile_layout

__all__ = [
    "MaskFacts",
    "SecondEigenvalue",
    "center_nodes",
    "diameter",
    "facts",
    "is_quasi_strongly_connected",
    "is_strongly_connected",
    "lambda_2",
    "radius",
    "uniform_walk",
]

#: Edge visits that `facts` may spend on eccentricities before it reports bounds instead.
SEARCH_BUDGET = 1_000_000_000
#: Floating-point operations up to which a sparse factor of the walk is worth its cost.
FACTOR_BUDGET = 10_000_000_000
#: Operations that an iterative eigensolver may spend at one tolerance.
EIGENSOLVER_BUDGET = 10_000_000_000
EPS = float(np.finfo(np.float64).eps)
#: Blocks of the walk up to this size are diagonalised as dense matrices.
DENSE_BLOCK = 500


def uniform_walk(graph: nx.DiGraph) -> sparse.csr_array:
    """P = D^-1 mask: token i moves to each token it attends to with probability 1 / degree(i).

    Returns a sparse (N, N) row-stochastic matrix, the attention matrix of M = 0.
    """
    rows = compile_layout(graph).to_rows()
    weights = np.repeat(1.0 / rows.degrees, rows.degrees)
    shape = (rows.n_tokens, rows.n_tokens)
    return sparse.csr_array((weights, rows.indices, rows.indptr), shape=shape)


# --- strongly connected components --------------------------------------------------------------


def _is_interval_mask(layout: Layout) -> bool:
    """Monotone ranges with self-loops: reachable sets are intervals, all facts cost O(N)."""
    return isinstance(layout, Ranges) and layout.is_monotone and layout.has_self_loops


def _components(layout: Layout) -> tuple[np.ndarray, int]:
    """Strongly connected component of each token, and how many there are."""
    if _is_interval_mask(layout):  # i and i+1 share one exactly when they attend to each other
        parted = (layout.lo[1:] > np.arange(layout.n_tokens - 1)) | (
            layout.hi[:-1] <= np.arange(1, layout.n_tokens)
        )
        labels = np.concatenate([[0], np.cumsum(parted)])
        return labels, int(labels[-1]) + 1
    rows = layout.to_rows()
    ones = np.ones(rows.n_edges, np.int8)
    matrix = sparse.csr_array((ones, rows.indices, rows.indptr), shape=(rows.n_tokens,) * 2)
    count, labels = sparse.csgraph.connected_components(matrix, connection="strong")
    return labels.astype(np.int64), int(count)


def _source_components(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the components that attend to nothing outside themselves."""
    labels, count = _components(layout)
    if isinstance(layout, Ranges):
        starts, ends = layout.lo, layout.hi - 1
        if _is_interval_mask(layout):  # components are runs: looking at both ends is enough
            leaves = (labels[starts] != labels) | (labels[ends] != labels)
            return labels, np.setdiff1d(np.arange(count), labels[leaves])
    rows = layout.to_rows()
    leaves = labels[rows.row_of_edge] != labels[rows.indices]
    return labels, np.setdiff1d(np.arange(count), labels[rows.row_of_edge[leaves]])


def center_nodes(graph: nx.DiGraph) -> np.ndarray:
    """Tokens from which every token can be reached along the arrows; empty when there is none.

    >>> from dynsim import masks
    >>> center_nodes(masks.causal(4))
    array([0])
    """
    labels, sources = _source_components(compile_layout(graph))
    return np.flatnonzero(labels == sources[0]) if len(sources) == 1 else np.array([], np.int64)


def is_quasi_strongly_connected(graph: nx.DiGraph) -> bool:
    """True when the graph has a center node."""
    return len(_source_components(compile_layout(graph))[1]) == 1


def is_strongly_connected(graph: nx.DiGraph) -> bool:
    """True when every token reaches every token along the arrows."""
    return _components(compile_layout(graph))[1] == 1


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


def _eccentricity_bounds(layout: Layout, candidates: np.ndarray, budget: float):
    """Lower and upper bounds of the eccentricity of every candidate, from pruned searches.

    d(w, v) <= ecc(w) <= d(w, v) + ecc(v) and ecc(v) - d(v, w) <= ecc(w): after Takes and Kosters,
    Algorithms 6 (2013) 100. Stops when the smallest and the largest are known, or the budget of
    edge visits is spent. All candidates must reach every token, and each other.
    """
    from dynsim.kernels.graphs import distances_from

    out, into = layout.attended_by.to_rows(), layout.to_rows()
    lower = np.zeros(layout.n_tokens)
    upper = np.full(layout.n_tokens, np.inf)
    lower[out.degrees < layout.n_tokens] = 2
    if layout.n_tokens > 1:
        lower = np.maximum(lower, 1)
    lower, upper = lower[candidates], upper[candidates]
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
        forward = distances_from(out.indptr, out.indices, candidates[choice])
        backward = distances_from(into.indptr, into.indices, candidates[choice])[candidates]
        spent += 2 * layout.n_edges
        eccentricity = forward.max()
        lower = np.maximum(lower, np.maximum(backward, eccentricity - forward[candidates]))
        upper = np.minimum(upper, backward + eccentricity)
        lower[choice] = upper[choice] = eccentricity
        done[choice] = True
        done |= lower == upper
    return lower, upper


def _radius_and_diameter(graph: nx.DiGraph, budget: float = np.inf):
    """((radius low, high), (diameter low, high)); inf where there is no center or no way back."""
    layout = compile_layout(graph)
    centers = center_nodes(graph)
    if len(centers) == 0:
        return (np.inf, np.inf), (np.inf, np.inf)
    if _is_interval_mask(layout):
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
    return float(_radius_and_diameter(graph)[0][0])


def diameter(graph: nx.DiGraph) -> float:
    """The longest distance between two tokens along the arrows; inf when some pair has no way."""
    return float(_radius_and_diameter(graph)[1][0])


# --- lambda_2 of the uniform walk ---------------------------------------------------------------


@dataclass(frozen=True)
class SecondEigenvalue:
    """lambda_2 of the uniform walk and how it was found.

    `method` "exact" means a closed form. `error` estimates what rounding and the solver's
    tolerance may have moved the value by, eigenvalue condition included (inf: defective to
    working precision). With "not converged" the solver ran out of its budget and `value` is NaN.
    """

    value: float
    method: str = "exact"
    error: float = 0.0


def lambda_2(graph: nx.DiGraph) -> SecondEigenvalue:
    """The second largest modulus among the eigenvalues of the uniform walk D^-1 mask.

    The walk is block triangular over strongly connected components, so its eigenvalues are those
    of the diagonal blocks. Single tokens (all of a causal mask, defective or not) and blocks of
    equal rows (the complete mask) are exact; symmetric blocks use D^-1/2 mask D^-1/2, by
    shift and invert where the graph is thin; other blocks use a dense or Arnoldi solver and
    estimate the error from the eigenvalue's condition number.

    >>> from dynsim import masks
    >>> lambda_2(masks.causal(8)).value
    0.5
    """
    layout = compile_layout(graph)
    labels, count = _components(layout)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(count))
    sizes = np.diff(np.append(starts, len(order)))
    singles = order[starts[sizes == 1]]
    found = [SecondEigenvalue(float(p)) for p in _largest_self_weights(layout, singles)]
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        found += _block_moduli(layout, order[start : start + size])
    return _two_largest([*found, SecondEigenvalue(0.0)])[1]


def _largest_self_weights(layout: Layout, tokens: np.ndarray) -> np.ndarray:
    """The two largest P_ii of one-token blocks."""
    if isinstance(layout, Ranges):
        looped = (layout.lo[tokens] <= tokens) & (tokens < layout.hi[tokens])
    else:
        looped = np.isin(tokens, layout.row_of_edge[layout.indices == layout.row_of_edge])
    return np.sort(looped / layout.degrees[tokens])[::-1][:2]


def _block_moduli(layout: Layout, tokens: np.ndarray) -> list[SecondEigenvalue]:
    """The two largest eigenvalue moduli of the walk among `tokens`."""
    n = len(tokens)
    degrees = layout.degrees[tokens]
    if isinstance(layout, Ranges) and np.ptp(tokens) == n - 1:
        first = tokens[0]
        lo = np.maximum(layout.lo[tokens] - first, 0)
        hi = np.minimum(layout.hi[tokens] - first, n)
        equal_rows = np.ptp(lo) == 0 and np.ptp(hi) == 0 and np.ptp(degrees) == 0
        if equal_rows:  # rank one: the only non-zero eigenvalue is the trace
            return [SecondEigenvalue(float((hi[0] - lo[0]) / degrees[0])), SecondEigenvalue(0.0)]
        inner = Ranges(lo, hi)
        symmetric = inner.is_monotone and _is_symmetric_band(inner)
        if symmetric and inner.n_edges > 50_000_000:
            return _symmetric_moduli(_band_operator(inner, degrees), _least_loop(inner, degrees))
        pattern = inner.to_rows()
        pattern = sparse.csr_array(
            (np.ones(pattern.n_edges), pattern.indices, pattern.indptr), shape=(n, n)
        )
    else:
        rows = layout.to_rows()
        pattern = sparse.csr_array(
            (np.ones(rows.n_edges), rows.indices, rows.indptr), shape=(rows.n_tokens,) * 2
        )
        pattern = pattern if n == rows.n_tokens else pattern[tokens][:, tokens]
        symmetric = abs(pattern - pattern.T).nnz == 0
    if symmetric:
        root = sparse.diags_array(1.0 / np.sqrt(degrees))
        walk = (root @ pattern @ root).tocsr()
        if n <= DENSE_BLOCK:
            moduli = np.sort(np.abs(np.linalg.eigvalsh(walk.toarray())))[::-1]
            return [SecondEigenvalue(float(m), "dense symmetric", EPS) for m in moduli[:2]]
        return _symmetric_moduli(walk, float(walk.diagonal().min()))
    walk = sparse.diags_array(1.0 / degrees) @ pattern
    return _dense_moduli(walk.toarray()) if n <= DENSE_BLOCK else _arnoldi_moduli(walk)


def _is_symmetric_band(layout: Ranges) -> bool:
    back = layout.attended_by
    return isinstance(back, Ranges) and back == layout


def _least_loop(layout: Ranges, degrees: np.ndarray) -> float:
    return float(1.0 / degrees.max()) if layout.has_self_loops else 0.0


def _band_operator(layout: Ranges, degrees: np.ndarray):
    """D^-1/2 mask D^-1/2 for ranges too many to list: sums over ranges by cumulative sums."""
    from scipy.sparse.linalg import LinearOperator

    root = 1.0 / np.sqrt(degrees)

    def apply(v):
        total = np.concatenate([[0.0], np.cumsum(root * np.ravel(v))])
        return root * (total[layout.hi] - total[layout.lo])

    return LinearOperator((len(root), len(root)), matvec=apply, dtype=np.float64)


def _symmetric_moduli(walk, least_loop: float) -> list[SecondEigenvalue]:
    """The two largest moduli of a large symmetric walk with eigenvalues in [-1, 1]."""
    order = _thin_order(walk)
    if order is None:
        values, tolerance = _lanczos(walk, "LA")
        found = [SecondEigenvalue(float(v), "Lanczos", EPS + tolerance) for v in values]
    else:
        found = _thin_top(walk[order][:, order])
    second = min(entry.value for entry in found)
    if not 1.0 - 2.0 * least_loop <= second:  # a negative eigenvalue may be larger in modulus
        values, tolerance = _lanczos(walk, "SA", enough=second)
        found += [SecondEigenvalue(abs(float(v)), "Lanczos", EPS + tolerance) for v in values]
    return _two_largest(found)


def _lanczos(operator, which: str, enough: float = np.inf, **options) -> tuple[np.ndarray, float]:
    """Two eigenvalues at one end of a symmetric operator, and their relative tolerance.

    Where eigenvalues crowd full accuracy would take about N steps, so the tolerance is loosened
    until the budget suffices; NaN if even the loosest does not. A rough answer is kept when it
    shows that the modulus stays below `enough`.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    n = operator.shape[0]
    basis = min(n, 64)
    cost = basis * (getattr(operator, "nnz", 20 * n) + 4 * basis * n)
    options |= {"ncv": basis, "maxiter": max(4, int(EIGENSOLVER_BUDGET / cost)), "v0": _start(n)}
    for tolerance in (1e-13, 1e-4, 1e-2) if np.isinf(enough) else (1e-2, 1e-13, 1e-4):
        try:
            values = eigsh(
                operator, k=2, which=which, tol=tolerance, return_eigenvectors=False, **options
            )
        except ArpackNoConvergence:
            continue
        if np.isinf(enough) or tolerance < 1e-2 or abs(values).max() * (1 + tolerance) < enough:
            return values, tolerance
    return np.full(2, np.nan), np.inf


def _start(n: int) -> np.ndarray:
    """A fixed start vector: the same facts every time."""
    return np.random.default_rng(0).standard_normal(n)


def _thin_order(walk) -> np.ndarray | None:
    """An order of the tokens that makes the walk a thin band with a few hubs last; None if none."""
    if not sparse.issparse(walk):
        return None
    degrees = np.diff(walk.indptr)
    is_hub = degrees > max(64, 8 * np.median(degrees))
    rest = np.flatnonzero(~is_hub)
    thin = walk[rest][:, rest]
    rest = rest[sparse.csgraph.reverse_cuthill_mckee(thin.tocsr(), symmetric_mode=True)]
    entries = walk[rest][:, rest].tocoo()
    width = int(np.max(entries.row - entries.col, initial=0)) + 1 + int(is_hub.sum())
    if len(rest) * float(width) ** 2 > FACTOR_BUDGET:
        return None
    return np.concatenate([rest, np.flatnonzero(is_hub)])


def _thin_top(walk) -> list[SecondEigenvalue]:
    """The two largest eigenvalues of a thin walk by shift and invert.

    Near a gap of N^-2 Lanczos would need about N steps; with a sparse factor of walk - shift, the
    shift just above 1, it needs a few. Where eigenvalues crowd further down, the second is
    sharpened by moving the shift to just above it, again and again.
    """
    from scipy.sparse.linalg import LinearOperator, splu

    n = walk.shape[0]

    def near(shift, **options):
        matrix = (walk - shift * sparse.eye_array(n)).tocsc()
        factor = splu(
            matrix, permc_spec="NATURAL", diag_pivot_thresh=0.01, options={"SymmetricMode": True}
        )
        inverse = LinearOperator((n, n), matvec=factor.solve, dtype=np.float64)
        return _lanczos(walk, "LM", sigma=shift, OPinv=inverse, **options)

    shift = 1.0 + 1.0 / n**2
    values, tolerance = near(shift)
    top, value = float(max(values)), float(min(values))
    error = EPS + tolerance * (shift - value)
    while 1e-13 < error < 0.4 * (1.0 - value):  # nearer to the shift than 1 is
        shift = value + error
        values, tolerance = near(shift)
        value = float(values[np.argmin(np.abs(values - shift))])
        error = EPS + 2 * tolerance * abs(shift - value)
    found = [(top, EPS + tolerance * abs(shift - top)), (value, error)]
    return [SecondEigenvalue(v, "shift-invert", e) for v, e in found]


def _dense_moduli(walk: np.ndarray) -> list[SecondEigenvalue]:
    from scipy.linalg import eig

    values, left, right = eig(walk, left=True, right=True)
    overlaps = np.abs(np.sum(left.conj() * right, axis=0))
    order = np.argsort(-np.abs(values), kind="stable")[:2]
    scale = EPS * np.linalg.norm(walk)
    return [
        SecondEigenvalue(float(abs(values[k])), "dense", _divide(scale, overlaps[k])) for k in order
    ]


def _arnoldi_moduli(walk) -> list[SecondEigenvalue]:
    from scipy.sparse.linalg import ArpackNoConvergence, eigs

    n = walk.shape[0]
    start = _start(n)
    restarts = max(4, int(EIGENSOLVER_BUDGET / (64 * (walk.nnz + 256 * n))))
    options = {"k": 2, "which": "LM", "v0": start, "ncv": 64, "maxiter": restarts}
    for tolerance in (1e-12, 1e-5):
        try:
            right_values, right = eigs(walk, tol=tolerance, **options)
            left_values, left = eigs(walk.T, tol=tolerance, **options)
        except ArpackNoConvergence:
            continue
        found = []
        for k in np.argsort(-np.abs(right_values)):
            twin = int(np.argmin(np.abs(left_values - right_values[k])))
            overlap = abs(np.sum(left[:, twin] * right[:, k]))  # walk.T: no conjugate
            error = _divide(EPS + tolerance, overlap)
            found.append(SecondEigenvalue(float(abs(right_values[k])), "Arnoldi", error))
        return found
    return [SecondEigenvalue(np.nan, "not converged", np.inf)] * 2


def _divide(error: float, overlap: float) -> float:
    """First-order error of an eigenvalue: perturbation times condition number 1 / overlap."""
    return float(error / overlap) if overlap > 0 else np.inf


def _two_largest(found: list[SecondEigenvalue]) -> list[SecondEigenvalue]:
    if any(np.isnan(entry.value) for entry in found):
        return [SecondEigenvalue(np.nan, "not converged", np.inf)] * 2
    return sorted(found, key=lambda entry: -entry.value)[:2]


# --- all of it ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskFacts:
    """What `facts` found. `radius` and `diameter` are (low, high), equal when exact."""

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
        return data


def _plain_distance(bounds: tuple[float, float]):
    low, high = (int(b) if np.isfinite(b) else None for b in bounds)
    return low if low == high else [low, high]


def facts(graph: nx.DiGraph) -> MaskFacts:
    """All facts of a mask at once. Seconds for 10^5 tokens in a window.

    Radius and diameter are exact for ranges; for other graphs a budget of edge visits applies,
    and what is not settled within it is reported as bounds (low, high).
    """
    layout = compile_layout(graph)
    labels, sources = _source_components(layout)
    centers = int(np.count_nonzero(labels == sources[0])) if len(sources) == 1 else 0
    radius_bounds, diameter_bounds = _radius_and_diameter(graph, SEARCH_BUDGET)
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
        center_nodes=centers,
        radius=tuple(float(b) for b in radius_bounds),
        diameter=tuple(float(b) for b in diameter_bounds),
        lambda_2=lambda_2(graph),
    )
