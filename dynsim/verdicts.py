"""The verdict on a trajectory, in one sentence: does it collapse, how fast, to what?"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from dynsim.measures import floor
from dynsim.trajectory import Trajectory

__all__ = ["Verdict", "verdict"]

#: A decline of the logarithm by less than this over the fitted layers counts as staying.
_LEAST_DECLINE = 0.05
#: Below this share of ||X||_F a distance counts as gone.
_GONE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """`kind` is one of

    floor       mu reached the float64 floor at `layer`; later values are rounding
    collapsed   mu fell below 1e-6 of ||X||_F
    collapsing  mu still falls against the mean token, by the factor `rate` a layer
    rank one    the distance to rank one is gone or falls by `rate`, while mu stays
    staying     neither falls; `rank` is the median numerical rank at the end

    `rate` is the geometric mean over samples, `rate_sd` the standard deviation of log(rate) over
    samples, `fitted` the layers used.
    """

    kind: str
    sentence: str
    rate: float | None = None
    rate_sd: float | None = None
    fitted: tuple[int, int] | None = None
    layer: int | None = None
    rank: int | None = None

    def to_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        return self.sentence


def verdict(trajectory: Trajectory) -> Verdict:
    """Judge a trajectory by mu, set against the mean token, and by the distance to rank one.

    X = 1 mean + Z with ||Z||_F = mu and ||X||_F^2 = N ||mean||^2 + mu^2. The rate is the slope of
    log(mu / (sqrt(N) ||mean||)) over the second half of the depth, or of what lies above the
    floor: tokens that shrink or grow as a whole do not collapse by that.
    """
    size = trajectory["frobenius_norm"]
    if not size[:, -1].any():
        return Verdict("collapsed", "collapsed: every token is zero", layer=trajectory.depth)
    relative = _share(trajectory["mu"], size)
    below = np.median(relative, axis=0) <= floor(1.0)
    if below.any():
        return _at_floor(relative, int(np.argmax(below)))
    rate, sd, fitted = _late_rate(trajectory.depths, relative, against_mean=True)
    now = float(np.median(relative[:, -1]))
    fit = _fit_words(", falling by", rate, fitted)
    if now < _GONE:
        return Verdict("collapsed", f"collapsed: mu is {now:.1e} of ||X||{fit}", rate, sd, fitted)
    if _declines(rate, sd, fitted, trajectory.n_samples):
        sentence = (
            f"collapsing: mu falls by a factor {rate:.4g} per layer against the mean token "
            f"(fitted over layers {fitted[0]}-{fitted[1]}) and is now {now:.2g} of ||X||"
        )
        return Verdict("collapsing", sentence, rate, sd, fitted)
    return _rank_one(trajectory, now) or _staying(trajectory, now)


def _share(distance, size):
    return np.divide(distance, size, out=np.zeros_like(distance), where=size > 0)


def _at_floor(relative: np.ndarray, layer: int) -> Verdict:
    rate, sd, fitted = _late_rate(np.arange(layer), relative[:, :layer], against_mean=True)
    sentence = (
        f"collapsed: floor reached at layer {layer}; mu is then rounding of equal tokens, and "
        f"later values say nothing{_fit_words('; before, it fell by', rate, fitted)}"
    )
    return Verdict("floor", sentence, rate, sd, fitted, layer=layer)


def _rank_one(trajectory: Trajectory, now: float) -> Verdict | None:
    """A verdict when tokens line up without agreeing (antipodal, or of different length)."""
    if "rank_one_distance" not in trajectory.measures:
        return None
    depths, distance = trajectory.recorded("rank_one_distance")
    relative = _share(distance, trajectory["frobenius_norm"][:, depths])
    last = float(np.median(relative[:, -1]))
    if last < _GONE:
        sentence = (
            f"collapsed to rank one but not to consensus: the distance to rank one is {last:.1e} "
            f"of ||X|| while mu stays at {now:.2g} of it"
        )
        return Verdict("rank one", sentence, rank=1)
    rate, sd, fitted = _late_rate(depths, relative)
    if not _declines(rate, sd, fitted, trajectory.n_samples):
        return None
    sentence = (
        f"collapsing to rank one but not to consensus: the distance to rank one falls by a "
        f"factor {rate:.4g} per layer (fitted over layers {fitted[0]}-{fitted[1]}) to {last:.2g} "
        f"of ||X||, while mu stays at {now:.2g} of it"
    )
    return Verdict("rank one", sentence, rate, sd, fitted)


def _staying(trajectory: Trajectory, now: float) -> Verdict:
    if "rank" not in trajectory.measures:
        return Verdict("staying", f"staying: mu is {now:.2g} of ||X|| and does not fall")
    rank = int(np.median(trajectory.recorded("rank")[1][:, -1]))
    sentence = f"staying at rank {rank}: mu is {now:.2g} of ||X|| and does not fall"
    return Verdict("staying", sentence, rank=rank)


def _late_rate(depths: np.ndarray, relative: np.ndarray, against_mean: bool = False):
    """(factor per layer, sd of its log over samples, (first, last layer)) over the second half.

    `relative` is a share of ||X||_F; `against_mean` turns mu / ||X|| into mu / (sqrt(N) ||mean||).
    """
    use = depths >= (depths[-1] / 2 if len(depths) else 0)
    if use.sum() < 3:
        use = np.ones(len(depths), bool)
    usable = (relative > floor(1.0)).all(axis=0) & use
    if usable.sum() < 2:
        return None, None, None
    at = depths[usable]
    share = relative[:, usable]
    if against_mean:
        share = share / np.sqrt(np.maximum(1.0 - share**2, floor(1.0)))
    slopes = np.polyfit(at, np.log(share).T, 1)[0]
    sd = float(slopes.std(ddof=1)) if len(slopes) > 1 else 0.0
    return float(np.exp(slopes.mean())), sd, (int(at[0]), int(at[-1]))


def _declines(rate, sd, fitted, n_samples: int) -> bool:
    if rate is None:
        return False
    fall = -np.log(rate)
    return fall * (fitted[1] - fitted[0]) > _LEAST_DECLINE and fall > 2 * sd / n_samples**0.5


def _fit_words(lead: str, rate, fitted) -> str:
    if rate is None:
        return ""
    return f"{lead} a factor {rate:.3g} per layer (fitted over layers {fitted[0]}-{fitted[1]})"
