"""Make the sources anew: one process for each width of vectors, about two minutes in all."""

import argparse
import json
import lzma
import os
import subprocess
import sys
from importlib import import_module

from dynsim.kernels.compiler import compiled
from dynsim.kernels.processor import REGISTER_BYTES
from dynsim.kernels.ready import HERE, WIDTHS, made_of, title

#: Kernels by module and function, with the kinds of their arguments (`library`): how often, and
#: what: i and l arrays of int32 and int64, d of float64, I an integer, N a number, 0 for None.
KERNELS = {
    ("graphs", "distances_from"): ["l i I 2l"],
    ("hull", "nearest"): ["3d 7I N I d l 7d l 3d"],
    ("lanes", "advance"): ["7d l i 16I N 4I 2N 15d I d"],
    ("single", "advance"): ["8d 15I N 4I 2N 17d"],
    ("deviation_lanes", "advance"): ["9d l i 16I N 4I 2N 18d"],
    ("rows", "advance"): [f"7d 2l {indices} 14I N 4I 2N 18d 2I l 2I d I d" for indices in "i0"],
    ("deviations", "advance"): [
        f"9d 2l {layout} 16I N 4I 2N 19d I d" for layout in ("i 0", "0 l", "20")
    ],
}
#: Processors of x86-64 with vectors of so many bytes. What LLVM's source says is the same for
#: others: the machine code is made where it runs.
PROCESSORS = {
    16: ("x86-64-v2", "+sse4.2"),
    32: ("x86-64-v3", "+avx,+avx2,+fma"),
    64: ("x86-64-v4", "+avx,+avx2,+fma,+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"),
}
_LETTERS = {"I": "integer", "N": "number", "0": "none"}


def kinds_of(short: str) -> tuple[str, ...]:
    """What `KERNELS` abbreviates.

    >>> kinds_of("2d I")
    ('d', 'd', 'integer')
    """
    words = []
    for word in short.split():
        words += [_LETTERS.get(word[-1], word[-1])] * int(word[:-1] or 1)
    return tuple(words)


def _make() -> None:
    """The file for the width of this process."""
    sources = {}
    for (module, name), variants in KERNELS.items():
        function = getattr(import_module(f"dynsim.kernels.{module}"), name)
        for kinds in map(kinds_of, variants):
            symbol, source = compiled(function, kinds)
            lines = source.splitlines(keepends=True)
            kept = "".join(line for line in lines if not line.startswith("target "))
            sources[title(module, name, kinds)] = f"{symbol}\0{kept}"
    content = json.dumps({"made of": made_of(), "sources": sources}, indent=0).encode()
    place = HERE / f"{REGISTER_BYTES}.json.xz"
    place.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    print(f"wrote {place}: {len(sources)} kernels, {place.stat().st_size} bytes")


def _make_all() -> int:
    """Exit status: 0 done, 1 where a process failed."""
    processes = []
    for width in WIDTHS:
        name, features = PROCESSORS[width]
        target = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
        command = [sys.executable, "-m", "dynsim.kernels.ready", "--here"]
        processes.append(subprocess.Popen(command, env=os.environ | target))
    return max(abs(process.wait()) for process in processes)


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="python -m dynsim.kernels.ready", description=__doc__)
    command.add_argument(
        "--here", action="store_true", help="only for the processor that NUMBA_CPU_NAME names"
    )
    if command.parse_args().here:
        _make()
    else:
        sys.exit(_make_all())
