"""The definition of a step: one battery of properties for all, and agreement with torch."""

import naive
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import masks, mlp, norms, tokens, weights
from dynsim.network.attention import masked_softmax
from dynsim.network.dynamics import PLACEMENTS, AttentionDynamics
from dynsim.network.weights import Gaussian, Identity, Layers, LayerWeights, Orthogonal, Weights

MASK_NAMES = st.sampled_from([name for name in masks.MASKS if name != "dilated"])
PER_LAYER = norms.PerLayer((norms.LayerNorm(2.0, 0.5), norms.Unit(), norms.RMSNorm(0.5)))
NORMS = [norms.NoNorm(), norms.Unit(), norms.RMSNorm(), norms.LayerNorm(), PER_LAYER]


@given(MASK_NAMES, st.integers(0, 2**16), st.integers(1, 2), st.floats(0.1, 8.0))
def test_attention_rows_sum_to_one_and_respect_the_mask(name, seed, heads, sigma):
    n, d = 7, 4
    graph = masks.MASKS[name](n)
    dynamics = AttentionDynamics(graph, Weights(Gaussian(sigma), n_heads=heads, seed=seed))
    A = dynamics.attention(tokens.gaussian(1, n, d, seed)[0])
    assert np.allclose(A.sum(axis=-1), 1, atol=1e-14)
    allowed = nx.to_numpy_array(graph.copy(), nodelist=range(n)).T.astype(bool)
    assert np.array_equal(dynamics.allowed(), allowed)
    assert not A[:, ~allowed].any()
    assert (A[:, allowed] >= 0).all()


@given(st.integers(0, 2**16), st.sampled_from(NORMS), st.sampled_from(list(PLACEMENTS)))
def test_the_complete_graph_is_permutation_equivariant(seed, norm, placement):
    n, d = 6, 4
    dynamics = AttentionDynamics(
        masks.complete(n), Weights(n_heads=2, seed=seed), norm, placement, 0.5, mlp.GaussianMLP()
    )
    x = tokens.gaussian(1, n, d, seed)[0]
    order = np.random.default_rng(seed).permutation(n)
    assert np.allclose(dynamics.step(x[order]), dynamics.step(x)[order], rtol=1e-10, atol=1e-12)


@given(st.integers(0, 2**16))
def test_relabelling_the_graph_relabels_the_result(seed):
    n, d = 7, 3
    rng = np.random.default_rng(seed)
    mask = rng.random((n, n)) < 0.4
    np.fill_diagonal(mask, True)
    order = rng.permutation(n)
    x, w = rng.standard_normal((n, d)), Weights(seed=seed)
    plain = AttentionDynamics(masks.from_array(mask), w, norms.Unit())
    moved = AttentionDynamics(masks.from_array(mask[np.ix_(order, order)]), w, norms.Unit())
    assert np.allclose(moved.step(x[order]), plain.step(x)[order], rtol=1e-11, atol=1e-13)


@given(MASK_NAMES, st.integers(0, 2**16))
def test_tokens_stay_in_the_convex_hull_for_identity_values(name, seed):
    n, d = 8, 3
    dynamics = AttentionDynamics(masks.MASKS[name](n), Weights(value=Identity(), seed=seed))
    x = tokens.gaussian(1, n, d, seed)[0]
    directions = np.random.default_rng(seed).standard_normal((20, d))
    for t in range(4):
        y = dynamics.step(x, t)
        assert np.all(directions @ y.T <= (directions @ x.T).max(axis=1)[:, None] + 1e-12)
        x = y


@given(MASK_NAMES, st.integers(0, 2**16))
def test_unit_norm_gives_unit_rows(name, seed):
    dynamics = AttentionDynamics(masks.MASKS[name](6), Weights(seed=seed), norms.Unit())
    x = dynamics.step(tokens.gaussian(1, 6, 5, seed)[0])
    assert np.allclose(np.linalg.norm(x, axis=1), 1, atol=1e-14)


@given(
    st.sampled_from(["causal", "causal-local"]),
    st.integers(0, 2**16),
    st.sampled_from(NORMS),
    st.integers(0, 6),
)
def test_causal_tokens_never_depend_on_later_ones(name, seed, norm, token):
    n, d = 7, 4
    dynamics = AttentionDynamics(masks.MASKS[name](n), Weights(seed=seed), norm, skip=1.0)
    x = tokens.gaussian(1, n, d, seed)[0]
    changed = x.copy()
    changed[token + 1 :] += 1.0
    for t in range(3):
        x, changed = dynamics.step(x, t), dynamics.step(changed, t)
    assert np.array_equal(x[: token + 1], changed[: token + 1])


def test_masked_softmax_is_safe_for_huge_scores():
    scores = np.array([[1e4, -1e4, 1e4], [-1e4, -1e4, 1e4]])
    mask = np.array([[True, True, True], [True, True, False]])
    assert np.allclose(masked_softmax(scores, mask), [[0.5, 0, 0.5], [0.5, 0.5, 0]])


@pytest.mark.parametrize("activation", ["relu", "swiglu"])
def test_step_matches_the_naive_definition(activation, rng):
    n, d = 5, 4
    gain, bias = rng.standard_normal(d), rng.standard_normal(d)
    norm = norms.LayerNorm(gain, bias, 1e-3)
    perceptron = mlp.GaussianMLP(activation, sigma=2.0)
    for placement in PLACEMENTS:
        dynamics = AttentionDynamics(
            masks.local(n), Weights(Gaussian(2.0), n_heads=2), norm, placement, 0.7, perceptron
        )
        x = tokens.gaussian(1, n, d)[0]
        layer, layer_mlp = dynamics.weights.layer(3, d), perceptron.layer(3, d)

        def normalise(z):
            return naive.normalise(z, "layernorm", gain, bias, 1e-3)

        def attend(z, layer=layer, dynamics=dynamics):
            return naive.attend(z, naive.heads_of(layer), dynamics.allowed())

        def feed(z, layer_mlp=layer_mlp):
            return naive.perceptron(z, *layer_mlp, activation)

        expected = naive.sublayer(x, attend, normalise, placement, 0.7)
        expected = naive.sublayer(expected, feed, normalise, placement, 0.7)
        assert np.allclose(dynamics.step(x, 3), expected, rtol=1e-12, atol=1e-12)


def test_attention_matches_torch_scaled_dot_product(rng):
    import torch

    n, d, heads = 9, 8, 2
    dynamics = AttentionDynamics(masks.bigbird(n), Weights(Gaussian(3.0), n_heads=heads))
    x = rng.standard_normal((n, d))
    layer = dynamics.weights.layer(0, d)
    query, key, value = (torch.from_numpy(x @ w) for w in (layer.query, layer.key, layer.value))
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=torch.from_numpy(dynamics.allowed()), scale=1.0
    )
    expected = (mixed.numpy() @ layer.output).sum(axis=0)
    assert np.allclose(dynamics.step(x), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_agreement_with_a_torch_encoder_layer(rng, placement, activation):
    import torch

    n, d, heads = 6, 8, 2
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        d, heads, 16, dropout=0.0, activation=activation, batch_first=True,
        norm_first=placement == "pre", dtype=torch.float64,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    layer.eval()

    def array(tensor):
        return tensor.detach().numpy().copy()

    width = d // heads
    W_in, b_in = array(layer.self_attn.in_proj_weight).T, array(layer.self_attn.in_proj_bias)
    W_O, b_O = array(layer.self_attn.out_proj.weight).T, array(layer.self_attn.out_proj.bias)
    W_Q, W_K, W_V = np.split(W_in, 3, axis=1)
    b_Q, _, b_V = np.split(b_in, 3)

    def by_head(matrix):
        return np.ascontiguousarray(matrix.reshape(d, heads, width).transpose(1, 0, 2))

    ours = AttentionDynamics(
        mask=masks.causal(n),
        weights=Layers(
            (
                LayerWeights(
                    by_head(W_Q) / width**0.5, b_Q.reshape(heads, width) / width**0.5,
                    by_head(W_K), by_head(W_V), W_O.reshape(heads, width, d), b_V @ W_O + b_O,
                ),
            )
        ),
        norm=norms.LayerNorm(array(layer.norm1.weight), array(layer.norm1.bias), 1e-5),
        placement=placement,
        skip=1.0,
        mlp=mlp.FixedMLP(
            mlp.MLPWeights(
                np.ascontiguousarray(array(layer.linear1.weight).T), array(layer.linear1.bias),
                np.ascontiguousarray(array(layer.linear2.weight).T), array(layer.linear2.bias),
            ),
            activation,
        ),
        mlp_norm=norms.LayerNorm(array(layer.norm2.weight), array(layer.norm2.bias), 1e-5),
    )  # fmt: skip
    x = rng.standard_normal((3, n, d))
    blocked = torch.from_numpy(~ours.allowed())
    with torch.no_grad():
        expected = layer(torch.from_numpy(x), src_mask=blocked).numpy()
    assert np.allclose([ours.step(sample) for sample in x], expected, rtol=1e-11, atol=1e-12)
    from dynsim import simulate

    assert np.allclose(simulate(ours, x, 1).final, expected, rtol=1e-11, atol=1e-12)


def test_a_family_alone_is_the_value_matrix_under_uniform_attention(rng):
    x = rng.standard_normal((4, 3))
    dynamics = AttentionDynamics(masks.complete(4), Orthogonal())
    W_V = dynamics.weights.layer(0, 3).W_V[0]
    assert np.allclose(dynamics.step(x), np.tile(x.mean(axis=0) @ W_V, (4, 1)))


def test_dynamics_are_values():
    def make(window=1, skip=0.0):
        return AttentionDynamics(masks.local(6, window), Weights(), norms.Unit(), skip=skip)

    assert make() == make()
    assert len({make(), make(), make(window=2), make(skip=1.0)}) == 3
    assert "Unit()" in repr(make())
    with pytest.raises(AttributeError):
        make().skip = 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"placement": "middle"}, "post, pre, peri"),
        ({"skip": np.nan}, "finite"),
        ({"norm": "unit"}, "dynsim.norms.Unit"),
        ({"mask": nx.DiGraph([(0, 1)])}, "row 0 of the mask is empty"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        AttentionDynamics(**{"mask": masks.causal(3), "weights": weights.Identity()} | options)


@pytest.mark.parametrize(
    ("x", "norm", "words"),
    [
        (np.ones((4, 2)), norms.NoNorm(), "mask is for 3 tokens"),
        (np.array([[1, 2], [np.inf, 0], [0, 0.0]]), norms.NoNorm(), r"index \(1, 0\)"),
        (np.array([[1, 2], [0, 0], [1, 1.0]]), norms.Unit(), "token 1 has none"),
        (np.ones((2, 3, 2)), norms.LayerNorm(eps=0.0), "token 0 of sample 0 .* constant"),
    ],
)
def test_tokens_that_cannot_be_a_state_are_refused(x, norm, words):
    dynamics = AttentionDynamics(masks.complete(3), weights.Identity(), norm)
    with pytest.raises(ValueError, match=words):
        dynamics.check_tokens(x)
