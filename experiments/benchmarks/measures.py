"""Measures: singular values of many matrices beside numpy and torch, and what a call without
`record=` takes more than one that records the cheap measures alone."""

from __future__ import annotations

import time

import numpy as np

import dynsim
from experiments.benchmarks.cases import CASES, Case
from experiments.benchmarks.timing import in_turns, spread

__all__ = ["measured_measures"]

#: Matrices N x d, how many there are, and whether --quick takes them.
SIZES = [
    (8, 4, 4096, True), (16, 8, 2048, False), (32, 16, 512, True), (64, 32, 128, False),
    (128, 64, 64, True), (256, 64, 64, False), (64, 128, 64, False), (128, 128, 64, False),
]  # fmt: skip
#: Names of cases, and numbers of layers.
CALLS = [
    (name, layers)
    for name in (
        "small-8x4", "small-16x8", "small-32x16", "small-64x32", "medium-128x64-complete",
        "medium-256x64-complete",
    )
    for layers in (20, 100)
]  # fmt: skip
#: How many times as long as numpy's, and as the cheap measures' call: plans, never results.
TARGETS = {"numpy": 5.0, "default": 1.5}
#: Largest difference to numpy's values, in machine epsilons of sigma_1, for matrices like these.
AGREE = 64.0


def measured_measures(effort, quick: bool, say=print) -> dict:
    """{"values": {size: row}, "calls": {what: row}}."""
    values, calls = {}, {}
    for n, d, count, in_quick in SIZES:
        if in_quick or not quick:
            say(f"measures: singular values of {count} matrices {n} x {d}")
            values[f"{n} x {d}"] = _values(n, d, count, effort)
    for name, layers in CALLS:
        case = CASES[name]
        if case.quick or not quick:
            say(f"measures: the default call, {name}, {layers} layers")
            calls[f"{case.size} T={layers}"] = _call(case, layers, effort)
    return {"values": values, "calls": calls}


def _values(n: int, d: int, count: int, effort) -> dict:
    """Microseconds a matrix of each, and the ratios to ours."""
    x = np.random.default_rng([n, d]).standard_normal((count, n, d))
    forms = {
        "dynsim": lambda: dynsim.measures.singular_values(x),
        "numpy": lambda: np.linalg.svd(x, compute_uv=False),
    }
    try:
        import torch
    except ImportError:
        pass
    else:
        same = torch.from_numpy(x)
        forms["torch"] = lambda: torch.linalg.svdvals(same).numpy()
    sigma = {name: form() for name, form in forms.items()}
    apart = np.abs(sigma["dynsim"] - sigma["numpy"]).max(axis=1) / sigma["numpy"][:, 0]
    difference = float(apart.max() / np.finfo(float).eps)
    seconds = in_turns({name: _timer(form, effort) for name, form in forms.items()}, effort.rounds)
    us = {name: 1e6 * float(np.median(values)) / count for name, values in seconds.items()}
    return {
        "count": count,
        "us": us,
        "spread": spread(seconds["dynsim"]),
        "ratios": {name: us[name] / us["dynsim"] for name in us if name != "dynsim"},
        "difference": difference,
        "values": "same" if difference <= AGREE else f"DISAGREES: {difference:.0f} eps",
    }


def _call(case: Case, layers: int, effort) -> dict:
    """The default call beside the cheap measures' alone; times are per trajectory and layer."""
    problem = case.build()
    cheap = dynsim.Record(measures=())
    forms = {
        "default": lambda: dynsim.simulate(problem.dynamics, problem.x0, layers),
        "cheap": lambda: dynsim.simulate(problem.dynamics, problem.x0, layers, record=cheap),
    }
    records = len(forms["default"]().recorded("rank")[0])
    seconds = in_turns({name: _timer(form, effort) for name, form in forms.items()}, effort.rounds)
    ratios = np.array(seconds["default"]) / np.array(seconds["cheap"])
    scale = 1e6 / case.samples / layers
    return {
        "records": records,
        "us": {name: scale * float(np.median(values)) for name, values in seconds.items()},
        "ratio": float(np.median(ratios)),
        "spread": spread(ratios),
    }


def _timer(form, effort):
    """Seconds of one call, of as many as fill a timing."""
    begun = time.perf_counter()
    form()
    calls = max(1, int(effort.seconds / (time.perf_counter() - begun)))

    def timed() -> float:
        begun = time.perf_counter()
        for _ in range(calls):
            form()
        return (time.perf_counter() - begun) / calls

    return timed
