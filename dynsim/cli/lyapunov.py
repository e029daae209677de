"""``dynsim lyapunov``: the Lyapunov exponents of one orbit."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dynsim._memory import require_memory
from dynsim._values import describe
from dynsim.cli import options as shared
from dynsim.cli.command import Command, Outcome
from dynsim.network import tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from dynsim.network.dynamics import AttentionDynamics

__all__ = ["COMMAND", "main"]

EXAMPLES = """\
  python -m dynsim lyapunov --value gaussian --scores gaussian:8 --tokens 4 --dim 4
      order, rotation or chaos of one random layer, iterated
  python -m dynsim lyapunov --value orthogonal --tokens 3 --count 1 --layers 5000
      the largest exponent alone, averaged over more layers
  python -m dynsim lyapunov --weights minilm:all:2 --tokens 8 --count 1
      one whole layer of MiniLM, iterated (needs dynsim[minilm])
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    shared.add_iterated_options(parser)
    group = parser.add_argument_group("exponents")
    group.add_argument("--count", type=int, metavar="K", help="the K largest (default: all)")
    group.add_argument("--layers", type=int, default=1000, metavar="T", help="to average over")
    group.add_argument("--discard", type=int, default=200, metavar="T", help="layers before those")
    group.add_argument(
        "--x0", metavar="FILE", help="tokens (N, d) to start from (default: random ones)"
    )


def prepare(options: argparse.Namespace, words: list[str]) -> tuple[AttentionDynamics, np.ndarray]:
    dynamics, d = shared.make_iterated(options)
    x0 = tokens.sphere(1, dynamics.n_tokens, d, options.seed)[0]
    if options.x0:
        x0 = shared.read_state(options.x0)
    dynamics.check_tokens(x0)
    shared.check_least(options, count=1, layers=1, discard=0)
    size = 24.0 * options.layers * (options.count or x0.size)
    require_memory(size, f"exponents over {options.layers} layers", "use fewer --layers")
    return dynamics, x0


def compute(
    plan: tuple[AttentionDynamics, np.ndarray],
    options: argparse.Namespace,
    progress: Callable[[float], None],
) -> Outcome:
    from dynsim.equilibria.lyapunov import spectrum

    dynamics, x0 = plan
    result = spectrum(
        dynamics, x0, count=options.count, layers=options.layers, discard=options.discard,
        seed=options.seed, progress=lambda layer: progress(layer / options.layers),
    )  # fmt: skip
    title = f"{dynamics.mask.name}, d = {x0.shape[1]}: {result.sentence}"
    shown = ", ".join(f"{v:.6g}" for v in result.exponents)
    return Outcome(
        data={
            "dynamics": describe(dynamics),
            "seed": options.seed,
            "layers": options.layers,
            "discard": options.discard,
            **result.to_dict(),
        },
        verdict=result.sentence,
        table=f"exponents {shown} (nats per layer)\n"
        f"settled   to {result.drift:.1e} over the second half",
        subject=dynamics.mask.name,
        draw=lambda plots: plots.lyapunov(result, title),
    )


COMMAND = Command(
    name="lyapunov",
    description="The Lyapunov exponents of the orbit of random tokens, or of those of a file.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=shared.packages,
    examples=EXAMPLES,
    label="layers",
)
main = COMMAND.main
