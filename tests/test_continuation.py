"""Branches of equilibria against closed forms: where they go, turn and change stability."""

import numpy as np
import pytest

from dynsim import AttentionDynamics, masks, norms
from dynsim.equilibria import (
    complete_pair,
    complete_pair_dynamics,
    hyperbolic_dynamics,
    hyperbolic_pair,
    jordan_dynamics,
    jordan_family,
)
from dynsim.equilibria.continuation import continue_equilibrium
from dynsim.network.weights import Fixed


def test_a_branch_turns_at_its_fold_and_comes_back():
    """The hyperbolic variant has full-rank equilibria iff c^2 + (1 - a)^2 > 1."""
    a = 0.4
    branch = continue_equilibrium(
        lambda c: hyperbolic_dynamics(a, c), hyperbolic_pair(a, 1.5)[0], 1.5, 0.5
    )
    (fold,) = branch.bifurcations
    assert fold[0] == "fold"
    assert np.isclose(fold[1], np.sqrt(1 - (1 - a) ** 2), atol=1e-4)
    assert branch.ended == "end of the range"
    for c, x in zip(branch.parameter, branch.tokens, strict=True):
        exact = hyperbolic_pair(a, c) if c**2 + (1 - a) ** 2 > 1 + 1e-12 else x[None]
        assert np.abs(exact - x).max(axis=(1, 2)).min() < 1e-6
    assert np.allclose(branch.tokens[-1], hyperbolic_pair(a, branch.parameter[-1])[1], atol=1e-9)
    lower = branch.spectral_radius[0]
    assert np.isclose(lower, max(a, (1 + hyperbolic_pair(a, 1.5)[0, 1, 1]) / a), atol=1e-9)


def one_token(W_V):
    zero = np.zeros_like(W_V)
    return AttentionDynamics(masks.complete(1), Fixed(zero, W_V), norms.Unit())


def test_a_flip_is_found_where_a_multiplier_is_minus_one():
    branch = continue_equilibrium(
        lambda v: one_token(np.diag([1.0, v])), np.array([[1.0, 0.0]]), -0.5, -1.5
    )
    assert [name for name, _ in branch.bifurcations] == ["flip"]
    assert np.isclose(branch.bifurcations[0][1], -1.0, atol=1e-6)


def test_a_neimark_sacker_point_is_found_where_a_pair_crosses_the_circle():
    def family(s):
        W_V = np.eye(3)
        W_V[1:, 1:] = s * np.array([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
        return one_token(W_V)

    branch = continue_equilibrium(family, np.array([[1.0, 0.0, 0.0]]), 0.6, 1.4)
    assert [name for name, _ in branch.bifurcations] == ["Neimark-Sacker"]
    assert np.isclose(branch.bifurcations[0][1], 1.0, atol=1e-6)


def test_a_branch_point_is_found_where_a_multiplier_is_one():
    branch = continue_equilibrium(
        lambda v: one_token(np.diag([1.0, v])), np.array([[1.0, 0.0]]), 0.5, 1.505
    )
    assert [name for name, _ in branch.bifurcations] == ["branch point"]
    assert np.isclose(branch.bifurcations[0][1], 1.0, atol=1e-6)


def test_the_complete_pair_is_followed_in_v():
    branch = continue_equilibrium(
        lambda v: complete_pair_dynamics(3.0, v), complete_pair(3.0, 1.5), 1.5, 4.0
    )
    assert branch.ended == "end of the range"
    for v, x in zip(branch.parameter, branch.tokens, strict=True):
        assert np.allclose(x, complete_pair(3.0, v), atol=1e-8)


def test_bad_starts_are_refused():
    with pytest.raises(ValueError, match="no equilibrium"):
        continue_equilibrium(lambda c: hyperbolic_dynamics(0.4, c), np.eye(2), 1.5, 0.5)
    with pytest.raises(ValueError, match="a multiplier is 1"):
        continue_equilibrium(lambda w: jordan_dynamics(2, w), jordan_family(2, 2.0, 2)[0], 2.0, 3.0)
    with pytest.raises(ValueError, match="differ"):
        continue_equilibrium(lambda c: hyperbolic_dynamics(0.4, c), np.eye(2), 1.5, 1.5)
