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
from dynsim.geometry.gaussian_keys import expected_unselectable
from dynsim.geometry.selectability import unselectable_fraction
from dynsim.results import style
from experiments.real_models import norms_of, real_models, stacked
from experiments.record import Verdict

PAPER = (
    "BRODY, arXiv 2305.02582, Tables 1 and 2: share of unselectable keys per layer before "
    "attention, before and after the norm, here in real models and per head"
)

EXTRAS = ("models",)
#: There are no settings as published: the paper trains models of 8 dimensions.
#: Of every so many layers hidden states are counted, of all of them the keys of heads.
SETTINGS = {
    "smoke": {"models": {"MiniLM": {"tokens": 96, "every": 3}}, "excerpts": 1,
              "widths": [2, 8, 16], "draws": 1},
    "default": {"models": {"MiniLM": {"tokens": 512, "every": 1},
                           "SmolLM2": {"tokens": 768, "every": 6}}, "excerpts": 1,
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
    for name, own in settings["models"].items():
        for real in real_models([name], own["tokens"], settings["excerpts"], seed, {}):
            rows.append(_of_model(real, settings | own, seed))
            share = 0.5 if real.trained else 1.0
            progress((names.index(name) + share) / len(names))
    return {"widths": np.array(settings["widths"])} | {
        name: stacked(row[name] for row in rows) for name in rows[0]
    }


def _of_model(real, settings: dict, seed: int) -> dict:
    n = settings["tokens"]
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


# --- figure -------------------------------------------------------------------------------------


#: MiniLM has LayerNorm, SmolLM2 RMSNorm.
COLOURS = (style.NORMS["layernorm"], style.NORMS["rms"])


def draw(data) -> Figure:
    """Unselectable share against width, a panel a model; and by layer at the paper's width."""
    names = list(dict.fromkeys(data["model"].tolist()))
    figure, (panels,) = style.panels(1, len(names) + 1, height=2.6)
    for axes in panels:
        axes.set(ylabel="unselectable keys (%)", ylim=(-3, 100))
    for name, axes, colour in zip(names, panels, COLOURS, strict=False):
        _draw_widths(axes, data, name, colour)
    _draw_layers(panels[-1], data, names)
    style.letters(panels)
    if all(_heads(data, k).max() == 0 for k in range(len(data["model"]))):
        title = (
            "Real heads are too wide for unselectable keys, with a norm or without; in 16 "
            "dimensions and fewer they appear, as among Gaussian points"
        )
    else:
        title = "Unselectable keys of real models against the width of keys"
    style.finding(figure, title)
    return figure


def _of(data, name: str, trained: bool) -> int | None:
    found = np.flatnonzero((data["model"] == name) & (data["trained"] == trained))
    return int(found[0]) if len(found) else None


def _heads(data, k: int) -> np.ndarray:
    heads = data["heads"][k]
    return heads[~np.isnan(heads)]


def _hidden(data, k: int) -> np.ndarray:
    """(layer, place)."""
    rows = data["hidden"][k]
    return rows[~np.isnan(rows[:, 0])]


def _mapped(data, k: int) -> np.ndarray:
    """(layer, place, width)."""
    rows = data["mapped"][k]
    return rows[~np.isnan(rows[:, 0, 0])]


def _draw_widths(axes, data, name: str, color: str) -> None:
    widths, k = data["widths"], _of(data, name, True)
    fresh = _of(data, name, False)
    for rows in 100 * _mapped(data, fresh).mean(axis=1):
        axes.plot(widths, rows, color="0.75", linewidth=0.6)
    before, after = 100 * _mapped(data, k).transpose(1, 0, 2)
    for rows in before:
        axes.plot(widths, rows, color=color, linewidth=0.7)
    for rows in after:
        axes.plot(widths, rows, color=color, linewidth=0.7, linestyle="--")
    axes.plot(widths, 100 * data["expected"][k], color="black", linestyle=":", linewidth=1.6)
    head, d = int(data["head_width"][k]), int(data["dim"][k])
    heads, hidden = 100 * _heads(data, k), 100 * _hidden(data, k)
    axes.plot([head], [heads.max()], "o", color=color, markersize=5)
    axes.plot([d], [hidden.max()], "D", color=color, markersize=4)
    axes.text(head, heads.max() + 4, f"{heads.size} heads:\n"
              f"{heads.max():.2g}%", fontsize=6.5, color=color)  # fmt: skip
    axes.plot([d, d], [hidden.max() + 2, hidden.max() + 22], color=color, linewidth=0.7)
    axes.text(1.2 * d, hidden.max() + 23, f"states:\n"
              f"{hidden.max():.2g}%", fontsize=6.5, color=color, ha="right")  # fmt: skip
    text = (
        "a line a layer, mapped to\nfew dimensions at random\n"
        "solid: before the norm\ndashed: after it\ngrey: initialised\ndots: Gaussian, exact"
    )
    style.note(axes, text, 0.97, 0.97)
    ticks = [2, 8, 32, 128, 512]
    axes.set(xscale="log", xticks=ticks, xlabel="dimensions of keys", xlim=(1.8, 750),
             title=f"{name}, {int(data['tokens'][k])} tokens")  # fmt: skip
    axes.set_xticklabels([str(t) for t in ticks])
    axes.minorticks_off()


def _at_the_papers_width(data, k: int) -> np.ndarray:
    """(layer, place), at the width nearest to the paper's."""
    return _mapped(data, k)[..., int(np.abs(data["widths"] - PAPER_DIM).argmin())]


def _draw_layers(axes, data, names: list[str]) -> None:
    ends = []
    for name, colour in zip(names, COLOURS, strict=False):
        k = _of(data, name, True)
        rows = 100 * _at_the_papers_width(data, k)
        depth = np.linspace(0, 1, len(rows))
        for place, dash in enumerate(("-", "--")):
            axes.plot(depth, rows[:, place], color=colour, linestyle=dash, marker="o",
                      markersize=3)  # fmt: skip
        ends.append((1.0, float(rows[-1].mean()), name, colour))
        chance = 100 * data["expected"][k, int(np.abs(data["widths"] - PAPER_DIM).argmin())]
        axes.plot([0, 1], [chance, chance], color=colour, linestyle=":", linewidth=1)
    paper = np.linspace(0, 1, len(PAPERS_TABLE))
    axes.plot(paper, PAPERS_TABLE, "k^", markersize=5, fillstyle="none")
    ends.append((1.0, PAPERS_TABLE[-1], "△ paper,\nno scaling", "black"))
    axes.set(xlim=(-0.05, 1.05), xticks=(0, 1), xticklabels=("first layer", "last"),
             title=f"mapped to {PAPER_DIM} dimensions")  # fmt: skip
    style.label_ends(axes, ends)


#: Table 1 of the paper: unselectable keys before attention without scaling, layers 1 to 4, percent.
PAPERS_TABLE = (51.0, 32.2, 34.7, 36.8)

# --- claims -------------------------------------------------------------------------------------


def claims(data) -> list[Verdict]:
    """The paper's two sentences about real models, and ours about heads."""
    return [_none_after(data), _some_before(data), _none_in_heads(data)]


def _trained(data) -> dict[str, int]:
    names = zip(data["model"], data["trained"], strict=True)
    return {str(name): k for k, (name, trained) in enumerate(names) if trained}


def _none_after(data) -> Verdict:
    after = {name: _hidden(data, k)[:, 1] for name, k in _trained(data).items()}
    return Verdict(
        statement="after the norm in front of attention no hidden state of a trained model is an "
        "unselectable key, with LayerNorm or with RMSNorm",
        paper="Tables 1 and 2: 0% in every layer with scaling",
        measured={
            f"{name}: unselectable after the norm (%), by layer measured": (
                (100 * rows).round(2).tolist()
            )
            for name, rows in after.items()
        },
        tolerance="0 in every layer measured, equal tokens counted once; RMSNorm scales and "
        "projects nothing",
        reproduced=all(bool((rows == 0).all()) for rows in after.values()),
    )


def _some_before(data) -> Verdict:
    trained = _trained(data)
    before = {name: _hidden(data, k)[:, 0] for name, k in trained.items()}
    narrow = {name: _at_the_papers_width(data, k)[:, 0] for name, k in trained.items()}
    holds = all(bool((rows > 0).all()) for rows in before.values())
    only = all(bool((rows > 0).all()) for rows in narrow.values())
    return Verdict(
        statement="before the norm some hidden states of every layer of a trained model are "
        "unselectable keys",
        paper="Tables 1 and 2, d = 8: 51.0, 32.2, 34.7, 36.8% before attention without scaling; "
        "44.8, 28.5, 22.3, 26.1% before the norm of the model with scaling",
        measured={
            f"{name}: unselectable before the norm (%), {words}": (100 * rows).round(2).tolist()
            for words, table in (
                ("all dimensions", before), (f"mapped to {PAPER_DIM} dimensions", narrow)
            )
            for name, rows in table.items()
        }
        | {
            f"{name}: the same after the norm (%), mapped to {PAPER_DIM} dimensions": (
                100 * _at_the_papers_width(data, k)[:, 1]
            )
            .round(2)
            .tolist()
            for name, k in trained.items()
        },
        tolerance="more than 0 in every layer measured",
        reproduced=holds,
        only_with=""
        if holds or not only
        else f"keys of as few dimensions as the paper's models have, {PAPER_DIM}",
    )  # fmt: skip


def _none_in_heads(data) -> Verdict:
    shares = {
        f"{name}, {'trained' if trained else 'initialised'}": (_heads(data, k), k)
        for k, (name, trained) in enumerate(zip(data["model"], data["trained"], strict=True))
    }
    return Verdict(
        statement="no key of any head is unselectable, trained or not, as is expected of Gaussian "
        "keys of as many dimensions",
        paper="not in the paper, which counts hidden states of 8 dimensions, not keys of heads",
        measured={
            f"{label}: heads with unselectable keys; expected share for Gaussian keys": (
                f"{int((heads > 0).sum())} of {len(heads)}; {data['expected_heads'][k]:.1g}"
            )
            for label, (heads, k) in shares.items()
        },
        tolerance="0 keys",
        reproduced=all(bool((heads == 0).all()) for heads, _ in shares.values()),
    )
