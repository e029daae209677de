"""The page of a simulation, or of several that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim.collapse.verdicts import verdict
from dynsim.measures import MEASURES
from dynsim.reports.page import Case, Page
from dynsim.reports.settings import rows
from dynsim.reports.states import MOST_LAYERS, States, attention_of, chosen
from dynsim.reports.views import Curves, Frames, Line
from dynsim.simulation import Overflow, Record, simulate

if TYPE_CHECKING:
    from dynsim.network.deviation import Deviation
    from dynsim.network.dynamics import AttentionDynamics
    from dynsim.results.trajectory import Trajectory

__all__ = ["MOST_CASES", "followed", "page", "recorded"]

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
        The tokens to show, from `followed`; without them those that were recorded.
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


def recorded(trajectory: Trajectory, sample: int = 0, samples: int | None = None) -> States:
    """The tokens that a trajectory recorded of a sample, and its last ones.

    With their attention where the trajectory holds its dynamics (`rebuild_dynamics`).

    samples : of how many the sample is one, where it was simulated alone
    """
    at = np.append(trajectory.state_depths, trajectory.depth)
    tokens = np.concatenate([trajectory.states[sample], trajectory.final[sample][None]])
    depths, places = np.unique(at, return_index=True)
    some = chosen(len(depths) - 1)
    layers, tokens = (_start(trajectory) + depths[some]).tolist(), tokens[places[some]]
    try:
        attention = attention_of(trajectory.rebuild_dynamics(), tokens, layers)
    except ValueError:  # parts of classes of the user's own, or arrays too large to be kept
        attention = None
    samples = trajectory.n_samples if samples is None else samples
    frames = Frames("layer", [str(t) for t in layers], layers)
    return States(frames, tokens, attention, whose=f"sample {sample} of {samples}")


def followed(
    dynamics: AttentionDynamics,
    x0: np.ndarray | Deviation,
    depth: int,
    *,
    engine: str = "numba",
    device: str | None = None,
    start: int = 0,
) -> States:
    """The first sample of x0 once more, `depth` layers from layer `start`: at most 33 of its states.

    A sample does not depend on those beside it, so these are the tokens of the run itself, but for
    rounding under the engine "torch".
    """
    batch = x0.ndim == 3 if isinstance(x0, np.ndarray) else True
    record = Record(measures=(), states=-(-depth // (MOST_LAYERS - 1)))
    try:
        run = simulate(
            dynamics, x0[np.array([0])] if batch else x0, depth,
            record=record, engine=engine, device=device, start=start,
        )  # fmt: skip
    except Overflow as ended:
        run = ended.trajectory
    return recorded(run, samples=_number(x0))


def _number(x0: np.ndarray | Deviation) -> int:
    """How many samples there are."""
    shape = x0.shape if isinstance(x0, np.ndarray) else x0.shape.shape  # Z of a deviation
    return shape[0] if len(shape) == 3 else 1


def _start(run: Trajectory) -> int:
    """The layer at which a trajectory begins, where it is the later part of a run."""
    return int(run.provenance.get("start", 0))


def _curves(runs: Mapping[str, Trajectory]) -> list[Curves]:
    curves = []
    for title, names, label in _CURVES:
        lines = [
            _line(run, name, MEASURES[name].label, run_name, len(runs) > 1)
            for run_name, run in runs.items()
            for k, name in enumerate(names)
            if name in run.measures and not (k and len(runs) > 1)
        ]
        if not lines:
            continue
        shown = MEASURES[names[0]].label if len(runs) > 1 else title
        several = any(run.n_samples > 1 for run in runs.values())
        words = "medians over samples" + ", bands: 16–84% of them" * (len(runs) == 1) if several else ""
        curves.append(Curves(
            title=shown, note=words, x=np.array([]), lines=lines, x_label="layer", y_label=label,
        ))  # fmt: skip
    return curves


def _line(run: Trajectory, name: str, what: str, run_name: str, several: bool) -> Line:
    depths, values = run.recorded(name)
    depths = depths + _start(run)
    some = chosen(len(depths) - 1, _MOST_POINTS)
    depths, values = depths[some], values[:, some]
    if name in _IN_DECADES:
        with np.errstate(divide="ignore"):
            values = np.log10(values)
    values = np.where(np.isneginf(values), np.nan, values)  # an exact zero has no place there
    middle = _percentile(values, 50)
    if several or len(values) == 1:
        return Line(run_name if several else what, middle, x=depths)
    return Line(what, middle, _percentile(values, 16), _percentile(values, 84), depths)


def _percentile(values: np.ndarray, share: float) -> np.ndarray:
    """Over samples, (K,); NaN where any of them has no value."""
    return np.percentile(values, share, axis=0)


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
        notes.append("Attention is not shown: its dynamics is not known here, or it has too many tokens.")
    if len(first.frames.labels) == 1 and next(iter(runs.values())).depth > 0:
        notes.append("Other layers were not recorded: Record(states=K) keeps every K-th.")
    if len(runs) > len(names):
        notes.append(f"Tokens are shown of {len(names)} of {len(runs)} runs.")
    return notes


def _settings(run: Trajectory) -> list[tuple[str, str]]:
    return rows({"dynamics": dict(run.dynamics), **run.provenance})
