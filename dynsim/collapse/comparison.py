"""What theory says of a run, beside what was measured: late rate, transient, proved bounds, and
the infinite-width limit of random networks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import check_instance, real_array
from dynsim.collapse.bounds import Bound, Bounds, mu_bounds
from dynsim.collapse.contraction import seconds
from dynsim.collapse.gram import MOST_SPREAD, Gram, infinite_width
from dynsim.collapse.predictions import Prediction, predict
from dynsim.collapse.rates import Rate, collapse_rate, is_above_floor
from dynsim.collapse.score_bounds import score_bounds
from dynsim.measures import mu
from dynsim.network.dynamics import AttentionDynamics, check_dynamics
from dynsim.network.parts import reason_against, unusual_parts
from dynsim.results.trajectory import Trajectory

if TYPE_CHECKING:
    pass

__all__ = ["MOST_TOKENS", "Comparison", "compare_with_theory"]

#: Tokens up to which bounds are computed: attention as dense matrices, N^3 work a layer.
MOST_TOKENS = 1024
#: Near consensus mu / ||X|| and what attention lacks of being uniform are this at most.
_NEAR = 0.1
#: Tokens up to which powers of the walk bound what QK-norm leaves of mu.
_WALK_TOKENS = 128
#: About how many seconds bounds take: at first, and where they need more digits.
_SECONDS, _PATIENCE = 5.0, 15.0
#: Multiply-adds that the infinite-width limit may take, 8 N^3 a layer and sample.
_WIDE_WORK = 5e10
#: Error of measured log10 mu, relative to 1 + |log10 mu|, by the tokens' type.
_ERRORS = {"float64": 1e-6, "float32": 1e-2}


@dataclass(frozen=True)
class Comparison:
    """The fitted rate, the predicted one and proved bounds; prints as lines.

    `prediction` is None where there is none, for the reason in `no_prediction`. `bounds` are those
    of the first samples, as many as are affordable; `measured` is their log10 mu, as deep, NaN
    where it is rounding. `bounds` is empty where they cannot be computed, for the reason in
    `no_bounds`. `departed` is the depth from which on the run, in floating point, is not the
    exact one any more, by sample; -1 where that is not known.
    `wide` is the infinite-width limit of the first samples, as many as are affordable; None where
    it does not apply, for the reason in `no_infinite_width`. `wide_measured` is their mu.
    The rate is fitted with the power of t that is predicted, where one is. `share` is mu / ||X|| at
    the end, `uneven` the largest |degree_i A_ij - 1| there, both in the median over samples.
    """

    rate: Rate
    prediction: Prediction | None
    no_prediction: str
    bounds: Bounds
    measured: np.ndarray
    share: float
    uneven: float
    no_bounds: str = ""
    departed: tuple[int, ...] = ()
    wide: Gram | None = None
    no_infinite_width: str = ""
    wide_measured: np.ndarray | None = None

    @property
    def comparable(self) -> bool:
        """True when the predicted rate holds for the end of the run: it lasts, and tokens are near
        consensus (`share` and `uneven` at most a tenth), or attention is uniform anywhere."""
        prediction = self.prediction
        if prediction is None or not prediction.rate or not prediction.lasts:
            return False
        return prediction.linear or max(self.share, self.uneven) <= _NEAR

    @property
    def sharpest(self) -> Bound | None:
        """The bound that is lowest at the end, in the median; None if none applies."""
        ends = {
            name: np.median(one.log10_bound[one.applies, -1])
            for name, one in self.bounds.items()
            if one.applies.any()
        }
        return self.bounds[min(ends, key=ends.__getitem__)] if ends else None

    @property
    def log10_excess(self) -> float:
        """log10 of how many times the sharpest bound exceeds mu at the end, in the median; NaN
        without a bound, inf where tokens are equal."""
        best = self.sharpest
        if best is None:
            return np.nan
        measured, bound = self.measured[best.applies, -1], best.log10_bound[best.applies, -1]
        followed = ~np.isnan(measured)
        if not followed.any():
            return np.nan
        with np.errstate(invalid="ignore"):  # equal tokens under a bound of 0
            excess = np.where(np.isneginf(measured), np.inf, bound - measured)
        return float(np.median(excess[followed]))

    def lines(self) -> list[tuple[str, str]]:
        """(name, what it says)."""
        predicted, transient = self.no_prediction, []
        if self.prediction is not None:
            predicted, shoulder = self.prediction.law, self.prediction.shoulder
            transient = [("transient", shoulder)] if shoulder else []
        those = sorted(self.bounds.values(), key=lambda one: not one.applies.any())
        named = ["bounded", *[""] * len(those)]
        bounded = [(name, str(one)) for name, one in zip(named, those, strict=False)]
        if self.no_bounds:
            bounded = [("bounded", self.no_bounds)]
        if self._parted:
            bounded.append(("", self._parted))
        return [
            ("fitted", str(self.rate)),
            ("predicted", predicted + self._agreement()),
            *transient,
            ("wide", self._wide_words()),
            *bounded,
        ]

    @property
    def wide_end(self) -> float:
        """The infinite-width limit of mu at the end, in the median; NaN without one."""
        return np.nan if self.wide is None else float(np.median(self.wide.mu[:, -1]))

    def _wide_words(self) -> str:
        """The infinite-width limit at the end, beside what was measured."""
        if self.wide is None or self.wide_measured is None:
            return f"no infinite-width limit: {self.no_infinite_width}"
        known = np.flatnonzero(np.isfinite(self.wide.mu).all(axis=0))
        first = f"scores spread by {self.wide.spread[:, 0].max():.2g} in a row at depth 0"
        if not len(known[1:]):
            reason = "above which softmax is too far from uniform"
            spread_out = self.wide.spread[:, 0].max() > MOST_SPREAD
            why = (
                f"{first}; {MOST_SPREAD} is the most, {reason}" if spread_out else "mu is rounding"
            )
            return f"no infinite-width limit: {why}"
        depth = known[-1]
        limit, mu = (np.median(a[:, depth]) for a in (self.wide.mu, self.wide_measured))
        rest = "" if depth == self.wide.mu.shape[1] - 1 else ", as deep as it goes"
        return (
            f"in the limit of infinite width mu = {limit:.4g} at depth {depth}{rest}; measured "
            f"{mu:.4g}, {mu / limit:.3g} times that; {first}, by "
            f"{self.wide.spread[:, depth].max():.2g} there"
        )

    @property
    def _parted(self) -> str:
        """What is to be said of samples that left the exact run."""
        those = [depth for depth in self.departed if depth >= 0]
        if not those:
            return ""
        return (
            f"note: by depth {min(those)} rounding has led {len(those)} of {len(self.departed)} "
            f"samples away from the exact run, which the bounds are for; their measured mu is that "
            f"of another start nearby"
        )

    def _agreement(self) -> str:
        prediction, fitted = self.prediction, self.rate
        if prediction is None or not prediction.rate:
            return ""
        if not prediction.lasts:
            return "; it does not last, so that it is not compared with the fit"
        if not self.comparable:
            return (
                f"; not compared with the fit, for the run is not near consensus: mu is "
                f"{self.share:.2g} of ||X||, attention {self.uneven:.2g} from uniform"
            )
        if fitted.kind != "exponential" or fitted.value is None or fitted.interval is None:
            return ""
        share = fitted.value / prediction.rate - 1.0
        error = prediction.error + 2.0 * prediction.rate * prediction.standard_error
        inside = fitted.interval[0] - error <= prediction.rate <= fitted.interval[1] + error
        side, where = "above" if share > 0 else "below", "inside" if inside else "outside"
        words = f"; the fitted factor is {abs(share):.2g} {side} it, {where} what errors allow"
        return words + ", which a power of t may explain" * (prediction.at_most and not inside)

    @property
    def distance(self) -> str:
        """How far the sharpest bound is from the truth, in words."""
        best = self.sharpest
        if best is None:
            return self.no_bounds or "no bound applies"
        depth, end = best.log10_bound.shape[1] - 1, np.median(self.measured[best.applies, -1])
        if np.isnan(self.log10_excess):
            bound = np.median(best.log10_bound[best.applies, -1])
            return (
                f"at depth {depth} the sharpest bound ({best.name}) is 10^{bound:.4g}, and what is "
                f"measured of mu is rounding"
            )
        if np.isneginf(end):
            return f"at depth {depth} mu is zero, which no bound reaches"
        return (
            f"at depth {depth} the sharpest bound ({best.name}) is 10^{self.log10_excess:.4g} "
            f"times mu = 10^{end:.4g}"
        )

    def __str__(self) -> str:
        return "\n".join(f"{name:<10}{words}" for name, words in self.lines())

    def curves(self, frobenius_norm: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """log10 of bounds and of the predicted fall by name, from depth 0; NaN where there is none.

        Bounds are medians over the samples to which they apply. The predicted fall ends where mu
        ends and goes back over half of the layers; there is none where it does not hold.

        frobenius_norm : array (samples, T+1), optional
            That of the trajectory: curves are then shares of it, sample by sample, and the
            infinite-width limit a share of its own.
        """
        samples, depth = self.measured.shape
        size = np.zeros((samples, depth))
        if frobenius_norm is not None:
            with np.errstate(divide="ignore"):
                size = np.log10(frobenius_norm[:samples, :depth])
        curves = {
            f"bound: {name}": np.median(one.log10_bound[one.applies] - size[one.applies], axis=0)
            for name, one in self.bounds.items()
            if one.applies.any()
        }
        predicted = self.prediction
        if self.comparable and predicted is not None:
            depths = np.arange(depth)
            fall = (depths - depths[-1]) * np.log10(predicted.rate)
            if not predicted.at_most:
                fall += predicted.power * np.log10(np.maximum(depths, 1) / max(depths[-1], 1))
            name = "predicted slope" + ", powers of t left out" * predicted.at_most
            ending = np.median(self.measured[:, -1:] + fall - size, axis=0)
            curves[name] = np.where(depths >= depths[-1] // 2, ending, np.nan)
        if self.wide is not None and np.isfinite(self.wide.mu[:, 1:]).all(axis=0).any():
            own = 1.0 if frobenius_norm is None else self.wide.frobenius_norm
            curves["infinite width"] = np.median(np.log10(self.wide.mu / own), axis=0)
        return curves

    def _least_excess(self, bound: Bound) -> float:
        """log10 of how many times a bound exceeds measured mu where it is nearest, over samples and
        depths; NaN where it does not apply. Rounding may make it a little less than 0."""
        with np.errstate(invalid="ignore"):  # equal tokens under a bound of 0
            excess = (bound.log10_bound - self.measured)[bound.applies]
        return float(np.nanmin(excess, initial=np.inf)) if excess.size else np.nan

    def to_dict(self) -> dict:
        """JSON-ready; bounds as medians over samples."""
        prediction = self.prediction
        return {
            "rate": _plain(asdict(self.rate)),
            "prediction": None
            if prediction is None
            else _plain(
                {
                    **{name: getattr(prediction, name) for name in _PREDICTED},
                    "transient": prediction.transient and asdict(prediction.transient),
                    "kreiss": prediction.kreiss,
                    "sentence": str(prediction),
                }
            ),
            "no_prediction": self.no_prediction,
            "comparable": self.comparable,
            "bounds": {
                name: {
                    "source": one.source,
                    "applies": int(one.applies.sum()),
                    "sentence": str(one),
                    "least_log10_excess": _plain(self._least_excess(one)),
                    "log10_bound": _plain(np.median(one.log10_bound[one.applies], axis=0).tolist())
                    if one.applies.any()
                    else None,
                }
                for name, one in self.bounds.items()
            },
            "no_bounds": self.no_bounds,
            "bounded_samples": len(self.measured),
            "departed": list(self.departed),
            "log10_excess": _plain(self.log10_excess),
            "infinite_width": None
            if self.wide is None
            else {
                "mu": _plain(np.median(self.wide.mu, axis=0).tolist()),
                "spread": _plain(np.median(self.wide.spread, axis=0).tolist()),
                "samples": len(self.wide.mu),
            },
            "no_infinite_width": self.no_infinite_width,
        }


_PREDICTED = (
    *("rate", "power", "at_most", "growth", "relative", "method", "standard_error", "error"),
    *("exponent", "lasts", "linear"),
)


def _plain(value: object) -> object:
    """The same with plain numbers, None for what is not finite."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def compare_with_theory(
    dynamics: AttentionDynamics, x0: np.ndarray, trajectory: Trajectory
) -> Comparison:
    """Theory beside the measurements of a trajectory of `dynamics` from the tokens `x0` at layer 0.

    The rate is fitted to the trajectory (`collapse_rate`), predicted by the linearisation across
    consensus (`predict`), and bounded (`mu_bounds`, for the exact run from `x0`) for as many of
    the first samples, as deep, as some seconds allow. Random networks have their infinite-width
    limit beside them (`dynsim.gram`), with dropout too, for which there is no rate and no bound.

    Parameters
    ----------
    x0 : array (N, d) or (samples, N, d)
        The tokens from which the trajectory was made.
    trajectory : Trajectory
        From layer 0; rates are per layer, distances as log10.

    Raises
    ------
    ValueError
        For one token, above 1024 tokens, and when the trajectory does not start from `x0`.
    RuntimeError
        When a bound lies below mu, which would be an error of dynsim.

    Examples
    --------
    >>> import dynsim
    >>> pure = AttentionDynamics(dynsim.masks.causal(6), dynsim.weights.Identity())
    >>> x0 = dynsim.tokens.gaussian(samples=2, n=6, d=2)
    >>> run = dynsim.simulate(pure, x0, depth=60, engine="logscale")
    >>> theory = compare_with_theory(pure, x0, run)
    >>> round(theory.rate.value, 6), theory.prediction.rate, theory.sharpest.name
    (0.5, 0.5, 'Dobrushin')
    """
    check_dynamics(dynamics)
    check_instance("a trajectory", trajectory, Trajectory, "dynsim.simulate(...)")
    dynamics.check_tokens(x0)
    x0 = real_array("tokens", x0, own=(np.float32,))
    x0 = x0.reshape(-1, *x0.shape[-2:])
    n = x0.shape[1]
    if not 2 <= n <= MOST_TOKENS:
        raise ValueError(f"theory is for 2 to {MOST_TOKENS} tokens; got {n}")
    sizes = trajectory["mu"][:, 0]
    if sizes.shape != (len(x0),) or not np.allclose(mu(x0), sizes, rtol=1e-6, atol=1e-300):
        raise ValueError("the trajectory does not start from x0; give the tokens it was made from")
    try:
        prediction, no_prediction = predict(dynamics, x0), ""
    except (ValueError, FloatingPointError) as reason:
        prediction, no_prediction = None, f"no prediction: {reason}"
    bounds, no_bounds = _affordable(dynamics, x0, trajectory.depth)
    samples, depths = bounds.log10_mu.shape[1:]
    followed = np.where(is_above_floor(trajectory), trajectory["log10_mu"], np.nan)
    measured = followed[:samples, :depths]
    departed = _compare(bounds, measured, _ERRORS[str(trajectory.final.dtype)])
    power = 0
    if prediction is not None and prediction.lasts and not prediction.at_most:
        power = prediction.power
    share, uneven = _nearness(dynamics, trajectory, samples)
    wide, no_infinite_width, wide_measured = _wide(dynamics, x0, trajectory)
    return Comparison(
        collapse_rate(trajectory, power=power),
        prediction,
        no_prediction,
        bounds,
        measured,
        share,
        uneven,
        no_bounds,
        departed,
        wide,
        no_infinite_width,
        wide_measured,
    )


def _wide(
    dynamics: AttentionDynamics, x0: np.ndarray, trajectory: Trajectory
) -> tuple[Gram | None, str, np.ndarray | None]:
    """The infinite-width limit of the first samples, why there is none, and their measured mu."""
    work = 8 * x0.shape[1] ** 3 * trajectory.depth
    samples = min(len(x0), max(1, int(_WIDE_WORK / work)))
    try:
        limit = infinite_width(dynamics, x0[:samples], trajectory.depth)
    except ValueError as reason:
        return None, str(reason), None
    return limit, "", trajectory["mu"][:samples]


def _nearness(
    dynamics: AttentionDynamics, trajectory: Trajectory, samples: int
) -> tuple[float, float]:
    """(mu / ||X||, largest |degree_i A_ij - 1|) at the end, in the median over samples."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = trajectory["log10_mu"][:, -1] - np.log10(trajectory["frobenius_norm"][:, -1])
    allowed, last = dynamics.allowed(), max(trajectory.depth - 1, 0)
    degrees = allowed.sum(axis=1, keepdims=True)
    uneven = [
        np.abs(degrees * dynamics.attention(x, last) - 1.0)[:, allowed].max()
        for x in trajectory.final[:samples]
    ]
    return float(10.0 ** np.median(share)), float(np.median(uneven))


def _affordable(dynamics: AttentionDynamics, x0: np.ndarray, depth: int) -> tuple[Bounds, str]:
    """The bounds of as many of the first samples, as deep, as some seconds allow; or why none."""
    n, d = x0.shape[1:]
    if dynamics.dropout.active:
        return _nothing(len(x0), depth), "no bounds: layers are random with dropout"
    if unusual_parts(dynamics):
        known = _from_scores(dynamics, x0, depth)
        return known, "" if known else f"no bounds: {reason_against(dynamics)}"
    edges = dynamics.layout.n_edges
    layers = int(_SECONDS / seconds(n, d, edges, 1))
    depth = max(1, min(depth, layers))
    samples = max(1, min(len(x0), layers // depth))
    try:
        return mu_bounds(dynamics, x0[:samples], depth, patience=_PATIENCE / samples), ""
    except ImportError as missing:
        return _nothing(samples, depth), str(missing)


def _from_scores(dynamics: AttentionDynamics, x0: np.ndarray, depth: int) -> Bounds:
    """The bounds that apply where QK-norm's gain bounds the scores; none otherwise."""
    bounds = _nothing(len(x0), depth)
    if dynamics.qk_norm.active and x0.shape[1] <= _WALK_TOKENS:
        try:
            found = score_bounds(dynamics, x0, depth)
        except ValueError:  # another part, or a mask that brings tokens together nowhere
            return bounds
        bounds.update({name: one for name, one in found.items() if one.applies.any()})
    return bounds


def _nothing(samples: int, depth: int) -> Bounds:
    """No bounds, and no exact run to compare with."""
    anywhere = np.array([-np.inf, np.inf])[:, None, None]
    return Bounds({}, np.broadcast_to(anywhere, (2, samples, depth + 1)))


def _compare(bounds: Bounds, measured: np.ndarray, error: float) -> tuple[int, ...]:
    """From which depth on a sample is not the exact run any more; -1 for never, or not known.

    Raises RuntimeError when a bound lies below what it bounds: that is our error.
    """
    low, high = bounds.log10_mu
    error = error * (1.0 + np.abs(np.nan_to_num(measured, posinf=0.0, neginf=0.0)))
    with np.errstate(invalid="ignore"):
        parted = (measured > high + error) | (measured < low - error)
        parted = np.logical_or.accumulate(parted, axis=1)
        for name, one in bounds.items():
            false = (one.log10_bound < low) | (one.log10_bound < measured - error) & ~parted
            if false.any():
                sample, depth = (int(k) for k in np.argwhere(false)[0])
                bound = one.log10_bound[sample, depth]
                truth = max(measured[sample, depth], low[sample, depth])
                raise RuntimeError(
                    f"internal error: the bound {name!r} at depth {depth} of sample {sample} is "
                    f"10^{bound:.6g}, below mu = 10^{truth:.6g}; please report this"
                )
    return tuple(int(np.argmax(row)) if row.any() else -1 for row in parted)
