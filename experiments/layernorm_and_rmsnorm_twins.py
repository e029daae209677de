"""Twins with LayerNorm and RMSNorm: do hidden vectors stay orthogonal to **1** without being told?

Two language models of GPT-2's shape, alike but for the projection in their norms, learn the same
characters of real text. Before every norm: the angle of hidden vectors to **1**, their length, and
how far the norm turns them, over training; the same for a real LayerNorm model, MiniLM. A random
direction has a mean angle of 90 degrees too, with a standard deviation of about 57.3/sqrt(d): what
counts is the mean over tokens.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from dynsim import minilm, plots
from experiments.record import Verdict

PAPER = (
    "GUPTA, arXiv 2409.12951: angle of hidden vectors to the uniform vector 1, norms and rotation "
    "by the norm, per layer, in LayerNorm and RMSNorm models"
)

#: The paper trains no model: "paper" is as large as a patient CPU can train.
SETTINGS = {
    "smoke": {"dim": 16, "layers": 2, "heads": 2, "positions": 24, "context": 24, "members": 1,
              "batch": 2, "steps": 4, "rate": 1e-3, "every": 2, "tests": 2},
    "default": {"dim": 64, "layers": 4, "heads": 4, "positions": 128, "context": 128, "members": 2,
                "batch": 16, "steps": 1200, "rate": 1e-3, "every": 60, "tests": 16},
    "paper": {"dim": 256, "layers": 8, "heads": 8, "positions": 512, "context": 512, "members": 1,
              "batch": 16, "steps": 20_000, "rate": 6e-4, "every": 500, "tests": 16},
}  # fmt: skip
TWINS = ("LayerNorm", "RMSNorm")
MEASURES = ("angle", "angle_sd", "length_before", "length_after", "rotation")


def compute(settings: dict, seed: int, progress, checkpoints) -> dict[str, np.ndarray]:
    """Held-out loss (twin, time, seed), measures (twin, time, seed, norm), MiniLM's (norm,)."""
    from experiments.training import gpt, hidden, text
    from experiments.training.checkpoints import Checkpoint
    from experiments.training.norms import layer_norm, rms_norm

    held_out = text.standard_library()[1]
    rng = np.random.default_rng([seed, 2])
    probe = text.excerpts(held_out, settings["tests"], settings["context"], rng)

    def measure(model):
        return hidden.geometry(hidden.passages(model, probe))

    found = []
    for k, (name, norm) in enumerate(zip(TWINS, (layer_norm, rms_norm), strict=True)):

        def report(share, k=k):
            progress((k + share) / len(TWINS))

        checkpoint = Checkpoint(
            checkpoints / f"{k}.safetensors", twin=name, settings=settings, seed=seed
        )
        found.append(gpt.learn(norm, norm, settings, seed, checkpoint, report, measure)[1])
    excerpt = text.decode(held_out[: 8 * settings["tests"] * settings["context"]])
    real = hidden.geometry(hidden.of_minilm(excerpt, settings["context"], settings["tests"]))
    return {
        "step": found[0]["step"],
        "dim": np.array(settings["dim"]),
        **{name: np.stack([f[name] for f in found]) for name in ("loss", *MEASURES)},
        **{f"minilm_{name}": real[name] for name in MEASURES},
    }


def draw(data) -> Figure:
    """Angle over training; angle, length and rotation by norm at the end, MiniLM beside."""
    figure = Figure(figsize=(11.5, 6.6), layout="constrained")
    (loss, course, angle), (rotation, length, real) = figure.subplots(2, 3)
    norms = np.arange(1, data["angle"].shape[-1] + 1)
    for k, (name, style) in enumerate(zip(TWINS, plots.STYLES, strict=False)):
        look = style | {"markersize": 4, "linewidth": 1.4}
        loss.plot(data["step"], data["loss"][k].mean(axis=1), label=name, markevery=0.12, **look)
        for norm in norms - 1:
            shade = 0.3 + 0.7 * norm / len(norms)
            course.plot(
                data["step"], data["angle"][k, :, :, norm].mean(axis=1),
                color=style["color"], linestyle=style["linestyle"], alpha=shade, linewidth=1,
            )  # fmt: skip
        last = {measure: data[measure][k, -1].mean(axis=0) for measure in MEASURES}
        angle.errorbar(norms + 0.1 * k, last["angle"], last["angle_sd"], capsize=2, **look)
        rotation.plot(norms, last["rotation"], **look)
        length.plot(norms, last["length_before"], **look)
        length.plot(norms, last["length_after"], **(look | {"alpha": 0.4}))
    at = np.arange(1, len(data["minilm_angle"]) + 1)
    real.errorbar(
        at, data["minilm_angle"], data["minilm_angle_sd"], capsize=2, label="angle to 1",
        **plots.STYLES[2],
    )  # fmt: skip
    real.plot(at, data["minilm_rotation"], label="rotation by the norm", **plots.STYLES[3])
    course.set(xlabel="training steps", ylabel="mean angle to 1 (°)",
               title="each norm's input; deeper is darker")  # fmt: skip
    loss.set(xlabel="training steps", ylabel="held-out loss (nats per character)")
    angle.set(ylabel="angle to 1 (°), mean ± sd", title="after training")
    rotation.set(ylabel="rotation by the norm (°)")
    length.set(ylabel="mean length before (pale: after)", yscale="log")
    real.set(ylabel="degrees", title=f"all-MiniLM-L6-v2, d = {minilm.DIM}")
    for axes in (angle, rotation, length, real):
        axes.set_xlabel("norm, in the order of the depth")
    for axes in (course, angle, real):
        axes.axhline(90, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)))
    for axes in figure.axes:
        axes.grid(True, color="0.92", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    real.legend(frameon=False, fontsize=8)
    loss.legend(frameon=False, fontsize=8)
    return figure


def claim(data) -> Verdict:
    """Mean angles near 90 degrees before every norm, in both twins and in MiniLM.

    Near: nearer than a typical random direction, whose angle is 57.3/sqrt(d) degrees from 90.
    """
    off = np.abs(data["angle"][:, -1].mean(axis=1) - 90.0)  # twin, norm
    off_real = np.abs(data["minilm_angle"] - 90.0)
    typical = np.degrees(data["dim"] ** -0.5), np.degrees(minilm.DIM**-0.5)
    near = bool((off < typical[0]).all() and (off_real < typical[1]).all())
    last = data["loss"][:, -1].astype(float)

    def table(values):
        return {name: np.round(values(name), 2).tolist() for name in MEASURES}

    return Verdict(
        statement="before every norm hidden vectors are orthogonal to 1 on average: in a model "
        "trained with LayerNorm, in its twin with RMSNorm, and in MiniLM",
        paper="all models, with LayerNorm or RMSNorm, sit near 90 degrees in every layer",
        measured={
            **{
                name: {
                    "last loss, by seed": last[k].round(4).tolist(),
                    **table(lambda name, k=k: data[name][k, -1].mean(axis=0)),
                }
                for k, name in enumerate(TWINS)
            },
            "MiniLM": table(lambda name: data[f"minilm_{name}"]),
            "largest distance from 90, twins and MiniLM": [
                *off.max(axis=1).round(2).tolist(), round(float(off_real.max()), 2)
            ],
        },
        tolerance=f"within {typical[0]:.2g} degrees of 90 (twins) and {typical[1]:.2g} (MiniLM): "
        "one standard deviation of a random direction",
        reproduced=near,
    )  # fmt: skip
