"""Hidden vectors before and after each norm of a model, and what is measured on them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from dynsim import masks, minilm
from dynsim.mlp import NoMLP
from dynsim.norms import NoNorm
from experiments.training.norms import FactoredNorm

__all__ = ["Passage", "angle_to_ones", "angles", "geometry", "of_minilm", "passages"]


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
    """The 12 norms in all-MiniLM-L6-v2's six layers, on excerpts of a text, in float64."""
    x = minilm.embed(text, n_tokens, samples)
    seen = {}
    for k in range(minilm.N_LAYERS):
        layer = minilm.layer(k, masks.complete(n_tokens))
        bare = replace(layer, norm=NoNorm(), mlp=NoMLP())
        before = np.stack([bare.step(sample) for sample in x])
        x = layer.norm.apply(before)
        seen[f"blocks.{k}.attention_norm"] = Passage(before, x)
        before = replace(layer, mlp_norm=NoNorm()).feed_forward(x, 0)
        x = layer.mlp_norm.apply(before)
        seen[f"blocks.{k}.mlp_norm"] = Passage(before, x)
    return seen


def angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between vectors, 0 to 180: (..., d), (..., d) -> (...)."""
    cosine = np.sum(a * b, axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def angle_to_ones(a: np.ndarray) -> np.ndarray:
    """Degrees between vectors and **1** = (1, ..., 1), 0 to 180: (..., d) -> (...)."""
    return angles(a, np.ones(a.shape[-1]))


def geometry(seen: dict[str, Passage]) -> dict[str, np.ndarray]:
    """Per norm, over all tokens: mean and sd of the angle to **1**, mean lengths, mean rotation.

    (norms,) each. What GUPTA, arXiv 2409.12951, tells of models layer by layer; the rotation is
    the angle between what enters the norm and what leaves it.
    """
    rows = []
    for before, after in seen.values():
        angle = angle_to_ones(before)
        lengths = [np.linalg.norm(x, axis=-1).mean() for x in (before, after)]
        rows.append([angle.mean(), angle.std(), *lengths, angles(before, after).mean()])
    names = ("angle", "angle_sd", "length_before", "length_after", "rotation")
    return dict(zip(names, np.array(rows).T, strict=True))
