"""Eigenvalues with their errors, and the powers of t that powers of a matrix bring with them.

On the generalised eigenvectors of w the powers A^t are of order t^p |w|^t, p + 1 the size of the
largest Jordan block of w. Sizes of Jordan blocks cannot be computed from rounded eigenvalues, but
the zeros of a matrix tell much. A is block triangular over the strong components of its pattern:
an eigenvalue that is simple in each component has no Jordan block larger than the largest number
of components with that eigenvalue on one path. For a matrix without negative entries and w its
spectral radius it is exactly that number (Rothblum, Linear Algebra Appl. 12 (1975) 281), and so for
one that a change of signs, s_i A_ij s_j, makes such a matrix or the negative of one. The same
holds for a smaller w > 0 that is the spectral radius of those components, if no component with a
larger one lies on a path from one of them to another: what lies elsewhere has not the eigenvalue
w, and does not change its Jordan blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Mode", "bounded_eigenvalues", "longest_chain", "modes"]

EPS = float(np.finfo(np.float64).eps)
#: A defective eigenvalue has a condition number of at least EPS^-1/2 = 7e7 once it is rounded.
DEFECTIVE = 1e6


@dataclass(frozen=True)
class Mode:
    """An eigenvalue, or several that rounding does not tell apart.

    value : of the largest modulus among them
    error : bound of the error of that modulus, to first order in rounding
    count : how many there are
    power : A^t is of order t^power |value|^t on them; at most that where `at_most`
    """

    value: complex
    error: float
    count: int
    power: int
    at_most: bool


def bounded_eigenvalues(block: np.ndarray, blur: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a block and bounds of their errors.

    To first order an eigenvalue moves by its condition number times ||E||, E being what the block B
    is wrong by; by no more than (2 ||B||)^(1 - 1/n) ||E||^(1/n) in any case (Elsner 1985, see
    Stewart and Sun, Matrix Perturbation Theory, theorem IV.1.3). Rounding is taken to be small
    after balancing, and blocks that are triangular, up to the order of coordinates, show their
    eigenvalues. `blur` adds an E of blur ||B||, of any form, before balancing.
    """
    values, errors, _ = _eigenvalues(block, blur)
    return values, errors


def _near_one(block: np.ndarray) -> tuple[np.ndarray, int]:
    """The block over a power of two near its largest entry, for LAPACK fails from 1e138 on."""
    power = int(np.frexp(np.abs(block).max(initial=0.0))[1])
    return np.ldexp(block, -power), power


def _eigenvalues(block: np.ndarray, blur: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues, bounds of their errors, and condition numbers (1 where they are shown)."""
    if np.isrealobj(block) and np.frexp(np.abs(block).max(initial=0.0))[1]:
        near, power = _near_one(block)
        values, errors, condition = _eigenvalues(near, blur)
        values = np.ldexp(values.real, power) + 1j * np.ldexp(values.imag, power)
        return values, np.ldexp(errors, power), condition
    from scipy import linalg

    balanced, scaling = linalg.matrix_balance(block)
    if not blur and not (np.tril(balanced, -1).any() and np.triu(balanced, 1).any()):
        values = np.diagonal(balanced).astype(complex)
        return values, 8 * EPS * np.abs(values), np.ones(len(values))
    n = len(block)
    if np.isrealobj(block) and np.array_equal(block, block.T):
        values, condition = np.linalg.eigvalsh(block).astype(complex), np.ones(n)
        return values, np.full(n, (4 * n * EPS + blur) * linalg.norm(block, 2)), condition
    values, left, right = linalg.eig(balanced, left=True)
    condition = _conditions(left, right)
    errors = _moved(balanced, 4 * n * EPS, condition)
    if blur:
        back = np.linalg.inv(scaling).T
        errors = errors + _moved(block, blur, _conditions(back @ left, scaling @ right))
    return values, errors, condition


def _conditions(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """||l|| ||r|| / |l* r| of left and right eigenvectors (columns); inf where that is 0."""
    sizes = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
    with np.errstate(divide="ignore"):
        return sizes / np.abs(np.sum(left.conj() * right, axis=0))


def _moved(matrix: np.ndarray, share: float, condition: np.ndarray) -> np.ndarray:
    """How far eigenvalues move when the matrix does by this share of its norm."""
    n, size = len(matrix), np.linalg.norm(matrix, 2)
    elsner = (2 * size) ** (1 - 1 / n) * (share * size) ** (1 / n)
    return np.minimum(share * size * condition, elsner)


def modes(matrix: np.ndarray) -> list[Mode]:
    """All eigenvalues of a matrix (n, n) by falling modulus, with the powers of t they bring.

    >>> from dynsim.network.weights import Jordan
    >>> [(mode.value.real, mode.power) for mode in modes(Jordan(2.0).matrix(3, None))]
    [(1.0, 2)]
    """
    from scipy import sparse

    matrix = np.asarray(matrix)
    n = len(matrix)
    _, labels = sparse.csgraph.connected_components(
        sparse.csr_array(matrix != 0), connection="strong"
    )
    values, errors, fine = np.empty(n, complex), np.empty(n), np.empty(n, bool)
    for label in range(labels.max() + 1):
        block = np.flatnonzero(labels == label)
        values[block], errors[block], condition = _eigenvalues(matrix[np.ix_(block, block)])
        fine[block] = condition < DEFECTIVE
    rows, columns = np.nonzero(matrix)
    alike = np.isrealobj(matrix) and _is_alike(matrix)
    eigenmodes = []
    for cluster in _clusters(values, errors):
        top = cluster[np.argmax(np.abs(values[cluster]))]
        inside = labels[cluster]
        # simple in each component, or as many as there are where the condition is bad
        ill = np.unique(inside[~fine[cluster]])
        weights = np.bincount(inside, minlength=labels.max() + 1)
        weights = np.where(np.isin(np.arange(len(weights)), ill), weights, np.minimum(weights, 1))
        power = longest_chain(labels, (rows, columns), weights) - 1
        sure = power == 0 or (alike and _are_chained_radii(matrix, labels, values, cluster))
        error = float(errors[cluster].max() + np.ptp(np.abs(values[cluster])))
        eigenmodes.append(Mode(complex(values[top]), error, len(cluster), power, not sure))
    return sorted(eigenmodes, key=lambda mode: -abs(mode.value))


def _clusters(values: np.ndarray, errors: np.ndarray) -> list[np.ndarray]:
    """Indices of eigenvalues that are not told apart, group by group."""
    from scipy import sparse

    near = np.abs(values[:, None] - values) <= errors[:, None] + errors
    _, groups = sparse.csgraph.connected_components(sparse.csr_array(near), directed=False)
    return [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]


def _is_alike(matrix: np.ndarray) -> bool:
    """True when signs s make all s_i A_ij s_j have one sign."""
    diagonal = np.diagonal(matrix)
    if np.all(diagonal <= 0) and np.any(diagonal):
        matrix = -matrix
    if np.any(np.diagonal(matrix) < 0):
        return False
    if np.all(matrix >= 0):
        return True
    signs = np.sign(matrix)
    both = np.sign(signs + signs.T)  # of either entry; 0 where they differ, which the end refuses
    s = np.zeros(len(matrix))
    while not s.all():
        s[np.argmin(np.abs(s))] = 1.0
        front = np.flatnonzero(s)
        while len(front):
            pulls = (s[front] @ both[front]) * (s == 0)
            front = np.flatnonzero(pulls)
            s[front] = np.sign(pulls[front])
    return bool(np.all(s[:, None] * matrix * s >= 0))


def _are_chained_radii(
    matrix: np.ndarray, labels: np.ndarray, values: np.ndarray, cluster: np.ndarray
) -> bool:
    """True when the theorem in the head says that the longest chain is attained: the eigenvalues
    are equal entries of the diagonal, and no larger component lies between two of them."""
    tokens = np.isin(labels, labels[cluster])
    diagonal = np.abs(np.diagonal(matrix)[cluster])
    if tokens.sum() != len(cluster) or not diagonal[0] or np.ptp(diagonal):
        return False
    larger = np.abs(values) > diagonal[0]
    between = _reached(matrix, cluster) & _reached(matrix.T, cluster)
    return not np.any(between & np.isin(labels, labels[larger]))


def _reached(matrix: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The coordinates that a path along non-zero entries leads to, (n,) of bool."""
    reached = np.zeros(len(matrix), bool)
    front = np.asarray(start)
    while len(front):
        reached[front] = True
        front = np.flatnonzero((matrix[front] != 0).any(axis=0) & ~reached)
    return reached


def longest_chain(
    labels: np.ndarray, edges: tuple[np.ndarray, np.ndarray], weights: np.ndarray
) -> int:
    """The largest sum of weights of components on one path of the graph of components.

    labels : (n,) component of each node
    edges : pair of arrays, the edges' nodes; weights : (components,), not negative

    >>> int(longest_chain(np.array([0, 1, 2]), ([1, 2], [0, 1]), np.array([0, 1, 1])))
    2
    """
    total = int(np.sum(weights))
    if total <= max(1, np.max(weights, initial=0)):  # one component alone
        return total
    pairs = np.unique(np.stack([labels[np.asarray(side)] for side in edges]), axis=1)
    pairs = pairs[:, pairs[0] != pairs[1]]
    following: list[list[int]] = [[] for _ in weights]
    waiting = np.bincount(pairs[1], minlength=len(weights)).tolist()
    for source, target in pairs.T.tolist():
        following[source].append(target)
    best = [int(w) for w in weights]
    ready = [k for k, count in enumerate(waiting) if not count]
    while ready:
        source = ready.pop()
        for target in following[source]:
            best[target] = max(best[target], best[source] + int(weights[target]))
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return max(best)
