"""log mu of the log-scale engine against many digits, scores up to a thousand included."""

from __future__ import annotations

import numpy as np

import dynsim
from dynsim import weights
from experiments.digits import log10_sizes
from experiments.soundness.storm import Outcome
from experiments.soundness.systems import NORMS, layer_of, random_mask, random_tokens

STATEMENT = "log10 mu is right to 1e-9, relative to 1 + |log10 mu|, or flagged"
REFEREE = "mpmath: the definition with as many digits as it takes, 100 to 1600"
SYSTEMS = 10_000
TOLERANCE = 1e-9


def trial(rng: np.random.Generator) -> Outcome:
    dynamics, x0, layers = system(rng)
    try:
        run = dynsim.simulate(dynamics, x0, len(layers), engine="logscale",
                              record=dynsim.Record(measures=()))  # fmt: skip
    except dynsim.Overflow as ended:
        run = ended.trajectory
    measured = run["log10_mu"][0]
    exact = log10_mu(x0, layers[: len(measured) - 1])
    depths = min(len(exact), len(measured))
    measured, exact = measured[:depths], exact[:depths]
    flagged = (
        run["log10_mu_error"][0, :depths] > TOLERANCE
        if "log10_mu_error" in run.measures
        else np.zeros(depths, bool)
    )
    error = _error(measured, exact)
    wrong = (error > TOLERANCE) & ~flagged
    group = type(dynamics.norm).__name__
    if wrong.any():
        t = int(np.argmax(wrong))
        detail = (
            f"depth {t}: {measured[t]!r} for {exact[t]!r}; {dynamics.mask.name}, {group} "
            f"({dynamics.placement}), skip {dynamics.skip:g}, {dynamics.weights.n_heads} heads, "
            f"x0 = {x0.tolist()}"
        )
        return Outcome("violated", group, detail, float(error[t]))
    right = float(error[~flagged].max(initial=0.0))
    return Outcome("flagged" if flagged.any() else "holds", group, error=right)


def _error(measured: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|difference| / (1 + |exact|); 0 where both are -inf."""
    same = np.isneginf(measured) & np.isneginf(exact)
    with np.errstate(invalid="ignore"):
        error = np.abs(measured - exact) / (1.0 + np.abs(exact))
    return np.where(same, 0.0, np.nan_to_num(error, nan=np.inf))


def system(rng: np.random.Generator):
    """(dynamics, tokens, layers for the referee)."""
    n, d = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    depth = int(rng.choice([2, 6, 20, 60], p=[0.3, 0.4, 0.25, 0.05]))
    x0 = random_tokens(rng, n, d)
    if not np.ptp(x0, axis=0).any():  # nothing to follow
        x0 = rng.standard_normal((n, d))
    heads = int(rng.choice([1, 2], p=[0.85, 0.15]))
    shared = bool(rng.random() < 0.5)
    entries = []
    for _ in range(1 if shared else depth):
        M, W_V = rng.standard_normal((2, heads, d, d))
        strength = 10.0 ** rng.uniform(-1, 3)
        M *= strength / max(np.abs(x0 @ M @ x0.T).max(), 1e-300)
        if rng.random() < 0.4:
            W_V = np.array([np.linalg.qr(w)[0] for w in W_V]) / heads
        W_V *= rng.choice([0.7, 1.0, 1.3])
        entries.append(weights.LayerWeights.from_matrices(M, W_V))
    name = str(rng.choice(list(NORMS), p=[0.4, 0.35, 0.1, 0.15]))
    placement = str(rng.choice(["post", "pre", "peri"], p=[0.7, 0.2, 0.1]))
    skip = float(rng.choice([0.0, 0.5, 1.0], p=[0.75, 0.1, 0.15]))
    dynamics = dynsim.AttentionDynamics(
        random_mask(rng, n), weights.Layers(tuple(entries)), NORMS[name], placement, skip
    )
    layers = [layer_of(dynamics, name, t, d) for t in range(depth)]
    return dynamics, x0, layers


def log10_mu(x0, layers) -> np.ndarray:
    """By depth, as far as 1600 digits tell."""
    digits = 100
    while True:
        sizes, shares = log10_sizes(x0, layers, digits, lost=40 - digits)
        lost = np.flatnonzero(shares < 40 - digits)
        if not len(lost):
            return sizes
        if digits >= 1600:
            return sizes[: lost[0]]
        digits *= 2
