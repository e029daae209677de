"""Every kernel against its naive twin."""

import math
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpmath
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import AttentionDynamics, masks, measures, norms
from dynsim.engines import compiled
from dynsim.engines.kernel_inputs import in_panels, padded, stacked
from dynsim.engines.lanes import Lanes
from dynsim.engines.rows import Rows
from dynsim.kernels import fields, library, processor, simd
from dynsim.kernels.library import Kernel
from dynsim.kernels.processor import vector_width
from dynsim.kernels.record import Arguments, Array, Record, Scratch, aligned
from dynsim.masks.connectivity import _distances
from dynsim.masks.networkx_view import compile_layout
from dynsim.network.residual import Residual
from dynsim.network.weights import Layers, LayerWeights

MASKS = {
    "complete": masks.complete,
    "causal": masks.causal,
    "banded": lambda n: masks.local(n, 2),
    "csr": masks.star,
}
CARRIERS = {"lanes": Lanes, "rows": Rows}
NORMS = {
    "none": (norms.NoNorm(), {}),
    "unit": (norms.Unit(), {}),
    "rms": (norms.RMSNorm(gain=0.7, eps=1e-3), {"gain": 0.7, "eps": 1e-3}),
    "layernorm": (
        norms.LayerNorm(gain=1.3, bias=0.2, eps=1e-6),
        {"gain": 1.3, "bias": 0.2, "eps": 1e-6},
    ),
    "dyt": (norms.DyT(0.8, gain=1.3, bias=0.2), {"a": 0.8, "gain": 1.3, "bias": 0.2}),
    "derf": (norms.Derf(0.8, s=-0.3, gain=0.6), {"a": 0.8, "s": -0.3, "gain": 0.6}),
}


def one_after_another(work, jobs):
    for job in jobs:
        list(work(job))


def at_once(work, jobs):
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: list(work(job)), jobs))


def random_layer(rng, d, heads, p, v, factored, scale=1.0):
    """A layer with every part: projections or identities, biases or none."""
    draw = rng.standard_normal
    if factored:
        return LayerWeights(
            scale * draw((heads, d, p)), draw((heads, p)), draw((heads, d, p)) / d**0.5,
            draw((heads, d, v)) / d**0.5, draw((heads, v, d)), draw(d),
        )  # fmt: skip
    return LayerWeights.from_matrices(
        scale * draw((heads, d, d)) / d**0.5, draw((heads, d, d)) / d**0.5
    )


def naive_layers(dynamics, x, layers, kind, settings):
    """The layers by the naive twins, and the states after each."""
    allowed, states = dynamics.allowed(), []
    for layer in layers:

        def attend(z, layer=layer):
            return naive.attend(z, naive.heads_of(layer), allowed, layer.output_bias)

        def norm(z):
            return naive.normalise(z, kind, **settings)

        x = naive.sublayer(x, attend, norm, dynamics.placement, *dynamics.residual.layer(0))
        states.append(x)
    return states


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("mask", MASKS)
@given(
    n=st.integers(4, 11), d=st.integers(2, 6), heads=st.integers(1, 3), p=st.integers(1, 3),
    v=st.integers(1, 3), factored=st.booleans(), norm=st.sampled_from(list(NORMS)),
    placement=st.sampled_from(["post", "pre", "peri", "ngpt"]),
    skip=st.sampled_from([0.0, 0.6, Residual(0.6, -0.4), Residual(0.0, 1.7)]),
    seed=st.integers(0, 2**16),
)  # fmt: skip
def test_kernels_match_their_naive_twins(
    carrier, mask, n, d, heads, p, v, factored, norm, placement, skip, seed
):
    rng = np.random.default_rng(seed)
    layers = [random_layer(rng, d, heads, p, v, factored) for _ in range(2)]
    rule, settings = NORMS[norm]
    dynamics = AttentionDynamics(MASKS[mask](n), Layers(tuple(layers)), rule, placement, skip)
    x = rng.standard_normal((3, n, d))
    out, observed, _ = CARRIERS[carrier](
        dynamics, stacked(layers), dynamics.norm, n, d, Scratch()
    ).advance(x, 2, 1, one_after_another)
    for s in range(3):
        states = naive_layers(dynamics, x[s], layers, norm, settings)
        size = max(np.abs(state).max() for state in states)
        assert np.allclose(out[s], states[-1], rtol=1e-10, atol=1e-11 * size)
        for t, state in enumerate(states):
            assert np.allclose(observed[0, s, t], naive.mu(state), rtol=1e-8, atol=1e-10 * size)
            assert np.allclose(observed[1, s, t], np.mean(naive.cosines(state)), atol=1e-9)
            sizes = np.sqrt(np.sum(state**2, axis=1))
            expected = [sizes.min(), sizes.max(), np.sqrt(np.sum(sizes**2))]
            assert np.allclose(observed[2:, s, t], expected, rtol=1e-9)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("mask", MASKS)
def test_entropy_is_that_of_the_attention_rows(carrier, mask, rng):
    n, d = 9, 5
    layer = random_layer(rng, d, 2, 3, 2, True)
    dynamics = AttentionDynamics(MASKS[mask](n), Layers((layer,)))
    x = rng.standard_normal((11, n, d))
    ready = CARRIERS[carrier](dynamics, stacked([layer]), dynamics.norm, n, d, Scratch())
    _, _, entropy = ready.advance(x, 3, 1, one_after_another, entropy=True)
    for s in range(11):
        rows = dynamics.attention(x[s]).reshape(-1, n)
        assert np.isclose(entropy[s], np.mean([naive.entropy(row) for row in rows]), atol=1e-12)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_narrow_vectors_have_the_bits_of_wide_ones(mask, dtype, rng):
    """One sample and many: other vectors, the same bits, in any number of calls."""
    n, d = 9, 5
    layer = random_layer(rng, d, 2, 2, 3, True).astype(dtype)
    dynamics = AttentionDynamics(MASKS[mask](n), Layers((layer,)), norms.LayerNorm(), "pre", 0.5)
    x = rng.standard_normal((9, n, d)).astype(dtype)
    together = compiled.CompiledEngine(dynamics, 1).advance(x, 0, 20, entropy=True)
    alone = compiled.CompiledEngine(dynamics, 1).advance(x[4:5], 0, 20, entropy=True)
    assert np.array_equal(alone[0][0], together[0][4])
    assert np.array_equal(alone[1][:, 0], together[1][:, 4])
    assert alone[2][0] == together[2][4]


@pytest.mark.parametrize("mask", [masks.causal(150), masks.local(150, 9), masks.star(150)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_team_gives_the_same_bits(mask, dtype, rng):
    layer = random_layer(rng, 20, 2, 7, 6, True, scale=0.3).astype(dtype)
    dynamics = AttentionDynamics(mask, Layers((layer,)), norms.LayerNorm(), "pre", 1.0)
    x = rng.standard_normal((2, 150, 20)).astype(dtype)
    ready = Rows(dynamics, stacked([layer]), dynamics.norm, 150, 20, Scratch())
    alone = ready.advance(x, 5, 1, one_after_another)
    for workers in (2, 3, 5):
        together = ready.advance(x, 5, workers, at_once)
        assert np.array_equal(together[0], alone[0])
        assert np.array_equal(together[1], alone[1])


@pytest.mark.parametrize("mask", [masks.causal(150), masks.local(150, 9), masks.complete(150)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_blocks_of_many_rows_give_the_same_bits(monkeypatch, mask, dtype, rng):
    layer = random_layer(rng, 20, 2, 7, 6, True, scale=0.3).astype(dtype)
    dynamics = AttentionDynamics(mask, Layers((layer,)), norms.LayerNorm(), "pre", 1.0)
    x = rng.standard_normal((2, 150, 20)).astype(dtype)
    found = []
    for many in (10**9, 0):
        monkeypatch.setattr("dynsim.kernels.fields._MANY", many)
        ready = Rows(dynamics, stacked([layer]), dynamics.norm, 150, 20, Scratch())
        found.append(ready.advance(x, 5, 2, at_once, entropy=True))
    for few_rows, many_rows in zip(*found, strict=True):
        assert np.array_equal(few_rows, many_rows)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("mask", MASKS)
def test_softmax_is_safe_for_scores_of_ten_thousand(carrier, mask):
    x = np.array([[[100.0, 0.0], [-100.0, 0.0], [0.0, 100.0], [100.0, 1.0], [0.0, 0.0]]])
    layer = LayerWeights.from_matrices(np.eye(2)[None], np.eye(2)[None])
    dynamics = AttentionDynamics(MASKS[mask](5), Layers((layer,)))
    out, _, _ = CARRIERS[carrier](
        dynamics, stacked([layer]), dynamics.norm, 5, 2, Scratch()
    ).advance(x, 1, 1, one_after_another)
    rows = [
        naive.softmax_row(x[0, i] @ x[0].T, allowed) for i, allowed in enumerate(dynamics.allowed())
    ]
    assert np.allclose(out[0], rows @ x[0], rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("size", [1e-200, 1e-160, 1.0, 1e160, 1e200])
def test_norms_and_measures_do_not_overflow_or_vanish(carrier, size, rng):
    n, d = 40, 5
    layer = LayerWeights.from_matrices(np.zeros((1, d, d)), np.eye(d)[None])
    x = rng.standard_normal((2, n, d))
    for norm in (norms.NoNorm(), norms.Unit()):
        dynamics = AttentionDynamics(masks.local(n, 3), Layers((layer,)), norm)
        ready = CARRIERS[carrier](dynamics, stacked([layer]), dynamics.norm, n, d, Scratch())
        out, observed, _ = ready.advance(size * x, 1, 1, one_after_another)
        expected = np.stack([dynamics.step(size * sample) for sample in x])
        assert np.allclose(out, expected, rtol=1e-13, atol=0)
        assert np.allclose(observed[..., 0], measures.observe(out), rtol=1e-12)


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_sample_that_is_not_finite_spoils_no_other(carrier, rng):
    n, d = 40, 3
    layer = LayerWeights.from_matrices(np.zeros((1, d, d)), 1e200 * np.eye(d)[None])
    dynamics = AttentionDynamics(masks.complete(n), Layers((layer,)))
    x = rng.standard_normal((3, n, d))
    x[0] *= 1e-300
    x[2] *= 1e-300
    ready = CARRIERS[carrier](dynamics, stacked([layer]), dynamics.norm, n, d, Scratch())
    _, observed, _ = ready.advance(x, 2, 1, one_after_another)
    assert np.all(np.isfinite(observed[:, [0, 2]]))
    assert np.all(np.isnan(observed[:, 1, 1]))


@pytest.mark.parametrize("limit", [0, 10**6], ids=["rows", "lanes"])
@pytest.mark.parametrize(("n", "d"), [(64, 64), (37, 5), (32, 16)])
def test_layers_may_be_handed_over_in_pieces(monkeypatch, limit, n, d, rng):
    """Also where a state fills its padded memory exactly."""
    monkeypatch.setattr(compiled, "LANES_UP_TO", limit)
    layer = random_layer(rng, d, 1, 3, 3, False)
    dynamics = AttentionDynamics(masks.causal(n), Layers((layer,)), norms.Unit())
    x = rng.standard_normal((3, n, d))
    kept = x.copy()
    engine = compiled.CompiledEngine(dynamics, 1)
    whole, _, _ = engine.advance(x, 0, 6)
    state = x
    for t in (0, 2, 4):
        before = state.copy()
        after, _, _ = engine.advance(state, t, t + 2)
        assert np.array_equal(state, before)
        state = after
    assert np.array_equal(state, whole)
    assert np.array_equal(x, kept)


@pytest.mark.parametrize("limit", [0, 10**6], ids=["rows", "lanes"])
@pytest.mark.parametrize("mask", [masks.local(37, 2), masks.star(37)], ids=["ranges", "lists"])
def test_an_engine_does_not_remember_what_was_lost(monkeypatch, limit, mask, rng):
    monkeypatch.setattr(compiled, "LANES_UP_TO", limit)
    layer = random_layer(rng, 5, 2, 3, 3, True)
    for placement in ("post", "pre"):
        dynamics = AttentionDynamics(mask, Layers((layer,)), norms.LayerNorm(), placement, 1.0)
        x = rng.standard_normal((9, 37, 5))
        used = compiled.CompiledEngine(dynamics, 2)
        lost, _, _ = used.advance(np.where(np.arange(37)[:, None] == 7, np.nan, x), 0, 3)
        assert np.isnan(lost).any()
        fresh = compiled.CompiledEngine(dynamics, 2)
        for found, expected in zip(used.advance(x, 0, 3), fresh.advance(x, 0, 3), strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_float32_stays_float32_and_close(carrier, mask, rng):
    n, d = 33, 18
    layer = random_layer(rng, d, 2, 5, 7, True, scale=0.2)
    dynamics = AttentionDynamics(MASKS[mask](n), Layers((layer,)), norms.LayerNorm(), "peri", 1.0)
    x = rng.standard_normal((17, n, d))
    exact, _, _ = CARRIERS[carrier](
        dynamics, stacked([layer]), dynamics.norm, n, d, Scratch()
    ).advance(x, 1, 1, one_after_another)
    single = CARRIERS[carrier](
        dynamics, stacked([layer.astype(np.float32)]), dynamics.norm, n, d, Scratch()
    )
    rough, observed, _ = single.advance(x.astype(np.float32), 1, 1, one_after_another)
    assert rough.dtype == np.float32
    assert np.allclose(rough, exact, rtol=1e-4, atol=2e-5)
    assert np.allclose(observed[..., 0], measures.observe(exact), rtol=1e-4, atol=1e-5)


def test_the_carrier_depends_on_the_size_of_a_state_alone(monkeypatch, rng):
    """Both carriers give what the definition gives, whichever serves."""
    n, d = 12, 6
    layer = random_layer(rng, d, 1, 3, 3, False)
    dynamics = AttentionDynamics(masks.causal(n), Layers((layer,)), norms.Unit())
    x = rng.standard_normal((2, n, d))
    found = []
    for limit in (0, 10**6):
        monkeypatch.setattr(compiled, "LANES_UP_TO", limit)
        found.append(compiled.CompiledEngine(dynamics, 1).advance(x, 0, 3)[0])
    assert np.allclose(*found, rtol=1e-12)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("samples", [1, 11])
def test_code_for_fixed_fields_gives_the_same_bits(monkeypatch, tmp_path, mask, samples, rng):
    n, d = 7, 3
    layer = random_layer(rng, d, 2, 2, 5, True)
    dynamics = AttentionDynamics(MASKS[mask](n), Layers((layer,)), norms.LayerNorm(), "peri", 0.3)
    x = rng.standard_normal((samples, n, d))

    def advanced():
        lanes = Lanes(dynamics, stacked([layer]), dynamics.norm, n, d, Scratch())
        return lanes.advance(x, 5, 1, one_after_another, entropy=True)

    made = []

    def special(*given):
        name, module = library_special(*given)
        made.append(str(module))
        return name, module

    expected, library_special = advanced(), library.special
    monkeypatch.setattr(library, "_WORTH_IT", -1.0)
    monkeypatch.setattr(library, "special", special)
    for _process in range(2):  # the second finds what the first has kept
        kernel = Kernel("lanes", "advance", fields.LANES, "layers start samples wanted")
        usual = kernel._place
        kernel._place = lambda *what, usual=usual: (
            tmp_path / "special.kernel" if what[2:] else usual(*what)
        )
        monkeypatch.setattr("dynsim.engines.lanes._advance", kernel)
        for _ in range(2):
            for found, wanted in zip(advanced(), expected, strict=True):
                assert np.array_equal(found, wanted)
            assert len(kernel._functions) == 2  # the code for any fields, and that for these
        monkeypatch.setattr(library, "_WORTH_IT", np.inf)
        monkeypatch.setattr(library, "_WORTH_A_LOOK", 0.0)
        monkeypatch.setattr(library, "special", None)
    (source,) = made
    assert "alloca" not in source  # no field is read from the record: all of it is written out


# --- vectors --------------------------------------------------------------------------------------


VECTORS = Record("size", x=Array(lambda r: r.size), out=Array(lambda r: r.size))


class Own(Kernel):
    """A kernel of this file, of x and out, kept nowhere."""

    def __init__(self, function, record=VECTORS):
        super().__init__("none", function.__name__, record)
        self._source = lambda: function
        self._place = lambda real, w: None

    def of(self, x, w, **sizes):
        """What it makes of x."""
        out = np.empty_like(x)
        self(Arguments(self.record, x.dtype, w, x=x, out=out, **sizes))
        return out


@Own
def exponentials(r):
    for e in range(0, r.size, simd.width(r.x)):
        simd.store(r.out, e, simd.exp(simd.load(r.x, e)))


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float64, -708.0), (np.float32, -87.0)])
def test_exp_is_accurate_to_an_ulp(dtype, lowest, rng):
    x = np.concatenate([rng.uniform(lowest, 0, 2048), -(10.0 ** rng.uniform(-12, 0, 2048))])
    x = x.astype(dtype)
    found = exponentials.of(x, vector_width(8 * x.itemsize), size=x.size)
    with mpmath.workdps(40):
        worst = max(
            abs(mpmath.mpf(float(f)) / mpmath.exp(mpmath.mpf(float(a))) - 1)
            for a, f in zip(x, found, strict=True)
        )
    assert worst < 1.2 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_exp_at_its_ends(dtype):
    x = np.zeros(64, dtype)
    x[:5] = 0.0, -1e4, -np.inf, np.nan, -0.0
    found = exponentials.of(x, vector_width(8 * x.itemsize), size=x.size)
    assert np.array_equal(found[:5], [1, 0, 0, math.nan, 1], equal_nan=True)


@Own
def transposed(r):
    n = simd.width(r.x)
    simd.transpose(r.x, n, r.out, n)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_transpose(dtype, rng):
    n = vector_width(8 * np.dtype(dtype).itemsize)
    x = rng.standard_normal((n, n)).astype(dtype)
    assert np.array_equal(transposed.of(x, n, size=n * n), x.T)


@Own
def reductions(r):
    w = simd.width(r.x)
    simd.store(r.out, 0, simd.total(simd.load(r.x, 0)))
    simd.store(r.out, w, simd.largest(simd.load(r.x, 0)))
    simd.store(r.out, 2 * w, simd.log(simd.load(r.x, w)))


@pytest.mark.parametrize("w", [2, 4, 8])
def test_reductions_are_in_every_lane(w, rng):
    x = np.abs(rng.standard_normal((3, w)))
    x[1, 0] = 0.0
    total, largest, logs = reductions.of(x, w, size=3 * w)
    assert np.ptp(total) == 0
    assert np.allclose(total, x[0].sum(), rtol=1e-15)
    assert np.all(largest == x[0].max())
    with np.errstate(divide="ignore"):
        assert np.allclose(logs, np.log(x[1]), rtol=1e-15)


# --- records --------------------------------------------------------------------------------------


def test_arguments_are_checked_before_a_pointer_is_passed(rng):
    x, w = rng.standard_normal(64), vector_width(64)
    given = Arguments(VECTORS, np.float64, w, size=64, x=x, out=np.empty(64))
    exponentials(given)
    given.set(size=65)
    with pytest.raises(ValueError, match="the kernel's array x holds fewer than 65 numbers"):
        exponentials(given)
    with pytest.raises(ValueError, match="array out holds fewer"):
        exponentials(Arguments(VECTORS, np.float64, w, size=64, x=x))
    with pytest.raises(ValueError, match="contiguous arrays, x of float64"):
        given.set(x=rng.standard_normal((64, 2))[:, 0])
    with pytest.raises(ValueError, match="contiguous arrays, x of float64; got float32"):
        given.set(x=x.astype(np.float32))
    with pytest.raises(ValueError, match="all its sizes and settings; \\['size'\\] lack"):
        Arguments(VECTORS, np.float64, w)


def test_copies_of_arguments_are_apart(rng):
    x = rng.standard_normal(8)
    given = Arguments(VECTORS, np.float64, 2, size=8, x=x, out=np.empty(8))
    other = given.copy()
    other.set(size=4, out=np.empty(4))
    exponentials(given)
    exponentials(other)
    assert np.array_equal(given.arrays["out"][:4], other.arrays["out"])


@Own
def raising(r):
    for _ in range(0, 8, r.size):  # a step of 0 is an error
        simd.store(r.out, 0, simd.load(r.x, 0))


def test_a_kernel_that_could_raise_is_refused(rng):
    """An exception would be reported by functions of Numba that need not be there."""
    with pytest.raises(SystemError, match="the kernel raising can raise an exception"):
        raising.of(rng.standard_normal(8), 2, size=8)


def test_packing(rng):
    x = rng.standard_normal((2, 3, 5))
    panels = in_panels(x, 4)
    assert panels.shape == (2, 2, 3, 4)
    assert np.array_equal(panels[:, 1, :, 0], x[:, :, 4])
    assert not panels[:, 1, :, 1:].any()
    assert panels.ctypes.data % 64 == aligned((3, 3), np.float32).ctypes.data % 64 == 0
    assert padded(x, 5).shape == x.shape


# --- graphs ---------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(0, 2**16))
def test_distances_match_relaxation(n, seed):
    mask = np.random.default_rng(seed).random((n, n)) < 0.3
    np.fill_diagonal(mask, True)
    out = compile_layout(masks.from_array(mask)).attended_by.to_rows()
    expected = naive.reachable_in(mask)
    for v in range(n):
        found = _distances(out, v)
        assert np.array_equal(np.where(found < 0, np.inf, found), expected[v])


# --- the compile cache ----------------------------------------------------------------------------

PROGRAM = """
import sys, warnings
{before}
from dynsim import masks, connectivity
warnings.simplefilter("always")
for _ in range(2):
    connectivity.radius(masks.ring(12))
print("numba" in sys.modules)
"""


def needed_numba(environment, before=""):
    """Whether a new process had to compile, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip() == "True", done.stderr


def test_kernels_are_compiled_once_and_kept(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert needed_numba(environment) == (True, "")
    assert needed_numba(environment) == (False, "")
    stale = "from dynsim.kernels import cache; cache._environment = lambda: 'another version'"
    assert needed_numba(environment, stale) == (True, "")
    # another processor on the same disk compiles its own, and both are kept
    other = environment | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert needed_numba(other) == (True, "")
    assert needed_numba(other) == (False, "")
    assert needed_numba(environment) == (False, "")


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
"""


@pytest.mark.parametrize("harm", ["nowhere to write", "a full disk"])
def test_without_a_cache_kernels_still_work_and_say_so_once(tmp_path, harm):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    if harm == "nowhere to write":  # a file where the folder should be: even root cannot write
        (tmp_path / "dynsim").write_text("")
    compiled, said = needed_numba(environment, FULL if harm == "a full disk" else "")
    assert compiled
    assert said.count("RuntimeWarning: compiled kernels cannot be kept") == 1
    assert "set NUMBA_CACHE_DIR" in said
    if harm == "a full disk":
        assert "File too large" in said
        assert os.listdir(tmp_path / "dynsim") == []


@pytest.fixture
def kept(tmp_path):
    """The environment of a process that finds a kernel of its own on disk, and that file."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert needed_numba(environment) == (True, "")
    (file,) = tmp_path.rglob("*.kernel")
    return environment, file


def test_a_damaged_kernel_is_made_anew_and_kept(kept):
    environment, file = kept
    for content in (file.read_bytes()[:-1], b""):
        file.write_bytes(content)
        compiled, said = needed_numba(environment)
        assert compiled
        assert said.count("RuntimeWarning: a kept kernel is damaged and made anew") == 1
        assert "cannot be kept" not in said
        assert needed_numba(environment) == (False, "")


def foreign(place):
    try:
        os.chown(place, 12345, -1)
    except PermissionError:
        pytest.skip("only root gives files away")


#: What lets another user put code where it would be run, and what is said of it.
OPEN_DOORS = {
    "group": (lambda place: place.chmod(place.stat().st_mode | 0o020), "written by other users"),
    "others": (lambda place: place.chmod(place.stat().st_mode | 0o002), "written by other users"),
    "owner": (foreign, "belongs to another user"),
}


@pytest.mark.parametrize("door", OPEN_DOORS)
def test_code_that_another_user_could_have_put_there_is_not_run(kept, door):
    environment, file = kept
    opened, words = OPEN_DOORS[door]
    opened(file)
    compiled, said = needed_numba(environment)
    assert compiled
    assert said.count("RuntimeWarning: a kept kernel is not used but made anew") == 1
    assert words in said
    assert "cannot be kept" not in said
    assert needed_numba(environment) == (False, "")  # the new file is ours
    opened(file.parent)
    for _ in range(2):  # the folder stays as it is, and so nothing is kept
        compiled, said = needed_numba(environment)
        assert compiled
        assert said.count("RuntimeWarning: compiled kernels cannot be kept") == 1
        assert words in said


def test_the_folder_of_kept_kernels_is_made_for_its_owner_alone(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)  # as /tmp
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "shared")}
    assert needed_numba(environment, "import os\nos.umask(0)") == (True, "")
    folder = tmp_path / "shared" / "dynsim"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    assert needed_numba(environment) == (False, "")


@pytest.mark.parametrize("features", ["+avx,+avx2,+fma", ""])
def test_kernels_for_other_processors_compute_the_same(features, tmp_path):
    """AVX2, and vectors of 16 bytes as on NEON: other tiles, panels and blocks."""
    here = os.environ.get("NUMBA_CPU_FEATURES", None)
    if here is not None or not processor.FEATURES:
        pytest.skip("this is the run for another processor")
    if not set(filter(None, features.split(","))) <= set(processor.FEATURES.split(",")):
        pytest.skip("this processor cannot run that code")
    name = "haswell" if features else "x86-64" if platform.machine() == "x86_64" else "generic"
    other = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k",
         "naive or team or overflow or float32 or transpose or exp_is"],
        env=os.environ | other | {"NUMBA_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
