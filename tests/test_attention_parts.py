"""Positions, kinds of attention, QK-norm and schedules: the definition, and every engine, against
torch and plain loops written from the formulas."""

import itertools
from dataclasses import replace

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsim import AttentionDynamics, masks, mlp, norms, tokens, weights
from dynsim.engines import make_engine
from dynsim.engines.kernel_inputs import stacked
from dynsim.engines.lanes import Lanes
from dynsim.engines.rows import Rows
from dynsim.kernels.record import Scratch
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
from dynsim.network.schedules import Constant, Linear, Listed
from dynsim.network.weights import Layers, LayerWeights, Sharpened, Weights

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


@pytest.mark.parametrize("carrier", [Lanes, Rows])
@pytest.mark.parametrize("mask", [masks.complete, masks.causal, masks.local, masks.star])
@settings(max_examples=30)
@given(
    n=st.integers(1, 11), heads=st.integers(1, 3), half=st.integers(1, 5), v=st.integers(1, 3),
    position=st.sampled_from(["none", "alibi", "slope", "power", "rope", "slow rope"]),
    sink=st.sampled_from([None, -1.5, 3.0, 800.0]),
    qk_norm=st.sampled_from(["none", "unit", "rms", "eps"]), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_kernels_match_their_naive_twins(
    carrier, mask, n, heads, half, v, position, sink, qk_norm, seed
):
    rng = np.random.default_rng(seed)
    layers = [thin_layer(rng, 5, heads, 2 * half, v) for _ in range(2)]
    dynamics = AttentionDynamics(
        mask(n), Layers(tuple(layers)), position=POSITIONS_TRIED[position], kind=Softmax(sink),
        qk_norm=QK_NORMS_TRIED[qk_norm],
    )  # fmt: skip
    x = rng.standard_normal((3, n, 5))
    ready = carrier(dynamics, stacked(layers), dynamics.norm, n, 5, Scratch())
    out, _, entropy = ready.advance(
        x, 2, 1, lambda work, jobs: [list(work(job)) for job in jobs], True
    )
    for s in range(3):
        expected = written_out(dynamics, written_out(dynamics, x[s], 0), 1)
        size = 1.0 + np.abs(expected).max()
        assert np.allclose(out[s], expected, rtol=1e-9, atol=1e-11 * size)
        rows = dynamics.attention(x[s]).reshape(-1, n)
        assert np.isclose(entropy[s], np.mean([naive.entropy(row) for row in rows]), atol=1e-11)


@pytest.mark.parametrize("size", [(6, 5), (64, 40)])
def test_bits_do_not_depend_on_samples_or_threads(size, rng):
    n, d = size
    dynamics = AttentionDynamics(
        masks.causal(n), Weights(n_heads=d // 5, shared=True), norms.Unit(), position=ALiBi(),
        kind=Softmax(0.5), qk_norm=QKNorm(2.0),
    )  # fmt: skip
    x = rng.standard_normal((5, n, d))
    alone = make_engine("numba", dynamics, 1).advance(x[2:3], 0, 3)[0]
    assert np.array_equal(make_engine("numba", dynamics, 3).advance(x, 0, 3)[0][2:3], alone)


@pytest.mark.parametrize("size", [1e-200, 1e200])
@pytest.mark.parametrize("n", [4, 300])
def test_queries_of_any_size_are_normalised(size, n, rng):
    """Squares that leave the range of numbers."""
    layer = thin_layer(rng)
    layer = layer._replace(
        query=size * layer.query, query_bias=size * layer.query_bias, key=layer.key / size
    )
    given = {"mask": masks.causal(n), "qk_norm": QKNorm(2.0), "norm": norms.Unit()}
    x = tokens.sphere(2, n, 6)
    found = [
        make_engine(engine, AttentionDynamics(weights=Layers((these,)), **given), 1)
        .advance(x, 0, 1)[0]
        for engine in ("numba", "torch", "reference")
        for these in (layer, layer._replace(query=layer.query / size,
                                            query_bias=layer.query_bias / size,
                                            key=layer.key * size))
    ]  # fmt: skip
    assert all(np.allclose(one, found[-1], rtol=1e-12, atol=1e-13) for one in found)


# --- what nothing may change ------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numba", "reference"])
def test_positions_that_change_nothing_have_the_bits_of_none(engine, rng):
    """Slopes 0, decay 1 and a schedule of ones: the definition adds zeros."""
    plain = AttentionDynamics(masks.causal(5), Weights(n_heads=2, shared=True), norms.Unit())
    x = rng.standard_normal((2, 5, 4))
    expected = make_engine(engine, plain, 1).advance(x, 0, 2)[0]
    for part in ({"position": ALiBi(0.0)}, {"position": Decay(1.0)},
                 {"weights": Sharpened(plain.weights, Constant(1.0))}):  # fmt: skip
        same = make_engine(engine, replace(plain, **part), 1).advance(x, 0, 2)[0]
        assert np.array_equal(same, expected)


def test_a_sink_far_below_the_scores_takes_nothing(rng):
    plain = AttentionDynamics(masks.causal(5), Weights(), norms.Unit())
    x = rng.standard_normal((5, 4))
    assert np.array_equal(replace(plain, kind=Softmax(-1e4)).step(x), plain.step(x))
    rows = replace(plain, kind=Softmax(1.0)).attention(x).sum(axis=-1)
    assert np.all((rows > 0) & (rows < 1))


def test_rotary_scores_depend_on_the_offset_alone(rng):
    layer = thin_layer(rng)._replace(query_bias=np.zeros((2, 4)))
    dynamics = AttentionDynamics(masks.complete(6), Layers((layer,)), position=RoPE(10.0))
    scores = dynamics.scores_of(np.tile(rng.standard_normal(6), (6, 1)), layer)
    for offset in range(-5, 6):
        along = np.diagonal(scores, offset, axis1=1, axis2=2)
        assert np.allclose(along, along[:, :1], rtol=1e-12, atol=1e-12)


def test_scores_under_qk_norm_are_bounded_by_the_gain(rng):
    dynamics = AttentionDynamics(masks.complete(6), Weights(n_heads=2), qk_norm=QKNorm(1.5))
    x = 1e3 * rng.standard_normal((6, 8))
    scores = dynamics.scores_of(*dynamics.attention_input(x, 0))
    assert np.abs(scores).max() <= 1.5 * (1 + 1e-12)


# --- schedules ------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["numba", "torch", "reference", "logscale"])
def test_a_schedule_multiplies_the_scores_of_each_layer(engine, rng):
    base = Weights(n_heads=2, shared=True, seed=3)
    cooled = AttentionDynamics(masks.causal(6), Sharpened(base, Linear(0.5, 4.0, 4)), norms.Unit())
    assert not cooled.is_constant
    x = y = rng.standard_normal((2, 6, 4))
    found = make_engine(engine, cooled, 1)
    found = found.tokens(found.advance(found.begin(x), 0, 5)[0])
    for beta in (0.5, 0.5 + 3.5 / 3, 0.5 + 7 / 3, 4.0, 4.0):
        one = AttentionDynamics(masks.causal(6), replace(base, beta=beta), norms.Unit())
        y = np.stack([one.step(sample) for sample in y])
    assert np.allclose(found, y, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("make", [
    lambda: Linear(1.0, 2.0, 1), lambda: Linear(np.nan, 2.0, 4), lambda: Listed(()),
    lambda: Sharpened(Weights(), -1.0), lambda: Sharpened(Weights(), Listed((1.0, -0.1))),
    lambda: Sharpened(weights.Gaussian(), 1.0),
    lambda: Sharpened(weights.Layers((thin_layer(np.random.default_rng(0)),) * 2),
                      Listed((1.0, 2.0, 3.0))),
])  # fmt: skip
def test_bad_schedules_are_refused(make):
    with pytest.raises(ValueError, match=r"\w"):
        make()


def test_kernels_that_hold_functions_of_one_name_go_together():
    """Each calls its own, as kernels with and without parts have to, once loaded from disk."""
    import llvmlite.binding as llvm

    from dynsim.kernels import library

    def kernel(name, number):
        source = f"""
            define linkonce_odr i64 @helper() noinline {{ ret i64 {number} }}
            define void @{name}(ptr %to) {{
              %value = call i64 @helper()
              store i64 %value, ptr %to
              ret void
            }}"""
        library._machine()  # sets LLVM up
        module = library._alone(name, llvm.parse_assembly(source))
        return library._loaded(library._code(name, module))

    found = np.zeros(2, np.int64)
    for k, run in enumerate([kernel("first", 1), kernel("second", 2)]):
        run(found[k:].ctypes.data)
    assert found.tolist() == [1, 2]
