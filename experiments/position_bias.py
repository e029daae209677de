"""Position bias of causal attention: how much of each token arrives in the last one.

Influence is the product over layers of (s I + A) / (s + 1), s the weight of the skip connection
("attention rollout"). Uniform causal attention has it in closed form; attention of random networks
is measured beside it: post-norm, one head, Gaussian queries, keys and values, fresh in every layer.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import influence, masks, measures, norms, tokens, weights
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "arXiv 2502.01951 (causal attention without skip: influence collapses onto token 1) and "
    "arXiv 2602.16837 (with skips: U-shaped at finite depth, no collapse at infinite depth)"
)

SETTINGS = {
    "smoke": {"tokens": 32, "dim": 16, "samples": 8, "depth": 16, "sigma": 0.8, "deepest": 400},
    "default": {
        "tokens": 128, "dim": 64, "samples": 16, "depth": 32, "sigma": 0.8, "deepest": 20_000,
    },
}  # fmt: skip

#: Weights of the skip connection of the measured networks.
SKIPS = (0.0, 1.0, 3.0)
#: Skips by layer (from 1) whose influence is followed to great depth.
GROWING = {
    "s = 0": lambda t: 0.0 * t,
    "s = 1": lambda t: 0.0 * t + 1.0,
    "s = 10": lambda t: 0.0 * t + 10.0,
    "s = layer": lambda t: t,
    "s = layer²": lambda t: t**2,
}


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Influence on the last token (skip, sample, depth, token), its closed form (skip, depth,
    token), the smallest entry of attention, and the share of token 1 to great depth."""
    n, d, depth = settings["tokens"], settings["dim"], settings["depth"]
    depths = np.unique(np.geomspace(1, depth, 1 + int(np.log2(depth))).round().astype(int))
    measured = np.empty((len(SKIPS), settings["samples"], len(depths), n))
    least = np.empty((len(SKIPS), settings["samples"]))
    for k, skip in enumerate(SKIPS):
        for sample in range(settings["samples"]):
            A = _attention(settings, skip, 1000 * seed + sample)
            for t, upto in enumerate(depths):
                measured[k, sample, t] = measures.position_influence(A[:upto], skip)[-1]
            least[k, sample] = A[..., np.tri(n) > 0].min()
            progress(0.8 * (k + (sample + 1) / settings["samples"]) / len(SKIPS))
    uniform = np.array(
        [[measures.uniform_causal_influence(n, int(t), s) for t in depths] for s in SKIPS]
    )
    deep = np.unique(np.geomspace(1, settings["deepest"], 24).round().astype(int))
    layers = np.arange(1.0, deep[-1] + 1)
    first = np.empty((len(GROWING), len(deep)))
    for k, skip_of in enumerate(GROWING.values()):
        skips = skip_of(layers)
        for t, upto in enumerate(deep):
            first[k, t] = _first(n, skips[:upto])
        progress(0.8 + 0.2 * (k + 1) / len(GROWING))
    return {
        "depths": depths, "measured": measured, "uniform": uniform, "least": least,
        "deep": deep, "first": first, "dim": np.array(d),
    }  # fmt: skip


def _attention(settings: dict, skip: float, seed: int) -> np.ndarray:
    """The matrices of a random network, (depth, 1, N, N)."""
    n, d = settings["tokens"], settings["dim"]
    network = weights.Weights(weights.Gaussian(settings["sigma"]), weights.Gaussian(), seed=seed)
    dynamics = dynsim.AttentionDynamics(masks.causal(n), network, norms.RMSNorm(eps=0.0), skip=skip)
    x0 = tokens.gaussian(1, n, d, seed)[0]
    return influence.attention_of_run(dynamics, x0, settings["depth"])


def _first(n: int, skips: np.ndarray) -> float:
    """The share of token 1 under uniform causal attention, layer by layer: O(N) each."""
    row = np.zeros(n)
    row[-1] = 1.0
    degrees = np.arange(1.0, n + 1)
    for s in skips[::-1]:
        row = (s * row + np.cumsum((row / degrees)[::-1])[::-1]) / (s + 1.0)
    return float(row[0])


# --- reading --------------------------------------------------------------------------------------


def ends(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By how much the first and the last token's share exceed the least one between them, (...):
    the least mean over an eighth of the tokens, one after another."""
    width = max(1, shares.shape[-1] // 8)
    windows = np.lib.stride_tricks.sliding_window_view(shares[..., 1:-1], width, axis=-1)
    inner = windows.mean(axis=-1).min(axis=-1)
    return shares[..., 0] / inner, shares[..., -1] / inner


def is_u_shaped(shares: np.ndarray) -> np.ndarray:
    """Both ends have at least twice the least share between them, (...)."""
    first, last = ends(shares)
    return (first >= 2.0) & (last >= 2.0)


def draw(data) -> Figure:
    """Influence by position without a skip and with one, and token 1's share by depth."""
    figure, (axes,) = style.panels(1, 3, height=2.6)
    for panel, skip in zip(axes, (0.0, 1.0), strict=False):
        _draw_positions(panel, data, SKIPS.index(skip))
    axes[0].set_title("no skip: token 1 takes all")
    axes[1].set_title("skip 1: U-shaped at first")
    _draw_first(axes[2], data)
    style.letters(axes)
    judged = claims(data)
    style.finding(
        figure,
        "Causal attention lets the first token win; a skip connection makes the influence U-shaped "
        "for some layers, but only one that grows keeps the first token from winning"
        if judged[0].reproduced and judged[1].reproduced and judged[2].only_with
        else "Influence of positions on the last token under causal attention",
    )
    return figure


def _draw_positions(axes, data, k: int) -> None:
    n = data["measured"].shape[-1]
    places = np.arange(1, n + 1)
    named = {}
    shown = [t for t in (1, 2, 4, 8, 16) if t in data["depths"]]
    for depth, tone in zip(shown, style.shades(style.BLUE, len(shown)), strict=True):
        t = int(np.searchsorted(data["depths"], depth))
        axes.plot(places, data["measured"][k, :, t].mean(axis=0), color=tone, linewidth=1.2)
        axes.plot(places, data["uniform"][k, t], color=tone, linewidth=0.8, linestyle=":")
        axes.plot(n, data["measured"][k, :, t, -1].mean(), "o", color=tone, markersize=3.5)
        named[depth] = tone
    axes.set(
        yscale="log", ylim=(3e-5, 8.0), xlim=(1, n + 3), xlabel="token",
        ylabel="share in the last token",
    )  # fmt: skip
    for row, (depth, tone) in enumerate(named.items()):
        axes.text(
            0.5, 0.98 - 0.07 * row, f"{depth} layer{'s' * (depth > 1)}", color=tone,
            transform=axes.transAxes, va="top", fontsize=7,
        )  # fmt: skip
    if k:
        style.note(axes, "● the last token itself", 0.93, 0.6)
    else:
        style.note(axes, "lines: random networks\ndotted: uniform attention", 0.97, 0.635)


def _draw_first(axes, data) -> None:
    named = {}
    tones = [*style.shades(style.BLUE, 3)[::-1], style.VERMILION, style.GREEN]
    for name, first, tone, dash in zip(GROWING, data["first"], tones, style.DASHES, strict=False):
        (named[name],) = axes.plot(data["deep"], first, color=tone, linestyle=dash)
    axes.set(xscale="log", xlabel="depth (layers)", ylabel="share of token 1", ylim=(0, 1.03),
             title="uniform attention, skip s")  # fmt: skip
    at = {"s = 0": (0.9, 0.91, "left"), "s = 1": (17, 0.62, "left"), "s = 10": (160, 0.72, "left")}
    for name, line in named.items():
        if name in at:
            x, y, side = at[name]
            axes.text(x, y, name, color=line.get_color(), fontsize=7, ha=side)
    style.name_lines(axes, {n: named[n] for n in named if n not in at}, room=0.3)


# --- claims -------------------------------------------------------------------------------------


def claims(data) -> list[Verdict]:
    """Collapse onto token 1, the U-shape, and what keeps influence from collapsing."""
    return [_collapse(data), _u_shape(data), _infinite_depth(data)]


def _collapse(data) -> Verdict:
    shares, depths = data["measured"][SKIPS.index(0.0)], data["depths"]
    n = shares.shape[-1]
    place = shares @ np.arange(n) / (n - 1)  # (sample, depth): 2^-depth for uniform attention
    rate = (place[:, -1] / place[:, 0]) ** (1.0 / (depths[-1] - depths[0]))
    rest = 1.0 - shares[..., 0]
    later = shares[..., ::-1].cumsum(axis=-1)[..., ::-1]
    bounds = [
        [influence.influence_bound(n, int(t), eps) for t in depths]
        for eps in data["least"][SKIPS.index(0.0)]
    ]
    below = bool(np.all(later <= np.array(bounds) * (1 + 1e-9)))
    return Verdict(
        statement="without a skip the last token's influence moves onto token 1, exponentially in "
        "depth, and stays under the bound (1 - (j - 1) eps)^depth for tokens j and later",
        paper="arXiv 2502.01951, collapse onto token 1: at most C (1 - (j - 1) eps)^t",
        measured={
            f"share of all other tokens after {depths[-1]} layers, largest": float(
                f"{rest[:, -1].max():.3g}"
            ),
            "factor per layer of the mean position, median (uniform attention: .5)": round(
                float(np.median(rate)), 4
            ),
            "all shares under the bound": below,
        },
        tolerance="others' share under .01 at the end; the factor within .1 of .5",
        reproduced=bool(rest[:, -1].max() < 0.01 and below and np.all(np.abs(rate - 0.5) < 0.1)),
    )


def _u_shape(data) -> Verdict:
    """Means over networks: one network's shares are too uneven for a least share to mean much."""
    mean, depths = data["measured"].mean(axis=1), data["depths"]
    shaped, predicted = is_u_shaped(mean), is_u_shaped(data["uniform"])
    with_skip = [k for k, s in enumerate(SKIPS) if s]
    return Verdict(
        statement="with a skip connection the influence on the last token is U-shaped at finite "
        "depth: both ends have at least twice the least share between them",
        paper="arXiv 2602.16837: U-shaped position bias at finite depth, early and late tokens",
        measured={
            f"skip {SKIPS[k]:g}: depths at which it is U-shaped": {
                "random networks": depths[shaped[k]].tolist(),
                "uniform attention": depths[predicted[k]].tolist(),
            }
            for k in range(len(SKIPS))
        },
        tolerance="two or more of the depths for every skip above 0; at most the first without "
        "skip; means over networks",
        reproduced=bool(
            all(shaped[k].sum() >= 2 and predicted[k].sum() >= 2 for k in with_skip)
            and not shaped[SKIPS.index(0.0)].any()
        ),
    )


def _infinite_depth(data) -> Verdict:
    last = dict(zip(GROWING, data["first"][:, -1], strict=True))
    half = dict(zip(GROWING, data["first"][:, len(data["deep"]) // 2], strict=True))
    constant = all(last[name] > 0.99 for name in ("s = 0", "s = 1", "s = 10"))
    linear = last["s = layer"] > half["s = layer"] + 0.01
    kept = last["s = layer²"] < 0.5 and last["s = layer²"] - half["s = layer²"] < 0.01
    return Verdict(
        statement="skip connections prevent the collapse onto token 1 at infinite depth",
        paper="arXiv 2602.16837: prevented under realistic conditions",
        measured={
            f"share of token 1 after {data['deep'][-1]} layers of uniform attention": {
                name: round(float(value), 4) for name, value in last.items()
            },
            "mean position, closed form": "(N - 1) prod (1 - 1 / (2 (s_l + 1))): to 0 unless the "
            "sum of 1 / (s_l + 1) is finite",
        },
        tolerance="with every constant skip token 1 has .99 or more in the end; with s = layer "
        "squared under .5, and no more than .01 above its share at the middle depth",
        reproduced=bool(not constant and kept),
        only_with="skip weights s_l that grow, so that the sum of 1 / (s_l + 1) is finite"
        if constant and linear and kept
        else "",
    )
