"""Twins with LayerNorm and RMSNorm: do hidden vectors stay orthogonal to **1** without being told?

Language models of GPT-2's shape, in pairs that differ in the projection of their norms only, learn
the same characters of real text. Before every norm: how far hidden vectors are from orthogonal to
**1**, their length, and how far the norm turns them; the same for a real LayerNorm model, MiniLM.

An angle near 90 degrees says little: a random direction is as near, 57.3 / sqrt(d) degrees. What is
measured is sqrt(d) |mean cosine to **1**| over tokens, against the same at step 0, and against its
root mean square for random directions in place of **1** (`dynsim.geometry.orthogonality`).
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from dynsim import minilm
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "GUPTA, arXiv 2409.12951: angle of hidden vectors to the uniform vector 1, norms and rotation "
    "by the norm, per layer, in LayerNorm and RMSNorm models"
)

EXTRAS = ("torch", "minilm")
#: The paper trains no model, so there are no settings as published.
SETTINGS = {
    "smoke": {"dims": [16, 24], "layers": 2, "heads": 2, "positions": 24, "context": 24,
              "members": 2, "batch": 2, "steps": 4, "rate": 1e-3, "every": 2, "tests": 2},
    "default": {"dims": [64, 128, 256], "layers": 2, "heads": 4, "positions": 64, "context": 64,
                "members": 5, "batch": 8, "steps": 300, "rate": 1e-3, "every": 25, "tests": 16},
}  # fmt: skip
TWINS = ("LayerNorm", "RMSNorm")
MEASURES = (
    "angle", "angle_sd", "length_before", "length_after", "rotation", "offset", "baseline",
)  # fmt: skip


def compute(settings: dict, seed: int, progress, checkpoints) -> dict[str, np.ndarray]:
    """Held-out loss (dim, twin, time, seed), measures (dim, twin, time, seed, norm), and MiniLM's
    (norm,)."""
    from experiments.training import gpt, hidden, text
    from experiments.training.checkpoints import Checkpoint
    from experiments.training.norms import layer_norm, rms_norm

    held_out = text.standard_library()[1]
    rng = np.random.default_rng([seed, 2])
    probe = text.excerpts(held_out, settings["tests"], settings["context"], rng)

    def measure(model):
        return hidden.geometry(hidden.passages(model, probe))

    runs, found = len(settings["dims"]) * len(TWINS), []
    for d in settings["dims"]:
        shape = {name: value for name, value in settings.items() if name != "dims"} | {"dim": d}
        for name, norm in zip(TWINS, (layer_norm, rms_norm), strict=True):

            def report(share):
                progress((len(found) + share) / runs)

            path = checkpoints / f"{name}-{d}.safetensors"
            checkpoint = Checkpoint(path, twin=name, settings=shape, seed=seed)
            found.append(gpt.learn(norm, norm, shape, seed, checkpoint, report, measure)[1])
    excerpt = text.decode(held_out[: 8 * settings["tests"] * settings["context"]])
    real = hidden.geometry(hidden.of_minilm(excerpt, settings["context"], settings["tests"]))
    by_twin = {
        name: np.stack([f[name] for f in found]).reshape(
            len(settings["dims"]), len(TWINS), *found[0][name].shape
        )
        for name in ("loss", *MEASURES)
    }
    return {
        "step": found[0]["step"],
        "dims": np.array(settings["dims"]),
        **by_twin,
        **{f"minilm_{name}": real[name] for name in MEASURES},
    }


COLOURS = {"LayerNorm": style.NORMS["layernorm"], "RMSNorm": style.NORMS["rms"]}


def draw(data) -> Figure:
    """The offset over training, and by norm at the end beside random directions; length and
    rotation by norm, of the widest models; MiniLM."""
    figure, ((course, share, loss), (rotation, length, real)) = style.panels(2, 3, height=2.3)
    norms = np.arange(1, data["offset"].shape[-1] + 1)
    by_norm: dict = {}
    ends: dict = {"course": [], "share": [], "loss": []}
    for k, (name, colour) in enumerate(COLOURS.items()):
        tones = style.shades(colour, len(data["dims"]))
        for of_dim, (d, tone) in enumerate(zip(data["dims"], tones, strict=True)):
            offset, baseline = (data[key][of_dim, k] for key in ("offset", "baseline"))
            lines = {
                "course": (course, data["step"], offset.mean(axis=(1, 2))),
                "share": (share, norms, np.median(offset[-1] / baseline[-1], axis=0)),
                "loss": (loss, data["step"], data["loss"][of_dim, k].mean(axis=1)),
            }
            for panel, (axes, x, y) in lines.items():
                axes.plot(x, y, color=tone, linestyle="-" if k == 0 else "--")
                ends[panel].append((x[-1], y[-1], f"d = {d}", tone))
        last = {measure: data[measure][-1, k, -1].mean(axis=0) for measure in MEASURES}
        dash = "-" if k == 0 else "--"
        (by_norm[name],) = rotation.plot(
            norms, last["rotation"], color=colour, linestyle=dash, marker="o"
        )
        length.plot(norms, last["length_before"], color=colour, linestyle=dash, marker="o")
        length.plot(
            norms,
            last["length_after"],
            color=colour,
            linestyle=dash,
            marker="^",
            markerfacecolor="white",
            linewidth=0.8,
        )
    course.set(
        xlabel="training steps", ylabel="√d |mean cosine to 1|", title="over training (means)"
    )
    share.set(ylabel="to 1 / random direction (r.m.s.)", yscale="log", title="after training")
    low, typical, high = stats.halfnorm.ppf([0.025, 0.5, 0.975])
    share.axhspan(low, high, color="0.93", zorder=0)
    share.axhline(typical, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)))
    share.set_ylim(low / 3, None)
    style.note(share, "grey: random directions,\nmedian and 95%", 0.97, 0.03)
    widest = data["dims"][-1]
    loss.set(
        xlabel="training steps",
        ylabel="held-out loss\n(nats per character)",
        title="what they learn",
    )
    rotation.set(ylabel="rotation by the norm (°)", title=f"d = {widest}", ylim=(0, None))
    length.set(
        ylabel="mean length of a token", yscale="log", title=f"d = {widest}: ● before, △ after"
    )
    _draw_minilm(real, data)
    for axes in (share, rotation, length, real):
        axes.set_xlabel("norm, in order of depth")
    for axes in (share, rotation, length):
        axes.set_xticks(norms)
    style.label_ends(course, ends["course"])
    style.label_ends(share, ends["share"])
    style.name_lines(rotation, by_norm)
    for k, (name, colour) in enumerate(COLOURS.items()):
        course.text(
            0.97,
            0.97 - 0.1 * k,
            f"{'—' if k == 0 else '- -'} {name}",
            color=colour,
            transform=course.transAxes,
            ha="right",
            va="top",
            fontsize=7,
        )
    style.letters(figure.axes)
    style.finding(
        figure,
        "Training with LayerNorm brings hidden vectors nearer to orthogonal to 1, training with "
        "RMSNorm does not"
        if claim(data).reproduced
        else "Twins with LayerNorm and RMSNorm: hidden vectors and the vector of ones",
    )
    return figure


def _draw_minilm(axes, data) -> None:
    at = np.arange(1, len(data["minilm_offset"]) + 1)
    axes.vlines(at, data["minilm_offset"], data["minilm_baseline"], color="0.85", linewidth=1)
    axes.plot(at, data["minilm_offset"], "o", color=COLOURS["LayerNorm"])
    axes.plot(at, data["minilm_baseline"], "_", color="black", markersize=6)
    top = 1.3 * max(data["minilm_offset"].max(), data["minilm_baseline"].max())
    axes.set(ylabel="√d |mean cosine|", title=f"MiniLM, d = {minilm.DIM}", ylim=(0, top))
    style.note(axes, "● to 1   ▬ random (r.m.s.)", 0.97, 0.97)


def ratio(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean of one / other, both (model, norm), with its 95% interval.

    t over models, on the mean logarithm over the norms of each.
    """
    logs = np.log(one / other).mean(axis=-1).ravel()
    interval = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    return tuple(float(np.exp(v)) for v in (logs.mean(), interval.low, interval.high))


#: Geometric mean of |a Gaussian number|: of offset / baseline for random directions.
RANDOM = float(np.exp(-(np.euler_gamma + np.log(2.0)) / 2.0))
#: Its median.
MEDIAN = float(stats.halfnorm.median())


def claim(data) -> Verdict:
    """LayerNorm: nearer to orthogonal than at step 0, than to random directions, than RMSNorm.

    Each model counts once, as the geometric mean over its norms.
    """
    times, norms = data["offset"].shape[2], data["offset"].shape[-1]
    offset, baseline = (
        data[key].astype(float).transpose(1, 2, 0, 3, 4).reshape(len(TWINS), times, -1, norms)
        for key in ("offset", "baseline")
    )  # twin, time, model, norm
    found = {
        name: {
            "step 0": ratio(offset[k, -1], offset[k, 0]),
            "random": ratio(offset[k, -1], RANDOM * baseline[k, -1]),
        }
        for k, name in enumerate(TWINS)
    }
    twins = ratio(offset[0, -1], offset[1, -1])
    real = data["minilm_offset"] / data["minilm_baseline"]
    nearer = [high < 1.0 for _, _, high in (*found["LayerNorm"].values(), twins)]
    _, low, high = found["RMSNorm"]["step 0"]
    after = (
        "are nearer" if high < 1.0 else "are further away" if low > 1.0 else "are not shown nearer"
    )

    def words(of):
        return f"{of[0]:.3g} ({of[1]:.3g} to {of[2]:.3g})"

    def table(k):
        return {
            f"d = {d}": {
                "at step 0": data["offset"][a, k, 0].mean(axis=0).round(3).tolist(),
                "after training": data["offset"][a, k, -1].mean(axis=0).round(3).tolist(),
                "random directions, r.m.s.": data["baseline"][a, k, -1].mean(axis=0)
                .round(3).tolist(),
                "largest distance of the mean angle from 90 degrees, any seed": round(
                    float(np.abs(data["angle"][a, k, -1] - 90.0).max()), 2
                ),
                "last loss": round(float(data["loss"][a, k, -1].mean()), 4),
            }
            for a, d in enumerate(data["dims"])
        }  # fmt: skip

    return Verdict(
        statement="training with LayerNorm brings hidden vectors nearer to orthogonal to 1 than "
        "they were at step 0, than to random directions, and than training with RMSNorm, after "
        f"which they {after} than at step 0",
        paper="all models, with LayerNorm or RMSNorm, sit near 90 degrees in every layer; random "
        "directions do, too",
        measured={
            name: {
                "offset, times that at step 0": words(of["step 0"]),
                "offset, times that of a random direction": words(of["random"]),
                "sqrt(d) |mean cosine to 1| by norm, mean over seeds": table(k),
            }
            for k, (name, of) in enumerate(found.items())
        }
        | {
            "offset with LayerNorm, times that with RMSNorm": words(twins),
            "MiniLM": {
                "offset, times that of a random direction": round(
                    float(np.exp(np.log(real).mean()) / RANDOM), 2
                ),
                "norms nearer to orthogonal than every second random direction": (
                    f"{np.sum(real < MEDIAN)} of {len(real)}"
                ),
                "sqrt(d) |mean cosine to 1|": data["minilm_offset"].round(3).tolist(),
                "random directions, r.m.s.": data["minilm_baseline"].round(3).tolist(),
                "mean angle to 1, degrees": data["minilm_angle"].round(2).tolist(),
            },
        },
        tolerance="95% intervals (t, over models of all sizes and seeds) of the three factors of "
        "LayerNorm, below 1",
        reproduced=all(nearer),
    )
