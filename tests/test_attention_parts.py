"""Positions, kinds of attention, QK-norm and schedules: the definition, and every engine, against
torch and plain loops written from the formulas."""

import itertools

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsim import AttentionDynamics, masks, mlp, norms
from dynsim.engines import make_engine
from dynsim.network.attention import (
    Hardmax,
    NoQKNorm,
    QKNorm,
    Sigmoid,
    Softmax,
    Softpick,
)
from dynsim.network.positions import (
    ALiBi,
    Decay,
    NoPosition,
    PowerDecay,
    RoPE,
    published_slopes,
)
from dynsim.network.schedules import Listed
from dynsim.network.weights import Layers, LayerWeights

POSITIONS_TRIED = {
    "none": NoPosition(), "alibi": ALiBi(), "slope": ALiBi(0.3), "slopes": ALiBi((0.7, 0.1)),
    "decay": Decay(0.8), "power": PowerDecay(1.5), "rope": RoPE(), "slow rope": RoPE(3.0),
}  # fmt: skip
KINDS_TRIED = {
    "softmax": Softmax(), "sink": Softmax(0.4), "sinks": Softmax((-1.0, 2.0)),
    "sigmoid": Sigmoid(), "softpick": Softpick(), "eps": Softpick(0.3), "hardmax": Hardmax(),
}  # fmt: skip
QK_NORMS_TRIED = {
    "none": NoQKNorm(), "unit": QKNorm(3.0), "rms": QKNorm(1.2, "rms", eps=1e-3),
    "gains": QKNorm((1.0, -2.0, 0.5, 1.5), "rms", key_gain=(1.0, 2.0, 0.5, -1.0)),
    "schedule": QKNorm(Listed((5.0, 2.0, 1.0, 0.5))), "eps": QKNorm(2.0, eps=0.1),
}  # fmt: skip
COMPILED_KINDS = ["softmax", "sink", "sinks"]


def thin_layer(rng, d=6, heads=2, p=4, v=3):
    """Heads with query biases, thin keys and values, and an output bias."""
    draw = rng.standard_normal
    return LayerWeights(
        draw((heads, d, p)), draw((heads, p)), draw((heads, d, p)) / d**0.5,
        draw((heads, d, v)) / d**0.5, draw((heads, v, d)), draw(d),
    )  # fmt: skip


def written_out(dynamics, x, t=0):
    """Attention's output (N, d) by loops over heads and tokens (`naive.attend_with_parts`)."""
    layer, position, kind = dynamics.weights.layer(t, x.shape[1]), dynamics.position, dynamics.kind
    qk_norm = dynamics.qk_norm
    slopes = {ALiBi: "slopes", Decay: "rate", PowerDecay: "power", RoPE: "base"}
    number = getattr(position, slopes[type(position)]) if type(position) in slopes else None
    if isinstance(position, ALiBi) and number is None:
        number = published_slopes(len(layer.query))
    settings = {}
    if isinstance(qk_norm, QKNorm):
        gain = qk_norm.gain.at(t) if isinstance(qk_norm.gain, Listed) else qk_norm.gain
        settings = {"kind": qk_norm.kind, "gain": gain, "key_gain": qk_norm.key_gain,
                    "eps": qk_norm.eps}  # fmt: skip
    return naive.attend_with_parts(
        x, layer, dynamics.allowed(), (type(position).__name__, number),
        (type(kind).__name__, getattr(kind, "sink", getattr(kind, "eps", None))), settings,
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS_TRIED)
@pytest.mark.parametrize("position", POSITIONS_TRIED)
def test_the_definition_is_the_formulas(position, kind, rng):
    for n, mask, qk_norm in itertools.product(
        (1, 5), (masks.complete, masks.causal, masks.ring), QK_NORMS_TRIED.values()
    ):
        dynamics = AttentionDynamics(
            mask(n), Layers((thin_layer(rng),)), position=POSITIONS_TRIED[position],
            kind=KINDS_TRIED[kind], qk_norm=qk_norm,
        )  # fmt: skip
        x = rng.standard_normal((n, 6))
        expected = written_out(dynamics, x, 1)
        assert np.allclose(dynamics.step(x, 1), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("position", POSITIONS_TRIED)
@pytest.mark.parametrize("name", ["complete", "causal", "local", "bigbird"])
@settings(max_examples=12)
@given(
    kind=st.sampled_from(list(KINDS_TRIED)), qk_norm=st.sampled_from(list(QK_NORMS_TRIED)),
    placement=st.sampled_from(["post", "pre"]), dtype=st.sampled_from([np.float64, np.float32]),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_torch_agrees_with_the_definition(position, name, kind, qk_norm, placement, dtype, seed):
    pytest.importorskip("torch")
    if kind == "hardmax" and dtype == np.float32:
        return  # ties are decided by rounding
    rng = np.random.default_rng(seed)
    dynamics = AttentionDynamics(
        masks.MASKS[name](7), Layers((thin_layer(rng),)), norms.Unit(), placement, 0.5,
        mlp.GaussianMLP(), position=POSITIONS_TRIED[position], kind=KINDS_TRIED[kind],
        qk_norm=QK_NORMS_TRIED[qk_norm],
    )  # fmt: skip
    x = rng.standard_normal((2, 7, 6)).astype(dtype)
    found, exact = (
        make_engine(engine, dynamics, 1).advance(x, 1, 4, entropy=True)
        for engine in ("torch", "reference")
    )
    eps = np.finfo(dtype).eps
    assert found[0].dtype == dtype
    assert np.abs(found[0] - exact[0]).max() <= 5e3 * eps * np.abs(exact[0]).max()
    assert np.allclose(found[2], exact[2], rtol=1e5 * eps, atol=1e5 * eps)
