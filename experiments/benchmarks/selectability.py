"""Which keys can win: time per key beside one linear programme per key by HiGHS."""

from __future__ import annotations

import time

import numpy as np
from scipy.optimize import linprog

import dynsim
from experiments.benchmarks.timing import in_turns, spread

__all__ = ["measured_selectability"]

#: Keys, dimension, and whether --quick takes it.
SIZES = [
    (60, 3, True), (60, 5, False), (60, 8, True), (60, 12, False), (60, 15, True),
    (1024, 8, False),
]  # fmt: skip
#: Sets of 60 keys that are decided together, fewer of larger ones.
SETS = 400
#: Keys given to HiGHS in one timing.
PROGRAMMES = 10


def measured_selectability(effort, quick: bool, say=print) -> dict:
    """By size: microseconds a key of both, their ratio, and whether all decisions agree."""
    found = {}
    for n, d, in_quick in SIZES:
        if in_quick or not quick:
            name = f"n={n} d={d}"
            say(f"selectability: {name}")
            found[name] = _measured(n, d, effort)
    return found


def _measured(n: int, d: int, effort) -> dict:
    sets = max(1, SETS * 60 * 60 // n**2)
    keys = np.random.default_rng([n, d]).standard_normal((sets, n, d))
    said = dynsim.selectability.selectable(keys)
    programmes = min(PROGRAMMES, n)

    def ours() -> float:
        begun = time.perf_counter()
        dynsim.selectability.selectable(keys)
        return (time.perf_counter() - begun) / (sets * n)

    highs = {form: lambda form=form: _timed(form, keys[0], programmes)[0] for form in FORMS}
    decided = [_timed(form, keys[0], programmes)[1] for form in FORMS]
    wrong = sum(int(np.sum(each != said[0, :programmes])) for each in decided)
    seconds = in_turns({"ours": ours, **highs}, effort.rounds)
    mine = float(np.median(seconds["ours"]))
    best = min(float(np.median(seconds[form])) for form in FORMS)
    return {
        "us": mine * 1e6,
        "spread": spread(seconds["ours"]),
        "linprog_us": best * 1e6,
        "ratio": best / mine,
        "unselectable": float(1 - said.mean()),
        "decisions": f"DISAGREES in {wrong}" if wrong else "same",
        "sets": sets,
    }


def _timed(form: str, keys, count: int) -> tuple[float, np.ndarray]:
    """Seconds a key, and the decisions."""
    begun = time.perf_counter()
    said = np.array([FORMS[form](keys[i], np.delete(keys, i, axis=0)) for i in range(count)])
    return (time.perf_counter() - begun) / count, said


def _by_weights(key, others) -> bool:
    """No convex weights of the others reproduce the key."""
    m = len(others)
    sides = {"A_eq": np.vstack([others.T, np.ones(m)]), "b_eq": np.append(key, 1.0)}
    return linprog(np.zeros(m), **sides, method="highs").status == 2


def _by_query(key, others) -> bool:
    """A query wins by 1."""
    m, d = others.shape
    sides = {"A_ub": others - key, "b_ub": -np.ones(m)}
    return linprog(np.zeros(d), **sides, bounds=(None, None), method="highs").status == 0


FORMS = {"weights": _by_weights, "query": _by_query}
