"""Cells that are probes: a real model on a text, with its mask, norms, skips or MLPs changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dynsim._files import read_text
from dynsim._threads import torch_threads
from dynsim.sweeps.kind import Kept, Kind, one_by_one
from dynsim.sweeps.settings import Settings, check_least, mask_of

if TYPE_CHECKING:
    from dynsim.models.change import Change
    from dynsim.models.profile import Profile
    from dynsim.models.sources import Source

__all__ = ["PROBE"]

#: What a model has of its own, for mask, norm and MLP.
_OWN = "own"
#: Measures of the residual stream that are kept.
_MEASURES = (
    "relative_mu", "relative_mu_without_sinks", "stable_rank", "stable_rank_without_sinks",
    "effective_rank", "mean_abs_cosine", "norm_median", "norm_max", "sinks",
)  # fmt: skip
#: Texts that are run at once.
_BATCH = 8


@lru_cache(maxsize=2)
def _source(name: str, seed: int | None) -> Source:
    """A model by name, trained, or untrained by a seed."""
    from dynsim.models.sources import open_source

    return open_source(name) if seed is None else _source(name, None).untrained(seed)


def _source_of(settings: Settings) -> Source:
    return _source(settings["model"], settings["seed"] if settings["untrained"] else None)


def _inputs(settings: Settings) -> dict[str, Any]:
    from dynsim.models.texts import excerpts

    source, text = _source(settings["model"], None), _text(settings["text"])
    return excerpts(source, text, settings["tokens"], settings["samples"])


def _text(path: str | None) -> str:
    if path is None:
        raise ValueError("a probe needs a text: text=FILE")
    return read_text(path)


def _change(settings: Settings) -> Change | None:
    from dynsim.models.change import Change

    mask, window = settings["mask"], settings["window"]
    if window is not None and mask == _OWN:
        raise ValueError("window is that of a mask; name one by mask=NAME, or leave it out")
    off: dict[str, Any] = {}
    for name, nothing in (("norm", "none"), ("mlp", "none"), ("skip", 0.0)):
        if settings[name] not in (nothing, 1.0 if name == "skip" else _OWN):
            words = "1 or 0" if name == "skip" else f"{_OWN} or {nothing}"
            raise ValueError(f"{name} of a probe is {words}; got {settings[name]}")
        if settings[name] == nothing:
            off[name] = "off"
    change = Change(
        mask=None if mask == _OWN else mask_of(settings),
        beta=settings["beta"],
        **off,
    )
    return change if change.active else None


def _check(settings: Settings) -> None:
    check_least(settings, tokens=2, samples=1, seed=0)
    if settings["model"] is None:
        raise ValueError("a probe needs a model: model=NAME|PATH")
    _change(settings)
    _inputs(settings)


def _profile(settings: Settings) -> Profile:
    from dynsim.models.probing import probe

    with torch_threads(1):  # its sums depend on the number
        return probe(
            _source_of(settings).model, change=_change(settings), batch_size=_BATCH,
            **_inputs(settings),
        )  # fmt: skip


def _curves(profile: Profile) -> np.ndarray:
    return np.array([profile.residual(name) for name in _MEASURES])


def _inputs_of(settings: Settings) -> dict[str, Any]:
    """What the text is, and which model."""
    text = hashlib.sha256(_text(settings["text"]).encode()).hexdigest()
    model = _source(settings["model"], None).provenance
    return {
        settings["text"]: text,
        settings["model"]: {name: model[name] for name in ("revision", "sha256", "dtype")},
    }


def _dims(values: Callable[[str], Sequence]) -> dict[str, int | Sequence]:
    layers = [_source(name, None).provenance["layers"] for name in values("model")]
    return {"measure": _MEASURES, "sample": values("samples")[0], "layer": max(layers) + 1}


KEEP = {
    "ends": Kept(
        {"end": (("measure", "sample"), "float64")},
        lambda profile: {"end": _curves(profile)[:, -1]},
    ),
    "verdict": Kept(
        {"verdict": ((), "string")}, lambda profile: {"verdict": profile.diagnosis.kind}
    ),
    "curves": Kept(
        {"curve": (("measure", "sample", "layer"), "float64")},
        lambda profile: {"curve": _curves(profile).swapaxes(1, 2)},
    ),
}

PROBE = Kind(
    about="a real model measured, and what if: dynsim probe",
    defaults={
        "model": None,
        "text": None,
        "tokens": 128,
        "samples": 8,
        "mask": _OWN,
        "window": None,
        "norm": _OWN,
        "mlp": _OWN,
        "skip": 1.0,
        "beta": 1.0,
        "untrained": False,
        "seed": 0,
    },
    keep=KEEP,
    kept=("ends", "verdict"),
    dims=_dims,
    single={"": ("samples",)},
    check=_check,
    cost=lambda settings: 0.5 + 2e-3 * settings["samples"] * settings["tokens"],
    compute=one_by_one(_profile, KEEP),
    inputs=_inputs_of,
    packages=("transformers", "tokenizers", "safetensors", "torch"),
)
