"""Verdicts on dynamics of which the outcome is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import dynsim
from dynsim import Record, masks, minilm, norms, simulate, tokens, verdict
from dynsim.collapse.verdicts import groups
from dynsim.network.weights import Diagonal, Identity, Jordan, Orthogonal, Weights, Zero
from dynsim.results.trajectory import joined


def run(mask, value, depth, norm=norms.NoNorm(), x0=None, scores=None, record=None):
    network = Weights(scores or Zero(), value, shared=True)
    dynamics = dynsim.AttentionDynamics(mask, network, norm)
    x0 = tokens.gaussian(4, dynamics.n_tokens, 3) if x0 is None else x0
    return simulate(dynamics, x0, depth, record=record)


def test_the_causal_mask_collapses_at_one_half():
    found = verdict(run(masks.causal(8), Identity(), 30))
    assert found.kind == "collapsed"
    assert found.rate == pytest.approx(0.5, abs=0.01)
    assert str(found) == found.sentence


def test_a_slow_collapse_has_the_rate_of_lambda_2():
    graph = masks.ring(24)
    found = verdict(run(graph, Identity(), 150))
    assert found.kind == "collapsing"
    assert found.rate == pytest.approx(dynsim.connectivity.lambda_2(graph).value, rel=1e-3)
    assert found.rate_sd < 0.01


def test_shrinking_as_a_whole_is_not_collapse():
    """One token alone per component: nothing mixes, all shrinks."""
    alone = masks.from_array(np.eye(5))
    found = verdict(run(alone, Diagonal(0.5), 60))
    assert found.kind == "staying"
    assert found.rank == 3


def test_the_floor_is_named_with_its_layer():
    found = verdict(run(masks.complete(8), Identity(), 10))
    assert (found.kind, found.layer) == ("floor", 1)
    assert "floor reached at layer 1" in found.sentence


def test_an_equilibrium_of_full_rank_stays():
    w = 2.0
    x0 = np.array([[0.0, 1.0], [-1 / w, -np.sqrt(1 - 1 / w**2)]])
    found = verdict(run(masks.causal(2), Jordan(w), 50, norms.Unit(), x0))
    assert (found.kind, found.rank) == ("staying", 2)


def test_antipodal_tokens_are_rank_one_without_consensus():
    alone = masks.from_array(np.eye(2))
    x0 = np.array([[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0]])
    found = verdict(run(alone, Orthogonal(), 20, x0=x0))
    assert found.kind == "rank one"
    assert "not at consensus" in found.sentence


def test_all_zero_tokens_are_a_collapse_of_their_own():
    assert "every token is zero" in verdict(run(masks.complete(4), Zero(), 3)).sentence


def test_a_verdict_needs_no_costly_measure():
    record = Record(measures=())
    alone = masks.from_array(np.eye(4))
    found = verdict(run(alone, Identity(), 20, record=record))
    assert (found.kind, found.rank) == ("staying", None)


def test_a_verdict_is_json_ready():
    import json

    found = verdict(run(masks.causal(5), Identity(), 12))
    assert json.loads(json.dumps(found.to_dict()))["kind"] == found.kind


def with_shares(shares):
    """A trajectory whose samples have these mu / ||X|| by depth, (samples, T+1), and no ranks."""
    shares = np.atleast_2d(shares)
    n, depth = shares.shape[0], shares.shape[1] - 1
    alone = dynsim.AttentionDynamics(masks.from_array(np.eye(3)), Identity())
    made = simulate(alone, tokens.gaussian(n, 3, 2), depth, record=Record(measures=()))
    measures = {"mu": shares, "log10_mu": np.log10(shares), "frobenius_norm": np.ones_like(shares)}
    return replace(made, measures=dict(made.measures) | measures)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_few_layers_are_called_too_few(depth):
    found = verdict(run(masks.local(30), Identity(), depth, x0=tokens.gaussian(4, 30, 20)))
    assert (found.kind, found.rate) == ("short", None)
    assert found.sentence.startswith(f"too short to say: after {depth} layer")
    assert "a rate needs 6 layers" in found.sentence
    assert verdict(run(masks.local(30), Identity(), 6)).kind != "short"


def test_what_collapses_within_few_layers_does_not_stay():
    """mu of 1e-6 of ||X|| after 3 layers, at a numerical rank that is still full."""
    network = Weights(dynsim.weights.Gaussian(), Orthogonal(), seed=3)
    dynamics = dynsim.AttentionDynamics(masks.complete(12), network, norms.Unit())
    found = verdict(simulate(dynamics, tokens.gaussian(4, 12, 16, 3), 3))
    assert found.samples == {"collapsing": 3, "collapsed": 1}
    assert "in 3 layers mu fell from 0.98 to 1.3e-06" in found.sentence
    assert "a rate needs 6 layers" in found.sentence


def test_the_size_of_a_fall_decides_its_class():
    t = np.arange(13)
    classes = {
        0.97: "staying",  # a randomly initialised GPT-2
        0.85: "slow",  # MiniLM
        0.6: "slow",
        0.4: "collapsing",
        1e-4: "collapsing",
        1e-7: "collapsed",
    }
    found = {end: verdict(with_shares(0.99 * (end / 0.99) ** (t / 12))).kind for end in classes}
    assert found == classes
    slow = verdict(with_shares(0.99 * (0.6 / 0.99) ** (t / 12)))
    assert slow.rate == pytest.approx((0.6 / 0.99) ** (1 / 12))
    assert slow.sentence.startswith("slowly falling: mu falls by a factor 0.9591 per layer")
    assert "0.61 of its largest" in slow.sentence


def test_a_fall_is_told_from_the_largest_distance():
    """Not from the first: tokens may spread before they collapse."""
    up_and_down = np.concatenate([np.geomspace(0.1, 0.9, 5), np.geomspace(0.8, 0.3, 8)])
    assert verdict(with_shares(up_and_down)).kind == "collapsing"
    early = np.concatenate([np.geomspace(0.99, 0.2, 6), np.full(15, 0.2)])
    assert verdict(with_shares(early)).kind == "staying"
    assert verdict(with_shares(early[::-1])).kind == "growing"


@given(
    depth=st.integers(1, 30),
    rate=st.floats(0.5, 1.2),
    start=st.floats(0.01, 0.7),
    noise=st.floats(0, 0.05),
    seed=st.integers(0, 1000),
)
def test_no_verdict_says_more_than_was_seen(depth, rate, start, noise, seed):
    jitter = np.random.default_rng(seed).normal(0, noise, (3, depth + 1))
    shares = np.minimum(start * rate ** np.arange(depth + 1) * np.exp(jitter), 1.0)
    shares = shares[shares[:, -1] > 1e-6]  # the others have collapsed
    assume(len(shares))
    found = verdict(with_shares(shares))
    left = np.median(shares[:, -1] / shares.max(axis=1))
    kinds = set(found.samples)
    assert "collapsing" not in kinds or left < 0.5 + 1e-9
    assert not kinds & {"slow", "short"} or left > 0.5 - 1e-9
    if depth < 6:
        assert not kinds & {"staying", "growing", "slow"}


def test_one_layer_of_minilm_collapses_text_and_its_six_do_not():
    text = (
        "A token attends to the tokens that its mask allows. Information flows along the arrows of "
        "the mask graph, and when every token hears the same voices, all say the same thing."
    )
    x0, mask = minilm.embed(text, 16, 2), masks.complete(16)
    one = dynsim.AttentionDynamics(mask, minilm.attention(0), norms.Unit(), skip=1.0)
    assert verdict(simulate(one, x0, 24)).kind == "collapsed"
    runs = [simulate(minilm.layer(0, mask), x0, 1)]
    for k in range(1, minilm.N_LAYERS):  # whole layers: MLPs and LayerNorms of their own
        following = simulate(minilm.layer(k, mask), runs[-1].final, 1, start=k)
        runs.append(joined(runs[-1], replace(following, dynamics=runs[0].dynamics)))
    found = verdict(runs[-1])
    assert runs[-1].depth == 6
    assert found.kind in ("slow", "staying")
    assert np.median(runs[-1]["mu"][:, -1] / runs[-1]["frobenius_norm"][:, -1]) > 0.7


def test_samples_that_differ_are_told_apart():
    """WU section 4.3.1 at w = 2: most starts collapse, a few keep rank two at equilibrium B."""
    w = 2.0
    full = [[0.0, 1.0], [-1 / w, -np.sqrt(1 - 1 / w**2)]]
    x0 = np.array([full, [[0.0, 1.0], [0.6, 0.8]], full])
    found = verdict(run(masks.causal(2), Jordan(w), 400, norms.Unit(), x0))
    assert found.kind == "mixed"
    assert found.samples["staying"] == 2
    assert sum(found.samples.values()) == 3
    assert "2 of 3 samples staying at rank 2" in found.sentence


def test_samples_that_lost_half_are_told_from_those_that_kept_it():
    """A joint fit would call them one: 13 that stay hide 3 that collapse."""
    t = np.arange(41)
    stays, falls = np.full(41, 0.9), 0.9 * 0.9**t
    found = verdict(with_shares([stays] * 13 + [falls] * 3))
    assert found.samples == {"staying": 13, "collapsing": 3}
    assert found.sentence.startswith("mixed: 13 of 16 samples staying")
    assert "3 of 16 samples collapsing: mu falls by a factor 0.9 per layer" in found.sentence
    assert found.headline == (
        "13 of 16 samples: no collapse, mu stays at 0.9 of ||X||; "
        "3: collapsing to consensus by a factor 0.9 per layer"
    )
    parts = groups(with_shares([falls] * 3 + [stays] * 13))
    assert [which.tolist() for _, which in parts] == [[False] * 3 + [True] * 13,
                                                     [True] * 3 + [False] * 13]  # fmt: skip


def test_samples_that_differ_little_are_not_parted_at_one_half():
    t = np.arange(41)
    ends = np.array([0.45, 0.47, 0.51, 0.53])[:, None]
    found = verdict(with_shares(0.99 * (ends / 0.99) ** (t / 40)))
    assert set(found.samples.values()) == {4}


def test_groups_of_one_kind_are_one():
    """Both stay: one at a fifth of what it had, the other at all of it."""
    early = np.concatenate([np.geomspace(0.99, 0.2, 6), np.full(35, 0.2)])
    found = verdict(with_shares([early, np.full(41, 0.9)]))
    assert (found.kind, found.samples) == ("staying", {"staying": 2})


def test_counts_add_up_where_two_groups_are_of_one_kind():
    """Exactly at consensus and far below it: both have collapsed, one by one sentence each."""
    x0 = tokens.gaussian(3, 8, 4)
    x0[0] = 1.0
    network = Weights(Zero(), Identity(), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.causal(8), network)
    found = verdict(simulate(dynamics, x0, 60, engine="logscale"))
    assert (found.kind, found.samples) == ("mixed", {"collapsed": 3})


@pytest.mark.parametrize("end", [1.0, 0.97, 0.8, 0.4, 1e-3, 1e-8])
@pytest.mark.parametrize("depth", [3, 40])
def test_every_verdict_has_a_headline_for_one_line(end, depth):
    t = np.arange(depth + 1)
    found = verdict(with_shares(0.99 * end ** (t / depth)))
    assert 10 < len(found.headline) < 80
    assert found.to_dict()["headline"] == found.headline


def test_a_sample_at_consensus_does_not_hide_that_others_collapse():
    x0 = tokens.gaussian(3, 12, 4)
    x0[0] = 1.0
    found = verdict(run(masks.local(12), Identity(), 60, x0=x0))
    assert found.samples == {"floor": 1, "collapsing": 2}
    assert "1 of 3 samples at consensus from the start" in found.sentence


def test_float32_has_a_floor_of_its_own():
    x0 = tokens.gaussian(2, 8, 3).astype(np.float32)
    found = verdict(run(masks.causal(8), Identity(), 60, x0=x0))
    assert found.kind == "floor"
    assert found.layer < 30
    assert found.rate == pytest.approx(0.5, abs=0.05)


def test_one_token_and_a_start_at_consensus_are_not_collapse():
    assert verdict(run(masks.complete(1), Identity(), 3)).kind == "none"
    found = verdict(run(masks.causal(4), Identity(), 3, x0=np.ones((4, 2))))
    assert "from the start" in found.sentence


def test_a_fall_that_speeds_up_is_not_called_a_constant_rate():
    found = verdict(run(masks.causal_local(24), Identity(), 48))
    assert found.kind == "collapsing"
    assert found.steady is False
    assert "ever faster" in found.sentence


def test_growth_is_named():
    x0 = np.ones((4, 3)) + 1e-4 * tokens.gaussian(2, 4, 3)
    network = Weights(Zero(), Diagonal(-0.5), shared=True)
    dynamics = dynsim.AttentionDynamics(masks.local(4), network, skip=1.0)
    found = verdict(simulate(dynamics, x0, 12))
    assert found.kind == "growing"
    assert found.rate > 1


def test_a_rank_that_rounding_decides_is_said_to():
    """The smallest singular value is put where the edge of the numerical rank lies."""
    alone = masks.from_array(np.eye(3))
    sure = verdict(run(alone, Identity(), 20, x0=np.diag([1.0, 0.5, 0.3])))
    assert (sure.rank, sure.rank_is_sure) == (3, True)
    edge = dynsim.measures.RANK_TOLERANCE * np.finfo(float).eps
    unsure = verdict(run(alone, Identity(), 20, x0=np.diag([1.0, 0.5, 2 * edge])))
    assert (unsure.rank, unsure.rank_is_sure) == (3, False)
    assert "staying at rank 3 (in 1 of 1 samples rounding decides)" in unsure.sentence
    assert unsure.to_dict()["rank_is_sure"] is False


def test_a_distance_to_rank_one_that_is_rounding_is_said_to():
    w = 2.0
    x0 = np.array([[0.0, 1.0], [0.6, -0.8]])  # token 2 follows token 1 to the axis, on either side
    found = verdict(run(masks.from_array(np.eye(2)), Diagonal([0.1, 1.0]), 60, x0=x0 * w))
    assert found.kind == "rank one"
    assert "of ||X||, which is rounding, mu is" in found.sentence
