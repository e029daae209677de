"""Phase diagram of the limit: weight of the skip connection and placement of the norm.

The complete mask and orthogonal value matrices, fresh in every layer. Near consensus all tokens are
c, attention is uniform and gives every token the same, so deviations pass through the skip
connection alone, Z' = alpha Z, and are then scaled as the norm scales c:

    post: c' = N(alpha c + c W), and |alpha c + c W| is sqrt(1 + alpha^2) |c| for random W in many
          dimensions: mu falls by alpha / sqrt(1 + alpha^2) per layer, for every alpha
    pre, peri: nothing scales what the skip carries: mu goes by alpha. Tokens grow by alpha too
          where alpha > 1: they stay as far from consensus, against their size, as they were. At
          alpha = 1 tokens grow like sqrt(t): mu / ||X|| falls like 1 / sqrt(t).
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "DONG, arXiv 2103.03404, section 3 (skip connections keep attention from collapse), and WU, "
    "arXiv 2405.18781 (LayerNorm alone need not); here skip and placement together"
)

SETTINGS = {
    "smoke": {"skip": [0.5, 1.0, 1.5], "tokens": 6, "dim": 24, "samples": 2, "depth": 160,
              "seeds": 1, "workers": 1},
    "default": {"skip": [0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0], "tokens": 12,
                "dim": 48, "samples": 4, "depth": 400, "seeds": 3, "workers": 2},
}  # fmt: skip
PLACEMENTS = ("post", "pre", "peri")
COLORS = {"post": style.BLUE, "pre": style.VERMILION, "peri": style.GREEN}
MARKERS = {"post": "o", "pre": "s", "peri": "D"}
#: mu / ||X|| below which tokens are at consensus.
COLLAPSED = 1e-4


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Late rates and the last mu / ||X||, (placement, skip, seed)."""
    given = {name: value for name, value in settings.items() if name not in ("seeds", "workers")}
    given |= {"placement": list(PLACEMENTS), "value": "orthogonal", "norm": "layernorm",
              "seed": [seed + k for k in range(settings["seeds"])]}  # fmt: skip
    order = ("placement", "skip", "seed")
    with TemporaryDirectory() as folder:
        found = dynsim.sweep(
            f"{folder}/store", given, keep=["ends", "rate", "verdict"],
            workers=settings["workers"], progress=progress,
        )  # fmt: skip
        if "seed" not in found.dims:
            found = found.expand_dims(seed=[seed])
        end = found["end"].transpose(*order, "measure", "sample")
        share = end.sel(measure="mu") / end.sel(measure="frobenius_norm")
        return {
            "skip": found["skip"].values,
            "depth": np.array(settings["depth"]),
            "rate": found["late_rate"].transpose(*order).values,
            "law": found["law"].transpose(*order).values.astype("U24"),
            "verdict": found["verdict"].transpose(*order).values.astype("U24"),
            "share": share.median("sample").values,
        }


def expected(placement: str, skip: np.ndarray) -> np.ndarray:
    """The factor of mu per layer, relative to tokens of constant length."""
    return skip / np.sqrt(1.0 + skip**2) if placement == "post" else skip


def draw(data) -> Figure:
    """Left: the factor of mu per layer. Right: how far from consensus tokens end."""
    figure, ((rates, ends),) = style.panels(1, 2, height=2.7)
    skip = data["skip"]
    fine = np.linspace(skip.min(), skip.max(), 200)
    for name in ("post", "pre"):
        shown = fine[fine <= (skip.max() if name == "post" else 1.0)]
        rates.plot(shown, expected(name, shown), color=COLORS[name], linewidth=1.0)
    for k, name in enumerate(PLACEMENTS):
        look = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": "none"}
        look |= {"markersize": 7 - 2 * k, "markerfacecolor": "white"}
        falls = skip if name == "post" else np.where(skip < 1.0, skip, np.nan)
        middle = np.median(data["rate"][k], axis=-1)
        shown = np.isfinite(middle) & np.isfinite(falls)
        rates.plot(skip[shown], middle[shown], **look)
        ends.plot(skip, np.maximum(np.median(data["share"][k], axis=-1), 1e-16), **look)
        mark = {"o": "○", "s": "□", "D": "◇"}[MARKERS[name]]
        style.note(rates, f"{mark} {name}", 0.97, 0.05 + 0.08 * (2 - k), color=COLORS[name],
                   fontsize=7)  # fmt: skip
    right = skip.max()
    rates.text(
        right, expected("post", right) - 0.04, r"$\alpha / \sqrt{1 + \alpha^2}$", ha="right",
        va="top", color=COLORS["post"],
    )  # fmt: skip
    rates.text(0.68, 0.76, r"$\alpha$", ha="right", color=COLORS["pre"])
    rates.set(xlabel="weight of the skip connection α", ylabel="factor of mu per layer",
              title="late rate where mu falls", ylim=(0.0, 1.05))  # fmt: skip
    ends.axhline(COLLAPSED, color="0.6", linestyle=":")
    style.note(ends, "consensus below", 0.97, 0.70)
    ends.set(xlabel="weight of the skip connection α", yscale="log", ylim=(2e-17, 10.0),
             ylabel="mu / ||X||, at least 1e-16",
             title=f"after {int(data['depth'])} layers")  # fmt: skip
    style.letters((rates, ends))
    style.finding(
        figure,
        "A norm after the skip connection lets tokens collapse whatever its weight; a norm in the "
        "branch only where the weight is below 1"
        if claim(data).reproduced
        else "Late rates and ends over skip connection and placement of the norm",
    )
    return figure


def claim(data) -> Verdict:
    """The closed forms, and where tokens end."""
    skip, share = data["skip"], np.median(data["share"], axis=-1)
    middle = np.median(data["rate"], axis=-1)
    post, *others = range(len(PLACEMENTS))
    falls = {post: (skip > 0, 0.03), **dict.fromkeys(others, ((skip > 0) & (skip < 1), 2e-3))}
    off = {
        PLACEMENTS[k]: float(np.abs(middle[k] - expected(PLACEMENTS[k], skip))[where].max())
        for k, (where, _) in falls.items()
    }
    rates = all(off[PLACEMENTS[k]] <= tolerance for k, (_, tolerance) in falls.items())
    collapse = share[post].max() < COLLAPSED and share[others][:, skip < 1.0].max() < COLLAPSED
    stays = share[others][:, skip > 1.0].min() > 0.05
    return Verdict(
        statement="post-norm layers collapse at every weight of the skip connection, by alpha / "
        "sqrt(1 + alpha^2) per layer; pre- and peri-norm layers by alpha, and not above alpha = 1",
        paper="DONG: skip connections play a key role in mitigating rank collapse (their networks "
        "have no norm); WU: LayerNorm alone need not prevent it; neither says by how much",
        measured={
            "largest |rate - expected| where mu falls": off,
            "mu / ||X|| in the end, by alpha": {
                name: {f"{a:g}": float(f"{v:.3g}") for a, v in zip(skip, row, strict=True)}
                for name, row in zip(PLACEMENTS, share, strict=True)
            },
        },
        tolerance="rates within .03 (post, which holds in many dimensions) and .002; consensus is "
        "mu / ||X|| < 1e-4, above alpha = 1 it is more than .05",
        reproduced=bool(rates and collapse and stays),
    )
