"""Basins: known fractions of WU's two-token example, and every type of limit set."""

import numpy as np
import pytest

from dynsim import AttentionDynamics, basins, lyapunov, masks, norms, tokens, weights
from dynsim.equilibria import jordan_dynamics, jordan_family
from dynsim.equilibria.basins import TYPES
from dynsim.network.mlp import GaussianMLP
from dynsim.network.weights import Fixed


@pytest.mark.parametrize("w", [1.5, 2.0, 4.0])
def test_the_basin_of_B_with_token_1_held(w):
    """The fraction 1/4 + arccos(1/w) / (2 pi) of the circle (WU, section 4.3.1 and App. E)."""
    n = 4000
    x0 = tokens.sphere(n, 2, 2, seed=1)
    x0[:, 0] = [0.0, 1.0]
    found = basins.basins(jordan_dynamics(2, w), x0)
    exact = 0.25 + np.arccos(1 / w) / (2 * np.pi)
    (row,) = [row for row in found.rows if row["rank"] == 2]
    assert row["type"] == "fixed"
    sd = np.sqrt(exact * (1 - exact) / n)
    assert abs(row["share"] - exact) < 4 * sd
    assert row["low"] < row["share"] < row["high"]
    B = jordan_family(2, w, 2)[1]
    assert np.abs(found.limits.final[found.limits.rank == 2] - B).max() < 0.01


def test_with_both_tokens_free_rank_two_survives_in_7_8_percent():
    found = basins.basins(jordan_dynamics(2, 2.0), 20_000, seed=0)
    assert abs(found.share(2) - 0.078) < 4 * np.sqrt(0.078 * 0.922 / 20_000)
    assert np.isclose(sum(row["share"] for row in found.rows), 1)


def rotation(angle):
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@pytest.mark.parametrize(
    ("W_V", "name"),
    [
        (np.diag([2.0, 1.0]), "fixed"),
        (np.diag([-2.0, 1.0]), "sign flip"),
        (rotation(1.0), "rotating"),
        (np.array([[0.0, 2.0], [1.0, 0.0]]), "period 2"),
    ],
)
def test_types_of_limit_sets(W_V, name):
    dynamics = AttentionDynamics(masks.complete(2), Fixed(np.zeros((2, 2)), W_V), norms.Unit())
    found = basins.basins(dynamics, 32, depth=512)
    assert {row["type"] for row in found.rows} == {name}
    assert {row["rank"] for row in found.rows} == {1}
    assert name in TYPES


def test_chaos_is_told_from_order():
    """One token and a strong MLP: a circle map with folds. Longer orbits have the last word."""
    dynamics = AttentionDynamics(
        masks.complete(1), weights.Identity(), norms.Unit(),
        mlp=GaussianMLP(sigma=6.0, shared=True, seed=3),
    )  # fmt: skip
    found = basins.limit_sets(dynamics, tokens.sphere(24, 1, 2, 0), depth=256)
    chaotic = found.type == TYPES.index("chaotic")
    assert 0 < chaotic.sum() < 24
    assert set(found.type[~chaotic]) == {TYPES.index("fixed")}
    start = found.final[np.flatnonzero(chaotic)[0]]
    assert lyapunov.spectrum(dynamics, start, layers=2000).exponents[0] > 0.1


def test_pairs_on_the_circle():
    pairs = basins.circle_pairs(4)
    assert pairs.shape == (16, 2, 2)
    assert np.allclose(np.linalg.norm(pairs, axis=-1), 1)
    assert np.allclose(pairs[1, 0], pairs[0, 0])
    assert not np.allclose(pairs[1, 1], pairs[0, 1])
    assert np.linalg.norm(pairs.sum(axis=1), axis=1).min() > 0.1


def test_an_open_dimension_is_asked_for():
    dynamics = AttentionDynamics(masks.causal(2), weights.Jordan(2.0), norms.Unit())
    with pytest.raises(ValueError, match="dim=D"):
        basins.basins(dynamics, 4)
    assert len(basins.basins(dynamics, 4, dim=2).limits.rank) == 4
