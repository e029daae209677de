"""What a run says: one JSON object, or a short table with a verdict for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dynsim.collapse.verdicts import Verdict, from_log
from dynsim.masks.connectivity import MaskFacts
from dynsim.measures import MEASURES
from dynsim.measures.rounding import ROUNDING
from dynsim.network.parts import ATTENTION_PARTS, unusual_parts
from dynsim.network.weights import Layers, LayerSource, Sharpened, Weights
from dynsim.results.trajectory import Trajectory

if TYPE_CHECKING:  # loads what few runs need
    from dynsim.collapse.comparison import Comparison
    from dynsim.masks.connectivity import SecondEigenvalue
    from dynsim.network.dropout import Dropout
    from dynsim.network.dynamics import AttentionDynamics
    from dynsim.network.norms import Norm

__all__ = [
    "Result",
    "comparison_table",
    "describe_attended",
    "describe_bounded",
    "describe_dynamics",
    "describe_mask",
    "describe_shape",
    "headline",
    "measure_table",
    "short_labels",
    "summary",
]

#: Measures in the human table, in this order, where recorded.
_SHOWN = (
    "mu",
    "log10_mu",
    "log10_mu_error",
    "rank_one_distance",
    "rank",
    "stable_rank",
    "effective_rank",
    "mean_cosine",
    "min_cosine",
    "attention_entropy",
)
#: The estimated error of log10 mu is shown where it exceeds this share of 1 + |log10 mu|.
_SMALL_ERROR = 1e-6
#: The depth at which a comparison shows how far mu has fallen, beside depth N.
_SHARE_AT = 128


class Result(NamedTuple):
    """A run that is done; `error` if it ended early, `theory` if that was asked for, `groups` its
    samples by outcome."""

    facts: MaskFacts
    trajectory: Trajectory
    verdict: Verdict
    error: str | None = None
    theory: Comparison | None = None
    groups: Sequence[tuple[Verdict, np.ndarray]] = ()


def summary(result: Result) -> dict:
    """JSON-ready: mask facts, dynamics, each measure by depth (null where a measure on a stride was
    not recorded), verdict, provenance; error and theory where there are any.

    Of a measure: over samples the median, its 16th and 84th percentile ("low", "high"), which the
    table and the figure show, and mean and sd.

    "rounding" is how far rounding may move the mean of a measure (null for arbitrarily far), and
    "within_rounding" whether it lies no further than that from its value at collapse.
    """
    facts, trajectory, verdict, error, theory, _ = result
    failure = {} if error is None else {"error": error}
    return failure | {
        "mask": facts.to_dict(),
        "dynamics": dict(trajectory.dynamics),
        "measures": {name: _measure(trajectory, name) for name in trajectory.measures},
        "verdict": verdict.to_dict(),
        "provenance": dict(trajectory.provenance),
        **({} if theory is None else {"theory": theory.to_dict()}),
    }


def _measure(trajectory: Trajectory, name: str) -> dict:
    """A measure by depth, for JSON."""
    low, median, high = _band(trajectory[name])
    mean, sd = _mean_and_sd(trajectory[name])
    entry = {"median": _plain(median), "low": _plain(low), "high": _plain(high)}
    entry |= {"mean": _plain(mean), "sd": _plain(sd)}
    if name in ROUNDING:
        entry["rounding"] = _plain(_mean_rounding(trajectory, name))
        entry["within_rounding"] = _means_within_rounding(trajectory, name).tolist()
    return entry


def _band(values: np.ndarray) -> np.ndarray:
    """16th, 50th and 84th percentile over the first axis, (3, ...); also where some are -inf."""
    with np.errstate(invalid="ignore"):
        band = np.percentile(values, [16, 50, 84], axis=0)
    if not np.isnan(band).any():
        return band
    return np.where(np.isnan(band), np.percentile(values, [16, 50, 84], 0, method="lower"), band)


def _mostly_within_rounding(trajectory: Trajectory, name: str) -> np.ndarray:
    """Where a measure of most samples lies within rounding, (T+1,), as in the figure."""
    return trajectory.within_rounding(name).mean(axis=0) > 0.5


def _means_within_rounding(trajectory: Trajectory, name: str) -> np.ndarray:
    """Where the mean of a measure over samples lies within rounding, (T+1,)."""
    if name not in ROUNDING:
        return np.zeros(trajectory.depth + 1, bool)
    mean = _mean_and_sd(trajectory[name])[0]
    return ROUNDING[name].within(mean, _mean_rounding(trajectory, name))


def _mean_rounding(trajectory: Trajectory, name: str) -> np.ndarray:
    """How far rounding may have moved a measure of ROUNDING, mean over samples, (T+1,)."""
    rounding = trajectory.rounding(name)
    assert rounding is not None  # it is for measures outside ROUNDING alone
    return _mean_and_sd(rounding)[0]


def _mean_and_sd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n - 1; 0 for one sample) over the first axis, at any scale."""
    unit = np.abs(values).max(axis=0)
    unit = np.where(np.isfinite(unit), np.exp2(np.frexp(unit)[1] - 1.0), 1.0)  # changes no digit
    scaled = values / unit
    with np.errstate(invalid="ignore"):  # log10 of 0 has no spread
        sd = scaled.std(axis=0, ddof=1) if len(values) > 1 else scaled[0] * 0.0
    return unit * scaled.mean(axis=0), unit * sd


def _plain(values: np.ndarray) -> list:
    return [float(v) if np.isfinite(v) else None for v in values]


def describe_mask(facts: MaskFacts) -> list[tuple[str, str]]:
    """Mask facts as (name, value) lines."""
    connectivity = (
        "strong"
        if facts.strongly_connected
        else "quasi-strong"
        if facts.quasi_strongly_connected
        else "none (no center node)"
    )
    lines = [
        ("mask", f"{facts.name}: {facts.tokens} tokens, {facts.edges} edges"),
        (
            "degree",
            f"{facts.degree_min} to {facts.degree_max}, mean {facts.degree_mean:.3g}"
            + ("" if facts.self_loops else "; not every token sees itself (WU's A1 fails)"),
        ),
        ("connected", f"{connectivity}; {facts.center_nodes} center nodes"),
        ("radius", _distance(facts.radius)),
        ("diameter", _distance(facts.diameter)),
        ("lambda_2", _second(facts.lambda_2)),
    ]
    return lines


#: What became of runs, where only their kinds of verdict are told.
_KINDS = {
    **dict.fromkeys(("collapsed", "floor"), "collapsed to consensus"),
    **dict.fromkeys(("staying", "growing"), "no collapse"),
    "collapsing": "collapsing",
    "slow": "slowly falling",
    "rank one": "to rank one, not to consensus",
    "mixed": "samples differ",
    "short": "too short to say",
    "zero": "all tokens zero",
    "none": "nothing to judge",
}
#: The same of samples.
_OF_SAMPLES = {"floor": "collapsed", "slow": "slowly falling", "short": "too short to say"}
#: Characters of a title in one line.
_TITLE = 110


def headline(runs: Mapping[str, Result]) -> str:
    """What happened, in one line: of each run, or which runs did what, or how many of them."""
    heads = {label: result.verdict.headline for label, result in runs.items()}
    kinds: dict[str, list[str]] = {}
    for label, result in runs.items():
        kinds.setdefault(_in_words(result.verdict), []).append(label)
    words = "; ".join(f"{label}: {head}" if label else head for label, head in heads.items())
    if len(words) > _TITLE and len(runs) > 1:
        words = "; ".join(f"{', '.join(labels)}: {kind}" for kind, labels in kinds.items())
    if len(words) > _TITLE and len(runs) > 1:
        counts = Counter(_KINDS[result.verdict.kind] for result in runs.values())
        words = f"{len(runs)} runs: {'; '.join(f'{kind} in {n}' for kind, n in counts.items())}"
    return words[:1].upper() + words[1:]


def _in_words(verdict: Verdict) -> str:
    """The kind of a verdict, or of a mixed one how many samples ended how."""
    if verdict.kind != "mixed":
        return _KINDS[verdict.kind]
    total = f" of {sum(verdict.samples.values())}"
    parts: list[str] = []
    for kind, number in verdict.samples.items():
        parts.append(f"{number}{'' if parts else total} {_OF_SAMPLES.get(kind, kind)}")
    return ", ".join(parts)


def short_labels(labels: list[str]) -> list[str]:
    """The labels of a comparison without the name of the option, where values alone are clear.

    >>> short_labels(["mask causal", "mask local"]), short_labels(["window 1", "window 2"])
    (['causal', 'local'], ['window 1', 'window 2'])
    """
    pairs = [label.partition(" ") for label in labels]
    clear = all(name in ("mask", "norm", "value", "placement") for name, _, _ in pairs)
    alone = not any("," in label for label in labels)
    return [value for _, _, value in pairs] if clear and alone else labels


def describe_attended(dynamics: AttentionDynamics) -> str:
    """What the first and the last token attend to: whether a mask looks back or ahead."""
    layout, last = dynamics.layout, dynamics.n_tokens - 1

    def words(token: int) -> str:
        keys = layout.row(token)
        if len(keys) > 4:
            between = "to" if keys[-1] - keys[0] + 1 == len(keys) else "..."
            return f"token {token} to {keys[0]} {between} {keys[-1]} ({len(keys)} tokens)"
        return f"token {token} to {', '.join(map(str, keys))}"

    return "; ".join(words(token) for token in dict.fromkeys((0, last)))


def _second(second: SecondEigenvalue) -> str:
    """lambda_2 with what is not certain of it, and the powers of t that it brings."""
    if np.isnan(second.value):
        return "not found within the budget"
    error = f" ± {second.error:.2g}" * (second.error > 1e-9 * second.value)
    words = f"{second.value:.8g}{error} ({second.method}), of the uniform walk"
    if not second.power:
        return words
    most = " at most" * second.at_most
    return f"{words}; deviations go like t^{second.power}{most} times its powers"


def _distance(bounds: tuple[float, float]) -> str:
    low, high = bounds
    if not np.isfinite(low):
        return "infinite"
    return f"{low:.0f}" if low == high else f"between {low:.0f} and {high:.0f}"


def describe_dynamics(dynamics: AttentionDynamics) -> str:
    """The dynamics in words and as a formula."""
    attention = "sum_h A_h(x) x W_V^h" if dynamics.weights.n_heads > 1 else "A(x) x W_V"
    kind = norm_in_words(dynamics.norm)
    norm = "" if kind == "NoNorm" else {"Unit": "unit"}.get(kind, kind)
    skip, weight = _residual_in_words(dynamics)
    if dynamics.gate.active:
        one = "(A(x) x W_V * G)"
        attention = "sum_h (A_h(x) x V_h * G_h) O_h" if dynamics.weights.n_heads > 1 else one
    inner, places = attention, dynamics.places(0) if norm else ()
    if "before" in places:
        inner = inner.replace("A(x) x", "A(z) z").replace("A_h(x) x", "A_h(z) z")
    inner = f"{norm}({inner})" if "branch" in places else inner
    inner = f"{skip}{weight}{inner}"
    formula = f"x' = {norm}({inner})" if "after" in places else f"x' = {inner}"
    formula += f", z = {norm}(x)" if "before" in places else ""
    n_layers = dynamics.weights.n_layers
    repeated = f"given for each of {n_layers} layers" if n_layers else "fresh in every layer"
    repeated = "the same in all layers" if dynamics.weights.is_constant else repeated
    parts = [formula, f"{_weights_in_words(dynamics.weights)}, {repeated}"]
    parts += [
        f"{name.replace('_', '-')} {value}"
        for name, value in unusual_parts(dynamics).items()
        if name in ATTENTION_PARTS
    ]
    if dynamics.mlp.active:
        parts.append(f"then an MLP ({dynamics.mlp.activation}) in the same form")
    if dynamics.norm.n_layers:
        parts.append("each layer has norms of its own")
    if not isinstance(dynamics.placement, str):
        parts.append(f"norms by layer: {_runs(dynamics.placement)}; the formula is of the first")
    if dynamics.gate.active:
        parts.append(f"G = sigmoid of x W_g, {dynamics.gate}")
    if dynamics.dropout.active:
        parts.append(f"dropout {_dropout_in_words(dynamics.dropout)}")
    return "; ".join(parts)


def describe_shape(shape: tuple[int, int, int]) -> str:
    """How many samples of how many tokens."""
    samples, n, d = shape
    many, tokens = "s" * (samples != 1), "s" * (n != 1)
    return f"{samples} sample{many} of {n} token{tokens} of dimension {d}"


def describe_bounded(theory: Comparison, shape: tuple[int, int, int]) -> str:
    """Whose bounds the figure shows: medians, so that single samples may lie above."""
    bounded, samples = len(theory.measured), shape[0]
    if theory.sharpest is None or samples == 1:
        return ""
    some = f"the first {bounded} of " if bounded < samples else ""
    return f"bounds: medians over {some}{samples} samples"


def _residual_in_words(dynamics: AttentionDynamics) -> tuple[str, str]:
    """What stands before x, with a plus, and before the branch; letters where there are several."""
    residual = dynamics.residual
    words = []
    for letter, weight in zip("sb", (residual.skip, residual.branch), strict=True):
        axes = np.ndim(weight)
        words.append(
            f"{weight:g}" if not axes else f"{letter}_t" if axes == 2 else f"diag({letter})"
        )
    skip, branch = words
    return f"{skip} x + " * residual.has_skip, f"{branch} " * (branch != "1")


def _runs(names: tuple[str, ...]) -> str:
    """Names that repeat, with their numbers: 4 post, 12 pre."""
    return ", ".join(f"{len(list(same))} {name}" for name, same in groupby(names))


def norm_in_words(norm: Norm) -> str:
    """The kind of a norm, or the kinds of those that layers have."""
    return ", ".join(dict.fromkeys(type(one).__name__ for one in norm.each))


def _dropout_in_words(dropout: Dropout) -> str:
    places = {"of projections": dropout.hidden, "of attention weights": dropout.attention}
    return ", ".join(f"{p:g} {place}" for place, p in places.items() if p)


def _weights_in_words(weights: LayerSource) -> str:
    heads = f"{weights.n_heads} heads, " if weights.n_heads > 1 else ""
    if isinstance(weights, Layers):
        return f"{heads}weights {weights.name}"
    if isinstance(weights, Sharpened):
        return f"{_weights_in_words(weights.weights)}, beta {weights.beta}"
    assert isinstance(weights, Weights)  # the options make no others
    temperature = "" if weights.d_qk is None else f", d_QK = {weights.d_qk:g}"
    temperature += "" if weights.beta == 1.0 else f", beta = {weights.beta:g}"
    return f"{heads}W_V {weights.value}, scores {weights.scores}{temperature}"


def _not_shown(trajectory: Trajectory) -> set[str]:
    """log10 of mu where it says no more than mu, and its error where that is small."""
    if not trajectory.follows_mu:
        return {"log10_mu", "log10_mu_error"}
    large = trajectory["log10_mu_error"] > _SMALL_ERROR * (1.0 + np.abs(trajectory["log10_mu"]))
    return set() if large.any() else {"log10_mu_error"}


def measure_table(trajectory: Trajectory) -> str:
    """First, middle and last values of the main measures: median and band over samples.

    Where most samples lie within rounding it ends in `~`, and a line below says what that means.
    """
    depth = trajectory.depth
    columns = sorted({0, depth // 2, depth})
    rows = [["median (16–84% of samples)", *(f"depth {t}" for t in columns)]]
    shown = set(trajectory.measures) - _not_shown(trajectory)
    for name in (name for name in _SHOWN if name in shown):
        depths, values = trajectory.recorded(name)
        if not len(depths):  # the run ended before
            continue
        low, median, high = _band(values)
        marks = _marks(_mostly_within_rounding(trajectory, name)[depths])
        nearest = [int(np.argmin(np.abs(depths - t))) for t in columns]
        cells = [
            _with_band(median[k], low[k], high[k])
            + marks[k]
            + ("" if depths[k] == t else f" (at {depths[k]})")
            for k, t in zip(nearest, columns, strict=True)
        ]
        rows.append([MEASURES[name].label, *cells])
    return _noted(_aligned(rows, to_the_left=1), trajectory.final.dtype)


def _with_band(median: float, low: float, high: float) -> str:
    """The median and, where samples differ in three digits, the band."""
    ends = f"{low:.3g}", f"{high:.3g}"
    return f"{median:.4g}" + (f" ({ends[0]}–{ends[1]})" if ends[0] != ends[1] else "")


#: Behind a number that lies within rounding.
_MARK = " ~"


def _marks(within: np.ndarray) -> list[str]:
    return np.where(within, _MARK, "").tolist()


def _noted(table: str, *dtypes: np.dtype) -> str:
    """The table with a line about the mark, if it is in it."""
    if _MARK not in table:
        return table
    names = " or ".join(sorted({str(dtype) for dtype in dtypes}))
    return f"{table}\n~ within rounding ({names}): cannot be told from complete collapse"


def comparison_table(runs: Mapping[str, Result]) -> str:
    """One row a run, with medians over samples; fitted and predicted rates where asked for.

    mu at depths N and 128, where a run reaches them, is shown as a share of mu at 0.
    """
    deepest = max(result.trajectory.depth for result in runs.values())
    depths = sorted({_SHARE_AT, *(result.facts.tokens for result in runs.values())})
    depths = [depth for depth in depths if depth <= deepest]
    rows = [["run (medians)", "mask", "radius", "lambda_2", "mu at 0", "mu at T"]]
    rows[0] += [*(f"mu_{depth} / mu_0" for depth in depths), "stable rank"]
    if any(result.theory for result in runs.values()):
        rows[0] += ["fitted", "predicted", "max ||P^t||", "bound / mu", "infinite width"]
    for label, (facts, trajectory, _, _, theory, _) in runs.items():
        logs = _band(trajectory["log10_mu"])[1] * np.log(10.0)
        marks = _marks(_mostly_within_rounding(trajectory, "log10_mu"))
        mu = [from_log(log) + mark for log, mark in zip(logs, marks, strict=True)]
        stable = "-"
        if "stable_rank" in trajectory.measures:
            stable = f"{np.median(trajectory['stable_rank'][:, -1]):.3g}"
            stable += _marks(_mostly_within_rounding(trajectory, "stable_rank"))[-1]
        rows.append(
            [
                label,
                facts.name,
                _distance(facts.radius),
                f"{facts.lambda_2.value:.6g}",
                mu[0],
                mu[-1],
                *(_share(logs, t) + (marks[t] if t < len(marks) else "") for t in depths),
                stable,
                *([] if theory is None else _rates(theory)),
            ]
        )
    dtypes = (result.trajectory.final.dtype for result in runs.values())
    return _noted(_aligned(rows, to_the_left=2), *dtypes)


def _share(logs: np.ndarray, t: int) -> str:
    """mu at depth t over mu at 0, from logarithms by depth; "-" where there is none."""
    return from_log(logs[t] - logs[0]) if t < len(logs) and np.isfinite(logs[0]) else "-"


def _rates(theory: Comparison) -> list[str]:
    """Fitted and predicted factor per layer, the largest power of the walk, how many times the
    sharpest bound exceeds mu, and the infinite-width limit of mu at the end."""
    rate, prediction = theory.rate, theory.prediction
    fitted = f"{rate.value:.6g}" if rate.kind == "exponential" else rate.kind
    words = {3.0: "cubed", np.inf: "0 at once"}
    if prediction is None:
        predicted = "-"
    elif prediction.rate:
        predicted = f"{prediction.rate:.6g}{prediction.times}"
        predicted += "" if prediction.lasts else " for a while"
    else:
        predicted = words.get(prediction.exponent, "faster")
    transient = prediction and prediction.transient
    largest = f"{transient.factor:.4g} at t = {transient.power}" if transient else "-"
    excess = theory.log10_excess
    shown = "-" if np.isnan(excess) else "mu = 0" if np.isinf(excess) else f"10^{excess:.4g}"
    wide = "-" if np.isnan(theory.wide_end) else f"mu = {theory.wide_end:.4g}"
    return [fitted, predicted, largest, shown, wide]


def _aligned(rows: list[list[str]], to_the_left: int) -> str:
    """Rows as lines of equal columns, the first `to_the_left` flush left and the others right.

    Marks stand in a column of their own.
    """
    columns = [_with_room(column) for column in zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    sides = ["<"] * to_the_left + [">"] * (len(widths) - to_the_left)
    return "\n".join(
        "  ".join(f"{c:{side}{w}}" for c, side, w in zip(row, sides, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    )


def _with_room(column: tuple[str, ...]) -> list[str]:
    """The cells of a column, filled up where others end in a mark."""
    marked = [cell.endswith(_MARK) for cell in column]
    room = " " * len(_MARK) if any(marked) else ""
    return [cell if mark else cell + room for cell, mark in zip(column, marked, strict=True)]
