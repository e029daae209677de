"""What sweeps cost, and whether they lose anything: times by number of cells, and random SIGKILLs.

    python -m experiments.benchmarks.sweeps [--cells 1000,10000] [--kills 50] [--seed 0]

Every number of tiny cells is one sweep of a fresh process with two workers. A sweep is then killed
at random times and begun again, until it is complete, and its bytes are compared with those of one
that nobody disturbed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

#: Cells of some milliseconds: what is timed is the rest.
TINY = ("mask=causal", "value=identity", "scores=identity", "norm=unit", "tokens=4", "dim=2",
        "samples=1", "depth=10")  # fmt: skip
#: 192 cells in some 32 batches of half a second.
KILLED = ("mask=local,causal", "value=orthogonal,gaussian", "beta=0.1:10:log16", "seeds=3",
          "norm=unit", "tokens=24", "dim=16", "samples=8", "depth=200")  # fmt: skip
#: Runs the command in its words and prints seconds and the peak of memory, in MiB.
MEASURED = """
import resource, sys, time
from dynsim.cli.main import main
if __name__ == "__main__":
    begun = time.monotonic()
    status = main(sys.argv[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.monotonic() - begun, peak, file=sys.stderr)
    sys.exit(status)
"""


def sweep_words(out: Path, parameters: tuple[str, ...]) -> list[str]:
    return ["sweep", "--grid", *parameters, "--workers", "2", "--out", str(out)]


def content(store: Path) -> dict[str, bytes]:
    return {str(f.relative_to(store)): f.read_bytes() for f in store.rglob("*") if f.is_file()}


def timed(folder: Path, cells: int) -> dict[str, float]:
    """Seconds and peak memory (MiB, of the parent) of a sweep of so many tiny cells."""
    words = sweep_words(
        folder / f"tiny-{cells}", (*TINY, f"beta=0.1:10:log{cells // 10}", "seeds=10")
    )
    script = folder / "measured.py"
    script.write_text(MEASURED)
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=True
    )
    seconds, peak = map(float, done.stderr.split())
    return {"cells": cells, "seconds": seconds, "ms_per_cell": 1e3 * seconds / cells, "MiB": peak}


def killed(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """A sweep killed again and again beside one left alone."""
    alone, store = folder / "alone", folder / "killed"
    run = [sys.executable, "-m", "dynsim"]
    begun = time.monotonic()
    subprocess.run([*run, *sweep_words(alone, KILLED)], capture_output=True, check=True)
    usual = time.monotonic() - begun
    rng = np.random.default_rng(seed)
    done, before = 0, 0
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
        else:  # complete before all kills: begin anew
            if process.returncode:
                return {"kills": done, "ended_with": process.returncode}
            if content(store) != content(alone):
                return {"kills": done, "same_bytes": False}
            before += 1
            store = folder / f"killed-{before}"
    subprocess.run([*run, *sweep_words(store, KILLED)], capture_output=True, check=True)
    same = content(store) == content(alone)
    return {"kills": done, "sweeps": before + 1, "same_bytes": same, "usual_seconds": usual}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cells", default="1000,10000", help="numbers of cells, multiples of 10")
    parser.add_argument("--kills", type=int, default=50, help="random SIGKILLs")
    parser.add_argument("--seed", type=int, default=0, help="of their times")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for cells in map(int, filter(None, options.cells.split(","))):
            print(json.dumps(timed(Path(name), cells)), flush=True)
        if options.kills:
            print(json.dumps(killed(Path(name), options.kills, options.seed)), flush=True)


if __name__ == "__main__":
    main()
