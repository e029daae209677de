"""The torch engine against the definition, on every device here: `pytest tests/test_torch.py`."""

import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from dynsim import (  # noqa: E402
    AttentionDynamics,
    Overflow,
    Record,
    masks,
    measures,
    mlp,
    norms,
    simulate,
    tokens,
)
from dynsim.cli.run import main  # noqa: E402
from dynsim.engines import make_engine  # noqa: E402
from dynsim.engines.torch import TorchEngine, _observe  # noqa: E402
from dynsim.network.dynamics import PLACEMENTS  # noqa: E402
from dynsim.network.weights import (  # noqa: E402
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

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=no_gpu)])
VECTOR_NORM = norms.LayerNorm(gain=np.array([1.0, 2.0, 0.5, -1.0]), bias=0.1)


def both(dynamics, x, layers=3, device="cpu", budget=None):
    """What the torch engine gives, and the definition."""
    engine = make_engine("torch", dynamics, 1, device)
    engine.budget = budget or engine.budget
    exact = make_engine("reference", dynamics, 1)
    return [e.advance(x, 1, 1 + layers, entropy=True) for e in (engine, exact)]


def assert_agree(found, exact, rtol):
    size = np.abs(exact[0]).max()
    assert found[0].dtype == exact[0].dtype
    assert np.abs(found[0] - exact[0]).max() <= rtol * size
    assert np.allclose(found[1], exact[1], rtol=100 * rtol, atol=100 * rtol * size)
    assert np.allclose(found[2], exact[2], rtol=100 * rtol, atol=100 * rtol)


@on_each_device
@pytest.mark.parametrize("name", masks.MASKS)
@settings(max_examples=15)
@given(
    norm=st.sampled_from([norms.NoNorm(), norms.Unit(), norms.RMSNorm(), VECTOR_NORM]),
    placement=st.sampled_from(list(PLACEMENTS)),
    heads=st.sampled_from([1, 2]),
    value=st.sampled_from([Gaussian(), Orthogonal()]),
    skip=st.sampled_from([0.0, 0.6]),
    perceptron=st.sampled_from([mlp.NoMLP(), mlp.GaussianMLP(), mlp.GaussianMLP("relu")]),
    dtype=st.sampled_from([np.float64, np.float32]),
    seed=st.integers(0, 2**16),
)
def test_it_agrees_with_the_definition(
    device, name, norm, placement, heads, value, skip, perceptron, dtype, seed
):
    weights = Weights(value=value, n_heads=heads, seed=seed)
    dynamics = AttentionDynamics(masks.MASKS[name](7), weights, norm, placement, skip, perceptron)
    x = tokens.gaussian(2, 7, 4, seed).astype(dtype)
    assert_agree(*both(dynamics, x, device=device), rtol=5e3 * np.finfo(dtype).eps)


@on_each_device
@pytest.mark.parametrize("name", ["complete", "causal", "local", "bigbird", "block-sparse"])
def test_tiles_and_chunks_change_nothing(device, name):
    """600 tokens are several tiles, and a budget of a few tiles cuts samples, heads and tiles."""
    weights = Weights(n_heads=2, shared=True)
    dynamics = AttentionDynamics(
        masks.MASKS[name](600), weights, norms.Unit(), "peri", 0.5, mlp.GaussianMLP()
    )
    x = tokens.gaussian(2, 600, 8)
    assert_agree(*both(dynamics, x, 1, device), 1e-12)
    assert_agree(*both(dynamics, x, 1, device, budget=2**18), 1e-12)


@on_each_device
def test_factors_and_biases_of_given_layers(device, rng):
    d, heads, p, q = 6, 3, 2, 4
    shapes = [(heads, d, p), (heads, p), (heads, d, p), (heads, d, q), (heads, q, d), (d,)]
    layers = [LayerWeights(*(rng.standard_normal(s) for s in shapes)) for _ in range(4)]
    widths = [(d, 9), (9,), (9, d), (d,)]
    perceptron = mlp.FixedMLP(mlp.MLPWeights(*(rng.standard_normal(s) for s in widths)))
    dynamics = AttentionDynamics(
        masks.sinks(10), Layers(tuple(layers)), norms.LayerNorm(), "pre", 1.0, perceptron
    )
    assert_agree(*both(dynamics, tokens.gaussian(3, 10, d), device=device), 1e-12)


@on_each_device
@pytest.mark.parametrize("name", ["complete", "local", "star"])
def test_scores_of_ten_thousand(device, name):
    dynamics = AttentionDynamics(
        masks.MASKS[name](9), Fixed(1e4 * np.eye(4), np.eye(4)), norms.Unit()
    )
    found, exact = both(dynamics, tokens.sphere(2, 9, 4), 1, device)
    assert_agree(found, exact, 1e-11)
    assert np.isfinite(found[1]).all()


@on_each_device
def test_overflow_is_reported_as_ever(device):
    dynamics = AttentionDynamics(masks.complete(3), Weights(Zero(), Diagonal(1e10)))
    x0 = np.stack([np.zeros((3, 2)), np.ones((3, 2))])
    said = []
    for engine in ({"engine": "torch", "device": device}, {"engine": "reference"}):
        with pytest.raises(Overflow, match=r"sample 1 .* layer 31") as caught:
            simulate(dynamics, x0, 100, **engine)
        said.append(str(caught.value))
        assert caught.value.trajectory.depth == 30
        assert np.allclose(caught.value.trajectory.final[1], 1e300)
    assert said[0] == said[1]


@on_each_device
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_overflow_give_nan(device, sign):
    """Rows of scores that are all infinite, of either sign, in one sample of two."""
    dynamics = AttentionDynamics(masks.complete(3), Fixed(sign * np.eye(2), np.eye(2)))
    x = np.stack([np.ones((3, 2)), np.full((3, 2), 1e200)])
    with np.errstate(all="ignore"):
        found, exact = both(dynamics, x, 2, device)
    assert np.array_equal(np.isnan(found[1]), np.isnan(exact[1]))
    assert np.isnan(found[1][:, 1]).all()
    assert np.isfinite(found[1][:, 0]).all()


@on_each_device
@pytest.mark.parametrize("norm", [norms.Unit(), norms.LayerNorm(eps=0), norms.LayerNorm()])
def test_tokens_without_size_and_of_any_scale(device, norm):
    alone = AttentionDynamics(nx.DiGraph([(i, i) for i in range(4)]), Identity(), norm)
    x = np.array([[[0.0, 0.0], [1e-200, 3e-200], [1e200, -1e200], [0.3, 0.3]]])
    found, exact = both(alone, x, 1, device)
    assert np.allclose(found[0], exact[0], rtol=1e-14, equal_nan=True)
    assert np.array_equal(np.isnan(found[1]), np.isnan(exact[1]))


@on_each_device
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_measures_on_the_device_are_the_measures(device, scale):
    x = scale * tokens.gaussian(3, 8, 5)
    x[1] = 0
    alone = AttentionDynamics(nx.DiGraph([(i, i) for i in range(8)]), Identity())
    found, observed, _ = make_engine("torch", alone, 1, device).advance(x, 0, 1)
    assert np.array_equal(found, x)
    assert np.allclose(observed[..., 0], measures.observe(x), rtol=1e-13, atol=0)


@on_each_device
def test_equal_tokens_have_no_mu(device):
    n = 2000
    alone = AttentionDynamics(nx.DiGraph([(i, i) for i in range(n)]), Identity())
    x = np.tile([0.1, 0.3, 0.7], (1, n, 1))
    _, observed, _ = make_engine("torch", alone, 2, device).advance(x, 0, 2)
    assert not observed[measures.CHEAP.index("mu")].any()


@pytest.mark.parametrize("name", ["complete", "causal", "bigbird"])
@pytest.mark.parametrize("norm", [norms.Unit(), VECTOR_NORM])
def test_layers_stay_on_the_device(name, norm):
    """The meta device refuses what would mix devices or read a number back, as a GPU would wait."""
    dynamics = AttentionDynamics(
        masks.MASKS[name](600), Weights(n_heads=2), norm, "peri", 0.5, mlp.GaussianMLP()
    )
    engine = TorchEngine(dynamics, 1, torch.device("meta"))
    with engine._running():
        x = engine._tokens(tokens.gaussian(2, 600, 4))
        heads, perceptron = engine._weights(0, x)
        after = engine._layer(x, heads, perceptron)
        assert (after.device.type, after.shape, after.dtype) == ("meta", x.shape, x.dtype)
        assert _observe(after).shape == (len(measures.CHEAP), 2)
        assert engine._entropy(x, heads).shape == (2,)


class _Largest(TorchDispatchMode):
    """Remembers how many entries the largest tensor made had."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor):
                sparse = tensor.layout == torch.sparse_csr
                self.entries = max(self.entries, tensor._nnz() if sparse else tensor.numel())
        return made


@on_each_device
@pytest.mark.parametrize("name", ["local", "sinks"])
def test_long_sparse_masks_need_no_square_array(device, name):
    n, d = 20_000, 8
    dynamics = AttentionDynamics(masks.MASKS[name](n, window=4), Weights(), norms.Unit())
    x = tokens.sphere(1, n, d).astype(np.float32)
    engine = make_engine("torch", dynamics, 1, device)
    with _Largest() as largest:
        after, observed, _ = engine.advance(x, 0, 2)
    assert after.dtype == np.float32
    assert np.isfinite(observed).all()
    assert largest.entries < 10 * n * d


@on_each_device
def test_the_same_call_gives_the_same_bits(device):
    dynamics = AttentionDynamics(masks.bigbird(300), Weights(n_heads=2), norms.Unit())
    x0 = tokens.gaussian(4, 300, 8)
    kept = x0.copy()
    options = {"engine": "torch", "threads": 2, "device": device, "record": Record(measures=())}
    first, again = (simulate(dynamics, x0, 4, **options) for _ in range(2))
    assert first == again
    assert np.array_equal(x0, kept)
    assert first.provenance["device"].startswith(device)
    assert first.provenance["versions"]["torch"] == torch.__version__


def test_settings_of_torch_are_set_and_put_back():
    """Threads, and whole float32 products: bfloat16 ones have errors of a hundredth."""
    dynamics = AttentionDynamics(masks.complete(64), Weights(), norms.Unit())
    x = tokens.gaussian(2, 64, 64).astype(np.float32)
    threads = torch.get_num_threads()
    engine = make_engine("torch", dynamics, threads + 1, "cpu")
    plain, _, _ = engine.advance(x, 0, 1)
    torch.set_float32_matmul_precision("medium")
    try:
        assert np.array_equal(engine.advance(x, 0, 1)[0], plain)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_unknown_and_unavailable_devices_are_refused(capsys):
    dynamics, x0 = AttentionDynamics(masks.complete(4), Identity()), np.eye(4)
    with pytest.raises(ValueError, match=r"no device 'gpu' here; torch .* finds auto, cpu"):
        simulate(dynamics, x0, 1, engine="torch", device="gpu")
    for engine in ("numba", "reference"):
        with pytest.raises(ValueError, match=f"the {engine} engine runs on the CPU; use engine="):
            simulate(dynamics, x0, 1, engine=engine, device="cuda")
    assert main(["--engine", "torch", "--device", "cuda:99"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_mps_takes_float32():
    engine = make_engine("torch", AttentionDynamics(masks.complete(4), Identity()), 1, "cpu")
    engine._device = torch.device("mps")
    with pytest.raises(ValueError, match="mps has no float64; give float32"):
        engine.advance(np.ones((1, 4, 2)), 0, 1)


def test_without_torch_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "dynsim.engines.torch", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["--engine", "torch"]) == 2
    said = capsys.readouterr().err
    assert 'pip install "dynsim[torch]"' in said
    assert said.count("\n") == 1


def test_the_command_line_runs_it(tmp_path, capsys):
    options = f"--engine torch --device auto --depth 3 --no-figure --json --out {tmp_path}"
    assert main(options.split()) == 0
    assert '"engine": "torch", "device": "' in capsys.readouterr().out


def test_the_numba_engine_does_not_load_torch():
    code = (
        "import sys, dynsim; from dynsim.engines import make_engine; "
        "mask, W = dynsim.masks.complete(3), dynsim.weights.Identity(); "
        "make_engine('numba', dynsim.AttentionDynamics(mask, W), 1); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
