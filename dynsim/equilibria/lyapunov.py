"""Lyapunov exponents: how fast nearby states part, or meet, per layer.

The exponents of an orbit x_0, x_1, ... are the limits of (1/T) log of the singular values of the
product J(x_{T-1}) ... J(x_0). They are found by carrying an orthonormal frame along,
J(x_t) Q_t = Q_{t+1} R_{t+1}, and averaging log |diag R| (Benettin et al., Meccanica 15, 1980).

The largest one tells order, rotation and chaos apart, as far as it is known: an average over
finitely many layers has an error, which `error_of_mean` estimates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dynsim import masks
from dynsim._memory import require_memory
from dynsim._seeds import TOKENS, stream
from dynsim._values import real_array, whole
from dynsim.masks.connectivity import lambda_2
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.jacobian import DIFFERENTIABLE, jvp, linearise, tangent_basis
from dynsim.network.parts import check_plain

if TYPE_CHECKING:
    from typing import Any

__all__ = ["KINDS", "Spectrum", "error_of_mean", "largest_exponents", "spectrum", "transversal"]

#: Nearby states meet; keep their distance, and the orbit turns; keep it, and it does not; part.
KINDS = ("order", "rotation", "marginal", "chaos", "not decided")
#: Exponents below this are rounding in directions that J annihilates.
_ROUNDING = -30.0
#: Powers of the number of layers, up to this one, by which perturbations may grow or decay without
#: an exponent: where they do so as t^p, the average over t layers is about p / t.
_POWER = 10.0
#: Parts of a run whose averages are compared, and the standard errors that count as error.
_PARTS, _DEVIATIONS = 16, 3.0
#: An exponent is called 0 where it is 0 within an error of at most this.
_ZERO = 0.02
#: From so many coordinates an exponent on, directions are carried one by one, without a matrix J.
_FEW = 8
#: Layers at the end of a run whose states tell whether the orbit returns.
_WATCHED = 1024
#: Entries that differ by less than this are taken as equal.
_STILL = 1e-6


def error_of_mean(growth: np.ndarray, discard: int) -> np.ndarray:
    """How far the averages of log growths (layers, ...) may be from their limits: (...).

    The sum of three estimates: the change from the first half of the layers to the second; three
    standard errors, from the averages over 16 parts in turn; and 10 / (discard + layers), for
    perturbations that grow or decay as a power of the number of layers, up to the 10th, have
    exponent 0. An estimate, not a bound. Infinite for fewer than 16 layers; 0 where a growth is
    -inf, for the average is then known.

    >>> round(float(error_of_mean(np.full(1000, 0.1), discard=0)), 6)  # 10 / 1000
    0.01
    """
    layers = len(growth)
    if layers < _PARTS:
        return np.full(growth.shape[1:], np.inf)
    known = np.isneginf(growth).any(axis=0)
    growth = np.array(growth, order="K")
    growth[np.broadcast_to(known, growth.shape)] = 0.0
    half = layers // 2
    change = np.abs(growth[half:].mean(axis=0) - growth[:half].mean(axis=0))
    parts = np.stack([part.mean(axis=0) for part in np.array_split(growth, _PARTS)])
    scatter = _DEVIATIONS * parts.std(axis=0, ddof=1) / np.sqrt(_PARTS)
    return np.where(known, 0.0, change + scatter + _POWER / (discard + layers))


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Exponents in nats per layer, largest first, how they settled, and what the largest one says.

    exponents : (count,), -inf where J annihilates a direction; below about -30 they are rounding
    running : (layers, count), the averages over the layers so far
    final : (N, d), the last state
    error : of the largest exponent, as `error_of_mean` estimates it
    swelling : mean growth of log ||X|| per layer over the second half; about 0 for bounded orbits
    returns : whether the orbit leaves its last state and comes back to it, within the last 1024
        layers and in steps of two, so that x' = -x and x'' = x do not count
    """

    exponents: np.ndarray
    running: np.ndarray
    final: np.ndarray
    error: float
    swelling: float
    returns: bool

    @property
    def kind(self) -> str:
        """One of KINDS, by the largest exponent L and its error e.

        order        L + e < 0: nearby states meet
        rotation     |L| <= e <= 0.02, and the orbit `returns`: it turns, as on a torus
        marginal     |L| <= e <= 0.02, and it does not: it stays, flips, alternates or creeps
        chaos        L - e > 0 and tokens stay bounded: nearby states part
        not decided  otherwise: the run is too short, or tokens grow without bound
        """
        largest = self.exponents[0]
        if largest + self.error < 0:
            return "order"
        if largest - self.error > 0:
            return "not decided" if self._is_unbounded else "chaos"
        if self.error <= _ZERO:
            return "rotation" if self.returns else "marginal"
        return "not decided"

    @property
    def _is_unbounded(self) -> bool:
        return self.swelling > self.error

    @property
    def sentence(self) -> str:
        """The verdict with the numbers on which it rests."""
        number = (
            f"the largest exponent is {self.exponents[0]:.3g} +- {self.error:.1g} nats per layer"
        )
        if self.kind == "not decided" and self._is_unbounded:
            factor = f"{np.exp(self.swelling):.3g}"
            return (
                f"not decided: tokens grow without bound, by a factor {factor} per layer, which is "
                f"no chaos, though {number}; use a norm"
            )
        words = {
            "order": "nearby states meet",
            "rotation": "the orbit turns and comes back; nearby states neither meet nor part",
            "marginal": "nearby states neither meet nor part, and the orbit does not turn",
            "chaos": "nearby states part",
            "not decided": "take more layers",
        }
        return f"{self.kind}: {words[self.kind]}; {number}"

    def to_dict(self) -> dict:
        """JSON-ready: verdict, exponents, and how they settled; null for -inf."""
        return {
            "verdict": {"kind": self.kind, "sentence": self.sentence},
            "exponents": [float(v) if np.isfinite(v) else None for v in self.exponents],
            "error": float(self.error) if np.isfinite(self.error) else None,
            "drift": self.drift,
            "swelling": self.swelling,
            "returns": self.returns,
        }

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
    """The `count` largest Lyapunov exponents of the orbit of x0: limits of (1/T) log sigma_k of the
    derivative of T layers.

    Parameters
    ----------
    x0 : array (N, d)
        Tokens at the start.
    count : int, optional
        All when not given: N (d - 1) where every layer ends with unit norm, so that perturbations
        stay on the spheres, else N d.
    layers : int
        Layers to average over.
    discard : int
        Layers before those, which reach the limit set and turn the frame.
    seed : int
        Of the frame at the start.
    progress : callable, optional
        Called with the number of layers averaged so far.

    Raises
    ------
    ValueError
        For dropout, a state that does not fit or a count that is too large.
    MemoryError
        When the derivative, (N d)^2 numbers, or the averages do not fit into this machine. Of a few
        exponents (8 count <= N d) the derivative is not made.
    FloatingPointError
        When tokens or their derivative stop being finite.

    Examples
    --------
    >>> from dynsim.network import norms, weights
    >>> layer = AttentionDynamics(masks.complete(1), weights.Diagonal((2.0, 1.0)), norms.Unit())
    >>> lyapunov = spectrum(layer, np.array([[0.6, 0.8]]))
    >>> bool(np.isclose(lyapunov.exponents[0], np.log(0.5))), lyapunov.kind
    (True, 'order')

    References
    ----------
    Benettin, Galgani, Giorgilli and Strelcyn, Meccanica 15 (1980), 9-20 and 21-30.
    """
    check_dynamics(dynamics)
    check_plain(dynamics, "Lyapunov exponents", DIFFERENTIABLE)
    dynamics.require_deterministic("Lyapunov exponents")
    x = real_array("tokens", x0)
    dynamics.check_tokens(x)
    layers = whole("number of layers", layers, least=1)
    discard = whole("number of layers to discard", discard, least=0)
    wanted = x.size if count is None else whole("number of exponents", count, least=1)
    if wanted > x.size:
        raise ValueError(f"there are {x.size} exponents at most; asked for {wanted}")
    few = _FEW * wanted <= x.size
    require_memory(
        32 * x.size * (wanted if few else x.size) + 16 * layers * wanted,
        f"the derivatives of {x.size} numbers and averages over {layers} layers",
        "use fewer tokens, dimensions or layers, or a smaller count",
    )
    x = dynamics.step(x, 0)  # now on the spheres, if there are any
    basis = tangent_basis(dynamics, x)
    free = basis.shape[0] * basis.shape[2]
    if count is not None and wanted > free:
        raise ValueError(f"there are {free} exponents; asked for {wanted}")
    count = min(wanted, free)
    frame = stream(seed, TOKENS, count).standard_normal((*basis.shape[::2], count))
    frame, _ = np.linalg.qr(np.einsum("iap,ipk->iak", basis, frame).reshape(x.size, count))
    growth = np.empty((layers, count))
    sizes = np.empty(layers)
    watched: deque[np.ndarray] = deque(maxlen=_WATCHED)
    for t in range(discard + layers):
        if few:
            x, moved = jvp(dynamics, x, frame.T.reshape(count, *x.shape), t + 1)
            moved = moved.reshape(count, x.size).T
        else:
            x, slope = linearise(dynamics, x, t + 1)
            moved = slope.reshape(x.size, x.size) @ frame
        frame, upper = np.linalg.qr(moved)
        if not np.all(np.isfinite(upper)):
            raise FloatingPointError(f"tokens or their derivative are not finite in layer {t + 2}")
        if t >= discard:
            with np.errstate(divide="ignore"):
                growth[t - discard] = np.log(np.abs(np.diagonal(upper)))
                sizes[t - discard] = np.log(np.linalg.norm(x))
            watched.append(x)
            if progress is not None:
                progress(t - discard + 1)
    running = np.cumsum(growth, axis=0) / np.arange(1, layers + 1)[:, None]
    order = np.argsort(-running[-1], kind="stable")
    half = layers // 2
    swelling = (sizes[-1] - sizes[half]) / max(layers - 1 - half, 1)
    error = error_of_mean(growth[:, order[0]], discard)
    returns = _returns(np.array(watched)[::-2])
    return Spectrum(
        running[-1, order], running[:, order], x, float(error), float(swelling), returns
    )


def _returns(states: np.ndarray) -> bool:
    """Whether an orbit left states[0] and was back at half of the way: states (layers, N, d)."""
    away = np.linalg.norm(states - states[0], axis=(1, 2))
    farthest = np.maximum.accumulate(away)
    return bool(np.any((farthest > _STILL) & (away < 0.5 * farthest)))


def largest_exponents(
    dynamics: AttentionDynamics, x: np.ndarray, layers: int = 1500, discard: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """The largest Lyapunov exponent of the orbit of every state x, (S, N, d), and its error: (S,).

    From one tangent vector each, the same at the start for all, and `error_of_mean`. A state's
    exponent does not depend on the others.

    Raises ValueError for dropout, or a number of layers that is none.

    >>> from dynsim.network import norms, weights
    >>> layer = AttentionDynamics(masks.complete(1), weights.Diagonal((2.0, 1.0)), norms.Unit())
    >>> values, _ = largest_exponents(layer, np.array([[[0.6, 0.8]], [[0.8, -0.6]]]))
    >>> np.exp(values).round(6)
    array([0.5, 0.5])
    """
    layers = whole("number of layers", layers, least=1)
    discard = whole("number of layers to discard", discard, least=0)
    x = real_array("tokens", x)
    v = np.broadcast_to(stream(0, TOKENS, 1).standard_normal(x.shape[1:]), x.shape)
    growth = np.empty((len(x), layers)).T  # in memory state by state: each is summed as if alone
    for t in range(discard + layers):
        x, v = jvp(dynamics, x, v)
        size = np.linalg.norm(v.reshape(len(x), -1), axis=1)
        v = v / np.maximum(size, 1e-300)[:, None, None]
        if t >= discard:
            with np.errstate(divide="ignore"):
                growth[t - discard] = np.log(size)
    return growth.mean(axis=0), error_of_mean(growth, discard)


def transversal(dynamics: AttentionDynamics, c: np.ndarray, **options: Any) -> float:
    """The largest exponent of perturbations that break consensus at 1 c, c of shape (d,).

    Near consensus attention is uniform and deviations obey Z' = A_uniform Z D(c), whatever M: the
    exponent is log |lambda_2(mask)| + the largest exponent of one token alone. Negative:
    consensus attracts. `options` are those of `spectrum`.

    Raises ValueError for a layer with a skip connection, an MLP or a norm that is not after it, and
    as `spectrum`.

    >>> from dynsim.network import norms, weights
    >>> layer = AttentionDynamics(masks.causal(4), weights.Diagonal((2.0, 1.0)), norms.Unit())
    >>> exponent = transversal(layer, np.array([0.6, 0.8]), layers=100)
    >>> round(float(np.exp(exponent)), 6)  # lambda_2 = 1/2, and 1/2 for a token alone
    0.25
    """
    check_plain(dynamics, "the transversal exponent", ("qk_norm", "norm", "mlp_norm"))
    if dynamics.residual.has_skip or dynamics.mlp.active or dynamics.placement != "post":
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
