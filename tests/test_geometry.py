"""LayerNorm's geometry: against definitions, RIECHERS's matrices, mpmath and optimisers."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsim import geometry, norms
from dynsim.geometry import decompose, image_ellipsoid, layer_norm_closed_form

SEEDS = st.integers(0, 2**16)


def drawn(d, seed, zeros=0):
    """A gain with so many zeros, a bias, and tokens (50, d)."""
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.3, 3, d) * rng.choice([-1, 1], d)
    gain[rng.permutation(d)[:zeros]] = 0.0
    return gain, rng.standard_normal(d), rng.standard_normal((50, d)) * 2 + 1


@given(st.integers(1, 9), SEEDS)
def test_a_token_is_the_sum_of_its_parts(d, seed):
    x = np.random.default_rng(seed).standard_normal((3, 4, d)) * 10
    parts = decompose(x)
    assert np.allclose(parts.uniform[..., None] + parts.scale[..., None] * parts.direction, x)
    assert np.allclose(parts.direction.sum(axis=-1), 0, atol=1e-12)
    assert np.allclose(parts.uniform, x.sum(axis=-1) / d)
    if d > 1:
        normed = norms.LayerNorm(eps=0.0).apply(x)
        assert np.allclose(normed, np.sqrt(d) * parts.direction, atol=1e-10)
    angle = np.degrees(np.arccos(x.sum(axis=-1) / np.linalg.norm(x, axis=-1) / d**0.5))
    if d > 1:
        assert np.allclose(geometry.angle_to_ones(x), angle, atol=1e-5)


def test_constant_and_zero_tokens():
    parts = decompose(np.full((2, 5), 0.1))
    assert np.array_equal(parts.scale, [0, 0])
    assert np.array_equal(parts.direction, np.zeros((2, 5)))
    assert np.isnan(geometry.angle_to_ones(np.zeros(3)))
    assert np.allclose(geometry.angle_to_ones([-np.ones(3), np.ones(3)]), [180, 0])


def test_orthogonality_is_that_of_the_definition(rng):
    x = rng.standard_normal((4, 7, 30)) + 0.3
    offset, baseline = geometry.orthogonality(x)
    angle = np.radians(geometry.angle_to_ones(x))
    assert np.isclose(offset, 30**0.5 * abs(np.cos(angle).mean()))
    directions = rng.standard_normal((30, 40_000))
    directions /= np.linalg.norm(directions, axis=0)
    units = x / np.linalg.norm(x, axis=-1, keepdims=True)
    others = 30**0.5 * (units @ directions).mean(axis=(0, 1))
    assert np.isclose(baseline, np.sqrt(np.mean(others**2)), rtol=0.02)
    assert np.isclose(np.median(np.abs(others)) / baseline, 0.67, atol=0.02)
    assert geometry.orthogonality(1e-200 * x) == pytest.approx((offset, baseline))
    with pytest.raises(ValueError, match="no direction"):
        geometry.orthogonality(np.zeros((2, 3)))


@given(st.integers(2, 9), SEEDS, st.sampled_from([0.0, 1e-5, 0.3]))
def test_the_closed_form_is_the_definition(d, seed, eps):
    gain, bias, x = drawn(d, seed)
    variance = x.var(axis=-1, keepdims=True)
    expected = gain * (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(variance + eps) + bias
    assert np.allclose(layer_norm_closed_form(x, gain, bias, eps), expected, rtol=1e-12, atol=1e-12)
    assert np.allclose(norms.LayerNorm(gain, bias, eps).apply(x), expected, rtol=1e-12, atol=1e-12)


@given(st.integers(2, 9), SEEDS)
def test_axes_are_those_of_riechers(d, seed):
    """Eigenvectors of Pi_2 G^-2 Pi_2, semi-axes sqrt(d / lambda), normal 1 / g."""
    gain, bias, _ = drawn(d, seed)
    found = image_ellipsoid(gain, bias)
    alpha = 1 / gain
    Pi_2 = np.eye(d) - np.outer(alpha, alpha) / (alpha @ alpha)
    values, vectors = np.linalg.eigh(Pi_2 @ np.diag(gain**-2) @ Pi_2)
    assert np.allclose(found.semi_axes, np.sqrt(d / values[1:]), rtol=1e-10)
    assert np.allclose(np.abs(found.normal @ alpha), np.linalg.norm(alpha))
    K = vectors * values @ vectors.T
    assert np.allclose(found.axes @ K @ found.axes.T, np.diag(d / found.semi_axes**2), atol=1e-9)
    assert np.array_equal(found.center, bias)


@given(st.integers(2, 8), st.integers(0, 8), SEEDS, st.sampled_from([0.0, 1e-3, 0.5]))
def test_outputs_lie_in_the_ellipsoid_and_at_the_depth_that_eps_says(d, zeros, seed, eps):
    zeros = min(zeros, d - 1)
    gain, bias, x = drawn(d, seed, zeros)
    found, y = image_ellipsoid(gain, bias, eps), norms.LayerNorm(gain, bias, eps).apply(x)
    assert len(found.semi_axes) == d - max(zeros, 1)
    assert found.hollow == (eps == 0 and zeros <= 1)
    basis = np.vstack([found.axes, found.normals])
    assert np.allclose(basis @ basis.T, np.eye(d), atol=1e-12)
    assert found.contains(y).all()
    squared = decompose(x).scale ** 2
    expected = 1 - d * eps / (squared + d * eps)
    if zeros <= 1:
        assert np.allclose(found.level(y), expected, rtol=1e-11, atol=1e-11)
    else:
        assert np.all(found.level(y) < expected + 1e-12)
    assert not found.contains(bias + 1.1 * (y - bias) / np.sqrt(found.level(y))[:, None]).any()
    if zeros == 0:
        assert not found.contains(y + 1e-3 * found.normal).any()


@given(st.integers(2, 6), SEEDS)
def test_every_point_inside_is_taken(d, seed):
    """c 1 + s z is mapped to any point of the interior by the right s."""
    gain, bias, _ = drawn(d, seed)
    rng, eps, found = np.random.default_rng(seed), 0.1, image_ellipsoid(gain, bias, 0.1)
    u = rng.standard_normal((20, d - 1))
    u *= rng.uniform(0.01, 0.99, (20, 1)) / np.linalg.norm(u, axis=1, keepdims=True)
    y = bias + (u * found.semi_axes) @ found.axes
    z = (y - bias) / gain  # Pi a, up to length
    level = found.level(y)
    a = z * np.sqrt(eps / (1 - level))[:, None] + 7.0
    assert np.allclose(norms.LayerNorm(gain, bias, eps).apply(a), y, atol=1e-10)


@settings(max_examples=10)
@given(st.integers(3, 4), SEEDS, st.floats(0.0, 2.0))
def test_distance_to_the_surface_is_the_least(d, seed, size):
    """Never above the distance to any of many points of the surface, and next to the least."""
    gain, bias, _ = drawn(d, seed)
    found, rng = image_ellipsoid(gain, bias), np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, 100_000 if d == 3 else 1000)
    sphere = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    if d == 4:
        tilt = np.linspace(0, np.pi, 500)[:, None, None]
        flat = np.broadcast_to(np.cos(tilt), (500, 1000, 1))
        sphere = np.concatenate([np.sin(tilt) * sphere, flat], axis=-1).reshape(-1, 3)
    surface = bias + (sphere * found.semi_axes) @ found.axes
    for u in rng.standard_normal((3, d - 1)):
        y = bias + (size * u / np.linalg.norm(u) * found.semi_axes) @ found.axes
        least = np.linalg.norm(surface - y, axis=1).min()
        distance = found.distance_to_surface(y)
        assert distance <= least + 1e-12
        assert distance > least - (1e-3 if d == 3 else 4e-2)


def test_distance_from_the_center_and_near_the_surface_in_many_digits():
    found = image_ellipsoid([1.0, 2.0, 4.0, 0.5], [1.0, 0.0, 2.0, 0.0])
    assert found.distance_to_surface(found.center) == pytest.approx(found.semi_axes[-1], rel=1e-14)
    p = found.semi_axes * np.array([0.6, 0.48, 0.64])
    for depth in (1e-3, 1e-7, 1e-11):
        inside = p * (1 - depth)
        with mpmath.workdps(40):
            s, q = ([mpmath.mpf(float(v)) for v in values] for values in (found.semi_axes, inside))

            def off(t, s=s, q=q):
                terms = (a * b / (a * a + t) for a, b in zip(s, q, strict=True))
                return mpmath.fsum(v * v for v in terms) - 1

            t = mpmath.findroot(off, -depth)
            exact = mpmath.sqrt(sum((t * b / (a * a + t)) ** 2 for a, b in zip(s, q, strict=True)))
        y = found.center + inside @ found.axes
        assert found.distance_to_surface(y) == pytest.approx(float(exact), rel=1e-9, abs=2e-15)


@given(st.integers(3, 9), SEEDS, st.floats(-3, 3))
def test_rms_and_layernorm_agree_where_the_mean_is_zero(d, seed, mean):
    gain, bias, x = drawn(d, seed)
    x = x - x.mean(axis=-1, keepdims=True) + mean
    norm = norms.LayerNorm(gain, bias, 0.0)
    found, centred = geometry.changes(norm, x), geometry.changes(norm, x - mean)
    assert np.allclose(centred.switch, 0, atol=1e-12)
    assert np.allclose(centred.redundancy, 1)
    assert np.allclose(centred.angle_before, 90)
    assert np.allclose(found.redundancy, np.sin(np.radians(found.angle_before)))
    plain = geometry.changes(norms.LayerNorm(eps=0.0), x)
    assert np.allclose(plain.rotation, np.degrees(np.arccos(np.clip(found.redundancy, -1, 1))),
                       atol=1e-4)  # fmt: skip
    half = np.radians(plain.rotation) / 2  # both are sqrt(d) long
    assert np.allclose(plain.switch, 2 * np.sin(half), atol=1e-6)
    assert np.allclose(plain.angle_after, 90)
    assert np.allclose(plain.norm_after, np.sqrt(d))


def test_gains_too_small_to_show_count_as_zero():
    found = image_ellipsoid([1.0, 2.0, 1e-33, 3.0, 1e-20])
    assert len(found.semi_axes) == 3
    assert np.allclose(np.abs(found.normals).sum(axis=0), [0, 0, 1, 0, 1])
    with pytest.raises(ValueError, match="2 normals"):
        found.normal  # noqa: B018


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_ellipsoid(2.0), "one entry per dimension"),
        (lambda: image_ellipsoid([1.0, np.nan]), "finite"),
        (lambda: image_ellipsoid([1.0, 2.0], [1.0, 2.0, 3.0]), "one entry per dimension"),
        (lambda: decompose([np.nan, 1.0]), "finite"),
        (lambda: geometry.changes(norms.LayerNorm(), np.ones((2, 3))), "constant"),
        (lambda: geometry.survey("", norms.LayerNorm([0.0, 0.0]), np.eye(2)), "all gains are 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("scale", [1e-250, 1e-160, 1e160, 1e250])
def test_no_scale_is_too_large_or_too_small(scale):
    gain, bias, x = drawn(4, 5)
    plain, scaled = image_ellipsoid(gain, bias), image_ellipsoid(gain * scale, bias * scale)
    y = bias + 0.7 * (norms.LayerNorm(gain, bias).apply(x) - bias)
    assert np.allclose(scaled.distance_to_surface(y * scale) / scale, plain.distance_to_surface(y))
    off = y + 0.1 * plain.normal
    assert np.allclose(scaled.off_plane(off * scale) / scale, 0.1)
    assert not scaled.contains(off * scale).any()
    assert scaled.contains(y * scale).all()
    parts = decompose(x * scale)
    assert np.allclose(parts.scale / scale, decompose(x).scale)
    assert np.allclose(np.linalg.norm(parts.direction, axis=-1), 1)
    assert np.allclose(geometry.angle_to_ones(x * scale), geometry.angle_to_ones(x))


def test_outputs_are_members_however_short_an_axis_and_however_far_the_center():
    """The level is lost there: rounding of y is more than the shortest semi-axis."""
    gain, bias = np.array([1.0, -2.0, 1e-13, 3.0]), np.array([1e3, 0.0, 5.0, -2e3])
    x = np.random.default_rng(0).standard_normal((50, 4))
    for eps in (0.0, 1e-5):
        found, y = image_ellipsoid(gain, bias, eps), norms.LayerNorm(gain, bias, eps).apply(x)
        assert found.contains(y).all()
        assert not found.contains(y + 1e-6 * np.eye(4)[2]).any()


def test_the_distance_next_to_the_axes_in_many_digits():
    """Points with almost no part along the shortest axis, whose nearest points have one."""
    found = image_ellipsoid([0.0087, 0.027, -1.6e-7, -1.5e-5])
    s = found.semi_axes
    for part in (0.0, 1e-30, 1e-22, 1e-15):
        p = np.array([-0.75, 0.0, part * s[0] / s[-1]]) * s
        rest = 1 - (p[0] / s[0]) ** 2 / (1 - (s[-1] / s[0]) ** 2) ** 2
        exact = np.hypot(p[0] / (1 - (s[-1] / s[0]) ** 2) - p[0], s[-1] * np.sqrt(rest))
        y = found.center + p @ found.axes
        assert found.distance_to_surface(y) == pytest.approx(exact, rel=0, abs=1e-14 * s[0])
