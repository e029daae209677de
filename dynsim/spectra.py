"""Eigenvalues of small matrices with their errors."""

from __future__ import annotations

import numpy as np

__all__ = ["eigenvalues_with_errors"]

_EPS = float(np.finfo(np.float64).eps)


def eigenvalues_with_errors(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a real block, (n, n), and how far rounding may have moved them: (n,) and (n,).

    To first order an eigenvalue moves by its condition number times ||E||, E being the rounding in
    the block; by no more than (2 ||B||)^(1 - 1/n) ||E||^(1/n) in any case (Elsner 1985, see
    Stewart and Sun, Matrix Perturbation Theory, theorem IV.1.3). The smaller of both is the error,
    with Frobenius's norms and 4 n eps ||B|| for ||E||. That is no proof: the condition number is
    computed, and to first order. Against mpmath no error was too small in thousands of matrices,
    defective ones among them (`experiments/soundness/multipliers.py`). Blocks that are triangular,
    up to the order of coordinates, show their eigenvalues.
    """
    power = np.frexp(np.abs(block).max(initial=0.0))[1]  # LAPACK fails from 1e138 on
    values, errors = _near_one(np.ldexp(block, -power))
    return np.ldexp(values.real, power) + 1j * np.ldexp(values.imag, power), np.ldexp(errors, power)


def _near_one(block):
    from scipy import linalg

    balanced, _ = linalg.matrix_balance(block)
    if not (np.tril(balanced, -1).any() and np.triu(balanced, 1).any()):
        values = np.diagonal(balanced).astype(complex)
        return values, 8 * _EPS * np.abs(values)
    n, size = len(block), linalg.norm(balanced)
    rounding = 4 * n * _EPS * size
    values, left, right = linalg.eig(balanced, left=True)
    overlap = np.abs(np.sum(left.conj() * right, axis=0))
    elsner = (2 * size) ** (1 - 1 / n) * rounding ** (1 / n)
    with np.errstate(divide="ignore"):
        errors = np.minimum(rounding / overlap, elsner)
    return values, errors
