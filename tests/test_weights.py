import numpy as np
import pytest

from dynsim import weights
from dynsim.network.weights import (
    Diagonal,
    Fixed,
    FromArray,
    Gaussian,
    Identity,
    Jordan,
    Orthogonal,
    Weights,
    Zero,
)


def test_families_are_what_they_say(rng):
    d = 6
    assert np.array_equal(Identity().matrix(d, rng), np.eye(d))
    assert not Zero().matrix(d, rng).any()
    assert np.array_equal(Jordan(3.0).matrix(3, rng), [[1, 3, 0], [0, 1, 3], [0, 0, 1]])
    assert np.array_equal(Diagonal((1.0, 2.0)).matrix(2, rng), [[1, 0], [0, 2]])
    assert np.array_equal(Diagonal(0.5).matrix(2, rng), np.eye(2) / 2)
    q = Orthogonal().matrix(d, rng)
    assert np.allclose(q @ q.T, np.eye(d), atol=1e-14)


def test_orthogonal_is_haar():
    """E trace = 0 and E trace^2 = 1 for the Haar measure; QR without the sign fix has neither."""
    rng = np.random.default_rng(1)
    traces = np.array([np.trace(Orthogonal().matrix(4, rng)) for _ in range(4000)])
    assert abs(traces.mean()) < 4 / 4000**0.5
    assert abs((traces**2).mean() - 1) < 0.15


def test_gaussian_keeps_its_variances():
    d, layers = 64, 30
    for heads in (1, 4):
        w = Weights(Gaussian(2.0), Gaussian(0.5), n_heads=heads)
        values = np.array([w.layer(t, d).W_V.sum(axis=0) for t in range(layers)])
        assert values.std() == pytest.approx(0.5 / d**0.5, rel=0.02)
        scores = np.array([w.layer(t, d).M for t in range(layers)])
        # M_ab sums d / heads products of variance (4 / d)^2, divided by d_QK = d / heads
        assert scores.std() == pytest.approx(4.0 / d, rel=0.02)


def test_d_qk_and_mix_are_explicit():
    w = Weights(Identity(), Identity(), n_heads=2, d_qk=4.0, mix=(1.0, 0.25))
    layer = w.layer(0, 3)
    assert np.allclose(layer.M, np.stack([np.eye(3) / 2] * 2))
    assert np.allclose(layer.W_V, [np.eye(3), np.eye(3) / 4])
    assert np.allclose(
        Weights(Identity(), Identity(), n_heads=2).layer(0, 3).W_V, [np.eye(3) / 2] * 2
    )


def test_layers_are_fresh_or_shared_and_depend_on_the_seed_alone():
    fresh, again, shared = Weights(), Weights(), Weights(shared=True)
    later = fresh.layer(7, 5).W_V.copy()
    assert np.array_equal(again.layer(7, 5).W_V, later)  # whatever was drawn before
    assert not np.array_equal(fresh.layer(6, 5).W_V, later)
    assert np.array_equal(shared.layer(0, 5).W_V, shared.layer(9, 5).W_V)
    assert not np.array_equal(Weights(seed=1).layer(7, 5).W_V, later)
    assert not fresh.is_constant
    assert shared.is_constant
    assert Weights(Zero(), Jordan(2.0)).is_constant


def test_fixed_takes_heads_and_stays_what_it_was_given():
    M, W_V = np.arange(8.0).reshape(2, 2, 2), np.ones((2, 2, 2))
    fixed = Fixed(M, W_V)
    assert fixed.n_heads == 2
    M[0] = 0
    assert fixed.layer(3, 2).M[0, 1, 1] == 3.0
    assert fixed == Fixed(np.arange(8.0).reshape(2, 2, 2), W_V)
    assert fixed != Fixed(M, W_V)


def test_arrays_give_one_matrix_per_head_and_layer(rng):
    array = rng.standard_normal((3, 2, 4, 4))
    w = Weights(Zero(), FromArray(array), n_heads=2)
    assert np.array_equal(w.layer(2, 4).W_V, array[2])
    assert w.dim == 4
    assert w.n_layers == 3
    with pytest.raises(ValueError, match="dimension 5"):
        w.layer(0, 5)
    with pytest.raises(ValueError, match="2 heads"):
        Weights(Zero(), FromArray(array), n_heads=3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gaussian(0.0), "positive"),
        (lambda: Jordan(np.inf), "finite"),
        (lambda: Diagonal((1.0, np.nan)), "finite"),
        (lambda: Diagonal((1.0, 2.0)).matrix(3, None), "2 entries"),
        (lambda: FromArray(np.ones((2, 3))), "square"),
        (lambda: FromArray(np.full((2, 2), np.nan)), "NaN"),
        (lambda: Fixed(np.eye(2), np.eye(3)), "same shape"),
        (lambda: Fixed(np.eye(2), np.diag([1, np.inf])), "finite"),
        (lambda: Weights(n_heads=0), "heads is a whole number, at least 1"),
        (lambda: Weights(n_heads=3).layer(0, 4), "does not divide"),
        (lambda: Weights(d_qk=0.0), "positive"),
        (lambda: Weights(n_heads=2, mix=(1.0,)), "one finite weight per head"),
    ],
)
def test_bad_weights_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_registry_lists_families():
    assert all(issubclass(family, weights.Family) for family in weights.WEIGHTS.values())
