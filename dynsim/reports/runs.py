"""The page of a simulation, or of several that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import evenly
from dynsim.collapse.verdicts import verdict
from dynsim.measures import MEASURES
from dynsim.network.deviation import Deviation
from dynsim.reports.page import Case, Page
from dynsim.reports.settings import rows
from dynsim.reports.states import MOST_LAYERS, States, attention_of
from dynsim.reports.views import Curves, Frames, Line
from dynsim.simulation import Overflow, Record, simulate

if TYPE_CHECKING:
    from dynsim.network.dynamics import AttentionDynamics
    from dynsim.results.trajectory import Trajectory

__all__ = ["MOST_CASES", "followed", "page", "recorded", "states_of"]

#: Runs whose tokens are shown, and points of a curve.
MOST_CASES, _MOST_POINTS = 8, 401
#: Of each group of curves: title, measures, label of the axis.
_CURVES = (
    ("distances", ("log10_mu", "rank_one_distance"), "log10 of the distance"),
    ("ranks", ("stable_rank", "effective_rank"), "rank"),
    ("cosines", ("mean_cosine", "min_cosine"), "pairwise cosine"),
)
#: Of these log10 is drawn, beside log10 of mu.
_IN_DECADES = ("rank_one_distance",)
#: log10 of the smallest floating-point number, and of the lowest distance in a picture.
_RANGE, _DEEPEST = -330.0, -1000.0


def page(
    runs: Mapping[str, Trajectory],
    states: Mapping[str, States] | None = None,
    title: str = "",
    sentences: Sequence[str] | None = None,
    settings: Sequence[tuple[str, str]] | None = None,
) -> Page:
    """The page of runs by name.

    Parameters
    ----------
    runs : mapping of str to Trajectory
        At least one; the name of a single one may be "".
    states : mapping of str to States, optional
        The tokens to show; those that were recorded unless given.
    title : str
        The mask and norm of the first run unless given.
    sentences : sequence of str, optional
        The verdicts, which are made here unless given.
    settings : sequence of (name, value), optional
        What stands in the table; the dynamics and the provenance of the first run unless given.
    """
    first = next(iter(runs.values()))
    if sentences is None:
        judged = {label: verdict(run).sentence for label, run in runs.items()}
        sentences = [f"{label}: {words}" if label else words for label, words in judged.items()]
    settings = _settings(first) if settings is None else settings
    names = list(runs)[:MOST_CASES]
    states = {name: recorded(runs[name]) for name in names} if states is None else states
    cases = [Case(name, states[name].frames, states[name].views()) for name in names]
    return Page(
        title or f"{first.dynamics['mask']['name']} mask, depth {first.depth}",
        sentences, settings, cases, _curves(runs), _notes(runs, states, names),
    )  # fmt: skip


def recorded(trajectory: Trajectory, sample: int = 0) -> States:
    """The tokens that a trajectory recorded of a sample, and its last ones.

    With their attention where the trajectory holds its dynamics (`rebuild_dynamics`).
    """
    at = np.append(trajectory.state_depths, trajectory.depth)
    tokens = np.concatenate([trajectory.states[sample], trajectory.final[sample][None]])
    depths, places = np.unique(at, return_index=True)
    some = evenly(len(depths) - 1, MOST_LAYERS)
    layers, tokens = (_start(trajectory) + depths[some]).tolist(), tokens[places[some]]
    try:
        dynamics = trajectory.rebuild_dynamics()
    except ValueError:  # parts of classes of the user's own, or arrays too large to be kept
        dynamics = None
    return states_of(dynamics, layers, tokens, f"sample {sample} of {trajectory.n_samples}")


def states_of(
    dynamics: AttentionDynamics | None, layers: list[int], tokens: np.ndarray, whose: str
) -> States:
    """Tokens (F, N, d) at these layers, with their attention where the dynamics is known."""
    attention = None if dynamics is None else attention_of(dynamics, tokens, layers)
    frames = Frames("layer", [str(t) for t in layers], layers)
    return States(frames, tokens, attention, whose=whose)


def followed(
    dynamics: AttentionDynamics,
    x0: np.ndarray | Deviation,
    depths: np.ndarray,
    *,
    engine: str = "numba",
    device: str | None = None,
    start: int = 0,
) -> np.ndarray:
    """The first sample of x0 once more, at 0 and the other `depths` after layer `start`.

    Returns (F, N, d), fewer than the depths where tokens stop being finite. A sample does not
    depend on those beside it, so these are the tokens of the run itself, but for rounding under the
    engine "torch".
    """
    state = x0[np.array([0])] if isinstance(x0, Deviation) or x0.ndim == 3 else x0[None]
    tokens = [state.tokens if isinstance(state, Deviation) else state]
    for before, after in zip(depths[:-1].tolist(), depths[1:].tolist(), strict=True):
        try:
            part = simulate(
                dynamics, state, after - before, start=start + before,
                record=Record(measures=()), engine=engine, device=device,
            )  # fmt: skip
        except Overflow:
            break
        state = part.state
        tokens.append(part.final)
    return np.concatenate(tokens)


def _start(run: Trajectory) -> int:
    """The layer at which a trajectory begins, where it is the later part of a run."""
    return int(run.provenance.get("start", 0))


def _curves(runs: Mapping[str, Trajectory]) -> list[Curves]:
    """Measures by layer: two in each picture of one run, one of several runs."""
    curves, several = [], len(runs) > 1
    samples = max(run.n_samples for run in runs.values())
    words = "medians over samples" + ", bands: 16–84% of them" * (not several)
    for title, names, label in _CURVES:
        lines = [
            _line(run, name, run_name if several else _label(name), banded=not several)
            for run_name, run in runs.items()
            for name in names[: 1 if several else 2]
            if name in run.measures
        ]
        if lines:
            curves.append(Curves(
                title=_label(names[0]) if several else title, x=np.array([]), lines=lines,
                note=words if samples > 1 else "", x_label="layer", y_label=label,
                y_range=_panel(lines) if title == "distances" else None,
            ))  # fmt: skip
    return curves


def _label(name: str) -> str:
    """Of a measure; log10 stands at the axis."""
    return MEASURES["mu" if name == "log10_mu" else name].label


def _line(run: Trajectory, name: str, title: str, banded: bool) -> Line:
    depths, values = run.recorded(name)
    some = evenly(len(depths) - 1, _MOST_POINTS)
    depths, values = depths[some] + _start(run), values[:, some]
    if name in _IN_DECADES:
        with np.errstate(divide="ignore"):
            values = np.log10(values)
    values = np.where(np.isneginf(values), np.nan, values)  # an exact zero has no place there
    if not banded or len(values) == 1:
        return Line(title, np.percentile(values, 50, axis=0), x=depths)
    low, middle, high = np.percentile(values, [16, 50, 84], axis=0)
    return Line(title, middle, low, high, depths)


def _panel(lines: Sequence[Line]) -> tuple[float, float] | None:
    """The range of log10 of distances: a line that falls below the floating-point range leaves the
    picture where another stays, and at 1e-1000 in any case. None where no line falls so far."""
    lowest = [float(np.nanmin(line.y, initial=np.inf)) for line in lines]
    if min(lowest) > _RANGE:
        return None
    staying = [low for low in lowest if low > _RANGE]
    low = min(staying) if staying else max(min(lowest), _DEEPEST)
    high = max(float(np.nanmax(line.y, initial=low)) for line in lines)
    margin = 0.05 * (high - low) + 1.0
    return low - margin, high + margin


def _notes(
    runs: Mapping[str, Trajectory], states: Mapping[str, States], names: Sequence[str]
) -> list[str]:
    """What is shown, and what is not."""
    first = states[names[0]]
    n, d = first.tokens.shape[1:]
    layers = ", ".join(first.frames.labels)
    notes = [
        f"Tokens, singular values and attention are of {first.whose}, {n} tokens of dimension {d}, "
        f"at layers {layers}. Attention at a layer is that with which its tokens go on, by the "
        f"definition."
    ]
    if first.attention is None:
        notes.append(
            "Attention is not shown: its dynamics is not known here, or it has too many tokens."
        )
    if len(first.frames.labels) == 1 and next(iter(runs.values())).depth > 0:
        notes.append("Other layers were not recorded: Record(states=K) keeps every K-th.")
    if len(runs) > len(names):
        notes.append(f"Tokens are shown of {len(names)} of {len(runs)} runs.")
    return notes


def _settings(run: Trajectory) -> list[tuple[str, str]]:
    return rows({"dynamics": dict(run.dynamics), **run.provenance})
