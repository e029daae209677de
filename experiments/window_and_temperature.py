"""Phase diagram of late rates: window of the mask and inverse temperature, against lambda_2.

Orthogonal value matrices turn tokens and keep their length, so near consensus deviations follow the
uniform walk P on the mask alone: mu falls like t^p |lambda_2(P)|^t, whatever the scores. The window
that looks one step back has the eigenvalue 1/2 in one Jordan block of all tokens but the first:
p = N - 2, and rates are fitted with that power. Without it the fit gives a larger factor, for
(1 + 1/t)^p / 2 per layer is above 1/2 for a long while.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import connectivity, masks
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "WU, arXiv 2405.18781, Theorem 1 and sections 4.1, 5: sparser masks and smaller scores slow "
    "rank collapse; here with the rate of late layers, lambda_2"
)

SETTINGS = {
    "smoke": {"window": [1, 2], "beta": [0.5, 4.0], "tokens": 8, "dim": 8, "samples": 2,
              "depth": 240, "seeds": 1, "workers": 1},
    "default": {"window": [1, 2, 4, 8, 15], "beta": "0.1:10:log7", "tokens": 24, "dim": 16,
                "samples": 4, "depth": 600, "seeds": 3, "workers": 2},
}  # fmt: skip
MASKS = ("local", "causal-local")
#: Tokens are near consensus in the end where mu / ||X|| is below this.
NEAR = 1e-3


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Late rates and the last mu / ||X||, (mask, window, beta, seed); facts, (mask, window)."""
    given = {name: value for name, value in settings.items() if name not in ("seeds", "workers")}
    given |= {"mask": list(MASKS), "value": "orthogonal", "norm": "unit",
              "seed": [seed + k for k in range(settings["seeds"])]}  # fmt: skip
    with TemporaryDirectory() as folder:
        found = dynsim.sweep(
            f"{folder}/store", given, keep=["ends", "rate"], workers=settings["workers"],
            progress=progress,
        )  # fmt: skip
        if "seed" not in found.dims:
            found = found.expand_dims(seed=[seed])
        order = ("mask", "window", "beta", "seed")
        end = found["end"].transpose(*order, "measure", "sample")
        share = end.sel(measure="mu") / end.sel(measure="frobenius_norm")
        rates = found["late_rate"].transpose(*order)
        data = {
            "window": found["window"].values,
            "beta": found["beta"].values,
            "tokens": np.array(settings["tokens"]),
            "rate": rates.values,
            "share": share.max("sample").values,
        }
    second = [
        [connectivity.lambda_2(masks.MASKS[name](settings["tokens"], window=int(w)))
         for w in data["window"]]
        for name in MASKS
    ]  # fmt: skip
    data["lambda_2"] = np.array([[one.value for one in row] for row in second])
    data["power"] = np.array([[one.power for one in row] for row in second])
    return data


def draw(data) -> Figure:
    """The rates of both masks, with lambda_2 above; the rates against it."""
    figure, (axes,) = style.panels(1, 3, height=2.7, extra=0.5)
    *maps, against = axes
    rate = np.nanmedian(data["rate"], axis=-1)
    low, high = np.nanmin([rate.min(), data["lambda_2"].min()]), 1.0
    ticks = np.arange(len(data["beta"]))
    for k, panel in enumerate(maps):
        image = panel.pcolormesh(rate[k].T, vmin=low, vmax=high, cmap="viridis", edgecolors="white")
        panel.set(title=MASKS[k], xlabel="window", ylim=(0, len(ticks) + 1.1))
        panel.set_xticks(np.arange(len(data["window"])) + 0.5, data["window"])
        panel.set_yticks(ticks + 0.5, [f"{b:.2g}" for b in data["beta"]])
        panel.grid(False)
        for w, (value, power) in enumerate(zip(data["lambda_2"][k], data["power"][k], strict=True)):
            words = f"{value:.3f}" + (f"\n$t^{{{power}}}$" if power else "")
            panel.text(w + 0.5, len(ticks) + 0.1, words, ha="center", va="bottom", fontsize=6.5)
    maps[0].set_ylabel("inverse temperature β")
    figure.colorbar(image, ax=maps, label="factor of mu per layer (above: lambda_2)")
    line = np.array([data["lambda_2"].min() - 0.02, 1.0])
    against.plot(line, line, color="0.6", linewidth=1.0)
    for k, name in enumerate(MASKS):
        near = (data["share"] < NEAR).all(axis=-1)
        x = np.broadcast_to(data["lambda_2"][k][:, None], rate[k].shape)
        colour = style.MASKS[name]
        against.scatter(x[near[k]], rate[k][near[k]], s=18, color=colour)
        against.scatter(x[~near[k]], rate[k][~near[k]], s=18, facecolors="none", edgecolors=colour)
        style.note(against, f"● {name}", 0.04, 0.96 - 0.08 * k, color=colour, fontsize=7)
    style.note(against, "○ still far from consensus", 0.04, 0.96 - 0.08 * len(MASKS), fontsize=7)
    against.set(xlabel="lambda_2 of the mask's walk", ylabel="late rate, fitted",
                title="against lambda_2")  # fmt: skip
    style.letters(axes)
    style.finding(
        figure,
        "Near consensus mu falls by lambda_2 of the mask's walk per layer, at every temperature"
        if claim(data).reproduced
        else "Late rates over window and inverse temperature",
    )
    return figure


def claim(data) -> Verdict:
    """Near consensus the rate is lambda_2 at every temperature; wider windows are faster."""
    near = data["share"] < NEAR
    wanted = np.broadcast_to(data["lambda_2"][..., None, None], data["rate"].shape)
    off = np.abs(data["rate"] - wanted)
    tolerance = np.maximum(0.02 * (1.0 - wanted), 1e-3)
    local = data["lambda_2"][MASKS.index("local")]
    faster = bool(np.all(np.diff(local) < 0))
    judged = off[near]
    return Verdict(
        statement="near consensus mu falls by lambda_2 of the mask's uniform walk per layer, at "
        "every temperature; of the two-sided windows wider ones are faster, of the one-sided ones "
        "all have 1/2, that of window 1 times t^(N - 2)",
        paper="Theorem 1 bounds mu by an exponential that gets worse with the mask's radius and "
        "with larger scores; how late layers go it does not say",
        measured={
            "cells near consensus in the end": f"{int(near.sum())} of {near.size}",
            "largest |rate - lambda_2| among them": float(judged.max()) if judged.size else None,
            "lambda_2 by window": {
                name: [f"{v:.4f}" for v in row]
                for name, row in zip(MASKS, data["lambda_2"].tolist(), strict=True)
            },
            "power of t by window": dict(zip(MASKS, data["power"].tolist(), strict=True)),
        },
        tolerance="2% of 1 - lambda_2, at least .001, in every cell near consensus (mu / ||X|| < "
        ".001), which are more than half",
        reproduced=bool(near.mean() > 0.5 and np.all(off[near] <= tolerance[near]) and faster),
    )
