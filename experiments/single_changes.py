"""Which single change saves a random network of 128 layers: one row a change.

Two networks, each changed in one thing at a time: attention alone (complete mask, no skip
connection, no norm, no MLP), which collapses, and a block as it is built today (causal mask,
RMSNorm before attention and MLP, skip connection of weight 1), which does not. Weights are
Gaussian, fresh in every layer, scores of variance 1, H = 4 heads. What is shown is
log10(mu / ||X||_F) after the last layer, and kept means more than `KEPT` of it. Where the engine
logscale applies it is exact far below the floor of float64; elsewhere what lies at that floor is
an upper bound, and drawn as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import dynsim
from dynsim import attention, gates, masks, mlp, norms, positions, residual, tokens, weights
from dynsim.engines import preferred
from dynsim.network.schedules import Linear
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "DONG, arXiv 2103.03404 (skip connections and MLPs stop the collapse of attention, layer "
    "normalisation does not); NOCI, arXiv 2206.03126 (branches scaled by 1 / sqrt(L)); WU, arXiv "
    "2405.18781 (sparser masks slow it)"
)

#: There are none as published: none of the papers compares single changes.
SETTINGS = {
    "smoke": {"tokens": 16, "dim": 24, "heads": 4, "networks": 1, "depth": 128},
    "default": {"tokens": 64, "dim": 64, "heads": 4, "networks": 8, "depth": 128},
}

#: Share of ||X||_F above which mu is kept; below `ROUNDING` it is rounding in float64.
KEPT, ROUNDING = 1e-2, 1e-13
#: Decades up to which two values of mu / ||X|| are the same.
SAME = 0.1
#: What a change changes, and the colour of its rows.
FAMILIES = {
    "mask": style.GREEN,
    "skip and branch": style.BLUE,
    "norm": style.VERMILION,
    "scores": style.PINK,
    "dropout": style.ORANGE,
    "MLP, gates": style.GREY,
}
#: The names of the two networks in the data, and in words.
STARTS = {"alone": "attention alone", "block": "pre-norm block"}
#: Where a panel has room for a note, in shares of it.
CORNERS = {"alone": (0.97, 0.03), "block": (0.03, 0.97)}
#: Largest gain of the scores that is tried.
SHARP = 16.0


@dataclass(frozen=True)
class Change:
    """What a row changes: fields of the dynamics, and of its weights."""

    family: str
    fields: dict[str, Any]
    of_weights: dict[str, Any]
    schedule: Linear | None = None


def _change(family: str, schedule: Linear | None = None, **given) -> Change:
    of_weights = {name: given.pop(name) for name in ("beta", "value") if name in given}
    return Change(family, given, of_weights, schedule)


def changes(n: int, depth: int) -> dict[str, dict[str, Change]]:
    """Every change by the network it is made in and its name."""
    layer_norm, rms = norms.LayerNorm(), norms.RMSNorm()
    scores = {
        "QK-norm, gain 1": _change("scores", qk_norm=attention.QKNorm(1.0, "rms")),
        "QK-norm, gain 16": _change("scores", qk_norm=attention.QKNorm(SHARP, "rms")),
        "scores × 16": _change("scores", beta=SHARP),
        "scores × 1 to 16 by layer": _change("scores", Linear(1.0, SHARP, depth)),
        "sink, logit 0": _change("scores", kind=attention.Softmax(sink=0.0)),
        "sink, logit 4": _change("scores", kind=attention.Softmax(sink=4.0)),
        "sigmoid for softmax": _change("scores", kind=attention.Sigmoid()),
        "softpick for softmax": _change("scores", kind=attention.Softpick()),
        "hardmax for softmax": _change("scores", kind=attention.Hardmax()),
        "RoPE": _change("scores", position=positions.RoPE()),
        "ALiBi": _change("scores", position=positions.ALiBi()),
    }
    around = {
        "hidden dropout .1": _change("dropout", dropout=dynsim.Dropout(hidden=0.1)),
        "attention dropout .1": _change("dropout", dropout=dynsim.Dropout(attention=0.1)),
        "gates": _change("MLP, gates", gate=gates.GaussianGate()),
        "orthogonal values": _change("MLP, gates", value=weights.Orthogonal()),
    }
    branches = {
        "skip 4 = DeepNorm's weight": _change("skip and branch", skip=residual.deepnorm(depth)),
        "branch / √L": _change("skip and branch", skip=residual.depth_scaled(depth)),
        "LayerScale .1": _change("skip and branch", skip=residual.layer_scale(0.1)),
    }
    alone = {
        "as it is": _change("as it is"),
        "causal mask": _change("mask", mask=masks.causal(n)),
        "window ±1": _change("mask", mask=masks.local(n)),
        "one-way window 1": _change("mask", mask=masks.causal_local(n)),
        "skip 1": _change("skip and branch", skip=1.0),
        **branches,
        "skip 1, LayerNorm before": _change("skip and branch", skip=1.0, norm=layer_norm,
                                            placement="pre"),
        "skip 1, LayerNorm after": _change("skip and branch", skip=1.0, norm=layer_norm),
        "DeepNorm": _change("skip and branch", skip=residual.deepnorm(depth), norm=layer_norm),
        "LayerNorm after": _change("norm", norm=layer_norm),
        "LayerNorm before": _change("norm", norm=layer_norm, placement="pre"),
        "RMSNorm after": _change("norm", norm=rms),
        "DyT after": _change("norm", norm=norms.DyT()),
        **scores,
        **around,
        "MLP": _change("MLP, gates", mlp=mlp.GaussianMLP()),
    }  # fmt: skip
    block = {
        "as it is": _change("as it is"),
        "complete mask": _change("mask", mask=masks.complete(n)),
        "window ±1": _change("mask", mask=masks.local(n)),
        "no skip": _change("skip and branch", skip=0.0),
        **branches,
        "norm after the skip": _change("norm", placement="post"),
        "norm before and in the branch": _change("norm", placement="peri"),
        "nGPT's norms and steps": _change("skip and branch", skip=residual.lerp(),
                                          norm=norms.Unit(), placement="ngpt"),
        "Mix-LN": _change("norm", placement=residual.mix_ln(layers=depth)),
        "RMSNorm / √layer": _change("norm", norm=norms.ln_scaling(rms, depth)),
        "DeepNorm": _change("skip and branch", skip=residual.deepnorm(depth), placement="post"),
        "no norm": _change("norm", norm=norms.NoNorm()),
        "LayerNorm": _change("norm", norm=layer_norm),
        "DyT": _change("norm", norm=norms.DyT()),
        **scores,
        **around,
        "no MLP": _change("MLP, gates", mlp=mlp.NoMLP()),
    }  # fmt: skip
    return {"alone": alone, "block": block}


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """By network to begin with: names, families, log10(mu / ||X||) after the last layer (change,
    network), the same from equal tokens (NaN without dropout), and whether mu is followed below the
    floor of float64."""
    n, depth = settings["tokens"], settings["depth"]
    found: dict[str, np.ndarray] = {}
    for k, (start, rows) in enumerate(changes(n, depth).items()):
        share = np.empty((len(rows), settings["networks"]))
        equal, below = np.full(share.shape, np.nan), np.zeros(len(rows), bool)
        for i, change in enumerate(rows.values()):
            for j in range(settings["networks"]):
                number = 1000 * seed + j
                dynamics = network(settings, start, change, number)
                x0 = tokens.gaussian(1, n, settings["dim"], number)
                share[i, j], below[i] = _followed(dynamics, x0, depth)
                if dynamics.dropout.active:
                    equal[i, j], _ = _followed(dynamics, np.repeat(x0[:, :1], n, axis=1), depth)
            progress((k + (i + 1) / len(rows)) / 2)
        found |= {
            f"{start}_names": np.array(list(rows)),
            f"{start}_families": np.array([change.family for change in rows.values()]),
            f"{start}_share": share, f"{start}_equal": equal, f"{start}_below": below,
        }  # fmt: skip
    return found | {"depth": np.array(depth)}


def network(settings: dict, start: str, change: Change, number: int) -> dynsim.AttentionDynamics:
    """One of the two networks, changed; the number is that of its weights."""
    n = settings["tokens"]
    fields: dict[str, Any] = {"mask": masks.complete(n)}
    if start == "block":
        fields = {
            "mask": masks.causal(n), "skip": 1.0, "norm": norms.RMSNorm(), "placement": "pre",
            "mlp": mlp.GaussianMLP(seed=number),
        }  # fmt: skip
    drawn: weights.LayerSource = weights.Weights(
        **change.of_weights, n_heads=settings["heads"], seed=number
    )
    if change.schedule is not None:
        drawn = weights.Sharpened(drawn, change.schedule)
    return dynsim.AttentionDynamics(weights=drawn, **fields | change.fields)


def _followed(dynamics, x0: np.ndarray, depth: int) -> tuple[float, bool]:
    """log10(mu / ||X||) in the end, and whether it is followed below the floor of float64.

    By the engine that knows most: below the floor, compiled, or the definition itself.
    """
    engine, _ = preferred(dynamics, x0.dtype)
    engine = "reference" if engine == "torch" else engine  # which has the same numbers
    run = dynsim.simulate(dynamics, x0, depth, record=dynsim.Record(measures=()), engine=engine)
    size = run["frobenius_norm"][0, -1]
    share = run["log10_mu"][0, -1] - np.log10(size) if size > 0 else -np.inf
    return float(share), engine == "logscale"


# --- reading --------------------------------------------------------------------------------------


def shares(data, start: str) -> dict[str, float]:
    """The median of log10(mu / ||X||) over networks, by change; -inf where tokens are equal."""
    median = np.median(data[f"{start}_share"], axis=1)
    return {str(name): float(v) for name, v in zip(data[f"{start}_names"], median, strict=True)}


def _of_family(data, start: str, *families: str) -> dict[str, float]:
    known = dict(zip(data[f"{start}_names"], data[f"{start}_families"], strict=True))
    return {name: v for name, v in shares(data, start).items() if known[name] in families}


def is_kept(log_share: float) -> bool:
    return bool(log_share > np.log10(KEPT))


# --- figure ---------------------------------------------------------------------------------------

#: Decades lost at which the scale turns from linear to logarithmic, and then to a coarser one.
_LINEAR, _FINE = 1.0, 100.0
#: Where the floor of float64 is drawn.
_FLOOR = 16.0
_TICKS = {0: "0", 0.5: "−.5", 1: "−1", 2: "−2", 5: "−5", 16: "−16", 100: "−100",
          1e60: "−10⁶⁰"}  # fmt: skip


def _place(lost) -> np.ndarray:
    """Where decades lost stand on the axis."""
    lost = np.maximum(np.asarray(lost, float), 0.0)
    with np.errstate(divide="ignore"):
        logarithm = np.log10(np.maximum(lost, _LINEAR))
    fine = np.minimum(logarithm, np.log10(_FINE))
    return -(np.minimum(lost, _LINEAR) + 0.8 * fine + 0.011 * (logarithm - fine))


def draw(data) -> Figure:
    """A panel for each network to begin with: a row a change, sorted; every network a dot."""
    rows = max(len(data[f"{start}_names"]) for start in STARTS)
    figure, (panels,) = style.panels(1, 2, height=0.155 * rows + 0.4, extra=0.75)
    for axes, start in zip(panels, STARTS, strict=True):
        _draw_changes(axes, data, start)
    panels[0].set_title("attention alone, and one thing")
    panels[1].set_title("pre-norm block, one change")
    style.letters(panels)
    marks = [
        Line2D([], [], linestyle="", marker="s", markersize=4, color=colour, label=name)
        for name, colour in FAMILIES.items()
    ]
    marks += [
        Line2D([], [], linestyle="", marker=mark, fillstyle="none", color="0.3", label=label)
        for mark, label in (
            ("<", "at or below float64's floor"),
            ("x", "as much from equal tokens"),
        )
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4)
    style.finding(figure, _headline(data))
    return figure


def _headline(data) -> str:
    norm, scores, block, noise = (
        claim(data).reproduced for claim in (_norms, _scores, _block, _noise)
    )
    depth = int(data["depth"])
    if norm and scores and block:
        return (
            f"What saves {depth} random layers is a small branch beside the skip or a window mask; "
            "no norm does alone, and nothing done to scores" + "; dropout adds noise" * noise
        )
    return f"mu after {depth} random layers, by single changes"


def _draw_changes(axes, data, start: str) -> None:
    names, families = data[f"{start}_names"], data[f"{start}_families"]
    lost = -data[f"{start}_share"]
    middle = np.median(lost, axis=1)
    bounds = ~data[f"{start}_below"] & (middle > -np.log10(ROUNDING))
    order = np.argsort(np.where(bounds, _FLOOR, middle), kind="stable")
    at_start = float(np.median(lost[list(names).index("as it is")]))
    axes.axvline(_place(at_start), color="0.2", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    axes.axvspan(_place(-np.log10(KEPT)), 0.1, color="0.955", linewidth=0, zorder=0)
    style.note(axes, f"grey: more than {KEPT:.0%} kept\ndashed: as it is", *CORNERS[start])
    for row, i in enumerate(order):
        colour = FAMILIES.get(str(families[i]), "black")
        if bounds[i]:
            axes.plot(_place(_FLOOR), row, "<", fillstyle="none", color=colour, markersize=4)
        else:
            noise = families[i] == "dropout" and _is_noise(data, start, int(i))
            _draw_row(axes, row, lost[i], colour, "x" if noise else "o")
    axes.set_yticks(range(len(order)), names[order], fontsize=6)
    for label, i in zip(axes.get_yticklabels(), order, strict=True):
        label.set_color(FAMILIES.get(str(families[i]), "black"))
        label.set_fontweight("bold" if names[i] == "as it is" else "normal")
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(False, axis="y")
    furthest = max(_FLOOR, float(np.max(lost[np.isfinite(lost)])))
    ticks = [tick for tick in _TICKS if tick <= furthest]
    axes.set_xticks(_place(ticks), [_TICKS[tick] for tick in ticks], fontsize=6)
    axes.set_xlim(_place(furthest) - 0.12, 0.08)
    axes.set_xlabel(f"log₁₀ (mu / ‖X‖) after layer {int(data['depth'])}", fontsize=7)


def _draw_row(axes, row: int, lost: np.ndarray, colour, mark: str) -> None:
    """Every network a dot, their range a line, and the median a larger mark."""
    axes.plot(_place(lost), np.full(lost.shape, row), ".", color=colour, markersize=2.5, alpha=0.6)
    axes.hlines(row, *_place([lost.min(), lost.max()]), color=colour, linewidth=0.8)
    axes.plot(_place(np.median(lost)), row, marker=mark, color=colour, markersize=4)


def _is_noise(data, start: str, i: int) -> bool:
    """Equal tokens end as far apart as different ones: what there is of mu, dropout has made."""
    apart = data[f"{start}_equal"][i] - data[f"{start}_share"][i]
    return bool(abs(np.median(apart)) < SAME)


# --- claims ---------------------------------------------------------------------------------------


def _table(found: dict[str, float]) -> dict:
    return {name: _short(v) for name, v in found.items()}


def _short(log_share: float) -> float | str:
    if not np.isfinite(log_share):
        return "all tokens equal in float64"
    return float(f"{log_share:.3g}")


def claims(data) -> list[Verdict]:
    """DONG's two sentences, NOCI's and WU's, and ours."""
    return [_dong(data), _norms(data), _noci(data), _scores(data), _block(data), _noise(data),
            _masks(data)]  # fmt: skip


_MEASURE = "log10(mu / ||X||) after the last layer, median over networks"
_TOLERANCE = f"kept: more than {KEPT:g} of ||X||, median over networks"


def _dong(data) -> Verdict:
    found = shares(data, "alone")
    holds = is_kept(found["skip 1"]) and is_kept(found["MLP"])
    helped = [name for name in ("skip 4 = DeepNorm's weight", "branch / √L",
                                "skip 1, LayerNorm before") if is_kept(found[name])]  # fmt: skip
    return Verdict(
        statement="a skip connection of weight 1, and an MLP, each added to attention alone, stop "
        "its collapse",
        paper="DONG, abstract: skip connections and MLPs stop the output from degeneration",
        measured={_MEASURE: _table({name: found[name] for name in (
            "as it is", "skip 1", "MLP", "skip 4 = DeepNorm's weight", "branch / √L",
            "skip 1, LayerNorm before", "skip 1, LayerNorm after")})},
        tolerance=_TOLERANCE,
        reproduced=holds,
        only_with="" if holds or not helped else (
            "a smaller branch beside the skip connection (" + "; ".join(helped) + "), and not for "
            "the MLP"
        ),
    )  # fmt: skip


def _norms(data) -> Verdict:
    found = _of_family(data, "alone", "norm")
    return Verdict(
        statement="a norm alone, of any kind and before or after attention, does not stop it",
        paper="DONG, section 3: layer normalisation plays no role; WU find counterexamples for "
        "orthogonal and special weights, and sparser masks",
        measured={_MEASURE: _table(found)},
        tolerance=f"none keeps {KEPT:g} of ||X||; complete mask, random weights",
        reproduced=not any(map(is_kept, found.values())),
    )


def _noci(data) -> Verdict:
    name = "branch / √L"
    found = {STARTS[start]: shares(data, start) for start in STARTS}
    return Verdict(
        statement="branches divided by sqrt(L) beside a skip connection stop it, in both networks",
        paper="NOCI: 1 / sqrt(L) scaling of the branches prevents rank collapse at initialisation",
        measured={f"{start}: {_MEASURE}": _table({row: v[row] for row in ("as it is", name)})
                  for start, v in found.items()},
        tolerance="more than half of ||X||, median over networks",
        reproduced=all(v[name] > np.log10(0.5) for v in found.values()),
    )  # fmt: skip


def _scores(data) -> Verdict:
    found = _of_family(data, "alone", "scores")
    return Verdict(
        statement="nothing done to scores or to how they become weights saves attention alone: "
        "QK-norm, sharper scores, sinks, positions, other kinds of attention",
        paper="ours; no paper compares them",
        measured={_MEASURE: _table(found)},
        tolerance=f"none keeps {KEPT:g} of ||X||, median over networks",
        reproduced=not any(map(is_kept, found.values())),
    )


def _block(data) -> Verdict:
    found = shares(data, "block")
    lost = {name: v for name, v in found.items() if not is_kept(v)}
    expected = {"no skip", "no norm", "norm after the skip", "Mix-LN"}
    gained = {
        name: found[name] - found["as it is"]
        for name in (
            "skip 4 = DeepNorm's weight",
            "branch / √L",
            "LayerScale .1",
            "RMSNorm / √layer",
        )
    }
    return Verdict(
        statement="a pre-norm block keeps mu, and loses it by four of the changes alone: without "
        "the skip connection, without the norm, with the norm after the skip, or so in the first "
        "quarter (Mix-LN); a smaller branch beside the skip keeps more than the block itself",
        paper="ours; no paper compares them",
        measured={
            f"lost; {_MEASURE}": _table(lost),
            "the block as it is": _short(found["as it is"]),
            "gained by smaller branches, in log10": _table(gained),
        },
        tolerance=f"{_TOLERANCE}; gains above 0",
        reproduced=set(lost) == expected and min(gained.values()) > 0,
    )


def _noise(data) -> Verdict:
    rows = np.flatnonzero(data["alone_families"] == "dropout")
    names = [str(data["alone_names"][i]) for i in rows]
    found = shares(data, "alone")
    equal = np.median(data["alone_equal"][rows], axis=1)
    return Verdict(
        statement="dropout keeps mu of attention alone, but all of it is noise: tokens that are "
        "equal in the beginning end as far apart as different ones",
        paper="ours; compare masks_and_layernorm for the level",
        measured={
            _MEASURE: _table({name: found[name] for name in names}),
            "the same from equal tokens": _table(dict(zip(names, equal, strict=True))),
        },
        tolerance=f"{_TOLERANCE}; {SAME:g} in log10 from equal tokens",
        reproduced=all(is_kept(found[name]) and _is_noise(data, "alone", int(i))
                       for name, i in zip(names, rows, strict=True)),
    )  # fmt: skip


def _masks(data) -> Verdict:
    found = shares(data, "alone")
    order = ["as it is", "causal mask", "one-way window 1", "window ±1"]
    values = [found[name] for name in order]
    return Verdict(
        statement="sparser masks slow the collapse of attention alone: complete, causal, one-way "
        "window, window, from fast to slow",
        paper="WU, section 3: slower under sparser masks, by the radius of the graph",
        measured={_MEASURE: _table({name: found[name] for name in order})},
        tolerance="the order of complete, causal and the windows",
        reproduced=bool(values[0] < values[1] < min(values[2:])),
    )
