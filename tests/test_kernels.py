"""Every kernel against its naive twin, compiled and as plain Python."""

import os
import subprocess
import sys
from pathlib import Path

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import masks, tokens
from dynsim.kernels import attention, graphs, tokenwise
from dynsim.layout import Ranges, compile_layout
from dynsim.weights import Gaussian, Identity, Weights

MASKS = {
    "complete": masks.complete,
    "causal": masks.causal,
    "banded": lambda n: masks.local(n, 2),
    "csr": masks.star,
}


def compiled(graph):
    """(kernel, mask arrays) for a mask, by its layout."""
    layout = compile_layout(graph)
    if isinstance(layout, Ranges):
        return attention.attend_ranges, (layout.lo, layout.hi)
    return attention.attend_rows, (layout.indptr, layout.indices)


def allowed(graph):
    layout = compile_layout(graph)
    out = np.zeros((layout.n_tokens,) * 2, bool)
    for i in range(layout.n_tokens):
        out[i, layout.row(i)] = True
    return out


@pytest.mark.parametrize("kind", MASKS)
@given(seed=st.integers(0, 2**16), heads=st.sampled_from([1, 2]), sigma=st.floats(0.1, 6.0))
def test_attention_matches_the_naive_twin(kind, seed, heads, sigma):
    n, d = 6, 4
    graph = MASKS[kind](n)
    attend, mask = compiled(graph)
    rng = np.random.default_rng(seed)
    layer = Weights(Gaussian(sigma), n_heads=heads, seed=seed).layer(0, d)
    layer = layer._replace(
        query_bias=rng.standard_normal(layer.query_bias.shape), output_bias=rng.standard_normal(d)
    )
    x = tokens.gaussian(2, n, d, seed)
    out, entropies = np.empty_like(x), np.empty(2)
    attend(x, *mask, layer, out, entropies)
    pairs = naive.heads_of(layer)
    for s in range(2):
        expected = naive.attend(x[s], pairs, allowed(graph), layer.output_bias)
        assert np.allclose(out[s], expected, rtol=1e-12, atol=1e-12)
        matrices = [naive.attention_matrix(x[s], M, allowed(graph), x[s] @ u) for M, _, u in pairs]
        rows = [naive.entropy(row) for A in matrices for row in A]
        assert entropies[s] == pytest.approx(np.mean(rows), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("kind", MASKS)
def test_softmax_is_safe_for_scores_of_ten_thousand(kind):
    n = 5
    attend, mask = compiled(MASKS[kind](n))
    layer = Weights(Identity(), Identity()).layer(0, 2)
    x = np.array([[[100.0, 0.0], [-100.0, 0.0], [0.0, 100.0], [100.0, 1.0], [0.0, 0.0]]])
    out, entropies = np.empty_like(x), np.empty(1)
    attend(x, *mask, layer, out, entropies)
    expected = naive.attend(x[0], naive.heads_of(layer), allowed(MASKS[kind](n)))
    assert np.allclose(out[0], expected, rtol=1e-12, atol=1e-12)
    assert 0 <= entropies[0] <= np.log(n)


@pytest.mark.parametrize("kind", MASKS)
def test_float32_stays_float32_and_close(kind):
    n, d = 7, 4
    attend, mask = compiled(MASKS[kind](n))
    layer = Weights(Gaussian(2.0)).layer(0, d)
    x = tokens.gaussian(1, n, d)
    exact, rough = np.empty_like(x), np.empty(x.shape, np.float32)
    attend(x, *mask, layer, exact, np.empty(1))
    attend(x.astype(np.float32), *mask, layer.astype(np.float32), rough, np.empty(1))
    assert np.allclose(rough, exact, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**16), st.sampled_from(["gelu", "relu"]))
def test_perceptron_matches_the_naive_twin(seed, activation):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, 4))
    layer = [rng.standard_normal(shape) for shape in ((4, 6), (6,), (6, 4), (4,))]
    out = np.empty_like(x)
    tokenwise.perceptron(x, *layer, activation == "gelu", out)
    for s in range(2):
        expected = naive.perceptron(x[s], *layer, activation)
        assert np.allclose(out[s], expected, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 7), st.integers(0, 2**16), st.sampled_from([1e-200, 1.0, 1e150]))
def test_observe_matches_the_naive_twin_at_any_scale(n, seed, scale):
    x = np.random.default_rng(seed).standard_normal((2, n, 3))
    out = np.empty((5, 2))
    tokenwise.observe(x * scale, out)
    for s in range(2):
        norms = np.sqrt((x[s] ** 2).sum(axis=1))
        cosines = naive.cosines(x[s]) or [1.0]
        expected = [
            naive.mu(x[s]),
            np.mean(cosines),
            norms.min(),
            norms.max(),
            np.linalg.norm(x[s]),
        ]
        units = [scale, 1.0, scale, scale, scale]
        assert np.allclose(out[:, s] / units, expected, rtol=1e-11, atol=1e-13)


def test_observe_marks_what_is_not_finite():
    x = np.ones((3, 2, 2))
    x[1, 0, 1] = np.nan
    x[2, 1, 0] = np.inf
    out = np.empty((5, 3))
    tokenwise.observe(x, out)
    assert np.isfinite(out[:, 0]).all()
    assert np.isnan(out[:, 1:]).all()


@given(st.integers(1, 9), st.integers(0, 2**16))
def test_distances_match_relaxation(n, seed):
    mask = np.random.default_rng(seed).random((n, n)) < 0.3
    np.fill_diagonal(mask, True)
    out = compile_layout(masks.from_adjacency(mask.T)).attended_by.to_rows()
    expected = naive.reachable_in(mask)
    for v in range(n):
        found = graphs.distances_from(out.indptr, out.indices, v)
        assert np.array_equal(np.where(found < 0, np.inf, found), expected[v])


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="this is the plain run")
def test_kernels_pass_as_plain_python():
    """The same tests with compilation switched off: what is compiled is what is written."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", __file__],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("SKIPPED [1]") == 1
