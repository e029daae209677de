"""How time and memory grow: with N, with samples, with threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.cases import CASES, Case
from experiments.benchmarks.compare import Effort
from experiments.benchmarks.rivals import Setting
from experiments.benchmarks.timing import Load, in_turns, sized, slope, spread

__all__ = ["ROOT", "measured_scaling"]

ROOT = Path(__file__).parents[2]

#: What grows, the slope that it should have, and the cases it is measured on, smallest first.
SERIES = {
    "time against N, complete": (2, [Case("", "", n, 16) for n in (256, 512, 1024, 2048)]),
    "time against N, window 32": (
        1, [Case("", "", n, 64, 1, "local", 32) for n in (4096, 8192, 16384, 32768, 65536)],
    ),
    "time against samples, 16 x 8": (1, [Case("", "", 16, 8, b) for b in (256, 1024, 4096)]),
}  # fmt: skip
MEMORY = "memory against N, window 32"
MEMORY_SIZES = (16384, 32768, 65536, 131072)
THREADS = ("small-16x8", "medium-256x64-complete", "medium-512x128-complete", "local-16384-w32")


def measured_scaling(setting: Setting, effort: Effort, quick: bool, say=print) -> dict:
    """Series with their least-squares slopes, threads, and memory; ready for JSON."""
    found = {"series": {}, "threads": {}}
    for name, (expected, cases) in SERIES.items():
        cases = cases[1 : 4 if quick else None]
        say(f"scaling: {name}")
        sizes = [case.samples if "samples" in name else case.n for case in cases]
        seconds = _medians(dict.fromkeys(cases, setting), effort, whole="samples" in name)
        found["series"][name] = {
            "sizes": sizes,
            "seconds": [seconds[case]["seconds"] for case in cases],
            "spread": [seconds[case]["spread"] for case in cases],
            "slope": slope(sizes, [seconds[case]["seconds"] for case in cases]),
            "expected": expected,
        }
    say(f"scaling: {MEMORY}")
    sizes = MEMORY_SIZES[:3] if quick else MEMORY_SIZES
    grown = [_memory(n) for n in sizes]
    found["series"][MEMORY] = {
        "sizes": list(sizes),
        "bytes": grown,
        "slope": slope(sizes, grown),
        "expected": 1,
    }
    for name in THREADS[:1] + THREADS[-1:] if quick else THREADS:
        say(f"scaling: threads, {name}")
        case = CASES[name]
        counts = sorted({1, setting.threads})
        by_name = {replace(case, name=f"{k}"): replace(setting, threads=k) for k in counts}
        seconds = _medians(by_name, effort)
        found["threads"][name] = {case.name: one["seconds"] for case, one in seconds.items()}
    return found


def _medians(settings: dict[Case, Setting], effort: Effort, whole: bool = False) -> dict:
    """Seconds a layer of all samples, for each case under its setting; over `whole` trajectories,
    or as many layers as make a timing: then what it costs to begin counts where samples are many.
    """
    timers = {}
    for case, setting in settings.items():
        run = rivals.ours(case.build(), setting)
        run(1)
        load = Load(case.layers, 1, 0.0) if whole else sized(run, case.layers, effort.seconds / 2)
        timers[case] = lambda run=run, load=load: load.timed(run)
    seconds = in_turns(timers, effort.rounds)
    return {
        case: {"seconds": float(np.median(values)), "spread": spread(values)}
        for case, values in seconds.items()
    }


def _memory(n: int) -> int:
    """Bytes that a process of its own grows by at its peak for two layers on N tokens."""
    command = [sys.executable, "-m", "experiments.benchmarks.memory", str(n)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)["grown"]
