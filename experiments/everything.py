"""``python -m experiments all``: what has no results yet, several at a time, each by itself.

Each experiment is a process of its own with one thread, the longest first, so that one that fails
or is interrupted leaves the others alone; whoever calls again goes on with what is missing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from experiments.record import read, sidecar_of

__all__ = ["cost", "is_done", "run_missing"]

FIGURES = Path(__file__).parent.parent / "figures"
#: Seconds that are taken for an experiment that was never run.
_UNKNOWN = 60.0


def is_done(name: str, experiment, settings: str, seed: int, folder: Path) -> bool:
    """The folder has the results of these settings and seed."""
    recorded = read(sidecar_of(folder, name))
    if recorded is None or not (folder / f"{name}.npz").exists():
        return False
    wanted = json.loads(json.dumps({"name": settings, **experiment.SETTINGS[settings]}))
    return recorded["settings"] == wanted and recorded["seed"] == seed


def cost(name: str) -> float:
    """Seconds that an experiment took at default settings, as recorded in figures."""
    recorded = read(sidecar_of(FIGURES, name))
    return recorded["runtime_s"] if recorded else _UNKNOWN


def run_missing(options, known) -> int:
    """Exit status: 0 no claim fails, 1 some do or an experiment broke off, 130 interrupted."""
    names = [name for name in options.names or known if options.settings in known[name].SETTINGS]
    done = [] if options.again else [
        name for name in names
        if is_done(name, known[name], options.settings, options.seed, options.out)
    ]  # fmt: skip
    todo = sorted(set(names) - set(done), key=cost, reverse=True)
    if done:
        print(f"{len(done)} of {len(names)} have results in {options.out}; --again runs them anew")
    worst, begun, failed = 0, time.monotonic(), []
    total = sum(cost(name) for name in todo)
    workers = max(1, min(options.workers or os.cpu_count() or 1, len(todo)))
    with ThreadPoolExecutor(workers) as pool:
        waiting: dict[Future, str] = {pool.submit(_run, name, options): name for name in todo}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    name = waiting.pop(future)
                    status, words = future.result()
                    worst = max(worst, min(status, 1))
                    print(words, end="", flush=True)
                    if status > 1:
                        failed.append(name)
                    left = sum(cost(other) for other in waiting.values())
                    spent = time.monotonic() - begun
                    print(
                        f"[{len(todo) - len(waiting)} of {len(todo)}, "
                        f"{100 * (1 - left / total):.0f}% of the work, {spent / 60:.1f} min]",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            print("experiments: interrupted; the same command goes on with what is missing",
                  file=sys.stderr)  # fmt: skip
            return 130
    if failed:
        print(f"experiments: without results: {', '.join(failed)}", file=sys.stderr)
    return worst


def _run(name: str, options) -> tuple[int, str]:
    """Exit status and output of one experiment."""
    command = [
        sys.executable, "-m", "experiments", "run", name, "--settings", options.settings,
        "--seed", str(options.seed), "--out", str(options.out.resolve()),
        "--format", ",".join(options.format), "--width", options.width,
        *(["--no-title"] if options.no_title else []),
    ]  # fmt: skip
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    done = subprocess.run(
        command, cwd=FIGURES.parent, env=os.environ | one_thread, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout
