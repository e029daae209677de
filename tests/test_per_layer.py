"""Norms and MLPs that differ from layer to layer: every engine, the derivative and files."""

import naive
import numpy as np
import pytest
import torch

import dynsim
from dynsim import masks, mlp, norms, simulate, tokens
from dynsim.engines.torch import TorchEngine, find_device
from dynsim.network.dynamics import PLACEMENTS, AttentionDynamics
from dynsim.network.jacobian import image, jacobian, jvp
from dynsim.network.weights import Layers, Weights
from dynsim.results.definition import Definition

D, LAYERS = 5, 3
KINDS = ("layernorm", "rms", "unit")


def numbers(seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1.5, (LAYERS, D)), rng.standard_normal((LAYERS, D))


def norms_of(seed):
    """LayerNorm, RMSNorm and unit norm in turn, each with a gain of its own."""
    (g, h, _), (b, *_) = numbers(seed)
    return norms.PerLayer((norms.LayerNorm(g, b, 1e-3), norms.RMSNorm(h, 1e-2), norms.Unit()))


def perceptrons(activation="gelu_tanh", seed=2):
    rng, units = np.random.default_rng(seed), mlp.UNITS[activation]
    shapes = [((D, units * m), (units * m,), (m, D), (D,)) for m in (4, 7, 4)]
    layers = [mlp.MLPWeights(*(0.5 * rng.standard_normal(s) for s in each)) for each in shapes]
    return mlp.FixedMLP(tuple(layers), activation)


def make(n=6, placement="post", perceptron=mlp.NoMLP(), shared=False):  # noqa: B008
    weights = Weights(n_heads=1, seed=1, shared=shared)
    return AttentionDynamics(
        masks.local(n), weights, norms_of(0), placement, 0.7, perceptron, norms_of(1)
    )


def naive_run(dynamics, x, depth):
    """The layers from the definition, with the gains of each layer looked up here."""
    for t in range(depth):
        layer = dynamics.weights.layer(t, D)

        def normalise(z, seed, t=t):
            gain, bias = (array[t] for array in numbers(seed))
            eps = (1e-3, 1e-2, 0.0)[t]
            return naive.normalise(z, KINDS[t], gain, bias, eps)

        def attend(z, layer=layer):
            return naive.attend(z, naive.heads_of(layer), dynamics.allowed())

        def feed(z, t=t):
            return naive.perceptron(z, *dynamics.mlp.layer(t, D), "relu")

        x = naive.sublayer(x, attend, lambda z: normalise(z, 0), dynamics.placement, 0.7)
        if dynamics.mlp.active:
            x = naive.sublayer(x, feed, lambda z: normalise(z, 1), dynamics.placement, 0.7)
    return x


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("perceptron", [mlp.NoMLP(), perceptrons("relu")], ids=["bare", "mlp"])
def test_every_engine_runs_each_layer_with_its_own_norm_and_mlp(placement, shared, perceptron):
    dynamics = make(placement=placement, shared=shared, perceptron=perceptron)
    x0 = tokens.gaussian(5, 6, D, seed=3)
    expected = np.stack([naive_run(dynamics, x, LAYERS) for x in x0])
    engines = ["reference", "numba", "torch"] + ["logscale"] * (not perceptron.active)
    for engine in engines:
        run = simulate(dynamics, x0, LAYERS, engine=engine)
        assert np.allclose(run.final, expected, rtol=1e-12, atol=1e-13), engine
        lone = simulate(dynamics, x0[0], LAYERS, engine=engine)  # another kernel
        assert np.allclose(lone.final[0], expected[0], rtol=1e-12, atol=1e-13), engine
        first = simulate(dynamics, x0, 1, engine=engine)
        rest = simulate(dynamics, first.state, LAYERS - 1, engine=engine, start=1)
        assert np.array_equal(rest.final, run.final), engine


@pytest.mark.parametrize("engine", ["numba", "torch"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_states_in_blocks_of_rows_agree_too(engine, dtype):
    n = 512  # more numbers than the kernel of lanes takes
    dynamics, x0 = make(n), tokens.gaussian(2, n, D).astype(dtype)
    exact = simulate(dynamics, x0.astype(float), LAYERS, engine="reference")
    run = simulate(dynamics, x0, LAYERS, engine=engine)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    assert np.allclose(run.final, exact.final, rtol=tolerance, atol=tolerance)
    entropy = "attention_entropy"
    assert np.allclose(run[entropy], exact[entropy], rtol=1e2 * tolerance, equal_nan=True)


def test_the_log_scale_engine_goes_on_below_the_floor_as_layer_after_layer():
    n = 6
    per_layer = norms.PerLayer([norms.RMSNorm(gain) for gain in numbers(4)[0]])
    weights = Weights(seed=2)
    dynamics = AttentionDynamics(masks.causal(n), weights, per_layer)
    x0 = np.ones((2, 1, D)) + 1e-9 * tokens.gaussian(2, n, D)
    run = simulate(dynamics, x0, LAYERS, engine="logscale")
    state = x0
    for t in range(LAYERS):
        one = simulate(dynamics.layer(t, D), state, 1, engine="logscale")
        state = one.state
    assert np.allclose(run["log10_mu"][:, -1], one["log10_mu"][:, -1], rtol=1e-13)
    same = AttentionDynamics(masks.causal(n), weights, per_layer.layer(0))
    other = simulate(same, x0, LAYERS, engine="logscale")
    assert not np.allclose(run["log10_mu"][:, -1], other["log10_mu"][:, -1], rtol=1e-3)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("activation", mlp.ACTIVATIONS)
def test_the_derivative_of_every_layer_agrees_with_automatic_differentiation(
    placement, activation, rng
):
    dynamics, x = make(4, placement, perceptrons(activation)), rng.standard_normal((4, D))
    engine = TorchEngine(dynamics, 1, find_device("cpu"))
    v = rng.standard_normal((4, D))
    for t in range(LAYERS):
        weights = engine._weights(t, torch.from_numpy(x)[None])
        exact = torch.autograd.functional.jacobian(
            lambda z, t=t, weights=weights: engine._layer(z[None], *weights, t)[0],
            torch.from_numpy(x),
        ).numpy()
        assert np.allclose(jacobian(dynamics, x, t), exact, rtol=1e-9, atol=1e-11)
        after, moved = jvp(dynamics, x, v, t)
        assert np.allclose(after, dynamics.step(x, t), rtol=1e-12, atol=1e-13)
        assert np.allclose(image(dynamics, x, t), after, rtol=1e-13)
        assert np.allclose(moved, np.einsum("iajb,jb->ia", exact, v), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("engine", ["numba", "torch"])
def test_dropout_comes_before_the_norm_of_its_layer(engine):
    noisy = make(perceptron=perceptrons("relu"))
    noisy = dynsim.AttentionDynamics(
        noisy.mask, noisy.weights, noisy.norm, "post", 0.7, noisy.mlp, noisy.mlp_norm,
        dynsim.Dropout(hidden=0.3, seed=4),
    )  # fmt: skip
    x0 = tokens.gaussian(3, 6, D)
    exact = simulate(noisy, x0, LAYERS, engine="reference")
    run = simulate(noisy, x0, LAYERS, engine=engine)
    assert np.allclose(run.final, exact.final, rtol=1e-12, atol=1e-13)


def test_one_layer_alone_is_that_layer():
    dynamics, x = make(perceptron=perceptrons()), tokens.gaussian(1, 6, D)[0]
    assert not dynamics.is_constant
    assert dynamics.n_layers == LAYERS
    for t in range(LAYERS):
        alone = dynamics.layer(t, D)
        assert alone.is_constant
        assert alone.n_layers is None
        assert np.array_equal(alone.step(x, 7), dynamics.step(x, t))
    with pytest.raises(ValueError, match="give that of the tokens"):
        dynamics.layer(0)


def test_files_bring_them_back(tmp_path):
    dynamics = make(perceptron=perceptrons())
    assert Definition.of(dynamics).dynamics() == dynamics
    x0 = tokens.gaussian(2, 6, D)
    simulate(dynamics, x0, 2).save(tmp_path / "run.nc")
    again = dynsim.load(tmp_path / "run.nc")
    rest = simulate(again.rebuild_dynamics(), again.state, 1, start=2)
    assert np.array_equal(rest.final, simulate(dynamics, x0, LAYERS).final)


def test_predictions_take_the_norm_of_each_layer():
    """Near consensus mu falls by what the layers' own gains make of it."""
    entries = [Weights(seed=seed, shared=True).layer(0, D) for seed in range(40)]
    gains = np.random.default_rng(0).uniform(0.2, 3.0, (40, D))
    per_layer = norms.PerLayer([norms.RMSNorm(gain) for gain in gains])
    dynamics = AttentionDynamics(masks.causal(2), Layers(entries), per_layer)
    token, z = np.ones(D), np.random.default_rng(0).standard_normal(D)  # that of the prediction
    x0 = np.stack([token, token + 1e-9 * z])
    run = simulate(dynamics, x0, 40, engine="logscale")
    logs = dynsim.predictions.transversal_growth(dynamics, token, 40)[0]
    measured = np.diff(np.log(10.0) * run["log10_mu"][0])
    assert np.allclose(logs[1:], measured[1:], atol=1e-6)


def test_what_needs_one_norm_says_so():
    dynamics, x = make(), tokens.gaussian(1, 6, D)[0]
    with pytest.raises(ValueError, match="not one norm but 3"):
        dynamics.norm.apply(x)
    with pytest.raises(ValueError, match="with one number as gain"):
        dynsim.gram.infinite_width(dynamics, x, 2)
    with pytest.raises(ValueError, match=r"take one layer, dynamics\.layer"):
        dynsim.equilibria.find_equilibria(make(shared=True), dim=D)
    found = dynsim.bounds.mu_bounds(dynamics, x[None], LAYERS)
    assert not any(bound.applies.any() for bound in found.values())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: norms.PerLayer(()), "one or more"),
        (lambda: norms.PerLayer((norms.Unit(), "unit")), "that of layer 1 is 'unit'"),
        (lambda: norms.PerLayer((norms_of(0),)), "that of layer 0 is PerLayer"),
        (lambda: norms.PerLayer(norms.Unit()), r"\(norm_0, norm_1\)"),
        (lambda: mlp.FixedMLP(()), "one or more"),
        (lambda: norms_of(0).layer(3), "norms for 3 layers"),
        (lambda: perceptrons().layer(3, D), "MLPs for 3 layers"),
        (lambda: simulate(make(), tokens.gaussian(1, 6, D), 4), "for 3 layers; asked for 4"),
        (lambda: make().check_tokens(np.ones((6, D + 1))), "one entry per dimension"),
    ],
)
def test_bad_layers_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_weights_norms_and_mlps_are_given_for_the_same_layers():
    two = mlp.FixedMLP(perceptrons().weights[:2])
    with pytest.raises(ValueError, match=r"norms for 3, .* MLPs for 2"):
        make(perceptron=two)
