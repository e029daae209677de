"""``dynsim design``: weights that make given tokens an equilibrium, or that have a stable one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.cli import parsing
from dynsim.cli.command import Command, Outcome
from dynsim.cli.completion import completes
from dynsim.measures import SOLVED_RTOL, numerical_rank, singular_values
from dynsim.network.weights import WEIGHTS, Weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from dynsim.network.dynamics import AttentionDynamics

    #: The layer, its equilibrium, and what is said of how it was made.
    Designed = tuple[AttentionDynamics, np.ndarray, dict[str, float]]
    #: The design, made when it is called with a callable(share done).
    Plan = Callable[[Callable[[float], None]], Designed]

__all__ = ["COMMAND", "main"]

NOTES = """The layer is x' = unit(A(x) x W_V). With --x0 its W_V is solved for; without, tokens of
the wanted rank, scores and W_V are sought by descent on the spectral radius (needs dynsim[torch]).
The .npz that is written holds W_V, M and x0 under these names, for --value, --scores and --x0.
"""
EXAMPLES = """\
  python -m dynsim design --mask complete --tokens 3 --rank 3 --name three
      a stable equilibrium of full rank, which no undirected mask was thought to have
  python -m dynsim.equilibria --value results/three.npz --scores results/three.npz
      all equilibria of the layer that was designed
  python -m dynsim design --mask causal --x0 tokens.npy
      W_V that holds the unit tokens of a file where they are
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_mask_options(parser)
    group = parser.add_argument_group("given tokens")
    group.add_argument(
        "--x0", metavar="FILE", help="unit tokens (N, d) that shall stay (default: sought)"
    )
    scores = group.add_argument(
        "--scores", metavar="NAME[:PARAM]|FILE",
        help=f"M: {parsing.usage(WEIGHTS)}, or a file (default: zero)",
    )  # fmt: skip
    completes(scores, WEIGHTS)
    group = parser.add_argument_group("a stable equilibrium")
    group.add_argument("--tokens", type=int, metavar="N", help="number of tokens (default: 3)")
    group.add_argument("--dim", type=int, metavar="D", help="dimension of a token (default: N)")
    group.add_argument(
        "--rank", type=int, metavar="R", help="rank of the tokens (default: the largest)"
    )
    group.add_argument("--uniform", action="store_true", help="uniform attention, M = 0")
    group.add_argument("--tries", type=int, default=12, metavar="T", help="random starts")
    group.add_argument("--steps", type=int, default=400, metavar="S", help="steps of each descent")
    group.add_argument("--seed", type=int, default=0, metavar="K", help="seed of all random draws")


def prepare(options: argparse.Namespace, words: list[str]) -> Plan:
    """callable(progress) -> dynamics, tokens, what is said of the design."""
    shared.check_least(options, seed=0, tries=1, steps=1)
    return _from_tokens(options) if options.x0 else _from_nothing(options)


def compute(
    designed: Plan, options: argparse.Namespace, progress: Callable[[float], None]
) -> Outcome:
    from dynsim.equilibria import stability

    dynamics, x, made = designed(progress)
    judged = stability(dynamics, x)
    layer = dynamics.weights.layer(0, x.shape[1])
    data = {
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
    lines = [f"{name:<22}{value:.3g}" for name, value in made.items()]
    shown = ("rank", "residual", "stability", "spectral_radius", "spectral_radius_error")
    for name in (*shown, "basin_radius"):
        value = f"{data[name]:.4g}" if isinstance(data[name], float) else data[name]
        lines.append(f"{name.replace('_', ' '):<22}{'not measured' if value is None else value}")
    return Outcome(
        data=data,
        verdict=f"an equilibrium of rank {data['rank']}, {judged.kind}: spectral radius "
        f"{judged.spectral_radius:.6g}",
        table="\n".join(lines),
        subject=dynamics.mask.name,
        arrays={"x0": x, "M": layer.M[0], "W_V": layer.W_V[0]},
    )


def _basin_radius(dynamics: AttentionDynamics, x: np.ndarray, kind: str) -> float | None:
    """Measured; 0 where a multiplier leads away, None where none is told apart from 1."""
    from dynsim.equilibria import basin_radius

    if kind == "stable":
        return basin_radius(dynamics, x)
    return None if kind == "marginal" else 0.0


def _from_tokens(options: argparse.Namespace) -> Plan:
    from dynsim.equilibria import design_value_matrix

    rivals = [name for name in ("tokens", "dim", "rank") if getattr(options, name) is not None]
    if rivals or options.uniform:
        name = (rivals or ["uniform"])[0]
        raise ValueError(f"--x0 gives the tokens; leave --{name} out")
    x = shared.read_state(options.x0)
    shared.check_sizes(*x.shape)
    graph = shared.read_graph(options) or shared.make_mask(options, len(x))
    scores = _scores(options, x.shape[1])

    def designed(progress: Callable[[float], None]) -> Designed:
        design = design_value_matrix(x, graph, scores)
        if not design.is_exact:
            raise ValueError(
                f"{options.x0}: no W_V makes these an equilibrium (the best leaves a residual of "
                f"{design.residual:.3g}); use at most as many tokens as dimensions, or other scores"
            )
        return design.dynamics, x, {"condition": design.condition}

    return designed


def _scores(options: argparse.Namespace, d: int) -> np.ndarray:
    family = shared.make_family("scores", options.scores or "zero", "M")
    return Weights(scores=family, shared=True, seed=options.seed).layer(0, d).M[0]


def _from_nothing(options: argparse.Namespace) -> Plan:
    from dynsim.equilibria import stabilise

    if options.scores is not None:
        raise ValueError("--scores go with given tokens; add --x0, or leave --scores out")
    shared.check_least(options, tokens=1, dim=1, rank=1)
    graph = shared.read_graph(options)
    n = graph.number_of_nodes() if graph else options.tokens or 3
    if options.tokens not in (None, n):
        raise ValueError(f"--tokens is as in the mask, {n}; got {options.tokens}; leave it out")
    d = options.dim or n
    shared.check_sizes(n, d)
    mask = graph or shared.make_mask(options, n)
    rank = options.rank or min(n, d)
    if rank > min(n, d):
        raise ValueError(f"--rank is at most min(N, d) = {min(n, d)}; got {rank}")

    def designed(progress: Callable[[float], None]) -> Designed:
        stable = stabilise(
            mask, d, rank, uniform=options.uniform, tries=options.tries, steps=options.steps,
            seed=options.seed, progress=progress,
        )  # fmt: skip
        return stable.dynamics, stable.tokens, {"tries": stable.tries}

    return designed


COMMAND = Command(
    name="design",
    description="Weights that make tokens an equilibrium, a stable one where none are given.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=lambda options: () if options.x0 else ("torch",),
    notes=NOTES,
    examples=EXAMPLES,
    label="descending",
    draws=False,
)
main = COMMAND.main
