"""Each layer of MiniLM by itself, iterated: which rank does a real layer keep, and how does it end?

The tokens of a text enter layer k as the model gives them, and this one layer is repeated: its
attention with skip connection and LayerNorm alone, and whole, with its MLP and second LayerNorm.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import basins, lyapunov, masks, measures, minilm
from dynsim.network.mlp import NoMLP
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "ours, on real weights: WU, arXiv 2405.18781, section 4.3, ask at which rank layers with "
    "LayerNorm end, for weights that are made for it"
)

EXTRAS = ("minilm",)
SETTINGS = {
    "smoke": {"layers": [0, 2], "tokens": 8, "samples": 1, "depth": 512, "averaged": 32,
              "drawn": 128},
    "default": {"layers": [0, 1, 2, 3, 4, 5], "tokens": 16, "samples": 2, "depth": 2048,
                "averaged": 400, "drawn": 512},
}  # fmt: skip
PARTS = ("attention and LayerNorm", "whole layer, with MLP")
#: Tokens nearer to each other than this share of their size are one cluster.
CLUSTER = 1e-3
#: mu / ||X|| above which tokens are far from consensus.
APART = 0.1
#: The highest rank that is claimed to be kept.
HIGHEST = 2
#: Of layers 0, 1, ...
COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.BLACK, style.PINK, style.SKY)
TEXT = Path(__file__).parents[1] / "LICENSE"


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """By layer, part and sample (L, 2, S): rank, kind, clusters and mu / ||X|| of the last state,
    the largest Lyapunov exponent of orbits that do not repeat with its error (else NaN), and the
    curves of mu / ||X||."""
    text, layers, n = TEXT.read_text(encoding="utf-8"), settings["layers"], settings["tokens"]
    shape = len(layers), len(PARTS), settings["samples"]
    found = {
        "layers": np.array(layers),
        "rank": np.zeros(shape, int),
        "kind": np.zeros(shape, "U16"),
        "clusters": np.zeros(shape, int),
        "relative_mu": np.zeros(shape),
        "exponent": np.full(shape, np.nan),
        "error": np.full(shape, np.nan),
        "curves": np.zeros((*shape, settings["drawn"] + 1)),
    }
    x, mask = minilm.embed(text, n, settings["samples"]), masks.complete(n)
    for k in range(minilm.N_LAYERS):
        whole = minilm.layer(k, mask)
        if k in layers:
            row = layers.index(k)
            for part, layer in enumerate((replace(whole, mlp=NoMLP()), whole)):
                for name, values in _limits(layer, x, settings).items():
                    found[name][row, part] = values
                progress((len(PARTS) * row + part + 1) / (len(PARTS) * len(layers)))
        x = dynsim.simulate(whole, x, 1).final
    return found


def _limits(layer, x, settings) -> dict[str, np.ndarray]:
    """Where one layer leads the tokens of each sample."""
    ends = basins.limit_sets(layer, x, depth=settings["depth"], exponents=0)
    exponent, error = np.full((2, len(x)), np.nan)
    kind = np.array([basins.TYPES[t] for t in ends.type], "U16")
    if not ends.settled.all():
        moving = ~ends.settled
        exponent[moving], error[moving] = lyapunov.largest_exponents(
            layer, ends.final[moving], settings["averaged"], discard=settings["averaged"] // 4
        )
        kind[moving] = [_kind(v, e) for v, e in zip(exponent[moving], error[moving], strict=True)]
    curve = dynsim.simulate(layer, x, settings["drawn"], record=dynsim.Record(measures=()))
    return {
        "rank": ends.rank,
        "kind": kind,
        "clusters": measures.clusters(ends.final, CLUSTER),
        "relative_mu": measures.mu(ends.final) / np.linalg.norm(ends.final, axis=(1, 2)),
        "exponent": exponent,
        "error": error,
        "curves": curve["mu"] / curve["frobenius_norm"],
    }


def _kind(exponent: float, error: float) -> str:
    """Of an orbit that does not repeat."""
    if exponent > error:
        return "chaotic"
    return "converging" if exponent < -error else "not decided"


def draw(data) -> Figure:
    """mu / ||X|| while one layer is repeated; what it ends at is written at the end of each."""
    figure, (panels,) = style.panels(1, 2, height=2.9, sharey=True)
    depth = np.arange(1, data["curves"].shape[-1])
    for part, (axes, title) in enumerate(zip(panels, PARTS, strict=True)):
        ends = []
        axes.set(
            xscale="log",
            yscale="log",
            title=title,
            xlabel="repetitions of the layer",
            ylim=(5e-9, 2.0),
            xlim=(1, depth[-1]),
        )
        for row, k in enumerate(data["layers"]):
            colour = COLOURS[row]
            curves = np.maximum(data["curves"][row, part, :, 1:], 1e-8)
            axes.plot(depth, curves.T, color=colour, linewidth=1)
            ends.append(
                (depth[-1], curves[:, -1].max(), f"layer {k}: {_end(data, row, part)}", colour)
            )
        style.label_ends(axes, ends)
    panels[0].set_ylabel("mu / ‖X‖  (10⁻⁸ stands for less)")
    style.letters(panels)
    style.finding(
        figure,
        "A real layer repeated keeps one or two clusters of tokens: no rank above 2"
        if claim(data).reproduced
        else "Layers of MiniLM by themselves, repeated",
    )
    return figure


def _end(data, row: int, part: int) -> str:
    """The rank of every sample and how it ends, once where they agree."""
    pairs = zip(data["rank"][row, part], data["kind"][row, part], strict=True)
    return "; ".join(dict.fromkeys(f"rank {rank}, {kind}" for rank, kind in pairs))


def claim(data) -> Verdict:
    """No rank above 2 anywhere, consensus for some layers, and two clusters for others."""
    consensus = (data["rank"] == 1) & (data["relative_mu"] < 1e-6)
    kept = (data["rank"] == HIGHEST) & (data["relative_mu"] > APART)
    several = kept & (data["clusters"] == HIGHEST)
    moving = np.isfinite(data["exponent"])
    return Verdict(
        statement="a layer of MiniLM repeated keeps no rank above 2: some lead to consensus, "
        "others hold two clusters of tokens apart for good",
        paper="no such experiment; WU (section 4.3) prove that LayerNorm can hold tokens apart, "
        "for value matrices made for it",
        measured={
            "limits by layer": {
                f"layer {k}, {part}": _end(data, row, column)
                for row, k in enumerate(data["layers"])
                for column, part in enumerate(PARTS)
            },
            "highest rank": int(data["rank"].max()),
            "orbits at consensus, in two clusters, of all": [
                int(consensus.sum()), int(several.sum()), int(consensus.size)
            ],
            "largest exponents of orbits that do not repeat, nats per layer": [
                f"{value:.3f} +- {error:.3f}"
                for value, error in zip(
                    data["exponent"][moving], data["error"][moving], strict=True
                )
            ],
        },
        tolerance=f"rank by sigma_k > {measures.spectrum.SETTLED_RTOL:g} sigma_1; consensus: mu "
        f"below 1e-6 of ||X||; two clusters: tokens equal to {CLUSTER:g}, mu above {APART:g}",
        reproduced=bool(
            data["rank"].max() <= HIGHEST and consensus.any() and several.any()
        ),
    )  # fmt: skip
