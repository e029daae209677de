"""Kernels between guards: every array that they are given lies between bytes that must not change.

    python -m tests.guarded CASES SEED [HARM]

Random shapes, masks, norms and settings, on teams of 1 to 4 threads. Each array of each call is
moved to memory of its own: on one side a page that cannot be touched, so that the process ends; on
the other, and in what is left before the page, bytes that are NaN to who reads them and are looked
at afterwards. Results must have the bits that they have without guards. HARM names a function of
`dynsim.kernels.shapes` whose last part is made too small: that must be found.
"""

import copy
import ctypes
import faulthandler
import math
import mmap
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

import numpy as np

from dynsim import AttentionDynamics, connectivity, masks, norms
from dynsim.engines import deviations, lanes, rows, single
from dynsim.engines.packing import Scratch, stacked
from dynsim.kernels import library
from dynsim.kernels.processor import vector_width
from dynsim.network.deviation import Deviation
from dynsim.network.weights import Layers, LayerWeights

PAGE = mmap.PAGESIZE
NAN = 0xFF
KINDS = [
    lanes.Lanes, rows.Rows, rows.Rows, single.Single, deviations.DeviationLanes,
    deviations.DeviationRows,
]  # fmt: skip
LIBC = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """A copy of an array between guards, at the same place within a line of the cache."""

    def __init__(self, array: np.ndarray, at_start: bool):
        self.original, size = array, array.nbytes
        offset = array.ctypes.data % 64
        held = -(-(size + 64) // PAGE) * PAGE
        self.memory = mmap.mmap(-1, held + 2 * PAGE)
        self.bytes = np.frombuffer(self.memory, np.uint8)
        self.base = self.bytes.ctypes.data
        self.start = PAGE + (offset if at_start else (held - size - offset) // 64 * 64 + offset)
        self.protect(0)
        self.inner = self.bytes[PAGE : PAGE + held]
        self.inner[:] = NAN
        self.begin = self.start - PAGE
        self.end = self.begin + size
        self.copy = self.inner[self.begin : self.end].view(array.dtype).reshape(array.shape)
        self.copy[...] = array

    def protect(self, rights: int) -> None:
        for page in (0, len(self.memory) - PAGE):
            if LIBC.mprotect(ctypes.c_void_p(self.base + page), ctypes.c_size_t(PAGE), rights):
                raise OSError(ctypes.get_errno(), "mprotect")

    def look(self, who: str) -> None:
        """The guards are as they were; what was computed goes back to the original."""
        outside = np.concatenate([self.inner[: self.begin], self.inner[self.end :]])
        if (outside != NAN).any():
            raise SystemExit(f"{who} wrote beside an array of shape {self.original.shape}")
        if self.original.flags.writeable:
            self.original[...] = self.copy
        elif self.original.tobytes() != self.copy.tobytes():
            raise SystemExit(f"{who} wrote into what it may only read")
        self.protect(mmap.PROT_READ | mmap.PROT_WRITE)


class Guards:
    """Copies of all arrays that the kernels are given, one for each array, shared by a team."""

    def __init__(self, rng):
        self.rng, self.copies, self.lock, self.calls, self.arrays = rng, {}, Lock(), 0, 0

    def passed(self, argument):
        array = argument.value if isinstance(argument, library.Prepared) else argument
        if not isinstance(array, np.ndarray) or not array.nbytes:
            return argument
        place = array.ctypes.data, array.nbytes, array.dtype.char
        with self.lock:
            if place not in self.copies:
                self.copies[place] = Guarded(array, bool(self.rng.integers(2)))
                self.arrays += 1
            moved = self.copies[place]
        if not isinstance(argument, library.Prepared):
            return moved.copy
        argument = copy.copy(argument)
        argument.argument = library._argument(moved.copy)
        return argument

    @contextmanager
    def around(self, who: str):
        """All kernels that are called within it."""
        call = library.Kernel.__call__

        def guarded(kernel, *arguments):
            call(kernel, *map(self.passed, arguments))
            with self.lock:
                self.calls += 1
                for argument in arguments:  # what the caller reads before its next call
                    place = argument if isinstance(argument, np.ndarray) else None
                    if place is not None and place.nbytes and place.flags.writeable:
                        key = place.ctypes.data, place.nbytes, place.dtype.char
                        place[...] = self.copies[key].copy

        library.Kernel.__call__ = guarded
        try:
            yield
        finally:
            library.Kernel.__call__ = call
        for moved in self.copies.values():
            moved.look(who)
        self.copies = {}


def at_once(work, jobs):
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(work, jobs))


def random_mask(rng, n):
    window = int(rng.integers(1, max(2, n)))
    dense = rng.random((n, n)) < 0.4
    np.fill_diagonal(dense, True)
    makers = [
        masks.complete, masks.causal, masks.star, lambda n: masks.local(n, window),
        lambda n: masks.causal_local(n, window), lambda n: masks.from_array(dense),
    ]  # fmt: skip
    return makers[rng.integers(len(makers) if n > 1 else 2)](n)


def random_norm(rng, d):
    gain, bias = rng.uniform(0.5, 2.0, d), rng.standard_normal(d)
    every = [norms.NoNorm(), norms.Unit(), norms.RMSNorm(gain), norms.LayerNorm(gain, bias)]
    return every[rng.integers(4)]


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


def random_case(rng):
    """(carrier, arguments of its advance): what is computed, but for the threads."""
    n, d = (int(k) for k in rng.integers(1, (90, 40)))
    kind = KINDS[rng.integers(len(KINDS))]
    followed = kind in (deviations.DeviationLanes, deviations.DeviationRows)
    dtype = np.float32 if not followed and rng.integers(4) == 0 else np.float64
    if kind in (lanes.Lanes, deviations.DeviationLanes):
        n, d = 1 + n // 4, 1 + d // 2
    if kind is single.Single:
        n, dtype = 1 + n % vector_width(64), np.float64
    dynamics = AttentionDynamics(
        (masks.complete, masks.causal)[n % 2](n) if kind is single.Single else random_mask(rng, n),
        Layers((random_layer(rng, d, dtype),)),
        random_norm(rng, d),
        ("post", "pre", "peri")[rng.integers(3)],
        float(rng.choice([0.0, 1.0, 0.5])),
    )
    samples, layers = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    if kind is single.Single:
        samples = 1 + samples % 3
        assert single.is_single(samples, n, dynamics.layout, dtype)
    alone = stacked([dynamics.weights.layer(0, d)])
    x = rng.standard_normal((samples, n, d)).astype(dtype)
    if followed:
        x = Deviation.split(1.0 + 1e-9 * x)
    entropy = {} if followed else {"entropy": bool(rng.integers(2))}
    return (kind, dynamics, alone, n, d), (x, layers), entropy


def bits(results):
    arrays = []
    for result in results:
        arrays += result._arrays if isinstance(result, Deviation) else [result]
    return [None if array is None else np.ascontiguousarray(array).tobytes() for array in arrays]


def carried_out(what, arguments, entropy, workers):
    kind, dynamics, weights, n, d = what
    with np.errstate(all="ignore"):
        carrier = kind(dynamics, weights, dynamics.norm, n, d, Scratch())
        return bits(carrier.advance(*arguments, workers, at_once, **entropy))


def too_small(name: str) -> None:
    """Make the last part of this scratch memory one number too small, wherever it is used."""
    for module in (lanes, rows, single, deviations):
        if hasattr(module, name):
            sizes = getattr(module, name)
            setattr(module, name, lambda *a, sizes=sizes: [*sizes(*a)[:-1], sizes(*a)[-1] - 1])


def main(cases: int, seed: int, harm: str | None = None) -> None:
    faulthandler.enable()
    rng = np.random.default_rng(seed)
    guards, teams, calls = Guards(rng), 0, {}
    for case in range(cases):
        what, arguments, entropy = random_case(rng)
        workers = int(rng.integers(1, 5))
        kind = what[0].__name__
        who = f"case {case}: {kind}, {what[1].mask.name}, {what[3:]}, {workers} threads"
        expected = carried_out(what, arguments, entropy, 1)
        if harm:
            too_small(harm)
            harm = None
        with guards.around(who):
            found = carried_out(what, arguments, entropy, workers)
        if found != expected:
            raise SystemExit(f"{who}: other bits between guards")
        calls[kind] = calls.get(kind, 0) + 1
        teams += workers > 1
    with guards.around("distances"):
        assert math.isfinite(connectivity.radius(masks.star(9)))
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(calls.items()))
    print(f"{guards.calls} calls, {guards.arrays} arrays, {teams} with threads; cases: {kinds}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
