"""DyT, Derf, RMSNorm and LayerNorm over a thousand layers: the same weights, the same tokens.

Complete mask, Gaussian weights, fresh in every layer, no MLP. Where attention is nearly uniform the
branch moves all tokens alike, so that with the norm after a skip of weight s deviations lose the
factor s / sqrt(s^2 + 1) a layer against the mean: with a norm that scales (RMSNorm, LayerNorm) as
with DyT near 0. But DyT and Derf act entry by entry, and where their slope at 0 times s is above 1
an entry has two stable values, one of each sign: then tokens stay where they are.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import masks, norms, residual, tokens, weights
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "Zhu et al., arXiv 2503.10622 (DyT in place of the norm, with the same or better results), and "
    "arXiv 2512.10938 (Derf); here: what the replacement does to collapse at initialisation"
)

#: There are none as published: the papers train, and measure no collapse.
SETTINGS = {
    "smoke": {"tokens": 16, "dim": 64, "heads": 4, "networks": 2, "depth": 200,
              "skips": [1, 2, 5]},
    "default": {"tokens": 32, "dim": 64, "heads": 4, "networks": 4, "depth": 1000,
                "skips": [1, 1.5, 2, 2.25, 2.5, 2.75, 3, 4, 6]},
}  # fmt: skip

#: As the papers begin: a = .5, gain 1.
NORMS = {
    "DyT": norms.DyT(0.5),
    "Derf": norms.Derf(0.5),
    "RMSNorm": norms.RMSNorm(),
    "LayerNorm": norms.LayerNorm(),
}
#: Those that act entry by entry, and what takes their place in the comparison.
ELEMENTWISE, USUAL = ("DyT", "Derf"), "RMSNorm"
#: Those that are compared by the weight of the skip.
SCANNED = (*ELEMENTWISE, USUAL)
#: Followed below the floor of float64.
BELOW = ("RMSNorm", "LayerNorm")
#: Their slopes at 0, for a = .5.
SLOPES = {"DyT": 0.5, "Derf": 1.0 / np.pi**0.5}
ROUNDING = 1e-13

VARIANTS = ("post, skip 1", "post, DeepNorm's skip", "pre, skip 1")
POST, DEEPNORM, PRE = range(3)
#: Between these layers, in shares of the depth, a rate is measured; up to the floor of float64.
LATE = (0.04, 0.08)


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """log10(mu / ||X||): by layer (variant, norm, network, layer), and in the end by the weight of
    the skip with the norm after it, in float64 (norm, skip, network). Under DeepNorm's skip, the
    share of entries that have in the end the sign that they had after layer 1 (norm, network)."""
    depth, networks = settings["depth"], settings["networks"]
    around = (("post", 1.0), ("post", residual.deepnorm(depth)), ("pre", 1.0))
    by_layer = np.empty((len(around), len(NORMS), networks, depth + 1))
    signs = np.empty((len(NORMS), networks))
    for v, (placement, skip) in enumerate(around):
        for k, name in enumerate(NORMS):
            for j in range(networks):
                engine = "logscale" if name in BELOW else "numba"
                run = _run(settings, name, placement, skip, 1000 * seed + j, depth, engine)
                by_layer[v, k, j] = _share(run)
                if v == DEEPNORM:
                    first = _run(settings, name, placement, skip, 1000 * seed + j, 1).final
                    signs[k, j] = np.mean(np.sign(run.final) == np.sign(first))
        progress((v + 1) / 6)
    skips = settings["skips"]
    by_skip = np.empty((len(SCANNED), len(skips), networks))
    for i, skip in enumerate(skips):
        for k, name in enumerate(SCANNED):
            for j in range(networks):
                run = _run(settings, name, "post", float(skip), 1000 * seed + j, depth)
                by_skip[k, i, j] = _share(run)[-1]
        progress(0.5 + (i + 1) / len(skips) / 2)
    return {"by_layer": by_layer, "signs": signs, "by_skip": by_skip,
            "skips": np.array(skips, float), "dim": np.array(settings["dim"])}  # fmt: skip


def _run(
    settings: dict, name: str, placement: str, skip, number: int, depth: int, engine: str = "numba"
):
    n, d = settings["tokens"], settings["dim"]
    dynamics = dynsim.AttentionDynamics(
        masks.complete(n), weights.Weights(n_heads=settings["heads"], seed=number), NORMS[name],
        placement, skip=skip,
    )  # fmt: skip
    return dynsim.simulate(
        dynamics, tokens.gaussian(1, n, d, number), depth, record=dynsim.Record(measures=()),
        engine=engine,
    )  # fmt: skip


def _share(run) -> np.ndarray:
    """log10(mu / ||X||) by layer; -inf where all tokens are equal."""
    return run["log10_mu"][0] - np.log10(run["frobenius_norm"][0])


# --- reading --------------------------------------------------------------------------------------


def rate(skip: float) -> float:
    """log10 of the factor a layer by which deviations fall against the mean, norm after the skip.

    >>> round(10 ** rate(1.0), 4)
    0.7071
    """
    return float(np.log10(skip / np.hypot(skip, 1.0)))


def medians(data, variant: int) -> dict[str, np.ndarray]:
    """log10(mu / ||X||) by layer, the median over networks, by norm."""
    found = np.median(data["by_layer"][variant], axis=1)
    return dict(zip(NORMS, found, strict=True))


def deepnorm_skip(data) -> float:
    return float(residual.deepnorm(data["by_layer"].shape[-1] - 1).layer(0).skip)


# --- figure ---------------------------------------------------------------------------------------

LOOKS = {
    "DyT": {"color": style.GREEN, "linestyle": "-"},
    "Derf": {"color": style.ORANGE, "linestyle": "--"},
    "RMSNorm": {"color": style.NORMS["rms"], "linestyle": "-."},
    "LayerNorm": {"color": style.NORMS["layernorm"], "linestyle": ":"},
}


def draw(data) -> Figure:
    """Three panels by layer, one by the weight of the skip."""
    figure, ((post, deep), (pre, skips)) = style.panels(2, 2, height=2.3)
    for v, axes in enumerate((post, deep, pre)):
        _draw_layers(axes, data, v)
    depth = data["by_layer"].shape[-1] - 1
    fall = rate(1.0) * depth
    post.plot([0, depth], [0, fall], color="0.3", linewidth=0.7, zorder=1)
    style.note(post, "grey: 2$^{-layer/2}$, predicted", 0.97, 0.95)
    style.note(post, "DyT and Derf: to the floor of float64", 0.03, 0.05)
    style.note(deep, f"skip (2L)$^{{1/4}}$ = {deepnorm_skip(data):.2g}", 0.03, 0.05)
    _draw_skips(skips, data)
    style.letters((post, deep, pre, skips))
    alike, frozen = _drop_in(data), _frozen(data)
    style.finding(
        figure,
        "With pre-norm DyT and Derf act like the norms they replace; after a strong skip they "
        "freeze the tokens instead"
        if alike.only_with and frozen.reproduced
        else "DyT, Derf, RMSNorm and LayerNorm by layer, with the same weights",
    )
    return figure


def _draw_layers(axes, data, variant: int) -> None:
    layers, ends = np.arange(data["by_layer"].shape[-1]), []
    for k, (name, look) in enumerate(LOOKS.items()):
        runs = np.where(data["by_layer"][variant, k] > _floor(name), data["by_layer"][variant, k],
                        np.nan)  # fmt: skip
        axes.plot(layers, runs.T, color=look["color"], linewidth=0.3, alpha=0.5)
        with np.errstate(invalid="ignore"):
            middle = np.median(runs, axis=0)
        axes.plot(layers, middle, **look)
        last = np.flatnonzero(np.isfinite(middle))[-1]
        if last < layers[-1]:
            axes.plot(layers[last], middle[last], "|", color=look["color"], markersize=7)
        ends.append((layers[-1], middle[last], name, look["color"]))
    axes.set(xlabel="layer", ylabel="log₁₀ (mu / ‖X‖)", title=VARIANTS[variant],
             xlim=(0, layers[-1]))  # fmt: skip
    axes.set_ylim(top=0.03 * -axes.get_ylim()[0])
    style.label_ends(axes, ends)


def _floor(name: str) -> float:
    return -np.inf if name in BELOW else float(np.log10(ROUNDING))


def _draw_skips(axes, data) -> None:
    skips, ends = data["skips"], []
    lowest = -16.0
    for k, name in enumerate(SCANNED):
        look, runs = LOOKS[name], np.maximum(data["by_skip"][k], lowest)
        axes.plot(skips, runs, ".", color=look["color"], markersize=2.5, alpha=0.6)
        middle = np.median(runs, axis=1)
        axes.plot(skips, middle, **look)
        ends.append((skips[-1], middle[-1], name, look["color"]))
    for name, slope in SLOPES.items():
        axes.axvline(1 / slope, color=LOOKS[name]["color"], linewidth=0.7, zorder=1)
    style.note(axes, "vertical: slope at 0 × skip = 1", 0.97, 0.86)
    axes.set(xlabel="weight of the skip", ylabel="log₁₀ (mu / ‖X‖), last layer",
             title="post, by skip", ylim=(lowest - 0.5, 0.6))  # fmt: skip
    style.label_ends(axes, ends)


# --- claims ---------------------------------------------------------------------------------------


def claims(data) -> list[Verdict]:
    """The papers' replacement, the common rate, and what is different."""
    return [_drop_in(data), _rate(data), _frozen(data)]


def _short(value: float) -> float | str:
    return float(f"{value:.4g}") if np.isfinite(value) else "all tokens equal in float64"


def _drop_in(data) -> Verdict:
    measured, alike, floor = {}, {}, _floor("DyT")
    for v, variant in enumerate(VARIANTS):
        found = {name: max(row[-1], floor) for name, row in medians(data, v).items()}
        apart = [abs(found[name] - found[USUAL]) for name in ELEMENTWISE]
        alike[variant] = bool(max(apart) < np.log10(2.0))
        measured[f"{variant}: log10(mu / ||X||) after the last layer, or the floor of float64"] = {
            name: _short(value) for name, value in found.items()
        }
    seen = [variant for v, variant in enumerate(VARIANTS) if medians(data, v)[USUAL][-1] > floor]
    which = [variant for variant in seen if alike[variant]]
    return Verdict(
        statement="DyT and Derf leave as much of mu as RMSNorm in its place, after all layers, in "
        "each of three settings",
        paper="DyT replaces the norm as it is, with the same or better results (after training, "
        "which is not tested here)",
        measured=measured,
        tolerance="a factor of 2, medians over networks; below the floor of float64 nothing is "
        "compared",
        reproduced=all(alike.values()),
        only_with="" if all(alike.values()) else " or ".join(which),
    )


def _rate(data) -> Verdict:
    low, high = (round(share * (data["by_layer"].shape[-1] - 1)) for share in LATE)
    found = {name: (row[high] - row[low]) / (high - low) for name, row in
             medians(data, POST).items()}  # fmt: skip
    expected = rate(1.0)
    return Verdict(
        statement="with the norm after a skip of weight 1 mu / ||X|| falls by 1 / sqrt 2 a layer, "
        "whatever the norm",
        paper="ours: s / sqrt(s^2 + 1) for nearly uniform attention, values that keep lengths, and "
        "norms that scale, or are linear near 0",
        measured={f"log10 of the factor, layers {low} to {high}": {
            name: round(float(v), 4) for name, v in found.items()
        }, "predicted": round(expected, 4)},
        tolerance="10%: the width is finite",
        reproduced=all(abs(v / expected - 1.0) < 0.1 for v in found.values()),
    )  # fmt: skip


def _threshold(data, name: str) -> list[float]:
    """Slope at 0 times the weight of the skip: the smallest that keeps .9 of ||X||, and the largest
    that does not; infinity and 0 where there is none."""
    kept = np.median(data["by_skip"][SCANNED.index(name)], axis=1) > np.log10(0.9)
    products = SLOPES[name] * data["skips"]
    return [round(float(v), 3) for v in (
        np.min(products, initial=np.inf, where=kept), np.max(products, initial=0.0, where=~kept)
    )]  # fmt: skip


def _frozen(data) -> Verdict:
    found = {name: row[-1] for name, row in medians(data, DEEPNORM).items()}
    signs = dict(zip(NORMS, np.median(data["signs"], axis=1), strict=True))
    skip = deepnorm_skip(data)
    return Verdict(
        statement="after DeepNorm's skip DyT and Derf keep mu, where RMSNorm and LayerNorm lose "
        "it: entries keep the signs that they have after layer 1, the branch decides nothing more",
        paper="ours: slope at 0 times the skip's weight is above 1",
        measured={
            "log10(mu / ||X||) after the last layer": {k: _short(v) for k, v in found.items()},
            "share of entries that keep their sign": {
                name: round(float(v), 4) for name, v in signs.items()
            },
            "slope at 0 times the skip": {
                name: round(float(slope * skip), 3) for name, slope in SLOPES.items()
            },
            "the same, smallest that keeps .9 and largest that does not, of those tried": {
                name: _threshold(data, name) for name in ELEMENTWISE
            },
        },
        tolerance="mu above .9 of ||X||, and above 95% of the signs; RMSNorm and LayerNorm below "
        ".1 of ||X|| and below 90% of the signs",
        reproduced=all(found[name] > np.log10(0.9) and signs[name] > 0.95 for name in ELEMENTWISE)
        and all(found[name] < -1.0 and signs[name] < 0.9 for name in BELOW),
    )
