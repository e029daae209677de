"""The log-scale engine against many digits, against the plain engines, and against closed forms."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsim import (
    AttentionDynamics,
    Overflow,
    Record,
    connectivity,
    deviation,
    load,
    masks,
    mlp,
    norms,
    simulate,
    tokens,
)
from dynsim.engines import compiled
from dynsim.network.deviation import Deviation
from dynsim.network.dynamics import PLACEMENTS
from dynsim.network.weights import (
    Diagonal,
    Fixed,
    Gaussian,
    Identity,
    Layers,
    LayerWeights,
    Orthogonal,
    Weights,
    Zero,
)
from dynsim.results.trajectory import joined
from experiments import log_scale_accuracy as accuracy
from experiments.digits import log_mu

NORMS = [norms.NoNorm(), norms.Unit(), norms.RMSNorm(), norms.LayerNorm()]
LN10 = math.log(10.0)


CHEAP = Record(measures=())


@pytest.fixture(scope="module", params=[2048, 0], ids=["lanes", "rows"])
def carrier(request):
    """Each kernel of deviations in turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "LANES_UP_TO", request.param)
        yield


both = pytest.mark.usefixtures("carrier")


def run(dynamics, x0, depth, **options):
    return simulate(dynamics, x0, depth, engine="logscale", **options)


# --- log mu in many digits ------------------------------------------------------------------------

CASES = [
    ("complete", "none", "gaussian", False, "post", 0.0, 1),
    ("complete", "layernorm", "orthogonal", True, "post", 0.0, 1),
    ("complete", "layernorm", "gaussian", False, "post", 1.0, 1),
    ("causal", "unit", "gaussian", True, "post", 0.0, 1),
    ("causal", "none", "gaussian", False, "pre", 0.3, 3),
    ("local", "layernorm", "gaussian", False, "post", 0.0, 1),
    ("causal-local", "unit", "orthogonal", True, "post", 0.0, 1),
    ("ring", "rms", "gaussian", False, "peri", 0.5, 1),
    ("star", "none", "orthogonal", False, "post", 0.0, 1),
    ("prefix", "unit", "gaussian", False, "post", 0.0, 3),
]


@cache
def exactly(case):
    """The dynamics, the tokens and ln mu by depth, in many digits."""
    dynamics, x0, layers = accuracy.problem(case, {"tokens": 5, "dim": 3, "depth": 90}, seed=2)
    if case[0] == "complete" and case[5] == 0:
        layers = layers[:6]
    return dynamics, x0, log_mu(x0, layers)


@both
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case)))
def test_log_mu_agrees_with_many_digits(case):
    dynamics, x0, exact = exactly(case)
    found = accuracy.measured(dynamics, x0, len(exact) - 1, "logscale")
    assert np.all(np.abs(found - exact) <= 1e-9 * np.maximum(1.0, np.abs(exact)))


@both
def test_the_complete_mask_obeys_the_cubic_law_to_ten_to_the_minus_100000():
    """log s' = 3 log s + log ||Z M Z^T Z / N||_F for W_V = I (DONG's 3^L law with its constant)."""
    found, expected = accuracy.cubic_law(seed=1)
    small = found < -20 * LN10
    assert small.sum() >= 7
    assert found[-1] < -1e5 * LN10
    assert np.abs(found - expected)[small].max() <= 1e-6


def test_uniform_causal_attention_halves_mu_far_below_the_floor():
    """lambda_2 of the causal mask is 1/2; here for 5,000 layers, to 10^-1500."""
    dynamics = AttentionDynamics(masks.causal(6), Weights(Zero(), Identity()))
    log10_mu = run(dynamics, tokens.gaussian(2, 6, 3), 5000, record=CHEAP)["log10_mu"]
    assert np.all(log10_mu[:, -1] < -1500)
    assert np.allclose(np.diff(log10_mu[:, 100:]), -math.log10(2.0), rtol=0, atol=1e-11)


@both
def test_equal_tokens_have_log_mu_minus_infinity():
    exact = AttentionDynamics(masks.complete(4), Identity())  # M = 0: equal after one layer
    found = run(exact, tokens.gaussian(2, 4, 3), 3)
    assert np.isneginf(found["log10_mu"][:, 1:]).all()
    assert not found["mu"][:, 1:].any()
    assert np.isfinite(found["norm_min"]).all()


# --- the other engines ----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("name", masks.MASKS)
@given(
    norm=st.sampled_from(NORMS),
    placement=st.sampled_from(list(PLACEMENTS)),
    heads=st.sampled_from([1, 2]),
    skip=st.sampled_from([0.0, 0.6]),
    size=st.sampled_from([1.0, 1e-2, 1e-4]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=12)
def test_a_few_layers_agree_with_the_definition(name, norm, placement, heads, skip, size, seed):
    """Above the floor both know all of it: tokens to 1e-12, mu to its floor."""
    network = Weights(n_heads=heads, seed=seed)
    dynamics = AttentionDynamics(masks.MASKS[name](7), network, norm, placement, skip)
    center, apart = tokens.gaussian(2, 7, 4, seed)[:, :1], tokens.gaussian(2, 7, 4, seed + 1)
    x0 = center + size * apart
    found = run(dynamics, x0, 3)
    exact = simulate(dynamics, x0, 3, engine="reference")
    scale = np.abs(exact.final).max()
    assert np.abs(found.final - exact.final).max() <= 1e-11 * scale
    for measure in found.measures:
        if not measure.startswith(("log10_mu", "rank", "effective", "stable")):
            assert np.allclose(found[measure], exact[measure], rtol=1e-7, atol=1e-9 * scale)
    known = exact["mu"] > 1e6 * exact.floor
    assert np.allclose(found["log10_mu"][known], exact["log10_mu"][known], atol=1e-5)


@both
def test_a_query_bias_and_factored_heads_are_followed_too():
    rng = np.random.default_rng(3)

    def draw(*shape):
        return rng.standard_normal(shape) / 2

    layer = LayerWeights(
        draw(2, 4, 3), draw(2, 3), draw(2, 4, 3), draw(2, 4, 2), draw(2, 2, 4), draw(4)
    )
    for mask in (masks.complete(5), masks.causal(5)):
        dynamics = AttentionDynamics(mask, Layers((layer,)), norms.LayerNorm())
        x0 = draw(3, 1, 4) + 1e-3 * draw(3, 5, 4)
        found, exact = run(dynamics, x0, 2), simulate(dynamics, x0, 2, engine="reference")
        assert np.abs(found.final - exact.final).max() <= 1e-13
        assert np.allclose(found["log10_mu"][:, 1], exact["log10_mu"][:, 1], atol=1e-9)


@both
def test_a_causal_window_keeps_what_early_tokens_still_differ_by():
    """Against whole numbers: 2^t x(t) under the mean with the token before. Early tokens agree to
    1e-300 while late ones are still apart, and decide all that follows."""
    n, depth = 60, 400
    dynamics = AttentionDynamics(masks.causal_local(n), Weights(Zero(), Identity()))
    given = np.random.default_rng(5).integers(-9, 10, n)
    found = run(dynamics, given[:, None].astype(float), depth)["log10_mu"][0]
    y = [int(v) for v in given]
    for t in range(depth):
        y = [2 * y[0], *(a + b for a, b in pairwise(y))]
        squared = n * sum(v * v for v in y) - sum(y) ** 2  # n 4^(t + 1) mu^2
        exact = (math.log10(squared) - math.log10(n)) / 2 - (t + 1) * math.log10(2)
        assert found[t + 1] == pytest.approx(exact, rel=1e-12, abs=1e-12)


@both
@pytest.mark.parametrize("mask", [masks.causal_local(6), masks.complete(6)], ids=["one", "all"])
@pytest.mark.parametrize("norm", NORMS[1:], ids=lambda norm: type(norm).__name__)
def test_tokens_much_shorter_than_the_first_are_normalised_as_they_are(mask, norm):
    """And tokens much longer: the first is nearly the norm's zero for half of the samples."""
    sizes = np.array([1.0, 1e-3, 1.0, 1e-6, -1e-3, 2.0])[:, None]
    x0 = sizes * tokens.gaussian(4, 6, 3, seed=2)
    x0[2:, 0] *= 1e-9
    state = Deviation.split(x0)
    exact, found = norm.apply(x0), deviation.normalised(state, norm).tokens
    assert np.abs(found - exact).max() <= 1e-9 * np.abs(exact).max()
    dynamics = AttentionDynamics(mask, Weights(Zero(), Identity()), norm, "pre")
    found, exact = run(dynamics, x0, 3), simulate(dynamics, x0, 3, engine="reference")
    assert np.allclose(found.final, exact.final, rtol=0, atol=1e-9)


@both
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("mask", [masks.local(6), masks.causal(6)], ids=["local", "causal"])
def test_deviations_that_a_layer_makes_large_are_normalised_as_tokens(mask, placement):
    """W_V keeps the common direction and stretches another into it, so that tokens change sign."""
    network = Fixed(np.eye(3) / 9, np.array([[1.0, 0.0, 0.0], [99.0, 1.0, 0.0], [0.0, 0.0, 99.0]]))
    apart = tokens.gaussian(3, 6, 3, seed=4)
    x0 = np.array([1.0, 0.0, 0.0]) + 1e-2 * apart
    for skip in (0.0, 0.5):
        dynamics = AttentionDynamics(mask, network, norms.Unit(), placement, skip)
        found, exact = run(dynamics, x0, 2), simulate(dynamics, x0, 2, engine="reference")
        assert np.allclose(found.final, exact.final, rtol=0, atol=1e-11 * np.abs(exact.final).max())
        assert np.allclose(found["log10_mu"], exact["log10_mu"], rtol=0, atol=1e-10)


def test_far_from_consensus_it_is_the_compiled_engine():
    network = Weights(value=Orthogonal(), seed=1)
    dynamics = AttentionDynamics(masks.local(12), network, norms.Unit())
    x0 = tokens.gaussian(3, 12, 6)
    found, plain = run(dynamics, x0, 40), simulate(dynamics, x0, 40)
    assert np.all(plain["mu"] > 0.05 * plain["frobenius_norm"])
    assert np.allclose(found.final, plain.final, rtol=0, atol=1e-13)
    assert np.allclose(found["mu"], plain["mu"], rtol=1e-13)


@both
def test_tokens_that_part_again_are_followed_both_ways():
    """W_V grows one direction of nearly equal tokens that attend to themselves alone."""
    alone = masks.from_array(np.eye(3))
    network = Fixed(np.zeros((2, 2)), np.diag([1.0, 2.0]))
    dynamics = AttentionDynamics(alone, network)
    x0 = np.array([[1.0, 1e-9], [1.0, -2e-9], [1.0, 3e-9]])
    found = run(dynamics, x0, 60)
    share = found["mu"] / found["frobenius_norm"]
    assert share[0, 0] < 1e-8
    assert share[0, -1] > 0.5
    expected = math.log10(np.linalg.norm(x0[:, 1] - x0[:, 1].mean())) + np.arange(61) * math.log10(
        2
    )
    assert np.allclose(found["log10_mu"][0], expected, rtol=0, atol=1e-12)


# --- bits, files, resumption ----------------------------------------------------------------------


def mixed(mask=masks.causal):
    """Samples that come near consensus at different layers."""
    x0 = tokens.gaussian(5, 12, 6)
    x0[1] = x0[1, :1] + 1e-3 * x0[1]
    x0[3] = x0[3, :1] + 1e-9 * x0[3]
    dynamics = AttentionDynamics(mask(12), Weights(n_heads=2, seed=1), norms.Unit())
    return dynamics, x0


@both
@pytest.mark.parametrize("mask", [masks.causal, masks.complete], ids=["causal", "complete"])
@pytest.mark.usefixtures("eight_cores")
def test_bits_do_not_depend_on_threads_batch_or_recording(mask):
    dynamics, x0 = mixed(mask)
    whole = run(dynamics, x0, 60, threads=1)
    assert (whole["log10_mu"][:, -1] < -20).all()
    assert run(dynamics, x0, 60, threads=4) == whole
    for s in range(5):
        alone = run(dynamics, x0[s], 60)
        assert alone.deviation == whole.deviation[s : s + 1]
        for name in whole.measures:
            assert np.array_equal(alone[name][0], whole[name][s], equal_nan=True), name
    other = run(dynamics, x0, 60, record=Record(measures=("rank",), stride=7, states=3))
    assert other.deviation == whole.deviation


@pytest.mark.parametrize("split", [2, 15, 40])
def test_a_saved_and_resumed_run_has_the_same_bits(tmp_path, split):
    dynamics, x0 = mixed()
    record = Record(stride=1)
    whole = run(dynamics, x0, 60, record=record)
    first = load(run(dynamics, x0, split, record=record).save(tmp_path / "first.nc"))
    second = run(dynamics, first.state, 60 - split, record=record, start=split)
    assert joined(first, second) == whole
    plain = simulate(dynamics, first.state, 1)
    assert np.array_equal(plain.final, simulate(dynamics, first.final, 1).final)


def test_the_shape_of_the_deviation_is_measured_below_the_floor():
    """Under W_V = diag(1, 1/2, 1/4) one direction of the deviation outlives the others."""
    network = Fixed(np.zeros((3, 3)), np.diag([1.0, 0.5, 0.25]))
    dynamics = AttentionDynamics(masks.causal(6), network)
    names = ("deviation_stable_rank", "deviation_effective_rank")
    found = run(dynamics, tokens.gaussian(2, 6, 3), 200, record=Record(names, stride=50))
    assert (found["log10_mu"][:, -1] < -50).all()
    for name in names:
        values = found.recorded(name)[1]
        assert np.all(values[:, 0] > 1.2)
        assert np.allclose(values[:, -1], 1.0, atol=1e-9)


# --- the mathematics by itself --------------------------------------------------------------------


@given(st.integers(0, 2**16), st.sampled_from(NORMS), st.floats(-30, 0))
def test_normalised_deviations_are_those_of_normalised_tokens(seed, norm, log_size):
    rng = np.random.default_rng(seed)
    state = Deviation.of(
        rng.standard_normal((2, 4)), rng.standard_normal((2, 5, 4)), np.full(2, log_size)
    )
    found = deviation.normalised(state, norm)
    assert np.allclose(found.tokens, norm.apply(state.tokens), rtol=0, atol=1e-12)
    wide = norm.apply(state.tokens.astype(np.longdouble)).astype(np.longdouble)
    exact = np.log(np.linalg.norm((wide - wide.mean(axis=1, keepdims=True)).reshape(2, -1), axis=1))
    assert np.allclose(
        found.log_mu, exact.astype(float), rtol=0, atol=1e-14 * np.exp(-log_size) + 1e-12
    )


@both
@given(
    seed=st.integers(0, 2**16),
    size=st.sampled_from([1e-1, 1e-3, 1e-12, 1e-150, 1e-290]),
    strength=st.sampled_from([1.0, 30.0]),
    keys=st.sampled_from([range(9), range(2, 5), (0, 3, 7), (4,)]),
    heads=st.sampled_from([1, 2]),
)
@settings(max_examples=40, deadline=None)
def test_attention_to_common_keys_is_its_definition(seed, size, strength, keys, heads):
    """The kernel's layer against numpy's, for masks whose rows are all the same.

    With strong scores and 1e-1 the kernel computes attention itself instead of a difference, and so
    does this test: the difference of the definition is of large numbers there.
    """
    rng = np.random.default_rng(seed)
    layer = LayerWeights(
        strength * rng.standard_normal((heads, 4, 3)), rng.standard_normal((heads, 3)),
        rng.standard_normal((heads, 4, 3)), rng.standard_normal((heads, 4, 2)),
        rng.standard_normal((heads, 2, 4)), rng.standard_normal(4),
    )  # fmt: skip
    rows = np.zeros((9, 9))
    rows[:, list(keys)] = 1.0
    dynamics = AttentionDynamics(masks.from_array(rows), Layers((layer,)))
    center, z = rng.standard_normal((3, 4)) / strength, rng.standard_normal((3, 9, 4))
    state = Deviation.of(center, z, np.full(3, np.log(size)))
    expected = deviation.attention_to_common_keys(state, layer, np.array(keys))
    if strength * size**2 > 0.1:  # where the sum below the difference cancels
        expected = Deviation.split(np.stack([dynamics.step(x) for x in state.tokens]))
    found = run(dynamics, state, 1, record=CHEAP).deviation
    assert np.allclose(found.log_mu, expected.log_mu, rtol=1e-12, atol=1e-9)
    assert np.allclose(found.center, expected.center, rtol=0, atol=1e-11)
    assert np.allclose(found.shape, expected.shape, rtol=0, atol=1e-9)


# --- what it refuses ------------------------------------------------------------------------------


def test_what_it_cannot_follow_is_refused():
    x0 = tokens.gaussian(1, 4, 3)
    perceptron = AttentionDynamics(masks.causal(4), Weights(), mlp=mlp.GaussianMLP())
    with pytest.raises(ValueError, match=r"does not apply: an MLP .* use engine='numba'"):
        run(perceptron, x0, 3)
    with pytest.raises(ValueError, match="needs float64 tokens, not float32"):
        run(AttentionDynamics(masks.causal(4), Weights()), x0.astype(np.float32), 3)


def test_overflow_names_layer_and_sample():
    dynamics = AttentionDynamics(masks.causal(3), Weights(Zero(), Diagonal(1e10)))
    x0 = np.stack([np.zeros((3, 2)), 1.0 + 1e-3 * np.arange(6).reshape(3, 2)])
    with pytest.raises(Overflow, match=r"sample 1 .* layer 31") as caught:
        run(dynamics, x0, 100)
    assert caught.value.trajectory.depth == 30


def test_orthogonal_values_keep_the_spectrum_of_the_walk():
    """W_V orthogonal and M = 0: mu falls by lambda_2 of the ring, whatever W_V is."""
    graph = masks.ring(7)
    dynamics = AttentionDynamics(graph, Weights(Zero(), Orthogonal(), seed=2))
    log10_mu = run(dynamics, tokens.gaussian(2, 7, 4), 400, record=CHEAP)["log10_mu"]
    rate = np.diff(log10_mu[:, 150:])
    assert np.allclose(rate, np.log10(connectivity.lambda_2(graph).value), rtol=0, atol=1e-11)


def test_gaussian_scores_stop_mattering_near_consensus():
    """Near consensus the derivative of A multiplies a constant: the rate is lambda_2, exactly."""
    dynamics = AttentionDynamics(
        masks.causal(5), Weights(Gaussian(), Orthogonal(), seed=3), norms.Unit()
    )
    log10_mu = run(dynamics, tokens.sphere(2, 5, 3), 400, record=CHEAP)["log10_mu"]
    assert np.allclose(np.diff(log10_mu[:, 150:]), -math.log10(2.0), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("score", "tokens_", "log10_mu"),
    [(-100.0, (1.0, 2.0), -87.0094), (-100.0, (1.0, 1.3), -17.6109), (184.0, (1.0, 0.5), -20.4291)],
)
def test_a_layer_that_falls_below_rounding_at_once_is_followed(score, tokens_, log10_mu):
    """All tokens come to attend to one; exactly, mu' is e^-|score| or so."""
    dynamics = AttentionDynamics(masks.causal(2), Fixed([[score]], [[1.0]]))
    found = run(dynamics, np.array(tokens_)[:, None], 1)
    assert found["log10_mu"][0, 1] == pytest.approx(log10_mu, abs=1e-4)
    layer = accuracy.Layer([(np.array([[score]]), np.eye(1))], dynamics.allowed())
    exact = log_mu(np.array(tokens_)[:, None], [layer], digits=200) / LN10
    assert np.allclose(found["log10_mu"][0], exact, rtol=0, atol=1e-9)
    assert np.all(found["log10_mu_error"] < 1e-9)


def test_what_rounding_decides_is_flagged():
    """Tokens of one dimension on the sphere are 1 or -1: what they differ by is rounding or 0."""
    dynamics = AttentionDynamics(masks.local(4), Fixed([[1.0]], [[2.0]]), norms.Unit())
    found = run(dynamics, np.array([[1.0], [0.5], [2.0], [1.5]]), 3)
    assert np.all(np.isneginf(found["log10_mu"][0, 1:]) | (found["log10_mu_error"][0, 1:] > 1e-9))


def test_the_error_of_a_sample_does_not_depend_on_the_others():
    """One of them falls below rounding at once, from scores of 200; others do not."""
    dynamics = AttentionDynamics(masks.causal(3), Fixed([[-100.0]], [[1.0]]))
    x0 = np.array([[1.0, 2.0, 1.7], [1e-3, 2e-3, 1.7e-3], [0.3, 0.36, 0.33], [1.0, 1.0, 1.01]])
    together = run(dynamics, x0[..., None], 6)
    for k, x in enumerate(x0):
        alone = run(dynamics, x[None, :, None], 6)
        for name in ("log10_mu", "log10_mu_error"):
            assert np.array_equal(together[name][k : k + 1], alone[name]), name


def test_the_error_is_carried_on():
    dynamics = AttentionDynamics(masks.causal(4), Weights(Gaussian(3.0), Orthogonal(), seed=1))
    x0 = tokens.gaussian(2, 4, 3)
    whole, first = run(dynamics, x0, 30), run(dynamics, x0, 10)
    second = run(dynamics, first.state, 20, start=10)
    assert np.array_equal(whole["log10_mu_error"][:, 10:], second["log10_mu_error"])
    assert np.all(np.diff(whole["log10_mu_error"]) >= 0)
