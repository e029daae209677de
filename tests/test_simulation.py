import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import (
    AttentionDynamics,
    Overflow,
    Record,
    Stopped,
    connectivity,
    masks,
    mlp,
    norms,
    simulate,
    tokens,
    weights,
)
from dynsim import measures as measures_room
from dynsim.measures.costs import layer_cost, record_cost
from dynsim.network.dynamics import PLACEMENTS
from dynsim.network.weights import (
    Diagonal,
    Fixed,
    Gaussian,
    Identity,
    Jordan,
    Orthogonal,
    Weights,
    Zero,
)
from dynsim.results.trajectory import joined

NORMS = [norms.NoNorm(), norms.Unit(), norms.RMSNorm(), norms.LayerNorm()]
NORMS += [norms.PerLayer((norms.LayerNorm(2.0, 0.5), norms.Unit(), norms.RMSNorm(0.5), NORMS[0]))]
#: Masks with a center node.
CENTERED = st.sampled_from(["complete", "local", "causal", "causal-local", "star"])


@pytest.mark.parametrize("name", masks.MASKS)
@given(
    norm=st.sampled_from(NORMS),
    placement=st.sampled_from(list(PLACEMENTS)),
    heads=st.sampled_from([1, 2]),
    perceptron=st.sampled_from([mlp.NoMLP(), *map(mlp.GaussianMLP, mlp.ACTIVATIONS)]),
    seed=st.integers(0, 2**16),
)
def test_the_numba_engine_agrees_with_the_definition(
    name, norm, placement, heads, perceptron, seed
):
    dynamics = AttentionDynamics(
        masks.MASKS[name](7), Weights(n_heads=heads, seed=seed), norm, placement, 0.6, perceptron
    )
    x0 = tokens.gaussian(2, 7, 4, seed)
    fast = simulate(dynamics, x0, 3, engine="numba")
    exact = simulate(dynamics, x0, 3, engine="reference")
    size = np.abs(exact.final).max()
    assert np.abs(fast.final - exact.final).max() <= 1e-12 * size
    for measure in fast.measures:
        assert np.allclose(fast[measure], exact[measure], rtol=1e-8, atol=1e-9 * size), measure


def make(norm=norms.Unit(), mask=None, **options):  # noqa: B008
    return AttentionDynamics(mask or masks.bigbird(12), Weights(n_heads=2, **options), norm)


@pytest.mark.usefixtures("eight_cores")
def test_bits_do_not_depend_on_threads_batch_or_recording():
    x0 = tokens.gaussian(5, 12, 6)
    whole = simulate(make(), x0, 20, threads=1)
    assert simulate(make(), x0, 20, threads=2) == whole
    assert simulate(make(), x0, 20, threads=4) == whole
    for s in range(5):
        alone = simulate(make(), x0[s], 20)
        assert np.array_equal(alone.final[0], whole.final[s])
        for name in whole.measures:
            assert np.array_equal(alone[name][0], whole[name][s], equal_nan=True), name
    other = simulate(make(), x0, 20, record=Record(measures=("rank",), stride=7, states=3))
    assert np.array_equal(other.final, whole.final)
    assert np.array_equal(other["mu"], whole["mu"])


def test_samples_do_not_depend_on_how_many_there_are():
    assert np.array_equal(tokens.gaussian(5, 3, 2, seed=4)[:2], tokens.gaussian(2, 3, 2, seed=4))
    assert not np.array_equal(tokens.gaussian(1, 3, 2, seed=4), tokens.gaussian(1, 3, 2, seed=5))


def test_a_resumed_run_has_the_same_bits():
    x0 = tokens.gaussian(3, 12, 6)
    record = Record(stride=1)
    whole = simulate(make(), x0, 30, record=record)
    first = simulate(make(), x0, 12, record=record)
    second = simulate(make(), first.final, 18, record=record, start=12)
    assert joined(first, second) == whole
    with pytest.raises(ValueError, match="different dynamics"):
        joined(first, simulate(make(seed=1), first.final, 1))


def test_depth_zero_is_the_input_and_the_input_is_not_modified():
    x0 = tokens.gaussian(2, 12, 6)
    kept = x0.copy()
    run = simulate(make(), x0, 4, record=Record(states=2))
    assert np.array_equal(x0, kept)
    assert np.array_equal(run.states[:, 0], x0)
    assert list(run.state_depths) == [0, 2, 4]
    assert np.array_equal(run.states[:, -1], run.final)
    assert np.allclose(run["mu"][:, 0], measures_room.mu(x0), rtol=1e-13)


def test_measures_are_those_of_the_states():
    run = simulate(make(), tokens.gaussian(2, 12, 6), 9, record=Record(stride=1, states=1))
    for name in run.measures:
        measure = measures_room.MEASURES[name]
        if measure.function is not None:
            expected = measure.function(run.states)
            assert np.allclose(run[name], expected, rtol=1e-11, atol=1e-13), name


def test_costly_measures_are_recorded_on_the_stride_the_middle_and_the_end():
    run = simulate(make(), tokens.gaussian(2, 12, 6), 20, record=Record(stride=6))
    assert list(run.recorded("rank")[0]) == [0, 6, 10, 12, 18, 20]
    assert not np.isnan(run["mu"]).any()
    with pytest.raises(KeyError, match="recorded are mu"):
        run["clusters"]


SIZES = [(4096, 8, 4), (512, 32, 16), (32, 128, 64), (8, 256, 64), (1, 512, 128), (3, 20, 5)]


@pytest.mark.parametrize("depth", [1, 3, 20, 100, 5000])
@pytest.mark.parametrize(("samples", "n", "d"), SIZES)
@pytest.mark.parametrize("measures", [None, ("min_cosine",), ("rank", "deviation_stable_rank")])
def test_the_automatic_stride_keeps_to_its_budget_and_uses_it(samples, n, d, depth, measures):
    record = Record(measures)
    stride = record.costly_stride((samples, n, d), depth, n * n)
    one = record_cost(record.costly(n), samples, n, d)
    budget = 0.3 * samples * depth * layer_cost(n, d, n * n)
    if samples * n * d <= 65_536:
        budget = max(budget, 5e7)

    def records(stride):
        return len({0, depth // 2, depth, *range(0, depth + 1, stride)})

    assert 1 <= stride <= depth
    assert records(stride) <= 3 or records(stride) * one <= budget
    assert stride == 1 or records(max(1, stride // 3)) * one > budget


def test_small_problems_are_recorded_at_every_layer_and_large_ones_where_it_fits():
    assert Record().costly_stride((1, 32, 16), 100, 1024) == 1
    assert Record().costly_stride((4, 8, 4), 100, 64) == 1
    assert 100 // Record().costly_stride((128, 64, 32), 100, 4096) + 1 >= 10
    assert 100 // Record().costly_stride((32, 128, 64), 100, 16384) + 1 >= 15


def test_the_automatic_stride_does_not_depend_on_time_or_threads(monkeypatch):
    x0 = tokens.gaussian(64, 32, 16)
    dynamics = AttentionDynamics(masks.complete(32), Weights(), norms.Unit())
    monkeypatch.setattr("dynsim.simulation._SMALL", 0)
    first = simulate(dynamics, x0, 100, threads=1)
    monkeypatch.setattr("dynsim.simulation._CHUNK_SECONDS", 1e-9)
    second = simulate(dynamics, x0, 100, threads=2)
    assert 3 < len(first.recorded("rank")[0]) < 101
    assert list(first.recorded("rank")[0]) == list(second.recorded("rank")[0])
    assert first == second


def test_uniform_attention_has_entropy_log_degree():
    dynamics = AttentionDynamics(masks.complete(8), Weights(Zero(), Identity()))
    run = simulate(dynamics, tokens.gaussian(2, 8, 3), 2)
    assert np.allclose(run["attention_entropy"], math.log(8), rtol=1e-14)


def test_uniform_causal_attention_collapses_at_rate_one_half():
    """lambda_2 of the causal mask is 1/2: mu halves every layer in the end."""
    dynamics = AttentionDynamics(masks.causal(8), Weights(Zero(), Identity()))
    mu = simulate(dynamics, tokens.gaussian(4, 8, 3), 40)["mu"]
    assert np.allclose(mu[:, 35] / mu[:, 34], 0.5, rtol=1e-4)


def test_theorem_3_keeps_every_rank():
    """WU Thm 3, App. F at N = d = 2: the full-rank equilibrium B = (-1/w, -sqrt(1 - 1/w^2))."""
    w = 2.0
    dynamics = AttentionDynamics(masks.causal(2), Weights(Zero(), Jordan(w)), norms.Unit())
    for sign in (1, -1):
        x = np.array([[0.0, 1.0], [-1 / w, sign * math.sqrt(1 - 1 / w**2)]])
        assert np.allclose(dynamics.step(x), x, atol=1e-15)
    run = simulate(dynamics, np.array([[0.0, 1.0], [-0.9, -0.3]]), 200)
    assert np.allclose(run.final[0, 1], [-1 / w, -math.sqrt(1 - 1 / w**2)], atol=1e-9)
    assert run["rank"][0, -1] == 2


@given(st.integers(0, 2**16), CENTERED)
def test_wu_theorem_1_holds(seed, name):
    """mu_t <= sqrt((N-1)/2) delta_0 prod ||W_V||_2 (1 - eps^r)^floor(t/r), with all constants."""
    n, d, depth = 6, 3, 12
    graph = masks.MASKS[name](n)
    r = int(connectivity.radius(graph))
    dynamics = AttentionDynamics(graph, Weights(seed=seed))
    run = simulate(dynamics, tokens.gaussian(2, n, d, seed), depth, record=Record(states=1))
    for s in range(2):
        attention = np.array([dynamics.attention(run.states[s, t], t)[0] for t in range(depth)])
        eps = attention[:, dynamics.allowed()].min()
        x0 = run.states[s, 0]
        spread = np.linalg.norm(x0[:, None] - x0[None], axis=-1).max()
        values = [np.linalg.norm(dynamics.weights.layer(t, d).W_V[0], 2) for t in range(depth)]
        for t in range(depth + 1):
            bound = math.sqrt((n - 1) / 2) * spread * math.prod(values[:t])
            bound *= (1 - eps**r) ** (t // r)
            assert run["mu"][s, t] <= bound * (1 + 1e-9)


@given(st.integers(0, 2**16), CENTERED)
def test_wu_corollary_1_holds(seed, name):
    """phi_0 >= 0, orthogonal W_V, unit norm: phi_{t+r} >= eps^2r + (1 - eps^2r) phi_t."""
    n, d, depth = 5, 4, 15
    graph = masks.MASKS[name](n)
    r = int(connectivity.radius(graph))
    dynamics = AttentionDynamics(graph, Weights(value=Orthogonal(), seed=seed), norms.Unit())
    x0 = norms.Unit().apply(np.abs(tokens.gaussian(2, n, d, seed)))  # the positive orthant
    run = simulate(dynamics, x0, depth, record=Record(stride=1, states=1))
    for s in range(2):
        attention = [dynamics.attention(run.states[s, t], t)[0] for t in range(depth)]
        eps = np.array(attention)[:, dynamics.allowed()].min()
        phi = run["min_cosine"][s]
        assert phi[0] >= 0
        for t in range(depth + 1 - r):
            assert phi[t + r] >= eps ** (2 * r) + (1 - eps ** (2 * r)) * phi[t] - 1e-12


def test_overflow_names_layer_and_sample_and_keeps_what_was_computed():
    dynamics = AttentionDynamics(masks.complete(3), Weights(Zero(), Diagonal(1e10)))
    x0 = np.stack([np.zeros((3, 2)), np.ones((3, 2))])
    with pytest.raises(Overflow, match=r"sample 1 .* layer 31") as caught:
        simulate(dynamics, x0, 100)
    kept = caught.value.trajectory
    assert kept.depth == 30
    assert np.isfinite(kept["mu"]).all()
    assert np.allclose(kept.final[1], 1e300)
    assert isinstance(caught.value, FloatingPointError)


def test_a_token_that_vanishes_under_unit_norm_is_an_error():
    dynamics = AttentionDynamics(masks.complete(2), Weights(Zero(), Identity()), norms.Unit())
    with pytest.raises(FloatingPointError, match=r"token 0 of sample 0 has no size .* layer 1"):
        simulate(dynamics, np.array([[1.0, 0.0], [-1.0, 0.0]]), 3)


def test_an_interrupted_run_keeps_what_was_computed():
    def stop(layers):
        if layers >= 8:
            raise KeyboardInterrupt

    with pytest.raises(Stopped) as caught:
        simulate(make(), tokens.gaussian(2, 12, 6), 50, record=Record(stride=4), progress=stop)
    kept = caught.value.trajectory
    assert kept.depth == 8
    whole = simulate(make(), tokens.gaussian(2, 12, 6), 50, record=Record(stride=4))
    assert np.array_equal(kept["mu"], whole["mu"][:, :9])


def test_float32_input_is_simulated_in_float32():
    x0 = tokens.gaussian(1, 12, 6)
    rough = simulate(make(), x0.astype(np.float32), 5)
    assert rough.final.dtype == np.float32
    assert np.allclose(rough.final, simulate(make(), x0, 5).final, atol=1e-4)


def test_long_local_masks_need_no_square_array():
    n = 20_000
    dynamics = AttentionDynamics(masks.local(n, 4), Weights(Gaussian(), Orthogonal()), norms.Unit())
    run = simulate(
        dynamics, tokens.sphere(1, n, 8), 2, record=Record(measures=("attention_entropy",))
    )
    assert run["mu"].shape == (1, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"depth": 0}, "whole number, at least 1"),
        ({"depth": -3}, "whole number, at least 1"),
        ({"depth": 2.5}, "whole number, at least 1"),
        ({"threads": 0}, "threads is a whole number"),
        ({"engine": "abacus"}, "numba, reference, torch"),
        ({"device": "cuda"}, "the numba engine runs on the CPU; use engine='torch'"),
        ({"x0": np.ones((2, 2, 2, 2))}, "got shape"),
        ({"x0": np.ones((0, 2))}, "got shape"),
        ({"x0": np.array([["a"]])}, "real numbers"),
        ({"x0": np.ones((5, 6))}, "mask is for 12 tokens"),
    ],
)
def test_bad_input_is_refused(options, words):
    options = {"x0": tokens.gaussian(1, 12, 6), "depth": 3} | options
    with pytest.raises(ValueError, match=words):
        simulate(make(), **options)


@pytest.mark.parametrize(
    ("make_record", "words"),
    [
        (lambda: Record(measures=("nu",)), "known are mu"),
        (lambda: Record(stride=0), "at least 1"),
        (lambda: Record(stride="often"), "at least 1"),
        (lambda: Record(states=-1), "at least 0"),
    ],
)
def test_bad_records_are_refused(make_record, words):
    with pytest.raises(ValueError, match=words):
        make_record()


def test_given_layers_end_where_they_end():
    layers = weights.Layers(tuple(Fixed(np.eye(2), np.eye(2)).entries * 3))
    dynamics = AttentionDynamics(masks.complete(3), layers)
    run = simulate(dynamics, np.ones((3, 2)), 3)
    assert list(run.recorded("attention_entropy")[0]) == [0, 1, 2]
    with pytest.raises(ValueError, match="depth 3 or less"):
        simulate(dynamics, np.ones((3, 2)), 4)


def test_a_run_that_ends_early_measures_its_last_state():
    dynamics = AttentionDynamics(masks.causal(6), Weights(Zero(), Identity()))

    def stop(layers):
        if layers >= 70:
            raise KeyboardInterrupt

    record = Record(measures=("rank",), stride=1000, states=1000)
    with pytest.raises(Stopped) as caught:
        simulate(dynamics, tokens.gaussian(1, 6, 4), 5000, record=record, progress=stop)
    kept = caught.value.trajectory
    assert kept.recorded("rank")[0][-1] == kept.depth
    assert kept["rank"][0, -1] == 1
    assert np.array_equal(kept.states[:, -1], kept.final)


def test_strides_count_from_the_first_layer_of_the_whole_run():
    first = simulate(make(), tokens.gaussian(1, 12, 6), 20, record=Record(stride=6, states=6))
    record = Record(stride=6, states=6)
    second = simulate(make(), first.final, 20, record=record, start=20)
    assert {24 - 20, 30 - 20, 36 - 20} <= set(second.state_depths)
    assert {4, 10, 16} <= set(second.recorded("rank")[0])


@pytest.mark.parametrize("mask", [masks.ring(20_000), masks.complete(700), masks.complete(9)])
def test_equal_tokens_have_no_mu_however_many_they_are(mask):
    x = np.tile([0.1, 0.3, 0.7], (len(mask), 1))
    assert measures_room.mu(x) == 0
    dynamics = AttentionDynamics(mask, Weights(Gaussian(), Identity(), shared=True))
    assert not simulate(dynamics, x, 3, record=Record(measures=()))["mu"].any()
