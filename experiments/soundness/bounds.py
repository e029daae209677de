"""Bounds on mu against the run itself in many digits."""

from __future__ import annotations

import mpmath as mp
import numpy as np

import dynsim
from dynsim import masks, norms, weights
from experiments.digits import Layer, log_mu
from experiments.soundness.storm import Outcome

STATEMENT = "no certified bound lies below mu of the run in exact arithmetic, at any depth"
REFEREE = "mpmath: the definition with 80 digits, more where it matters"
SYSTEMS = 100_000

#: Digits of the referee, and how far below ||X|| it then still knows mu.
DIGITS, KNOWN = 80, -50.0
#: Bounds may be met with equality: digits of log mu that have to agree.
TOLERANCE = 1e-11
#: Seconds that a system may take for more digits.
PATIENCE = 0.02

NORMS = {
    "none": norms.NoNorm(),
    "unit": norms.Unit(),
    "rms": norms.RMSNorm(eps=0.0),
    "layernorm": norms.LayerNorm(eps=1e-5),
}


def trial(rng: np.random.Generator) -> Outcome:
    norm = str(rng.choice(list(NORMS), p=[0.47, 0.47, 0.03, 0.03]))
    n, d = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    depth = int(rng.choice([1, 2, 4, 8, 24], p=[0.15, 0.3, 0.35, 0.17, 0.03]))
    mask = random_mask(rng, n)
    network = random_weights(rng, d, spherical=norm == "unit" and rng.random() < 0.8)
    dynamics = dynsim.AttentionDynamics(mask, network, NORMS[norm])
    x0 = random_tokens(rng, n, d)
    bounds = dynsim.certificates.certificates(dynamics, x0, depth, patience=PATIENCE)
    those = {name: one.log10_bound[0] for name, one in bounds.items() if one.applies[0]}
    if not those:
        return Outcome("flagged", f"{norm}, no bound applies")
    layers = [layer_of(dynamics, norm, t, d) for t in range(depth)]
    sizes, known = _sizes(x0, layers)
    low, high = bounds.log10_mu[:, 0, : len(sizes)]
    worst = max(
        *(_excess(sizes, one, known) for one in [*those.values(), high]),
        _excess(low, sizes, known),
    )
    if worst > TOLERANCE:
        return Outcome("violated", norm, f"{dynamics.description} x0 = {x0.tolist()}")
    return Outcome("holds", norm, error=max(0.0, worst))


def _excess(low: np.ndarray, high: np.ndarray, known: np.ndarray) -> float:
    """By how much `low` exceeds `high` at most, at depths that are known."""
    return max(
        (float(a - b) for a, b, fine in zip(low, high, known, strict=False)
         if fine and a > b), default=0.0,
    )  # fmt: skip


def layer_of(dynamics, norm: str, t: int, d: int) -> Layer:
    """Layer t for the referee."""
    layer = dynamics.weights.layer(t, d)
    heads = list(zip(layer.M, layer.W_V, strict=True))
    return Layer(heads, dynamics.allowed(), norm, eps=1e-5 if norm == "layernorm" else 0.0)


def _sizes(x0, layers) -> tuple[np.ndarray, np.ndarray]:
    """(log10 mu by depth up to where tokens vanish, where that is known).

    Unknown mu, far below ||X||, is taken for 0: a bound below that is another matter.
    """
    with mp.workdps(DIGITS):
        x = [[mp.mpf(float(v)) for v in row] for row in x0]
        found = [_log10_mu(x)]
        for layer in layers:
            try:
                x = layer.step(x)
            except ZeroDivisionError:  # a token without size
                break
            found.append(_log10_mu(x))
    logs, shares = np.array(found).T
    known = shares > KNOWN
    return np.where(known, logs, -np.inf), known


def _log10_mu(x) -> tuple[float, float]:
    """(log10 mu, log10 of mu / ||X||)."""
    n = len(x)
    apart = mp.mpf(0)
    for column in zip(*x, strict=True):
        mean = mp.fsum(column) / n
        apart += mp.fsum((v - mean) ** 2 for v in column)
    size = mp.fsum(mp.fdot(row, row) for row in x)
    if not apart:
        return -np.inf, -np.inf
    return float(mp.log10(apart) / 2), float(mp.log10(apart / size) / 2)


def exact_log10_mu(x0, layers) -> np.ndarray:
    """With as many digits as it takes; for looking into a violation."""
    return log_mu(x0, layers) / np.log(10.0)


# --- systems --------------------------------------------------------------------------------------


def random_mask(rng, n: int):
    """One of dynsim's masks, or a random graph, most often with self-loops."""
    names = [name for name in masks.MASKS if name != "global"]
    if rng.random() < 0.6:
        try:
            return masks.MASKS[str(rng.choice(names))](n)
        except ValueError:  # some want more tokens
            return masks.complete(n)
    edges = rng.random((n, n)) < rng.uniform(0.1, 0.9)
    if rng.random() < 0.8:
        edges |= np.eye(n, dtype=bool)
    edges[edges.sum(axis=1) == 0, 0] = True
    return masks.from_adjacency(edges.T)


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


def random_tokens(rng, n: int, d: int) -> np.ndarray:
    """Gaussian of any size, on the sphere, all alike but for a little, or integers."""
    x = rng.standard_normal((n, d))
    kind = rng.integers(6)
    if kind == 1:
        x *= 10.0 ** rng.uniform(-3, 2)
    elif kind == 2:
        x = np.abs(x) / np.linalg.norm(x, axis=1, keepdims=True)
    elif kind == 3:
        x = x[0] + x * 10.0 ** rng.uniform(-15, -1)
    elif kind == 4:
        x = rng.integers(-2, 3, (n, d)).astype(float)
    elif kind == 5:
        x[rng.integers(n)] = x[0]
    x[~x.any(axis=1)] = 1.0
    return x
