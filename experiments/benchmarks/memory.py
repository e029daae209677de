"""``python -m experiments.benchmarks.memory N``: peak memory of two layers, window 32, d = 64.

In a process of its own, for the peak of a process never falls.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from experiments.benchmarks import rivals
from experiments.benchmarks.cases import Case


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # the peak that getrusage tells begins with the parent's
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def grown_bytes(n: int) -> int:
    """How far the peak rises from a process that has run 256 tokens to one that has run N."""
    setting = rivals.Setting(threads=1)
    rivals.ours(Case("", "", 256, 64, 1, "local", 32).build(), setting)(2)
    before = peak_bytes()
    rivals.ours(Case("", "", n, 64, 1, "local", 32).build(), setting)(2)
    return peak_bytes() - before


if __name__ == "__main__":
    print(json.dumps({"grown": grown_bytes(int(sys.argv[1]))}))
