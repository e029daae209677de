"""The ellipsoid that LayerNorm maps all tokens into: membership, axes, distances."""

from __future__ import annotations

import mpmath
import numpy as np
from mpmath import mpf

from dynsim.geometry import angle_to_ones, decompose, image_ellipsoid
from dynsim.network.norms import LayerNorm
from experiments.soundness.storm import Outcome

STATEMENT = (
    "LayerNorm's outputs are members, points further away than the tolerance are not; axes, "
    "distances, levels and the parts of a token are true to rounding as said"
)
REFEREE = "mpmath with 60 digits, from the eigenvalues of B^T G^2 B, B a basis across 1"
SYSTEMS = 3000

#: Rounding allowed, in units of the largest number that takes part.
_ROUNDING = 1e-13
_TOLERANCE = 1e-9


def trial(rng: np.random.Generator) -> Outcome:
    d = int(rng.integers(1, 6))
    kind = str(rng.choice(list(_GAINS)))
    gain = _GAINS[kind](rng, d) * rng.choice([1.0, 1.0, 1e-250, 1e250])
    size = float(np.abs(gain).max())
    bias = rng.standard_normal(d) * size * rng.choice([0.0, 1.0, 1e7, 1e-9])
    eps = float(rng.choice([0.0, 0.0, 1e-5, 0.3]))
    token = _token(rng, d)
    with mpmath.workdps(60):
        problem, error = _judge(rng, gain, bias, eps, token)
    if problem is not None:
        given = f"gain {gain.tolist()}, bias {bias.tolist()}, eps {eps}, token {token.tolist()}"
        return Outcome("violated", kind, f"{problem}; {given}")
    return Outcome("holds", kind, error=error)


def _few_zeros(rng, d):
    return rng.standard_normal(d) * (rng.random(d) < 0.6)


_GAINS = {
    "random": lambda rng, d: rng.standard_normal(d),
    "equal": lambda rng, d: np.full(d, rng.choice([1.0, -2.5])),
    "zeros": _few_zeros,
    "graded": lambda rng, d: rng.choice([-1, 1], d) * 10.0 ** rng.uniform(-12, 0, d),
    "below rounding": lambda rng, d: rng.standard_normal(d) * 10.0 ** rng.integers(-30, 1, d),
    "twins": lambda rng, d: rng.integers(1, 3, d) * (1.0 + rng.integers(0, 3, d) * 2.0**-52),
}


def _token(rng, d):
    token = rng.standard_normal(d) * 10.0 ** rng.choice([-200.0, -3.0, 0.0, 0.0, 3.0, 200.0])
    shift = rng.choice([0.0, 0.0, 1.0, 1e6, -1e12])
    return token + shift * np.abs(token).max() + 0.0


def _judge(rng, gain, bias, eps, token) -> tuple[str | None, float | None]:
    d, norm = len(gain), LayerNorm(gain, bias, eps)
    if problem := _parts(token):
        return problem, None
    said = image_ellipsoid(gain, bias, eps)
    centre, axes, semi, across = _truth(gain, bias)
    size, k = max(semi, default=mpf(0)), len(said.semi_axes)
    if not np.array_equal(said.center, bias):
        return "the center is not the bias", None
    basis = np.vstack([said.axes, said.normals])
    if basis.shape != (d, d) or np.abs(basis @ basis.T - np.eye(d)).max() > _ROUNDING:
        return "axes and normals are not orthonormal", None
    semi_said = [mpf(s) for s in said.semi_axes.tolist()] + [mpf(0)] * (len(semi) - k)
    if len(semi) > len(semi_said) or any(
        abs(s - t) > _ROUNDING * size for s, t in zip(semi, semi_said, strict=False)
    ):
        return f"the semi-axes are {said.semi_axes}, not {semi}", None
    if k and said.hollow != (eps == 0 and d - k <= 1):
        return "hollow is wrong", None
    if not norm.undefined(token):
        y = norm.apply(token)
        if not said.contains(y):
            return f"LayerNorm's output {y} is no member", None
        if problem := _level(said, norm, gain, token, y, semi):
            return problem, None
    if k == 0:
        return None, None
    return _points(rng, said, centre, axes, semi, across, size)


def _truth(gain, bias):
    """Center, principal axes (rows), semi-axes, and a basis of the rest, in exact arithmetic."""
    d = len(gain)
    g = [mpf(x) for x in gain.tolist()]
    top = max(map(abs, g)) or mpf(1)
    basis = [[mpf(1)] * m + [mpf(-m)] + [mpf(0)] * (d - m - 1) for m in range(1, d)]
    basis = [[x / mpmath.sqrt(sum(v * v for v in row)) for x in row] for row in basis]
    gram = mpmath.matrix(d, d)
    for i in range(d):
        for j in range(d):
            gram[i, j] = g[i] * g[j] * sum(row[i] * row[j] for row in basis) / top**2
    values, vectors = mpmath.eigsy(gram)
    order = sorted(range(d), key=lambda k: -values[k])
    thick = [k for k in order if values[k] > mpf(10) ** -70]
    columns = {k: [vectors[i, k] for i in range(d)] for k in order}
    semi = [top * mpmath.sqrt(d * values[k]) for k in thick]
    rest = [columns[k] for k in order if k not in thick]
    return [mpf(x) for x in bias.tolist()], [columns[k] for k in thick], semi, rest


def _parts(token) -> str | None:
    d, parts = len(token), decompose(token)
    x = [mpf(v) for v in token.tolist()]
    size, mean = max(map(abs, x)), sum(x) / d
    away = [v - mean for v in x]
    scale = mpmath.sqrt(sum(v * v for v in away))
    if abs(mpf(float(parts.uniform)) - mean) > _ROUNDING * size:
        return f"the uniform part is {parts.uniform}, not {mean}"
    if abs(mpf(float(parts.scale)) - scale) > _ROUNDING * scale:
        return f"the scale is {parts.scale}, not {scale}"
    direction = [mpf(float(v)) for v in parts.direction]
    if scale and max(abs(u - v / scale) for u, v in zip(direction, away, strict=True)) > _ROUNDING:
        return f"the direction is {parts.direction}"
    angle = mpmath.degrees(mpmath.atan2(scale, mean * mpmath.sqrt(d)))
    if abs(mpf(float(angle_to_ones(token))) - angle) > 180 * _ROUNDING:
        return f"the angle to 1 is {angle_to_ones(token)}, not {angle}"
    return None


def _level(said, norm, gain, token, y, semi) -> str | None:
    """Of LayerNorm's output, where the plane is unique."""
    d = len(gain)
    if len(said.normals) != 1 or not len(semi):
        return None
    x = [mpf(v) for v in token.tolist()]
    squared = sum((v - sum(x) / d) ** 2 for v in x)
    true = squared / (squared + d * mpf(norm.eps))
    largest = max(float(np.abs(norm.bias).max()), float(np.abs(y).max()), float(max(semi)))
    slack = 100 * d * 2.3e-16 * largest / float(min(semi))
    error = abs(mpf(float(said.level(y))) - true)
    if slack < 1 and error > slack:
        return f"the level is {said.level(y)}, not {true}"
    return None


def _points(rng, said, centre, axes, semi, across, size):
    """Membership and distance of a point near the ellipsoid."""
    d = len(centre)
    u = rng.standard_normal(len(axes))
    u = u / np.linalg.norm(u) * rng.choice([0.0, 0.5, 1.0, 1.0, 1.0, 2.0])
    u = u * (rng.random(len(u)) < rng.choice([0.5, 1.0]))
    moved = 10.0 ** rng.uniform(-11, -7) * rng.standard_normal(len(axes)) * rng.integers(0, 2)
    off = 10.0 ** rng.uniform(-11, -7) * rng.standard_normal(len(across)) * rng.integers(0, 2)
    y = [mpf(c) for c in centre]
    for k, axis in enumerate(axes):
        step = mpf(u[k]) * semi[k] + mpf(moved[k]) * size
        y = [a + step * b for a, b in zip(y, axis, strict=True)]
    for k, axis in enumerate(across):
        y = [a + mpf(off[k]) * size * b for a, b in zip(y, axis, strict=True)]
    point = np.array([float(v) for v in y])
    exact = [mpf(v) - c for v, c in zip(point.tolist(), centre, strict=True)]
    p = [sum(a * b for a, b in zip(axis, exact, strict=True)) for axis in axes]
    away = mpmath.sqrt(sum(sum(a * b for a, b in zip(n, exact, strict=True)) ** 2 for n in across))
    k = len(said.semi_axes)
    thin = mpmath.sqrt(sum(v * v for v in p[k:]))  # along axes that count as none
    surface = _distance(p[:k], semi[:k])
    largest = max(float(np.abs(point).max()), float(max(map(abs, centre))), float(size))
    rounding = 8 * d * 2.3e-16 * largest
    parts = (mpf(float(f(point))) for f in (said.distance_to_surface, said.off_plane))
    in_space, true = mpmath.hypot(*parts), mpmath.hypot(mpmath.hypot(away, thin), surface)
    error = abs(in_space - true)
    if error > 4 * rounding + _ROUNDING * size:
        return f"the distance of {point} is {in_space}, not {true}", None
    inside = sum((a / s) ** 2 for a, s in zip(p[:k], semi[:k], strict=True)) <= 1
    distance = max(mpf(0) if inside and not said.hollow else surface, mpmath.hypot(away, thin))
    member = bool(said.contains(point, _TOLERANCE))
    if member and distance > 1.01 * _TOLERANCE * size + 2 * rounding:
        return f"{point} is called a member, {mpmath.nstr(distance / size, 5)} away", None
    if not member and distance < 0.99 * _TOLERANCE * size:
        return f"{point} is called no member, {mpmath.nstr(distance / size, 5)} away", None
    return None, float(error / largest)


def _distance(p, s):
    """Of p from the surface with semi-axes s: sum (s p / (s^2 + t))^2 = 1 solved by halving."""
    shortest, nothing = min(s), max(s) * mpf(10) ** -45
    pairs = [(a, b) for a, b in zip(p, s, strict=True) if abs(a) > nothing]

    def total(t):
        return sum((b * a / (b * b + t)) ** 2 for a, b in pairs)

    lowest = -(shortest**2)
    beyond = [(a, b) for a, b in pairs if b * b > shortest**2]
    if len(beyond) == len(pairs) and sum((b * a / (b * b + lowest)) ** 2 for a, b in pairs) <= 1:
        t = lowest  # the nearest point has a part along the shortest axis that p has not
        z = [b * b * a / (b * b + t) for a, b in pairs]
        left = 1 - sum((c / b) ** 2 for c, (_, b) in zip(z, pairs, strict=True))
        return mpmath.sqrt(
            sum((a - c) ** 2 for c, (a, _) in zip(z, pairs, strict=True)) + left * shortest**2
        )
    low, high = lowest, max(s) * mpmath.sqrt(sum(a * a for a in p))
    for _ in range(250):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) > 1 else (low, middle)
    return mpmath.sqrt(sum((a * high / (b * b + high)) ** 2 for a, b in pairs))
