"""``dynsim geometry``: LayerNorm's ellipsoid, and what it does to tokens."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from dynsim._files import read_arrays
from dynsim.cli import options as shared
from dynsim.cli import output
from dynsim.cli.guard import guarded
from dynsim.models import minilm
from dynsim.network import tokens
from dynsim.network.norms import LayerNorm

__all__ = ["main"]

EPILOG = """examples:
  python -m dynsim.geometry --gain g.npy --bias b.npy
      the ellipsoid of one LayerNorm, with random tokens on it
  python -m dynsim.geometry --model minilm
      all 13 LayerNorms of all-MiniLM-L6-v2 on real text (needs dynsim[models])
"""
DEFAULT_TOKENS, DEFAULT_SAMPLES = 64, 8


def parser() -> argparse.ArgumentParser:
    parser = shared.OneLineParser(
        prog="dynsim geometry",
        description="The ellipsoid that LayerNorm maps tokens into, where they land, and how much "
        "RMSNorm would change.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("LayerNorm")
    group.add_argument("--gain", metavar="FILE", help="one number per dimension")
    group.add_argument("--bias", metavar="FILE", help="the same (zeros)")
    group.add_argument("--eps", type=float, metavar="E", help="added to the variance (1e-5)")
    group.add_argument("--model", choices=("minilm",), help="all LayerNorms of a model instead")
    group = parser.add_argument_group("tokens", "what is normalised")
    group.add_argument("--x0", metavar="FILE", help="(N, d) or (samples, N, d); Gaussian ones")
    group.add_argument(
        "--text", metavar="FILE", help="for a model, real text (the source of Python's argparse)"
    )
    group.add_argument("--tokens", type=int, default=DEFAULT_TOKENS, metavar="N",
                       help=f"per sample ({DEFAULT_TOKENS})")  # fmt: skip
    group.add_argument("--samples", type=int, default=DEFAULT_SAMPLES, metavar="S",
                       help=f"({DEFAULT_SAMPLES})")  # fmt: skip
    group.add_argument("--seed", type=int, default=0, metavar="K", help="of random tokens (0)")
    output.add_output_options(parser.add_argument_group("output"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, 130 interrupted."""
    return guarded(parser(), argv, _carry_out)


def _carry_out(options) -> int:
    from dynsim.geometry import survey

    for name, least in (("tokens", 1), ("samples", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} is at least {least}; got {getattr(options, name)}")
    output.check_folder(Path(options.out))
    norms, inputs = _of_model(options) if options.model else _of_files(options)
    with output.share_done("LayerNorms, %") as progress:
        surveys = []
        for name, norm in norms.items():
            surveys.append(survey(name, norm, inputs[name]))
            progress(len(surveys) / len(norms))
    found = {"subject": options.model or options.gain, "layer_norms": [s.row for s in surveys]}
    subject = options.model or Path(options.gain).stem
    stem = output.stem("geometry", subject, found, options)
    title = f"LayerNorms of {subject}" if options.model else f"LayerNorm of {subject}"
    files = output.write_found(stem, found, options, lambda plots: plots.geometry(surveys, title))
    if options.json:
        print(json.dumps({**found, "files": files}, allow_nan=False))
        return 0
    _print_table(found["layer_norms"])
    output.print_files(files)
    return 0


def _of_model(options):
    """LayerNorms of a model and their inputs on a text, by name."""
    if any(getattr(options, name) is not None for name in ("gain", "bias", "eps", "x0")):
        raise ValueError("--model brings its LayerNorms; leave --gain, --bias, --eps and --x0 out")
    text = shared.read_text(options.text or argparse.__file__)
    return minilm.layer_norms(), minilm.layer_norm_inputs(text, options.tokens, options.samples)


def _of_files(options):
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


def _numbers(options, name: str) -> np.ndarray:
    """What the file of --gain or --bias holds: one number per dimension, two or more."""
    path = getattr(options, name)
    array = read_arrays(path, prefer=name)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(
            f"--{name} is one number per dimension, two or more; {path} has shape {array.shape}"
        )
    return array


def _print_table(rows: list[dict]) -> None:
    print(f"{'':<18}{'semi-axes':>19}{'to surface':>12}{'angle to 1':>12}{'norm':>17}"
          f"{'rotation':>10}{'redundancy':>12}{'if RMSNorm':>12}")  # fmt: skip
    for row in rows:
        print(
            f"{row['name']:<18}"
            f"{row['shortest_semi_axis']:>8.3g} .. {row['longest_semi_axis']:<7.3g}"
            f"{row['distance_to_surface']:>12.2g}{row['angle_before']:>12.2f}"
            f"{row['norm_before']:>8.3g} -> {row['norm_after']:<5.3g}"
            f"{row['rotation']:>10.2f}{row['redundancy']:>12.6f}{row['switch']:>12.2g}"
        )
    print("means over tokens, of the distance to the ellipsoid's surface the median; angles in "
          "degrees;\nredundancy: cosine between a token and its centred self; if RMSNorm: relative "
          "change of outputs\n")  # fmt: skip
