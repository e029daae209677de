"""Kernels in their debug mode (`dynsim.kernels.guards`): every array lies between guards.

    python -m tests.guarded CASES SEED [HARM]

Random shapes, masks, norms and settings, on teams of 1 to 4 threads. Results must have the bits
that they have without guards. HARM, as LANES.q, names an array of a record that is taken to need
one number less than it does: that must be found.
"""

import dataclasses
import faulthandler
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dynsim import AttentionDynamics, connectivity, masks, norms
from dynsim.engines import lanes, rows
from dynsim.engines.kernel_inputs import stacked
from dynsim.kernels import fields, guards
from dynsim.kernels.record import Scratch
from dynsim.network.attention import NoQKNorm, QKNorm, Softmax
from dynsim.network.deviation import Deviation
from dynsim.network.positions import ALiBi, NoPosition, PowerDecay, RoPE
from dynsim.network.residual import PLACEMENTS, Residual
from dynsim.network.weights import Layers, LayerWeights


def at_once(work, jobs):
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: list(work(job)), jobs))


def random_mask(rng, n):
    window = int(rng.integers(1, max(2, n)))
    dense = rng.random((n, n)) < 0.4
    np.fill_diagonal(dense, True)
    makers = [
        masks.complete, masks.causal, masks.star, lambda n: masks.local(n, window),
        lambda n: masks.causal_local(n, window), lambda n: masks.from_array(dense),
    ]  # fmt: skip
    return makers[rng.integers(len(makers) if n > 1 else 2)](n)


def random_norm(rng, d, followed):
    gain, bias = rng.uniform(0.5, 2.0, d), rng.standard_normal(d)
    every = [norms.NoNorm(), norms.Unit(), norms.RMSNorm(gain), norms.LayerNorm(gain, bias)]
    if not followed:
        every += [norms.DyT(0.7, gain, bias), norms.Derf(0.7, 0.1, gain, bias)]
    return every[rng.integers(len(every))]


def random_layer(rng, d, dtype):
    heads, p, v = rng.integers(1, 4), rng.integers(1, 2 * d + 2), rng.integers(1, 2 * d + 2)
    draw = rng.standard_normal
    if rng.integers(2):
        layer = LayerWeights(
            draw((heads, d, p)) / d, draw((heads, p)), draw((heads, d, p)),
            draw((heads, d, v)), draw((heads, v, d)) / d, draw(d),
        )  # fmt: skip
    else:
        layer = LayerWeights.from_matrices(draw((heads, d, d)) / d, draw((heads, d, d)) / d)
    return layer.astype(dtype)


def random_parts(rng, layer):
    """Positions, QK-norm and sinks; those that act on queries and keys where there are both."""
    heads, _, p = layer.query.shape
    every = [NoPosition(), ALiBi(), PowerDecay(1.0)]
    every += [RoPE(30.0)] * (layer.key.size > 0 and p % 2 == 0)
    normed = layer.key.size > 0 and rng.integers(2)
    return {
        "position": every[rng.integers(len(every))],
        "kind": Softmax(None if rng.integers(2) else tuple(rng.standard_normal(heads))),
        "qk_norm": QKNorm(2.0, ("unit", "rms")[rng.integers(2)], eps=0.1) if normed else NoQKNorm(),
    }


def random_case(rng):
    """(carrier, arguments, options, whether it follows): what is computed, but for the threads."""
    n, d = (int(k) for k in rng.integers(1, (90, 40)))
    kind, followed = (lanes.Lanes, rows.Rows)[rng.integers(2)], bool(rng.integers(2))
    dtype = np.float32 if not followed and rng.integers(4) == 0 else np.float64
    if kind is lanes.Lanes:
        n, d = 1 + n // 4, 1 + d // 2
    layer = random_layer(rng, d, dtype)
    parts = {} if followed or rng.integers(2) else random_parts(rng, layer)
    dynamics = AttentionDynamics(
        random_mask(rng, n),
        Layers((layer,)),
        random_norm(rng, d, followed),
        tuple(PLACEMENTS)[rng.integers(len(PLACEMENTS))],
        Residual(float(rng.choice([0.0, 1.0, 0.5])), float(rng.choice([1.0, 0.3]))),
        **parts,
    )
    samples, layers = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    alone = stacked([dynamics.weights.layer(0, d)])
    x = rng.standard_normal((samples, n, d)).astype(dtype)
    if followed:
        x = Deviation.split(1.0 + 10.0 ** -rng.integers(1, 10) * x)
    options = {} if followed else {"entropy": bool(rng.integers(2))}
    return (kind, dynamics, alone, n, d), (x, layers), options, followed


def bits(results):
    arrays = []
    for result in results:
        arrays += result._arrays if isinstance(result, Deviation) else [result]
    return [None if array is None else np.ascontiguousarray(array).tobytes() for array in arrays]


def carried_out(what, arguments, options, followed, workers):
    kind, dynamics, weights, n, d = what
    with np.errstate(all="ignore"):
        carrier = kind(dynamics, weights, dynamics.norm, n, d, Scratch())
        call = carrier.follow if followed else carrier.advance
        return bits(call(*arguments, workers, at_once, **options))


def too_small(harm: str) -> None:
    """Have this array taken for one number smaller than it needs to be."""
    name, field = harm.split(".")
    arrays = getattr(fields, name).arrays
    needed = arrays[field].size
    arrays[field] = dataclasses.replace(arrays[field], size=lambda r: max(needed(r) - 1, 0))


def main(cases: int, seed: int, harm: str | None = None) -> None:
    faulthandler.enable()
    rng = np.random.default_rng(seed)
    teams, numbers = 0, {}
    for case in range(cases):
        what, *call = random_case(rng)
        workers = int(rng.integers(1, 5))
        kind = what[0].__name__ + (" followed" if call[-1] else "")
        who = f"case {case}: {kind}, {what[1].mask.name}, {what[3:]}, {workers} threads"
        expected = carried_out(what, *call, 1)
        if harm:
            too_small(harm)
            harm = None
        os.environ["DYNSIM_GUARDS"] = "1"
        try:
            found = carried_out(what, *call, workers)
        except SystemError as error:
            raise SystemExit(f"{who}: {error}") from None
        del os.environ["DYNSIM_GUARDS"]
        if found != expected:
            raise SystemExit(f"{who}: other bits between guards")
        numbers[kind] = numbers.get(kind, 0) + 1
        teams += workers > 1
    os.environ["DYNSIM_GUARDS"] = "1"
    assert math.isfinite(connectivity.radius(masks.star(9)))
    kinds = ", ".join(f"{kind}: {number}" for kind, number in sorted(numbers.items()))
    print(f"{guards.moved_arrays[0]} arrays, {teams} with threads; cases: {kinds}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
