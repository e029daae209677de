"""When random keys hold one that no query selects, measured and as expected exactly.

The paper's picture over dimension and number of keys, before and after LayerNorm; the expected
number of unselectable Gaussian keys from the formula of Affentranger and Schneider (1992); and the
front, the number of keys at which one in two sets holds an unselectable key.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import beta

from dynsim import gaussian_keys, norms, selectability
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "BRODY, arXiv 2305.02582, Fig. 1c and 1d: probability that n random keys of dimension d hold "
    "an unselectable one, without and with LayerNorm's scaling"
)

SETTINGS = {
    "smoke": {"dims": [3, 4, 5], "keys": list(range(3, 25, 3)), "draws": 60, "front": 7},
    "default": {"dims": list(range(3, 16)), "keys": list(range(3, 61)), "draws": 400, "front": 20},
    "paper": {"dims": list(range(3, 16)), "keys": list(range(3, 61)), "draws": 100, "front": 20},
}
#: Where the expected number is this, one in two sets would hold one if counts were Poisson's.
HALF = np.log(2.0)


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Numbers of unselectable keys, (before and after LayerNorm, d, n, draw); the expected numbers,
    (d, n); and the exact front by dimension."""
    dims, keys, draws = settings["dims"], settings["keys"], settings["draws"]
    counts = np.empty((2, len(dims), len(keys), draws), np.uint8)
    scaling = norms.LayerNorm(eps=0.0)
    for a, d in enumerate(dims):
        for b, n in enumerate(keys):
            drawn = np.random.default_rng([seed, d, n]).standard_normal((draws, n, d))
            for which, k in enumerate((drawn, scaling.apply(drawn))):
                counts[which, a, b] = n - selectability.selectable(k).sum(axis=-1)
        progress((a + 1) / len(dims))
    expected = [[gaussian_keys.expected_unselectable(n, d) for n in keys] for d in dims]
    front_dims = np.arange(2, settings["front"] + 1)
    return {
        "dims": np.array(dims),
        "keys": np.array(keys),
        "counts": counts,
        "expected": np.array(expected),
        "front_dims": front_dims,
        "front": np.array([exact_front(d) for d in front_dims.tolist()]),
    }


def exact_front(d: int) -> float:
    """The number of keys at which log 2 of them are expected to be unselectable, interpolated."""
    low = high = d + 2
    while gaussian_keys.expected_unselectable(high, d) < HALF:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        below = gaussian_keys.expected_unselectable(middle, d) < HALF
        low, high = (middle, high) if below else (low, middle)
    values = [gaussian_keys.expected_unselectable(n, d) for n in (low, high)]
    return float(np.interp(HALF, values, (low, high)))


def share(counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of sets that hold an unselectable key, with the 95% interval of Clopper and Pearson."""
    some, draws = np.sum(counts > 0, axis=-1), counts.shape[-1]
    low = np.where(some > 0, beta.ppf(0.025, np.maximum(some, 1), draws - some + 1), 0.0)
    high = np.where(some < draws, beta.ppf(0.975, some + 1, np.maximum(draws - some, 1)), 1.0)
    return some / draws, low, high


def crossing(keys, curve) -> float:
    """Where a curve over the number of keys first reaches 1/2; NaN where it does not."""
    above = np.flatnonzero(curve >= 0.5)
    if not len(above):
        return np.nan
    k = above[0]
    return float(np.interp(0.5, curve[k - 1 : k + 1], keys[k - 1 : k + 1]) if k else keys[0])


def draw(data) -> Figure:
    """Before and after over d and n; shares and expectations over n; the front over d."""
    figure, ((before, after), (shares, front)) = style.panels(2, 2, height=2.2)
    dims, keys = data["dims"], data["keys"]
    found, low, high = share(data["counts"][0])
    normed = share(data["counts"][1])[0]
    titles = ("Gaussian keys", "the same after LayerNorm")
    for axes, values, title in zip((before, after), (found, normed), titles, strict=True):
        image = axes.pcolormesh(keys, dims, values, vmin=0, vmax=1, cmap="cividis", rasterized=True)
        axes.set(xlabel="number of keys n", ylabel="dimension d", title=title)
        axes.grid(False)
    bar = figure.colorbar(
        image, cax=after.inset_axes((0.08, 0.2, 0.84, 0.08)), orientation="horizontal"
    )
    bar.outline.set_edgecolor("white")
    bar.ax.tick_params(color="white", labelcolor="white")
    bar.ax.set_title("share of sets with an unselectable key", color="white", fontsize=7)
    inside = (data["front"] >= keys[0]) & (data["front"] <= keys[-1])
    inside &= (data["front_dims"] >= dims[0]) & (data["front_dims"] <= dims[-1])
    before.plot(data["front"][inside], data["front_dims"][inside], "w--", linewidth=1.2)
    before.text(0.97, 0.93, "none", transform=before.transAxes, color="white", ha="right", va="top")
    before.text(0.97, 0.08, "all sets", transform=before.transAxes, ha="right")
    if not normed.any():
        after.text(0.5, 0.7, "none at all", transform=after.transAxes, color="white", ha="center")
    shown = np.unique(np.linspace(0, len(dims) - 1, 5).astype(int))
    named = {}
    for colour, a in zip(style.shades(style.BLUE, len(shown))[::-1], shown, strict=True):
        (named[f"d = {dims[a]}"],) = shares.plot(keys, found[a], color=colour, linewidth=1)
        shares.fill_between(keys, low[a], high[a], color=colour, alpha=0.25, linewidth=0)
        poisson = -np.expm1(-data["expected"][a])
        shares.plot(keys, poisson, color="black", linestyle=":", linewidth=1)
    shares.set(
        xlabel="number of keys n",
        ylabel="share of sets with\nan unselectable key",
        xlim=(keys[0], keys[-1]),
        title="dotted: 1 − exp(−exact expectation)",
    )
    style.name_lines(shares, named)
    middle, early, late = (
        np.array([crossing(keys, row) for row in curves]) for curves in (found, high, low)
    )
    front.plot(data["front_dims"], data["front"], color="black", linestyle=":")
    errors = [np.nan_to_num(middle - early), np.nan_to_num(late - middle)]
    front.errorbar(
        dims,
        middle,
        yerr=np.maximum(errors, 0),
        fmt="o",
        capsize=2,
        markersize=3.5,
        color=style.BLUE,
    )
    front.set(
        yscale="log",
        xlabel="dimension d",
        ylabel="number of keys n",
        title="where the share is 1/2",
    )
    front.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.note(front, "● measured, 95% intervals\n··· exact: expectation log 2", 0.97, 0.05)
    style.letters((before, after, shares, front))
    style.finding(
        figure,
        "Random keys of few dimensions hold unselectable ones, as many as an exact formula says; "
        "after LayerNorm none"
        if claim(data).reproduced
        else "Unselectable keys among random ones, before and after LayerNorm",
    )
    return figure


def claim(data) -> Verdict:
    """Nothing after LayerNorm; before, counts as expected, and a front that moves right with d."""
    raw, normed = data["counts"].astype(float)
    draws = raw.shape[-1]
    off = (raw.mean(axis=-1) - data["expected"]).sum(axis=1)  # over n, by d
    error = np.sqrt(np.sum(raw.var(axis=-1, ddof=1), axis=1) / draws)
    spread = np.abs(off) / np.where(error > 0, error, np.inf)
    found = share(raw)[0]
    poisson = np.abs(found + np.expm1(-data["expected"])).max()
    fronts = np.array([crossing(data["keys"], row) for row in found])
    fronts = fronts[np.isfinite(fronts)]
    growth = np.polyfit(data["front_dims"][-4:], np.log(data["front"][-4:]), 1)[0]
    return Verdict(
        statement="after LayerNorm no key is unselectable; before, their number is that of "
        "Affentranger and Schneider, and the front between none and some moves to more keys as d "
        "grows",
        paper="Fig. 1c and 1d as drawn: near 1 for small d and large n, a front that moves right "
        "with d; identically 0 with LayerNorm",
        measured={
            "unselectable keys after LayerNorm": int(normed.sum()),
            "sets drawn, before and after": int(data["counts"][..., 0].size * draws),
            "number less expectation, in standard errors, by d": {
                str(d): round(float(z), 2) for d, z in zip(data["dims"], spread, strict=True)
            },
            "front measured, by d": {
                str(d): round(float(n), 1) for d, n in zip(data["dims"], fronts, strict=False)
            },
            "exact front, by d": {
                str(d): round(float(n), 1)
                for d, n in zip(data["front_dims"], data["front"], strict=True)
            },
            "share less 1 - exp(-expectation), at most": round(float(poisson), 3),
            "the exact front grows per dimension, lately, by a factor": round(np.exp(growth), 4),
        },
        tolerance="4 standard errors for each d",
        reproduced=bool(normed.sum() == 0 and np.all(spread < 4) and np.all(np.diff(fronts) > 0)),
    )
