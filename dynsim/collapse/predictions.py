"""Predicted late rates: the dynamics linearised across consensus.

At consensus, X = 1 c, attention is the uniform walk P on the mask whatever the scores, and its
derivative multiplies a constant and vanishes. So a small deviation obeys, for every placement of
the norm and any number of heads, Z' = Z S + P Z G: S the skip connection and G = W_V (summed over
heads), both with the derivatives of the norms at the consensus token. On an eigenvector of P with
eigenvalue lambda that is the d x d matrix T(lambda) = S + lambda G; lambda = 1 moves consensus
itself, all others lie across it. The late rate of mu is the largest growth of products of T(lambda)
along the orbit of the consensus token, over the transversal lambda: a master stability function
(Pecora and Carroll, Phys. Rev. Lett. 80 (1998) 2109). Without norm, with shared W_V, it is
max |skip + lambda_i w_j| over eigenvalues w_j of W_V; with a norm that only scales and no skip
|lambda_2 w_2 / w_1|.

Defective eigenvalues bring powers of t. Without skip Z_t = P^t Z_0 G_1 ... G_t, so those of the
walk and those of the products of G add up. A norm that only scales keeps the direction of each
token: two that differ by delta, on the orbit c W^t, have directions that differ like
||c W^t ^ delta W^t|| / ||c W^t||^2. Where the largest eigenvalue of W_V has one Jordan block, of
size m > 1, the second compound of W_V^t grows like t^(2 m - 4) |w|^(2 t) and c W^t like
t^(m - 1) |w|^t: that is t^-2.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynsim._spectra import Mode, modes
from dynsim._values import real_array, whole
from dynsim.collapse.transient import Growth, deviation_walk, kreiss_constant, transient_growth
from dynsim.masks.connectivity import SecondEigenvalue, lambda_2
from dynsim.masks.walk import transversal_modes
from dynsim.measures import mu
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.parts import check_alike, check_plain, first_unknown
from dynsim.network.weights import LayerWeights

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Prediction", "cubic_step", "predict", "transversal_growth"]

#: Layers over which a Lyapunov exponent is averaged, and multiply-adds that it may cost.
_LAYERS, _WORK = 2000, 4e9
#: A share of these layers comes first and is not counted; the rest falls into so many batches.
_BURN_IN, _BATCHES = 0.1, 20
#: A consensus token that moves less than this in one or two layers is close to a cycle.
_CYCLE = 1e-3
#: Multipliers within this share of the largest are looked at closely.
_NEAR = 1e-2
#: log of the cubic law's coefficient below which it is rounding.
_VANISHED = -30.0
#: Parts beyond the papers' that predictions are for, where layers are alike in them.
_KNOWN = ("qk_norm", "skip", "placement")
#: And those that the cubic law is for.
_CUBIC = ("skip", "placement")
#: Tokens up to which the transient growth of the walk is part of a prediction.
_GROWTH_LIMIT = 128


class _Consensus(NamedTuple):
    """One layer at X = 1 c, for row vectors z: T(lambda) = skip + lambda before W_V behind."""

    token: np.ndarray  # c' (d,)
    skip: np.ndarray  # (d, d)
    before: np.ndarray  # (d, d), derivative of the norm that attention sees through
    weights: LayerWeights
    behind: np.ndarray  # (d, d), derivatives of the norms behind W_V

    @property
    def through(self) -> np.ndarray:
        """G: what passes through attention, (d, d)."""
        return self.before @ self.weights.W_V.sum(axis=0) @ self.behind


def _consensus(dynamics: AttentionDynamics, c: np.ndarray, t: int) -> _Consensus:
    """Layer t and its derivative at the consensus token c."""
    norm, places, identity = dynamics.norm.layer(t), dynamics.places(t), np.eye(len(c))
    residual = dynamics.residual.layer(t)
    with np.errstate(invalid="ignore"):  # found below
        normed, weights = dynamics.attention_input(c, t)
        branch = normed @ weights.W_V.sum(axis=0) + weights.output_bias
    before = norm.derivative(c).T if "before" in places else identity
    skip, behind = residual.skip * identity, identity
    if "branch" in places:
        behind, branch = norm.derivative(branch).T, norm.apply(branch)
    behind = residual.branch * behind
    token = residual.joined(c, branch)
    if "after" in places:
        last, token = norm.derivative(token).T, norm.apply(token)
        skip, behind = skip @ last, behind @ last
    if not np.all(np.isfinite(token)):
        raise FloatingPointError(
            f"the consensus token stopped being finite in layer {t + 1}: the norm divides by zero, "
            f"or the token overflows; start from another token, or use eps > 0"
        )
    return _Consensus(token, skip, before, weights, behind)


# --- the prediction -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """What mu does in the end, if tokens come near consensus; prints as sentences.

    mu goes like t^`power` `rate`^t for almost all tokens; where `at_most`, the power is this or
    less: rounding does not tell. `growth` is the factor per layer of the consensus token, so that
    mu relative to it goes by `relative`. `error` is what rounding may have moved the rate by, to
    first order, and `standard_error` that of log rate: 0 where `method` is "multipliers"
    (eigenvalues), positive where it is "Lyapunov" (an average over layers).
    `exponent` is 1 for exponential collapse; 3 where all multipliers vanish because all tokens
    attend to the same ones (DONG's law: log mu triples in every layer); inf where mu is zero after
    one layer; NaN where the multipliers vanish in another way, faster than exponentially.

    `transient` is the largest ||P^t||_2 of the uniform walk on deviations, which may come before
    the late rate, and `kreiss` its Kreiss constant (`dynsim.transient`); None above 128 tokens.

    `linear` is True where attention is uniform whatever the tokens (M = 0, no norm): the rate then
    holds from any tokens on, not only near consensus.

    `lasts` is False where the prediction holds for a while only. Without a norm scores differ by
    about ||c|| ||M|| mu, c the consensus token, and attention is as uniform as that is small: it
    has to fall, rate * growth < 1. With a norm mu has to fall, or to stay, against the tokens.
    """

    rate: float
    growth: float
    method: str
    standard_error: float
    error: float
    power: int
    at_most: bool
    exponent: float
    lasts: bool
    linear: bool
    lambda_2: SecondEigenvalue
    transient: Growth | None
    kreiss: float | None

    @property
    def relative(self) -> float:
        return self.rate / self.growth if self.growth else np.nan

    def __str__(self) -> str:
        grows = self.transient is not None and self.transient.factor > 1.0 + 1e-9
        return f"{self.law}; before, {self.shoulder}" if grows else self.law

    @property
    def law(self) -> str:
        """The late rate in words."""
        if self.rate == 0:
            words = {
                3.0: "mu falls doubly exponentially, log mu triples in every layer",
                np.inf: "mu is zero after one layer",
            }
            law = words.get(self.exponent, "mu falls faster than exponentially")
        else:
            error = max(self.rate * self.standard_error, self.error)
            spread = f" ± {error:.2g}" * (error > 1e-9 * self.rate)
            law = f"mu goes by a factor {self.rate:.8g}{spread} per layer{self.times}"
            if self.growth and abs(self.growth - 1.0) > 1e-9:
                law += f", {self.relative:.8g} relative to the tokens"
            if not self.lasts:
                near = "scores stay small" if self.growth > 1 else "tokens stay near consensus"
                law += f", for as long as {near}"
        return f"near consensus {law} ({self.method}, lambda_2 = {self.lambda_2.value:.8g})"

    @property
    def times(self) -> str:
        """The power of t in words; empty where there is none."""
        if self.at_most:
            return f" times t^k, k <= {self.power} not known"
        return f" times t^{self.power}" if self.power else ""

    @property
    def shoulder(self) -> str:
        """The transient growth of the walk in words; empty above 128 tokens."""
        if self.transient is None:
            return ""
        factor, power, complete = astuple(self.transient)
        least = "" if complete else "at least "
        return (
            f"the walk P on deviations has largest ||P^t|| = {least}{factor:.4g} at t = {power}, "
            f"Kreiss constant {self.kreiss:.4g}"
        )


def predict(dynamics: AttentionDynamics, x0: ArrayLike, start: int = 0) -> Prediction:
    """The late rate of collapse near consensus, from eigenvalues or a Lyapunov exponent.

    `x0`, (N, d) or (samples, N, d), gives the dimension and, where a norm is there, the consensus
    token to start from: the mean of the first sample. `start` is the number of the first layer.

    Shared weights give multipliers, to the accuracy of an eigenvalue solver: closed forms without
    norm, and with a norm that only scales (eps = 0, no bias) and no skip; else at the fixed point,
    or the cycle of two layers, that the consensus token settles on. Fresh weights, and a consensus
    token that does not settle, give a Lyapunov exponent: the average over up to 2000 layers of the
    growth of deviations, with its standard error by batch means.

    A late rate is reached when the largest multiplier has won; the walk's `transient` growth comes
    first. Defective multipliers (a window that looks one way, a Jordan block as W_V) come with
    powers of t: what is known of them is in `dynsim._spectra`.

    QK-norm changes no late rate: at consensus all scores are equal with it, too.

    Raises ValueError for a dynamics with an MLP, dropout or parts that it is not known with
    (`dynsim.network.parts`), for a skip connection above 2000 tokens, for weights of skip and
    branch or placements that differ by layer or dimension, and for tokens or a start that cannot
    be; FloatingPointError where the norm comes to divide by zero.

    >>> from dynsim import masks
    >>> from dynsim.network import tokens, weights
    >>> x0 = tokens.gaussian(samples=1, n=6, d=2)
    >>> predict(AttentionDynamics(masks.causal(6), weights.Diagonal([0.9, -0.5])), x0).rate
    0.45
    """
    check_dynamics(dynamics)
    dynamics.require_deterministic("a late rate")
    check_plain(dynamics, "a late rate", _KNOWN)
    check_alike(dynamics, "a late rate")
    x0 = real_array("tokens", x0)
    dynamics.check_tokens(x0)
    start, available = whole("number of the first layer", start, least=0), dynamics.n_layers
    if available is not None and start >= available:
        raise ValueError(f"there are weights for {available} layers, from 0; got start = {start}")
    if dynamics.mlp.active:
        raise ValueError("late rates are predicted for attention alone; leave out the MLP")
    if dynamics.n_tokens == 1:
        raise ValueError("one token is always at consensus; give two or more")
    token = x0.reshape(-1, *x0.shape[-2:])[0].mean(axis=0)
    second = lambda_2(dynamics.mask)
    if np.isnan(second.value):
        raise FloatingPointError("lambda_2 of the mask did not converge; use a smaller mask")
    walk = [Mode(second.value, second.error, 1, second.power, second.at_most)]
    if dynamics.residual.has_skip:
        walk = transversal_modes(dynamics.mask)
    late, d = _late_rate(dynamics, token, walk, start), x0.shape[-1]
    is_scaled, scored = _is_scaled(dynamics, d), _has_scores(dynamics, start, d)
    if is_scaled and abs(_skip(dynamics)) == 1 and not dynamics.ends_in_norm:
        # the token grows like t, and the branch adds a share of 1 / t to it and to deviations
        late = late._replace(power=max(late.power, 0) + 1, at_most=True)
    largest = (late.rate + late.error) * np.exp(2.0 * late.standard_error)
    if not scored and (not is_scaled or _only_scales(dynamics, dynamics.weights.layer(start, d))):
        lasts = True  # all tokens go by one matrix, and are scaled at most
    elif is_scaled or dynamics.qk_norm.active:  # scores are small as mu is against the tokens
        lasts = largest <= late.growth * (1.0 + 1e-9)
    else:
        lasts = largest * max(late.growth, float(scored > 1)) < 1.0
    deviation = deviation_walk(dynamics.mask) if dynamics.n_tokens <= _GROWTH_LIMIT else None
    return Prediction(
        **late._asdict(),
        exponent=1.0 if late.rate else _exponent(dynamics, token, start),
        lasts=bool(lasts),
        linear=not (scored or is_scaled),
        lambda_2=second,
        transient=None if deviation is None else transient_growth(deviation),
        kreiss=None if deviation is None else kreiss_constant(deviation),
    )


def _is_scaled(dynamics: AttentionDynamics, d: int) -> bool:
    """Whether layers have a norm. Raises ValueError where some have and some have not."""
    active = {norm.switches(d).active for norm in dynamics.norm.each}
    if len(active) > 1:
        raise ValueError(
            "late rates are predicted where all layers have a norm, or none has; predict for a "
            "layer alone, dynamics.layer(t)"
        )
    return active.pop()


def _has_scores(dynamics: AttentionDynamics, start: int, d: int) -> int:
    """0 where attention is uniform whatever the tokens; 2 where scores have a linear part too."""
    stop = start + 1 if dynamics.n_layers is None else dynamics.n_layers
    layers = [dynamics.weights.layer(t, d) for t in range(start, stop)]
    if any(layer.query_bias.any() for layer in layers):
        return 2
    return int(any(layer.M.any() for layer in layers))


def _exponent(dynamics: AttentionDynamics, token: np.ndarray, t: int) -> float:
    """How log mu grows per layer where every multiplier vanishes."""
    d, rows = len(token), dynamics.allowed()
    if first_unknown(dynamics, _CUBIC) is not None:
        return np.nan
    if not dynamics.weights.layer(t, d).W_V.any():
        return np.inf
    if not (rows == rows[0]).all():
        return np.nan
    if not dynamics.weights.layer(t, d).M.any():
        return np.inf
    z = np.random.default_rng(0).standard_normal((dynamics.n_tokens, d))
    z = (z - z.mean(axis=0)) / mu(z)
    stop = dynamics.n_layers or np.inf
    for layer in range(t, int(min(t + d + 1, stop))):  # a nilpotent W_V is zero after d of them
        size, z = cubic_step(dynamics, z, token, layer)
        if size < _VANISHED:
            return np.nan
        token = _consensus(dynamics, token, layer).token
    return 3.0


class _Late(NamedTuple):
    """The part of a `Prediction` that is computed from multipliers or exponents."""

    rate: float
    growth: float
    power: int
    at_most: bool
    error: float = 0.0
    standard_error: float = 0.0
    method: str = "multipliers"


def _late_rate(
    dynamics: AttentionDynamics, token: np.ndarray, walk: list[Mode], start: int
) -> _Late:
    if dynamics.is_constant:
        late = _multipliers(dynamics, token, walk)
        if late is not None:
            return late
    if not dynamics.residual.has_skip and not walk[0].value:
        return _Late(0.0, _own_growth(dynamics, token, start), 0, False)
    return _lyapunov(dynamics, token, walk, start)


# --- shared weights -------------------------------------------------------------------------------


def _leading(candidates: list[Mode]) -> Mode:
    """Those that may be the largest as one: the largest modulus and the largest power."""
    top = max(candidates, key=lambda mode: abs(mode.value))
    near = [m for m in candidates if abs(top.value) - abs(m.value) <= top.error + m.error]
    power = max(m.power for m in near)
    sure = all(not m.at_most for m in near) and (
        power == 0 or any(m.power == power and abs(m.value) == abs(top.value) for m in near)
    )
    count = sum(m.count for m in near)
    error = max(abs(m.value) + m.error for m in near) - abs(top.value)
    top = replace(top, error=max(top.error, error))
    return replace(top, power=power if top.value else 0, at_most=not sure, count=count)


def _products(skip: float, walk: list[Mode], values: list[Mode]) -> Mode:
    """The largest |skip + lambda w|: Z' = skip Z + P Z W_V.

    On Jordan blocks of sizes a and b there are blocks of up to a + b - 1, if lambda w is not 0.
    """
    left, right = (np.array([mode.value for mode in part]) for part in (walk, values))
    errors = np.array([mode.error for mode in walk]), np.array([mode.error for mode in values])
    size = np.abs(skip + np.outer(left, right))
    error = np.outer(np.abs(left) + errors[0], errors[1]) + np.outer(errors[0], np.abs(right))
    error = error + 4 * np.finfo(float).eps * (abs(skip) + np.abs(np.outer(left, right)))
    candidates = []
    for i, j in np.argwhere(size + error >= size.max() - error.flat[size.argmax()]):
        one, other = walk[i], values[j]
        power = one.power + other.power
        is_zero = abs(left[i] * right[j]) <= error[i, j]
        sure = not (one.at_most or other.at_most) and (power == 0 or not is_zero)
        candidates.append(Mode(size[i, j], error[i, j], one.count * other.count, power, not sure))
    return _leading(candidates)


def _multipliers(dynamics: AttentionDynamics, token: np.ndarray, walk: list[Mode]) -> _Late | None:
    """From eigenvalues; None when the consensus token does not settle."""
    layer = dynamics.weights.layer(0, len(token))
    if not _is_scaled(dynamics, len(token)):
        skip, branch = map(float, dynamics.residual.layer(0))
        values = modes(branch * layer.W_V.sum(axis=0))
        own = max(abs(skip + mode.value) for mode in values)
        growth = max(own, 1.0) if layer.output_bias.any() else own
        top = _products(_skip(dynamics), walk, values)
        return _Late(float(abs(top.value)), float(growth), top.power, top.at_most, float(top.error))
    if _only_scales(dynamics, layer):
        ratio = _ratio_of_scales(modes(_cycle_of_scales(dynamics, layer)))
        top = _products(0.0, walk, [ratio])
        return _Late(float(abs(top.value)), 1.0, top.power, top.at_most, float(top.error))
    return _at_cycle(dynamics, token, walk)


def _ratio_of_scales(eigenvalues: list[Mode]) -> Mode:
    """|w_2 / w_1| with its power: how deviations go against a token that is scaled."""
    top = eigenvalues[0]
    size = abs(top.value)
    if size <= top.error:
        raise FloatingPointError(
            "the value matrix maps every token to zero in the end, and the norm divides by it; "
            "use another W_V, or eps > 0"
        )
    largest = [m for m in eigenvalues if abs(m.value) + m.error >= size - top.error]
    error = 2.0 * max(mode.error for mode in largest) / size
    if sum(mode.count for mode in largest) > 1:
        power, at_most = max(mode.power for mode in largest), True
        if all(mode.power == 0 and not mode.at_most for mode in largest):
            at_most = False
        elif len(largest) == 1 and not top.at_most and power == top.count - 1:
            power, at_most = -2, False
        return Mode(1.0, error, 1, power, at_most)
    if len(eigenvalues) == 1:
        return Mode(0.0, 0.0, 1, 0, False)
    second = _leading(eigenvalues[1:])
    ratio = abs(second.value) / size
    return replace(second, value=ratio, error=second.error / size + error * ratio)


def _only_scales(dynamics: AttentionDynamics, layer: LayerWeights) -> bool:
    """True when a layer maps a token to a linear function of it, divided by a size."""
    norms = [norm.switches(layer.W_V.shape[-1]) for norm in dynamics.norm.each]
    shifted = any(norm.shift or np.any(norm.bias) for norm in norms)
    return not (dynamics.residual.has_skip or shifted or layer.output_bias.any())


def _cycle_of_scales(dynamics: AttentionDynamics, layer: LayerWeights) -> np.ndarray:
    """The linear function: W_V and, for each place of the norm, centring and gain."""
    d = layer.W_V.shape[-1]
    norm = dynamics.norm.layer(0).switches(d)
    centre = np.eye(d) - norm.centre / d
    linear = layer.W_V.sum(axis=0)
    for _ in dynamics.places(0):
        linear = linear @ centre * norm.gain
    return linear


def _at_cycle(dynamics: AttentionDynamics, token: np.ndarray, walk: list[Mode]) -> _Late | None:
    """Multipliers at the fixed point or 2-cycle that the consensus token settles on, or None."""
    for _ in range(_LAYERS):
        token = _consensus(dynamics, token, 0).token
    first = _consensus(dynamics, token, 0)
    second = _consensus(dynamics, first.token, 0)
    for length, back in ((1, first.token), (2, second.token)):
        if np.linalg.norm(back - token) <= _CYCLE * np.linalg.norm(token):
            return _multipliers_of_cycle(dynamics, token, walk, length)
    return None


def _multipliers_of_cycle(
    dynamics: AttentionDynamics, token: np.ndarray, walk: list[Mode], length: int
) -> _Late | None:
    for _ in range(20):  # Newton's method for the token that returns after `length` layers
        after, own = _round(dynamics, token, np.ones(1), length)
        step = np.linalg.lstsq((np.eye(len(token)) - own[0]).T, after - token)[0]
        token = token + step
        if np.linalg.norm(step) <= 1e-13 * np.linalg.norm(token):
            across = _round(dynamics, token, np.array([m.value for m in walk]), length)[1]
            top = _across_cycle(walk, across, alone=not dynamics.residual.has_skip)
            rate = abs(top.value) ** (1.0 / length)
            error = top.error * (rate / abs(top.value) if top.value else 1.0) / length
            return _Late(float(rate), _size_growth(dynamics), top.power, top.at_most, float(error))
    return None


def _across_cycle(walk: list[Mode], across: np.ndarray, alone: bool) -> Mode:
    """The largest eigenvalue of the products of T(lambda) over a cycle, for all lambda.

    `alone`: they are powers of lambda times one matrix, so that powers of t add up. Else Jordan
    blocks of sizes a and b make one of a b at most.
    """
    sizes = np.abs(np.linalg.eigvals(across)).max(axis=1)
    candidates = []
    for k in np.flatnonzero(sizes >= (1.0 - _NEAR) * sizes.max()):
        matrix = across[k] if np.abs(across[k].imag).any() else across[k].real
        for mode in modes(matrix):
            power = walk[k].power + mode.power
            at_most = walk[k].at_most or mode.at_most
            if not alone and power:
                power, at_most = (walk[k].power + 1) * (mode.power + 1) - 1, True
            error = float(mode.error + walk[k].error * np.linalg.norm(matrix, 2))
            candidates.append(Mode(mode.value, error, mode.count, power, at_most))
    return _leading(candidates)


def _size_growth(dynamics: AttentionDynamics) -> float:
    """The factor per layer of a token's size under an active norm."""
    return 1.0 if dynamics.ends_in_norm else max(1.0, abs(_skip(dynamics)))


def _skip(dynamics: AttentionDynamics) -> float:
    """The weight of the skip connection, the same in all layers and dimensions."""
    return float(dynamics.residual.layer(0).skip)


def _round(
    dynamics: AttentionDynamics, token: np.ndarray, modes: np.ndarray, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The token after `length` layers, and the product of T(lambda) for every lambda."""
    product = np.broadcast_to(np.eye(len(token)), (len(modes), len(token), len(token)))
    for _ in range(length):
        layer = _consensus(dynamics, token, 0)
        product = product @ (layer.skip + modes[:, None, None] * layer.through)
        token = layer.token
    return token, product


# --- fresh weights --------------------------------------------------------------------------------


def transversal_growth(
    dynamics: AttentionDynamics,
    token: ArrayLike,
    layers: int,
    modes: ArrayLike | None = None,
    start: int = 0,
) -> np.ndarray:
    """log of the growth of a generic deviation across consensus in each layer: (modes, layers).

    Products of T(lambda) along the orbit of the consensus token, applied to a fixed random vector.
    In the linear regime, and once the slowest mode has won, log mu grows by just this much in every
    layer.

    Parameters
    ----------
    dynamics : AttentionDynamics
    token : array (d,)
        The consensus token at the start. Without a norm it plays no part.
    layers : int
        Number of layers.
    modes : array (modes,), optional
        Eigenvalues lambda of the walk, by default lambda_2 alone.
    start : int
        Number of the first layer.

    Returns
    -------
    array (modes, layers)
        log (||z_{t+1}|| / ||z_t||).

    Raises
    ------
    ValueError
        For what is no dynamics, no number of layers, no array.
    FloatingPointError
        Where deviations vanish, the consensus token overflows or the norm divides by zero.

    Examples
    --------
    >>> from dynsim import masks
    >>> from dynsim.network import weights
    >>> turning = AttentionDynamics(masks.causal(6), weights.Orthogonal())
    >>> np.exp(transversal_growth(turning, np.ones(4), layers=4)).round(12)
    array([[0.5, 0.5, 0.5, 0.5]])
    """
    check_dynamics(dynamics)
    check_plain(dynamics, "the growth of deviations", _KNOWN)
    layers = whole("number of layers", layers, least=1)
    modes = np.array([lambda_2(dynamics.mask).value]) if modes is None else np.asarray(modes)
    token = real_array("the consensus token", token)
    if not _is_scaled(dynamics, len(token)):
        token = np.zeros_like(token)  # which cannot overflow
    z = np.random.default_rng(0).standard_normal(len(token))
    z = np.tile(z / np.linalg.norm(z), (len(modes), 1))
    logs = np.empty((len(modes), layers))
    for k in range(layers):
        layer = _consensus(dynamics, token, start + k)
        z = z @ layer.skip + modes[:, None] * (z @ layer.through)
        size = np.linalg.norm(z, axis=1)
        if not size.all():
            raise FloatingPointError(
                f"deviations vanish in layer {start + k + 1}: its value matrix maps them to zero"
            )
        z, token, logs[:, k] = z / size[:, None], layer.token, np.log(size)
    return logs


def _late_growth(
    dynamics: AttentionDynamics, token: np.ndarray, modes: np.ndarray, start: int
) -> np.ndarray:
    """`transversal_growth` over as many layers as an exponent is averaged over."""
    layers = int(np.clip(_WORK / len(token) ** 3, 200, _LAYERS))
    if dynamics.n_layers is not None:
        layers = dynamics.n_layers - start
    return transversal_growth(dynamics, token, layers, modes, start)[:, int(_BURN_IN * layers) :]


def _own_growth(dynamics: AttentionDynamics, token: np.ndarray, start: int) -> float:
    """The growth of the consensus token where nothing else is asked for."""
    if _is_scaled(dynamics, len(token)):
        return _size_growth(dynamics)
    return float(np.exp(_late_growth(dynamics, token, np.ones(1), start).mean()))


def _lyapunov(
    dynamics: AttentionDynamics, token: np.ndarray, walk: list[Mode], start: int
) -> _Late:
    """The exponent of the fastest growing mode."""
    values = np.array([mode.value for mode in walk] + [1.0])  # the last: within consensus
    if not values.imag.any():
        values = values.real
    logs = _late_growth(dynamics, token, values, start)
    exponents = logs.mean(axis=1)
    scaled = _is_scaled(dynamics, len(token))
    growth = _size_growth(dynamics) if scaled else np.exp(exponents[-1])
    slowest = int(np.argmax(exponents[:-1]))
    batches = np.array_split(logs[slowest], min(_BATCHES, logs.shape[1]))
    means = [batch.mean() for batch in batches]
    error = np.std(means, ddof=1) / len(means) ** 0.5 if len(means) > 1 else np.inf
    near = exponents[:-1] >= exponents[slowest] - 2.0 * error
    power = max(mode.power for mode, close in zip(walk, near, strict=True) if close)
    at_most = walk[slowest].at_most or bool(dynamics.residual.has_skip and power)
    rate = np.exp(exponents[slowest])
    return _Late(
        float(rate), float(growth), power, at_most, standard_error=float(error), method="Lyapunov"
    )


# --- the complete graph: log mu triples -----------------------------------------------------------


def cubic_step(
    dynamics: AttentionDynamics, z: ArrayLike, token: ArrayLike, t: int = 0
) -> tuple[float, np.ndarray]:
    """DONG's cubic law with its coefficient: where all tokens attend to the same ones.

    With X = 1 c + s Z, 1^T Z = 0, ||Z||_F = 1 and s -> 0, one layer gives s' Z' = s^3 K + O(s^4),
    K = sum_h Z M_h Cov W_h less its mean row, Cov = sum_j (z_j - z)^T (z_j - z) / |S| over the
    tokens j in S that all attend to and their mean z. On the complete graph K = Z M (Z^T Z / N) W_V
    (DONG, arXiv 2103.03404, has the power). A norm puts its derivatives round M, Cov and W_V.

    Returns (log ||K||_F, K / ||K||_F): log s' = 3 log s + log ||K||_F.

    Raises ValueError when rows of the mask differ or a skip connection carries Z on.

    >>> from dynsim import masks
    >>> from dynsim.network import weights
    >>> flat = AttentionDynamics(masks.complete(3), weights.Fixed(np.eye(2), np.eye(2)))
    >>> z = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]) / 2.0
    >>> log_size, _ = cubic_step(flat, z, token=np.ones(2))
    >>> round(float(np.exp(2 * log_size)), 6), round(28 / 576, 6)  # Z M (Z^T Z / 3) W_V by hand
    (0.048611, 0.048611)
    """
    check_dynamics(dynamics)
    allowed = dynamics.allowed()
    check_plain(dynamics, "the cubic law", _CUBIC)
    if not (allowed == allowed[0]).all() or dynamics.residual.has_skip:
        raise ValueError(
            "the cubic law needs a mask under which all tokens attend to the same ones, as the "
            "complete one, and no skip connection"
        )
    z, token = real_array("z", z), real_array("the consensus token", token)
    layer = _consensus(dynamics, token, t)
    normed = z @ layer.before
    attended = normed[allowed[0]] - normed[allowed[0]].mean(axis=0)
    covariance = attended.T @ attended / len(attended)
    heads = normed @ layer.weights.M @ covariance @ layer.weights.W_V  # (H, N, d)
    K = heads.sum(axis=0) @ layer.behind
    K = K - K.mean(axis=0)
    size = float(mu(K))
    return float(np.log(size)) if size else -np.inf, K / size if size else K
