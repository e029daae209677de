"""Hidden vectors before and after each norm of a model, and what is measured on them."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from experiments.training.norms import FactoredNorm

__all__ = ["Passage", "angle_to_ones", "angles", "passages"]


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


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between vectors, 0 to 180: (..., d), (..., d) -> (...)."""
    cosine = np.sum(a * b, axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def angle_to_ones(a: np.ndarray) -> np.ndarray:
    """Degrees between vectors and **1** = (1, ..., 1), 0 to 180: (..., d) -> (...)."""
    return angles(a, np.ones(a.shape[-1]))
