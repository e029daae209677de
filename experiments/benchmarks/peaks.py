"""What the machine can do: multiply-adds, exponentials and bytes a second, measured.

Multiply-adds and exponentials run on eight lanes of float64 in registers, written as LLVM vectors,
for compiled scalar loops stay far below the machine and would make every share look good.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["Peaks", "measured_peaks"]

LANES = ir.VectorType(ir.DoubleType(), 8)
WORDS = ir.VectorType(ir.IntType(64), 8)


@dataclass(frozen=True)
class Peaks:
    """Rates a second on one thread and on all that were asked for."""

    threads: int
    flops: tuple[float, float]  # a multiply-add is two
    exps: tuple[float, float]
    bytes: tuple[float, float]  # read or written

    def least_seconds(self, counts: dict, threads: int) -> float:
        """No less time can the counted work take: arithmetic shares its units, traffic overlaps."""
        k = int(threads > 1)
        arithmetic = counts["flops"] / self.flops[k] + counts["exps"] / self.exps[k]
        return max(arithmetic, counts["bytes"] / self.bytes[k])

    def to_dict(self) -> dict:
        return asdict(self)


def measured_peaks(threads: int, rounds: int = 5, megabytes: int = 256) -> Peaks:
    """The best of several measurements, on one thread and on all."""
    source = np.ones(megabytes * 2**17)
    target = np.empty_like(source)

    def rates(workers):
        flops = _best_kernel(_MULTIPLY_ADD, workers, rounds, 1_000_000, per_lane=2)
        exps = _best_kernel(_EXP, workers, rounds, 200_000, per_lane=1)
        parts = list(zip(*(np.array_split(a, workers) for a in (target, source)), strict=True))
        copied = _rate(lambda k: np.copyto(*parts[k]), workers, rounds, 16 * source.size / workers)
        return flops, exps, copied

    one = rates(1)
    every = rates(threads) if threads > 1 else one
    return Peaks(threads, *zip(one, every, strict=True))


def _best_kernel(kernels: dict, workers: int, rounds: int, turns: int, per_lane: int) -> float:
    return max(
        _rate(
            lambda k, kernel=kernel: kernel(turns), workers, rounds, turns * chains * 8 * per_lane
        )
        for chains, kernel in kernels.items()
    )


def _rate(work, workers: int, rounds: int, amount: float) -> float:
    """The best rate of `workers` threads that each do `amount` in work(k)."""
    best = math.inf
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(rounds + 1):  # the first compiles
            begun = time.perf_counter()
            list(pool.map(work, range(workers)))
            best = min(best, time.perf_counter() - begun)
    return workers * amount / best


# --- kernels ------------------------------------------------------------------------------------


def _lanes(value: float) -> ir.Constant:
    return ir.Constant(LANES, [value] * 8)


def _call(builder, name: str, *arguments):
    kind = ir.FunctionType(LANES, [LANES] * len(arguments))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v8f64")
    return builder.call(function, arguments)


def _kernel(chains: int, body):
    """rounds -> a number: `chains` independent values, each replaced by body(builder, value)."""

    @intrinsic
    def loop(context, rounds):
        def generate(context, builder, signature, arguments):
            cells = [
                cgutils.alloca_once_value(builder, _lanes(0.1 + 0.01 * k)) for k in range(chains)
            ]
            with cgutils.for_range(builder, arguments[0]):
                for cell in cells:
                    builder.store(body(builder, builder.load(cell)), cell)
            total = builder.load(cells[0])
            for cell in cells[1:]:
                total = builder.fadd(total, builder.load(cell))
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return types.float64(rounds), generate

    return njit(nogil=True)(lambda rounds: loop(rounds))


def _multiply_add(builder, x):
    return _call(builder, "fmuladd", x, _lanes(0.999), _lanes(0.001))


def _exp_of_minus(builder, x):
    """exp(-x): 2^k by the exponent's bits, exp of the rest by its Taylor series to degree 11."""
    shift = 1.5 * 2.0**52
    shifted = _call(builder, "fmuladd", x, _lanes(-1 / math.log(2)), _lanes(shift))
    k = builder.fsub(shifted, _lanes(shift))
    rest = _call(builder, "fmuladd", k, _lanes(-math.log(2)), builder.fneg(x))
    terms, power = [_lanes(1 / math.factorial(n)) for n in range(12)], rest
    while len(terms) > 1:  # in pairs: a short chain of many independent operations
        terms += [_lanes(0.0)] * (len(terms) % 2)
        terms = [
            _call(builder, "fmuladd", odd, power, even)
            for even, odd in zip(terms[::2], terms[1::2], strict=True)
        ]
        power = builder.fmul(power, power)
    bits = builder.shl(builder.bitcast(shifted, WORDS), ir.Constant(WORDS, [52] * 8))
    return builder.bitcast(builder.add(builder.bitcast(terms[0], WORDS), bits), LANES)


#: Kernels by the number of independent values: enough to hide latency, few enough for registers.
_MULTIPLY_ADD = {chains: _kernel(chains, _multiply_add) for chains in (6, 12, 24)}
_EXP = {chains: _kernel(chains, _exp_of_minus) for chains in (2, 4, 8)}
