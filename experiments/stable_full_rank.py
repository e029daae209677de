"""Asymptotically stable full-rank equilibria under undirected masks: the open question answered.

WU's App. F.4 asks whether it matters that the masks of their examples are directed: does a similar
equilibrium exist under undirected ones? They "conjecture a negative answer". That may be read as no
to the second question (there are none), or as no to the first (directions do not matter). What is
found here is against the first reading and for the second. Designing W_V for wanted tokens and
minimising the spectral radius over tokens, scores and norms gives stable ones under the complete,
the window and random undirected masks, and with more tokens than dimensions. What they withstand is
measured, and how rarely random starts get there: a stable equilibrium may have a small basin.
"""

from __future__ import annotations

import json

import networkx as nx
import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import basins, equilibria, masks
from dynsim.results import style
from experiments.record import Verdict

PAPER = "WU, arXiv 2405.18781, App. F.4: full-rank equilibria under undirected masks (open there)"

EXTRAS = ("torch", "certify")
#: Cases (mask, N, d, rank).
SETTINGS = {
    "smoke": {"cases": [("complete", 3, 2, 2)], "tries": 4, "steps": 300, "samples": 16,
              "starts": 100},
    "default": {
        "cases": [
            ("complete", 2, 2, 2), ("complete", 3, 3, 3), ("complete", 4, 4, 4),
            ("complete", 5, 5, 5), ("complete", 6, 6, 6), ("complete", 5, 3, 3),
            ("local", 4, 4, 4), ("random", 5, 5, 5), ("complete", 4, 4, 2), ("complete", 4, 4, 3),
        ],
        "tries": 24, "steps": 500, "samples": 64, "starts": 10_000,
    },
    "paper": {
        "cases": [("complete", n, n, n) for n in range(2, 9)]
        + [("complete", 8, 4, 4), ("local", 6, 6, 6), ("random", 6, 6, 6)],
        "tries": 40, "steps": 1000, "samples": 256, "starts": 100_000,
    },
}  # fmt: skip
DEPTH = 2000


def mask_of(name: str, n: int, seed: int) -> nx.DiGraph:
    """A named mask; "random" is undirected and connected, with self-loops."""
    if name != "random":
        return masks.MASKS[name](n)
    graph = nx.gnp_random_graph(n, 0.6, seed=seed)
    nx.add_path(graph, range(n))
    graph = nx.DiGraph(graph)
    graph.add_edges_from((i, i) for i in range(n))
    return graph


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """One row a case, the weights and tokens that were found, and distances by depth."""
    rows, saved = [], {}
    cases = settings["cases"]
    for k, (name, n, d, rank) in enumerate(cases):
        found = equilibria.stabilise(
            mask_of(name, n, seed), d, rank, tries=settings["tries"], steps=settings["steps"],
            seed=seed,
        )  # fmt: skip
        grown = equilibria.transient(found.dynamics, found.tokens)
        radius = equilibria.basin_radius(
            found.dynamics, found.tokens, samples=settings["samples"], depth=DEPTH, seed=seed
        )
        rows.append(
            [
                found.stability.spectral_radius, found.stability.unstable_dimension,
                found.stability.marginal_dimension,
                np.linalg.svd(found.tokens, compute_uv=False)[rank - 1],
                np.abs(found.dynamics.step(found.tokens) - found.tokens).max(), grown.growth,
                grown.kreiss, radius,
            ]
        )  # fmt: skip
        layer = found.dynamics.weights.layer(0, d)
        saved |= {
            f"tokens_{k}": found.tokens, f"M_{k}": layer.M[0], f"W_V_{k}": layer.W_V[0],
            f"allowed_{k}": found.dynamics.allowed(),
            f"return_{k}": _return(found, max(radius, 1e-8), seed),
            f"ends_{k}": _ends(found, settings["starts"], seed),
            f"certificate_{k}": np.array(_certificate(found)),
        }  # fmt: skip
        progress((k + 1) / len(cases))
    return {"cases": np.array([f"{c[0]} N={c[1]} d={c[2]} rank {c[3]}" for c in cases]),
            "rows": np.array(rows), **saved}  # fmt: skip


def _return(found, radius: float, seed: int) -> np.ndarray:
    """Distance to the equilibrium by depth from a state `radius` away."""
    start = equilibria.perturbed(found.dynamics, found.tokens, radius, 1, seed)
    run = dynsim.simulate(found.dynamics, start, 400, record=dynsim.Record(measures=(), states=1))
    return np.linalg.norm(run.states[0] - found.tokens, axis=(1, 2))


def _ends(found, starts: int, seed: int) -> np.ndarray:
    """Shares of random starts by the rank of their limit set, ranks 0, 1, ..., min(N, d)."""
    ended = basins.basins(found.dynamics, starts, seed=seed, depth=DEPTH)
    return np.array([ended.share(rank) for rank in range(min(found.tokens.shape) + 1)])


def _certificate(found) -> str:
    """As JSON, "" where no proof comes out."""
    try:
        return json.dumps(equilibria.certify(found.dynamics, found.tokens))
    except ValueError:
        return ""


def draw(data) -> Figure:
    """A row a case: how stable, how far from singular, from how far it returns and how fast, and
    which share of random starts finds a rank above one."""
    names, rows = data["cases"].tolist(), data["rows"]
    above = np.array([data[f"ends_{k}"][2:].sum() for k in range(len(names))])
    figure, ((radii, radius, found, ways),) = style.panels(
        1, 4, height=0.75 + 0.22 * len(names), extra=0.45, sharey=True, width_ratios=(3, 2, 2, 3.4)
    )
    at = np.arange(len(names))
    colours = [style.MASKS[name.split()[0]] for name in names]
    radii.hlines(at, 0, rows[:, 0], color="0.85", linewidth=1)
    radii.scatter(rows[:, 3], at, marker="D", facecolors="white", edgecolors=colours, s=16)
    radii.scatter(rows[:, 0], at, marker="o", color=colours, s=18, zorder=3)
    radii.axvline(1, color="0.4", linewidth=0.8, linestyle=(0, (2, 2)))
    radii.set(
        xlim=(0, 1.05),
        xticks=(0, 0.5, 1),
        xlabel="● spectral radius\n◇ least singular value",
        title="stable below 1",
    )
    radius.scatter(rows[:, 7], at, marker="o", color=colours, s=18)
    radius.set(
        xscale="log",
        xlim=(1e-3, 0.3),
        xlabel="distance, all\n64 starts return",
        title="basin radius",
    )
    shown = np.maximum(100 * above, 0.004)
    found.scatter(
        shown,
        at,
        marker="o",
        s=18,
        edgecolors=colours,
        facecolors=[c if a else "white" for c, a in zip(colours, above, strict=True)],
    )
    found.set(
        xscale="log",
        xlim=(0.002, 20),
        xlabel="% of 10,000\nstarts (○: none)",
        title="above rank 1",
    )
    found.set_xticks([0.004, 0.1, 10], ["0", "0.1", "10"])
    found.minorticks_off()
    deepest = 16.0
    for k, colour in enumerate(colours):
        fall = np.log10(np.maximum(data[f"return_{k}"], 1e-17)) / deepest
        ways.plot(k - 0.42 - 0.84 * fall, color=colour, linewidth=1)
        ways.axhline(k + 0.5, color="0.85", linewidth=0.4)
    ways.grid(False)
    ways.set(
        xlabel="depth (layers); distance from\n1 (top) to 10⁻¹⁶ (bottom)",
        title="the way back",
    )
    radii.set_yticks(at, [name.replace("N=", "N = ").replace("d=", "d = ") for name in names])
    radii.set_ylim(len(names) - 0.5, -0.5)
    for axes in (radii, radius, found):
        axes.grid(False, axis="y")
    style.letters((radii, radius, found, ways))
    style.finding(
        figure,
        "Undirected masks have stable equilibria of full rank, which random starts hardly ever find"
        if claim(data).reproduced
        else "Equilibria of full rank under undirected masks, not all of them shown to be stable",
    )
    return figure


def claim(data) -> Verdict:
    """All cases are stable equilibria of their rank that return from a ball."""
    radius, out, marginal, smallest, residual, growth, kreiss, basin = data["rows"].T
    measured = {
        str(name): {
            "spectral radius": round(float(radius[k]), 4),
            "smallest singular value": round(float(smallest[k]), 3),
            "residual": float(residual[k]),
            "max ||J^k||": round(float(growth[k]), 2),
            "Kreiss constant": round(float(kreiss[k]), 2),
            "all samples return from": float(f"{basin[k]:.2g}"),
            "random starts by the rank they end at": data[f"ends_{k}"].round(4).tolist()[1:],
            "certified": bool(data[f"certificate_{k}"]),
        }
        for k, name in enumerate(data["cases"])
    }
    reached = [float(data[f"ends_{k}"][-1]) for k in range(len(data["cases"]))]
    return Verdict(
        statement="asymptotically stable equilibria of full rank exist under undirected masks, "
        "complete ones among them, and attract a ball of measured radius; of random starts a share "
        f"of {min(reached):.2g} to {max(reached):.2g} ends at the highest rank, by case (measured)",
        paper="App. F.4 leaves it open and conjectures 'a negative answer': that such equilibria "
        "do not exist under undirected masks, which this refutes; or that directions do not "
        "matter, which this supports",
        measured=measured,
        tolerance="residual 1e-12, every multiplier inside the unit circle by more than its error, "
        "and proved to be in ball arithmetic",
        reproduced=bool(
            np.all(out == 0) and np.all(marginal == 0) and np.all(residual < 1e-12)
            and np.all(smallest > 0.05) and np.all(basin > 1e-6)
            and all(entry["certified"] for entry in measured.values())
        ),
    )  # fmt: skip
