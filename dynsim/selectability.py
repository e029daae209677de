"""STAND-IN until the room `selectability` is merged: one linear program a key, scipy's HiGHS."""

from __future__ import annotations

import numpy as np

__all__ = ["selectable", "unselectable_fraction"]


def selectable(keys: np.ndarray) -> np.ndarray:
    """True for each key (n, d) that some query q prefers: (k_j - k_i) q <= -1 for all j != i."""
    from scipy.optimize import linprog

    found = np.zeros(len(keys), bool)
    for i, key in enumerate(keys):
        others = np.delete(keys, i, axis=0) - key
        answer = linprog(np.zeros(len(key)), others, -np.ones(len(others)), bounds=(None, None))
        found[i] = answer.status == 0
    return found


def unselectable_fraction(hidden_states: np.ndarray) -> np.ndarray:
    """Share of unselectable keys in each (n, d) of (..., n, d)."""
    flat = hidden_states.reshape(-1, *hidden_states.shape[-2:])
    return np.array([1.0 - selectable(keys).mean() for keys in flat]).reshape(
        hidden_states.shape[:-2]
    )
