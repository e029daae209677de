"""Equilibria of every rank: WU's Jordan family, all of it, and which of it is stable.

For N = d = 2..7 the 2^k equilibria of rank k are constructed, checked and judged. For small N the
search is asked for everything there is, which is more than the family. As w grows the largest
multiplier of token k tends to 2 cos(pi / k) when the signs of last coordinates alternate.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from dynsim import equilibria
from dynsim.results import style
from experiments.record import Verdict

PAPER = "WU, arXiv 2405.18781, Theorem 3 and App. F: equilibria of every rank under the causal mask"

SETTINGS = {
    "smoke": {"largest": 4, "searched": 3, "starts": 8, "law": 4, "strengths": [20, 100]},
    "default": {"largest": 7, "searched": 5, "starts": 32, "law": 7,
                "strengths": [10, 20, 50, 100, 200]},
    "paper": {"largest": 7, "searched": 6, "starts": 64, "law": 7,
              "strengths": [10, 20, 50, 100, 200, 500]},
}  # fmt: skip
#: The first token of the law: 2 cos(pi / 3) = 1 drowns in the defective multiplier 1 beside it.
FIRST = 4


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """(N, rank) tables, -1 where there is none, and multipliers (w, token)."""
    largest = settings["largest"]
    shape = (largest + 1, largest + 1)
    count, searched = np.full(shape, -1), np.full(shape, -1)
    residual, radius, expanding = (np.full(shape, -1.0) for _ in range(3))
    for n in range(2, largest + 1):
        dynamics = equilibria.jordan_dynamics(n, n + 0.5)
        for rank in range(1, n + 1):
            family = equilibria.jordan_family(n, n + 0.5, rank)
            judged = [equilibria.stability(dynamics, x) for x in family]
            count[n, rank] = len(np.unique(family.round(9), axis=0))
            residual[n, rank] = max(np.abs(dynamics.step(x) - x).max() for x in family)
            radius[n, rank] = min(found.spectral_radius for found in judged)
            expanding[n, rank] = min(found.unstable_dimension for found in judged)
        if n <= settings["searched"]:
            search = equilibria.find_equilibria(
                dynamics, starts=settings["starts"], seed=seed, flips=False
            )
            for row in search.table():
                searched[n, row["rank"]] = row["found"]
        progress(n / (largest + 1))
    return {
        "family": count,
        "residual": residual,
        "smallest_radius": radius,
        "fewest_expanding": expanding,
        "searched": searched,
        "strengths": np.array(settings["strengths"], float),
        "largest_multiplier": _law(settings["law"], settings["strengths"]),
    }


def _law(n: int, strengths) -> np.ndarray:
    """(w, token): the largest modulus among the multipliers of each token, signs alternating."""
    found = np.empty((len(strengths), n))
    for row, w in zip(found, strengths, strict=True):
        family = equilibria.jordan_family(n, float(w), n)
        (x,) = [x for x in family[: len(family) // 2] if np.all(np.diff(np.sign(x[:, -1])))]
        judged = equilibria.stability(equilibria.jordan_dynamics(n, float(w)), x)
        row[:] = [np.abs(judged.multipliers[judged.token == k]).max() for k in range(n)]
    return found


def draw(data) -> Figure:
    """Counts by rank, the smallest spectral radius by rank, and the 2 cos(pi / k) law."""
    figure, ((counts, radii, law),) = style.panels(1, 3, height=2.3)
    sizes = range(2, len(data["family"]))
    tones = dict(zip(sizes, style.shades(style.BLUE, len(sizes)), strict=True))
    largest = max(sizes)
    ranks = np.arange(1, largest + 1)
    counts.plot(ranks, data["family"][largest, 1:], "o-", color="black")
    ends, lines = [], {}
    for n in sizes:
        searched = data["searched"][n, 1 : n + 1]
        more = np.flatnonzero(searched > data["family"][n, 1 : n + 1])
        if len(more):
            counts.plot(more + 1, searched[more], "*:", color=tones[n], markersize=6, linewidth=0.8)
            ends.append((more[-1] + 1, searched[more[-1]], f"N = {n}", tones[n]))
        (lines[f"N = {n}"],) = radii.plot(
            np.arange(1, n + 1), data["smallest_radius"][n, 1 : n + 1], "o-", color=tones[n]
        )
    counts.set(
        yscale="log",
        xlabel="rank k",
        ylabel="equilibria",
        ylim=(1.5, None),
        xticks=ranks,
        title="●: the family; ★: all found",
    )
    style.label_ends(counts, ends)
    counts.annotate("2ᵏ, for every N", (0.72 * largest, 2 ** (0.6 * largest)), fontsize=7)
    radii.set(
        xlabel="rank k",
        ylabel="smallest spectral radius",
        xticks=ranks,
        ylim=(0.9, None),
        title="none below 1 (w = N + 1/2)",
    )
    radii.axhline(1, color="0.4", linewidth=0.8, linestyle=(0, (2, 2)))
    style.name_lines(radii, _without_equal_ends(lines), room=0.2)
    tokens = np.arange(FIRST, data["largest_multiplier"].shape[1] + 1)
    named = {}
    for k, colour in zip(tokens, style.shades(style.VERMILION, len(tokens)), strict=True):
        away = np.abs(data["largest_multiplier"][:, k - 1] - 2 * np.cos(np.pi / k))
        (named[f"token {k}"],) = law.plot(data["strengths"], away, "o-", color=colour)
    w = data["strengths"][[0, -1]]
    law.plot(w, w**-2.0, color="0.4", linewidth=0.8, linestyle=(0, (2, 2)))
    law.set(
        xscale="log",
        yscale="log",
        xlabel="w",
        ylabel="largest multiplier − 2 cos(π/k)",
        title="the law, error below w⁻²",
    )
    style.name_lines(law, named, room=0.28)
    for axis in (counts.yaxis, law.xaxis, law.yaxis):
        axis.set_minor_formatter(NullFormatter())
    style.letters((counts, radii, law))
    style.finding(
        figure,
        "WU's family has 2ᵏ equilibria of rank k, from N = 4 on saddles for every k > 1, whose "
        "largest multipliers tend to 2 cos(π/k)"
        if claim(data).reproduced
        else "WU's family of equilibria: numbers, spectral radii and multipliers",
    )
    return figure


def _without_equal_ends(lines):
    """Lines that lie on each other share one name."""
    shared = {}
    for name, line in lines.items():
        shared.setdefault(round(float(line.get_ydata()[-1]), 3), []).append((name, line))
    return {
        (names[0][0] if len(names) == 1 else f"N = {', '.join(n[4:] for n, _ in names)}"): (
            names[-1][1]
        )
        for names in shared.values()
    }


def claim(data) -> Verdict:
    """2^k of each rank, residuals of rounding, none stable, and the law to order 1 / w^2."""
    family = data["family"]
    sizes = range(2, len(family))
    counted = all(family[n, k] == 2**k for n in sizes for k in range(1, n + 1))
    residual = float(data["residual"].max())
    saddles = all(
        data["fewest_expanding"][n, k] > 0 for n in sizes if n >= 4 for k in range(2, n + 1)
    )
    tokens = np.arange(FIRST, data["largest_multiplier"].shape[1] + 1)
    away = np.abs(data["largest_multiplier"][:, FIRST - 1 :] - 2 * np.cos(np.pi / tokens))
    scaled = float((away * data["strengths"][:, None] ** 2).max())
    every = {
        f"N = {n}": data["searched"][n, 1 : n + 1].tolist() for n in sizes
        if np.any(data["searched"][n] > 0)
    }  # fmt: skip
    return Verdict(
        statement="2^k equilibria of every rank k, exact to rounding; from N = 4 on every one of "
        "rank 2 or more has an expanding direction; the largest multiplier of token k tends to "
        "2 cos(pi / k)",
        paper="App. F: 2^k equilibria of rank k for every k = 1..N, when w >= N; stability is not "
        "discussed there",
        measured={
            "largest residual": residual,
            "all equilibria found, by rank": every,
            "w^2 |largest multiplier - 2 cos(pi/k)|, at most": scaled,
        },
        tolerance="residual 1e-15; deviations below 1 / w^2, tokens 4 and later",
        reproduced=bool(counted and residual <= 1e-15 and saddles and scaled < 1),
    )
