"""The rate of collapse, fitted: does mu fall exponentially, algebraically, faster, or not at all?

Trajectories are not noisy data: what a model leaves over is structure, the same at every layer, so
criteria that count residuals as independent (AIC, BIC) overstate what is known. Models are compared
by what matters for a late rate: fitted to all but the last quarter of the layers, how well do they
predict that quarter?
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynsim._values import check_instance, real_number
from dynsim.results.trajectory import Trajectory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MODELS", "Model", "Rate", "collapse_rate", "doubly_exponential", "is_above_floor"]

#: Depths and log mu of a sample in a window of layers.
Window = tuple[np.ndarray, np.ndarray]
#: What log mu a fitted law expects at later depths.
Forecast = Callable[[np.ndarray], np.ndarray]

#: mu counts from this many times its floor on, where rounding is at most a per cent of it.
_ABOVE_FLOOR = 100.0
#: Fewer layers than this are too few to fit a model and to test it.
_LEAST_LAYERS = 6
#: And fewer than this in the late window.
_LEAST_LATE = 5
#: The late window begins at one of these shares of the layers.
_STARTS = (0.0, 0.125, 0.25, 0.375, 0.5)
#: A model is preferred to a simpler one when it errs by less than half as much.
_BETTER = 0.5
#: Errors of log mu below this share of its size are rounding: they decide nothing.
_ROUNDING = 1e-9
#: Growth of |log mu| by less than this factor a layer is a transient, not a doubly exponential law.
_LEAST_EXPONENT = 1.25


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the least squares line."""
    centred = x - x.mean()
    size = centred @ centred
    slope = float(centred @ (y - y.mean()) / size) if size else 0.0
    return slope, float(y.mean() - slope * x.mean())


# --- models of log mu -------------------------------------------------------------------------


def _constant(t: np.ndarray, y: np.ndarray) -> tuple[float, Forecast]:
    return 0.0, lambda later: np.full(len(later), y.mean())


def _exponential(t: np.ndarray, y: np.ndarray) -> tuple[float, Forecast]:
    slope, intercept = _line(t, y)
    return slope, lambda later: intercept + slope * later


def _algebraic(t: np.ndarray, y: np.ndarray) -> tuple[float, Forecast]:
    slope, intercept = _line(np.log(t), y)
    return slope, lambda later: intercept + slope * np.log(later)


def _doubly_exponential(t: np.ndarray, y: np.ndarray) -> tuple[float, Forecast]:
    factor, constant = _line(y[:-1], y[1:])
    step = t[1] - t[0]
    exponent = max(factor, 0.0) ** (1.0 / step)
    if exponent < _LEAST_EXPONENT:
        return exponent, lambda later: np.full(len(later), np.inf)

    def forecast(later: np.ndarray) -> np.ndarray:
        values = [y[-1]]
        for _ in later:
            values.append(factor * values[-1] + constant)
        return np.array(values[1:])

    return exponent, forecast


@dataclass(frozen=True)
class Model:
    """A law: ``fit(t, log mu) -> (coefficient, forecast)`` with ``forecast(later t) -> log mu``.

    `shown` turns the coefficient into the number that `words` speak of.
    """

    fit: Callable[[np.ndarray, np.ndarray], tuple[float, Forecast]]
    shown: Callable[[np.ndarray | float], np.ndarray]
    words: str


#: Every model by name, the simplest first.
MODELS = {
    "none": Model(_constant, np.exp, "mu stays"),
    "exponential": Model(_exponential, np.exp, "mu goes by a factor {} per layer"),
    "algebraic": Model(_algebraic, np.negative, "mu goes as t^-p, p = {},"),
    "doubly exponential": Model(
        _doubly_exponential, np.asarray, "log mu grows by a factor {} per layer"
    ),
}


def _models(power: int) -> dict[str, Model]:
    """MODELS, where a power of t is known to come with the exponential."""
    if not power:
        return MODELS
    words = f"{MODELS['exponential'].words} times t^{power}"
    with_power = Model(lambda t, y: _exponential_with(power, t, y), np.exp, words)
    return MODELS | {"exponential": with_power}


def _exponential_with(power: int, t: np.ndarray, y: np.ndarray) -> tuple[float, Forecast]:
    """log mu = a + power log t + t log rho + b / t: a polynomial in t before rho^t has more terms
    than the highest, and b / t is the next one."""
    columns = np.stack([np.ones_like(t), t, 1.0 / t], axis=1)
    (a, slope, b), *_ = np.linalg.lstsq(columns, y - power * np.log(t))
    return float(slope), lambda later: a + power * np.log(later) + slope * later + b / later


# --- the result -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rate:
    """How mu falls; prints as one sentence.

    `kind` is exponential, algebraic, doubly exponential or none. `value` is the factor per layer
    (geometric mean over samples), the power p of t^-p, or the factor by which log mu grows; 1 when
    mu stays and None when there is too little to fit. `interval` holds it with 95 %: Student's t
    over samples, widened by `sensitivity`, the largest change of the estimate when the late window
    starts a quarter or half of its length later, or keeps every other layer only. A correction that
    outlives the run, as 1 / t does, is not in it.

    `late` is the window of layers fitted (medians over samples). `errors` are root mean square
    errors of log mu over the held-out last quarter, per model, and `margin` is the runner-up's over
    the winner's. `samples` counts which model each sample alone would choose, `values` are the
    estimates of the fitted samples and `left_out` says how many samples had too few layers.
    """

    kind: str
    sentence: str
    value: float | None = None
    standard_error: float | None = None
    sensitivity: float | None = None
    interval: tuple[float, float] | None = None
    late: tuple[int, int] | None = None
    margin: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    values: tuple[float, ...] = ()
    left_out: int = 0

    def __str__(self) -> str:
        return self.sentence


def collapse_rate(trajectory: Trajectory, relative: bool = False, power: int = 0) -> Rate:
    """Fit how mu, the distance to consensus, falls with depth.

    exponential         mu ~ C rho^t, or C t^power rho^t
    algebraic           mu ~ C t^-p
    doubly exponential  log mu_{t+1} = q log mu_t + C, q > 1 (DONG, arXiv 2103.03404: q = 3)
    none                mu stays, or grows

    Depth 0 is left out (t^-p has no value there). Values within a factor 100 of the floating-point
    floor, and all after them, are left out too, unless the log-scale engine made them. The late
    window starts where, of five starts from the first layer to the middle, the model best predicts
    the last quarter of the layers, and a model is preferred to a simpler one only when its error
    there (median over samples) is less than half. The coefficients are then fitted to the whole
    late window; a fall that its interval does not separate from none counts as none.

    `relative` sets mu against the mean token, mu / (sqrt(N) ||mean||): tokens that shrink or grow
    as a whole do not collapse by that. `power` is that of t which a defective multiplier brings:
    `predict` knows it, and measured mu cannot tell it from a slower rate.

    Raises ValueError for what is no trajectory, and for a power that is no number.

    >>> import dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.causal(8), dynsim.weights.Identity())
    >>> x0 = dynsim.tokens.gaussian(samples=4, n=8, d=3, seed=0)
    >>> rate = collapse_rate(dynsim.simulate(pure, x0, depth=40))
    >>> rate.kind, round(rate.value, 3)
    ('exponential', 0.5)
    """
    if not np.isfinite(real_number("the power of t", power)):
        raise ValueError(f"the power of t is a finite number; got {power}; use 0 for none")
    models = _models(power)
    fits = _fits(trajectory, relative, models)
    return fits if isinstance(fits, Rate) else _described(models, *fits)


def doubly_exponential(trajectory: Trajectory) -> float | None:
    """The factor by which log mu, relative to the mean token, grows per layer, if it falls so.

    q in log mu_{t+1} = q log mu_t + C (q = 3 in DONG, arXiv 2103.03404), as
    `collapse_rate` fits it with relative=True, but without its interval: that needs a quantile from
    scipy.special, whose import is an eighth of a short command's time.

    Parameters
    ----------
    trajectory : Trajectory
        With mu at every layer; those of the engine "logscale" have it below the floor too.

    Returns
    -------
    float or None
        The mean over samples; None where another law fits better or there are too few layers.

    Raises
    ------
    ValueError
        For what is no trajectory.

    Examples
    --------
    >>> import dynsim
    >>> from dynsim import masks, norms, tokens, weights
    >>> x0 = tokens.sphere(samples=2, n=8, d=4)
    >>> turning = weights.Weights(value=weights.Orthogonal(), seed=1)
    >>> for mask in (masks.complete(8), masks.causal(8)):
    ...     dynamics = dynsim.AttentionDynamics(mask, turning, norms.Unit())
    ...     factor = doubly_exponential(dynsim.simulate(dynamics, x0, 12, engine="logscale"))
    ...     print(factor and round(factor, 3))
    3.0
    None
    """
    fits = _fits(trajectory, relative=True, models=MODELS)
    if isinstance(fits, Rate) or fits.kind != "doubly exponential":
        return None
    model = MODELS[fits.kind]
    return float(model.shown(_coefficients(model, fits.windows).mean()))


class _Fits(NamedTuple):
    """The law that won and what it was chosen by."""

    kind: str
    windows: list[Window]
    errors: dict[str, float]
    alone: list[str]
    left_out: int


def _fits(trajectory: Trajectory, relative: bool, models: Mapping[str, Model]) -> _Fits | Rate:
    """What is known of the law; or, of too few layers, that nothing is."""
    check_instance("a trajectory", trajectory, Trajectory, "dynsim.simulate(...)")
    usable = _usable(trajectory, relative)
    fitted = [y for y in usable if len(y) >= _LEAST_LAYERS]
    left_out = len(usable) - len(fitted)
    if not fitted:
        layers = max(map(len, usable))
        if layers == trajectory.depth:
            reason = f"only {layers} layers, {_LEAST_LAYERS} are needed; run more layers"
        elif trajectory.follows_mu:
            reason = f"mu is zero after layer {layers}, {_LEAST_LAYERS} layers are needed"
        else:
            reason = (
                f"only {layers} layers above the floor, {_LEAST_LAYERS} are needed; use the "
                f"log-scale engine"
            )
        return Rate("none", f"no rate: {reason}", left_out=left_out)
    errors = np.array(
        [[_errors(y, start, models) for start in _STARTS] for y in fitted]
    )  # (S, 5, models)
    pooled = np.median(errors, axis=0)
    rounding = _ROUNDING * float(np.median([np.abs(y).max() for y in fitted]))
    best = dict(zip(MODELS, np.maximum(pooled.min(axis=0), rounding).tolist(), strict=True))
    kind = _choice(best)
    start = _STARTS[int(np.argmin(pooled[:, list(MODELS).index(kind)]))]
    alone = [
        _choice(dict(zip(MODELS, np.maximum(row.min(axis=0), rounding), strict=True)))
        for row in errors
    ]
    windows = [_late(y, start) for y in fitted if len(y) - int(start * len(y)) >= _LEAST_LATE]
    left_out += len(fitted) - len(windows)
    return _Fits(kind, windows, best, alone, left_out)


def is_above_floor(trajectory: Trajectory) -> np.ndarray:
    """Where rounding is at most a per cent of mu, (samples, T+1).

    Everywhere, where the engine followed mu below the floor.

    >>> import dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.causal(4), dynsim.weights.Identity())
    >>> run = dynsim.simulate(pure, dynsim.tokens.gaussian(samples=1, n=4, d=3), depth=60)
    >>> is_above_floor(run)[0, [0, 20, 60]]
    array([ True,  True, False])
    """
    if trajectory.follows_mu:
        return np.full(trajectory["mu"].shape, True)
    return trajectory["mu"] > _ABOVE_FLOOR * trajectory.floor


def _usable(trajectory: Trajectory, relative: bool) -> list[np.ndarray]:
    """log mu at depths 1, 2, ... of each sample, up to where it is last known."""
    size = trajectory["frobenius_norm"]
    with np.errstate(divide="ignore", invalid="ignore"):
        if "log10_mu" in trajectory.measures:
            logs = trajectory["log10_mu"] * np.log(10.0)
        else:
            logs = np.log(trajectory["mu"])
        if relative:
            share = np.exp(logs - np.log(size))
            logs = logs - np.log(size) - 0.5 * np.log1p(-(np.minimum(share, 1 - 1e-15) ** 2))
    known = np.isfinite(logs) & is_above_floor(trajectory)
    stops = np.where(known[:, 1:].all(axis=1), trajectory.depth, np.argmin(known[:, 1:], axis=1))
    return [row[1 : stop + 1] for row, stop in zip(logs, stops, strict=True)]


def _errors(y: np.ndarray, start: float, models: Mapping[str, Model]) -> list[float]:
    """Root mean square error of every model over the held-out end."""
    t = np.arange(1.0, len(y) + 1)
    first, cut = int(start * len(y)), len(y) - max(2, len(y) // 4)
    if cut - first < 3:
        return [np.inf] * len(models)
    errors = []
    with np.errstate(over="ignore"):  # a doubly exponential forecast may leave float64: inf
        for model in models.values():
            _, forecast = model.fit(t[first:cut], y[first:cut])
            errors.append(float(np.sqrt(np.mean((forecast(t[cut:]) - y[cut:]) ** 2))))
    return errors


def _choice(errors: dict[str, float]) -> str:
    """The best model, or a simpler one that errs at most twice as much; none only as the best."""
    least = min(errors.values())
    if errors["none"] <= least:
        return "none"
    return next(name for name in errors if name != "none" and _BETTER * errors[name] <= least)


def _late(y: np.ndarray, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Depths and log mu of the late window."""
    first = int(start * len(y))
    return np.arange(first + 1.0, len(y) + 1), y[first:]


def _coefficients(model: Model, windows: Sequence[Window]) -> np.ndarray:
    return np.array([model.fit(t, y)[0] for t, y in windows])


def _described(
    models: Mapping[str, Model],
    kind: str,
    windows: Sequence[Window],
    errors: dict[str, float],
    alone: list[str],
    left_out: int,
) -> Rate:
    """The winning model fitted to the late windows of all samples."""
    from scipy.special import stdtrit

    model = models[kind]
    coefficients = _coefficients(model, windows)
    centre, count = float(coefficients.mean()), len(coefficients)
    error = float(coefficients.std(ddof=1) / count**0.5) if count > 1 else 0.0
    moved = max(abs(other - centre) for other in _variations(model, windows))
    half = moved + (float(stdtrit(count - 1, 0.975)) * error if count > 1 else 0.0)
    value, low, high = (float(model.shown(centre + step)) for step in (0.0, -half, half))
    runner_up = min((name for name in errors if name != kind), key=errors.__getitem__)
    first, last = (int(v) for v in np.median([[t[0], t[-1]] for t, _ in windows], axis=0))
    margin = errors[runner_up] / errors[kind] if errors[kind] else np.inf
    words = model.words.format(f"{value:.6g} ({min(low, high):.6g} to {max(low, high):.6g})")
    falls = kind == "doubly exponential" or centre + half < 0
    sentence = (
        f"{words} over layers {first}-{last} of {_samples(count)}; this predicts the last quarter "
        f"of the layers {margin:.3g} times as well as the next best model, {runner_up}"
    )
    if margin < 1.0 / _BETTER:
        sentence += "; the two are not told apart"
    if left_out:
        sentence += f"; {_samples(left_out)} had too few layers above the floor"
    kind = kind if falls else "none"
    return Rate(
        kind,
        f"{kind}: {sentence}",
        value=value,
        standard_error=abs(float(model.shown(centre + error)) - value),
        sensitivity=abs(float(model.shown(centre + moved)) - value),
        interval=(min(low, high), max(low, high)),
        late=(first, last),
        margin=margin,
        errors=errors,
        samples={name: alone.count(name) for name in MODELS if name in alone},
        values=tuple(float(v) for v in model.shown(coefficients)),
        left_out=left_out,
    )


def _samples(count: int) -> str:
    return f"{count} sample{'s' * (count != 1)}"


def _variations(model: Model, windows: Sequence[Window]) -> list[float]:
    """The estimate with later starts of the window, and with every other layer."""
    cuts: list[Callable[[int], slice]] = [
        lambda n: slice(n // 4, None),
        lambda n: slice(n // 2, None),
        lambda n: slice(0, None, 2),
        lambda n: slice(1, None, 2),
    ]
    estimates = []
    for cut in cuts:
        parts = [(t[cut(len(t))], y[cut(len(t))]) for t, y in windows]
        fits = [model.fit(t, y)[0] for t, y in parts if len(t) >= 3]
        estimates += [float(np.mean(fits))] if fits else []
    return estimates
