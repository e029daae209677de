"""Keys that no query can select in two real models, and at which width they would appear: BRODY.

BRODY counts hidden states of 8 dimensions before and after the norm in front of attention. Here
they are counted in MiniLM (LayerNorm) and SmolLM2 (RMSNorm, which scales and projects nothing), for
all dimensions and for the keys of every head (32 and 64 dimensions, with their positions where the
model has them). Both are as free of unselectable keys as Gaussian points in so many dimensions. How
narrow would keys have to be? Random maps of the same hidden states to few dimensions tell, beside
the exact expectation for Gaussian points.

Equal tokens hide each other whatever the norm does: each distinct vector is counted once.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import plots
from dynsim.geometry.gaussian_keys import expected_unselectable
from dynsim.geometry.selectability import unselectable_fraction
from experiments.real_models import norms_of, real_models, stacked
from experiments.record import Verdict

PAPER = (
    "BRODY, arXiv 2305.02582, Tables 1 and 2: share of unselectable keys per layer before "
    "attention, before and after the norm, here in real models and per head"
)

#: There are no settings as published: the paper trains models of 8 dimensions.
SETTINGS = {
    "smoke": {"models": {"MiniLM": 96}, "excerpts": 1, "every": 3, "widths": [2, 8, 16],
              "draws": 1},
    "default": {"models": {"MiniLM": 512, "SmolLM2": 768}, "excerpts": 1, "every": 6,
                "widths": [2, 3, 4, 6, 8, 12, 16, 24, 32], "draws": 2},
}  # fmt: skip

#: The dimensions of the paper's models.
PAPER_DIM = 8
#: The norm before attention, by the end of its name, and how many of its kind come before.
BEFORE_ATTENTION = {
    "MiniLM": ("embeddings.LayerNorm", "output.LayerNorm"),
    "SmolLM2": ("input_layernorm",),
}


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """By model: shares of the heads' keys (layer, head); of hidden states before and after the norm
    in front of attention (layer, place), and of their random maps (layer, place, width); the
    expectation for Gaussian points, of heads (heads,) and of maps (width,)."""
    rows: list[dict] = []
    names = list(settings["models"])
    for name, n in settings["models"].items():
        for real in real_models([name], n, settings["excerpts"], seed, {}):
            rows.append(_of_model(real, n, settings, seed))
            share = 0.5 if real.trained else 1.0
            progress((names.index(name) + share) / len(names))
    return {"widths": np.array(settings["widths"])} | {
        name: stacked(row[name] for row in rows) for name in rows[0]
    }


def _of_model(real, n: int, settings: dict, seed: int) -> dict:
    profile = dynsim.probe(
        real.model, points=("embeddings",), measured=("keys",), batch_size=1, **real.inputs
    )
    heads = profile.heads[profile.stacks[0]]["unselectable"].mean(axis=1)  # (layer, head)
    norms = _before_attention(real)[:: settings["every"]]
    whole, mapped = [], []
    for k, passage in enumerate(norms):
        rng = np.random.default_rng([seed, k])
        maps = [rng.standard_normal((passage[0].shape[-1], max(settings["widths"])))
                for _ in range(settings["draws"])]  # fmt: skip
        whole.append([_share(x) for x in passage])
        mapped.append([
            [np.mean([_share(x @ m[:, :width]) for m in maps]) for width in settings["widths"]]
            for x in passage
        ])  # fmt: skip
    config = real.model.config
    width = config.hidden_size // config.num_attention_heads
    return {
        "model": real.name,
        "trained": real.trained,
        "tokens": n,
        "dim": config.hidden_size,
        "head_width": width,
        "layer": np.arange(len(heads), dtype=float)[:: settings["every"]],
        "heads": heads,
        "hidden": np.array(whole),
        "mapped": np.array(mapped),
        "expected_heads": expected_unselectable(n, width) / n,
        "expected": np.array([expected_unselectable(n, w) / n for w in settings["widths"]]),
    }


def _before_attention(real) -> list[tuple[np.ndarray, np.ndarray]]:
    """What enters and leaves the norm in front of every attention, by layer."""
    last = {"MiniLM": 1}.get(real.name, 0)  # the norm after the last MLP is before no attention
    seen = [
        passage
        for name, passage in norms_of(real.model, real.inputs).items()
        if name.endswith(BEFORE_ATTENTION[real.name]) and "attention.output" not in name
    ]
    return seen[: len(seen) - last]


def _share(x: np.ndarray) -> float:
    """Unselectable among the distinct vectors of each sample (samples, N, p), mean over samples."""
    return float(
        np.mean([unselectable_fraction(np.unique(one, axis=0).astype(float)) for one in x])
    )
