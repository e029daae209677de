"""``dynsim lyapunov``: the Lyapunov exponents of one orbit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.cli import output
from dynsim.cli.guard import guarded
from dynsim.network import tokens

__all__ = ["main"]


def parser() -> argparse.ArgumentParser:
    parser = shared.OneLineParser(
        prog="dynsim lyapunov",
        description="The Lyapunov exponents of the orbit of random tokens, or of those of a file.",
        allow_abbrev=False,
    )
    shared.add_iterated_options(parser)
    group = parser.add_argument_group("exponents")
    group.add_argument("--count", type=int, metavar="K", help="the K largest (all)")
    group.add_argument("--layers", type=int, default=1000, metavar="T", help="to average (1000)")
    group.add_argument("--discard", type=int, default=200, metavar="T", help="before (200)")
    group.add_argument("--x0", metavar="FILE", help="tokens (N, d) from a file")
    output.add_output_options(parser.add_argument_group("output"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 tokens stopped being finite, 2 bad input, 130 interrupted."""
    return guarded(parser(), argv, _carry_out)


def _carry_out(options) -> int:
    from dynsim.equilibria.lyapunov import spectrum

    dynamics, d = shared.make_iterated(options)
    x0 = tokens.sphere(1, dynamics.n_tokens, d, options.seed)[0]
    if options.x0:
        x0 = tokens.from_file(options.x0)
        if x0.ndim != 2:
            raise ValueError(f"{options.x0}: one state (N, d) is needed; got shape {x0.shape}")
    output.check_folder(Path(options.out))
    with output.share_done("layers, %") as progress:
        result = spectrum(
            dynamics, x0, count=options.count, layers=options.layers, discard=options.discard,
            seed=options.seed, progress=lambda layer: progress(layer / options.layers),
        )  # fmt: skip
    found = {"dynamics": describe(dynamics), "seed": options.seed, "layers": options.layers,
             "discard": options.discard, **result.to_dict()}  # fmt: skip
    stem = output.stem("lyapunov", dynamics.mask.name, found, options)
    title = f"{dynamics.mask.name}, dimension {d}"
    files = output.write_found(stem, found, options, lambda plots: plots.lyapunov(result, title))
    if options.json:
        print(json.dumps({**found, "files": files}, allow_nan=False))
        return 0
    print(f"verdict   {result.sentence}")
    print(f"exponents {', '.join(f'{v:.6g}' for v in result.exponents)} (nats per layer)")
    print(f"settled   to {result.drift:.1e} over the second half")
    output.print_files(files)
    return 0
