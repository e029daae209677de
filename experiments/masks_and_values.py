"""Phase diagram of limit ranks: the mask and the family of value matrices, by basins.

Uniform attention (M = 0), unit norm, one layer iterated: the share of random starts that end at
each rank. WU prove consensus for orthogonal W_V under strongly connected masks (Theorem 2), and
that a causal layer with a Jordan block as W_V has equilibria of higher rank (Theorem 3, App. F).
How much of the space of starts leads to those is measured.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim.results import style
from experiments.record import Verdict

PAPER = "WU, arXiv 2405.18781, Theorems 2 and 3, section 4.3.1 and App. F"

SETTINGS = {
    "smoke": {"mask": ["complete", "causal-local"], "value": ["orthogonal", "jordan:2"],
              "starts": 200, "depth": 1024, "exponents": 2, "seeds": 1, "workers": 1},
    "default": {"mask": ["complete", "local", "star", "causal", "causal-local"],
                "value": ["identity", "orthogonal", "gaussian", "jordan:1.25", "jordan:2",
                          "jordan:5"],
                "starts": 1500, "depth": 4096, "exponents": 16, "seeds": 3, "workers": 2},
}  # fmt: skip
TOKENS = 3
#: Masks under which a token attends to earlier ones alone.
CAUSAL = ("causal", "causal-local")
COLORS = (style.BLACK, "#BBBBBB", "#B35C00", style.GREEN)


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Shares of starts by rank, and bounds of 95% of the share above rank one: (mask, value, seed);
    the type in which most end."""
    given = {name: value for name, value in settings.items() if name not in ("seeds", "workers")}
    given |= {"tokens": TOKENS, "seed": [seed + k for k in range(settings["seeds"])]}
    order = ("mask", "value", "seed")
    with TemporaryDirectory() as folder:
        found = dynsim.sweep(
            f"{folder}/store", given, cell="basins", workers=settings["workers"], progress=progress
        )
        if "seed" not in found.dims:
            found = found.expand_dims(seed=[seed])
        share = found["share"].sum("type").transpose(*order, "rank")
        return {
            "mask": found["mask"].values.astype("U24"),
            "value": found["value"].values.astype("U24"),
            "starts": np.array(settings["starts"]),
            "share": share.values,
            "type": found["verdict"].transpose(*order).values.astype("U24"),
        }


def draw(data) -> Figure:
    """For every mask and family a bar of the shares, in the middle over seeds."""
    masks, values, share = data["mask"], data["value"], data["share"].mean(axis=2)
    figure, ((axes,),) = style.panels(1, 1, height=0.6 + 0.38 * len(masks), extra=0.5)
    for m in range(len(masks)):
        for v in range(len(values)):
            left = v + 0.05
            for rank in range(share.shape[-1]):
                width = 0.9 * share[m, v, rank]
                axes.barh(m, width, left=left, height=0.5, color=COLORS[rank])
                left += width
            above = share[m, v, 2:].sum()
            if above:
                axes.text(v + 0.95, m - 0.28, f"{100 * above:.2g}%", ha="right", va="bottom",
                          fontsize=7, color=COLORS[2])  # fmt: skip
    for rank in np.flatnonzero(share.any(axis=(0, 1))):
        axes.barh(0, 0, color=COLORS[rank], label=f"rank {rank}")
    axes.set_xticks(np.arange(len(values)) + 0.5, values)
    axes.set_yticks(range(len(masks)), masks)
    axes.set(xlim=(0, len(values)), ylim=(-0.6, len(masks) - 0.2), xlabel="value matrix")
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    figure.legend(ncols=3, loc="outside lower right")
    style.finding(
        figure,
        f"Where random starts of {TOKENS} tokens end: rank 2 survives only under causal masks with "
        f"Jordan values"
        if claim(data).reproduced
        else f"Where random starts of {TOKENS} tokens end",
    )
    return figure


def claim(data) -> Verdict:
    """Rank one for orthogonal matrices under every mask; more under causal ones with Jordan's."""
    above = data["share"][..., 2:].sum(axis=-1)
    turning = np.isin(data["value"], ("identity", "orthogonal"))
    jordan = np.char.startswith(data["value"], "jordan")
    causal = np.isin(data["mask"], CAUSAL)
    where = above[np.ix_(causal, jordan)]
    elsewhere = above[~causal]
    whole = np.abs(data["share"].sum(axis=-1) - 1.0).max() < 1e-9
    return Verdict(
        statement="with orthogonal W_V all random starts end at rank one, under every mask; with a "
        "Jordan block as W_V under a causal mask a share of them keeps a higher rank",
        paper="Theorem 2: orthogonal W_V collapses (under strongly connected masks); Theorem 3: a "
        "causal layer with a Jordan block has equilibria of every rank; no shares are given",
        measured={
            "share of starts above rank one, by mask and W_V": {
                str(m): {
                    str(v): round(float(s), 4)
                    for v, s in zip(data["value"], row.mean(axis=-1), strict=True)
                }
                for m, row in zip(data["mask"], above, strict=True)
            },
            "starts a cell": int(data["starts"]),
        },
        tolerance="no start above rank one with orthogonal W_V, nor under a mask that is not "
        "causal; some in every seed under causal-local with jordan:2",
        reproduced=bool(
            whole
            and not above[:, turning].any()
            and not elsewhere.any()
            and where.size
            and (above[data["mask"] == "causal-local"][:, data["value"] == "jordan:2"] > 0).all()
        ),
    )
