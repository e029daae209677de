import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import norms


def pairs(gain, bias, eps):
    """Each norm beside the arguments of its naive twin."""
    return [
        (norms.NoNorm(), {"kind": "none"}),
        (norms.Unit(), {"kind": "unit"}),
        (norms.RMSNorm(gain, eps), {"kind": "rms", "gain": gain, "eps": eps}),
        (
            norms.LayerNorm(gain, bias, eps),
            {"kind": "layernorm", "gain": gain, "bias": bias, "eps": eps},
        ),
        (norms.DyT(0.7, gain, bias), {"kind": "dyt", "a": 0.7, "gain": gain, "bias": bias}),
        (
            norms.Derf(0.7, -0.2, gain, bias),
            {"kind": "derf", "a": 0.7, "s": -0.2, "gain": gain, "bias": bias},
        ),
    ]


@given(st.integers(2, 8), st.integers(0, 2**16), st.sampled_from([0.0, 1e-5, 0.3]))
def test_apply_matches_the_definition(d, seed, eps):
    rng = np.random.default_rng(seed)
    x, gain, bias = rng.standard_normal((2, 5, d)), rng.standard_normal(d), rng.standard_normal(d)
    for norm, definition in pairs(gain, bias, eps):
        expected = np.stack([naive.normalise(sample, **definition) for sample in x])
        assert np.allclose(norm.apply(x), expected, rtol=1e-12, atol=1e-13)


def test_agreement_with_torch(rng):
    import torch

    d = 7
    x = torch.from_numpy(rng.standard_normal((3, 4, d)))
    gain, bias = rng.standard_normal(d), rng.standard_normal(d)
    layer = torch.nn.LayerNorm(d, eps=1e-3, dtype=torch.float64)
    rms = torch.nn.RMSNorm(d, eps=1e-3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight[:], layer.bias[:] = torch.from_numpy(gain), torch.from_numpy(bias)
        rms.weight[:] = torch.from_numpy(gain)
        ours = norms.LayerNorm(gain, bias, 1e-3).apply(x.numpy())
        assert np.allclose(ours, layer(x).numpy(), rtol=1e-13, atol=1e-14)
        ours = norms.RMSNorm(gain, 1e-3).apply(x.numpy())
        assert np.allclose(ours, rms(x).numpy(), rtol=1e-13, atol=1e-14)


@given(st.integers(0, 2**16), st.floats(0.1, 10.0), st.floats(-5, 5))
def test_layernorm_forgets_scale_and_the_component_along_one(seed, scale, shift):
    """GUPTA: LN(s a + t 1) = LN(a) for s > 0 and eps = 0."""
    a = np.random.default_rng(seed).standard_normal((1, 6))
    norm = norms.LayerNorm(eps=0.0)
    assert np.allclose(norm.apply(scale * a + shift), norm.apply(a), atol=1e-9)


def test_rms_equals_layernorm_on_tokens_orthogonal_to_one(rng):
    a = rng.standard_normal((4, 6))
    a -= a.mean(axis=-1, keepdims=True)
    assert np.allclose(norms.RMSNorm(eps=1e-5).apply(a), norms.LayerNorm(eps=1e-5).apply(a))


def test_undefined_tokens_are_found():
    x = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 2.0]])
    assert list(norms.Unit().undefined(x)) == [False, True, False]
    assert list(norms.LayerNorm(eps=0.0).undefined(x)) == [True, True, False]
    assert not norms.LayerNorm().undefined(x).any()
    assert not norms.NoNorm().undefined(x).any()


def test_norms_are_values():
    gain = np.ones(3)
    norm = norms.LayerNorm(gain)
    gain[0] = 5  # the norm keeps a copy of its own
    assert norm == norms.LayerNorm(np.ones(3))
    assert hash(norm) == hash(norms.LayerNorm(np.ones(3)))
    assert norm != norms.LayerNorm(np.array([1.0, 1.0, 2.0]))
    assert norms.Unit() != norms.NoNorm()
    assert repr(norms.RMSNorm(eps=0.5)) == "RMSNorm(gain=1.0, eps=0.5)"


def test_bad_gains_are_refused():
    with pytest.raises(ValueError, match="one entry per dimension"):
        norms.LayerNorm(np.ones(3)).check(4)
    with pytest.raises(ValueError, match="not negative"):
        norms.RMSNorm(eps=-1.0).check(4)
    with pytest.raises(ValueError, match="finite"):
        norms.RMSNorm(gain=np.nan).check(4)


@pytest.mark.parametrize("scale", [1e-300, 1e-163, 1e155, 1e300])
def test_norms_work_at_any_scale(scale):
    x = np.array([[[3.0, 4.0, 0.0]]])
    for norm in (norms.Unit(), norms.RMSNorm(eps=0.0), norms.LayerNorm(eps=0.0)):
        assert np.allclose(norm.apply(x * scale), norm.apply(x), rtol=1e-14)


def test_a_constant_token_is_exactly_constant():
    """The mean of three times 0.1 is not 0.1; the token is constant all the same."""
    x = np.full((1, 1, 3), 0.1)
    norm = norms.LayerNorm(eps=0.0)
    assert norm.undefined(x).all()
    assert np.isnan(norm.apply(x)).all()
    assert not norms.LayerNorm().apply(x).any()
