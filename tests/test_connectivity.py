import math
import tracemalloc
from functools import cache

import mpmath
import naive
import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import connectivity, masks
from dynsim.masks import walk as walk_module
from dynsim.masks.connectivity import (
    center_nodes,
    diameter,
    facts,
    is_quasi_strongly_connected,
    is_strongly_connected,
    lambda_2,
    radius,
    uniform_walk,
)


def random_graph(n, seed, density):
    rng = np.random.default_rng(seed)
    mask = rng.random((n, n)) < density
    np.fill_diagonal(mask, False)
    loops = rng.random(n) < 0.5
    np.fill_diagonal(mask, loops | ~mask.any(axis=1))  # nobody attends to nothing
    return mask, masks.from_array(mask)


@given(st.integers(1, 9), st.integers(0, 2**16), st.floats(0.05, 0.6))
def test_facts_of_random_graphs_match_relaxation(n, seed, density):
    mask, graph = random_graph(n, seed, density)
    distance = naive.reachable_in(mask)
    eccentricity = distance.max(axis=1)
    centers = np.flatnonzero(np.isfinite(eccentricity))
    assert list(center_nodes(graph)) == list(centers)
    assert is_quasi_strongly_connected(graph) == (len(centers) > 0)
    assert is_strongly_connected(graph) == (len(centers) == n)
    assert radius(graph) == (eccentricity.min() if len(centers) else math.inf)
    assert diameter(graph) == eccentricity.max()


@given(st.integers(2, 12), st.integers(0, 2**16), st.floats(0.05, 0.6), st.booleans())
def test_lambda_2_of_random_graphs_matches_dense_eigenvalues(n, seed, density, symmetric):
    mask, graph = random_graph(n, seed, density)
    if symmetric:
        mask = mask | mask.T
        graph = masks.from_array(mask)
    dense = np.sort(np.abs(np.linalg.eigvals(mask / mask.sum(axis=1, keepdims=True))))[-2]
    found = lambda_2(graph)
    # a defective eigenvalue of the whole matrix is off by about eps^(1/m); the blocks are not
    assert found.value == pytest.approx(dense, abs=1e-3)
    assert found.value == pytest.approx(dense, abs=max(1e-10, 1e3 * found.error)) or n > 3


@pytest.mark.parametrize("n", [2, 5, 12, 33])
def test_closed_forms(n):
    for window in (1, 2, 3):
        if window < n:
            assert radius(masks.local(n, window)) == math.ceil((n // 2) / window)
            assert radius(masks.causal_local(n, window)) == math.ceil((n - 1) / window)
            assert list(center_nodes(masks.causal_local(n, window))) == [0]
            assert len(center_nodes(masks.local(n, window))) == n
            assert lambda_2(masks.causal_local(n, window)).value == 0.5
    assert radius(masks.complete(n)) == radius(masks.causal(n)) == 1
    assert list(center_nodes(masks.causal(n))) == [0]
    assert lambda_2(masks.complete(n)).value == 0.0
    assert lambda_2(masks.causal(n)).value == 0.5
    assert lambda_2(masks.causal(n)).method == "exact"


def test_lambda_2_of_the_reference_window():
    """N = 128, sliding +-1: lambda_2 = .99980, computed independently beforehand."""
    assert lambda_2(masks.local(128, 1)).value == pytest.approx(0.99980, abs=5e-6)


def test_ring_matches_the_circulant_eigenvalue():
    n, w = 101, 3
    k = np.arange(-w, w + 1)
    exact = max(abs(np.exp(2j * np.pi * f * k / n).sum() / (2 * w + 1)) for f in range(1, n))
    assert lambda_2(masks.ring(n, w)).value == pytest.approx(exact, abs=1e-13)


@pytest.mark.parametrize("name", ["local", "ring", "sinks", "strided", "star", "bigbird"])
def test_the_sparse_solvers_agree_with_the_dense_one(name, monkeypatch):
    monkeypatch.setattr(walk_module, "DENSE_BLOCK", 150)
    graph = masks.MASKS[name](200)
    walk = uniform_walk(graph).toarray()
    dense = np.sort(np.abs(np.linalg.eigvals(walk)))[-2]
    found = lambda_2(graph)
    assert found.method in ("shift-invert", "Lanczos", "Arnoldi")
    assert found.value == pytest.approx(dense, abs=1e-9)


def test_a_walk_without_self_loops_may_have_its_second_modulus_below_zero():
    graph = masks.from_array(nx.to_numpy_array(nx.cycle_graph(600)))  # bipartite: -1
    assert lambda_2(graph).value == pytest.approx(1.0, abs=1e-12)
    assert facts(graph).self_loops is False


def test_parts_that_never_meet_have_lambda_2_one_and_no_center():
    found = facts(masks.dilated(600, dilation=2))
    assert found.lambda_2.value == pytest.approx(1.0, abs=1e-12)
    assert not found.quasi_strongly_connected
    assert found.to_dict()["radius"] is None


@pytest.mark.parametrize(("n", "window"), [(100_000, 1), (100_000, 8), (100_000, 5000)])
def test_facts_of_long_windows_are_exact_and_make_no_dense_matrix(n, window):
    tracemalloc.start()
    found = facts(masks.local(n, window))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * n**2 / 16
    assert found.radius == (math.ceil(n // 2 / window),) * 2
    assert found.diameter == (math.ceil((n - 1) / window),) * 2
    assert 0.9 < found.lambda_2.value < 1
    if window == 1:  # the walk is a reflected path: the gap is (2/3) (1 - cos(pi / N)) up to N^-3
        gap = 1 - found.lambda_2.value
        assert gap == pytest.approx((2 / 3) * (1 - math.cos(math.pi / n)), rel=1e-4)


@cache
def random_eccentricities(seed):
    mask, graph = random_graph(5 + seed, seed, (0.05, 0.1, 0.3)[seed % 3])
    return graph, naive.reachable_in(mask).max(axis=1)


@pytest.mark.parametrize("budget", [0, 100, 1000])
def test_bounds_are_reported_when_the_budget_is_spent(monkeypatch, budget):
    monkeypatch.setattr(connectivity, "SEARCH_BUDGET", budget)
    settled = 0
    for seed in range(60):
        graph, eccentricity = random_eccentricities(seed)
        found = facts(graph)
        assert found.radius[0] <= eccentricity.min() <= found.radius[1]
        assert found.diameter[0] <= eccentricity.max() <= found.diameter[1]
        settled += found.radius[0] == found.radius[1]
    assert 0 < settled < 60 or budget == 1000


@given(st.integers(2, 8), st.integers(0, 2**16), st.booleans())
def test_the_error_of_lambda_2_covers_it(n, seed, symmetric):
    """Against 40 digits; the error of a defective eigenvalue is large, not small."""
    mask, _ = random_graph(n, seed, 0.4)
    mask = mask | mask.T if symmetric else mask
    with mpmath.workdps(200):
        walk = mpmath.matrix(mask.astype(int).tolist())
        for i in range(n):
            walk[i, :] = walk[i, :] / int(mask[i].sum())
        moduli = sorted(abs(v) for v in mpmath.eig(walk, left=False, right=False))
    found = lambda_2(masks.from_array(mask))
    assert abs(found.value - moduli[-2]) <= max(found.error, 3e-16)


@given(st.integers(2, 10), st.integers(0, 2**16))
def test_relabelling_changes_no_fact(n, seed):
    mask, graph = random_graph(n, seed, 0.3)
    order = np.random.default_rng(seed).permutation(n)
    other = masks.from_array(mask[np.ix_(order, order)])
    assert radius(graph) == radius(other)
    assert diameter(graph) == diameter(other)
    assert sorted(center_nodes(graph)) == sorted(order[center_nodes(other)])


def test_uniform_walk_is_row_stochastic():
    assert np.allclose(uniform_walk(masks.sinks(30)).sum(axis=1), 1)


def test_a_ring_of_many_tokens_is_exact_at_once():
    found = facts(masks.ring(20_001, 2))
    assert found.radius == found.diameter == (5000.0, 5000.0)


def test_complete_without_self_loops_has_diameter_one():
    graph = masks.from_array(1 - np.eye(5))
    assert diameter(graph) == radius(graph) == 1
