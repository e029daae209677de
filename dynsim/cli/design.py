"""``dynsim design``: weights that make given tokens an equilibrium, or that have a stable one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from dynsim._files import written_whole
from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.cli import output, specs
from dynsim.cli.guard import guarded
from dynsim.measures import SOLVED_RTOL, numerical_rank, singular_values
from dynsim.network import tokens
from dynsim.network.weights import WEIGHTS, Weights

__all__ = ["main"]

EPILOG = """The layer is x' = unit(A(x) x W_V). With --x0 its W_V is solved for; without, tokens of
the wanted rank, scores and W_V are sought by descent on the spectral radius (needs dynsim[torch]).
The .npz that is written holds W_V, M and x0 under these names, for --value, --scores and --x0.

examples:
  python -m dynsim design --mask complete --tokens 3 --rank 3 --name three
      a stable equilibrium of full rank, which no undirected mask was thought to have
  python -m dynsim.equilibria --value results/three.npz --scores results/three.npz
      all equilibria of the layer that was designed
  python -m dynsim design --mask causal --x0 tokens.npy
      W_V that holds the unit tokens of a file where they are
"""


def parser() -> argparse.ArgumentParser:
    parser = shared.OneLineParser(
        prog="dynsim design",
        description="Weights that make tokens an equilibrium, a stable one where none are given.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    shared.add_mask_options(parser)
    group = parser.add_argument_group("given tokens")
    group.add_argument("--x0", metavar="FILE", help="unit tokens (N, d) that shall stay")
    group.add_argument(
        "--scores", metavar="NAME[:PARAM]|FILE", help=f"M: {specs.usage(WEIGHTS)}, or a file (zero)"
    )
    group = parser.add_argument_group("a stable equilibrium")
    group.add_argument("--tokens", type=int, metavar="N", help="number of tokens (3)")
    group.add_argument("--dim", type=int, metavar="D", help="of a token (N)")
    group.add_argument("--rank", type=int, metavar="R", help="(the largest)")
    group.add_argument("--uniform", action="store_true", help="uniform attention, M = 0")
    group.add_argument("--tries", type=int, default=12, metavar="T", help="random starts (12)")
    group.add_argument("--steps", type=int, default=400, metavar="S", help="of each descent (400)")
    group.add_argument("--seed", type=int, default=0, metavar="K", help="(0)")
    group = parser.add_argument_group("output")
    group.add_argument("--out", default="results", metavar="DIR", help="where files go (results)")
    group.add_argument("--name", metavar="NAME", help="of the files (made from the options)")
    group.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, nothing else"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input, 130 interrupted."""
    return guarded(parser(), argv, _carry_out)


def _carry_out(options) -> int:
    from dynsim.equilibria import stability

    if options.seed < 0:
        raise ValueError(f"--seed is at least 0; got {options.seed}")
    output.check_folder(Path(options.out))
    dynamics, x, made = _from_tokens(options) if options.x0 else _from_nothing(options)
    judged = stability(dynamics, x)
    layer = dynamics.weights.layer(0, x.shape[1])
    found = {
        "dynamics": describe(dynamics),
        **made,
        "residual": float(np.abs(dynamics.step(x) - x).max()),
        "rank": int(numerical_rank(singular_values(x), SOLVED_RTOL)),
        "stability": judged.kind,
        "stability_is_sure": judged.is_sure,
        "spectral_radius": judged.spectral_radius,
        "spectral_radius_error": judged.radius_error,
        "basin_radius": _basin_radius(dynamics, x, judged.kind),
        "tokens": x.tolist(),
        "M": layer.M[0].tolist(),
        "W_V": layer.W_V[0].tolist(),
    }
    stem = output.stem("design", dynamics.mask.name, found, options)
    files = [*output.write_found(stem, found, options), f"{stem}.npz"]
    with written_whole(files[-1]) as temporary:
        np.savez_compressed(temporary, x0=x, M=layer.M[0], W_V=layer.W_V[0])
    if options.json:
        print(json.dumps({**found, "files": files}, allow_nan=False))
        return 0
    for name, value in made.items():
        print(f"{name:<22}{value:.3g}")
    shown = ("rank", "residual", "stability", "spectral_radius", "spectral_radius_error")
    for name in (*shown, "basin_radius"):
        value = f"{found[name]:.4g}" if isinstance(found[name], float) else found[name]
        print(f"{name.replace('_', ' '):<22}{'not measured' if value is None else value}")
    output.print_files(files)
    return 0


def _basin_radius(dynamics, x, kind: str) -> float | None:
    """Measured; 0 where a multiplier leads away, None where none is told apart from 1."""
    from dynsim.equilibria import basin_radius

    if kind == "stable":
        return basin_radius(dynamics, x)
    return None if kind == "marginal" else 0.0


def _from_tokens(options):
    """(dynamics, tokens, what is said of the design)."""
    from dynsim.equilibria import design_value_matrix

    rivals = [name for name in ("tokens", "dim", "rank") if getattr(options, name) is not None]
    if rivals or options.uniform:
        name = (rivals or ["uniform"])[0]
        raise ValueError(f"--x0 gives the tokens; leave --{name} out")
    x = tokens.from_file(options.x0)
    if x.ndim != 2:
        raise ValueError(f"{options.x0}: one state (N, d) is needed; got shape {x.shape}")
    graph = shared.read_graph(options) or shared.make_mask(options, len(x))
    design = design_value_matrix(x, graph, _scores(options, x.shape[1]))
    if not design.is_exact:
        raise ValueError(
            f"{options.x0}: no W_V makes these an equilibrium (the best leaves a residual of "
            f"{design.residual:.3g}); use at most as many tokens as dimensions, or other scores"
        )
    return design.dynamics, x, {"condition": design.condition}


def _scores(options, d: int) -> np.ndarray:
    family = shared.make_family("scores", options.scores or "zero", "M")
    return Weights(scores=family, shared=True, seed=options.seed).layer(0, d).M[0]


def _from_nothing(options):
    from dynsim.equilibria import stabilise

    if options.scores is not None:
        raise ValueError("--scores go with given tokens; add --x0, or leave --scores out")
    graph = shared.read_graph(options)
    n = graph.number_of_nodes() if graph else 3 if options.tokens is None else options.tokens
    if n < 1 or options.tokens not in (None, n):
        raise ValueError(f"--tokens is at least 1 and as in the mask; got {options.tokens}")
    d = n if options.dim is None else options.dim
    rank = min(n, d) if options.rank is None else options.rank
    with output.share_done("descending, %") as progress:
        found = stabilise(
            graph or shared.make_mask(options, n), d, rank, uniform=options.uniform,
            tries=options.tries, steps=options.steps, seed=options.seed, progress=progress,
        )  # fmt: skip
    return found.dynamics, found.tokens, {"tries": found.tries}
