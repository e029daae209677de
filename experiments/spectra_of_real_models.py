"""Rank, singular values and cosines of hidden states in real models: WU's Fig. 4, 8 and 9.

MiniLM and SmolLM2 as they were trained and as they are initialised; the paper's four, BERT, GPT-2,
T5's encoder (which stack is meant is not said) and ALBERT, as they are initialised, and trained
where they lie in the cache of Hugging Face. All in evaluation mode, at the embeddings and at the
residual stream after every block.

Rank is counted with the tolerance of float32. Where embeddings have no positions (SmolLM2, T5),
equal words are equal rows there, and an initialised ALBERT maps 128 centred dimensions to 768: both
lower the rank of the embeddings, so that the claim is about what the blocks give.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim.results import style
from experiments.real_models import CHECKPOINTS, real_models, residual_stream, stacked
from experiments.record import Verdict

PAPER = (
    "WU, arXiv 2405.18781, Fig. 4, 8 and 9: share of full rank, smallest singular value and mean "
    "|cosine| by layer; all singular values by layer; cosines of the embeddings"
)

EXTRAS = ("models",)
SETTINGS = {
    "smoke": {"models": ["MiniLM", "BERT", "ALBERT"], "tokens": 24, "excerpts": 2,
              "shown": 2, "sizes": {"dim": 48, "heads": 4, "layers": 3}},
    "default": {"models": list(CHECKPOINTS), "tokens": 128, "excerpts": 6, "shown": 3,
                "sizes": {"dim": 768, "heads": 12, "layers": 12}},
}  # fmt: skip

#: By layer and excerpt.
MEASURES = ("rank", "sigma_min", "norm_median", "mean_abs_cosine", "sinks")
#: Edges of the histogram of cosines.
EDGES = np.linspace(-1.0, 1.0, 81)


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    n, count, shown = settings["tokens"], settings["excerpts"], settings["shown"]
    rows: list[dict] = []
    names = settings["models"]
    for real in real_models(names, n, count, seed, settings["sizes"]):
        profile = dynsim.probe(
            real.model, points=("embeddings", "layers_output"), measured=(), batch_size=4,
            **real.inputs,
        )  # fmt: skip
        row = {name: profile.residual(name, profile.stacks[0]) for name in MEASURES}
        states = residual_stream(real.model, {k: v[:shown] for k, v in real.inputs.items()})
        row["singular_values"] = _singular_values(states)
        cosines = _cosines(states[0])
        row["cosines"] = np.histogram(cosines, EDGES)[0]
        row["least_cosine"] = cosines.min()
        row["negative_cosines"] = (cosines < 0).mean()
        row["dim"] = states.shape[-1]
        rows.append(row | {"model": real.name, "trained": real.trained})
        progress((names.index(real.name) + (0.5 if real.trained else 1.0)) / len(names))
    return {"tokens": np.array(n)} | {name: stacked(row[name] for row in rows) for name in rows[0]}


def _singular_values(x: np.ndarray) -> np.ndarray:
    """Of states (..., N, d) in float32's digits, largest first, from the smaller Gram matrix: right
    to 1e-8 of the largest."""
    gram = x @ x.mT if x.shape[-2] <= x.shape[-1] else x.mT @ x
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))[..., ::-1]


def _cosines(x: np.ndarray) -> np.ndarray:
    """Of all pairs of tokens of each excerpt, (samples, pairs)."""
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    i, j = np.triu_indices(x.shape[1], 1)
    return (unit @ unit.mT)[:, i, j]


# --- figure -------------------------------------------------------------------------------------

STYLE = dict(zip(CHECKPOINTS, style.STYLES, strict=False))
#: How far the first singular value must stand above the second to be called dominant.
DOMINANT = 2.0
#: Least smallest singular value, in median lengths of a token, that is well above zero.
ABOVE_ZERO = 0.01


def draw(data) -> Figure:
    """Who has full rank, cosines of the embeddings; smallest singular value and mean |cosine| of
    trained and of initialised models; all singular values by layer."""
    figure = Figure(figsize=(style.PAGE, 6.9), layout="constrained")
    grid = figure.add_gridspec(3, 1)
    top, between, below = (grid[k].subgridspec(1, columns) for k, columns in enumerate((2, 4, 4)))
    rank, cosines = (figure.add_subplot(part) for part in top)
    middle, lower = ([figure.add_subplot(part) for part in row] for row in (between, below))
    _draw_rank(rank, data)
    _draw_cosines(cosines, data)
    trained = data["trained"]
    for (axes, other), which, words in zip(
        (middle[:2], middle[2:]), (trained, ~trained), ("trained", "initialised"), strict=True
    ):
        _draw_by_layer(axes, data, which, "smallest")
        axes.set(
            yscale="log",
            ylabel="$σ_{min}$ / median length",
            title=f"smallest σ, {words}",
        )
        _draw_by_layer(other, data, which, "cosine")
        other.set(ylim=(0, 1), ylabel="mean |cosine| of pairs", title=f"cosines, {words}")
    _label_middle(middle, data)
    for axes, k in zip(lower, _chosen(data), strict=False):
        _draw_spectrum(axes, data, k)
    lower[0].set_ylabel("all singular values,\none excerpt")
    for axes in lower[len(_chosen(data)) :]:
        axes.remove()
    style.letters([rank, cosines, *middle, *lower[: len(_chosen(data))]])
    rank.grid(False)
    cosines.grid(False, axis="y")
    style.finding(figure, _headline(data))
    return figure


def _headline(data) -> str:
    full, _, turning, *_ = claims(data)
    parts = ["Every block keeps full rank"] * full.reproduced
    parts += ["tokens turn towards each other"] * turning.reproduced
    return ", while ".join(parts) if parts else "Ranks, singular values and cosines of real models"


def _labels(data) -> list[str]:
    return [
        f"{model}, {'trained' if trained else 'initialised'}"
        for model, trained in zip(data["model"], data["trained"], strict=True)
    ]


def _layers(data, k: int) -> int:
    return int((~np.isnan(data["rank"][k, :, 0])).sum())


def _full(data, k: int) -> np.ndarray:
    """Share of excerpts of full rank, by layer."""
    whole = min(int(data["tokens"]), int(data["dim"][k]))
    return (data["rank"][k, : _layers(data, k)] == whole).mean(axis=1)


def _smallest(data, k: int) -> np.ndarray:
    """Smallest singular value over the median length of a token (layer, excerpt)."""
    return (data["sigma_min"][k] / data["norm_median"][k])[: _layers(data, k)]


def _draw_rank(axes, data) -> None:
    labels = _labels(data)
    for k, _ in enumerate(labels):
        share = _full(data, k)
        edges = np.linspace(0, 1, len(share) + 1)
        axes.pcolormesh(edges, [k - 0.38, k + 0.38], share[None], vmin=0, vmax=1, cmap="Blues",
                        edgecolors="white", linewidth=0.8)  # fmt: skip
        whole = min(int(data["tokens"]), int(data["dim"][k]))
        ranks = data["rank"][k, : len(share)]
        if share[0] < 1:
            least, most = int(ranks[0].min()), int(ranks[0].max())
            words = f"{least}" if least == most else f"{least}–{most}"
            axes.text(1.02, k, f"rank {words} of {whole}", fontsize=6.5, va="center",
                      color="0.3")  # fmt: skip
    axes.set(yticks=range(len(labels)), yticklabels=labels, xlim=(0, 1.45), xticks=(0, 1),
             xticklabels=("embeddings", "last block"),
             title="full rank (dark: all excerpts)")  # fmt: skip
    axes.invert_yaxis()


def _draw_cosines(axes, data) -> None:
    centers = (EDGES[1:] + EDGES[:-1]) / 2
    for k, (model, trained) in enumerate(zip(data["model"], data["trained"], strict=True)):
        heights = 0.85 * data["cosines"][k] / data["cosines"][k].max()
        color = STYLE[str(model)]["color"]
        axes.fill_between(centers, k + 0.38, k + 0.38 - heights, color=color,
                          alpha=0.75 if trained else 0.35, linewidth=0, step="mid")  # fmt: skip
        negative = data["negative_cosines"][k]
        text = "none below 0" if negative == 0 else f"{100 * negative:.2g}% below 0"
        axes.text(1.02, k, f"{text}, least {data['least_cosine'][k]:.2f}".replace("-", "−"),
                  fontsize=6.5, va="center", color="0.3")  # fmt: skip
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set(xlim=(-0.6, 1.75), xticks=(-0.5, 0, 0.5, 1), yticks=range(len(data["model"])),
             yticklabels=[""] * len(data["model"]),
             title="cosines of pairs at the embeddings")  # fmt: skip
    axes.invert_yaxis()


def _by_layer(data, k: int, what: str) -> np.ndarray:
    rows = _smallest(data, k) if what == "smallest" else data["mean_abs_cosine"][k]
    return rows[: _layers(data, k)]


def _draw_by_layer(axes, data, which: np.ndarray, what: str) -> None:
    for k in np.flatnonzero(which):
        rows = _by_layer(data, k, what)
        depth = np.linspace(0, 1, len(rows))
        look = STYLE[str(data["model"][k])] | {"markersize": 2.5, "linewidth": 1.0}
        look |= {"markevery": max(1, len(rows) // 12)}
        shown = np.ma.masked_less_equal(rows, 0)  # the scale is logarithmic
        axes.plot(depth, np.ma.median(shown, axis=1), **look)
        axes.fill_between(depth, shown.min(axis=1), shown.max(axis=1), color=look["color"],
                          alpha=0.15, linewidth=0)  # fmt: skip
    axes.set(xlim=(-0.03, 1), xticks=(0, 1), xticklabels=("embeddings", "last"))


def _label_middle(panels, data) -> None:
    kinds = (data["trained"], ~data["trained"])
    for j, axes in enumerate(panels):
        what = ("smallest", "cosine")[j % 2]
        style.label_ends(axes, [
            (1.0, float(np.median(_by_layer(data, k, what)[-1])), str(data["model"][k]),
             STYLE[str(data["model"][k])]["color"])
            for k in np.flatnonzero(kinds[j // 2])
        ])  # fmt: skip


def _chosen(data) -> list[int]:
    """Trained models first, then the paper's as they are initialised: four of them."""
    trained = np.flatnonzero(data["trained"]).tolist()
    own = [k for k, (m, t) in enumerate(zip(data["model"], data["trained"], strict=True))
           if not t and m not in data["model"][data["trained"]]]  # fmt: skip
    return (trained + own)[:4]


def _draw_spectrum(axes, data, k: int) -> None:
    layers = _layers(data, k)
    sigma = data["singular_values"][k, :layers, 0]
    sigma = np.where(sigma > 0, sigma, np.nan)
    at, color = np.arange(layers), STYLE[str(data["model"][k])]["color"]
    axes.plot(at, sigma[:, 2:], color="0.6", linewidth=0.25)
    axes.plot(at, sigma[:, 1], color="black", linewidth=1.0, linestyle="--")
    axes.plot(at, sigma[:, 0], color=color, linewidth=1.8)
    n = sigma.shape[1]
    low = max(np.nanmin(sigma[1:]) / 2, np.nanmax(sigma) * 1e-8)
    axes.set(yscale="log", xlim=(0, at[-1]), xlabel="blocks",
             ylim=(low, 2 * np.nanmax(sigma)),
             title=_labels(data)[k])  # fmt: skip
    axes.set_xticks(at[:: max(1, round(layers / 4))])
    style.label_ends(axes, [
        (at[-1], sigma[-1, 0], "σ₁", color), (at[-1], sigma[-1, 1], "σ₂", "black"),
        (at[-1], sigma[-1, -1], f"$σ_{{{n}}}$", "0.4"),
    ])  # fmt: skip


# --- claims -------------------------------------------------------------------------------------


def claims(data) -> list[Verdict]:
    """One verdict for each sentence of the paper about these figures."""
    return [
        _keeps_full_rank(data), _smallest_above_zero(data), _anisotropy_grows(data),
        _one_dominates(data), _cosines_not_negative(data, trained=False),
        _cosines_not_negative(data, trained=True),
    ]  # fmt: skip


def _which(data, trained: bool) -> dict[str, int]:
    return {
        str(model): k
        for k, (model, kind) in enumerate(zip(data["model"], data["trained"], strict=True))
        if kind == trained
    }


def _models(data) -> str:
    own = [name for name in _which(data, True) if name not in ("MiniLM", "SmolLM2")]
    return f"trained {', '.join(_which(data, True))}" + (
        "" if own else ", not the paper's BERT, GPT-2, T5 and ALBERT"
    )


def _everywhere(data, values) -> dict:
    return {label: values(k) for k, label in enumerate(_labels(data))}


def _keeps_full_rank(data) -> Verdict:
    return Verdict(
        statement="hidden states of trained models have full rank after every block",
        paper="Fig. 4: all four models keep full rank",
        measured={
            "excerpts of full rank after blocks, least share over them": _everywhere(
                data, lambda k: round(float(_full(data, k)[1:].min()), 3)
            ),
            "at the embeddings": _everywhere(data, lambda k: round(float(_full(data, k)[0]), 3)),
        },
        tolerance=f"every excerpt, numerical rank in float32; {_models(data)}",
        reproduced=all((_full(data, k)[1:] == 1).all() for k in _which(data, True).values()),
    )


def _smallest_above_zero(data) -> Verdict:
    def least(k):
        return float(np.median(_smallest(data, k)[1:], axis=1).min())

    return Verdict(
        statement="the smallest singular value of trained models stays well above zero after every "
        "block",
        paper="Fig. 4: the smallest singular value stays well above zero",
        measured={
            "smallest singular value over the median length of a token, least over blocks": (
                _everywhere(data, lambda k: float(f"{least(k):.2g}"))
            )
        },
        tolerance=f"{ABOVE_ZERO} of the median length of a token, median over excerpts; "
        f"{_models(data)}",
        reproduced=all(least(k) > ABOVE_ZERO for k in _which(data, True).values()),
    )


def _anisotropy_grows(data) -> Verdict:
    def ends(k):
        rows = np.median(_by_layer(data, k, "cosine"), axis=1)
        return rows[0], rows[-1]

    return Verdict(
        statement="the mean |cosine| of pairs of tokens is larger after the last block of trained "
        "models than at the embeddings",
        paper="Fig. 4: the mean absolute cosine grows; tokens become anisotropic",
        measured={
            "mean |cosine| at the embeddings, after the last block": _everywhere(
                data, lambda k: [round(float(v), 3) for v in ends(k)]
            )
        },
        tolerance=f"in every excerpt; {_models(data)}",
        reproduced=all(
            bool((rows[-1] > rows[0]).all())
            for rows in (_by_layer(data, k, "cosine") for k in _which(data, True).values())
        ),
    )


def _one_dominates(data) -> Verdict:
    def least(k):
        sigma = data["singular_values"][k, : _layers(data, k)]
        return float((sigma[1:, :, 0] / sigma[1:, :, 1]).min())

    return Verdict(
        statement="one singular value dominates after every block, in trained models and in those "
        "that are initialised",
        paper="Fig. 8: one dominant singular value, in initialised and pretrained models",
        measured={
            "largest over second singular value, least over blocks and excerpts": _everywhere(
                data, lambda k: round(least(k), 2)
            )
        },
        tolerance=f"{DOMINANT:g} times the second, in every excerpt and block; {_models(data)}",
        reproduced=all(least(k) > DOMINANT for k in range(len(data["model"]))),
    )


def _cosines_not_negative(data, trained: bool) -> Verdict:
    words = "trained" if trained else "initialised"
    found = {name: k for name, k in _which(data, trained).items() if name in ("BERT", "ALBERT")}
    missing = [name for name in ("BERT", "ALBERT") if name not in found]
    kin = {
        label: {
            "pairs below 0 (%)": round(100 * float(data["negative_cosines"][k]), 3),
            "least": round(float(data["least_cosine"][k]), 3),
        }
        for k, label in enumerate(_labels(data))
        if bool(data["trained"][k]) == trained
    }
    return Verdict(
        statement=f"cosines of pairs of tokens at the embeddings of BERT and ALBERT are not "
        f"negative, {words}",
        paper="Fig. 9: initial cosines of BERT and ALBERT are all non-negative",
        measured=kin,
        tolerance="no pair of any excerpt below 0",
        reproduced=not missing and all(data["least_cosine"][k] >= 0 for k in found.values()),
        lacking=f"{words} {' and '.join(missing)}" if missing else "",
    )
