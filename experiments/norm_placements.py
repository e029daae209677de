"""Where the norm stands sets the speed at which tokens come together: in layers, not in a limit.

W_V = I, M = beta I, complete mask, unit norm. With the norm after the skip connection a layer is an
Euler step h = 1/s of the flow on the sphere, s the skip's weight. With the norm before attention
(pre), or before and after it (peri), tokens grow and turn ever less. 1 - cos is the mean over pairs
of tokens; the speed is its fall per unit of time.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import masks, measures, norms, speeds, tokens, weights
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "Karagodin, Ge, Polyanskiy and Rigollet, arXiv 2510.22026, the table of speeds: late C e^(-2t) "
    "(post), C / t^3 (pre, peri); initial factors 1 (post), r (pre), r ||A|| (peri)"
)

SETTINGS = {
    "smoke": {"tokens": 8, "dim": 8, "samples": 2, "depth": 1500, "beta": 1.0, "step": 1e-4},
    "default": {
        "tokens": 32, "dim": 16, "samples": 8, "depth": 20_000, "beta": 1.0, "step": 1e-4,
    },
}  # fmt: skip

#: Steps h = 1/s of the flow with the norm after the skip connection.
STEPS = (1.0, 0.5, 0.1)
#: Time to which these are followed.
LONGEST = 40.0
#: Placements whose tokens grow, with a skip of weight 1.
GROWING = ("pre", "peri")
PLACEMENTS = ("post", *GROWING)
#: Layers between which the power of t is measured, in shares of the depth.
LATE = (0.25, 1.0)


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """1 - cos by layer: post for each step (one array each), pre and peri (placement, sample,
    depth); initial speeds over small steps (placement, sample) and what the table says of them."""
    x0 = tokens.sphere(settings["samples"], settings["tokens"], settings["dim"], seed)
    found = {}
    for k, h in enumerate(STEPS):
        dynamics = _network(settings, "post", 1.0 / h)
        depth = round(LONGEST / h)
        found[f"post_{h:g}"] = _deficits(dynamics, x0, np.arange(depth + 1))
        progress(0.3 * (k + 1) / len(STEPS))
    at = np.unique(np.geomspace(1, settings["depth"], 200).round().astype(int))
    at = np.union1d(at, [0, *(round(share * settings["depth"]) for share in LATE)])
    late = [_deficits(_network(settings, name, 1.0), x0, at) for name in GROWING]
    progress(0.9)
    initial = np.stack([_initial(_network(settings, p, 1.0 / settings["step"]), x0)
                        for p in PLACEMENTS])  # fmt: skip
    return found | {
        "depths": at, "growing": np.stack(late), "initial": initial,
        "expected": _expected(settings, x0),
        "law": np.array([speeds.late_speed(_network(settings, p, 1.0), settings["dim"]).rate
                         for p in GROWING]),
        "rates": np.array([speeds.late_speed(_network(settings, "post", 1 / h),
                                             settings["dim"]).rate for h in STEPS]),
    }  # fmt: skip


def _network(settings: dict, placement: str, skip: float) -> dynsim.AttentionDynamics:
    d = settings["dim"]
    return dynsim.AttentionDynamics(
        masks.complete(settings["tokens"]),
        weights.Fixed(settings["beta"] * np.eye(d), np.eye(d)),
        norms.Unit(), placement, skip=skip,
    )  # fmt: skip


def _deficit(x: np.ndarray) -> np.ndarray:
    """1 - mean cosine, by differences of directions, which lose no digits: (samples,)."""
    directions = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return measures.mu(directions) ** 2 / (x.shape[-2] - 1)


def _deficits(dynamics, x0: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """1 - cos at these depths, (samples, depths)."""
    record, x, at, out = dynsim.Record(measures=()), x0, 0, []
    for depth in depths:
        if depth > at:
            x = dynsim.simulate(dynamics, x, int(depth - at), start=at, record=record).final
            at = int(depth)
        out.append(_deficit(x))
    return np.stack(out, axis=-1)


def _initial(dynamics, x0: np.ndarray) -> np.ndarray:
    """d cos / dt over one small step, (samples,): directions do not see that a skip scales."""
    after = dynsim.simulate(dynamics, x0, 1, record=dynsim.Record(measures=())).final
    return (_deficit(x0) - _deficit(after)) * dynamics.skip


def _expected(settings: dict, x0: np.ndarray) -> np.ndarray:
    """The table's initial speeds at length r = 1, (placement, sample): d theta / dt is the part of
    A x across theta over s, with s = 1 (post), r = 1 (pre) and ||A x|| (peri)."""
    out = np.empty((len(PLACEMENTS), len(x0)))
    for k, x in enumerate(x0):
        attended = _network(settings, "post", 1.0).attention(x)[0] @ x
        for p, size in enumerate((1.0, 1.0, np.linalg.norm(attended, axis=1, keepdims=True))):
            pull = attended / size
            across = pull - np.sum(pull * x, axis=1, keepdims=True) * x
            total = 2.0 * x.sum(axis=0) @ across.sum(axis=0)  # d/dt of ||sum theta||^2
            out[p, k] = total / (len(x) * (len(x) - 1))
    return out


# --- figure -------------------------------------------------------------------------------------

#: Colours of placements.
COLOURS = {"post": style.BLUE, "pre": style.VERMILION, "peri": style.GREEN}


def draw(data) -> Figure:
    """Post against time; pre and peri against time; speeds at the start."""
    figure, (axes,) = style.panels(1, 3, height=2.5, width_ratios=(1.15, 1.15, 0.8))
    _draw_post(axes[0], data)
    _draw_growing(axes[1], data)
    _draw_initial(axes[2], data)
    style.letters(axes)
    style.finding(
        figure,
        "With the norm after the skip tokens come together exponentially, with a norm before "
        "attention as a power of depth"
        if all(verdict.reproduced for verdict in claims(data))
        else "How fast tokens come together, by placement of the norm",
    )
    return figure


def _draw_post(axes, data) -> None:
    ends = []
    for h, tone, dash in zip(
        STEPS, style.shades(COLOURS["post"], len(STEPS))[::-1], style.DASHES, strict=False
    ):
        fall = np.median(data[f"post_{h:g}"], axis=0)
        time = h * np.arange(len(fall))
        seen = (fall > 1e-17) & (time <= 20)
        axes.plot(time[seen], fall[seen], color=tone, linestyle=dash)
        ends.append((time[seen][-1], fall[seen][-1], f"h = {h:g}", tone))
    time = np.array([8.0, 14.0])
    axes.plot(time, 3e-9 * np.exp(-2 * (time - 8)), color="0.4", linewidth=0.8)
    axes.text(7.6, 1e-11, "e$^{-2t}$", color="0.3", fontsize=7, ha="right")
    axes.set(yscale="log", xlabel="time, layers × h", ylabel="1 − cos", xlim=(0, 20),
             ylim=(1e-17, 3), title="post")  # fmt: skip
    style.label_ends(axes, ends)


def _draw_growing(axes, data) -> None:
    depths = data["depths"]
    ends = []
    for name, fall, dash in zip(GROWING, data["growing"], style.DASHES, strict=False):
        fall = np.median(fall, axis=0)
        axes.plot(depths[1:], fall[1:], color=COLOURS[name], linestyle=dash)
        ends.append((depths[-1], fall[-1], name, COLOURS[name]))
    high = np.median(data["growing"][0], axis=0)[-1] * 6
    line = depths[-1] * np.array([0.02, 1.0])
    axes.plot(line, high * (line / depths[-1]) ** -2, color="0.4", linewidth=0.8)
    axes.text(line[0] * 2.6, high * 600, "t$^{-2}$: speed C/t³", color="0.3", fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="layers = time", ylabel="1 − cos",
             title="pre and peri, skip 1", xlim=(1, depths[-1] * 6))  # fmt: skip
    style.label_ends(axes, ends)


def _draw_initial(axes, data) -> None:
    ratio = data["initial"] / data["initial"][0]
    expected = data["expected"] / data["expected"][0]
    for p, name in enumerate(PLACEMENTS):
        across = p + np.linspace(-0.3, 0.3, ratio.shape[1])
        axes.plot(across, expected[p], "_", color="0.2", markersize=8)
        axes.plot(across, ratio[p], "o", color=COLOURS[name], markersize=2.5)
    axes.set(xticks=range(3), xlim=(-0.6, 2.6), ylim=(0, 1.15 * expected.max()),
             ylabel="initial speed over that of post", title="at the start")  # fmt: skip
    axes.set_xticklabels(PLACEMENTS)
    style.note(axes, "dots: measured, by start\nbars: the paper's factor", 0.04, 0.4)


# --- claims -------------------------------------------------------------------------------------


def claims(data) -> list[Verdict]:
    """The late law after the norm, before it, and the speeds at the start."""
    return [_post(data), _growing(data), _start(data)]


def _late_rate(fall: np.ndarray, h: float) -> np.ndarray:
    """The rate of an exponential, per unit of time, where 1 - cos falls from 1e-8 to 1e-16."""
    out = []
    for one in fall:
        low, high = int(np.argmax(one < 1e-8)), int(np.argmax(one < 1e-16))
        out.append(np.log(one[low] / one[high]) / (h * (high - low)) if high > low else np.nan)
    return np.array(out)


def _post(data) -> Verdict:
    rates = np.array([np.median(_late_rate(data[f"post_{h:g}"], h)) for h in STEPS])
    exact = 2.0 * np.log1p(STEPS) / STEPS
    off = np.abs(rates / exact - 1.0)
    limit = rates[-1] + (rates[-1] - rates[-2]) * STEPS[-1] / (STEPS[-2] - STEPS[-1])
    return Verdict(
        statement="post: 1 - cos falls like e^(-rate t), rate = 2 log(1 + h) / h for steps h: "
        "it is 2 in the limit of small steps",
        paper="late speed C e^(-2t), in continuous time",
        measured={
            f"h = {h:g}: rate, and 2 log(1 + h)/h": [round(float(r), 5), round(float(e), 5)]
            for h, r, e in zip(STEPS, rates, exact, strict=True)
        }
        | {"straight line through the two smallest steps, at h = 0": round(float(limit), 3)},
        tolerance="1e-3 of the rate for every step; 5% of 2 at h = 0",
        reproduced=bool(
            np.all(off < 1e-3) and abs(limit - 2.0) < 0.1
            and np.allclose(data["rates"], exact, rtol=1e-9)
        ),
    )  # fmt: skip


def _growing(data) -> Verdict:
    depths = data["depths"]
    low, high = (int(np.argmin(np.abs(depths - share * depths[-1]))) for share in LATE)
    fall = np.median(data["growing"], axis=1)
    power = np.log(fall[:, low] / fall[:, high]) / np.log(depths[high] / depths[low])
    return Verdict(
        statement="pre and peri: 1 - cos falls like t^-2, its speed like t^-3",
        paper="late speed C / t^3",
        measured={
            f"{name}: power of the speed between layers {depths[low]} and {depths[high]}": round(
                float(-p - 1.0), 4
            )
            for name, p in zip(GROWING, power, strict=True)
        },
        tolerance=".05 in the power",
        reproduced=bool(np.all(np.abs(power - 2.0) < 0.05) and np.allclose(data["law"], 2.0)),
    )


def _start(data) -> Verdict:
    ratio = data["initial"] / data["initial"][0]
    off = np.abs(data["initial"] / data["expected"] - 1.0)
    return Verdict(
        statement="at the start, with tokens of length 1, pre turns tokens as fast as post, and "
        "peri faster by 1 / ||A x||",
        paper="speed factors 1 (post), r (pre), r ||A|| (peri)",
        measured={
            f"{name}: speed over post's, mean": round(float(r.mean()), 3)
            for name, r in zip(PLACEMENTS, ratio, strict=True)
        }
        | {"largest deviation from the factor": float(f"{off.max():.2g}")},
        tolerance="1% of every speed, of every sample; peri the fastest",
        reproduced=bool(off.max() < 0.01 and np.all(ratio[2] > 1.0)),
    )
