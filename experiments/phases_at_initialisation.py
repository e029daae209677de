"""Two ways to fail at initialisation: tokens that all agree, attention that sees one token.

Random layers, fresh in every layer: scores of variance v between independent tokens, Gaussian
values, a skip of weight s, RMSNorm after it, complete mask, no MLP. v is given as beta = sqrt(v /
log N), for rows of independent scores are a Random Energy Model, which freezes at beta = sqrt 2:
for large N the entropy of attention is (1 - beta^2 / 2) log N below, and stays finite above.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import gram, masks, norms, tokens, weights
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "Giorlandino and Goldt, arXiv 2505.24333: rank collapse where scores have a small variance, "
    "entropy collapse where it is large, and what the skip connection does to them"
)

SETTINGS = {
    "smoke": {"tokens": 128, "dim": 64, "samples": 1, "depths": [2, 12], "betas": 9,
              "skips": [0, 2, 6], "sizes": [16, 128]},
    "default": {"tokens": 128, "dim": 128, "samples": 3, "depths": [3, 24], "betas": 17,
                "skips": [0, 0.5, 1, 1.5, 2, 3, 4, 6], "sizes": [32, 128, 512]},
}  # fmt: skip

#: The largest beta, and where a Random Energy Model freezes.
LARGEST, FROZEN = 3.2, 2.0**0.5
#: Mean cosine above which there is rank collapse, share of log N below which entropy collapse.
ALIKE, CONCENTRATED = 0.9, 0.35
#: The scale of scores of runs that are followed layer by layer.
FOLLOWED = 3.0
#: A spread of scores up to which infinite width is compared: its first order is near enough.
NARROW = 0.6


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Mean cosine at two depths, (depth, skip, beta, sample), and that of infinite width, (depth,
    skip, beta), NaN where it is not compared; entropy over log N, mean over the layers up to the
    first depth, (skip, beta, sample), and of the first layer by size, (n, beta); the mean cosine by
    layer without skip, (n, layer)."""
    betas = np.linspace(0.0, LARGEST, settings["betas"])
    skips, n, d, depths = (settings[key] for key in ("skips", "tokens", "dim", "depths"))
    shape = len(skips), len(betas), settings["samples"]
    cosine, wide = np.empty((2, *shape)), np.full((2, *shape[:2]), np.nan)
    entropy = np.empty(shape)
    x0 = tokens.gaussian(settings["samples"], n, d, seed)
    for i, skip in enumerate(skips):
        for j, beta in enumerate(betas):
            dynamics = _network(n, beta, skip, seed)
            run = dynsim.simulate(dynamics, x0, depths[1], record=ENTROPY)
            cosine[:, i, j] = run["mean_cosine"][:, depths].T
            entropy[i, j] = run["attention_entropy"][:, : depths[0]].mean(axis=1) / np.log(n)
            if beta * np.log(n) ** 0.5 <= NARROW:
                wide[:, i, j] = _in_infinite_width(dynamics, x0, depths)
        progress(0.8 * (i + 1) / len(skips))
    sizes = settings["sizes"]
    first = np.array([[_first_entropy(m, beta, seed) for beta in betas] for m in sizes])
    followed = np.array([_followed(m, depths[1], seed) for m in sizes])
    return {
        "betas": betas, "skips": np.array(skips, float), "cosine": cosine, "entropy": entropy,
        "wide": wide, "first": first, "followed": followed, "sizes": np.array(sizes),
        "tokens": np.array(n), "depths": np.array(depths),
    }  # fmt: skip


ENTROPY = dynsim.Record(measures=("attention_entropy",), stride=1)


def _network(n: int, beta: float, skip: float, seed: int) -> dynsim.AttentionDynamics:
    network = weights.Weights(beta=float(beta * np.log(n) ** 0.5), seed=seed)
    return dynsim.AttentionDynamics(
        masks.complete(n), network, norms.RMSNorm(eps=0.0), skip=float(skip)
    )


def _in_infinite_width(dynamics, x0: np.ndarray, depths: list[int]) -> np.ndarray:
    """The mean cosine of pairs: mu^2 = d (N - 1) (1 - that) for tokens of length sqrt d."""
    n, d = x0.shape[1:]
    squares = gram.infinite_width(dynamics, x0, depths[1]).mu[:, depths] ** 2
    return np.mean(1.0 - np.nan_to_num(squares) / (d * (n - 1)), axis=0)  # NaN: mu is rounding


def _first_entropy(n: int, beta: float, seed: int) -> float:
    """Of attention in the first layer, over log N, from independent tokens."""
    x0 = norms.RMSNorm(eps=0.0).apply(_wide(n, seed))
    run = dynsim.simulate(_network(n, beta, 0.0, seed), x0, 1, record=ENTROPY)
    return float(run["attention_entropy"][:, 0].mean() / np.log(n))


def _followed(n: int, depth: int, seed: int) -> np.ndarray:
    """The mean cosine by layer at beta = 3 without skip, from independent tokens."""
    record = dynsim.Record(measures=())
    run = dynsim.simulate(_network(n, FOLLOWED, 0.0, seed), _wide(n, seed), depth, record=record)
    return run["mean_cosine"].mean(axis=0)


def _wide(n: int, seed: int) -> np.ndarray:
    """Independent tokens of at least 256 dimensions, in which cosines are near 0."""
    return tokens.gaussian(4, n, max(n, 256), seed + 1)


# --- figure -------------------------------------------------------------------------------------


def draw(data) -> Figure:
    """Mean cosine over (beta, skip) at two depths; entropy of one layer; mean cosine by layer."""
    figure, ((early, late), (entropy, followed)) = style.panels(2, 2, height=2.3)
    for panel, depth, cosine in zip((early, late), data["depths"], data["cosine"], strict=True):
        image = _draw_phases(panel, data, cosine.mean(axis=-1))
        panel.set_title(f"mean cosine after {depth} layers")
    early.set_ylabel("weight of the skip connection")
    early.text(
        0.5, 0.62, f"entropy\n{CONCENTRATED:g} log N", color="white", fontsize=7, ha="right",
        va="center", transform=early.transAxes,
    )  # fmt: skip
    inside = late.inset_axes((0.05, 0.88, 0.4, 0.05))
    bar = figure.colorbar(image, cax=inside, orientation="horizontal", ticks=[0, 0.5, 1])
    bar.ax.tick_params(colors="white", labelsize=6.5, pad=1)
    bar.outline.set_edgecolor("white")
    _draw_first(entropy, data)
    _draw_followed(followed, data)
    style.letters((early, late, entropy, followed))
    judged = claims(data)
    style.finding(
        figure,
        "Small scores make tokens agree, large ones make attention see few of them; without a skip "
        "large scores only delay the agreement"
        if judged[0].only_with and judged[1].only_with
        else "Agreement of tokens and entropy of attention in random layers",
    )
    return figure


def _draw_phases(axes, data, cosine: np.ndarray):
    betas, rows = data["betas"], np.arange(len(data["skips"]))
    image = axes.pcolormesh(
        betas, rows, cosine, vmin=0, vmax=1, cmap="cividis", shading="nearest", rasterized=True
    )
    axes.contour(
        betas, rows, data["entropy"].mean(axis=-1), levels=[CONCENTRATED], colors="white",
        linestyles="--", linewidths=1.0,
    )  # fmt: skip
    axes.text(
        0.97, 0.94, "few tokens\nseen", color="white", fontsize=7, ha="right", va="top",
        transform=axes.transAxes,
    )  # fmt: skip
    axes.text(0.04, 0.05, "agreement", color="black", fontsize=7, transform=axes.transAxes)
    axes.set(xlabel="β, scores of variance β² log N")
    axes.set_yticks(rows, [f"{s:g}" for s in data["skips"]])
    axes.grid(False)
    return image


def _draw_first(axes, data) -> None:
    tones = style.shades(style.BLUE, len(data["sizes"]))
    for k, (n, values, tone) in enumerate(zip(data["sizes"], data["first"], tones, strict=True)):
        axes.plot(data["betas"], values, "o-", color=tone, markersize=2.2)
        axes.text(0.7, 0.9 - 0.1 * k, f"N = {n}", color=tone, fontsize=7,
                  transform=axes.transAxes)  # fmt: skip
    fine = np.linspace(0, LARGEST, 200)
    axes.plot(fine, np.maximum(1 - fine**2 / 2, 0), color="0.3", linestyle="--", linewidth=1)
    axes.text(0.9, 0.3, "N → ∞", color="0.3", fontsize=7, ha="right")
    axes.set(xlabel="β", ylabel="entropy / log N", ylim=(-0.02, 1.05), xlim=(0, LARGEST),
             title="first layer, independent tokens")  # fmt: skip


def _draw_followed(axes, data) -> None:
    tones = style.shades(style.BLUE, len(data["sizes"]))
    layers, ends = np.arange(1, data["followed"].shape[1]), []
    for n, values, tone in zip(data["sizes"], data["followed"], tones, strict=True):
        seen = np.maximum(values[1:], 1e-4)
        axes.plot(layers, seen, "o-", color=tone, markersize=2.2)
        ends.append((layers[0], seen[0], f"N = {n}", tone))
    axes.set(yscale="log", ylim=(8e-4, 1.6), xlabel="layer", ylabel="mean cosine",
             title=f"β = {FOLLOWED:g}, no skip", xlim=(-4.5, layers[-1] + 0.5))  # fmt: skip
    axes.set_xticks([1, *range(6, layers[-1] + 1, 6)])
    for x, y, name, tone in ends:
        axes.text(x - 0.5, y, name, color=tone, fontsize=7, ha="right", va="center")


# --- claims -------------------------------------------------------------------------------------


def claims(data) -> list[Verdict]:
    """The two regimes, the skip connection, and the Random Energy Model."""
    return [_two_regimes(data), _skip(data), _freezing(data)]


def _two_regimes(data) -> Verdict:
    low, high = data["betas"] < 0.5, data["betas"] > 2.0
    cosines, entropy = data["cosine"][:, 0].mean(axis=-1), data["entropy"][0].mean(axis=-1)
    alike = cosines[:, low].min(axis=1) > ALIKE
    apart = cosines[:, high].max(axis=1) < 0.5
    spread, concentrated = entropy[low].min() > 0.75, entropy[high].max() < CONCENTRATED
    holds = alike & apart & bool(spread and concentrated)
    shallow, deep = (int(t) for t in data["depths"])
    return Verdict(
        statement="without skip: scores of small variance make tokens alike while attention stays "
        "spread; scores of large variance make attention concentrate while tokens stay apart",
        paper="two failure modes: rank collapse at low variance of queries and keys, entropy "
        "collapse, with the signal preserved, at high variance",
        measured={
            f"after {t} layers: least mean cosine at beta < .5, largest at beta > 2": [
                round(float(c[low].min()), 3), round(float(c[high].max()), 3)
            ]
            for t, c in zip((shallow, deep), cosines, strict=True)
        }
        | {
            "least entropy / log N at beta < .5, largest at beta > 2": [
                round(float(entropy[low].min()), 3), round(float(entropy[high].max()), 3)
            ],
            f"layers to a mean cosine of .5 at beta = {FOLLOWED:g}, by N": {
                int(n): int(np.argmax(row > 0.5)) or None
                for n, row in zip(data["sizes"], data["followed"], strict=True)
            },
        },
        tolerance=f"cosine above {ALIKE} and entropy above .75 of log N at small variance; cosine "
        f"under .5 and entropy under {CONCENTRATED} at large",
        reproduced=bool(holds.all()),
        only_with=f"few layers ({shallow}; after {deep} tokens agree at large variance, too, for "
        f"N is finite)"
        if holds[0] and not holds[1]
        else "",
    )  # fmt: skip


def _skip(data) -> Verdict:
    cosine, wide = data["cosine"].mean(axis=-1), data["wide"]
    compared = np.isfinite(wide)
    off = np.abs(cosine - wide)[compared]
    alike = cosine[1][:, data["betas"] < 0.5] > ALIKE
    apart = data["skips"][~alike.any(axis=1)]
    holds = alike[0].all() and not alike[-1].any() and len(off) >= 4 and off.max() < 0.15
    return Verdict(
        statement="at small variance of scores a skip connection of enough weight keeps tokens "
        "apart; the mean cosine is that of infinite width",
        paper="a critical strength of the residual connection in the low-variance regime",
        measured={
            f"least skip without rank collapse after {int(data['depths'][1])} layers": float(
                apart.min()
            )
            if len(apart)
            else None,
            "diagram's cells compared with infinite width": len(off),
            "largest difference of the mean cosine from it": round(float(off.max()), 3)
            if len(off)
            else None,
        },
        tolerance="agreement without skip, none with the largest, at the larger depth; .15 in the "
        "cosine. 1 - cos falls by s^2 / (s^2 + 1) a layer in the end, whatever s: there is no MLP",
        reproduced=False,
        only_with="a depth that is given: without MLP no weight keeps tokens apart at every depth"
        if holds
        else "",
    )


def _freezing(data) -> Verdict:
    limit = np.maximum(1.0 - data["betas"] ** 2 / 2.0, 0.0)
    off = np.abs(data["first"] - limit).mean(axis=1)
    frozen = data["first"][:, data["betas"] > 2.0 * FROZEN].max(axis=1)
    return Verdict(
        statement="the entropy of the first layer's attention approaches (1 - beta^2/2) log N as N "
        "grows, and 0 of it above beta = sqrt 2",
        paper="the Random Energy Model and its transition",
        measured={
            "mean |entropy / log N - limit|, by N": {
                int(n): round(float(v), 4) for n, v in zip(data["sizes"], off, strict=True)
            },
            "largest entropy / log N above 2 sqrt 2, by N": {
                int(n): round(float(v), 4) for n, v in zip(data["sizes"], frozen, strict=True)
            },
        },
        tolerance="nearer to the limit with more tokens; the transition is smooth at any N",
        reproduced=bool(np.all(np.diff(off) < 0) and np.all(np.diff(frozen) < 0)),
    )
