"""Errors of one and of five layers, against 50 decimal digits and against long doubles."""

from __future__ import annotations

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.cases import Case, Problem
from experiments.benchmarks.rivals import Absent, Setting

__all__ = ["measured_accuracy"]

LAYERS = (1, 5)
#: What is run, the largest |score| (None: as drawn, of order 1), and the reference.
CASES = {
    "N=6 d=4": (Case("", "", 6, 4), None, "mpmath"),
    "N=6 d=4, scores to ±1e4": (Case("", "", 6, 4), 1e4, "mpmath"),
    "N=64 d=32 causal": (Case("", "", 64, 32, 1, "causal"), None, "longdouble"),
    "N=64 d=32 causal, scores to ±1e4": (Case("", "", 64, 32, 1, "causal"), 1e4, "longdouble"),
    "N=128 d=16 local 8": (Case("", "", 128, 16, 1, "local", 8), None, "longdouble"),
}


def measured_accuracy(setting: Setting, names=None, say=print) -> dict:
    """Largest error relative to token size by case, variant and layers; or why there is none."""
    found = {}
    for label, (case, size, digits) in CASES.items():
        problem = case.build(score_size=size)
        say(f"accuracy: {label}")
        try:
            exact = {layers: REFERENCES[digits](problem, layers) for layers in LAYERS}
        except Absent as reason:
            found[label] = {"reference": digits, "absent": str(reason)}
            continue
        errors = {"dynsim": _errors(rivals.ours(problem, setting), exact)}
        for name in rivals.RIVALS if names is None else names:
            try:
                run = next(iter(rivals.forms_of(name, problem, setting).values()))
                errors[name] = _errors(run, exact)
            except Absent as reason:
                errors[name] = {"absent": str(reason)}
            except Exception as error:  # of any kind that a rival has
                errors[name] = {"absent": f"{type(error).__name__}: {error}".splitlines()[0]}
        found[label] = {"reference": digits, "errors": errors}
    return found


def _errors(run, exact: dict[int, np.ndarray]) -> dict[str, float]:
    """Tokens are of size one, so that the largest difference is the relative error."""
    return {
        str(layers): float(np.abs(run(layers).x[0] - reference).max())
        for layers, reference in exact.items()
    }


def _with_long_doubles(problem: Problem, layers: int) -> np.ndarray:
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        raise Absent("long double is double on this machine")
    x, M, W_V = (a.astype(np.longdouble) for a in (problem.x0[0], problem.M, problem.W_V))
    allowed = problem.allowed()
    for _ in range(layers):
        scores = x @ M @ x.T
        scores = scores if allowed is None else np.where(allowed, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        x = weights @ x @ W_V
        x /= np.sqrt(np.sum(x * x, axis=1, keepdims=True))
    return x


def _with_digits(problem: Problem, layers: int) -> np.ndarray:
    try:
        import mpmath
    except ImportError:
        raise Absent("mpmath is not installed; pip install 'dynsim[benchmarks]'") from None
    with mpmath.workdps(50):
        x, M, W_V = (mpmath.matrix(a.tolist()) for a in (problem.x0[0], problem.M, problem.W_V))
        for _ in range(layers):
            scores = x * M * x.T
            weights = scores.apply(mpmath.exp)
            x = weights * x * W_V
            for i in range(x.rows):
                x[i, :] = x[i, :] / mpmath.norm(x[i, :])
        digits = [[mpmath.nstr(value, 25) for value in row] for row in x.tolist()]
        return np.array(digits).astype(np.longdouble)


REFERENCES = {"mpmath": _with_digits, "longdouble": _with_long_doubles}
