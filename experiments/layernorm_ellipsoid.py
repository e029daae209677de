"""The image of LayerNorm drawn for d = 2, 3 and 4, and of MiniLM's 13 LayerNorms on real text.

The small ones are the gains and biases of MiniLM's first LayerNorm, and its inputs on real text,
cut to the first d coordinates: with d = 4 the image is the surface of an ellipsoid in space.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from dynsim import geometry, minilm, norms
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "RIECHERS, arXiv 2405.04134: the image of LayerNorm is an ellipsoid in a hyperplane; GUPTA, "
    "arXiv 2409.12951: angle of hidden vectors of real models to 1"
)

EXTRAS = ("minilm",)
SETTINGS = {
    "smoke": {"tokens": 12, "samples": 2},
    "default": {"tokens": 128, "samples": 4},
}
ROOT = Path(__file__).parent.parent
SMALL = (2, 3, 4)
#: Of |a Gaussian number|, offset / baseline for a random direction in place of 1: its median, and
#: what the largest of 13 exceeds once in twenty times.
MEDIAN = float(stats.halfnorm.median())
LARGEST = float(stats.halfnorm.ppf(0.95 ** (1 / 13)))


def real_text() -> str:
    """What every copy of the project has: its licence and sources."""
    paths = [ROOT / "LICENSE", *sorted((ROOT / "dynsim").glob("*.py"))]
    return "\n".join(path.read_text() for path in paths)


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """For every LayerNorm: semi-axes, levels as found and as eps says, distances to the surface and
    to the plane, `geometry.changes`; and the small ellipsoids with their points."""
    layer_norms = minilm.layer_norms()
    inputs = minilm.layer_norm_inputs(real_text(), settings["tokens"], settings["samples"])
    found = {"names": np.array(list(layer_norms))}
    columns = {}
    for k, (name, norm) in enumerate(layer_norms.items()):
        x = inputs[name].reshape(-1, minilm.DIM)
        ellipsoid = geometry.image_ellipsoid(norm.gain, norm.bias, norm.eps)
        y, squared = norm.apply(x), geometry.decompose(x).scale ** 2
        padded = np.zeros(minilm.DIM)
        padded[: len(ellipsoid.semi_axes)] = ellipsoid.semi_axes
        row = {
            "semi_axes": padded,
            "shortfall": minilm.DIM * norm.eps / (squared + minilm.DIM * norm.eps),
            "level": ellipsoid.level(y),
            "distance": ellipsoid.distance_to_surface(y) / ellipsoid.semi_axes[0],
            "off_plane": ellipsoid.off_plane(y) / ellipsoid.semi_axes[0],
            **vars(geometry.changes(norm, x)),
            **dict(zip(("offset", "baseline"), geometry.orthogonality(x), strict=True)),
        }
        for key, values in row.items():
            columns.setdefault(key, []).append(values)
        progress((k + 1) / len(layer_norms))
    found |= {key: np.array(rows) for key, rows in columns.items()}
    first = layer_norms["embeddings"]
    for d in SMALL:
        norm = norms.LayerNorm(first.gain[:d], first.bias[:d], first.eps)
        ellipsoid = geometry.image_ellipsoid(norm.gain, norm.bias, norm.eps)
        y = norm.apply(inputs["embeddings"].reshape(-1, minilm.DIM)[:, :d])
        found |= {
            f"points_{d}": y if d < 4 else ellipsoid.coordinates(y),
            f"center_{d}": ellipsoid.center,
            f"axes_{d}": ellipsoid.axes,
            f"semi_axes_{d}": ellipsoid.semi_axes,
            f"level_{d}": ellipsoid.level(y),
            f"normal_{d}": ellipsoid.normal,
        }
    return found


def draw(data) -> Figure:
    """The small images; spectra, distances to the surface and angles to 1 of the 13."""
    figure = Figure(figsize=(style.PAGE, 5.0), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.05))
    segment = figure.add_subplot(grid[0, 0])
    ellipse, surface = (figure.add_subplot(grid[0, k], projection="3d") for k in (1, 2))
    distances, angles, spectra = (figure.add_subplot(grid[1, k]) for k in range(3))
    _segment(segment, data)
    _ellipse(ellipse, data)
    _surface(surface, data)
    names = data["names"].tolist()
    _draw_spectra(spectra, data, names)
    _draw_distances(distances, data, names)
    _draw_angles(angles, data, names)
    style.letters((segment, ellipse, surface, distances, angles, spectra))
    style.finding(
        figure,
        "LayerNorm puts tokens on an ellipsoid in a hyperplane; MiniLM's inputs are no further "
        "from orthogonal to 1 than from orthogonal to random directions"
        if claim(data).reproduced
        else "LayerNorm's image for d = 2, 3 and 4, and MiniLM's 13 LayerNorms",
    )
    return figure


#: Of MiniLM's LayerNorms: attention's, the MLP's, and the two that stand out.
_ATTENTION, _MLP = style.SKY, style.INDIGO


def _colour(name: str) -> str:
    return _ATTENTION if "attention" in name else _MLP if "MLP" in name else "black"


def _draw_spectra(axes, data, names) -> None:
    """Semi-axes of all 13, those alike in grey, with the thin axis of one."""
    for k, name in enumerate(names):
        s = data["semi_axes"][k]
        s = s[s > 0]
        last = k == len(names) - 1
        axes.plot(
            np.arange(1, len(s) + 1),
            np.maximum(s, s[0] / 1e3),
            color=_colour(name),
            linewidth=1.4 if last else 0.6,
            alpha=1 if last else 0.7,
        )
    low = data["semi_axes"][-1]
    axes.set(yscale="log", xlabel="axis", ylabel="semi-axis", title="MiniLM: principal axes")
    axes.annotate(
        f"{names[-1]}:\na gain of nearly 0",
        (len(low[low > 0]), low[0] / 1e3),
        xytext=(-8, 12),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
        color=_MLP,
    )


def _draw_distances(axes, data, names) -> None:
    """A row a LayerNorm: median and 1 to 99% of its outputs' distances to the surface."""
    style.ranges(
        axes, names, np.maximum(data["distance"], 1e-17), [_colour(name) for name in names]
    )
    axes.set(
        xscale="log",
        xlabel="distance to the surface\n/ longest semi-axis",
        title="MiniLM: where outputs land",
    )


def _draw_angles(axes, data, names) -> None:
    """The same for angles of inputs to 1, over those of random directions."""
    style.ranges(axes, names, data["angle_before"], [_colour(name) for name in names])
    typical = np.degrees(np.median(data["baseline"]) * MEDIAN / minilm.DIM**0.5)
    axes.axvspan(90 - typical, 90 + typical, color="0.9", zorder=0)
    axes.set(
        xlabel="degrees; grey: mean angles\nto half of all random directions",
        title="MiniLM: angle of inputs to 1",
    )
    axes.tick_params(labelleft=False)


def _segment(axes, data) -> None:
    """d = 2: the two ends of a segment."""
    center, half = data["center_2"], data["axes_2"][0] * data["semi_axes_2"][0]
    ends = np.stack([center - half, center + half])
    axes.plot(*ends.T, color="0.6")
    axes.plot(*data["points_2"].T, "o", color=style.VERMILION, markersize=5)
    axes.quiver(
        *center,
        *data["normal_2"] * 0.5 * np.linalg.norm(half),
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.008,
        color=style.BLUE,
    )
    axes.annotate(
        "all tokens land\non two points",
        ends[ends[:, 1].argmax()],
        xytext=(8, -2),
        textcoords="offset points",
        color=style.VERMILION,
        fontsize=6.5,
        va="center",
    )
    tip = center + data["normal_2"] * 0.5 * np.linalg.norm(half)
    axes.annotate(
        "normal,\nalong 1/gain",
        tip,
        xytext=(4, 0),
        textcoords="offset points",
        color=style.BLUE,
        fontsize=6.5,
        va="center",
    )
    axes.annotate(
        "image",
        center - 0.5 * half,
        xytext=(-4, -4),
        textcoords="offset points",
        color="0.4",
        fontsize=6.5,
        ha="right",
        va="top",
    )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(title="d = 2", xlabel="coordinate 1", ylabel="coordinate 2")


def _ellipse(axes, data) -> None:
    """d = 3: an ellipse in the plane orthogonal to 1/gain."""
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    curve = data["center_3"] + (circle * data["semi_axes_3"]) @ data["axes_3"]
    axes.plot(*curve.T, color="0.6")
    axes.scatter(*data["points_3"].T, s=3, color=style.VERMILION, depthshade=False)
    axes.quiver(
        *data["center_3"],
        *data["normal_3"] * data["semi_axes_3"][-1] * 0.8,
        color=style.BLUE,
        linewidth=1,
    )
    axes.set(title="d = 3: an ellipse", aspect="equal")
    _few_ticks(axes)


def _surface(axes, data) -> None:
    """d = 4: an ellipsoid in the hyperplane, along its principal axes."""
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 49), np.linspace(0, np.pi, 25))
    sphere = np.stack([np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v)])
    surface = data["semi_axes_4"][:, None, None] * sphere
    axes.plot_wireframe(*surface, color="0.7", linewidth=0.3, rstride=2, cstride=2)
    axes.scatter(*data["points_4"].T, s=2, color=style.VERMILION, depthshade=False)
    axes.set(title="d = 4: an ellipsoid", aspect="equal")
    _few_ticks(axes)


def _few_ticks(axes) -> None:
    axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1), zticks=(-1, 0, 1))
    axes.tick_params(labelsize=6, pad=-3)


def claim(data) -> Verdict:
    """Outputs lie in the hyperplane, on or just under the surface, as deep as eps says."""
    thick = data["semi_axes"] > 1e-3 * data["semi_axes"][:, :1]
    thin = np.sum(~thick, axis=1) > 1
    off = np.abs(1 - data["level"] - data["shortfall"])[~thin]
    small = max(float(np.abs(1 - data[f"level_{d}"]).max()) for d in SMALL)
    names, angle = data["names"].tolist(), data["angle_before"].mean(axis=1)
    ratio = data["offset"] / data["baseline"]
    return Verdict(
        statement="LayerNorm's outputs lie in the hyperplane orthogonal to 1/gain, inside an "
        "ellipsoid and near its surface, 1 - d eps / (||Pi a||^2 + d eps) of the way in the "
        "quadratic form; on average inputs of MiniLM's LayerNorms are no further from "
        "orthogonal to 1 than to random directions",
        paper="RIECHERS proves the ellipsoid; GUPTA measures angles near 90 degrees in GPT-2 XL, "
        "GPT-Neo, Pythia, GPT-J and Llama, not in MiniLM",
        measured={
            "largest distance from the hyperplane / longest semi-axis": float(
                data["off_plane"].max()
            ),
            "largest |level found - level from eps|": float(off.max()),
            "largest distance to the surface / longest semi-axis": float(data["distance"].max()),
            "largest |1 - level| for d = 2, 3, 4": small,
            "LayerNorms with a gain of nearly 0": [
                n for n, t in zip(names, thin, strict=True) if t
            ],
            "sqrt(d) |mean cosine to 1| of the inputs, over its r.m.s. for random directions": {
                n: round(float(r), 2) for n, r in zip(names, ratio, strict=True)
            },
            "of these below the median of random directions": f"{np.sum(ratio < MEDIAN)} of 13",
            "mean angle to 1 of the inputs, degrees": {
                n: round(float(a), 2) for n, a in zip(names, angle, strict=True)
            },
            "relative change of outputs with RMSNorm": {
                n: round(float(a), 4)
                for n, a in zip(names, data["switch"].mean(axis=1), strict=True)
            },
            "redundancy of the projection": {
                n: round(float(a), 6)
                for n, a in zip(names, data["redundancy"].mean(axis=1), strict=True)
            },
        },
        tolerance="1e-12 for the hyperplane, 1e-11 for levels; the largest of the 13 ratios below "
        f"{LARGEST:.2f}, which that of random directions exceeds once in twenty times",
        reproduced=bool(
            data["off_plane"].max() < 1e-12 and off.max() < 1e-11 and ratio.max() < LARGEST
        ),
    )
