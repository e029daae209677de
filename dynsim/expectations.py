"""What theory says of a run, beside what was measured: late rate, transient, certified bounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from dynsim.certificates import Certificate, Certificates, certificates
from dynsim.dynamics import AttentionDynamics
from dynsim.measures import mu
from dynsim.predictions import Prediction, predict
from dynsim.rates import Rate, collapse_rate
from dynsim.simulation import Overflow, Record, simulate
from dynsim.trajectory import Trajectory

__all__ = ["MOST_TOKENS", "Expectation", "expect"]

#: Tokens up to which bounds are computed: attention as dense matrices, N^3 work a layer.
MOST_TOKENS = 1024
#: Near consensus mu / ||X|| and what attention lacks of being uniform are this at most.
_NEAR = 0.1
#: Work for bounds, in operations on numbers, and numbers in the states they are computed from.
_WORK, _NUMBERS = 1e10, 5e7


@dataclass(frozen=True)
class Expectation:
    """The fitted rate, the predicted one and certified bounds; prints as lines.

    `prediction` is None where there is none, for the reason in `unpredicted`. The bounds are those
    of the first samples, as many as are affordable; `measured` is their log10 mu, as deep.
    The rate is fitted with the power of t that is predicted, where one is. `share` is mu / ||X|| at
    the end, `uneven` the largest |degree_i A_ij - 1| there, both in the median over samples.
    """

    rate: Rate
    prediction: Prediction | None
    unpredicted: str
    certificates: Certificates
    measured: np.ndarray
    share: float
    uneven: float

    @property
    def comparable(self) -> bool:
        """True when the predicted rate holds for the end of the run: it lasts, and tokens are near
        consensus (`share` and `uneven` at most a tenth), or attention is uniform anywhere."""
        found = self.prediction
        if found is None or not found.rate or not found.lasts:
            return False
        return found.linear or max(self.share, self.uneven) <= _NEAR

    @property
    def sharpest(self) -> Certificate | None:
        """The certificate with the lowest bound at the end, in the median; None if none applies."""
        ends = {
            name: np.median(one.log10_bound[one.applies, -1])
            for name, one in self.certificates.items()
            if one.applies.any()
        }
        return self.certificates[min(ends, key=ends.get)] if ends else None

    @property
    def log10_excess(self) -> float:
        """log10 of how many times the sharpest bound exceeds mu at the end, in the median; NaN
        without a bound, inf where tokens are equal."""
        best = self.sharpest
        if best is None:
            return np.nan
        measured, bound = self.measured[best.applies, -1], best.log10_bound[best.applies, -1]
        with np.errstate(invalid="ignore"):  # equal tokens under a bound of 0
            return float(np.median(np.where(np.isneginf(measured), np.inf, bound - measured)))

    def lines(self) -> list[tuple[str, str]]:
        """(name, what it says)."""
        found = self.prediction
        predicted = self.unpredicted if found is None else found.law
        transient = [("transient", found.shoulder)] if found and found.shoulder else []
        those = sorted(self.certificates.values(), key=lambda one: not one.applies.any())
        named = ["certified", *[""] * len(those)]
        certified = [(name, str(one)) for name, one in zip(named, those, strict=False)]
        return [
            ("fitted", str(self.rate)),
            ("predicted", predicted + self._agreement()),
            *transient,
            *certified,
        ]

    def _agreement(self) -> str:
        found, fitted = self.prediction, self.rate
        if found is None or not found.rate:
            return ""
        if not found.lasts:
            return "; it does not last, so that it is not compared with the fit"
        if not self.comparable:
            return (
                f"; not compared with the fit, for the run is not near consensus: mu is "
                f"{self.share:.2g} of ||X||, attention {self.uneven:.2g} from uniform"
            )
        if fitted.kind != "exponential":
            return ""
        share = fitted.value / found.rate - 1.0
        error = found.error + 2.0 * found.rate * found.standard_error
        inside = fitted.interval[0] - error <= found.rate <= fitted.interval[1] + error
        side, where = "above" if share > 0 else "below", "inside" if inside else "outside"
        words = f"; the fitted factor is {abs(share):.2g} {side} it, {where} what errors allow"
        return words + ", which a power of t may explain" * (found.at_most and not inside)

    @property
    def distance(self) -> str:
        """How far the sharpest bound is from the truth, in words."""
        best = self.sharpest
        if best is None:
            return "no certificate applies"
        depth, end = best.log10_bound.shape[1] - 1, np.median(self.measured[best.applies, -1])
        if np.isneginf(end):
            return f"at depth {depth} mu is zero, which no bound reaches"
        return (
            f"at depth {depth} the sharpest bound ({best.name}) is 10^{self.log10_excess:.4g} "
            f"times mu = 10^{end:.4g}"
        )

    def __str__(self) -> str:
        return "\n".join(f"{name:<10}{words}" for name, words in self.lines())

    def curves(self) -> dict[str, np.ndarray]:
        """log10 of bounds and of the predicted fall by name, from depth 0; NaN where there is none.

        Bounds are medians over the samples to which they apply. The predicted fall ends where mu
        ends and goes back over half of the layers; there is none where it does not hold.
        """
        found = {
            f"bound: {name}": np.median(one.log10_bound[one.applies], axis=0)
            for name, one in self.certificates.items()
            if one.applies.any()
        }
        predicted = self.prediction
        if self.comparable:
            measured = np.median(self.measured, axis=0)
            depths = np.arange(len(measured))
            fall = (depths - depths[-1]) * np.log10(predicted.rate)
            if not predicted.at_most:
                fall += predicted.power * np.log10(np.maximum(depths, 1) / max(depths[-1], 1))
            name = "predicted slope" + ", powers of t left out" * predicted.at_most
            found[name] = np.where(depths >= depths[-1] // 2, measured[-1] + fall, np.nan)
        return found

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
            "unpredicted": self.unpredicted,
            "comparable": self.comparable,
            "certificates": {
                name: {
                    "source": one.source,
                    "applies": int(one.applies.sum()),
                    "sentence": str(one),
                    "log10_bound": _plain(np.median(one.log10_bound[one.applies], axis=0).tolist())
                    if one.applies.any()
                    else None,
                }
                for name, one in self.certificates.items()
            },
            "certified_samples": len(self.measured),
            "log10_excess": _plain(self.log10_excess),
        }


_PREDICTED = ("rate", "power", "at_most", "growth", "relative", "method", "standard_error", "error")
_PREDICTED += ("exponent", "lasts", "linear")


def _plain(value):
    """The same with plain numbers, None for what is not finite."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def expect(dynamics: AttentionDynamics, x0, trajectory: Trajectory) -> Expectation:
    """Lay theory beside a trajectory of `dynamics` that starts from the tokens `x0` at layer 0.

    The rate is fitted to the trajectory (`collapse_rate`), predicted by the linearisation across
    consensus (`predict`), and bounded (`certificates`) for as many of the first samples as the
    bounds, which need every state and dense attention, can be afforded; these are simulated again.

    The bounds go as deep as one sample can be afforded (beyond some 10^10 operations they end).

    Raises ValueError for one token, above 1024 tokens, and when the trajectory does not start from
    `x0`.

    >>> import dynsim
    >>> pure = AttentionDynamics(dynsim.masks.causal(6), dynsim.weights.Identity())
    >>> x0 = dynsim.tokens.gaussian(samples=2, n=6, d=2)
    >>> found = expect(pure, x0, dynsim.simulate(pure, x0, depth=60, engine="logscale"))
    >>> round(found.rate.value, 6), found.prediction.rate, found.sharpest.name
    (0.5, 0.5, 'Dobrushin')
    """
    x0 = np.asarray(x0)
    x0 = x0.reshape(-1, *x0.shape[-2:])
    n, d = x0.shape[1:]
    if not 2 <= n <= MOST_TOKENS:
        raise ValueError(f"theory is for 2 to {MOST_TOKENS} tokens; got {n}")
    sizes = trajectory["mu"][:, 0]
    if sizes.shape != (len(x0),) or not np.allclose(mu(x0), sizes, rtol=1e-6, atol=1e-300):
        raise ValueError("the trajectory does not start from x0; give the tokens it was made from")
    layers = int(min(_WORK / n**3, _NUMBERS / (n * d)))  # that can be afforded, of all samples
    depth = max(1, min(trajectory.depth, layers))
    samples = max(1, min(len(x0), layers // depth))
    record = Record(measures=(), states=1)
    try:
        states = simulate(dynamics, x0[:samples], depth, record=record, engine="numba").states
    except Overflow as ended:
        states = ended.trajectory.states
        depth = states.shape[1] - 1
    try:
        prediction, unpredicted = predict(dynamics, x0), ""
    except (ValueError, FloatingPointError) as reason:
        prediction, unpredicted = None, f"no prediction: {reason}"
    known = prediction is not None and prediction.lasts and not prediction.at_most
    return Expectation(
        collapse_rate(trajectory, power=prediction.power if known else 0),
        prediction,
        unpredicted,
        certificates(dynamics, states),
        trajectory["log10_mu"][:samples, : depth + 1],
        *_nearness(dynamics, trajectory, samples),
    )


def _nearness(dynamics, trajectory, samples: int) -> tuple[float, float]:
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
