"""Every measure of a state against its definition: within the error that dynsim states for it."""

from __future__ import annotations

import mpmath as mp
import numpy as np

from dynsim.measures import MEASURES
from dynsim.measures.rounding import ROUNDING, Sizes
from experiments.soundness.storm import Outcome

STATEMENT = (
    "a measure of rounded tokens differs from that of the exact ones by no more than "
    "dynsim.measures.rounding says, at any scale, however near to consensus or to rank one"
)
REFEREE = "mpmath, 90 digits: the definitions, with singular values from Gram matrices"
SYSTEMS = 15_000

_DIGITS = 90
_KINDS = ("random", "near consensus", "near rank one", "degenerate", "many tokens")


def trial(rng: np.random.Generator) -> Outcome:
    kind = _KINDS[rng.choice(len(_KINDS), p=[0.25, 0.3, 0.3, 0.13, 0.02])]
    dtype = np.float32 if rng.random() < 0.25 else np.float64
    with mp.workdps(_DIGITS):
        exact, scale = _exact(rng, kind, dtype)
        tokens = _rounded(rng, exact, dtype)
        truth = _truth(exact)
        sizes, worst, flags = Sizes.of_tokens(tokens), 0.0, 0
        for name in truth:
            rounding = ROUNDING[name]
            claimed = float(MEASURES[name].function(tokens))
            bound = float(rounding.bound(np.float64(claimed), sizes))
            within = bool(rounding.within(claimed, bound))
            flags += within
            if np.isinf(bound):
                continue
            error = abs(mp.mpf(claimed) - truth[name])
            if not error <= bound:
                return Outcome(
                    "violated", kind,
                    f"{name} = {claimed!r}, exactly {mp.nstr(truth[name], 12)}, bound {bound:.2g}: "
                    f"{np.dtype(dtype)} {tokens.shape}, scale {scale:.0e}, {tokens.tolist()}"[:600],
                )  # fmt: skip
            if not within:
                worst = max(worst, float(error / bound))
    return Outcome("flagged" if flags else "holds", kind, error=worst)


def _exact(rng, kind, dtype):
    """Tokens as lists of mpf rows, and their scale."""
    n, d = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    if kind == "many tokens":
        n, d = int(rng.integers(200, 1500)), 2
    scale = 10.0 ** (rng.uniform(-150, 150) if dtype == np.float64 else rng.uniform(-15, 15))
    x = rng.standard_normal((n, d))
    small = mp.mpf(10) ** -rng.uniform(0, 25)
    center, first, last = rng.standard_normal(d), rng.standard_normal(n), rng.standard_normal(d)
    if kind == "near consensus" or (kind == "many tokens" and rng.random() < 0.5):
        rows = [
            [mp.mpf(c) + small * mp.mpf(v) for c, v in zip(center, row, strict=True)] for row in x
        ]
    elif kind in ("near rank one", "many tokens"):
        rows = [[mp.mpf(a) * mp.mpf(b) + small * mp.mpf(v) for b, v in zip(last, row, strict=True)]
                for a, row in zip(first, x, strict=True)]  # fmt: skip
    else:
        if kind == "degenerate":
            x = _degenerate(rng, x)
        rows = [[mp.mpf(v) for v in row] for row in x]
    return [[mp.mpf(scale) * v for v in row] for row in rows], scale


def _degenerate(rng, x):
    """A zero token, equal or opposite tokens, dimensions far apart in size, a zero matrix."""
    how, x = rng.integers(5), x.copy()
    if how == 0:
        x[rng.integers(len(x))] = 0.0
    elif how == 1:
        x[:] = x[0]
    elif how == 2:
        x[:] = x[0] * rng.choice([-1.0, 1.0], size=(len(x), 1))
    elif how == 3:
        x *= 10.0 ** -rng.uniform(0, 20, size=x.shape[1])
    else:
        x[:] = 0.0
    return x


def _rounded(rng, rows, dtype):
    """As a layer leaves them: to a few units in the last place of every entry."""
    x = np.array([[float(v) for v in row] for row in rows])
    x = x * (1.0 + 2.0 * np.finfo(dtype).eps * rng.uniform(-1, 1, size=x.shape))
    return x.astype(dtype)


def _truth(rows) -> dict:
    n, d = len(rows), len(rows[0])
    mean = [mp.fsum(row[k] for row in rows) / n for k in range(d)]
    away = [[v - m for v, m in zip(row, mean, strict=True)] for row in rows]
    norms = [_norm(row) for row in rows]
    sigma, apart = _singular_values(rows), _singular_values(away)
    distance = _norm(v for row in away for v in row)
    columns = max(mp.fsum(abs(row[k]) for row in away) for k in range(d))
    residual = mp.sqrt(columns * max(mp.fsum(map(abs, row)) for row in away))
    directions = [[v / size if size else v for v in row]
                  for row, size in zip(rows, norms, strict=True)]  # fmt: skip
    found = {
        "mu": distance,
        "log10_mu": mp.log10(distance) if distance else mp.ninf,
        "norm_min": min(norms),
        "norm_max": max(norms),
        "frobenius_norm": _norm(norms),
        "rank_one_distance": _norm(sigma[1:]),
        "sigma_max": sigma[0],
        "sigma_min": sigma[-1],
        "stable_rank": _stable_rank(sigma),
        "effective_rank": _effective_rank(sigma),
        "participation_ratio": _participation(sigma),
        "deviation_stable_rank": _stable_rank(apart),
        "deviation_effective_rank": _effective_rank(apart),
        "dong_residual": residual,
    }
    return found | _cosines(directions)


def _norm(numbers):
    return mp.sqrt(mp.fsum(v * v for v in numbers))


def _singular_values(rows):
    """min(n, d) of them, largest first."""
    n, d = len(rows), len(rows[0])
    short = rows if n <= d else [[row[k] for row in rows] for k in range(d)]
    gram = mp.matrix(len(short))
    for i, a in enumerate(short):
        for j, b in enumerate(short[: i + 1]):
            gram[i, j] = gram[j, i] = mp.fdot(a, b)
    if not any(gram):
        return [mp.mpf(0)] * len(short)
    unit = max(gram[i, i] for i in range(len(short)))
    squares = mp.eigsy(gram / unit, eigvals_only=True)
    return sorted((mp.sqrt(max(v, 0) * unit) for v in squares), reverse=True)


def _stable_rank(sigma):
    return (_norm(sigma) / sigma[0]) ** 2 if sigma[0] else mp.mpf(0)


def _participation(sigma):
    if not sigma[0]:
        return mp.mpf(0)
    squares = [(s / sigma[0]) ** 2 for s in sigma]
    return mp.fsum(squares) ** 2 / mp.fsum(v * v for v in squares)


def _effective_rank(sigma):
    if not sigma[0]:
        return mp.mpf(0)
    shares = [s / mp.fsum(sigma) for s in sigma if s]
    return mp.exp(-mp.fsum(p * mp.log(p) for p in shares))


def _cosines(directions) -> dict:
    """Over pairs i != j; those of many tokens by the sum of all directions, or not at all."""
    n, d = len(directions), len(directions[0])
    one = mp.mpf(1)
    if n == 1:
        return dict.fromkeys(("mean_cosine", "mean_abs_cosine", "min_cosine"), one)
    if n > 50:
        total = [mp.fsum(row[k] for row in directions) for k in range(d)]
        own = mp.fsum(_norm(row) ** 2 for row in directions)
        return {"mean_cosine": (_norm(total) ** 2 - own) / (n * (n - 1))}
    pairs = [mp.fdot(a, b) for i, a in enumerate(directions) for b in directions[:i]]
    return {
        "mean_cosine": mp.fsum(pairs) / len(pairs),
        "mean_abs_cosine": mp.fsum(map(abs, pairs)) / len(pairs),
        "min_cosine": min(pairs),
    }
