"""Measures: singular values of many matrices beside numpy and torch; and calls beside the one that
records the cheap measures alone: without `record=`, on the log-scale engine, on float32 tokens."""

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
#: How many times as long numpy takes, and each call beside the cheap one: plans, never results.
TARGETS = {"numpy": 5.0, "default": 1.5, "logscale": 1.5, "float32": 1.0 / 1.7}
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
            say(f"measures: calls, {name}, {layers} layers")
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
    """Calls beside the cheap measures' alone; times are per trajectory and layer."""
    problem = case.build()
    dynamics, x0, cheap = problem.dynamics, problem.x0, dynsim.Record(measures=())
    rough = x0.astype(np.float32)
    forms = {
        "cheap": lambda: dynsim.simulate(dynamics, x0, layers, record=cheap),
        "default": lambda: dynsim.simulate(dynamics, x0, layers),
        "logscale": lambda: dynsim.simulate(dynamics, x0, layers, record=cheap, engine="logscale"),
        "float32": lambda: dynsim.simulate(dynamics, rough, layers, record=cheap),
    }
    records = len(forms["default"]().recorded("rank")[0])
    seconds = in_turns({name: _timer(form, effort) for name, form in forms.items()}, effort.rounds)
    ratios = {
        name: np.array(values) / np.array(seconds["cheap"])
        for name, values in seconds.items()
        if name != "cheap"
    }
    scale = 1e6 / case.samples / layers
    return {
        "records": records,
        "us": {name: scale * float(np.median(values)) for name, values in seconds.items()},
        "ratios": {name: float(np.median(values)) for name, values in ratios.items()},
        "spread": {name: spread(values) for name, values in ratios.items()},
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
