"""Influence of positions, sinks and spectra of attention: against sums over paths, and samples."""

import math
from fractions import Fraction

import naive
import numpy as np
import pytest

from dynsim import measures


def stochastic(rng, *shape, causal=False):
    A = rng.random(shape)
    A = np.tril(A) if causal else A
    return A / A.sum(axis=-1, keepdims=True)


# --- influence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("skip", [0.0, 0.7, [0.0, 2.0, 0.5]])
def test_influence_is_the_sum_over_all_paths(rng, causal, skip):
    A = stochastic(rng, 3, 4, 4, causal=causal)
    expected = naive.influence(A, np.broadcast_to(skip, 3))
    found = measures.position_influence(A, skip)
    assert np.allclose(found, expected, rtol=1e-13, atol=1e-16)
    assert np.allclose(found.sum(axis=1), 1.0)


def test_heads_are_averaged_and_a_sink_takes_its_share(rng):
    A = stochastic(rng, 3, 2, 4, 4)
    assert np.allclose(measures.position_influence(A), measures.position_influence(A.mean(axis=1)))
    lost = measures.position_influence(0.5 * A)
    assert np.allclose(lost.sum(axis=1), 1 / 8)


def by_fractions(n, skips):
    """The influence on the last token under uniform causal attention, layer by layer, exactly."""
    row = [Fraction(0)] * (n - 1) + [Fraction(1)]
    for s in map(Fraction, reversed(skips)):
        spread = [sum(row[i] / (i + 1) for i in range(j, n)) for j in range(n)]
        row = [(s * own + more) / (s + 1) for own, more in zip(row, spread, strict=True)]
    return [float(share) for share in row]


@pytest.mark.parametrize("n", [1, 2, 9, 40])
@pytest.mark.parametrize(("depth", "skip"), [(0, 0.0), (1, 0.0), (6, 0.0), (6, 1.3), (11, 40.0)])
def test_the_closed_form_is_the_product(n, depth, skip):
    expected = by_fractions(n, [skip] * depth)
    assert measures.uniform_causal_influence(n, depth, skip) == pytest.approx(expected, rel=1e-14)


def test_the_closed_form_takes_a_skip_for_each_layer_in_any_order():
    skips = [0.0, 2.0, 0.25, 2.0]
    expected = by_fractions(7, skips)
    for given in (skips, skips[::-1]):
        assert measures.uniform_causal_influence(7, 4, given) == pytest.approx(expected, rel=1e-14)


def test_the_closed_form_at_any_depth():
    n, depth, skip = 300, 100_000, 5000.0
    shares = measures.uniform_causal_influence(n, depth, skip)
    f = [((skip + 1 / k) / (skip + 1)) ** depth for k in (2, n)]
    assert shares.sum() == pytest.approx(1.0, rel=1e-12)
    assert shares @ np.arange(n) == pytest.approx((n - 1) * f[0], rel=1e-9)
    assert shares[-1] == pytest.approx(f[1], rel=1e-9)
    assert np.all(shares >= 0)


@pytest.mark.parametrize(
    ("A", "skip", "words"),
    [
        (np.eye(2), 0.0, "at least 3 axes"),
        (np.ones((1, 2, 3)), 0.0, "square"),
        (-np.eye(2)[None], 0.0, "at least 0 that sum to 1"),
        (2 * np.eye(2)[None], 0.0, "sum to 1 at most"),
        (np.eye(2)[None], -1.0, "at least 0"),
        (np.eye(2)[None], np.inf, "finite"),
        (np.eye(2)[None], [1.0, 2.0], "one for each of the 1 layers"),
    ],
)
def test_what_is_no_attention_or_skip_is_refused(A, skip, words):
    with pytest.raises(ValueError, match=words):
        measures.position_influence(A, skip)


# --- sinks --------------------------------------------------------------------------------------


def test_the_share_of_a_sink(rng):
    A = stochastic(rng, 2, 3, 5, 5)
    for token in (0, 2, -1):
        expected = [[sum(row[token] for row in head) / 5 for head in layer] for layer in A]
        assert np.allclose(measures.sink_share(A, token), expected)
    C = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    assert measures.sink_share(C) == pytest.approx(sum(1 / i for i in range(1, 7)) / 6)
    with pytest.raises(ValueError, match="number of a token"):
        measures.sink_share(A, 5)


# --- spectra ------------------------------------------------------------------------------------


def test_a_spectrum_is_that_of_its_definition(rng):
    A = stochastic(rng, 2, 6, 6)
    found = measures.attention_spectrum(A)
    for k in range(2):
        squares = np.linalg.eigvalsh(A[k].T @ A[k])[::-1]
        assert np.allclose(found.singular_values[k] ** 2, squares, atol=1e-14)
        moduli = sorted(abs(z) for z in np.roots(np.poly(A[k])))
        assert found.second_eigenvalue[k] == pytest.approx(moduli[-2], rel=1e-8)
        assert found.gap[k] == pytest.approx(math.sqrt(squares[0]) - math.sqrt(squares[1]))
    with pytest.raises(ValueError, match="two tokens or more"):
        measures.attention_spectrum([[1.0]])


@pytest.mark.parametrize("v", [0.1, 0.5])
def test_random_attention_fills_the_bulk(v, rng):
    """Softmax of independent Gaussian scores of variance v: one outlier, and the quarter circle."""
    n = 500
    weights = np.exp(v**0.5 * rng.standard_normal((n, n)))
    found = measures.attention_spectrum(weights / weights.sum(axis=1, keepdims=True))
    assert found.spread == pytest.approx(math.sqrt(math.expm1(v)), rel=0.03)
    bulk = found.singular_values[1:] / found.edge
    apart = np.abs(measures.bulk_share(np.sort(bulk)) - (np.arange(n - 1) + 0.5) / (n - 1))
    assert apart.max() < 0.01  # as near as a sample of the law: eigenvalues repel each other
    assert bulk[0] == pytest.approx(1.0, abs=0.05)
    assert found.singular_values[0] == pytest.approx(math.sqrt(1 + math.expm1(v) / n), abs=0.01)
    assert found.second_eigenvalue == pytest.approx(found.edge / 2, rel=0.1)


def test_the_share_of_the_bulk_is_the_integral_of_the_quarter_circle():
    from scipy.integrate import quad

    for x in (0.1, 0.6, 0.97):
        area = quad(lambda u: 4 / math.pi * math.sqrt(1 - u * u), 0.0, x)[0]
        assert measures.bulk_share(x) == pytest.approx(area, rel=1e-9)
    assert measures.bulk_share([-1.0, 2.0]).tolist() == [0.0, 1.0]
