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

from dynsim import masks
from dynsim.kernels import attention, graphs
from dynsim.layout import Ranges, compile_layout

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


def inputs(n, p, q, seed, scale):
    rng = np.random.default_rng(seed)
    query, key = scale * rng.standard_normal((2, n, p)), rng.standard_normal((2, n, p))
    return query, key, rng.standard_normal((2, n, q))


def run(kind, query, key, value):
    """The kernel's output and entropies."""
    kernel, mask = compiled(MASKS[kind](query.shape[1]))
    out, entropy = np.empty_like(value), np.empty(query.shape[:2])
    kernel(query, np.ascontiguousarray(key.swapaxes(1, 2)), value, *mask, out, entropy)
    return out, entropy


@pytest.mark.parametrize("kind", MASKS)
@given(
    st.integers(4, 8), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**16),
    st.floats(0.01, 20.0),
)  # fmt: skip
def test_attention_matches_the_naive_twin(kind, n, p, q, seed, scale):
    query, key, value = inputs(n, p, q, seed, scale)
    out, entropy = run(kind, query, key, value)
    mask = allowed(MASKS[kind](n))
    for b in range(2):
        rows = [naive.softmax_row(query[b, i] @ key[b].T, mask[i]) for i in range(n)]
        assert np.allclose(out[b], rows @ value[b], rtol=1e-12, atol=1e-13)
        assert np.allclose(entropy[b], [naive.entropy(row) for row in rows], atol=1e-12)


@pytest.mark.parametrize("kind", MASKS)
def test_softmax_is_safe_for_scores_of_ten_thousand(kind):
    key = np.array([[[100.0, 0.0], [-100.0, 0.0], [0.0, 100.0], [100.0, 1.0], [0.0, 0.0]]])
    out, entropy = run(kind, key, key, key)
    mask = allowed(MASKS[kind](5))
    rows = [naive.softmax_row(key[0, i] @ key[0].T, mask[i]) for i in range(5)]
    assert np.allclose(out[0], rows @ key[0], rtol=1e-12, atol=1e-12)
    assert np.all((entropy >= -1e-12) & (entropy <= np.log(5) + 1e-12))


@pytest.mark.parametrize("kind", MASKS)
def test_float32_stays_float32_and_close(kind):
    arrays = inputs(7, 4, 3, 0, 2.0)
    exact, _ = run(kind, *arrays)
    rough, _ = run(kind, *(array.astype(np.float32) for array in arrays))
    assert rough.dtype == np.float32
    assert np.allclose(rough, exact, rtol=1e-4, atol=1e-5)


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
