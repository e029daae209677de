"""The uniform walk on a mask graph, and the second largest modulus of its eigenvalues.

Near consensus the deviations follow the uniform walk, so lambda_2 is the late rate of collapse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from dynsim._spectra import DEFECTIVE, Mode, longest_chain, modes
from dynsim.masks.layout import (
    CSR,
    Layout,
    Ranges,
    common_keys,
    strong_components,
)
from dynsim.masks.networkx_view import compile_layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scipy import sparse
    from scipy.sparse.linalg import LinearOperator

__all__ = [
    "SecondEigenvalue",
    "lambda_2",
    "transversal_eigenvalues",
    "transversal_modes",
    "uniform_walk",
]

#: Floating-point operations up to which a sparse factor of the walk is worth its cost.
FACTOR_BUDGET = 10_000_000_000
#: Operations that an iterative eigensolver may spend at one tolerance.
EIGENSOLVER_BUDGET = 10_000_000_000
EPS = float(np.finfo(np.float64).eps)
#: Blocks of the walk up to this size are diagonalised as dense matrices.
DENSE_BLOCK = 500
#: Edges up to which paths from component to component are followed.
CHAIN_BUDGET = 10_000_000
#: All eigenvalues of a walk are computed up to so many tokens.
ALL_EIGENVALUES_LIMIT = 2000


def uniform_walk(graph: nx.DiGraph) -> sparse.csr_array:
    """P = D^-1 mask: token i moves to each token it attends to with probability 1 / degree(i).

    Returns a scipy.sparse CSR array (N, N), row-stochastic: the attention matrix of M = 0. Raises
    ValueError where `graph` is no mask.

    >>> from dynsim import masks
    >>> uniform_walk(masks.causal(2)).toarray()
    array([[1. , 0. ],
           [0.5, 0.5]])
    """
    rows = compile_layout(graph).to_rows()
    return rows.matrix(np.repeat(1.0 / rows.degrees, rows.degrees))


@dataclass(frozen=True)
class SecondEigenvalue:
    """lambda_2 of the uniform walk and how it was found.

    `method` "exact" means a closed form. `error` estimates what rounding and the solver's
    tolerance may have moved the value by, eigenvalue condition included (inf: defective to
    working precision). With "not converged" the solver ran out of its budget and `value` is NaN.

    Deviations go like t^`power` value^t under the powers P^t, or slower where `at_most`: a
    defective eigenvalue brings powers of t.
    """

    value: float
    method: str = "exact"
    error: float = 0.0
    power: int = 0
    at_most: bool = False


def lambda_2(graph: nx.DiGraph) -> SecondEigenvalue:
    """The second largest modulus among the eigenvalues of the uniform walk D^-1 mask.

    The walk is block triangular over strongly connected components, so its eigenvalues are those
    of the diagonal blocks. Single tokens (all of a causal mask, defective or not) and blocks of
    equal rows (the complete mask) have closed forms; symmetric blocks use D^-1/2 mask D^-1/2, by
    shift and invert where the graph is thin; other blocks use a dense or Arnoldi solver and
    estimate the error from the eigenvalue's condition number. Raises ValueError where `graph` is
    no mask.

    >>> from dynsim import masks
    >>> lambda_2(masks.causal(8)).value
    0.5
    """
    layout = compile_layout(graph)
    labels, count = strong_components(layout)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(count))
    sizes = np.diff(np.append(starts, len(order)))
    singles = order[starts[sizes == 1]]
    weights = np.sort(_self_weights(layout, singles))[::-1]
    moduli = [SecondEigenvalue(float(p)) for p in weights[:2]]
    blocks = {}
    for k in np.flatnonzero(sizes > 1).tolist():
        blocks[k] = _block_moduli(layout, order[starts[k] : starts[k] + sizes[k]])
        moduli += blocks[k]
    second = _two_largest([*moduli, SecondEigenvalue(0.0)])[1]
    if not 0.0 < second.value < 1.0:  # NaN; nothing left; or 1, which is never defective here
        return second
    return _with_power(second, layout, labels, count, blocks)


def _with_power(
    second: SecondEigenvalue,
    layout: Layout,
    labels: np.ndarray,
    count: int,
    blocks: Mapping[int, list[SecondEigenvalue]],
) -> SecondEigenvalue:
    """lambda_2 with the power of t that it brings.

    A component that attends to others has lambda_2 as its spectral radius, where it has it: simple
    by Perron and Frobenius. Then the theorem of `dynsim._spectra` gives the power from the longest
    path, for the one component that attends to no other, with the eigenvalue 1, ends every path.
    """
    weights, sure, ends = np.zeros(count, np.int64), True, False
    singles = np.flatnonzero(~np.isin(labels, list(blocks)))
    is_alike = np.abs(_self_weights(layout, singles) - second.value) <= second.error
    weights[labels[singles[is_alike]]] = 1
    for k, moduli in blocks.items():
        near = [m for m in moduli if abs(m.value - second.value) <= m.error + second.error]
        if near:
            is_last = moduli[0].value > second.value + second.error  # the one that has 1
            weights[k] = 1 + (max(m.power for m in near) if is_last else 0)
            sure, ends = sure and all(m.method == "exact" for m in near), ends or is_last
    sure = sure and not ends
    total = int(weights.sum())
    if total <= 1:  # no chain of two, whatever the edges
        return replace(second, power=total - 1, at_most=False)
    if layout.n_edges > CHAIN_BUDGET:
        return replace(second, power=total - 1, at_most=True)
    rows = layout.to_rows()
    power = longest_chain(labels, (rows.row_of_edge, rows.indices), weights) - 1
    return replace(second, power=power, at_most=bool(power > 0 and not sure))


def transversal_eigenvalues(graph: nx.DiGraph) -> np.ndarray:
    """All eigenvalues of the uniform walk but one 1, (N - 1,) complex: the modes across consensus.

    Block by block over strongly connected components, as in `lambda_2`. Raises ValueError above
    2000 tokens.

    >>> from dynsim import masks
    >>> transversal_eigenvalues(masks.causal(3)).real
    array([0.5       , 0.33333333])
    """
    layout = compile_layout(graph)
    _check_all_eigenvalues(layout)
    walk = uniform_walk(graph).toarray()
    labels, count = strong_components(layout)
    blocks = (np.flatnonzero(labels == label) for label in range(count))
    values = np.concatenate([np.linalg.eigvals(walk[np.ix_(b, b)]) for b in blocks])
    return np.delete(values.astype(complex), np.argmin(np.abs(values - 1.0)))


def transversal_modes(graph: nx.DiGraph) -> list[Mode]:
    """The eigenvalues of the uniform walk but one 1, by falling modulus, with the powers of t that
    they bring. Raises ValueError above 2000 tokens.

    >>> from dynsim import masks
    >>> [(mode.value.real, mode.power) for mode in transversal_modes(masks.causal_local(5))]
    [(0.5, 3)]
    """
    layout = compile_layout(graph)
    _check_all_eigenvalues(layout)
    rows = layout.to_rows()
    # D^-1/2 mask D^-1/2 is similar to the walk, and symmetric where the mask is
    root = 1.0 / np.sqrt(layout.degrees)
    similar = rows.matrix(root[rows.row_of_edge] * root[rows.indices]).toarray()
    np.fill_diagonal(similar, _self_weights(layout, np.arange(layout.n_tokens)))
    walk_modes = modes(similar)
    first = min(range(len(walk_modes)), key=lambda k: abs(walk_modes[k].value - 1.0))
    if walk_modes[first].count > 1:
        walk_modes[first] = replace(walk_modes[first], count=walk_modes[first].count - 1)
    else:
        del walk_modes[first]
    return walk_modes


def _check_all_eigenvalues(layout: Layout) -> None:
    if layout.n_tokens > ALL_EIGENVALUES_LIMIT:
        raise ValueError(
            f"all eigenvalues of a walk are for {ALL_EIGENVALUES_LIMIT} tokens at most; got "
            f"{layout.n_tokens}; use lambda_2"
        )


def _self_weights(layout: Layout, tokens: np.ndarray) -> np.ndarray:
    """P_ii of tokens."""
    if isinstance(layout, Ranges):
        looped = (layout.lo[tokens] <= tokens) & (tokens < layout.hi[tokens])
    else:
        looped = np.isin(tokens, layout.row_of_edge[layout.indices == layout.row_of_edge])
    return looped / layout.degrees[tokens]


def _block_moduli(layout: Layout, tokens: np.ndarray) -> list[SecondEigenvalue]:
    """The two largest eigenvalue moduli of the walk among `tokens`, or more, the largest first."""
    n = len(tokens)
    degrees = layout.degrees[tokens]
    if isinstance(layout, Ranges) and np.ptp(tokens) == n - 1:
        first = tokens[0]
        lo = np.maximum(layout.lo[tokens] - first, 0)
        block: Layout = Ranges(lo, np.minimum(layout.hi[tokens] - first, n))
    else:
        block = _within(layout.to_rows(), tokens)
    if common_keys(block) is not None and np.ptp(degrees) == 0:
        # equal rows, rank one: the only non-zero eigenvalue is the trace
        return [SecondEigenvalue(float(block.degrees[0] / degrees[0])), SecondEigenvalue(0.0)]
    moduli = (_dense_moduli if n <= DENSE_BLOCK else _sparse_moduli)(block, degrees)
    inside = block.degrees
    if np.all(inside * degrees[0] == inside[0] * degrees):  # equal row sums: they are the largest
        moduli[0] = SecondEigenvalue(float(inside[0] / degrees[0]))
    return moduli


def _within(rows: CSR, tokens: np.ndarray) -> CSR:
    """The edges among `tokens`, which become 0, 1, ... in this order."""
    place = np.full(rows.n_tokens, -1)
    place[tokens] = np.arange(len(tokens))
    attending, attended = place[rows.row_of_edge], place[rows.indices]
    inside = (attending >= 0) & (attended >= 0)
    order = np.flatnonzero(inside)[np.lexsort((attended[inside], attending[inside]))]
    counts = np.bincount(attending[order], minlength=len(tokens))
    return CSR(np.concatenate([[0], np.cumsum(counts)]), attended[order])


def _dense_moduli(block: Layout, degrees: np.ndarray) -> list[SecondEigenvalue]:
    n, rows = len(degrees), block.to_rows()
    pattern = np.zeros((n, n))
    pattern[rows.row_of_edge, rows.indices] = 1.0
    if np.array_equal(pattern, pattern.T):
        root = 1.0 / np.sqrt(degrees)
        moduli = np.sort(np.abs(np.linalg.eigvalsh(root[:, None] * pattern * root)))[::-1]
        return [SecondEigenvalue(float(m), "dense symmetric", n * EPS) for m in moduli[:2]]
    eigenvalues = []
    for mode in modes(pattern / degrees[:, None]):  # all: others may have the second modulus too
        one = SecondEigenvalue(abs(mode.value), "dense", mode.error, mode.power, mode.at_most)
        eigenvalues += [one] * mode.count
    return eigenvalues


def _sparse_moduli(block: Layout, degrees: np.ndarray) -> list[SecondEigenvalue]:
    from scipy import sparse

    symmetric = _is_symmetric_band(block)
    if isinstance(block, Ranges) and symmetric and block.n_edges > 50_000_000:
        return _symmetric_moduli(_band_operator(block, degrees), _least_loop(block, degrees))
    pattern = block.to_rows().matrix()
    if symmetric or abs(pattern - pattern.T).nnz == 0:
        root = sparse.diags_array(1.0 / np.sqrt(degrees))
        walk = (root @ pattern @ root).tocsr()
        return _symmetric_moduli(walk, float(walk.diagonal().min()))
    return _arnoldi_moduli(sparse.diags_array(1.0 / degrees) @ pattern)


def _is_symmetric_band(layout: Layout) -> bool:
    if not (isinstance(layout, Ranges) and layout.is_monotone):
        return False
    back = layout.attended_by
    return isinstance(back, Ranges) and back == layout


def _least_loop(layout: Ranges, degrees: np.ndarray) -> float:
    return float(1.0 / degrees.max()) if layout.has_self_loops else 0.0


def _band_operator(layout: Ranges, degrees: np.ndarray) -> LinearOperator:
    """D^-1/2 mask D^-1/2 for ranges too many to list: sums over ranges by cumulative sums."""
    from scipy.sparse.linalg import LinearOperator

    root = 1.0 / np.sqrt(degrees)

    def apply(v: np.ndarray) -> np.ndarray:
        total = np.concatenate([[0.0], np.cumsum(root * np.ravel(v))])
        return root * (total[layout.hi] - total[layout.lo])

    return LinearOperator((len(root), len(root)), matvec=apply, dtype=np.float64)


def _symmetric_moduli(
    walk: sparse.csr_array | LinearOperator, least_loop: float
) -> list[SecondEigenvalue]:
    """The two largest moduli of a large symmetric walk with eigenvalues in [-1, 1]."""
    order = _thin_order(walk)
    if order is None:
        values, tolerance = _lanczos(walk, "LA")
        eigenvalues = [SecondEigenvalue(float(v), "Lanczos", EPS + tolerance) for v in values]
    else:
        eigenvalues = _thin_top(walk[order][:, order])
    second = min(entry.value for entry in eigenvalues)
    if not 1.0 - 2.0 * least_loop <= second:  # a negative eigenvalue may be larger in modulus
        values, tolerance = _lanczos(walk, "SA", enough=second)
        eigenvalues += [SecondEigenvalue(abs(float(v)), "Lanczos", EPS + tolerance) for v in values]
    return _two_largest(eigenvalues)


def _lanczos(
    operator: sparse.csr_array | LinearOperator,
    which: str,
    enough: float = np.inf,
    shift: float | None = None,
    inverse: LinearOperator | None = None,
) -> tuple[np.ndarray, float]:
    """Two eigenvalues at one end of a symmetric operator, and their relative tolerance.

    Where eigenvalues crowd full accuracy would take about N steps, so the tolerance is loosened
    until the budget suffices; NaN if even the loosest does not. A rough answer is kept when it
    shows that the modulus stays below `enough`. With `shift` it is those nearest to it, and
    `inverse` applies (operator - shift)^-1.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    n = operator.shape[0]
    basis = min(n, 64)
    cost = basis * (getattr(operator, "nnz", 20 * n) + 4 * basis * n)
    options = {"ncv": basis, "maxiter": max(4, int(EIGENSOLVER_BUDGET / cost)), "v0": _start(n)}
    options |= {"sigma": shift, "OPinv": inverse}
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


def _thin_order(walk: sparse.csr_array | LinearOperator) -> np.ndarray | None:
    """An order of the tokens that makes the walk a thin band with a few hubs last; None if none."""
    from scipy import sparse

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


def _thin_top(walk: sparse.csr_array) -> list[SecondEigenvalue]:
    """The two largest eigenvalues of a thin walk by shift and invert.

    Near a gap of N^-2 Lanczos would need about N steps; with a sparse factor of walk - shift, the
    shift just above 1, it needs a few. Where eigenvalues crowd further down, the second is
    sharpened by moving the shift to just above it, again and again.
    """
    from scipy import sparse
    from scipy.sparse.linalg import LinearOperator, splu

    n = walk.shape[0]

    def near(shift: float) -> tuple[np.ndarray, float]:
        matrix = (walk - shift * sparse.eye_array(n)).tocsc()
        factor = splu(
            matrix, permc_spec="NATURAL", diag_pivot_thresh=0.01, options={"SymmetricMode": True}
        )
        inverse = LinearOperator((n, n), matvec=factor.solve, dtype=np.float64)
        return _lanczos(walk, "LM", shift=shift, inverse=inverse)

    shift = 1.0 + 1.0 / n**2
    values, tolerance = near(shift)
    top, value = float(max(values)), float(min(values))
    error = EPS + tolerance * (shift - value)
    while 1e-13 < error < 0.4 * (1.0 - value):  # nearer to the shift than 1 is
        shift = value + error
        values, tolerance = near(shift)
        value = float(values[np.argmin(np.abs(values - shift))])
        error = EPS + 2 * tolerance * abs(shift - value)
    pairs = [(top, EPS + tolerance * abs(shift - top)), (value, error)]
    return [SecondEigenvalue(v, "shift-invert", e) for v, e in pairs]


def _arnoldi_moduli(walk: sparse.csr_array) -> list[SecondEigenvalue]:
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
        eigenvalues = []
        for k in np.argsort(-np.abs(right_values)):
            twin = int(np.argmin(np.abs(left_values - right_values[k])))
            overlap = abs(np.sum(left[:, twin] * right[:, k]))  # walk.T: no conjugate
            error = _divide(EPS + tolerance, overlap)
            one = SecondEigenvalue(float(abs(right_values[k])), "Arnoldi", error)
            if overlap * DEFECTIVE < 1:
                one = replace(one, power=n - 1, at_most=True)
            eigenvalues.append(one)
        return eigenvalues
    return [SecondEigenvalue(np.nan, "not converged", np.inf)] * 2


def _divide(error: float, overlap: float) -> float:
    """First-order error of an eigenvalue: perturbation times condition number 1 / overlap."""
    return float(error / overlap) if overlap > 0 else np.inf


def _two_largest(eigenvalues: list[SecondEigenvalue]) -> list[SecondEigenvalue]:
    if any(np.isnan(entry.value) for entry in eigenvalues):
        return [SecondEigenvalue(np.nan, "not converged", np.inf)] * 2
    first, second = sorted(eigenvalues, key=lambda entry: -entry.value)[:2]
    highest = sorted(entry.value + entry.error for entry in eigenvalues)[-2]
    lowest = sorted(entry.value - entry.error for entry in eigenvalues)[-2]
    error = max(second.error, highest - second.value, second.value - lowest)
    return [first, replace(second, error=error)]
