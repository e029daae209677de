"""The verdict on a trajectory, in one sentence: does it collapse, how fast, to what?

Every sample is judged by itself, for one network may collapse some inputs and keep others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from dynsim._values import check_instance
from dynsim.collapse.rates import doubly_exponential
from dynsim.measures import floor, rank_is_sure
from dynsim.results.trajectory import Trajectory

__all__ = ["Verdict", "from_log", "groups", "together", "verdict"]

#: Below this share of ||X||_F a distance counts as gone.
_GONE = 1e-6
#: A fall that has left more than this share of the largest distance is slow: nothing has collapsed,
#: and the fall may stop.
_SLOW = 0.5
#: A change of the logarithm by less than this over the fitted layers counts as none: 5% of a
#: distance cannot be seen in a figure over decades.
_LEAST_CHANGE = 0.05
#: A slope is fitted to so many depths at least, in the second half of a run.
_LEAST_POINTS = 4
_RATE_NEEDS = f"a rate needs {2 * (_LEAST_POINTS - 1)} layers"
#: An error of log10 mu that a sentence about it mentions.
_VISIBLE = 0.05
#: Two halves of a fit whose slopes differ by less than this share have a constant rate.
_STEADY = 0.25


@dataclass(frozen=True)
class Verdict:
    """`sentence` says it with its numbers, `headline` in a few words. `kind` is one of

    floor       mu reached the floating-point floor, first at `layer`; later values are rounding
    collapsed   mu fell below 1e-6 of ||X||_F, or is exactly 0 from `layer` on
    collapsing  mu has lost half of its largest share of ||X||_F, or more, and still falls
    slow        mu, or else the distance to rank one, falls, and has not lost half yet
    rank one    the distance to rank one is gone, or has lost half and still falls, while mu stays
    growing     mu grows
    staying     none of these; `rank` is the median numerical rank at the end, not `rank_is_sure`
                where a singular value of a sample is near the edge
    short       fewer layers than a rate needs, and mu has not lost half
    zero        every token became zero, first at `layer`
    mixed       samples differ: see `samples`, {kind: how many}
    none        nothing to judge: one token, or no layer

    Distances are shares of ||X||_F, medians over samples; a change by less than 5% over the fitted
    layers counts as none. `rate` is the factor per layer (geometric mean over samples) in the
    layers `fitted`, `rate_sd` the standard deviation of its logarithm over samples, `steady`
    whether both halves of the fit agree.
    """

    kind: str
    sentence: str
    rate: float | None = None
    rate_sd: float | None = None
    fitted: tuple[int, int] | None = None
    steady: bool | None = None
    layer: int | None = None
    rank: int | None = None
    rank_is_sure: bool | None = None
    samples: dict[str, int] = field(default_factory=dict)
    headline: str = ""

    def to_dict(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        return self.sentence


def verdict(trajectory: Trajectory) -> Verdict:
    """Judge a trajectory by mu and by the distance to rank one, both as shares of ||X||_F.

    X = 1 mean + Z with ||Z||_F = mu and ||X||_F^2 = N ||mean||^2 + mu^2: tokens that shrink or grow
    as a whole do not collapse by that. A rate is the slope of log(mu / ||X||_F) over the second
    half of what lies above the floor, sample by sample. Raises ValueError for what is
    no trajectory.

    >>> import dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.causal(4), dynsim.weights.Identity())
    >>> run = dynsim.simulate(pure, dynsim.tokens.gaussian(samples=2, n=4, d=3), depth=30)
    >>> verdict(run).kind
    'collapsed'
    """
    check_instance("a trajectory", trajectory, Trajectory, "dynsim.simulate(...)")
    return together(trajectory, groups(trajectory))


def together(trajectory: Trajectory, parts: Sequence[tuple[Verdict, np.ndarray]]) -> Verdict:
    """One verdict on all `groups` of a trajectory."""
    if len(parts) == 1:
        ((one, _),) = parts
        return replace(one, sentence=one.sentence + _caveat(trajectory))
    total = trajectory.n_samples
    counts: dict[str, int] = {}
    phrases: list[str] = []
    headlines: list[str] = []
    for part, which in parts:
        n = int(which.sum())
        counts[part.kind] = counts.get(part.kind, 0) + n
        phrases.append(f"{n} of {total} samples {part.sentence}")
        headlines.append(f"{n}{'' if headlines else f' of {total} samples'}: {part.headline}")
    sentence = f"mixed: {'; '.join(phrases)}{_caveat(trajectory)}"
    return Verdict("mixed", sentence, samples=counts, headline="; ".join(headlines))


def groups(trajectory: Trajectory) -> list[tuple[Verdict, np.ndarray]]:
    """The samples by what became of them, the largest group first.

    Samples that have not collapsed are one group, unless some have lost half of their largest
    mu / ||X||_F and the others, in the median, have kept more than twice as much.

    Returns
    -------
    list of (Verdict, array of bool (samples,))
        The verdict on a group, and which samples are in it; each sample is in one group.

    Examples
    --------
    >>> import dynsim
    >>> pure = dynsim.AttentionDynamics(dynsim.masks.local(12), dynsim.weights.Identity())
    >>> x0 = dynsim.tokens.gaussian(samples=3, n=12, d=4)
    >>> x0[0] = 1.0
    >>> for one, which in groups(dynsim.simulate(pure, x0, depth=60)):
    ...     print(one.kind, which)
    collapsing [False  True  True]
    floor [ True False False]
    """
    check_instance("a trajectory", trajectory, Trajectory, "dynsim.simulate(...)")
    everything = np.ones(trajectory.n_samples, dtype=bool)
    if trajectory.final.shape[1] == 1:
        words = "one token: there is nothing to collapse"
        return [(Verdict("none", words, headline=words), everything)]
    if trajectory.depth == 0:
        words = "no layer was computed"
        return [(Verdict("none", words, headline=words), everything)]
    outcome = _outcomes(trajectory)
    judged = _judged(trajectory, outcome)
    if {"open", "lost"} <= judged.keys() and judged["open"].kind == judged["lost"].kind:
        outcome[outcome == "lost"] = "open"
        judged = _judged(trajectory, outcome)
    parts = [(one, outcome == name) for name, one in judged.items()]
    return sorted(parts, key=lambda part: -int(part[1].sum()))


def _judged(trajectory: Trajectory, outcome: np.ndarray) -> dict[str, Verdict]:
    """A verdict for each outcome that there is."""
    judges = {"zero": _zero, "floor": _floor, "collapsed": _collapsed, "rank one": _rank_one}
    judged = {}
    for name in dict.fromkeys(outcome.tolist()):
        which = outcome == name
        one = judges.get(name, _open)(_subset(trajectory, which))
        judged[name] = replace(one, samples={one.kind: int(which.sum())})
    return judged


def _caveat(trajectory: Trajectory) -> str:
    """How many samples end where rounding has grown to a part of mu that can be seen."""
    if not trajectory.follows_mu:
        return ""
    error, log10_mu = (trajectory[name][:, -1] for name in ("log10_mu_error", "log10_mu"))
    grown = int(np.sum(error > _VISIBLE * np.maximum(1.0, np.abs(log10_mu) / 1e3)))
    if not grown:
        return ""
    whose = "" if grown == len(error) else f" in {grown} of {len(error)} samples"
    return f"; rounding has grown until log10 mu is known to no better than {_VISIBLE:g}{whose}"


def _subset(trajectory: Trajectory, samples: np.ndarray) -> Trajectory:
    return replace(
        trajectory,
        measures={name: values[samples] for name, values in trajectory.measures.items()},
        final=trajectory.final[samples],
        states=trajectory.states[samples],
    )


def _outcomes(trajectory: Trajectory) -> np.ndarray:
    """What became of each sample: zero, floor, collapsed, rank one, lost or open."""
    share = _log_mu_share(trajectory)
    outcome = np.full(trajectory.n_samples, "open", dtype="<U9")
    if "rank_one_distance" in trajectory.measures:
        outcome[_rank_one_share(trajectory)[1][:, -1] < _GONE] = "rank one"
    outcome[share[:, -1] < np.log(_GONE)] = "collapsed"
    outcome[(share <= _log_mu_floor(trajectory)).any(axis=1)] = "floor"
    outcome[trajectory["frobenius_norm"][:, -1] == 0] = "zero"
    outcome[_have_lost(share, outcome == "open")] = "lost"
    return outcome


def _have_lost(share: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Which of the samples `among` have lost half of their largest share, where the others have
    kept more than twice as much in the median; none where they have not."""
    left = np.full(len(share), np.nan)
    left[among] = share[among, -1] - share[among].max(axis=1)
    lost, rest = among & (left < np.log(_SLOW)), among & ~(left < np.log(_SLOW))
    if not lost.any() or not rest.any():
        return np.zeros_like(among)
    differ = np.median(left[lost]) < np.median(left[rest]) + np.log(_SLOW)
    return lost & differ


def _log_mu_share(trajectory: Trajectory) -> np.ndarray:
    """Natural logarithm of mu / ||X||_F; -inf for equal tokens."""
    with np.errstate(divide="ignore", invalid="ignore"):
        share = trajectory["log10_mu"] * np.log(10.0) - np.log(trajectory["frobenius_norm"])
    return np.where(trajectory["frobenius_norm"] > 0, share, -np.inf)


def _rank_one_share(trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    depths, distance = trajectory.recorded("rank_one_distance")
    size = trajectory["frobenius_norm"][:, depths]
    return depths, np.divide(distance, size, out=np.zeros_like(distance), where=size > 0)


def _log_floor(trajectory: Trajectory) -> float:
    """Below this share of ||X||_F a distance is rounding."""
    return float(np.log(floor(1.0, trajectory.final.dtype)))


def _log_mu_floor(trajectory: Trajectory) -> float:
    return -np.inf if trajectory.follows_mu else _log_floor(trajectory)


def _log_rank_one_floor(trajectory: Trajectory) -> float:
    """As `_log_floor`, for the distance to rank one: singular values are known less well."""
    with np.errstate(invalid="ignore"):  # 0 / 0 where all tokens are zero
        share = trajectory.rounding("rank_one_distance") / trajectory["frobenius_norm"]
    return float(np.log(np.nanmax(share)))


def from_log(log: float, digits: int = 2) -> str:
    """The number of this natural logarithm, as a power of ten where it leaves float64.

    >>> from_log(np.log(0.25)), from_log(-2302.585092994046)
    ('0.25', '10^-1000')
    """
    decades = float(log) / np.log(10.0)
    if abs(decades) < 300 or np.isinf(decades):
        return f"{np.exp(log):.{digits}g}"
    return f"10^{decades:.6g}"


# --- one group of samples -------------------------------------------------------------------------


def _zero(trajectory: Trajectory) -> Verdict:
    layer = int(np.argmax(~trajectory["frobenius_norm"].any(axis=0)))
    sentence = f"vanished: every token is zero from layer {layer} on"
    return Verdict(
        "zero", sentence, layer=layer, headline=f"all tokens are zero from layer {layer} on"
    )


def _floor(trajectory: Trajectory) -> Verdict:
    share, edge = _log_mu_share(trajectory), _log_mu_floor(trajectory)
    layers = np.argmax(share <= edge, axis=1)
    exact = trajectory.follows_mu
    if not layers.any():
        rest = "all tokens are equal" if exact else "mu is rounding of equal tokens"
        kind = "collapsed" if exact else "floor"
        sentence = f"at consensus from the start: {rest}"
        return Verdict(kind, sentence, layer=0, headline="at consensus from the start")
    fit = _Fit(trajectory.depths, share, edge)
    when, layer = _span(layers.min(), layers.max()), int(layers.min())
    before = f"; before, it fell {fit.words}" if fit.known else f"; {_RATE_NEEDS} above it"
    if exact:
        sentence = f"collapsed: mu is 0, or less than 10^(-10^99), from {when} on{before}"
        headline = f"collapsed to consensus by {when}"
        return Verdict("collapsed", sentence, **fit.numbers, layer=layer, headline=headline)
    sentence = f"collapsed: floor reached at {when}; mu is rounding from there on{before}"
    headline = f"collapsed to consensus: down to rounding by {when}"
    return Verdict("floor", sentence, **fit.numbers, layer=layer, headline=headline)


def _collapsed(trajectory: Trajectory) -> Verdict:
    share = _log_mu_share(trajectory)
    now = from_log(np.median(share[:, -1]))
    if (share[:, 0] < np.log(_GONE)).all():
        sentence = f"near consensus from the start: mu is {now} of ||X||"
        return Verdict("collapsed", sentence, headline="near consensus from the start")
    fit = _Fit(trajectory.depths, share, _log_mu_floor(trajectory))
    falling = f", falling {fit.words}" if fit.known else f"; {_RATE_NEEDS}"
    headline = "collapsed to consensus" + fit.pace
    factor = doubly_exponential(trajectory) if trajectory.follows_mu else None
    if factor is not None:
        falling = f", falling so that log mu grows by a factor {factor:.4g} per layer"
        headline = f"collapsed to consensus: log mu grows by a factor {factor:.3g} per layer"
    sentence = f"collapsed: mu is {now} of ||X||{falling}"
    return Verdict("collapsed", sentence, **fit.numbers, headline=headline)


def _rank_one(trajectory: Trajectory) -> Verdict:
    share, rest = np.exp(_log_mu_share(trajectory)), _rank_one_share(trajectory)[1]
    if (rest[:, 0] < _GONE).all():
        sentence = (
            f"at rank one from the start, not at consensus: mu is {_range(share[:, -1])} of ||X||"
        )
        headline = "at rank one from the start, not at consensus"
        return Verdict("rank one", sentence, rank=1, headline=headline)
    end = np.median(rest[:, -1])
    within = trajectory.within_rounding("rank_one_distance")[:, -1]
    rounding = ", which is rounding" * bool(np.median(within) == 1.0)
    sentence = (
        f"collapsed to rank one but not to consensus: the distance to rank one is "
        f"{end:.1e} of ||X||{rounding}, mu is {_range(share[:, -1])} of it"
    )
    headline = "collapsed to rank one, not to consensus"
    return Verdict("rank one", sentence, rank=1, headline=headline)


def _open(trajectory: Trajectory) -> Verdict:
    share = _log_mu_share(trajectory)
    fit = _Fit(trajectory.depths, share, _log_mu_floor(trajectory))
    if not fit.known:
        return _short(share)
    now = _range(np.exp(share[:, -1]))
    if fit.changes and fit.slope > 0:
        sentence = f"growing: mu grows {fit.words} and is now {now} of ||X||"
        headline = f"no collapse, mu grows{fit.pace}, to {now} of ||X||"
        return Verdict("growing", sentence, **fit.numbers, headline=headline)
    if fit.changes:
        left = f"{np.exp(_log_left(share)):.2g} of its largest"
        kind, words = ("slow", "slowly falling") if _is_slow(share) else ("collapsing",) * 2
        sentence = f"{words}: mu falls {fit.words} and is now {now} of ||X||, {left}"
        headline = f"{words} to consensus{fit.pace}"
        if kind == "slow":
            headline = f"{words}, mu is still {now} of ||X||"
        return Verdict(kind, sentence, **fit.numbers, headline=headline)
    if "rank_one_distance" in trajectory.measures:
        depths, rest = _rank_one_share(trajectory)
        with np.errstate(divide="ignore"):
            logs = np.log(rest)
        fit = _Fit(depths, logs, _log_rank_one_floor(trajectory))
        if fit.changes and fit.slope < 0:
            kind, words = (
                ("slow", "slowly falling") if _is_slow(logs) else ("rank one", "collapsing")
            )
            sentence = (
                f"{words} to rank one but not to consensus: the distance to rank one falls "
                f"{fit.words} to {_range(rest[:, -1])} of ||X||, while mu is {now} of it"
            )
            headline = f"{words} to rank one, not to consensus"
            return Verdict(kind, sentence, **fit.numbers, headline=headline)
    return _staying(trajectory, np.exp(share))


def _short(share: np.ndarray) -> Verdict:
    """Fewer layers than a slope needs: judged by what is left."""
    layers = f"{share.shape[1] - 1} layer{'s' * (share.shape[1] > 2)}"
    first, now = (_range(np.exp(share[:, t])) for t in (0, -1))
    if _is_slow(share):
        sentence = f"too short to say: after {layers} mu is {now} of ||X||, before them {first}"
        headline = f"too short to say: {layers}"
        return Verdict("short", f"{sentence}; {_RATE_NEEDS}", headline=headline)
    fall = f"in {layers} mu fell from {first} to {now} of ||X||"
    sentence = f"collapsing: {fall}; {_RATE_NEEDS}"
    return Verdict("collapsing", sentence, headline=f"collapsing to consensus: {fall}")


def _staying(trajectory: Trajectory, share: np.ndarray) -> Verdict:
    half = trajectory.depth // 2
    now = _range(share[:, -1])
    where = f"mu is {now} of ||X||, after {_range(share[:, half])} at layer {half}"
    headline = f"no collapse, mu stays at {now} of ||X||"
    if "stable_rank" in trajectory.measures:
        stable = trajectory.recorded("stable_rank")[1][:, -1]
        headline += f", stable rank {_range(stable)}"
    if "rank" not in trajectory.measures:
        return Verdict("staying", f"staying: {where}", headline=headline)
    ranks, sure = trajectory.recorded("rank")[1][:, -1], rank_is_sure(trajectory.final)
    rank = int(np.median(ranks))
    unsure = "" if sure.all() else f" (in {np.sum(~sure)} of {len(sure)} samples rounding decides)"
    sentence = f"staying at rank {rank}{unsure}: {where}"
    return Verdict("staying", sentence, rank=rank, rank_is_sure=bool(sure.all()), headline=headline)


def _log_left(logs: np.ndarray) -> float:
    """Logarithm of what the last depth has of the largest, median over samples."""
    return float(np.median(logs[:, -1] - logs.max(axis=1)))


def _is_slow(logs: np.ndarray) -> bool:
    return _log_left(logs) > np.log(_SLOW)


def _range(values: np.ndarray) -> str:
    """The median, or the range where samples differ much."""
    low, middle, high = np.percentile(values, [0, 50, 100])
    return f"{middle:.2g}" if high <= 1.5 * low else f"{low:.2g}–{high:.2g}"


def _span(first: int, last: int) -> str:
    return f"layer {first}" if first == last else f"layers {first} to {last}"


class _Fit:
    """Slopes of a logarithm against depth, each sample over the second half of its usable points.

    `logs` (samples, depths) are those of a share of ||X||_F, usable above `edge` up to where they
    first meet it.
    """

    def __init__(self, depths: np.ndarray, logs: np.ndarray, edge: float) -> None:
        of_samples = [self._of_sample(depths, row, edge) for row in logs]
        slopes = np.array([row for row in of_samples if row is not None]).reshape(-1, 5)
        self.known = len(slopes) > 0
        if not self.known:
            self.changes = False
            return
        self.slope, early, late = slopes[:, :3].mean(axis=0)
        self.sd = float(slopes[:, 0].std(ddof=1)) if len(slopes) > 1 else 0.0
        self.fitted = tuple(int(v) for v in np.median(slopes[:, 3:], axis=0))
        self.steady = bool(abs(early - late) <= _STEADY * max(abs(early), abs(late)))
        self._late, self._faster = late, abs(late) > abs(early)
        sure = abs(self.slope) > 2 * self.sd / len(slopes) ** 0.5 and early * late > 0
        size = abs(self.slope) * (self.fitted[1] - self.fitted[0])
        self.changes = bool(sure and size > _LEAST_CHANGE)

    @staticmethod
    def _of_sample(depths: np.ndarray, row: np.ndarray, edge: float) -> list[float] | None:
        """(slope, of the first half, of the second half, first and last depth), or None."""
        usable = np.flatnonzero(row <= edge)
        stop = usable[0] if len(usable) else len(row)
        at, logs = depths[:stop], row[:stop]
        late = at >= (at[-1] / 2 if len(at) else 0)
        at, logs = at[late], logs[late]
        if len(at) < _LEAST_POINTS:
            return None
        half = len(at) // 2
        slopes = [np.polyfit(x, y, 1)[0] for x, y in (
            (at, logs), (at[: half + 1], logs[: half + 1]), (at[half:], logs[half:]))]  # fmt: skip
        return [*slopes, at[0], at[-1]]

    @property
    def numbers(self) -> dict:
        """The fit's fields of a Verdict."""
        if not self.known:
            return {}
        rate = float(np.exp(self.slope))
        return {"rate": rate, "rate_sd": self.sd, "fitted": self.fitted, "steady": self.steady}

    @property
    def pace(self) -> str:
        """The factor per layer in a few words; nothing where it is not known."""
        if not self.known:
            return ""
        if self.steady:
            return f" by a factor {from_log(self.slope, 4)} per layer"
        return f", ever {'faster' if self._faster else 'slower'}"

    @property
    def words(self) -> str:
        layers = f"over layers {self.fitted[0]}-{self.fitted[1]}"
        if self.steady:
            return f"by a factor {from_log(self.slope, 4)} per layer ({layers})"
        pace = "ever faster" if self._faster else "ever slower"
        return f"{pace}, lately by a factor {from_log(self._late, 4)} per layer ({layers})"
