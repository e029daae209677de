"""Predicted late rates, their powers of t and whether they last, against powers in ball arithmetic.

Without scores and norm deviations go by K: Z -> skip Z + P Z W_V exactly, P the uniform walk. The
referee writes K on the differences x_i - x_1, squares it again and again with 4000 bits and reads
rho and p off ||K^t|| ~ t^p rho^t at t = 2^64 ... 2^140: no eigenvalue is computed, and ones that
differ by rounding are told apart. Under unit norm mu is the angle between rows of P^t X W_V^t, so
their wedge products over their sizes: those are made by powers of second compounds (Cauchy and
Binet). With scores it follows the tokens themselves.
"""

import math
from itertools import combinations

import numpy as np

import dynsim
from dynsim.network.weights import Fixed
from experiments.soundness.storm import Outcome

STATEMENT = (
    "near consensus mu goes by the predicted factor times the predicted power of t, to the error "
    "that is said; and a prediction that lasts does"
)
REFEREE = "python-flint: K^t by repeated squaring, and tokens layer by layer, with 4000 bits"
SYSTEMS = 3000

#: Bits; squarings, the first of which are not counted; layers of a run with scores.
_BITS, _SQUARINGS, _FIRST, _LAYERS = 4000, 140, 64, 300
#: A relative error of a predicted rate above which it counts as said to be uncertain.
_ROUGH = 1e-6


def trial(rng) -> Outcome:
    if rng.random() < 0.05:
        return _with_scores(rng)
    norm = dynsim.norms.Unit() if rng.random() < 0.2 else dynsim.norms.NoNorm()
    scaled = isinstance(norm, dynsim.norms.Unit)
    skip = 0.0 if scaled else float(rng.choice([0.0, 0.0, 0.0, 1.0, -0.5, 0.3]))
    n, d = int(rng.integers(2, 5 if scaled or skip else 8)), int(rng.integers(1, 3 if skip else 4))
    mask = _mask(rng, n)
    value_name, W_V = _value(rng, d)
    x0 = rng.standard_normal((n, d))
    graph = dynsim.masks.from_array(mask)
    dynamics = dynsim.AttentionDynamics(graph, Fixed(np.zeros((d, d)), W_V), norm, skip=skip)
    group = f"{'unit norm, ' if scaled else 'skip, ' if skip else ''}{value_name}"
    try:
        found = dynsim.predict(dynamics, x0)
    except FloatingPointError:  # W_V is nilpotent, and the norm divides by zero
        return Outcome("flagged", group)
    rate, power = _growth_of_angles(mask, W_V) if scaled else _growth(mask, W_V, skip)
    what = f"mask {mask.astype(int).tolist()}, W_V {W_V.tolist()}, skip {skip}: {found.law}"
    error = abs(found.rate - rate)
    if error > found.error + 4e-16 * rate:
        return Outcome("violated", group, f"{what}; rate {rate!r}")
    if not (found.lasts and found.linear != scaled):
        return Outcome("violated", group, f"{what}; lasts for ever")
    if rate == 0 or found.rate <= found.error:
        return Outcome("holds" if found.rate == 0 else "flagged", group)
    wrong = power > found.power + 0.3 or (not found.at_most and power < found.power - 0.3)
    if wrong:
        return Outcome("violated", group, f"{what}; power {power:.3f}")
    rough = found.at_most or found.error > _ROUGH * rate
    return Outcome("flagged" if rough else "holds", group, error=None if rough else error / rate)


# --- systems --------------------------------------------------------------------------------------


def _mask(rng, n: int) -> np.ndarray:
    """mask[i, j]: i attends to j."""
    i, j = np.indices((n, n))
    window = int(rng.integers(1, n))
    size = int(rng.integers(1, n))
    masks = {
        "complete": np.ones((n, n), bool),
        "causal": j <= i,
        "window back": (j <= i) & (i - j <= window),
        "window ahead": (j >= i) & (j - i <= window),
        "local": abs(i - j) <= window,
        "ring": np.isin((i - j) % n, [0, 1, n - 1]),
        "one-way ring": np.isin((i - j) % n, [0, 1]),
        "star": (i == j) | (i == 0) | (j == 0),
        "sink": (i == j) | (j == 0),
        "chain of blocks": (j // size <= i // size) & (i // size - j // size <= 1),
        "random": (rng.random((n, n)) < rng.uniform(0.1, 0.7)) | (i == j),
        "random triangle": ((rng.random((n, n)) < 0.5) & (j < i)) | (i == j),
        "random, no loops": (rng.random((n, n)) < rng.uniform(0.2, 0.8)) & (i != j),
    }
    mask = masks[str(rng.choice(list(masks)))]
    empty = np.flatnonzero(~mask.any(axis=1))
    mask[empty, rng.integers(0, n, len(empty))] = True
    shuffled = rng.permutation(n)
    return mask[np.ix_(shuffled, shuffled)]


def _value(rng, d: int) -> tuple[str, np.ndarray]:
    w = float(rng.choice([1.0, -1.0, 0.5, 1.3]))
    jordan = w * np.eye(d) + np.diag(rng.choice([1.0, 2.0, -3.0], d - 1), 1)
    whole = np.eye(d)
    for _ in range(4):  # products of elementary matrices: whole numbers, determinant 1
        a, b = rng.integers(0, d, 2)
        whole = whole @ (np.eye(d) + (a != b) * rng.integers(-2, 3) * _unit(d, a, b))
    back = np.round(np.linalg.inv(whole))
    basis = rng.standard_normal((d, d))
    values = {
        "Gaussian": basis,
        "orthogonal": np.linalg.qr(basis)[0],
        "identity": w * np.eye(d),
        "diagonal": np.diag(rng.choice([1.0, -1.0, 0.5], d)),
        "Jordan": jordan,
        "Jordan, upside down": jordan[::-1, ::-1].copy(),
        "Jordan, exact in another basis": whole @ jordan @ back,
        "Jordan, rounded in another basis": basis @ jordan @ np.linalg.inv(basis),
        "nilpotent": jordan - w * np.eye(d),
        "nilpotent, exact in another basis": whole @ (jordan - w * np.eye(d)) @ back,
        "whole numbers": rng.integers(-1, 2, (d, d)).astype(float),
        "triangular": np.triu(rng.integers(-2, 3, (d, d)), 1) + w * np.eye(d),
        "not negative": np.abs(np.round(basis)),
    }
    name = str(rng.choice(list(values)))
    return name, values[name]


def _unit(d: int, a: int, b: int) -> np.ndarray:
    unit = np.zeros((d, d))
    unit[a, b] = 1.0
    return unit


# --- the referee ----------------------------------------------------------------------------------


def _growth(mask, W_V, skip: float) -> tuple[float, float]:
    """(rho, p) of ||K^t|| ~ t^p rho^t; rho is 0 where a power of K is."""
    from flint import arb, arb_mat, ctx

    n, d = len(mask), len(W_V)
    degrees = [int(row.sum()) for row in mask]
    unit = math.lcm(*degrees)  # whole numbers: what is zero is zero
    P = [
        [int(entry) * unit // own for entry in row] for row, own in zip(mask, degrees, strict=True)
    ]
    before, ctx.prec = ctx.prec, _BITS
    try:
        B = [[arb(P[i][j] - P[0][j]) for j in range(1, n)] for i in range(1, n)]
        W = [[arb(float(entry)) for entry in row] for row in W_V]
        if not skip:  # ||B^t x W^t|| = ||B^t|| ||W^t||
            parts = [_power_law(arb_mat(part)) for part in (B, W)]
            rate = parts[0][0] * parts[1][0] / unit
            return float(rate), parts[0][1] + parts[1][1]
        K = arb_mat([
            [B[i][j] * W[b][a] + (unit * arb(skip) if (i, a) == (j, b) else 0)
             for j in range(n - 1) for b in range(d)]
            for i in range(n - 1) for a in range(d)
        ])  # fmt: skip
        rate, power = _power_law(K)
        return float(rate / unit), power
    finally:
        ctx.prec = before


def _whole_walk(mask) -> tuple[list[list[int]], int]:
    """unit P in whole numbers, so that what is zero is zero; and that unit."""
    degrees = [int(row.sum()) for row in mask]
    unit = math.lcm(*degrees)
    return [
        [int(e) * unit // own for e in row] for row, own in zip(mask, degrees, strict=True)
    ], unit


def _growth_of_angles(mask, W_V) -> tuple[float, float]:
    """(rho, p) of the angles between tokens, x_i ^ x_j over ||x_i|| ||x_j||."""
    from flint import arb, arb_mat, ctx

    P, unit = _whole_walk(mask)
    before, ctx.prec = ctx.prec, _BITS
    try:
        W = [[arb(float(entry)) for entry in row] for row in W_V]
        size, own = _power_law(arb_mat(W))
        if size == 0 or len(W) == 1:
            return 0.0, 0.0
        walk, tokens = (_power_law(_compound(part)) for part in (P, W))
        rate = walk[0] / unit**2 * tokens[0] / size**2
        return float(rate), walk[1] + tokens[1] - 2 * own
    finally:
        ctx.prec = before


def _compound(A):
    """The second compound: all minors of two rows and two columns."""
    from flint import arb, arb_mat

    pairs = list(combinations(range(len(A)), 2))
    return arb_mat([
        [arb(A[i][a] * A[j][b] - A[i][b] * A[j][a]) for a, b in pairs] for i, j in pairs
    ])  # fmt: skip


def _power_law(K):
    """(rho, p) of a matrix: log ||K^(2 t)|| - 2 log ||K^t|| is a constant less p log t."""
    from flint import arb

    logs = []
    for _ in range(_SQUARINGS + 1):
        total = sum((entry**2 for entry in K.entries()), arb(0))
        if total == 0:
            return arb(0), 0.0
        logs.append(total.log() / 2)
        K = (K * K).mid()  # the errors of rounding are far too small to be followed as balls
    bends = [float(logs[k + 1] - 2 * logs[k]) for k in (_FIRST, _SQUARINGS - 1)]
    power = (bends[0] - bends[1]) / ((_SQUARINGS - 1 - _FIRST) * math.log(2))
    return (logs[-1] / 2**_SQUARINGS).exp(), power


def _with_scores(rng) -> Outcome:
    """A prediction that lasts, tokens followed: mu is what uniform attention makes of it."""
    n, d = int(rng.integers(2, 5)), int(rng.integers(1, 3))
    mask = _mask(rng, n)
    W_V = rng.standard_normal((d, d)) * rng.uniform(0.5, 1.6)
    M = rng.standard_normal((d, d))
    z = 1e-7 * rng.standard_normal((n, d))
    x0 = rng.standard_normal(d) + z
    graph = dynsim.masks.from_array(mask)
    found = dynsim.predict(dynsim.AttentionDynamics(graph, Fixed(M, W_V)), x0)
    if not found.lasts or found.rate * found.growth > 0.97 or not found.rate:
        return Outcome("flagged", "scores")
    apart = _departs(mask, M, W_V, x0)
    if apart > 0.01:
        what = f"mask {mask.astype(int).tolist()}, M {M.tolist()}, W_V {W_V.tolist()}"
        return Outcome("violated", "scores", f"{what}, x0 {x0.tolist()}: {found.law}; {apart:.2g}")
    return Outcome("holds", "scores")


def _departs(mask, M, W_V, x0) -> float:
    """The largest |log (mu / mu with uniform attention)| over the layers."""
    from flint import arb, arb_mat, ctx

    before, ctx.prec = ctx.prec, _BITS // 2
    try:
        n = len(mask)
        X, M, W_V = (arb_mat([[arb(float(v)) for v in row] for row in a]) for a in (x0, M, W_V))
        P = arb_mat([[arb(int(entry)) / int(row.sum()) for entry in row] for row in mask])
        uniform, apart = X, 0.0
        for _ in range(_LAYERS):
            scores = X * M * X.transpose()
            rows = [[scores[i, j].exp() if mask[i, j] else arb(0) for j in range(n)]
                    for i in range(n)]  # fmt: skip
            A = arb_mat([[entry / sum(row, arb(0)) for entry in row] for row in rows])
            X, uniform = A * X * W_V, P * uniform * W_V
            ratio = _mu_squared(X) / _mu_squared(uniform)
            if ratio.rel_accuracy_bits() < 30:  # the balls are too wide to tell
                break
            apart = max(apart, abs(float(ratio.log())) / 2)
        return apart
    finally:
        ctx.prec = before


def _mu_squared(X):
    from flint import arb

    n, d = X.nrows(), X.ncols()
    means = [sum((X[i, a] for i in range(n)), arb(0)) / n for a in range(d)]
    return sum(((X[i, a] - means[a]) ** 2 for i in range(n) for a in range(d)), arb(0))
