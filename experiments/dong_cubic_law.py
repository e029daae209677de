"""DONG's law of 3^L with its coefficient: on the complete graph log mu triples in every layer.

With X = 1 c + s Z, 1^T Z = 0, ||Z||_F = 1, and s -> 0, one layer of pure attention gives
s' Z' = s^3 Z M (Z^T Z / N) W_V + O(s^4), so log s' = 3 log s + log ||Z M (Z^T Z / N) W_V||_F.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import masks, predictions, tokens, weights
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "DONG, arXiv 2103.03404, Theorem 2.2 and Corollary: pure attention of L layers converges to "
    "rank one as beta^((3^L - 1) / 2) ||res(X)||^(3^L)"
)

SETTINGS = {
    "smoke": {"tokens": 6, "dim": 3, "samples": 3, "depth": 12},
    "default": {"tokens": 64, "dim": 32, "samples": 8, "depth": 12},
}
#: The law holds to the relative order of s; it is judged where s has fallen below this.
SMALL = np.log(1e-8)
TOLERANCE = 1e-6


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """log s at depths 0..T, what the law predicts for it from depth 2 on, and the exponent."""
    n, d, depth = settings["tokens"], settings["dim"], settings["depth"]
    network = weights.Weights(weights.Gaussian(), weights.Orthogonal(), seed=seed)
    dynamics = dynsim.AttentionDynamics(masks.complete(n), network)
    x0 = tokens.gaussian(settings["samples"], n, d, seed) / d**0.5
    record = dynsim.Record(measures=())
    log_s = np.empty((settings["samples"], depth + 1))
    predicted = np.empty((settings["samples"], depth - 1))
    state = x0
    for t in range(depth):  # one layer at a time: the shape Z of every depth is needed
        run = dynsim.simulate(dynamics, state, 1, engine="logscale", start=t, record=record)
        log_s[:, t : t + 2] = run["log10_mu"] * np.log(10.0)
        if t:
            for sample, (z, c) in enumerate(zip(state.shape, state.center, strict=True)):
                coefficient, _ = predictions.cubic_step(dynamics, z, c, t)
                predicted[sample, t - 1] = 3.0 * log_s[sample, t] + coefficient
        state = run.state
        progress((t + 1) / depth)
    whole = dynsim.simulate(dynamics, x0, depth, engine="logscale", record=record)
    rate = dynsim.collapse_rate(whole)
    return {"log_s": log_s, "predicted": predicted,
            "exponent": np.array([rate.value, *rate.interval])}  # fmt: skip


def draw(data) -> Figure:
    """Left: -log10 mu by depth, measured and predicted. Right: how far they differ."""
    figure, ((left, right),) = style.panels(1, 2, height=2.4)
    depth = np.arange(data["log_s"].shape[1])
    decades, predicted = -data["log_s"] / np.log(10.0), -data["predicted"] / np.log(10.0)
    colour = style.MASKS["complete"]
    scale = decades[:, -1].min() / 3.0 ** depth[-1]
    left.plot(depth[1:], scale * 3.0 ** depth[1:], color="0.5", linewidth=0.8, linestyle="--")
    left.plot(depth[2:], predicted.T, "s", markersize=6, fillstyle="none", color=style.VERMILION)
    left.plot(depth[1:], decades.T[1:], "o-", color=colour, markersize=2.5, linewidth=0.8)
    left.set(
        yscale="log", xlabel="layer", xticks=depth[2::2], ylabel="−log₁₀ mu", title="mu by layer"
    )
    words = (
        (f"● measured, {len(decades)} samples", colour),
        ("□ 3 log s + log ‖Z M Zᵀ Z W_V / N‖", style.VERMILION),
        ("- - 3ᴸ", "0.4"),
    )
    for k, (text, tone) in enumerate(words):
        left.text(
            0.04, 0.96 - 0.09 * k, text, color=tone, transform=left.transAxes, va="top", fontsize=7
        )
    error = np.maximum(np.abs(data["predicted"] - data["log_s"][:, 2:]), 1e-15)
    right.plot(depth[2:], error.T, "o-", color=style.VERMILION, markersize=2.5, linewidth=0.6)
    right.axhline(TOLERANCE, color="0.4", linewidth=0.8, linestyle=(0, (2, 2)))
    style.note(right, "tolerance, where s < 10⁻⁸", 0.97, 0.62)
    right.set(
        yscale="log",
        xlabel="layer",
        xticks=depth[2::2],
        ylabel="|log mu, predicted − measured|",
        title="error of the law",
    )
    style.letters((left, right))
    style.finding(
        figure,
        "Under the complete mask log mu triples in every layer, with the predicted coefficient"
        if claim(data).reproduced
        else "log mu under the complete mask, and the law of 3ᴸ",
    )
    return figure


def claim(data) -> Verdict:
    """The law with its coefficient holds to 1e-6 in log mu once s < 1e-8, down to 10^-100000."""
    judged = data["log_s"][:, 1:-1] < SMALL
    error = np.abs(data["predicted"] - data["log_s"][:, 2:])[judged]
    lowest = float(data["log_s"][:, -1].max() / np.log(10.0))
    exponent = data["exponent"]
    return Verdict(
        statement="log s' = 3 log s + log ||Z M (Z^T Z / N) W_V||_F to 1e-6 wherever s < 1e-8, "
        "down to at least 10^-100000, and the fitted exponent is 3",
        paper="Theorem 2.2: the power 3^L; its constant is an upper bound",
        measured={
            "largest error of log mu": float(f"{error.max():.2g}"),
            "layers judged": int(judged.sum()),
            "log10 of mu in the end, largest": float(f"{lowest:.6g}"),
            "fitted exponent": [float(f"{v:.6g}") for v in exponent],
        },
        tolerance=f"{TOLERANCE} in log mu; 1e-3 in the exponent",
        reproduced=bool(
            error.max() < TOLERANCE and lowest < -100_000 and abs(exponent[0] - 3.0) < 1e-3
        ),
    )
