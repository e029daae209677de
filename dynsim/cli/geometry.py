"""``dynsim geometry``: LayerNorm's ellipsoid, and what it does to tokens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dynsim._files import read_arrays, read_text
from dynsim.cli import options as shared
from dynsim.cli.command import Command, Outcome
from dynsim.models import minilm
from dynsim.network import tokens
from dynsim.network.norms import LayerNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    #: LayerNorms and their inputs, by name.
    Plan = tuple[dict[str, LayerNorm], dict[str, np.ndarray]]

__all__ = ["COMMAND", "main"]

EXAMPLES = """\
  python -m dynsim.geometry --gain g.npy --bias b.npy
      the ellipsoid of one LayerNorm, with random tokens on it
  python -m dynsim.geometry --model minilm
      all 13 LayerNorms of all-MiniLM-L6-v2 on real text (needs dynsim[minilm])
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("LayerNorm")
    group.add_argument(
        "--gain", metavar="FILE", help="one number per dimension (default: none, see --model)"
    )
    group.add_argument("--bias", metavar="FILE", help="one number per dimension (default: zeros)")
    group.add_argument(
        "--eps", type=float, metavar="E", help="added to the variance (default: 1e-5)"
    )
    group.add_argument(
        "--model", choices=("minilm",), help="all LayerNorms of a model instead (default: --gain)"
    )
    group = parser.add_argument_group("tokens", "what is normalised")
    group.add_argument(
        "--x0", metavar="FILE", help="(N, d) or (samples, N, d) (default: Gaussian ones)"
    )
    group.add_argument(
        "--text", metavar="FILE",
        help="for a model, real text (default: the source of Python's argparse)",
    )  # fmt: skip
    group.add_argument("--tokens", type=int, default=64, metavar="N", help="per sample")
    group.add_argument("--samples", type=int, default=8, metavar="S", help="inputs")
    group.add_argument("--seed", type=int, default=0, metavar="K", help="seed of random tokens")


def prepare(options: argparse.Namespace, words: list[str]) -> Plan:
    """The LayerNorms by name, and their inputs."""
    shared.check_least(options, tokens=1, samples=1, seed=0)
    return _of_model(options) if options.model else _of_files(options)


def compute(plan: Plan, options: argparse.Namespace, progress: Callable[[float], None]) -> Outcome:
    from dynsim.geometry import survey

    norms, inputs = plan
    surveys = []
    for name, norm in norms.items():
        surveys.append(survey(name, norm, inputs[name]))
        progress(len(surveys) / len(norms))
    rows = [s.row for s in surveys]
    subject = options.model or Path(options.gain).stem
    title = f"LayerNorm{'s' * bool(options.model)} of {subject}: {_sentence(rows)}"
    return Outcome(
        data={"subject": options.model or options.gain, "layer_norms": rows},
        verdict=_sentence(rows),
        table=_table(rows),
        subject=subject,
        draw=lambda plots: plots.geometry(surveys, title),
    )


def _sentence(rows: list[dict]) -> str:
    most = max(rows, key=lambda row: row["switch"])
    where = f", most at {most['name']}" if len(rows) > 1 else ""
    return f"with RMSNorm instead outputs would change by {most['switch']:.2g} of their size{where}"


def _of_model(options: argparse.Namespace) -> Plan:
    """LayerNorms of a model and their inputs on a text, by name."""
    if any(getattr(options, name) is not None for name in ("gain", "bias", "eps", "x0")):
        raise ValueError("--model brings its LayerNorms; leave --gain, --bias, --eps and --x0 out")
    text = read_text(options.text or argparse.__file__)
    return minilm.layer_norms(), minilm.layer_norm_inputs(text, options.tokens, options.samples)


def _of_files(options: argparse.Namespace) -> Plan:
    """The LayerNorm of --gain and --bias, and the tokens, under one name."""
    if options.gain is None:
        raise ValueError("--gain FILE or --model minilm says which LayerNorm is meant")
    if options.text is not None:
        raise ValueError("--text is for --model; give tokens of your own by --x0 FILE")
    gain = _numbers(options, "gain")
    bias = 0.0 if options.bias is None else _numbers(options, "bias")
    norm = LayerNorm(gain, bias, 1e-5 if options.eps is None else options.eps)
    if options.x0:
        x = tokens.from_file(options.x0)
    else:
        x = tokens.gaussian(options.samples, options.tokens, len(gain), options.seed)
    return {"LayerNorm": norm}, {"LayerNorm": x}


def _numbers(options: argparse.Namespace, name: str) -> np.ndarray:
    """What the file of --gain or --bias holds: one number per dimension, two or more."""
    path = getattr(options, name)
    array = read_arrays(path, prefer=name)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(
            f"--{name} is one number per dimension, two or more; {path} has shape {array.shape}"
        )
    return array


def _table(rows: list[dict]) -> str:
    lines = [
        f"{'':<18}{'semi-axes':>19}{'to surface':>12}{'angle to 1':>12}{'norm':>17}"
        f"{'rotation':>10}{'redundancy':>12}{'if RMSNorm':>12}"
    ]
    for row in rows:
        lines.append(
            f"{row['name']:<18}"
            f"{row['shortest_semi_axis']:>8.3g} .. {row['longest_semi_axis']:<7.3g}"
            f"{row['distance_to_surface']:>12.2g}{row['angle_before']:>12.2f}"
            f"{row['norm_before']:>8.3g} -> {row['norm_after']:<5.3g}"
            f"{row['rotation']:>10.2f}{row['redundancy']:>12.6f}{row['switch']:>12.2g}"
        )
    lines.append(
        "means over tokens, of the distance to the ellipsoid's surface the median; angles in "
        "degrees;\nredundancy: cosine between a token and its centred self; if RMSNorm: relative "
        "change of outputs"
    )
    return "\n".join(lines)


COMMAND = Command(
    name="geometry",
    description="The ellipsoid that LayerNorm maps tokens into, where they land, and how much "
    "RMSNorm would change.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=lambda options: shared.MODEL_PACKAGES if options.model else (),
    examples=EXAMPLES,
    label="LayerNorms",
)
main = COMMAND.main
