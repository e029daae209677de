"""Hidden vectors before and after each norm of a model, and what is measured on them."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from dynsim import minilm
from dynsim.geometry import angle_to_ones, orthogonality
from experiments.training.norms import FactoredNorm

__all__ = ["Passage", "angles", "geometry", "of_minilm", "passages"]


class Passage(NamedTuple):
    """The vectors that enter a norm and those that leave it, (..., d) each."""

    before: np.ndarray
    after: np.ndarray


def passages(model: nn.Module, ids: np.ndarray) -> dict[str, Passage]:
    """Every norm of the model by name, in the order of the depth, in float64."""
    seen = {}

    def note(name):
        def hook(module, inputs, output):
            seen[name] = Passage(inputs[0].numpy(), output.numpy())

        return hook

    model = deepcopy(model).double()
    hooks = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        if isinstance(module, FactoredNorm)
    ]
    with torch.no_grad():
        model(torch.from_numpy(ids))
    for hook in hooks:
        hook.remove()
    return seen


def of_minilm(text: str, n_tokens: int, samples: int) -> dict[str, Passage]:
    """The 13 norms of all-MiniLM-L6-v2, on excerpts of a text, in float64."""
    norms, inputs = minilm.layer_norms(), minilm.layer_norm_inputs(text, n_tokens, samples)
    return {name: Passage(x, norms[name].apply(x)) for name, x in inputs.items()}


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between vectors, 0 to 180: (..., d), (..., d) -> (...)."""
    cosine = np.sum(a * b, axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def geometry(seen: dict[str, Passage]) -> dict[str, np.ndarray]:
    """Per norm, over all tokens: mean and sd of the angle to **1**, mean lengths, mean rotation,
    and `dynsim.geometry.orthogonality` of what enters.

    (norms,) each. What GUPTA, arXiv 2409.12951, tells of models layer by layer; the rotation is
    the angle between what enters the norm and what leaves it.
    """
    rows = []
    for before, after in seen.values():
        angle = angle_to_ones(before)
        lengths = [np.linalg.norm(x, axis=-1).mean() for x in (before, after)]
        turned = angles(before, after).mean()
        rows.append([angle.mean(), angle.std(), *lengths, turned, *orthogonality(before)])
    names = ("angle", "angle_sd", "length_before", "length_after", "rotation", "offset", "baseline")
    return dict(zip(names, np.array(rows).T, strict=True))
