"""Wall time of whole processes: the main job from a cold and a warm start, and imports."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

import numpy as np

from experiments.benchmarks.scaling import ROOT

__all__ = ["measured_start"]

#: Seconds that the project allows itself, as plans.
TARGETS = {"cold": 5.0, "warm": 1.5, "import dynsim": 0.5}
JOB = ("-m", "dynsim.run", "--out")
IMPORTS = ("dynsim", "numpy", "numba", "torch", "jax")


def measured_start(quick: bool, say=print) -> dict:
    """Seconds of every start: {name: {"seconds": [...], "median": .., "target": ..}}."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        job = (*JOB, os.path.join(folder, "results"))
        say("start: python -m dynsim.run, cold")
        cold = [_seconds(job, os.path.join(folder, f"cache{k}")) for k in range(1 if quick else 3)]
        say("start: python -m dynsim.run, warm")
        warm = [_seconds(job, os.path.join(folder, "cache0")) for _ in range(3 if quick else 7)]
        found["cold"], found["warm"] = cold, warm
    for module in (None, *IMPORTS):
        name = f"import {module}" if module else "python alone"
        if module and find_spec(module) is None:
            found[name] = []
            continue
        say(f"start: {name}")
        code = ("-c", f"import {module}" if module else "pass")
        found[name] = [_seconds(code) for _ in range(2 if quick else 5)]
    return {
        name: {
            "seconds": seconds,
            "median": float(np.median(seconds)) if seconds else None,
            "target": TARGETS.get(name),
        }
        for name, seconds in found.items()
    }


def _seconds(arguments: tuple[str, ...], cache: str | None = None) -> float:
    environment = os.environ | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    took = time.perf_counter() - begun
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise RuntimeError(f"python {' '.join(arguments)} failed: {last[0]}")
    return took
