"""Levenberg-Marquardt on many starts at once, deflated against what is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["solve"]

_ITERATIONS = 60
#: Residuals below this are not driven down further.
_ENOUGH = 1e-15


def solve(
    system: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    x: np.ndarray,
    retract: Callable[[np.ndarray], np.ndarray],
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Solve r(x) = 0 from each of the starts x: (starts, ...).

    A step solves (K^T K + m |r|) delta = -K^T r, K = dr/dx: Gauss and Newton's far from singular K,
    and convergent, if slowly, at singular ones (Fan and Yuan, Computing 74, 2005). A step that does
    not lower |r| is taken back and tried with a larger m.

    Deflation (Farrell, Birkisson and Funke, SIAM J. Sci. Comput. 37, 2015, with shift 1, power 2)
    multiplies r by prod_k (1 + 1 / |x - x_k|^2) over the known solutions x_k, which are then none
    of the new system.

    Parameters
    ----------
    system : callable
        (x, which) -> (r, K), shapes (k, m) and (k, m, m), for k of the starts, numbered `which`.
    retract : callable
        Puts x + delta back where states live.
    known : array (starts, solutions, ...), optional
        For each start; rows of infinity fill up.

    Returns
    -------
    array
        Where each start ended, solution or not.

    Examples
    --------
    >>> def system(x, which):  # x^2 = 2
    ...     return x**2 - 2.0, 2.0 * x[:, :, None]
    >>> solve(system, np.array([[1.0], [-3.0]]), lambda x: x).ravel().round(9)
    array([ 1.41421356, -1.41421356])
    """
    shape = x.shape
    if not len(x):
        return x
    if known is not None:
        known = known.reshape(*known.shape[:2], -1)

    def evaluate(
        z: np.ndarray, which: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            r, K = system(z.reshape(len(z), *shape[1:]), which)
            size = np.linalg.norm(r, axis=1)
            log_size = np.log(size)
            if known is not None:
                away = z[:, None] - known[which]
                squared = np.sum(away**2, axis=-1, keepdims=True)
                log_size += np.log1p(1.0 / squared).sum(axis=(1, 2))
                away[np.isinf(away)] = 0.0
                slope = -2 * np.sum(away / (squared * (squared + 1)), axis=1)
                K = K + r[:, :, None] * slope[:, None, :]
        merit = np.where(np.isfinite(log_size) | (size == 0), log_size, np.inf)
        K[~np.isfinite(K).all(axis=(1, 2))] = 0.0
        return np.nan_to_num(r), K, np.where(np.isfinite(size), size, np.inf), merit

    z = x.reshape(len(x), -1).copy()
    r, K, size, merit = evaluate(z, np.arange(len(z)))
    damping = np.full(len(z), 1e-2)
    active = np.arange(len(z))
    for _ in range(_ITERATIONS):
        active = active[(size[active] > _ENOUGH) & (damping[active] < 1e12)]
        if not len(active):
            break
        u, s, vt = np.linalg.svd(K[active])  # normal equations would square the condition
        shift = damping[active] * np.minimum(size[active], 1.0)
        shift += 1e-28 * s[:, 0] ** 2 + 1e-300
        turned = np.einsum("bmk,bm->bk", u, r[active]) * s / (s**2 + shift[:, None])
        delta = -np.einsum("bkn,bk->bn", vt, turned)
        trial = retract((z[active] + delta).reshape(len(active), *shape[1:]))
        trial = trial.reshape(len(active), -1)
        r_new, K_new, size_new, merit_new = evaluate(trial, active)
        better = merit_new < merit[active]
        improved = active[better]
        z[improved], r[improved], K[improved] = trial[better], r_new[better], K_new[better]
        size[improved], merit[improved] = size_new[better], merit_new[better]
        damping[active] *= np.where(better, 0.2, 8.0)
        damping[improved] = np.maximum(damping[improved], 1e-12)
    return z.reshape(shape)
