"""Basins: known fractions of WU's two-token example, and every type of limit set."""

import time

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


def test_starts_that_are_drawn_are_those_of_the_sphere(monkeypatch):
    monkeypatch.setattr(basins, "_BLOCK", 16)
    x0 = tokens.sphere(40, 2, 2, seed=3)
    drawn, given = (basins.basins(jordan_dynamics(2, 2.0), x, seed=3) for x in (40, x0))
    assert np.array_equal(drawn.limits.final, given.limits.final)
    assert drawn.rows == given.rows


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


def folding(sigma=6.0):
    """One token and a strong MLP: some starts are chaotic."""
    return AttentionDynamics(
        masks.complete(1), weights.Identity(), norms.Unit(),
        mlp=GaussianMLP(sigma=sigma, shared=True, seed=3),
    )  # fmt: skip


@pytest.fixture
def all_starts():
    """120 starts, every exponent taken; a third or so are chaotic."""
    return basins.basins(folding(), tokens.sphere(120, 1, 2, 0), depth=64, exponents=None)


def test_shares_by_a_sample_of_the_exponents_are_near_those_by_all(all_starts):
    x0 = tokens.sphere(120, 1, 2, 0)
    exact = {(row["rank"], row["type"]): row for row in all_starts.rows}
    assert {row["sampled"] for row in all_starts.rows} == {None}
    assert (1, "chaotic") in exact
    for seed in range(3):
        found = basins.basins(folding(), x0, depth=64, exponents=12, seed=seed)
        again = basins.basins(folding(), x0, depth=64, exponents=12, seed=seed)
        assert found.rows == again.rows
        assert sum(row["share"] for row in found.rows) == pytest.approx(1)
        for row in found.rows:
            other = exact[row["rank"], row["type"]]
            if row["type"] in ("rotating", "chaotic"):
                assert row["sampled"] == 12
                assert row["low"] <= other["share"] <= row["high"]
                assert row["high"] - row["low"] > other["high"] - other["low"]
            else:
                assert row == other


def test_the_interval_of_a_sampled_share_holds_as_often_as_it_says(rng):
    """Starts made up: half never settle, and a fifth of those are chaotic; 300 times."""
    held, one = 0, basins.TYPES.index("chaotic")
    for _ in range(300):
        moving = rng.random(1000) < 0.5
        chaotic = moving & (rng.random(1000) < 0.2)
        kind = np.zeros(1000, int)
        kind[moving] = basins.TYPES.index("unsettled")
        judged = np.flatnonzero(moving)[:100]
        kind[judged] = np.where(chaotic[judged], one, basins.TYPES.index("rotating"))
        ends = basins.LimitSets(np.ones(1000, int), kind, np.ones(1000), np.ones((1000, 1, 1)))
        (row,) = [row for row in basins._rows(ends) if row["type"] == "chaotic"]
        held += row["low"] <= 0.1 <= row["high"]
    assert held / 300 >= 0.95


def test_without_exponents_what_never_settles_is_unsettled():
    found = basins.basins(folding(), tokens.sphere(24, 1, 2, 0), depth=64, exponents=0)
    assert "unsettled" in {row["type"] for row in found.rows}
    assert not {"rotating", "chaotic"} & {row["type"] for row in found.rows}
    assert sum(row["count"] for row in found.rows) == 24


def test_the_limit_sets_do_not_depend_on_threads_or_blocks(monkeypatch):
    x0 = tokens.sphere(40, 1, 2, 5)
    whole = basins.limit_sets(folding(), x0, depth=128, exponents=10)
    for block in (1, 7):
        monkeypatch.setattr("dynsim.equilibria.basins._BLOCK", block)
        monkeypatch.setattr("dynsim.equilibria.basins._AT_ONCE", block)
        other = basins.limit_sets(folding(), x0, depth=128, exponents=10)
        for name in ("rank", "type", "depth", "final"):
            assert np.array_equal(getattr(whole, name), getattr(other, name))


@pytest.mark.parametrize("when", [0.2, 0.6, 0.97])
def test_an_interrupt_keeps_the_starts_that_are_done(when, monkeypatch):
    monkeypatch.setattr("dynsim.equilibria.basins._BLOCK", 8)
    monkeypatch.setattr("dynsim.equilibria.basins._AT_ONCE", 4)
    x0 = tokens.sphere(40, 1, 2, 5)
    calls, all_calls = [], []
    options = {"depth": 128, "exponents": 16}
    whole = basins.basins(folding(), x0, **options, progress=all_calls.append)

    def progress(share):
        calls.append(share)
        if len(calls) > when * len(all_calls):
            raise KeyboardInterrupt

    with pytest.raises(basins.Stopped) as caught:
        basins.basins(folding(), x0, **options, progress=progress)
    limits = caught.value.limits
    done = len(limits.rank)
    assert done % 8 == 0
    assert f"stopped after {done} of 40 starts" in str(caught.value)
    for name in ("rank", "depth", "final"):
        assert np.array_equal(getattr(limits, name), getattr(whole.limits, name)[:done])
    taken = limits.type != TYPES.index("unsettled")
    assert np.array_equal(limits.type[taken], whole.limits.type[:done][taken])
    assert sum(row["share"] for row in caught.value.basins.rows) == pytest.approx(1)
    assert (done == 40) == (when == 0.97)


def test_an_interrupt_before_any_start_is_done_counts_none():
    def progress(share):
        raise KeyboardInterrupt

    with pytest.raises(basins.Stopped, match="stopped after 0 of 4 starts") as caught:
        basins.basins(folding(), tokens.sphere(4, 1, 2, 0), progress=progress)
    assert caught.value.limits is caught.value.basins is None


def test_the_share_done_rises_to_1_in_step_with_time():
    """On a system where all starts are followed to the end, and all exponents taken."""
    shares, times = [], []

    def progress(share):
        shares.append(share)
        times.append(time.perf_counter())

    dynamics = AttentionDynamics(
        masks.complete(2), Fixed(np.zeros((2, 2)), rotation(1.0)), norms.Unit()
    )
    basins.limit_sets(dynamics, tokens.sphere(64, 2, 2, 0), depth=2048, progress=progress)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(0 <= share <= 1 for share in shares)


def test_more_starts_than_memory_are_refused_at_once():
    begun = time.perf_counter()
    with pytest.raises(MemoryError, match="use fewer starts"):
        basins.basins(jordan_dynamics(2, 2.0), 10**12)
    with pytest.raises(ValueError, match="number of starts is a whole number, at least 1"):
        basins.basins(jordan_dynamics(2, 2.0), 0)
    assert time.perf_counter() - begun < 1.0
    for bad in (np.ones((2, 2)), np.ones((0, 2, 2)), 1e12):
        with pytest.raises(ValueError, match="starts are an array"):
            basins.basins(jordan_dynamics(2, 2.0), bad)


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
