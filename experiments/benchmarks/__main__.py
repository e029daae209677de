"""The benchmark's command line; numpy is loaded after the threads are settled, not before."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from experiments import did_you_mean

ROOT = Path(__file__).parents[2]
EPILOG = """examples:
  python -m experiments.benchmarks
      everything, some 30 minutes; writes figures/benchmarks.json and .png
  python -m experiments.benchmarks --quick
      every regime at one or two sizes, in minutes; writes to results/
  python -m experiments.benchmarks small local-16384-w32 accuracy --threads 1
      a regime, a case and a section, everything on one core
"""
SECTIONS = {
    "scaling": "time and memory against N, samples and threads",
    "measures": "singular values beside numpy and torch; default, log-scale and float32 calls",
    "selectability": "time per key to decide which keys can win, beside HiGHS",
    "accuracy": "errors against 50 digits and long doubles, scores to ±1e4 included",
    "start": "the main job from a cold and a warm start, and imports",
}


class _OneLineParser(argparse.ArgumentParser):
    """dynsim's own would load numpy."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}; see --help\n")


def parser() -> argparse.ArgumentParser:
    command = _OneLineParser(
        prog="benchmarks",
        description="Time dynsim beside numpy, torch and JAX, all checked to give the same.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument(
        "names", nargs="*", metavar="NAME", help="cases, regimes or sections; see --list (all)"
    )
    command.add_argument("--list", action="store_true", help="name all that can be measured")
    command.add_argument("--quick", action="store_true", help="fewer sizes, shorter timings")
    command.add_argument(
        "--threads", type=int, metavar="P", help="cores that every variant may use (all)"
    )
    command.add_argument(
        "--patience", type=float, metavar="S",
        help="leave out rivals that take longer than S seconds a layer (20; 2 with --quick)",
    )  # fmt: skip
    command.add_argument(
        "--out", type=Path, metavar="DIR",
        help="where files go (figures; results for a part of it or with --quick)",
    )  # fmt: skip
    command.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, nothing else"
    )
    return command


def cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def claim(threads: int) -> None:
    """Hold this process, every library in it and its children to so many cores."""
    available = cores()
    if threads < len(available) and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, available[:threads])
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of idle processes


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a rival disagrees with dynsim, 2 bad input, 130 interrupted."""
    command = parser()
    options = command.parse_args(argv)
    available = len(cores())
    threads = available if options.threads is None else options.threads
    if not 1 <= threads <= available:
        command.error(f"--threads is 1 to {available}, the cores at hand; got {threads}")
    if options.patience is not None and not options.patience > 0:
        command.error(f"--patience is a positive number of seconds; got {options.patience}")
    default = "results" if options.quick or options.names else "figures"
    folder = options.out or ROOT / default
    if folder.exists() and not folder.is_dir():
        command.error(f"--out {folder} is a file; name a folder")
    claim(threads)

    from experiments.benchmarks.cases import CASES

    regimes = dict.fromkeys(case.regime for case in CASES.values())
    if options.list:
        _print_names(CASES, regimes)
        return 0
    for name in options.names:
        if name not in {*CASES, *regimes, *SECTIONS}:
            meant = did_you_mean(name, [*CASES, *regimes, *SECTIONS])
            command.error(
                f"unknown name {name!r}; {meant}known are {', '.join([*regimes, *SECTIONS])} and "
                f"the cases that --list shows"
            )
    wanted = options.names or [*regimes, *SECTIONS]
    cases = [
        case for case in CASES.values()
        if case.name in wanted or (case.regime in wanted and (case.quick or not options.quick))
    ]  # fmt: skip
    sections = [name for name in SECTIONS if name in wanted]
    return _carry_out(cases, sections, threads, options, folder)


def _print_names(cases, regimes) -> None:
    for regime in regimes:
        print(regime)
        for case in cases.values():
            if case.regime == regime:
                print(f"    {case.name:<28}{case.size}{'  (quick)' if case.quick else ''}")
    for name, meaning in SECTIONS.items():
        print(f"{name:<12}{meaning}")


def _carry_out(cases, sections, threads, options, folder) -> int:
    from rich.console import Console

    from experiments.benchmarks.compare import Effort
    from experiments.benchmarks.report import print_report, write
    from experiments.benchmarks.rivals import Setting

    patience = options.patience or (2.0 if options.quick else 20.0)
    setting = Setting(threads, patience)
    effort = Effort(0.1, 3) if options.quick else Effort()
    found = _provenance(setting, effort, options.quick) | {"cases": [], "complete": False}
    begun = time.perf_counter()

    def say(message: str) -> None:
        print(f"{time.perf_counter() - begun:6.0f} s  {message}", file=sys.stderr, flush=True)

    try:
        _measure(found, cases, sections, setting, effort, options.quick, say)
        found["complete"] = True
    except KeyboardInterrupt:
        say("interrupted; what was measured is kept")
    except Exception:
        write(found, folder)
        raise
    found["runtime_s"] = round(time.perf_counter() - begun, 1)
    measured = found["cases"] or any(name in found for name in SECTIONS)
    files = write(found, folder) if measured else []
    if options.json:
        print(json.dumps(found))
    else:
        width = None if sys.stdout.isatty() else 200
        print_report(found, Console(width=width))
    for path in files:
        print(f"wrote {path}", file=sys.stderr)
    if not found["complete"]:
        return 130
    return int("DISAGREES" in json.dumps(found))


def _measure(found, cases, sections, setting, effort, quick, say) -> None:
    """Fill `found`, part by part, so that an interruption loses the part under way alone."""
    from experiments.benchmarks.accuracy import measured_accuracy
    from experiments.benchmarks.compare import compare
    from experiments.benchmarks.measures import measured_measures
    from experiments.benchmarks.peaks import measured_peaks
    from experiments.benchmarks.scaling import measured_scaling
    from experiments.benchmarks.selectability import measured_selectability
    from experiments.benchmarks.start import measured_start

    if cases:
        say("peaks of the machine")
        peaks = measured_peaks(setting.threads, effort.rounds)
        found["peaks"] = peaks.to_dict()
    for case in cases:
        found["cases"].append(compare(case, setting, effort, peaks, say=say))
    if "scaling" in sections:
        found["scaling"] = measured_scaling(setting, effort, quick, say)
    if "measures" in sections:
        found["measures"] = measured_measures(effort, quick, say)
    if "selectability" in sections:
        found["selectability"] = measured_selectability(effort, quick, say)
    if "accuracy" in sections:
        found["accuracy"] = measured_accuracy(setting, say=say)
    if "start" in sections:
        found["start"] = measured_start(quick, say)


def _provenance(setting, effort, quick: bool) -> dict:
    """Where, when and with what."""
    import platform
    from dataclasses import asdict
    from importlib.metadata import PackageNotFoundError, version

    from experiments.record import commit_of_code

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = ("dynsim", "numpy", "scipy", "numba", "torch", "jax", "mpmath")
    return {
        "settings": asdict(setting) | {"quick": quick, "timing": asdict(effort)},
        "machine": {"cpu": _cpu_name(), "cores": len(cores()), "platform": platform.platform()},
        "versions": {name: installed(name) for name in packages}
        | {"python": platform.python_version()},
        "commit": commit_of_code(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu_name() -> str:
    import platform

    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
