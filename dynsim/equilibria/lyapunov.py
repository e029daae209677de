"""Lyapunov exponents: how fast nearby states part, or meet, per layer.

The exponents of an orbit x_0, x_1, ... are the limits of (1/T) log of the singular values of the
product J(x_{T-1}) ... J(x_0). They are found by carrying an orthonormal frame along,
J(x_t) Q_t = Q_{t+1} R_{t+1}, and averaging log |diag R| (Benettin et al., Meccanica 15, 1980).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dynsim import masks
from dynsim._seeds import TOKENS, stream
from dynsim._values import real_array, whole
from dynsim.masks.connectivity import lambda_2
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.jacobian import linearise, tangent_basis

__all__ = ["Spectrum", "spectrum", "transversal"]

#: Exponents below this are rounding in directions that J annihilates.
_ROUNDING = -30.0


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Exponents in nats per layer, largest first, and how they settled.

    exponents : (count,), -inf where J annihilates a direction; below about -30 they are rounding
    running : (layers, count), the averages over the layers so far
    final : (N, d), the last state
    """

    exponents: np.ndarray
    running: np.ndarray
    final: np.ndarray

    @property
    def drift(self) -> float:
        """The largest change of an exponent above -30 over the second half of the layers."""
        late = self.running[len(self.running) // 2 :, self.exponents > _ROUNDING]
        return float(np.ptp(late, axis=0).max(initial=0.0))


def spectrum(
    dynamics: AttentionDynamics,
    x0: np.ndarray,
    *,
    count: int | None = None,
    layers: int = 1000,
    discard: int = 200,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Spectrum:
    """The `count` largest Lyapunov exponents (all by default) of the orbit of x0, (N, d).

    The first `discard` layers only turn the frame and reach the limit set. With unit norm
    perturbations stay on the spheres: there are N (d - 1) exponents, else N d.

    Raises
    ------
    ValueError
        For dropout, a state that does not fit or a count that is too large.
    FloatingPointError
        When tokens or their derivative stop being finite.

    Examples
    --------
    >>> from dynsim.network import norms, weights
    >>> layer = AttentionDynamics(masks.complete(1), weights.Diagonal((2.0, 1.0)), norms.Unit())
    >>> bool(np.isclose(spectrum(layer, np.array([[0.6, 0.8]])).exponents[0], np.log(0.5)))
    True
    """
    check_dynamics(dynamics)
    dynamics.require_deterministic("Lyapunov exponents")
    x = real_array("tokens", x0)
    dynamics.check_tokens(x)
    layers = whole("number of layers", layers, least=1)
    discard = whole("number of layers to discard", discard, least=0)
    x = dynamics.step(x, 0)  # now on the spheres, if there are any
    basis = tangent_basis(dynamics, x)
    free = basis.shape[0] * basis.shape[2]
    count = free if count is None else whole("number of exponents", count, least=1)
    if count > free:
        raise ValueError(f"there are {free} exponents; asked for {count}")
    frame = stream(seed, TOKENS, count).standard_normal((*basis.shape[::2], count))
    frame, _ = np.linalg.qr(np.einsum("iap,ipk->iak", basis, frame).reshape(x.size, count))
    growth = np.empty((layers, count))
    for t in range(discard + layers):
        x, slope = linearise(dynamics, x, t + 1)
        frame, upper = np.linalg.qr(slope.reshape(x.size, x.size) @ frame)
        if not np.all(np.isfinite(upper)):
            raise FloatingPointError(f"tokens or their derivative are not finite in layer {t + 2}")
        if t >= discard:
            with np.errstate(divide="ignore"):
                growth[t - discard] = np.log(np.abs(np.diagonal(upper)))
            if progress is not None:
                progress(t - discard + 1)
    running = np.cumsum(growth, axis=0) / np.arange(1, layers + 1)[:, None]
    order = np.argsort(-running[-1], kind="stable")
    return Spectrum(running[-1, order], running[:, order], x)


def transversal(dynamics: AttentionDynamics, c: np.ndarray, **options) -> float:
    """The largest exponent of perturbations that break consensus at 1 c, c of shape (d,).

    Near consensus attention is uniform and deviations obey Z' = A_uniform Z D(c), whatever M: the
    exponent is log |lambda_2(mask)| + the largest exponent of one token alone. Negative:
    consensus attracts. `options` are those of `spectrum`.

    Raises ValueError for a layer with a skip connection, an MLP or a norm that is not after it.
    """
    if dynamics.skip or dynamics.mlp.active or dynamics.placement != "post":
        raise ValueError(
            "the transversal exponent is known for layers of attention and a norm after it alone; "
            "take the whole spectrum"
        )
    alone = replace(dynamics, mask=masks.complete(1))
    mixing = lambda_2(dynamics.mask).value
    token = real_array("the consensus token", c)[None]
    largest = spectrum(alone, token, **({"count": 1} | options))
    with np.errstate(divide="ignore"):
        return float(np.log(np.abs(mixing)) + largest.exponents[0])
