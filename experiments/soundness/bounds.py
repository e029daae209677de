"""Bounds on mu against the run itself in many digits."""

from __future__ import annotations

import numpy as np

import dynsim
from dynsim import weights
from experiments.digits import log10_sizes
from experiments.soundness.storm import Outcome
from experiments.soundness.systems import NORMS, layer_of, random_mask, random_tokens

STATEMENT = "no proved bound lies below mu of the run in exact arithmetic, at any depth"
REFEREE = "mpmath: the definition with 80 digits, at depths where mu is above 1e-50 of ||X||"
SYSTEMS = 100_000

#: Digits of the referee, and how far below ||X|| it then still knows mu.
DIGITS, KNOWN = 80, -50.0
#: Bounds may be met with equality: digits of log mu that have to agree.
TOLERANCE = 1e-11
#: Seconds that a system may take for more digits.
PATIENCE = 0.02


def trial(rng: np.random.Generator) -> Outcome:
    norm = str(rng.choice(list(NORMS), p=[0.47, 0.47, 0.03, 0.03]))
    n, d = int(rng.integers(2, 6)), int(rng.integers(1, 6))
    depth = int(rng.choice([1, 2, 4, 8, 24], p=[0.15, 0.3, 0.35, 0.17, 0.03]))
    mask = random_mask(rng, n)
    network = random_weights(rng, d, spherical=norm == "unit" and rng.random() < 0.8)
    dynamics = dynsim.AttentionDynamics(mask, network, NORMS[norm])
    x0 = random_tokens(rng, n, d)
    bounds = dynsim.bounds.mu_bounds(dynamics, x0, depth, patience=PATIENCE)
    those = {name: one.log10_bound[0] for name, one in bounds.items() if one.applies[0]}
    if not those:
        return Outcome("flagged", f"{norm}, no bound applies")
    group = norm + ", independent rows" * ("independent rows" in those)
    layers = [layer_of(dynamics, norm, t, d) for t in range(depth)]
    sizes, shares = log10_sizes(x0, layers, DIGITS)
    known = shares > KNOWN
    low, high = bounds.log10_mu[:, 0, : len(sizes)]
    worst = max(
        *(_excess(sizes, one, known) for one in [*those.values(), high]),
        _excess(low, sizes, known),
    )
    if worst > TOLERANCE:
        return Outcome("violated", group, f"{dynamics.description} x0 = {x0.tolist()}")
    return Outcome("holds", group, error=max(0.0, worst))


def _excess(low: np.ndarray, high: np.ndarray, known: np.ndarray) -> float:
    """By how much `low` exceeds `high` at most, at depths that are known."""
    return max(
        (float(a - b) for a, b, fine in zip(low, high, known, strict=False)
         if fine and a > b), default=0.0,
    )  # fmt: skip


def random_weights(rng, d: int, spherical: bool):
    """Scores from none to strong; values that shrink, keep and stretch, shared or fresh."""
    heat = float(10.0 ** rng.uniform(-1, 1.5))
    scores = weights.Zero() if rng.random() < 0.15 else weights.Gaussian(heat)
    scale = float(10.0 ** rng.uniform(-0.5, 0.7))
    families = [weights.Orthogonal(), weights.Identity()]
    if not spherical:
        families += [weights.Gaussian(scale), weights.Diagonal(scale), weights.Jordan(scale)]
    value = families[int(rng.integers(len(families)))]
    seed, shared = int(rng.integers(2**31)), bool(rng.random() < 0.5)
    return weights.Weights(scores, value, shared=shared, seed=seed)
