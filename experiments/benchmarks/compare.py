"""One case: every variant checked equal to dynsim, then all timed in turns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.cases import Case, Problem
from experiments.benchmarks.rivals import Absent, Form, Outcome, Setting
from experiments.benchmarks.timing import Load, TooSlow, in_turns, sized, spread

__all__ = ["TOLERANCE", "Effort", "compare"]

#: Largest difference to dynsim, relative to token size, after CHECKED layers.
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
CHECKED = 3


@dataclass(frozen=True)
class Effort:
    """How long one timing lasts, in seconds, and how many are taken of each variant."""

    seconds: float = 0.4
    rounds: int = 7


@dataclass(frozen=True)
class _Entry:
    """A variant that takes part."""

    form: str
    run: Form
    load: Load
    difference: float


def compare(case: Case, setting: Setting, effort: Effort, peaks, names=None, say=print) -> dict:
    """Everything measured of a case, ready for JSON; times are per trajectory and layer."""
    problem = case.build()
    ours = rivals.ours(problem, setting)
    expected = ours(CHECKED)
    load = sized(ours, case.layers, effort.seconds, first=CHECKED)
    entries, absent = {"dynsim": _Entry("simulate", ours, load, 0.0)}, {}
    for name in rivals.RIVALS if names is None else names:
        say(f"{case.name}: {rivals.RIVALS[name][0]}")
        try:
            entries[name] = _best_form(name, problem, setting, effort, expected)
        except Absent as reason:
            absent[name] = str(reason)
    say(f"{case.name}: timing in turns")
    timers = {
        name: lambda entry=entry: entry.load.timed(entry.run) for name, entry in entries.items()
    }
    seconds = in_turns(timers, effort.rounds)
    variants = {name: _summary(case, entries[name], seconds[name]) for name in entries}
    for name in absent:
        variants[name] = {"absent": absent[name]}
    mine = variants["dynsim"]["us"]
    for variant in variants.values():
        if "us" in variant:
            variant["ratio"] = variant["us"] / mine
    counts = problem.counts
    bound = peaks.least_seconds(counts, 1 if case.serial else setting.threads)
    bound /= np.dtype(np.float64).itemsize / np.dtype(case.dtype).itemsize  # twice as many at once
    return {
        "name": case.name,
        "regime": case.regime,
        "size": case.size,
        "target": case.target,
        "variants": variants,
        "counts": counts,
        "least_us": bound * 1e6,
        "roofline": bound * 1e6 / mine,
    }


def _best_form(
    name: str, problem: Problem, setting: Setting, effort: Effort, expected: Outcome
) -> _Entry:
    """The fastest form of a rival, all of them checked. Raises Absent."""
    case, reasons, best = problem.case, [], None
    for label, run in _forms(name, problem, setting).items():
        try:
            difference = run(CHECKED).distance(expected)
            if not difference <= TOLERANCE[case.dtype]:
                raise Absent(f"DISAGREES: differs by {difference:.1g} after {CHECKED} layers")
            pilot = sized(run, case.layers, effort.seconds / 4, setting.patience, CHECKED)
        except (Absent, TooSlow) as reason:
            reasons.append(f"{label}: {reason}")
        except Exception as error:  # a rival may fail in any way of its own; the rest goes on
            reasons.append(f"{label}: {_first_line(error)}")
        else:
            if best is None or pilot.layer_seconds < best.load.layer_seconds:
                best = _Entry(label, run, pilot, difference)
    if best is None:
        raise Absent("; ".join(reasons))
    if best.load.layer_seconds > effort.seconds:
        return best
    load = sized(best.run, case.layers, effort.seconds, first=best.load.layers)
    return replace(best, load=load)


def _forms(name: str, problem: Problem, setting: Setting) -> dict[str, Form]:
    try:
        return rivals.forms_of(name, problem, setting)
    except Absent:
        raise
    except Exception as error:
        raise Absent(_first_line(error)) from None


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:160] if text else 'no message'}"


def _summary(case: Case, entry: _Entry, seconds: list[float]) -> dict:
    return {
        "form": entry.form,
        "us": float(np.median(seconds)) / case.samples * 1e6,
        "spread": spread(seconds),
        "difference": entry.difference,
        "layers": entry.load.layers,
        "calls": entry.load.calls,
        "layer_seconds": seconds,
    }
