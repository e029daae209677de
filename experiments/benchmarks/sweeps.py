"""What sweeps cost, and whether they lose anything.

    python -m experiments.benchmarks.sweeps [--cells 1000,10000,100000] [--kills 50] [--seed 0]

Every number of tiny cells is one sweep of a fresh process with two workers. Sweeps of 50 and of 250
cells of about 100 ms show what a cell costs the parent. A sweep is killed at random times and begun
again, until it is complete, and one fills a disk of 400 KiB (a tmpfs in a namespace of its own, by
unshare) and goes on when there is more room; the bytes of both are compared with those of a sweep
that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

#: Cells of some milliseconds: what is timed is the rest.
TINY = ("mask=causal", "value=identity", "scores=identity", "norm=unit", "tokens=4", "dim=2",
        "samples=1", "depth=10")  # fmt: skip
#: 192 cells in some 32 batches of half a second.
KILLED = ("mask=local,causal", "value=orthogonal,gaussian", "beta=0.1:10:log16", "seeds=3",
          "norm=unit", "tokens=24", "dim=16", "samples=8", "depth=200")  # fmt: skip
#: Some 100 ms each.
LARGE = ("mask=causal", "value=orthogonal", "scores=gaussian", "norm=unit", "tokens=24", "dim=16",
         "samples=8", "depth=160")  # fmt: skip
#: Runs the command in its words; prints seconds, those of this process on a core, and the peak of
#: its memory, in MiB.
MEASURED = """
import resource, sys, time
from dynsim.cli.main import main
if __name__ == "__main__":
    begun, used = time.monotonic(), time.process_time()
    status = main(sys.argv[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.monotonic() - begun, time.process_time() - used, peak, file=sys.stderr)
    sys.exit(status)
"""
#: 96 cells of some 10 KiB.
FILLING = ("mask=local,causal", "value=identity,orthogonal", "beta=0.1:10:log12", "seeds=2",
           "tokens=12", "dim=8", "samples=16", "depth=4")  # fmt: skip
#: $1 is a folder to mount a small disk on, $2 where its store is put in the end.
FULL = """
mount -t tmpfs -o size=400k tmpfs "$1" || exit 9
place="$1" target="$2"; shift 2
"$@" --out "$place/store" 2>&1 >/dev/null; echo "status $?"
find "$place/store/status/c" -type f | wc -l
mount -o remount,size=64m "$place"
"$@" --out "$place/store" >/dev/null 2>&1; echo "status $?"
cp -r "$place/store" "$target"
"""


def sweep_words(out: Path, parameters: tuple[str, ...]) -> list[str]:
    return ["sweep", "--grid", *parameters, "--workers", "2", "--out", str(out)]


def content(store: Path) -> dict[str, bytes]:
    return {str(f.relative_to(store)): f.read_bytes() for f in store.rglob("*") if f.is_file()}


def tiny(cells: int) -> tuple[str, ...]:
    return (*TINY, f"beta=0.1:10:log{cells // 10}", "seeds=10")


def timed(folder: Path, name: str, parameters: tuple[str, ...], cells: int) -> dict[str, Any]:
    """Seconds of a sweep, of all its processes on cores and of its parent on one; the parent's
    peak of memory (MiB). Where others share the machine, time on cores says more than seconds."""
    words = sweep_words(folder / name, parameters)
    script = folder / "measured.py"
    script.write_text(MEASURED)
    before = _on_cores()
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=True
    )
    seconds, parent, peak = map(float, done.stderr.split()[-3:])
    return {
        "sweep": name,
        "cells": cells,
        "seconds": seconds,
        "ms_per_cell": 1e3 * seconds / cells,
        "core_ms_per_cell": 1e3 * (_on_cores() - before) / cells,
        "parent_ms_per_cell": 1e3 * parent / cells,
        "MiB": peak,
        "load": os.getloadavg()[0],
    }


def _on_cores() -> float:
    """Seconds that processes which ended have spent on cores."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def overhead(folder: Path) -> dict[str, Any]:
    """What one more cell costs the parent, in ms of a core, beside what it costs."""
    few, many = (
        timed(folder, f"{5 * n} cells of 100 ms", (*LARGE, f"beta=0.1:10:log{n}", "seeds=5"), 5 * n)
        for n in (10, 50)
    )
    parent = [found["cells"] * found["parent_ms_per_cell"] for found in (few, many)]
    return many | {"parent_ms_per_further_cell": (parent[1] - parent[0]) / 200}


def killed(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """A sweep killed again and again beside one left alone."""
    alone, store = folder / "alone", folder / "killed"
    run = [sys.executable, "-m", "dynsim"]
    begun = time.monotonic()
    subprocess.run([*run, *sweep_words(alone, KILLED)], capture_output=True, check=True)
    usual = time.monotonic() - begun
    rng = np.random.default_rng(seed)
    done, before, progressed, finished = 0, 0, 0, 0
    while done < kills:
        process = subprocess.Popen(
            [*run, *sweep_words(store, KILLED)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            process.communicate(timeout=rng.uniform(0.3, min(8.0, usual)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            done += 1
            there = len([f for f in (store / "status" / "c").rglob("*") if f.is_file()])
            progressed, finished = progressed + (there > finished), there
        else:  # complete before all kills: begin anew
            if process.returncode:
                return {"kills": done, "ended_with": process.returncode}
            if content(store) != content(alone):
                return {"kills": done, "same_bytes": False}
            before += 1
            store, finished = folder / f"killed-{before}", 0
    subprocess.run([*run, *sweep_words(store, KILLED)], capture_output=True, check=True)
    same = content(store) == content(alone)
    return {
        "kills": done,
        "kills_after_new_batches": progressed,
        "sweeps": before + 1,
        "same_bytes": same,
        "usual_seconds": usual,
    }


def filled(folder: Path) -> dict[str, object]:
    """A sweep on a disk that is full after some batches, then on one with more room."""
    run = [sys.executable, "-m", "dynsim"]
    alone, place, copy = (folder / name for name in ("undisturbed", "disk", "copy"))
    place.mkdir()
    subprocess.run([*run, *sweep_words(alone, FILLING)], capture_output=True, check=True)
    words = [*run, *sweep_words(alone, FILLING)[:-2]]
    script = ["unshare", "-rm", "sh", "-c", FULL, "sh", str(place), str(copy), *words]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"full_disk": f"not testable here: {done.stderr.strip()}"}
    error, first, batches, second = done.stdout.strip().splitlines()
    return {
        "full_disk": error.replace(str(folder), ""),
        "statuses": [first, second],
        "batches_before": int(batches),
        "same_bytes": content(copy) == content(alone),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cells", default="1000,10000,100000", help="multiples of 10")
    parser.add_argument("--kills", type=int, default=50, help="random SIGKILLs")
    parser.add_argument("--seed", type=int, default=0, help="of their times")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(json.dumps(filled(folder)), flush=True)
        print(json.dumps(overhead(folder)), flush=True)
        if options.kills:
            print(json.dumps(killed(folder, options.kills, options.seed)), flush=True)
        for cells in map(int, filter(None, options.cells.split(","))):
            found = timed(folder, f"{cells} tiny cells", tiny(cells), cells)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
