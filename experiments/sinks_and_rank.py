"""Sinks and rank: one massive token makes a matrix look like rank one, while nothing has collapsed.

Let one row of X have M = ||x_0||^2 and the others R together, of which the share alpha lies along
x_0. Then sigma_1^2 >= ||X x_0||^2 / M = M + alpha R, so that

    stable rank = ||X||_F^2 / sigma_1^2 <= (M + R) / (M + alpha R),

next to 1 once M is large beside R, whatever the other tokens do. The networks are random: causal
mask, RMSNorm with eps = 0 before attention, skip of weight 1 unless said otherwise. A massive token
is made by adding to the first one, and a sink by the softmax's extra logit (`Softmax(sink=b)`).

What a sink does without a skip: it multiplies row i of head h by 1 - (its share), which depends on
the query, to first order. With one head the norm undoes that; with several it mixes the heads for
every token in another way, which averaging does not take back.
"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import dynsim
from dynsim import attention, masks, measures, norms, tokens, weights
from dynsim.results import style
from experiments.record import Verdict

PAPER = (
    "Queipo-de-Llano et al., arXiv 2510.06477: massive activations of the first token force "
    "compression (one singular value dominates, entropy falls), and come with attention sinks"
)

#: There are none as published: the paper measures trained models that cannot be had here.
SETTINGS = {
    "smoke": {"tokens": 16, "dim": 16, "heads": 4, "networks": 2, "depth": 12,
              "factors": [1, 10, 100, 1000], "logits": [-4, 0, 4, 8]},
    "default": {"tokens": 64, "dim": 64, "heads": 4, "networks": 8, "depth": 24,
                "factors": [1, 2, 3, 5, 10, 20, 30, 50, 100, 300, 1000],
                "logits": [-4, -2, 0, 1, 2, 3, 4, 5, 6, 8, 10]},
}  # fmt: skip

#: The layers between which the massive token is there, in shares of the depth.
VALLEY = (1 / 3, 2 / 3)
#: Size of what is added to the first token there, in terms of sqrt(d).
MASSIVE = 100.0
#: What of a state is measured, with all tokens and without the first.
MEASURES = ("stable rank", "entropy", "share")
STABLE_RANK, ENTROPY, SHARE = range(len(MEASURES))
WHOLE, OTHERS = 0, 1
#: Norm, skip, and whether there is one head, of the networks whose sinks are compared.
NETWORKS = {
    "pre-norm,\nskip 1": ("pre", 1.0, False),
    "post-norm,\nno skip": ("post", 0.0, False),
    "the same,\none head": ("post", 0.0, True),
}
BLOCK, BARE, ONE_HEAD = range(len(NETWORKS))
#: What stands before attention where the first token is massive.
BEFORE = ("RMSNorm before attention", "no norm")


def compute(settings: dict, seed: int, progress) -> dict[str, np.ndarray]:
    """Of a massive first token, by its factor: measures after the last layer (factor, network,
    whole or others, measure), the bound on the stable rank (factor, network), and the attention
    that the others pay to it in layer 1 (norm, factor, network). Of one that comes and goes:
    measures by layer (network, layer, whole or others, measure). Of sinks, by logit, without first:
    share of attention on the sink and on the first token, mean over layers (of what, logit,
    network), and measures after the last layer (network kind, logit, network, whole or others,
    measure)."""
    factors, logits = settings["factors"], [None, *settings["logits"]]
    count, depth = settings["networks"], settings["depth"]
    massive = np.empty((len(factors), count, 2, len(MEASURES)))
    bound, first = np.empty((len(factors), count)), np.empty((2, len(factors), count))
    for j in range(count):
        x0 = _tokens(settings, seed, j)
        block, plain = (
            _network(settings, seed, j, *around) for around in (("pre", 1.0), (None, 1.0))
        )
        for i, factor in enumerate(factors):
            begun = x0.copy()
            begun[0] *= factor
            end = _after(block, begun, depth)
            massive[i, j], bound[i, j] = _measured(end), stable_rank_bound(end)
            first[:, i, j] = [_on_first(d.attention(begun)) for d in (block, plain)]
    progress(0.3)
    valley = np.stack([_valley(settings, seed, j) for j in range(count)])
    progress(0.4)
    paid = np.empty((2, len(logits), count))
    sinks = np.empty((len(NETWORKS), len(logits), count, 2, len(MEASURES)))
    for i, logit in enumerate(logits):
        for j in range(count):
            x0 = _tokens(settings, seed, j)
            for k, around in enumerate(NETWORKS.values()):
                dynamics = _network(settings, seed, j, *around, logit)
                sinks[k, i, j] = _measured(_after(dynamics, x0, depth))
                if k == BLOCK:
                    paid[:, i, j] = _attention_paid(dynamics, x0, depth)
        progress(0.4 + 0.6 * (i + 1) / len(logits))
    return {
        "factors": np.array(factors, float), "massive": massive, "bound": bound, "first": first,
        "valley": valley, "logits": np.array(settings["logits"], float), "paid": paid,
        "sinks": sinks, "tokens": np.array(settings["tokens"]),
    }  # fmt: skip


def _tokens(settings: dict, seed: int, number: int) -> np.ndarray:
    return tokens.gaussian(1, settings["tokens"], settings["dim"], 1000 * seed + number)[0]


def _network(
    settings: dict, seed: int, number: int, placement: str | None, skip: float,
    one_head: bool = False, logit: float | None = None,
) -> dynsim.AttentionDynamics:  # fmt: skip
    """RMSNorm at this place, or no norm; a sink with this logit, or none."""
    return dynsim.AttentionDynamics(
        masks.causal(settings["tokens"]),
        weights.Weights(n_heads=1 if one_head else settings["heads"], seed=1000 * seed + number),
        norms.NoNorm() if placement is None else norms.RMSNorm(eps=0.0),
        placement or "post", skip=skip, kind=attention.Softmax(sink=logit),
    )  # fmt: skip


def _after(dynamics, x: np.ndarray, layers: int, start: int = 0) -> np.ndarray:
    record = dynsim.Record(measures=())
    return dynsim.simulate(dynamics, x, layers, record=record, start=start).final[0]


def _attention_paid(dynamics, x: np.ndarray, depth: int) -> np.ndarray:
    """The shares of attention on the sink and on the first token, means over layers."""
    shares = []
    for t in range(depth):
        A = dynamics.attention(x, t)
        shares.append((1.0 - A.sum(axis=-1).mean(), _on_first(A)))
        x = _after(dynamics, x, 1, t)
    return np.mean(shares, axis=0)


def _on_first(A: np.ndarray) -> float:
    """The share of attention, (H, N, N), that the other tokens pay to the first."""
    return float(A[:, 1:, 0].mean())


def _valley(settings: dict, seed: int, number: int) -> np.ndarray:
    """Measures by layer, where the first token is massive between two layers."""
    dynamics = _network(settings, seed, number, "pre", 1.0)
    x, depth, d = _tokens(settings, seed, number), settings["depth"], settings["dim"]
    added = MASSIVE * d**0.5 * _tokens(settings, seed + 1, number)[0]
    added /= np.linalg.norm(added) / (MASSIVE * d**0.5)
    low, high = (round(share * depth) for share in VALLEY)
    found = [_measured(x)]
    for t in range(depth):
        x = x.copy()
        x[0] += added * ((t == low) - (t == high))
        x = _after(dynamics, x, 1, t)
        found.append(_measured(x))
    return np.stack(found)


def _measured(x: np.ndarray) -> np.ndarray:
    """(whole or others, measure)."""
    return np.array([
        (measures.stable_rank(z), entropy(z),
         np.log10(measures.mu(z) / measures.frobenius_norm(z)))
        for z in (x, x[1:])
    ], float)  # fmt: skip


def entropy(x: np.ndarray) -> float:
    """Of sigma_k^2 / ||X||_F^2, over its largest value, log min(N, d): the paper's, 0 to 1.

    >>> entropy(np.eye(4))
    1.0
    """
    squares = np.linalg.svd(x, compute_uv=False) ** 2
    p = squares[squares > 0] / squares.sum()
    return float(-np.sum(p * np.log(p)) / np.log(min(x.shape)))


def stable_rank_bound(x: np.ndarray) -> float:
    """(M + R) / (M + alpha R) of the head of this file, for the first row.

    >>> stable_rank_bound(np.eye(3))
    3.0
    """
    along = x @ x[0] / np.linalg.norm(x[0])
    return float(np.sum(x * x) / np.sum(along * along))


# --- figure ---------------------------------------------------------------------------------------

#: All tokens, and those without the first.
TOKENS = {
    "all tokens": {"color": style.BLACK, "linestyle": "-"},
    "without\nthe first": {"color": style.SKY, "linestyle": "--"},
}
SHARES = {
    "sink": {"color": style.MASKS["sinks"], "linestyle": "-"},
    "first\ntoken": {"color": style.WINE, "linestyle": "--"},
}
BEFORES = {
    "RMSNorm": {"color": style.NORMS["rms"], "linestyle": "-"},
    "no norm": {"color": style.NORMS["none"], "linestyle": "--"},
}
KINDS = {
    name: {"color": colour, "linestyle": dash}
    for name, colour, dash in zip(
        NETWORKS, (style.GREEN, style.PINK, style.ORANGE), style.DASHES, strict=False
    )
}


def draw(data) -> Figure:
    """A massive token: rank by its size, by layer, and attention; sinks: attention, mu and rank."""
    figure, rows = style.panels(2, 3, height=2.0)
    (rank, valley, first), (paid, share, kept) = rows
    factors, logits = data["factors"], data["logits"]
    stable = np.moveaxis(data["massive"][..., STABLE_RANK], -1, 0)  # tokens, factor, network
    rank.plot(factors, np.median(data["bound"], axis=1), color="0.4", linewidth=0.9, linestyle=":")
    rank.set(xscale="log", xlabel="first token × factor", ylabel="stable rank",
             ylim=(0, 1.1 * stable.max()), title="rank, last layer")  # fmt: skip
    _lines(rank, factors, stable, TOKENS)
    style.note(rank, "dots: bound", 0.03, 0.04)
    entropies = np.moveaxis(data["valley"][..., ENTROPY], 0, -1)  # layer, tokens, network
    valley.set(xlabel="layer", ylabel="entropy (0 to 1)", title="singular values by layer",
               ylim=(0, 1))  # fmt: skip
    _lines(valley, np.arange(len(entropies)), np.moveaxis(entropies, 1, 0), TOKENS)
    first.set(xscale="log", xlabel="first token × factor", ylabel="share of attention on it",
              title="attention, layer 1", ylim=(0, 0.7))  # fmt: skip
    _lines(first, factors, data["first"], BEFORES)
    paid.plot(logits, uniform_sink(logits, int(data["tokens"])), color="0.4", linewidth=0.9,
              linestyle=":")  # fmt: skip
    paid.set(xlabel="sink logit", ylabel="share of attention", title="attention", ylim=(0, 1.02))
    _lines(paid, logits, data["paid"][:, 1:], SHARES)
    style.note(paid, "dots: equal scores", 0.03, 0.96)
    sinks = data["sinks"][:, :, :, WHOLE]
    for axes, measure, label in ((share, SHARE, "log₁₀ (mu / ‖X‖)"),
                                 (kept, STABLE_RANK, "stable rank")):  # fmt: skip
        for k, look in enumerate(KINDS.values()):
            axes.axhline(np.median(sinks[k, 0, :, measure]), color=look["color"], linewidth=0.7,
                         linestyle=":")  # fmt: skip
        axes.set(xlabel="sink logit", ylabel=label,
                 title="mu, last layer" if measure == SHARE else "rank, last layer")  # fmt: skip
        _lines(axes, logits, sinks[:, 1:, :, measure], KINDS)
    style.note(share, "dots: no sink", 0.97, 0.4)
    style.letters(rows.flat)
    forced, attracts, slows = (claim(data).reproduced for claim in (_forced, _no_sink, _slows))
    style.finding(
        figure,
        "One massive token makes the stable rank 1 while the others stay apart; a sink keeps "
        "tokens apart, without a skip too, if there are several heads"
        if forced and attracts and slows
        else "A massive first token, and sinks, in random networks",
    )
    return figure


def _lines(axes, x: np.ndarray, runs: np.ndarray, looks: dict) -> None:
    """Every network a thin line, the median a thick one with its name. runs (line, x, network)."""
    named = {}
    for of_line, (name, look) in zip(runs, looks.items(), strict=True):
        axes.plot(x, of_line, color=look["color"], linewidth=0.3, alpha=0.5)
        named[name] = axes.plot(x, np.median(of_line, axis=1), **look)[0]
    axes.set_xlim(x[0], x[-1])
    style.name_lines(axes, named)


def uniform_sink(logits: np.ndarray, n: int) -> np.ndarray:
    """The mean share of a sink where all scores are 0: e^b / (i + e^b), token i sees i tokens."""
    seen = np.arange(1, n + 1)
    return np.mean(1.0 / (1.0 + seen * np.exp(-np.asarray(logits)[:, None])), axis=1)


# --- claims ---------------------------------------------------------------------------------------


def claims(data) -> list[Verdict]:
    """The paper's mechanism, the valley, the sinks that come with it, and what sinks do to mu."""
    return [_forced(data), _comes_and_goes(data), _no_sink(data), _slows(data)]


def _round(value) -> float:
    return float(f"{float(value):.4g}")


def _forced(data) -> Verdict:
    rank = data["massive"][..., STABLE_RANK]
    share = data["massive"][..., OTHERS, SHARE]
    above = float(np.max(rank[..., WHOLE] / data["bound"]))
    largest = rank[-1, :, WHOLE]
    kept = np.median(rank[-1, :, OTHERS] / rank[0, :, OTHERS])
    return Verdict(
        statement="one massive token forces the stable rank to 1, within the bound, while the "
        "other tokens neither collapse nor lose rank",
        paper="massive activations necessarily compress: a singular value that dominates, with "
        "bounds; the entropy falls in the layers where the first token is massive",
        measured={
            "largest factor": _round(data["factors"][-1]),
            "stable rank with it, at most": _round(largest.max()),
            "stable rank without a massive token, median": _round(np.median(rank[0, :, WHOLE])),
            "stable rank of the others, with over without, median": _round(kept),
            "log10(mu / ||X||) of the others, with and without, medians": [
                _round(np.median(share[-1])),
                _round(np.median(share[0])),
            ],
            "largest stable rank over its bound": _round(above),
        },
        tolerance="below 1.01 for the largest factor; never above the bound; the others keep "
        "95% of their stable rank, and log10 of their mu / ||X|| but for .02, medians",
        reproduced=bool(
            largest.max() < 1.01
            and above < 1.0 + 1e-9
            and kept > 0.95
            and np.median(share[-1] - share[0]) > -0.02
        ),
    )


def _comes_and_goes(data) -> Verdict:
    rank = np.median(data["valley"][..., ENTROPY], axis=0)  # layer, whole or others
    depth = len(rank) - 1
    low, high = (round(share * depth) for share in VALLEY)
    inside, before, after = rank[low + 1 : high + 1], rank[low], rank[high + 1]
    return Verdict(
        statement="a token that is massive between two layers alone gives a valley of entropy "
        "there, and only there; that of the other tokens has none",
        paper="compression valleys in the middle layers, where the first token is massive",
        measured={
            "entropy before, inside (largest), after": [
                _round(before[WHOLE]), _round(inside[:, WHOLE].max()), _round(after[WHOLE])
            ],
            "the same of the other tokens": [
                _round(before[OTHERS]), _round(inside[:, OTHERS].max()), _round(after[OTHERS])
            ],
        },
        tolerance="inside below .1; after it more than half of what it was before; of the other "
        "tokens the least inside more than 90% of the value after",
        reproduced=bool(
            inside[:, WHOLE].max() < 0.1 and after[WHOLE] > 0.5 * before[WHOLE]
            and inside[:, OTHERS].min() > 0.9 * after[OTHERS]
        ),
    )  # fmt: skip


def _no_sink(data) -> Verdict:
    first = np.median(data["first"], axis=-1)  # norm, factor
    return Verdict(
        statement="in random layers a massive token is a sink without a norm before attention "
        "only: it then draws half of it; after RMSNorm its size is gone, and with it the sink",
        paper="massive activations and sinks come together in trained models, for all heads; the "
        "size alone does not explain it, weights must",
        measured={
            f"{name}: attention on the first token, factor 1 and {data['factors'][-1]:g}": [
                _round(row[0]),
                _round(row[-1]),
            ]
            for name, row in zip(BEFORE, first, strict=True)
        },
        tolerance="within 1e-3 of that of an ordinary token after RMSNorm; .35 to .65 without",
        reproduced=bool(abs(first[0, -1] - first[0, 0]) < 1e-3 and 0.35 < first[1, -1] < 0.65),
    )


def _slows(data) -> Verdict:
    share = np.median(data["sinks"][..., WHOLE, SHARE], axis=2)  # network kind, logit
    names = [name.replace("\n", " ") for name in NETWORKS]
    some = 1 + np.flatnonzero(data["logits"] >= 0)
    gained = share[:, some] - share[:, :1]
    return Verdict(
        statement="a sink keeps more of mu beside a skip, the more the larger its logit, for it "
        "makes the branch smaller; without a skip it does so, too, by decades, if there are "
        "several heads, and not at all with one, whose factor the norm undoes",
        paper="ours; GPT-OSS has such logits, one a head",
        measured={
            "log10(mu / ||X||) without a sink": dict(
                zip(names, map(_round, share[:, 0]), strict=True)
            ),
            "gained by logits of 0 and more, least and largest": {
                name: [_round(row.min()), _round(row.max())]
                for name, row in zip(names, gained, strict=True)
            },
            "attention on the sink, largest logit": _round(np.median(data["paid"][0, -1])),
        },
        tolerance="of logits of 0 and more: with a skip it grows from one to the next; without one "
        "at least one decade with several heads, at most 1e-3 with one",
        reproduced=bool(
            np.all(np.diff(gained[BLOCK]) > -1e-3)
            and gained[BLOCK].min() > 0
            and gained[BARE].min() > 1.0
            and np.abs(gained[ONE_HEAD]).max() < 1e-3
        ),
    )
