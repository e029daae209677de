"""Keys that no query can select, in small language models with and without LayerNorm's scaling.

Models of GPT-2's shape learn characters of real text. The norm before attention is taken apart:
all four ways to have projection and scaling, as published without gain and bias. On a sphere every
key can win. Beside them a real model, MiniLM: its hidden states, and the keys of its heads.

That scaling lowers the loss shows at low rates. At 5e-3 the four are equal after 1200 steps; the
published rate is 5e-5.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from dynsim import minilm, plots
from experiments.record import Verdict

PAPER = (
    "BRODY, arXiv 2305.02582, Tables 1 and 2, Fig. 4: share of unselectable keys per layer before "
    "attention, before and after LayerNorm, and language-model loss, with and without scaling"
)

#: Keys are counted in `texts` held-out texts of `positions` characters.
SETTINGS = {
    "smoke": {"dim": 8, "layers": 2, "heads": 4, "positions": 40, "context": 16, "members": 1,
              "batch": 2, "steps": 4, "rate": 3e-3, "every": 2, "tests": 2, "texts": 1},
    "default": {"dim": 8, "layers": 4, "heads": 4, "positions": 1024, "context": 256, "members": 2,
                "batch": 8, "steps": 1200, "rate": 1e-3, "every": 50, "tests": 16, "texts": 16},
    "paper": {"dim": 8, "layers": 4, "heads": 4, "positions": 1024, "context": 1024, "members": 1,
              "batch": 16, "steps": 50_000, "rate": 5e-5, "every": 500, "tests": 16, "texts": 1000},
}  # fmt: skip

#: Name: (projection, scaling) of the norm before attention.
VARIANTS = {
    "LayerNorm": (True, True),
    "no scaling": (True, False),
    "no projection (RMSNorm)": (False, True),
    "neither": (False, False),
}


def compute(settings: dict, seed: int, progress, checkpoints) -> dict[str, np.ndarray]:
    """Held-out loss (variant, time, seed); shares (variant, seed, text, layer, before or after).

    And MiniLM's shares (text, layer, before, after or per head).
    """
    from experiments.training import gpt
    from experiments.training.checkpoints import Checkpoint
    from experiments.training.norms import FactoredNorm, layer_norm
    from experiments.training.text import excerpts, standard_library

    rng = np.random.default_rng([seed, 2])
    texts = excerpts(standard_library()[1], settings["texts"], settings["positions"], rng)
    found, shares = [], []
    for v, (project, scale) in enumerate(VARIANTS.values()):

        def norm(d, project=project, scale=scale):
            return FactoredNorm(d, project, d**0.5 if scale else None, affine=False)

        def report(share, v=v):
            progress((v + 0.9 * share) / len(VARIANTS))

        path = checkpoints / f"{v}.safetensors"
        checkpoint = Checkpoint(path, variant=[project, scale], settings=settings, seed=seed)
        ensemble, seen = gpt.learn(norm, layer_norm, settings, seed, checkpoint, report)
        found.append(seen["loss"])
        shares.append(
            [[unselectable(model, text) for text in texts] for model in ensemble.members()]
        )
        progress((v + 1) / len(VARIANTS))
    return {
        "step": seen["step"],
        "loss": np.stack(found),
        "unselectable": np.array(shares),
        "minilm": unselectable_in_minilm(settings),
    }


def unselectable(model, text: np.ndarray) -> np.ndarray:
    """Share of a text's tokens that are unselectable keys: (layer, before or after the norm)."""
    from dynsim.selectability import unselectable_fraction
    from experiments.training.hidden import passages

    return np.array(
        [
            [float(unselectable_fraction(x)) for x in (passage.before[0], passage.after[0])]
            for name, passage in passages(model, text[None]).items()
            if name.endswith("attention_norm")
        ]
    )


def unselectable_in_minilm(settings: dict) -> np.ndarray:
    """Shares (text, layer, place): before the norm, after it, and of the heads' 32-dim. keys."""
    from dynsim.selectability import unselectable_fraction
    from experiments.training import hidden, text

    count, length = settings["tests"], settings["context"]
    excerpt = text.decode(text.standard_library()[1][: 8 * count * length])
    seen = hidden.of_minilm(excerpt, length, count)
    shares = []
    for k in range(minilm.N_LAYERS):
        x = seen["embeddings" if k == 0 else f"layer {k - 1} MLP"]
        heads = minilm.attention(k).layer(0, minilm.DIM).key  # (H, d, p)
        keys = np.einsum("snd,hdp->shnp", x.after, heads)
        each = [unselectable_fraction(x.before), unselectable_fraction(x.after)]
        shares.append([*each, unselectable_fraction(keys).mean(axis=1)])
    return np.array(shares).transpose(2, 0, 1)


def cost_of_no_scaling(data) -> np.ndarray:
    """Loss without scaling less loss with it, (time, pair, seed): with and without projection."""
    loss = data["loss"].astype(float)
    return np.stack([loss[1] - loss[0], loss[3] - loss[2]], axis=1)


def draw(data) -> Figure:
    """Loss curves, what scaling is worth; unselectable keys by layer, before and after the norm."""
    figure = Figure(figsize=(13.5, 3.6), layout="constrained")
    losses, costs, before, after = figure.subplots(1, 4)
    for name, loss, style in zip(VARIANTS, data["loss"], plots.STYLES, strict=False):
        losses.plot(
            data["step"], loss.mean(axis=1), label=name, markevery=0.12, markersize=4, **style
        )
        low, high = loss.min(axis=1), loss.max(axis=1)
        losses.fill_between(data["step"], low, high, color=style["color"], alpha=0.2, linewidth=0)
    losses.set(xlabel="training steps", ylabel="held-out loss (nats per character)")
    pairs = ((1, "with projection"), (3, "without projection"))
    for of_pair, (v, label) in zip(cost_of_no_scaling(data).transpose(1, 2, 0), pairs, strict=True):
        for seed, cost in enumerate(of_pair):
            style = {**plots.STYLES[v], "label": label if seed == 0 else None}
            costs.plot(data["step"], cost, markevery=0.12, markersize=4, **style)
    costs.axhline(0, color="0.5", linewidth=0.8)
    costs.set(xlabel="training steps", ylabel="loss without − with scaling, by seed")
    costs.legend(frameon=False, fontsize=8)
    percent = 100 * data["unselectable"].mean(axis=(1, 2))  # variant, layer, place
    layers = 1 + np.arange(percent.shape[1])
    width = 0.8 / len(VARIANTS)
    for axes, place, title in ((before, 0, "before the norm"), (after, 1, "after the norm")):
        for v, (of_variant, style) in enumerate(zip(percent, plots.STYLES, strict=False)):
            at = layers + (v - (len(VARIANTS) - 1) / 2) * width
            axes.bar(at, of_variant[:, place], width, color=style["color"])
        axes.set(xlabel="layer", ylabel="unselectable keys (%)", title=title, xticks=layers)
        axes.set_ylim(0, max(5.0, 1.05 * percent.max()))
    for axes in (losses, costs, before, after):
        axes.grid(True, color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = losses.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def claim(data) -> Verdict:
    """No unselectable keys after scaling, some without; a lower loss with scaling.

    Losses are means over the last quarter of the observations: a single one is noisy.
    """
    percent = 100 * data["unselectable"].mean(axis=(1, 2))  # variant, layer, place
    last = data["loss"][:, -1].astype(float)
    scaled = [scale for _, scale in VARIANTS.values()]
    none = all((percent[v, :, 1] == 0).all() for v in range(len(scaled)) if scaled[v])
    some = all((percent[v, :, 1] > 0).all() for v in range(len(scaled)) if not scaled[v])
    costs = cost_of_no_scaling(data)
    late = costs[-max(1, len(costs) // 4) :].mean(axis=0).ravel()  # pairs and seeds
    low, high = stats.ttest_1samp(late, 0.0).confidence_interval(0.95)
    return Verdict(
        statement="with scaling no key is unselectable before attention, without it some are in "
        "every layer; the loss with scaling is lower",
        paper="before attention, layers 1-4: without scaling 51.0, 32.2, 34.7, 36.8%, with scaling "
        "0; in the model with scaling before LN 44.8, 28.5, 22.3, 26.1%, after it 0; Fig. 4: the "
        "loss with scaling is lower",
        measured={
            name: {
                "% before the norm, by layer": percent[v, :, 0].round(1).tolist(),
                "% after the norm, by layer": percent[v, :, 1].round(1).tolist(),
                "last loss, by seed": last[v].round(4).tolist(),
            }
            for v, name in enumerate(VARIANTS)
        }
        | {
            "late loss without scaling, less that with it": f"{late.mean():.4f} ({low:.4f} to "
            f"{high:.4f}); by seed {late.round(4).tolist()}",
            "MiniLM: % before the norm, after it, of the heads' keys, by layer": (
                100 * data["minilm"].mean(axis=0)
            )
            .round(1)
            .tolist(),
        },
        tolerance="0 keys, more than 0 keys; 95% interval (t, over seeds and both pairs) of the "
        "difference of losses above 0",
        reproduced=none and some and bool(low > 0),
    )
