"""The page of a real model that was probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynsim.reports.page import Case, Page
from dynsim.reports.settings import rows
from dynsim.reports.states import States, pooled, room_for
from dynsim.reports.views import Curves, Frames, Line, Map, View

if TYPE_CHECKING:
    from dynsim.models.profile import Profile
    from dynsim.models.recording import Recording

__all__ = ["page"]

#: Of each group of curves: title, measures by name, label of the axis, whether on a log axis.
_CURVES = (
    ("distance to consensus", {"all tokens": "relative_mu",
                               "without sinks": "relative_mu_without_sinks"}, "mu / ||X||", False),
    ("stable rank", {"all tokens": "stable_rank",
                     "without sinks": "stable_rank_without_sinks"}, "stable rank", True),
    ("norm of a token", {"median": "norm_median", "largest": "norm_max"}, "norm", True),
)  # fmt: skip
#: Statistics of heads: what the picture is called.
_HEADS = {
    "first_token": "attention to the first token",
    "entropy": "entropy of attention (nats)",
    "symmetric": "symmetry of attention",
    "lambda_2": "lambda_2 of the attention graph",
    "unselectable": "share of unselectable keys",
}


def page(
    profile: Profile,
    beside: Mapping[str, Profile] | None = None,
    recording: Recording | None = None,
    title: str = "",
    settings: Sequence[tuple[str, str]] | None = None,
) -> Page:
    """The page of a profile, and of others beside it by name.

    recording : the tokens and attention of one text, from `dynsim.models.record`; a profile holds
        measures alone

    The last stack of each model is shown. Raises ValueError where the residual was not measured.
    """
    name = str(profile.facts["model"])
    profiles = {name: profile, **(beside or {})}
    layers = len(profile.residual("relative_mu"))
    labels = _labels(profile, layers)
    heads = _heads(profiles)
    if recording is None:
        positions = list(range(layers))
        case = Case("", Frames("", labels, positions), heads)
        notes = ["Tokens and attention are not shown: a profile holds measures alone."]
    else:
        states = _states(recording)
        case = Case("", states.frames, [*states.views(), *heads])
        shown = ", ".join(states.frames.labels)
        notes = [f"Tokens, singular values and attention are of {states.whose}, at: {shown}. "
                 f"Attention is that with which the tokens go on."]  # fmt: skip
    if settings is None:
        settings = rows(dict(profile.facts))
    sentences = [
        f"{own}: {one.diagnosis.sentence}" if len(profiles) > 1 else one.diagnosis.sentence
        for own, one in profiles.items()
    ]
    return Page(
        title or f"{name}, layer by layer", sentences, settings, [case],
        _curves(profiles), notes,
    )  # fmt: skip


def _labels(profile: Profile, layers: int) -> list[str]:
    """What the points of the residual stream are called."""
    begins = (profile.stacks[-1], "embeddings") in profile.states
    names = ["embeddings"] * begins
    return names + [f"after block {k}" for k in range(layers - begins)]


def _curves(profiles: Mapping[str, Profile]) -> list[Curves]:
    curves = []
    for title, measures, label, log in _CURVES:
        lines = [
            _line(f"{own}, {what}" if len(profiles) > 1 else what, one.residual(measure))
            for own, one in profiles.items()
            for what, measure in measures.items()
        ]
        samples = max(one.samples for one in profiles.values())
        words = "medians over texts, bands: 16–84% of them" if samples > 1 else "one text"
        layers = max(len(one.residual("relative_mu")) for one in profiles.values())
        curves.append(Curves(
            title=title, note=words, x=np.arange(layers), lines=lines,
            x_label="blocks done", y_label=label, log=log,
        ))  # fmt: skip
    return curves


def _line(name: str, values: np.ndarray) -> Line:
    if values.shape[1] == 1:
        return Line(name, values[:, 0])
    low, middle, high = np.nanpercentile(values, [16, 50, 84], axis=1)
    return Line(name, middle, low, high)


def _heads(profiles: Mapping[str, Profile]) -> list[View]:
    """Statistics of every head as colours, on one scale for all profiles."""
    views: list[View] = []
    for statistic, words in _HEADS.items():
        medians = {
            name: np.nanmedian(one.heads[one.stacks[-1]][statistic], axis=1).T  # (heads, blocks)
            for name, one in profiles.items()
            if statistic in one.heads.get(one.stacks[-1], {})
        }
        every = np.concatenate([table.ravel() for table in medians.values()] or [np.zeros(1)])
        limits = float(np.nanmin(every)), float(np.nanmax(every))
        for name, table in medians.items():
            title = f"{words}, {name}" if len(profiles) > 1 else words
            views.append(Map(
                title=title, note="medians over texts", x=_numbers(table.shape[1]),
                y=_numbers(table.shape[0]), x_label="block", y_label="head", values=table[None],
                limits=limits,
            ))  # fmt: skip
    return views


def _numbers(n: int) -> list[str]:
    return [str(k) for k in range(n)]


def _states(recording: Recording) -> States:
    """What was recorded of one text; much attention in groups of tokens."""
    attention = None
    if recording.attention:
        heads = [len(A) for A in recording.attention]
        room = room_for(sum(heads))
        attention = np.stack([pooled(A, room) for A in recording.attention])
    begins = recording.layers[0] < 0
    labels = ["embeddings" if t < 0 else f"after block {t}" for t in recording.layers]
    frames = Frames("", labels, [t + 1 - (not begins) for t in recording.layers])
    return States(
        frames, recording.tokens, attention, recording.names,
        whose=f"text 0 of {recording.texts}", eps=recording.eps,
    )  # fmt: skip
