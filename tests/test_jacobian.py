"""The derivative of a layer against automatic differentiation, and what must hold of it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynsim import masks, mlp, norms, tokens, weights
from dynsim.engines.torch import TorchEngine, find_device
from dynsim.network.attention import Hardmax, QKNorm, Sigmoid, Softmax, Softpick
from dynsim.network.dynamics import PLACEMENTS, AttentionDynamics
from dynsim.network.jacobian import image, jacobian, jvp, linearise, tangent_basis, tangent_jacobian
from dynsim.network.positions import ALiBi, RoPE
from dynsim.network.weights import Layers, LayerWeights, Weights

N, D = 5, 4


def norm_of(name, rng):
    gain, bias = rng.uniform(0.5, 1.5, D), rng.standard_normal(D)
    return {
        "none": norms.NoNorm(),
        "unit": norms.Unit(),
        "rms": norms.RMSNorm(gain, 1e-3),
        "layernorm": norms.LayerNorm(gain, bias, 1e-3),
        "dyt": norms.DyT(0.8, gain, bias),
        "derf": norms.Derf(0.8, 0.3, gain, bias),
    }[name]


def by_autograd(dynamics, x):
    """The torch engine's layer, differentiated by torch."""
    engine = TorchEngine(dynamics, 1, find_device("cpu"))
    state = torch.from_numpy(x)[None]
    heads, perceptron = engine._weights(0, state)
    return (
        torch.autograd.functional.jacobian(lambda z: engine._layer(z[None], heads, perceptron)[0],
                                           state[0]).numpy()
    )  # fmt: skip


def thin_layer(rng):
    """Two heads with query biases, thin keys and thin values, and an output bias."""
    return LayerWeights(
        query=rng.standard_normal((2, D, 2)),
        query_bias=rng.standard_normal((2, 2)),
        key=rng.standard_normal((2, D, 2)),
        value=rng.standard_normal((2, D, 3)),
        output=rng.standard_normal((2, 3, D)),
        output_bias=rng.standard_normal(D),
    )


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", norms.NORMS)
@pytest.mark.parametrize("activation", ["", "gelu", "relu"])
def test_agrees_with_automatic_differentiation(name, placement, activation, rng):
    perceptron = mlp.GaussianMLP(activation, seed=3) if activation else mlp.NoMLP()
    dynamics = AttentionDynamics(
        masks.local(N), Layers((thin_layer(rng),)), norm_of(name, rng), placement, 0.7, perceptron,
        norm_of("rms", rng),
    )  # fmt: skip
    x = rng.standard_normal((N, D))
    exact = by_autograd(dynamics, x)
    assert np.allclose(jacobian(dynamics, x), exact, rtol=1e-10, atol=1e-11)
    v = rng.standard_normal((N, D))
    after, moved = jvp(dynamics, x, v)
    assert np.array_equal(after, image(dynamics, x))
    assert np.allclose(moved, np.einsum("iajb,jb->ia", exact, v), rtol=1e-10, atol=1e-10)
    _, several = jvp(dynamics, x, np.stack([v, 2 * v]))
    assert np.allclose(several, [moved, 2 * moved], rtol=1e-12, atol=1e-12)


@given(
    st.sampled_from([name for name in masks.MASKS if name != "dilated"]),
    st.integers(0, 2**16),
    st.integers(1, 2),
)
def test_many_states_at_once_equal_one_by_one(name, seed, heads):
    n = 6
    dynamics = AttentionDynamics(
        masks.MASKS[name](n), Weights(n_heads=heads, seed=seed), norms.Unit(), mlp=mlp.GaussianMLP()
    )
    x = tokens.sphere(3, n, D, seed)
    out, slope = linearise(dynamics, x, t=2)
    assert np.allclose(out, image(dynamics, x, t=2), rtol=1e-13, atol=1e-14)
    for k in range(3):
        assert np.allclose(out[k], dynamics.step(x[k], 2), rtol=1e-12, atol=1e-13)
        assert np.allclose(slope[k], jacobian(dynamics, x[k], 2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("norm", [norms.Unit(), norms.RMSNorm(eps=0.1), norms.LayerNorm(eps=0.1)])
def test_the_derivative_of_a_norm_where_it_is_hard(norm):
    """Constant, tiny and huge tokens against central differences."""
    rng = np.random.default_rng(0)
    for x in (np.full(3, 0.2), np.array([1e-9, 2e-9, -1e-9]), 1e8 * rng.standard_normal(3)):
        h = 1e-6 * np.abs(x).max()
        rows = [(norm.apply(x + h * e) - norm.apply(x - h * e)) / (2 * h) for e in np.eye(3)]
        assert np.allclose(norm.derivative(x) * np.abs(x).max(),
                           np.array(rows).T * np.abs(x).max(), atol=1e-7)  # fmt: skip


def test_a_token_without_size_has_no_derivative():
    assert np.isnan(norms.Unit().derivative(np.zeros((1, 3)))).all()
    assert np.isnan(norms.LayerNorm(eps=0.0).derivative(np.full((1, 3), 0.1))).all()


def test_radial_directions_give_zero_and_a_causal_mask_gives_blocks(rng):
    dynamics = AttentionDynamics(masks.causal(N), Weights(seed=1), norms.Unit())
    x = tokens.sphere(1, N, D, 0)[0]
    slope = jacobian(dynamics, x)
    out = dynamics.step(x)
    assert np.allclose(np.einsum("ia,iajb->ijb", out, slope), 0, atol=1e-13)
    inner = tangent_jacobian(dynamics, x).reshape(N, D - 1, N, D - 1)
    for i in range(N):
        assert not inner[i, :, i + 1 :].any()
    basis = tangent_basis(dynamics, x)
    assert np.allclose(np.einsum("iap,iaq->ipq", basis, basis), np.eye(D - 1), atol=1e-14)
    assert np.allclose(np.einsum("iap,ia->ip", basis, x), 0, atol=1e-14)


def test_tokens_on_an_axis_get_the_other_axes_exactly():
    dynamics = AttentionDynamics(masks.complete(2), weights.Identity(), norms.Unit())
    basis = tangent_basis(dynamics, np.array([[0.0, 0, 1], [0, -1.0, 0]]))
    assert set(np.unique(np.abs(basis))) == {0.0, 1.0}


def test_without_a_final_norm_tokens_move_in_all_directions(rng):
    dynamics = AttentionDynamics(masks.complete(2), weights.Identity(), norms.Unit(), "pre")
    x = rng.standard_normal((2, 3))
    assert np.allclose(tangent_jacobian(dynamics, x), jacobian(dynamics, x).reshape(6, 6))


PARTS = {
    "alibi": {"position": ALiBi((0.7, 0.1))},
    "rope": {"position": RoPE(50.0)},
    "sinks": {"kind": Softmax(sink=(0.3, -1.0))},
    "sigmoid": {"kind": Sigmoid()},
    "softpick": {"kind": Softpick(eps=0.1)},
    "unit": {"qk_norm": QKNorm(2.0)},
    "rms": {"qk_norm": QKNorm((1.0, 2.0), "rms", (0.5, -1.5), eps=0.1)},
    "all": {"position": RoPE(), "kind": Softmax(0.5), "qk_norm": QKNorm(3.0)},
    "alibi, sigmoid": {"position": ALiBi(0.2), "kind": Sigmoid(), "qk_norm": QKNorm(2.0)},
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("mask", [masks.local, masks.causal])
def test_parts_of_attention_agree_with_automatic_differentiation(part, mask, rng):
    dynamics = AttentionDynamics(
        mask(N), Layers((thin_layer(rng),)), norms.Unit(), "post", 0.7, mlp.GaussianMLP(),
        **PARTS[part],
    )  # fmt: skip
    x = rng.standard_normal((N, D))
    exact = by_autograd(dynamics, x)
    assert np.allclose(jacobian(dynamics, x), exact, rtol=1e-9, atol=1e-10)
    v = rng.standard_normal((2, N, D))
    after, moved = jvp(dynamics, x, v)
    assert np.allclose(after, dynamics.step(x), rtol=1e-12, atol=1e-12)
    assert np.allclose(image(dynamics, x), dynamics.step(x), rtol=1e-12, atol=1e-12)
    assert np.allclose(moved, np.einsum("iajb,kjb->kia", exact, v), rtol=1e-9, atol=1e-9)
    several = jacobian(dynamics, np.stack([x, 2 * x]))
    assert np.allclose(several[1], jacobian(dynamics, 2 * x), rtol=1e-12, atol=1e-12)


def test_a_hardmax_has_no_derivative(rng):
    hard = AttentionDynamics(masks.causal(N), Weights(), kind=Hardmax())
    with pytest.raises(ValueError, match="the derivative of a layer: not known with kind=Hardmax"):
        jacobian(hard, rng.standard_normal((N, D)))
