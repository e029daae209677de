"""mu by layer under four masks: BERT as it is initialised, with and without dropout, and MiniLM.

WU's Fig. 2 and 6. Their text says that LayerNorm alone keeps mu at a stable level at
initialisation. Without noise it does not: what keeps it there is dropout, which a `BertModel` made
from a configuration applies by default (.1 of hidden states and of attention weights, in training
mode), and one made by `from_pretrained` does not (evaluation mode). That this is what they ran is a
conjecture: their code is not public. The level is predicted without a fitted number
(`dynsim.gram`).

Every network has its own weights, embedding and excerpts.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

import dynsim
from dynsim import gram, masks, minilm, mlp, norms, weights
from dynsim.results import style
from experiments import bert
from experiments.record import Verdict

PAPER = (
    "WU, arXiv 2405.18781, Fig. 2 and 6: mu by layer for SAN, SAN+skip, SAN+LN, SAN+skip+LN and "
    "the full transformer under four masks, initialised and pretrained"
)

EXTRAS = ("torch", "minilm")
SETTINGS = {
    "smoke": {"tokens": 12, "dim": 48, "heads": 4, "networks": 2, "excerpts": 1, "depth": 16,
              "pretrained": 1},
    "default": {"tokens": 128, "dim": 768, "heads": 12, "networks": 5, "excerpts": 1, "depth": 128,
                "pretrained": 16},
    "paper": {"tokens": 128, "dim": 768, "heads": 12, "networks": 5, "excerpts": 600, "depth": 128,
              "pretrained": 3000},
}  # fmt: skip

MASKS = {
    "complete": masks.complete,
    "causal": masks.causal,
    "sliding window ±1": masks.local,
    "uni-directional window 1": masks.causal_local,
}
#: Skip, LayerNorm, MLP.
VARIANTS = {
    "SAN": (0.0, False, False),
    "SAN + skip": (1.0, False, False),
    "SAN + LN": (0.0, True, False),
    "SAN + skip + LN": (1.0, True, False),
    "transformer": (1.0, True, True),
}
SAN, SKIP, LN, SKIP_LN, FULL = range(len(VARIANTS))
#: Hidden and attention dropout; BERT trains with .1 of both.
DROPOUTS = {"none": (0.0, 0.0), "hidden": (0.1, 0.0), "attention": (0.0, 0.1), "both": (0.1, 0.1)}
NONE, HIDDEN, ATTENTION, BOTH = range(len(DROPOUTS))
#: Variants whose level is predicted.
PREDICTED = {"SAN + LN": LN, "SAN + skip + LN": SKIP_LN}
#: The depth of WU's Fig. 2.
TWELVE = 12
NORM = norms.LayerNorm(eps=1e-12)
#: What a network under one mask gives.
_PARTS = ("mu", "frobenius_norm", "predicted")


def compute(settings: dict, seed: int, progress, checkpoints: Path) -> dict[str, np.ndarray]:
    """mu and ||X||_F (variant, mask, dropout, network, excerpt, depth); what is predicted of mu for
    the first excerpt of every network (`PREDICTED`, mask, dropout, network, depth); and of MiniLM
    (variant, mask, excerpt, layer)."""
    networks, depth = settings["networks"], settings["depth"]
    shape = (len(VARIANTS), len(MASKS), len(DROPOUTS), networks, settings["excerpts"], depth + 1)
    found = {name: np.empty(shape) for name in ("mu", "frobenius_norm")}
    found["predicted"] = np.empty((len(PREDICTED), *shape[1:4], depth + 1))
    jobs = [(k, mask) for k in range(networks) for mask in range(len(MASKS))]
    for done, ((k, mask), part) in enumerate(_every(jobs, settings, seed, checkpoints)):
        found["mu"][:, mask, :, k], found["frobenius_norm"][:, mask, :, k] = part[:2]
        found["predicted"][:, mask, :, k] = part[2]
        progress((done + 1) / (len(jobs) + 1))
    found["shape"] = np.array([settings["tokens"], settings["dim"]])
    names = ("pretrained_mu", "pretrained_norm")
    return found | dict(zip(names, _pretrained(settings), strict=True))


def _every(jobs, settings: dict, seed: int, checkpoints: Path):
    """(job, what it found), in any order, in as many processes as there are cores.

    A job is a network and a mask. Those done before an interruption are read, not done again.
    """
    from torch import from_numpy

    from experiments.training.checkpoints import Checkpoint

    sources = b"".join(Path(file).read_bytes() for file in (__file__, bert.__file__))
    code = hashlib.sha256(sources).hexdigest()
    workers, fresh = min(os.cpu_count() or 1, len(jobs)), get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=fresh) as pool:
        pending = {}
        for k, mask in jobs:
            file = checkpoints / f"{k}-{mask}.safetensors"
            checkpoint = Checkpoint(
                file, settings=settings, seed=seed, code=code, dynsim=dynsim.__version__
            )
            kept = checkpoint.load()
            if kept is None:
                pending[pool.submit(_one, settings, seed, k, mask)] = (k, mask), checkpoint
            else:
                yield (k, mask), tuple(kept[name].numpy() for name in _PARTS)
        for future in as_completed(pending):
            job, checkpoint = pending[future]
            part = future.result()
            checkpoint.save(
                {name: from_numpy(array) for name, array in zip(_PARTS, part, strict=True)}
            )
            yield job, part


def _one(settings: dict, seed: int, network: int, mask: int):
    """mu and norm (variant, dropout, excerpt, depth) and predictions of one network and mask."""
    n, d, heads = settings["tokens"], settings["dim"], settings["heads"]
    depth, count = settings["depth"], settings["excerpts"]
    number = 1000 * seed + network
    ids = bert.word_pieces(settings["networks"] * count, n)[network * count :][:count]
    x0 = bert.embedding(ids, d, number)
    graph, states = list(MASKS.values())[mask](n), {}
    for v, (skip, normed, perceptron) in enumerate(VARIANTS.values()):
        # without norm and skip mu falls below the range of float32
        start = x0 if normed or skip else x0.astype(np.float64)
        for p, (hidden, attention) in enumerate(DROPOUTS.values()):
            states[v, p] = start, dynsim.AttentionDynamics(
                graph, bert.Attention(d, heads, number), NORM if normed else norms.NoNorm(),
                skip=skip, mlp=bert.Perceptron(number) if perceptron else mlp.NoMLP(),
                dropout=dynsim.Dropout(hidden, attention, number),
            )  # fmt: skip
    measured = np.empty((2, len(VARIANTS), len(DROPOUTS), count, depth + 1))
    for t in range(0, depth, bert.BLOCK):  # all conditions share the layers of a block
        layers = min(bert.BLOCK, depth - t)
        for (v, p), (x, dynamics) in states.items():
            run = dynsim.simulate(
                dynamics, x, layers, record=dynsim.Record(measures=()), engine="torch",
                device="cpu", threads=1, start=t,
            )  # fmt: skip
            states[v, p] = run.state, dynamics
            measured[:, v, p, :, t : t + layers + 1] = run["mu"], run["frobenius_norm"]
    same = weights.Weights(
        weights.Gaussian(bert.SIGMA), weights.Gaussian(bert.SIGMA), heads,
        mix=(bert.SIGMA,) * heads,
    )  # fmt: skip
    predicted = [
        [gram.infinite_width(replace(states[v, p][1], weights=same), x0[0], depth).mu[0]
         for p in range(len(DROPOUTS))]
        for v in PREDICTED.values()
    ]  # fmt: skip
    return *(array.copy() for array in measured), np.array(predicted)


def _pretrained(settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """mu and ||X||_F of MiniLM's six layers, (variant, mask, excerpt, layer)."""
    n, count = settings["tokens"], settings["pretrained"]
    x0 = minilm.embed(bert.text(n * count), n, count).astype(np.float32)
    found = np.empty((2, len(VARIANTS), len(MASKS), count, minilm.N_LAYERS + 1))
    for m, mask in enumerate(MASKS.values()):
        for v, (skip, normed, perceptron) in enumerate(VARIANTS.values()):
            x = x0
            for k in range(minilm.N_LAYERS):
                whole = minilm.layer(k, mask(n))
                parts = replace(
                    whole, skip=skip, norm=whole.norm if normed else norms.NoNorm(),
                    mlp=whole.mlp if perceptron else mlp.NoMLP(),
                )  # fmt: skip
                run = dynsim.simulate(parts, x, 1, record=dynsim.Record(measures=()))
                x = run.final
                found[:, v, m, :, k : k + 2] = run["mu"], run["frobenius_norm"]
    return tuple(found)


#: Variants: SAN in grey, LayerNorm in its blue, skip connections in vermilion, both, all.
LOOKS = {
    "SAN": {"color": style.GREY, "linestyle": ":", "marker": "v"},
    "SAN + skip": {"color": style.VERMILION, "linestyle": "--", "marker": "s"},
    "SAN + LN": {"color": style.NORMS["layernorm"], "linestyle": "-", "marker": "o"},
    "SAN + skip + LN": {"color": style.GREEN, "linestyle": "-.", "marker": "D"},
    "transformer": {"color": style.BLACK, "linestyle": (0, (4, 1)), "marker": "^"},
}


def draw(data) -> Figure:
    """Rows: no dropout, hidden, attention, MiniLM. A column a mask, a line a variant, log-log."""
    figure, rows = style.panels(4, len(MASKS), height=1.66, extra=0.85)
    size = np.sqrt(np.mean(data["frobenius_norm"][LN, :, NONE, ..., 0] ** 2))
    conditions = {
        "initialised,\nno dropout": NONE,
        "initialised,\nhidden dropout .1": HIDDEN,
        "initialised,\nattention dropout .1": ATTENTION,
    }
    for row, (name, p) in zip(rows, conditions.items(), strict=False):
        for m, axes in enumerate(row):
            lines = [
                _line(axes, v, data["mu"][v, m, p].reshape(-1, data["mu"].shape[-1]))
                for v in range(len(VARIANTS))
            ]
            predicted = np.exp(np.log(data["predicted"][0, m, p]).mean(axis=0))
            lines += axes.plot(
                np.arange(1, len(predicted)),
                predicted[1:],
                color=style.SKY,
                linewidth=3.5,
                alpha=0.6,
                zorder=1,
            )
            axes.set(xscale="log", yscale="log", ylim=(size * 1e-4, size * 1e3))
            axes.tick_params(labelleft=m == 0)
        row[0].set(ylabel=f"mu\n{name}")
    for m, axes in enumerate(rows[-1]):
        _draw_minilm(axes, data, m)
        axes.tick_params(labelleft=m < 2)
    rows[-1, 0].set(ylabel="mu\nMiniLM,\nno dropout")
    for axes, name in zip(rows[0], MASKS, strict=True):
        axes.set(title=name.replace("uni-directional", "one-way"))
    for axes in rows.flat:
        axes.yaxis.set_major_locator(LogLocator(10, numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
    figure.legend(
        lines, [*LOOKS, "SAN + LN, predicted"], loc="outside lower center", ncols=len(lines)
    )
    style.letters(rows.flat)
    style.finding(figure, _headline(data))
    return figure


def _headline(data) -> str:
    alone = _layernorm_alone(data)
    if alone.only_with:
        return f"LayerNorm alone keeps mu up at initialisation only with {alone.only_with}"
    if alone.reproduced:
        return "LayerNorm alone keeps mu up at initialisation"
    return "mu by layer under four masks: parts of BERT, and of MiniLM"


def _line(axes, v: int, runs: np.ndarray) -> Line2D:
    """Geometric mean over runs, and their whole range as a band."""
    look, layers = list(LOOKS.values())[v], np.arange(1, runs.shape[1])
    shown = np.maximum(runs[:, 1:], 1e-300)
    (line,) = axes.plot(
        layers,
        np.exp(np.log(shown).mean(axis=0)),
        markevery=(0.02 + 0.05 * v, 0.25),
        **look,
    )
    axes.fill_between(
        layers, shown.min(axis=0), shown.max(axis=0), color=look["color"], alpha=0.15, linewidth=0
    )
    return line


def _draw_minilm(axes, data, m: int) -> None:
    """Means and, where they part by a factor of ten, every excerpt; grey where mu is rounding."""
    runs = data["pretrained_mu"][:, m, :, 1:]
    layers = np.arange(1, runs.shape[-1] + 1)
    for v in range(len(VARIANTS)):
        _line(axes, v, data["pretrained_mu"][v, m])
        if np.max(runs[v].max(axis=0) / runs[v].min(axis=0)) > 10:
            axes.plot(layers, runs[v].T, color=list(LOOKS.values())[v]["color"], linewidth=0.4)
    floor = 10 * float(np.finfo(np.float32).eps * np.median(data["pretrained_norm"][SAN, m, :, -1]))
    alike = runs if m == 0 else data["pretrained_mu"][:, 1:, :, 1:]  # sparser masks share an axis
    low, high = alike.min() / 2, alike.max() * 2
    axes.set(yscale="log", xlabel="layer", xticks=layers, xlim=(0.8, len(layers) + 0.2))
    if low < floor:
        axes.axhspan(low / 30, floor, color="0.9", zorder=0, linewidth=0)
        style.note(axes, "rounding (float32)", 0.03, 0.03)
        low /= 30
    axes.set_ylim(low, high)


# --- claims -------------------------------------------------------------------------------------

#: Largest factor between depth / 4 and the last layer at which mu is called stable.
STABLE = 1.5
#: mu / ||X||_F below which mu is rounding, in float64.
ROUNDING = 1e-13
#: Least mu / ||X||_F that is called significantly above zero.
ABOVE_ZERO = 0.01


def claims(data) -> list[Verdict]:
    """One verdict for each sentence of the paper about these figures."""
    return [
        _sans_collapse(data), _local_is_slower(data), _layernorm_alone(data),
        _pretrained_together(data), _skip_alone(data), _whole_is_stable(data), _level(data),
    ]  # fmt: skip


def _means(values: np.ndarray) -> np.ndarray:
    """Geometric means over networks and excerpts: the last axes but one."""
    flat = values.reshape(*values.shape[: -3 if values.ndim > 4 else -2], -1, values.shape[-1])
    return np.exp(np.log(np.maximum(flat, 1e-300)).mean(axis=-2))


def _table(values) -> dict:
    return {mask: float(f"{v:.3g}") for mask, v in zip(MASKS, values, strict=True)}


def _sans_collapse(data) -> Verdict:
    mu, size = (_means(data[name][SAN])[:, NONE] for name in ("mu", "frobenius_norm"))
    twelve = min(TWELVE, mu.shape[-1] - 1)
    share = mu[:, twelve] / mu[:, 0]
    marks = [0, twelve // 3, 2 * twelve // 3, twelve]
    falls = -np.diff(np.log(mu[:, marks]), axis=1)
    rounding = (mu < ROUNDING * size)[:, marks]
    steady = (falls[:, 1:] > falls[:, :-1] / 2) | rounding[:, 1:-1] | rounding[:, 2:]
    return Verdict(
        statement="without LayerNorm and skip mu goes to zero exponentially under all four masks",
        paper="section 5.1: in SANs mu goes to zero exponentially under all masks",
        measured={
            "mu at layer 12 over mu at 0": _table(share),
            "factor a layer": _table(share ** (1.0 / twelve)),
            "of which the length ||X|| shrinks by, a layer": float(f"{bert.SIGMA**2:.3g}"),
        },
        tolerance="below 1e-3 at layer 12; no third of these layers falls less than half as "
        "fast (in log mu) as the one before, until mu is rounding",
        reproduced=bool(steady.all() and (share < 1e-3).all()),
    )


def _local_is_slower(data) -> Verdict:
    mu = _means(data["mu"][SAN])[:, NONE]
    twelve = min(TWELVE, mu.shape[-1] - 1)
    complete, causal, window, one_way = mu[:, twelve] / mu[:, 0]
    return Verdict(
        statement="the collapse of SANs is slower under the window masks than under the causal, "
        "and slower under that than under the complete mask",
        paper="section 5.1: slower under more local masks",
        measured={"mu at layer 12 over mu at 0": _table((complete, causal, window, one_way))},
        tolerance="the order alone: the paper prints no numbers",
        reproduced=bool(complete < causal < min(window, one_way)),
    )


def _stable(data, variant: int):
    """By mask and dropout: mu at the last layer over that at a quarter of them, mu / ||X|| there,
    and whether it is stable and above zero."""
    mu, size = (_means(data[name][variant]) for name in ("mu", "frobenius_norm"))
    change, share = mu[..., -1] / mu[..., (mu.shape[-1] - 1) // 4], mu[..., -1] / size[..., -1]
    return change, share, (share > ABOVE_ZERO) & (change > 1 / STABLE) & (change < STABLE)


def _under_dropout(data, variant: int, statement: str, paper: str) -> Verdict:
    """A variant is stable under every mask: without dropout, or only with it."""
    change, share, stable = _stable(data, variant)
    which = [name for p, name in enumerate(DROPOUTS) if p != NONE and stable[:, p].all()]
    holds = bool(stable[:, NONE].all())
    return Verdict(
        statement=statement,
        paper=paper,
        measured={
            f"dropout {name}": {
                "mu / ||X|| at the last layer": _table(share[:, p]),
                "mu there over mu at a quarter of the depth": _table(change[:, p]),
            }
            for p, name in enumerate(DROPOUTS)
        },
        tolerance=f"under every mask mu / ||X|| above {ABOVE_ZERO} at the last layer, and mu there "
        f"within a factor of {STABLE} of mu at a quarter of the depth",
        reproduced=holds,
        only_with="" if holds or not which else f"dropout ({', '.join(which)})",
    )


def _layernorm_alone(data) -> Verdict:
    return _under_dropout(
        data, LN, "at initialisation LayerNorm alone keeps mu at a stable level above zero, under "
        "all four masks and in all layers",
        "section 5.1 and Fig. 6: LN alone keeps mu at a stable level significantly above zero; no "
        "decreasing trend in 128 layers",
    )  # fmt: skip


def _whole_is_stable(data) -> Verdict:
    return _under_dropout(
        data, FULL, "at initialisation mu of the full transformer is stable, under all four masks",
        "section 5.1: in the full transformer mu is stable",
    )  # fmt: skip


def _pretrained_together(data) -> Verdict:
    mu, size = (_means(data[f"pretrained_{name}"]) for name in ("mu", "norm"))
    share = (mu / size)[..., -1]  # variant, mask
    together = share[FULL] > share[[LN, SKIP, SKIP_LN]].max(axis=0)
    return Verdict(
        statement="in a pretrained model LayerNorm together with all other components keeps more "
        "of mu / ||X|| than alone, than the skip connection alone, and than both without the MLP",
        paper="section 5.1: in pretrained models LN helps together with other components",
        measured={f"mu / ||X|| after MiniLM's layer 6, {variant}": _table(share[v])
                  for v, variant in enumerate(VARIANTS)},
        tolerance="the order alone, under every mask; MiniLM (6 layers, d = 384), not "
        "bert-base-uncased; the transformer without its LayerNorms is not measured",
        reproduced=bool(together.all()),
    )  # fmt: skip


def _skip_alone(data) -> Verdict:
    change = _stable(data, SKIP)[0][:, NONE]
    trained = _means(data["pretrained_mu"][SKIP])
    return Verdict(
        statement="at initialisation the skip connection alone makes mu unstable in deep layers, "
        "under all four masks",
        paper="section 5.1: skip connections alone make mu unstable in deep layers",
        measured={
            "mu at the last layer over mu at a quarter of the depth": _table(change),
            "MiniLM, mu after layer 6 over mu at 0": _table(trained[:, -1] / trained[:, 0]),
        },
        tolerance=f"by more than the factor of {STABLE} up to which the others are called stable",
        reproduced=bool(((change > STABLE) | (change < 1 / STABLE)).all()),
    )


def _level(data) -> Verdict:
    """Ours: the levels that noise leaves are those of infinite width."""
    later = slice(data["mu"].shape[-1] * 3 // 4, None)
    measured = data["mu"][LN, :, HIDDEN, :, 0, later].mean(axis=(-1, -2))
    predicted = data["predicted"][0, :, HIDDEN, :, later].mean(axis=(-1, -2))
    n, d = data["shape"]
    error = 0.02 * (768 / d) ** 0.5
    return Verdict(
        statement="under hidden dropout of .1 the level at which SAN + LN stays is that of "
        "infinite width for the complete mask, sqrt((N - 1) d p), and for the causal one",
        paper="dynsim, lemma dropout-level; not in the paper, which names no dropout",
        measured={
            "mean mu over the last quarter of the layers": _table(measured),
            "predicted": _table(predicted),
            "sqrt((N - 1) d p)": float(f"{((n - 1) * d * 0.1) ** 0.5:.4g}"),
        },
        tolerance=f"{error:.2g} of it (the window masks relax over thousands of layers)",
        reproduced=bool((np.abs(measured / predicted - 1.0) < error)[:2].all()),
    )
