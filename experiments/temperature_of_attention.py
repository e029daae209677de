"""What a lower temperature does to networks of attention alone, layer by layer: WU's Fig. 3 and 7.

Scores are q . k / sqrt(d_QK) with d_QK = 1/64, 1 and 64, which is the width of BERT's heads. The
networks are self-attention without norm, skip and MLP: MiniLM's and SmolLM2's trained weights, and
BERT as it is initialised. Those of BERT's type are followed below the floor of float64 (the engine
logscale); SmolLM2, which rotates queries and keys by their positions, is run in float64 with all
else switched off (`dynsim.models.Change`).
"""

from __future__ import annotations

import sys

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import masks, minilm, weights
from dynsim.models import Change, excerpts
from dynsim.results import style
from experiments import bert
from experiments.real_models import one_thread
from experiments.record import Verdict

PAPER = (
    "WU, arXiv 2405.18781, Fig. 3 and 7: mu by layer in pretrained and initialised self-attention "
    "networks for three temperatures d_QK under four masks"
)

EXTRAS = ("models",)
#: There are no settings as published: bert-base-uncased and the paper's text cannot be had.
SETTINGS = {
    "smoke": {"tokens": 24, "excerpts": 2, "networks": 2, "depth": 6, "dim": 96, "heads": 4,
              "smollm2_excerpts": 0, "smollm2_depth": 0},
    "default": {"tokens": 128, "excerpts": 8, "networks": 3, "depth": 12, "dim": 768, "heads": 12,
                "smollm2_excerpts": 2, "smollm2_depth": 6},
}  # fmt: skip

#: Coldest first.
D_QK = {"1/64": 1 / 64, "1": 1.0, "64": 64.0}
#: What the figure calls a mask, and dynsim.
MASKS = {
    "complete": "complete",
    "causal": "causal",
    "sliding window ±1": "local",
    "uni-directional window 1": "causal-local",
}
NETWORKS = {
    "bert": "BERT, initialised", "minilm": "MiniLM, trained", "smollm2": "SmolLM2, trained"
}  # fmt: skip


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """log10 mu (mask, temperature, sample, layer) of every network.

    A sample of BERT has weights, embedding and excerpt of its own; other samples are excerpts.
    Without SmolLM2 its array has no samples.
    """
    n, count = settings["tokens"], settings["networks"]
    runs = []
    for k in range(count):
        runs.append(_bert(settings, 1000 * seed + k, bert.word_pieces(count, n)[k : k + 1]))
        progress(0.6 * (k + 1) / count)
    x0 = minilm.embed(bert.text(n * settings["excerpts"]), n, settings["excerpts"])
    found = {
        "bert": np.concatenate(runs, axis=2),
        "minilm": _attention_alone(minilm.attention().entries, x0, minilm.N_HEADS),
    }
    progress(0.7)
    return found | {"smollm2": _smollm2(settings)}


def _bert(settings: dict, number: int, ids: np.ndarray) -> np.ndarray:
    d, heads = settings["dim"], settings["heads"]
    source = bert.Attention(d, heads, number)
    layers = [
        weights.LayerWeights(*(np.asarray(part, np.float64) for part in source.layer(t, d)))
        for t in range(settings["depth"])
    ]
    return _attention_alone(layers, bert.embedding(ids, d, number).astype(np.float64), heads)


def _attention_alone(layers, x0: np.ndarray, n_heads: int) -> np.ndarray:
    """log10 mu (mask, temperature, sample, layer) of layers whose scores have the factor
    1 / sqrt(width of a head)."""
    rows = []
    for name in MASKS.values():
        graph = masks.MASKS[name](x0.shape[1])
        for d_QK in D_QK.values():
            beta = (x0.shape[-1] / n_heads / d_QK) ** 0.5
            cooled = weights.Layers(tuple(
                layer._replace(query=beta * layer.query, query_bias=beta * layer.query_bias)
                for layer in layers
            ))  # fmt: skip
            run = dynsim.simulate(
                dynsim.AttentionDynamics(graph, cooled), x0, len(layers), engine="logscale",
                record=dynsim.Record(measures=()),
            )  # fmt: skip
            rows.append(run["log10_mu"])
    return np.stack(rows).reshape(len(MASKS), len(D_QK), *rows[0].shape)


def _smollm2(settings: dict) -> np.ndarray:
    from dynsim.models.sources import open_source

    n, count, depth = (settings[key] for key in ("tokens", "smollm2_excerpts", "smollm2_depth"))
    none = np.empty((len(MASKS), len(D_QK), 0, depth + 1))
    if not count:
        return none
    try:
        source = open_source("smollm2")
    except ValueError as error:
        print(f"temperature_of_attention: SmolLM2 is left out: {error}", file=sys.stderr)
        return none
    model = source.model.double()
    model.layers = model.layers[:depth]
    config = source.config
    width = config.hidden_size / config.num_attention_heads
    inputs = excerpts(source, bert.text(count * n), n, count)
    rows = []
    for mask in MASKS.values():
        for d_QK in D_QK.values():
            change = Change(
                mask=mask, norm="off", skip="off", mlp="off", beta=(width / d_QK) ** 0.5
            )
            with one_thread():
                profile = dynsim.probe(
                    model, points=("embeddings", "layers_output"), measured=(), change=change,
                    **inputs,
                )  # fmt: skip
            rows.append(np.log10(profile.residual("mu").T))
    return np.stack(rows).reshape(none.shape[:2] + rows[0].shape)


# --- reading --------------------------------------------------------------------------------------


def networks(data) -> dict[str, np.ndarray]:
    """log10 mu by what the figure calls a network, of those that could be had."""
    return {words: data[key] for key, words in NETWORKS.items() if data[key].shape[2]}


def effect(log10_mu: np.ndarray) -> np.ndarray:
    """By how many decades less mu falls at the lowest than at the highest temperature, in each
    layer: (mask, sample, layer)."""
    falls = np.diff(log10_mu, axis=-1)
    return falls[:, 0] - falls[:, -1]


#: By temperature, the coldest first.
LOOKS = (
    {"color": style.BLUE, "linestyle": "-", "marker": "o"},
    {"color": style.PINK, "linestyle": "--", "marker": "s"},
    {"color": style.VERMILION, "linestyle": "-.", "marker": "^"},
)


def draw(data) -> Figure:
    """A row a network: mu by layer under four masks, then what the temperature is worth."""
    found = networks(data)
    figure, rows = style.panels(
        len(found), len(MASKS) + 1, height=1.75, extra=0.75, width_ratios=(1, 1, 1, 1, 1.15)
    )
    for (name, log10_mu), row in zip(found.items(), rows, strict=True):
        mean = (log10_mu - log10_mu[..., :1]).mean(axis=2)  # mask, temperature, layer
        low = max(-8.5, 1.1 * mean[1:].min(), mean.min() - 0.3)
        high = mean.max() + 0.12 * (mean.max() - low)
        for m, axes in enumerate(row[:-1]):
            lines = _draw_mask(axes, log10_mu[m], low, high)
            axes.tick_params(labelleft=m == 0)
        row[0].set_ylabel(f"{name}\nlog₁₀ (mu / mu at layer 0)", fontsize=7)
        _draw_effect(row[-1], effect(log10_mu))
    words = [name.replace("uni-directional", "one-way") for name in MASKS]
    for axes, name in zip(rows[0], [*words, "effect by mask"], strict=True):
        axes.set_title(name, fontsize=7.5)
    figure.legend(
        lines, [f"$d_{{QK}}$ = {name}" for name in D_QK], loc="outside lower center", ncols=3
    )
    style.letters(rows.flat)
    for axes, name in zip(rows[0], MASKS.values(), strict=False):
        axes.title.set_color(style.MASKS[name])
        axes.set_title(
            axes.get_title(loc="left"), loc="left", color=style.MASKS[name], fontsize=7.5
        )
    for axes in rows[-1]:
        axes.set_xlabel("layer")
    style.finding(figure, _headline(data))
    return figure


def _headline(data) -> str:
    slows, more, shallow = claims(data)
    if not (slows.reproduced and more.reproduced):
        return "Temperature of attention: mu by layer under four masks"
    later = "later layers heed it less"
    if shallow.only_with:
        later += ", but where the complete mask cubes what is left"
    return (
        "A lower temperature softens the first drop of mu, most under the complete mask"
        + f"; {later}" * (shallow.reproduced or bool(shallow.only_with))
    )


def _draw_mask(axes, log10_mu: np.ndarray, low: float, high: float) -> list:
    """Means over samples, each sample thin where they part."""
    layers = np.arange(log10_mu.shape[-1])
    lines, below = [], []
    for of_temperature, look in zip(log10_mu - log10_mu[..., :1], LOOKS, strict=True):
        mean = of_temperature.mean(axis=0)
        axes.plot(layers, of_temperature.T, color=look["color"], linewidth=0.3, alpha=0.6)
        lines += axes.plot(layers, mean, markersize=2.5, **look)
        if mean[-1] < low:
            below.append((f"to {mean[-1]:,.0f}".replace("-", "−"), look["color"]))
    axes.set(ylim=(low, high), xlim=(0, layers[-1]))
    axes.set_xticks(layers[:: max(1, len(layers) // 4)])
    for k, (text, colour) in enumerate(below):
        height = 0.97 - 0.1 * k if len(below) == len(LOOKS) else 0.03 + 0.1 * k
        style.note(axes, text, 0.97, height, color=colour)
    return lines


def _draw_effect(axes, worth: np.ndarray) -> None:
    """Decades by which mu falls less at 1/64 than at 64, in each layer, in the masks' colours."""
    layers = np.arange(1, worth.shape[-1] + 1)
    mean = np.abs(worth.mean(axis=1))
    low, high = 0.5 * mean[1:].min(), max(3.0 * mean[1:].max(), 10 * mean[0, 0])
    axes.set(yscale="log", ylim=(low, high), xlim=(0.7, layers[-1] + 0.3))
    for of_mask, name, marker in zip(mean, MASKS.values(), "D^os", strict=True):
        axes.plot(layers, of_mask, color=style.MASKS[name], marker=marker, markersize=2.5)
    axes.set_xticks(layers[:: max(1, len(layers) // 4)])
    axes.set_ylabel("decades, 1/64 against 64", fontsize=7)


# --- claims -------------------------------------------------------------------------------------


def claims(data) -> list[Verdict]:
    """One verdict for each sentence of the paper about these figures."""
    return [_slows(data), _global_more(data), _shallow_more(data)]


def _table(values, digits: int = 3) -> dict:
    return {mask: round(float(v), digits) for mask, v in zip(MASKS, values, strict=True)}


def _slows(data) -> Verdict:
    first = {name: np.diff(x, axis=-1)[..., 0] for name, x in networks(data).items()}
    slower = {name: np.diff(x, axis=1) < 0 for name, x in first.items()}  # warmer falls further
    return Verdict(
        statement="the lower the temperature, the less mu falls in the first layer, under all four "
        "masks, in every network, trained or not",
        paper="Fig. 3 and 7: a smaller temperature term d_QK slows the first drop",
        measured={
            f"{name}, d_QK = {d_QK}: log10 of mu after layer 1 over mu at 0": _table(
                x[:, t].mean(axis=1)
            )
            for name, x in first.items()
            for t, d_QK in enumerate(D_QK)
        },
        tolerance="the order alone, in every sample: the paper prints no numbers; MiniLM and, "
        "where it is installed, SmolLM2 for the paper's pretrained BERT",
        reproduced=all(bool(order.all()) for order in slower.values()),
    )


def _global_more(data) -> Verdict:
    worth = {name: effect(x)[..., 0].mean(axis=1) for name, x in networks(data).items()}
    return Verdict(
        statement="the temperature is worth more in the first layer under the complete mask than "
        "under each sparser one, in every network",
        paper="Fig. 3 and 7: more under global attention than under sparser masks",
        measured={
            f"{name}: decades by which mu falls less at d_QK = 1/64 than at 64": _table(x)
            for name, x in worth.items()
        },
        tolerance="the order alone, of means over samples",
        reproduced=all(bool(x[0] > x[1:].max()) for x in worth.values()),
    )


def _shallow_more(data) -> Verdict:
    worth = {name: effect(x).mean(axis=1) for name, x in networks(data).items()}
    shallow = np.array([x[:, 0] > np.abs(x[:, -1]) for x in worth.values()])  # network, mask
    sparser = bool(shallow[:, 1:].all())
    return Verdict(
        statement="the temperature is worth more in the first layer than in the last one measured, "
        "under all four masks, in every network",
        paper="Fig. 3 and 7: more in shallow than in deep layers",
        measured={
            f"{name}: decades by which mu falls less at d_QK = 1/64 than at 64, {place}": _table(
                x[:, k]
            )
            for name, x in worth.items()
            for place, k in (("layer 1", 0), (f"layer {x.shape[-1]}", -1))
        }
        | {
            "under the complete mask a head start is cubed by every later layer": "the attention "
            "of nearly equal tokens is uniform up to their distance, so that log mu triples"
        },
        tolerance="the order alone, of means over samples; below the floor of float64, which "
        "hides it in a figure made without log-scale arithmetic",
        reproduced=bool(shallow.all()),
        only_with="a mask sparser than the complete one" if sparser and not shallow.all() else "",
    )
