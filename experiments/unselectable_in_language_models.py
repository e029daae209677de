"""Keys that no query can select, in small language models with and without LayerNorm's scaling.

Models of GPT-2's shape learn characters of real text. The norm before attention is taken apart:
all four ways to have projection and scaling, as published without gain and bias. On a sphere every
key can win. Keys are counted on long texts (Tables 1 and 2) and on short ones (Table 3). Beside
them a real model, MiniLM: its hidden states, and the keys of its heads.

What scaling is worth in loss may depend on the rate, so the models are trained at two.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from dynsim import minilm
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "BRODY, arXiv 2305.02582, Tables 1 to 3, Fig. 4: share of unselectable keys per layer before "
    "attention, before and after LayerNorm, and language-model loss, with and without scaling"
)

EXTRAS = ("torch", "minilm")
#: Keys are counted in `texts` held-out texts of `positions` characters, and of `short` ones. There
#: are no settings as published: the paper has word pieces, dropout, Wikipedia, and a rate of 5e-5
#: for 50,000 steps of 16 x 1024 tokens.
SETTINGS = {
    "smoke": {"dim": 8, "layers": 2, "heads": 4, "positions": 40, "context": 16, "members": 2,
              "batch": 2, "steps": 4, "rates": [1e-3, 3e-3], "every": 2, "tests": 2, "texts": 1,
              "short": 20},
    "default": {"dim": 8, "layers": 4, "heads": 4, "positions": 1024, "context": 96, "members": 5,
                "batch": 4, "steps": 800, "rates": [1e-3, 5e-3], "every": 50, "tests": 64,
                "texts": 4, "short": 128},
}  # fmt: skip

#: Name: (projection, scaling) of the norm before attention.
VARIANTS = {
    "LayerNorm": (True, True),
    "no scaling": (True, False),
    "no projection (RMSNorm)": (False, True),
    "neither": (False, False),
}


def compute(settings: dict, seed: int, progress, checkpoints) -> dict[str, np.ndarray]:
    """Held-out loss (rate, variant, time, seed); shares on long and on short texts (rate, variant,
    seed, text, layer, before or after).

    And MiniLM's shares (text, layer, before, after or per head).
    """
    from experiments.training import gpt
    from experiments.training.checkpoints import Checkpoint
    from experiments.training.norms import FactoredNorm, layer_norm
    from experiments.training.text import excerpts, standard_library

    rng = np.random.default_rng([seed, 2])
    texts = excerpts(standard_library()[1], settings["texts"], settings["positions"], rng)
    runs = [(rate, variant) for rate in settings["rates"] for variant in VARIANTS.values()]
    found, shares = [], {"unselectable": [], "unselectable_short": []}
    for k, (rate, (project, scale)) in enumerate(runs):

        def norm(d, project=project, scale=scale):
            return FactoredNorm(d, project, d**0.5 if scale else None, affine=False)

        def report(share, k=k):
            progress((k + 0.9 * share) / len(runs))

        one = {key: value for key, value in settings.items() if key != "rates"} | {"rate": rate}
        path = checkpoints / f"{k}.safetensors"
        checkpoint = Checkpoint(path, variant=[project, scale], settings=one, seed=seed)
        ensemble, seen = gpt.learn(norm, layer_norm, one, seed, checkpoint, report)
        found.append(seen["loss"])
        models = list(ensemble.members())
        for key, length in (("unselectable", None), ("unselectable_short", settings["short"])):
            shares[key].append([[unselectable(m, text[:length]) for text in texts] for m in models])
        progress((k + 1) / len(runs))

    def by_rate(rows):
        rows = np.array(rows)
        return rows.reshape(len(settings["rates"]), len(VARIANTS), *rows.shape[1:])

    return {
        "rates": np.array(settings["rates"]),
        "step": seen["step"],
        "loss": by_rate(found),
        **{key: by_rate(rows) for key, rows in shares.items()},
        "minilm": unselectable_in_minilm(settings),
    }


def unselectable(model, text: np.ndarray) -> np.ndarray:
    """Share of a text's tokens that are unselectable keys: (layer, before or after the norm)."""
    from dynsim.geometry.selectability import unselectable_fraction
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
    from dynsim.geometry.selectability import unselectable_fraction
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
    """Loss without scaling less loss with it, (rate, time, seed), the mean of the pairs with and
    without projection: both pairs of a seed learn from the same texts, so they count once."""
    loss = data["loss"].astype(float)
    return (loss[:, 1] - loss[:, 0] + loss[:, 3] - loss[:, 2]) / 2.0


#: By projection and scaling: LayerNorm and RMSNorm in their colours, without scaling in pale ones.
LOOKS = {
    "LayerNorm": {"color": style.NORMS["layernorm"], "marker": "o"},
    "no scaling": {"color": style.SKY, "marker": "s"},
    "no projection (RMSNorm)": {"color": style.NORMS["rms"], "marker": "^"},
    "neither": {"color": style.ORANGE, "marker": "D"},
}
#: Tables 1 and 2 of the paper, percent by layer: after the norm without scaling; before the norm
#: of the model with scaling.
PAPERS_AFTER, PAPERS_BEFORE = (51.0, 32.2, 34.7, 36.8), (44.8, 28.5, 22.3, 26.1)


def draw(data) -> Figure:
    """Unselectable keys by layer and place, beside the paper's; the losses; what scaling is worth
    by rate."""
    figure, ((before, after, short), (real, losses, costs)) = style.panels(2, 3, height=2.25)
    long, brief = (
        100 * data[key][0].mean(axis=2) for key in ("unselectable", "unselectable_short")
    )  # variant, seed, layer, place
    top = max(5.0, 1.12 * long.max())
    _draw_shares(before, long[..., 0], PAPERS_BEFORE, top)
    _draw_shares(after, long[..., 1], PAPERS_AFTER, top)
    _draw_shares(short, brief[..., 1], None, top)
    before.set_title("before the norm, long texts")
    after.set_title("after it, long texts")
    short.set_title("after it, short texts")
    style.note(before, "▽ paper, with scaling", 0.97, 0.04)
    style.note(after, "▽ paper, no scaling", 0.97, 0.97)
    _name_variants(short)
    _draw_minilm(real, data, top)
    lines = {}
    for name, loss in zip(VARIANTS, data["loss"][0], strict=True):
        (lines[name],) = losses.plot(
            data["step"],
            loss.mean(axis=1),
            linewidth=1.0,
            **LOOKS[name],
            markevery=(list(VARIANTS).index(name), 5),
            markersize=3,
        )
    losses.set(
        xlabel="training steps",
        ylabel="loss (nats per character)",
        title=f"held-out loss, rate {data['rates'][0]:g}",
    )
    style.note(losses, "four variants,\nhardly told apart", 0.97, 0.95)
    _draw_costs(costs, data)
    style.letters(figure.axes)
    style.finding(figure, _headline(data))
    return figure


def _headline(data) -> str:
    keys, short, loss = claims(data)
    lower, _ = loss.measured["shown"].values()
    if not (keys.reproduced and short.reproduced):
        return "Unselectable keys and losses of small language models"
    worth = "a lower loss comes with it" if lower else "that it lowers the loss is not shown"
    return f"With scaling no key is unselectable, without it some are in every layer; {worth}"


def _draw_shares(axes, shares, papers, top: float) -> None:
    """By variant: means over seeds joined, seeds as dots; zeros are drawn, too."""
    layers = 1 + np.arange(shares.shape[-1])
    for v, (name, of_variant) in enumerate(zip(VARIANTS, shares, strict=True)):
        at = layers + 0.13 * (v - (len(VARIANTS) - 1) / 2)
        look = LOOKS[name]
        axes.scatter(
            np.broadcast_to(at, of_variant.shape),
            of_variant,
            s=3,
            color=look["color"],
            alpha=0.6,
            linewidths=0,
        )
        axes.plot(at, of_variant.mean(axis=0), linestyle="none", markersize=4.5, **look)
    if papers is not None and len(papers) == len(layers):
        axes.plot(layers, papers, "v", color="black", fillstyle="none", markersize=6)
    axes.set(
        xlabel="layer",
        ylabel="unselectable keys (%)",
        xticks=layers,
        ylim=(-0.05 * top, top),
        xlim=(0.5, len(layers) + 0.5),
    )
    axes.grid(False, axis="x")


def _name_variants(axes) -> None:
    for k, (name, look) in enumerate(LOOKS.items()):
        height = 0.95 - 0.1 * k
        axes.plot(
            [0.3], [height], transform=axes.transAxes, linestyle="none", markersize=4.5, **look
        )
        axes.text(
            0.36,
            height,
            name,
            transform=axes.transAxes,
            va="center",
            fontsize=7,
            color=look["color"],
        )


def _draw_minilm(axes, data, top: float) -> None:
    """Dots at the shares of MiniLM's hidden states and keys, most of which are zeros."""
    layers = 1 + np.arange(data["minilm"].shape[1])
    words = ("before the norm", "after it", "keys of heads")
    for k, (label, marker) in enumerate(zip(words, "o^s", strict=True)):
        percent = 100 * data["minilm"][..., k].mean(axis=0)
        axes.plot(
            layers + 0.2 * (k - 1),
            percent,
            marker,
            color=style.STYLES[k + 4]["color"],
            markersize=4,
        )
        height = 0.9 - 0.1 * k
        axes.plot(
            [0.3],
            [height],
            marker,
            transform=axes.transAxes,
            markersize=4,
            color=style.STYLES[k + 4]["color"],
        )
        axes.text(0.36, height, label, transform=axes.transAxes, va="center", fontsize=7)
    axes.set(
        xlabel="layer",
        ylabel="unselectable keys (%)",
        ylim=(-0.05 * top, top),
        xticks=layers,
        title=f"MiniLM, d = {minilm.DIM}: {_count(data)}",
    )
    axes.grid(False, axis="x")


def _draw_costs(axes, data) -> None:
    """Every seed by rate, and the means."""
    named = {}
    colours = (style.PINK, style.GREEN)
    for rate, cost, colour in zip(data["rates"], cost_of_no_scaling(data), colours, strict=False):
        axes.plot(data["step"], cost, color=colour, linewidth=0.5, alpha=0.7)
        (named[f"rate {rate:g}"],) = axes.plot(
            data["step"], cost.mean(axis=1), color=colour, linewidth=2
        )
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set(
        xlabel="training steps",
        ylabel="loss without − with scaling",
        title="what scaling is worth",
    )
    style.name_lines(axes, named)
    style.note(axes, "thin: seeds; thick: mean", 0.97, 0.97)


def _count(data) -> str:
    return "none" if not data["minilm"].any() else f"{100 * data['minilm'].mean():.2g}% on average"


def claims(data) -> list[Verdict]:
    """Keys before and after the norm, the same on short texts, and what scaling is worth."""
    return [_keys(data), _keys_of_short_texts(data), _loss(data)]


def _scaled() -> np.ndarray:
    return np.array([scale for _, scale in VARIANTS.values()])


def _shares(data, key: str) -> np.ndarray:
    """Unselectable keys (%) by rate, variant, layer, and place: before the norm, after it."""
    return 100 * data[key].mean(axis=(2, 3))


def _tables(data, key: str) -> tuple[dict, bool]:
    """Shares by rate and variant, and whether none is left with scaling, and some without."""
    shares, scaled = _shares(data, key), _scaled()
    measured = {
        f"rate {rate:g}, {name}": {
            "% before the norm, by layer": shares[a, v, :, 0].round(1).tolist(),
            "% after the norm, by layer": shares[a, v, :, 1].round(1).tolist(),
        }
        for a, rate in enumerate(data["rates"])
        for v, name in enumerate(VARIANTS)
    }
    none, some = (shares[:, scaled, :, 1] == 0).all(), (shares[:, ~scaled, :, 1] > 0).all()
    return measured, bool(none and some)


def _keys(data) -> Verdict:
    measured, holds = _tables(data, "unselectable")
    minilm = (100 * data["minilm"].mean(axis=0)).round(1).tolist()
    return Verdict(
        statement="with scaling no key is unselectable before attention, without it some are in "
        "every layer",
        paper="Tables 1 and 2: before attention, layers 1-4: without scaling 51.0, 32.2, 34.7, "
        "36.8%, with scaling 0; in the model with scaling before LN 44.8, 28.5, 22.3, 26.1%, after "
        "it 0",
        measured=measured
        | {"MiniLM: % before the norm, after it, of the heads' keys, by layer": minilm},
        tolerance="0 keys, more than 0 keys",
        reproduced=holds,
    )


def _keys_of_short_texts(data) -> Verdict:
    measured, holds = _tables(data, "unselectable_short")
    return Verdict(
        statement="the same on short texts",
        paper="Table 3, on SST-2; its numbers are not known to us",
        measured=measured,
        tolerance="0 keys, more than 0 keys",
        reproduced=holds,
    )


def _loss(data) -> Verdict:
    """Losses are means over the last quarter of the observations: a single one is noisy."""
    costs = cost_of_no_scaling(data)
    late = costs[:, -max(1, costs.shape[1] // 4) :].mean(axis=1)  # rate, seed

    def mean_and_interval(values):
        interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        return float(values.mean()), float(interval.low), float(interval.high)

    worth = {float(r): mean_and_interval(of) for r, of in zip(data["rates"], late, strict=True)}
    slow, fast = data["rates"][[0, -1]].tolist()
    falls = mean_and_interval(late[0] - late[-1])
    left = "none of it is shown at" if worth[fast][1] <= 0 else "some is left at"
    parts = {
        f"the loss with scaling is lower at rate {slow:g}": worth[slow][1] > 0,
        "by an amount that depends on the rate": falls[1] > 0,
    }

    def words(of):
        return f"{of[0]:.4f} ({of[1]:.4f} to {of[2]:.4f})"

    return Verdict(
        statement=f"the loss with scaling is lower at rate {slow:g}, by an amount that depends on "
        f"the rate: {left} {fast:g}",
        paper="Fig. 4: the loss with scaling is lower (rate 5e-5)",
        measured={"shown": {part: bool(shown) for part, shown in parts.items()}}
        | {
            f"rate {rate:g}: late loss without scaling, less that with it": words(of)
            for rate, of in worth.items()
        }
        | {"the same, at the lower rate less that at the higher": words(falls)}
        | {
            f"rate {rate:g}, {name}: last loss, by seed": (
                data["loss"][a, v, -1].astype(float).round(4).tolist()
            )
            for a, rate in enumerate(data["rates"])
            for v, name in enumerate(VARIANTS)
        },
        tolerance="95% intervals (t, over seeds) of the difference of losses at the lower rate, "
        "and of its change with the rate, above 0",
        reproduced=bool(all(parts.values())),
    )
