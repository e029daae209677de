"""log mu of the log-scale engine against many digits, scores up to a thousand included."""

from __future__ import annotations

import mpmath as mp
import numpy as np

import dynsim
from dynsim import norms, weights
from experiments.digits import Layer
from experiments.soundness.bounds import random_mask, random_tokens
from experiments.soundness.storm import Outcome

STATEMENT = "log10 mu is right to 1e-9, relative to 1 + |log10 mu|, or flagged"
REFEREE = "mpmath: the definition with as many digits as it takes, 100 to 1600"
SYSTEMS = 10_000
TOLERANCE = 1e-9

NORMS = {
    "none": norms.NoNorm(),
    "unit": norms.Unit(),
    "rms": norms.RMSNorm(eps=0.0),
    "layernorm": norms.LayerNorm(eps=1e-5),
}


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
            f"depth {t}: {measured[t]!r} for {exact[t]!r}; {dynamics.mask.name}, {group}, "
            f"{dynamics.description}, x0 = {x0.tolist()}"
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
    layers = [
        Layer(list(zip(e.M, e.W_V, strict=True)), dynamics.allowed(), name, placement, skip,
              eps=1e-5 if name == "layernorm" else 0.0)
        for e in (entries * depth if shared else entries)
    ]  # fmt: skip
    return dynamics, x0, layers


def log10_mu(x0, layers) -> np.ndarray:
    """By depth, as far as 1600 digits tell."""
    digits = 100
    while True:
        sizes, shares = _with_digits(x0, layers, digits)
        lost = np.flatnonzero(shares < 40 - digits)
        if not len(lost):
            return sizes
        if digits >= 1600:
            return sizes[: lost[0]]
        digits *= 2


def _with_digits(x0, layers, digits: int):
    with mp.workdps(digits):
        x = [[mp.mpf(float(v)) for v in row] for row in x0]
        found = [_measured(x)]
        for layer in layers:
            try:
                x = layer.step(x)
            except ZeroDivisionError:  # a token without size
                break
            found.append(_measured(x))
            if found[-1][1] < 40 - digits:
                break
    return np.array(found).T


def _measured(x) -> tuple[float, float]:
    """(log10 mu, log10 of mu / ||X||)."""
    n, apart = len(x), mp.mpf(0)
    for column in zip(*x, strict=True):
        mean = mp.fsum(column) / n
        apart += mp.fsum((v - mean) ** 2 for v in column)
    if not apart:
        return -np.inf, -np.inf
    size = mp.fsum(mp.fdot(row, row) for row in x)
    return float(mp.log10(apart) / 2), float(mp.log10(apart / size) / 2)
