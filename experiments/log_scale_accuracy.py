"""How exact log mu is below the floating-point floor: the log-scale engine against many digits.

Every family of masks, norms, kinds of W_V, shared and fresh weights, and a few placements, skips
and heads; and the cubic law of the complete mask to 10^-100000.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import masks, norms, tokens, weights
from dynsim.results import style
from experiments.digits import Layer, log_mu
from experiments.record import Verdict

PAPER = (
    "DONG, arXiv 2103.03404, Thm 2.2 (collapse at a cubic rate); WU, arXiv 2405.18781, Thm 1 and 2 "
    "(rates under masks): neither is followed below the floating-point floor there"
)

EXTRAS = ("theory",)
SETTINGS = {
    "smoke": {"tokens": 4, "dim": 3, "depth": 30, "masks": ("complete", "causal-local")},
    "default": {"tokens": 8, "dim": 4, "depth": 200, "masks": tuple(masks.MASKS)},
}

#: Layers after which the complete mask without skip is at 10^-1000 or so.
COMPLETE_DEPTH = 7
TOLERANCE, CUBIC_TOLERANCE = 1e-9, 1e-6
NORMS = ("none", "unit", "layernorm")
VALUES = {"gaussian": weights.Gaussian(), "orthogonal": weights.Orthogonal()}
#: Beside post placement without skip, with one head: norm, placement, skip, heads.
VARIANTS = (
    ("rms", "post", 0.5, 1),
    ("layernorm", "pre", 1.0, 2),
    ("unit", "peri", 0.5, 1),
)


def cases(settings: dict) -> dict[str, tuple]:
    """Label -> (mask, norm, value, shared, placement, skip, heads)."""
    unique = {name for name in settings["masks"] if name != "global"}
    plain = [(norm, "post", 0.0, 1) for norm in NORMS]
    found = {}
    for mask in sorted(unique):
        for variant, value, shared in product(plain + list(VARIANTS), VALUES, (True, False)):
            if variant in VARIANTS and (value, shared) != ("gaussian", False):
                continue
            norm, *rest = variant
            words = (mask, norm, value, "shared" if shared else "fresh", *map(str, rest))
            found[" ".join(words)] = (mask, norm, value, shared, *rest)
    return found


def problem(case: tuple, settings: dict, seed: int):
    """The dynamics, the tokens (N, d), and the layers from their definition."""
    mask, norm, value, shared, placement, skip, heads = case
    n, d, depth = settings["tokens"], settings["dim"], settings["depth"]
    if mask == "complete" and not skip:
        depth = COMPLETE_DEPTH
    heads = heads if d % heads == 0 else 1
    rng = np.random.default_rng(seed)
    gain, bias = 1.0 + 0.2 * rng.standard_normal(d), 0.1 * rng.standard_normal(d)
    norm_of = {
        "none": norms.NoNorm(),
        "unit": norms.Unit(),
        "rms": norms.RMSNorm(gain, eps=0.0),
        "layernorm": norms.LayerNorm(gain, bias, eps=1e-5),
    }
    network = weights.Weights(weights.Gaussian(), VALUES[value], heads, shared=shared, seed=seed)
    dynamics = dynsim.AttentionDynamics(
        masks.MASKS[mask](n), network, norm_of[norm], placement, skip
    )
    formula = {"norm": norm, "placement": placement, "skip": skip}
    if norm in ("rms", "layernorm"):
        formula |= {"gain": tuple(gain)}
    if norm == "layernorm":
        formula |= {"bias": tuple(bias), "eps": 1e-5}
    drawn = (network.layer(t, d) for t in range(depth))
    layers = [
        Layer(list(zip(layer.M, layer.W_V, strict=True)), dynamics.allowed(), **formula)
        for layer in drawn
    ]
    return dynamics, tokens.sphere(1, n, d, seed)[0], layers


def measured(dynamics, x0, depth: int, engine: str) -> np.ndarray:
    """Natural logarithm of mu by depth."""
    run = dynsim.simulate(dynamics, x0, depth, engine=engine, record=dynsim.Record(measures=()))
    return run["log10_mu"][0] * np.log(10.0)


def cubic_law(seed: int, n: int = 5, d: int = 3, deepest: float = -1e5):
    """log s by layer under the complete mask with W_V = I, until s is below 10^deepest.

    And what it should be, 3 log s + log ||Z M Z^T Z / N|| of the layer before.
    """
    M = np.random.default_rng(seed).standard_normal((d, d))
    dynamics = dynsim.AttentionDynamics(masks.complete(n), weights.Fixed(M, np.eye(d)))
    state, found, expected = tokens.sphere(1, n, d, seed), [], []
    while not found or found[-1] > deepest * np.log(10.0):
        run = dynsim.simulate(dynamics, state, 1, engine="logscale")
        state = run.state
        found.append(state.log_mu[0])
        Z = state.shape[0] - state.shape[0].mean(axis=0)
        Z = Z / np.linalg.norm(Z)
        expected.append(3.0 * found[-1] + np.log(np.linalg.norm(Z @ M @ Z.T @ Z / n)))
    return np.array(found[1:]), np.array(expected[:-1])


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """ln mu by case and depth: exact, by the log-scale engine, and in plain double precision.

    Cases of fewer layers than others are filled up with zeros.
    """
    chosen = cases(settings)
    shape = (len(chosen), settings["depth"] + 1)
    found = {name: np.zeros(shape) for name in ("exact", "logscale", "numba")}
    found["layers"] = np.zeros(len(chosen), np.int64)
    for k, case in enumerate(chosen.values()):
        dynamics, x0, layers = problem(case, settings, seed)
        found["exact"][k, : len(layers) + 1] = log_mu(x0, layers)
        for engine in ("logscale", "numba"):
            found[engine][k, : len(layers) + 1] = measured(dynamics, x0, len(layers), engine)
        found["layers"][k] = len(layers)
        progress((k + 1) / len(chosen))
    found["case"] = np.array(list(chosen))
    found["cubic"], found["cubic_expected"] = cubic_law(seed)
    return found


def errors(data, engine: str) -> np.ndarray:
    """|error| of ln mu over max(1, |ln mu|), (cases, depths)."""
    return np.abs(data[engine] - data["exact"]) / np.maximum(1.0, np.abs(data["exact"]))


def draw(data) -> Figure:
    """log10 mu of a few cases, exact and as computed; the errors of all of them as quantiles."""
    figure, ((curves, wrong, cubic),) = style.panels(1, 3, height=2.4)
    _draw_curves(curves, data)
    _draw_errors(wrong, data)
    _draw_cubic(cubic, data)
    style.letters((curves, wrong, cubic))
    worst = errors(data, "logscale").max()
    style.finding(
        figure,
        f"The log-scale engine follows mu far below the floor of double precision, its logarithm "
        f"to a relative error of {worst:.0e}"
        if claim(data).reproduced
        else "Errors of log mu, by the log-scale engine and in double precision",
    )
    return figure


def _draw_curves(axes, data) -> None:
    """Cases between the slowest and the fastest collapse, a tenth of them apart."""
    deep = np.flatnonzero(data["layers"] == data["layers"].max())
    order = deep[np.argsort(data["exact"][deep, -1])]
    for k in order[np.linspace(0, len(order) - 1, 9).astype(int)]:
        exact, plain, ours = (data[n][k] / np.log(10.0) for n in ("exact", "numba", "logscale"))
        axes.plot(exact, color="0.75", linewidth=3)
        axes.plot(plain, color=style.VERMILION, linewidth=1)
        axes.plot(ours, color=style.BLUE, linewidth=1, linestyle="--")
    depth = data["exact"].shape[1] - 1
    axes.set(
        xlabel="depth (layers)",
        ylabel="log₁₀ mu",
        ylim=(-100, 8),
        xlim=(0, depth),
        title="nine of the cases",
    )
    words = (
        ("60 digits and more", "0.55"),
        ("log-scale engine", style.BLUE),
        ("double precision: stops at rounding", style.VERMILION),
    )
    for k, (text, colour) in enumerate(words):
        axes.annotate(
            text,
            (0.04, 0.21 - 0.075 * k),
            xycoords="axes fraction",
            fontsize=6.5,
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.8},
        )


def _draw_errors(axes, data) -> None:
    """Median, 5 to 95% and the largest of all cases with so many layers."""
    deep = data["layers"] == data["layers"].max()
    ends = []
    for name, colour, label in (
        ("numba", style.VERMILION, "double\nprecision"),
        ("logscale", style.BLUE, "log-scale\nengine"),
    ):
        rows = np.clip(errors(data, name)[deep], 1e-17, 1e3)  # where mu is 0: infinite
        low, middle, high = np.percentile(rows, [5, 50, 95], axis=0)
        depth = np.arange(rows.shape[1])
        axes.fill_between(depth, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(depth, middle, color=colour)
        axes.plot(depth, rows.max(axis=0), color=colour, linewidth=0.7, linestyle=":")
        ends.append((depth[-1], middle[-1], label, colour))
    axes.axhline(TOLERANCE, color="0.4", linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set(
        yscale="log",
        xlabel="depth (layers); line: median,\nband: 5 to 95%, dots: largest",
        ylabel="relative error of log mu",
        ylim=(1e-17, 30),
        xlim=(0, depth[-1]),
        title=f"{np.sum(deep)} cases",
    )
    style.label_ends(axes, ends)


def _draw_cubic(axes, data) -> None:
    """Minus log10 mu under the complete mask, and what the cubic law says."""
    found, expected = (-data[name] / np.log(10.0) for name in ("cubic", "cubic_expected"))
    layers = np.arange(2, len(found) + 2)
    axes.plot(layers, expected, "s", color=style.MASKS["complete"], fillstyle="none", markersize=6)
    axes.plot(layers, found, "o-", color=style.BLUE)
    axes.set(
        yscale="log",
        xlabel="layer",
        xticks=layers[::2],
        ylabel="−log₁₀ mu",
        title="complete: a cubic law",
    )
    style.note(axes, "● log-scale engine\n□ 3 log s + log ‖ZMZᵀZ/N‖", 0.97, 0.05)


def claim(data) -> Verdict:
    """log mu is right to 1e-9 at every depth, and the complete mask obeys the cubic law."""
    worst = errors(data, "logscale").max(axis=1)
    lost = np.abs(data["numba"] - data["exact"]) > 0.01
    small = data["cubic"] < -20.0 * np.log(10.0)
    cubic = np.abs(data["cubic"] - data["cubic_expected"])[small].max()
    deepest = float(data["cubic"].min() / np.log(10.0))
    k = int(np.argmax(worst))
    return Verdict(
        statement="relative error of log mu at most 1e-9 at every depth in all cases; under the "
        "complete mask log s' = 3 log s + log ||Z M Z^T Z / N|| to 1e-6 down to 10^-100000",
        paper="rates of collapse as theorems; no values below 1e-16",
        measured={
            "cases": len(worst),
            "largest relative error of log mu": float(worst[k]),
            "in the case": str(data["case"][k]),
            "cases where double precision is wrong by 1%": int(lost.any(axis=1).sum()),
            "largest error of the cubic law": float(cubic),
            "deepest log10 mu": deepest,
        },
        tolerance=f"{TOLERANCE:g} for log mu, {CUBIC_TOLERANCE:g} for the cubic law",
        reproduced=bool(worst[k] <= TOLERANCE and cubic <= CUBIC_TOLERANCE and deepest <= -1e5),
    )
