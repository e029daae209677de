"""Powers of t that defective eigenvalues bring, against Jordan blocks in exact arithmetic."""

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from dynsim import masks
from dynsim._spectra import bounded_eigenvalues, longest_chain, modes
from dynsim.masks.walk import lambda_2, transversal_eigenvalues, transversal_modes, uniform_walk


def largest_block(matrix, value) -> int:
    """The size of the largest Jordan block, by ranks of powers of fractions."""
    rest = sympy.Matrix(matrix) - value * sympy.eye(len(matrix))
    ranks, power = [len(matrix), rest.rank()], rest
    while ranks[-1] != ranks[-2]:
        power = power * rest
        ranks.append(power.rank())
    return len(ranks) - 2


def exact_walk(graph):
    rows = uniform_walk(graph).toarray() > 0
    return [[sympy.Rational(int(entry), int(row.sum())) for entry in row] for row in rows]


@given(st.integers(2, 6), st.integers(0, 2**16), st.booleans())
def test_powers_of_whole_numbers_against_exact_blocks(n, seed, shuffled):
    rng = np.random.default_rng(seed)
    matrix = np.triu(rng.integers(-1, 3, (n, n)), 1) * (rng.random((n, n)) < 0.7)
    matrix = matrix + np.diag(rng.choice([1, 1, -1, 2], n))
    if shuffled:
        order = rng.permutation(n)
        matrix = matrix[np.ix_(order, order)]
    for mode in modes(matrix.astype(float)):
        size = largest_block(matrix.tolist(), round(mode.value.real))
        assert size - 1 <= mode.power
        assert mode.at_most or mode.power == size - 1


@pytest.mark.parametrize("w", [1.0, -2.0])
def test_one_jordan_block_is_known_in_its_own_basis_only(w):
    jordan = w * np.eye(4) + np.diag([2.0, -3.0, 1.0], 1)
    (known,) = modes(jordan)
    assert (known.value, known.count, known.power, known.at_most) == (w, 4, 3, False)
    basis = np.random.default_rng(0).standard_normal((4, 4))
    (rounded,) = modes(basis @ jordan @ np.linalg.inv(basis))
    assert (rounded.count, rounded.power, rounded.at_most) == (4, 3, True)
    assert 1e-6 < abs(abs(rounded.value) - abs(w)) < rounded.error < 0.1


def test_equal_eigenvalues_that_are_not_defective_bring_no_power():
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    twice = turn @ np.diag([1.0, 1.0, 0.5, 0.5, 0.2]) @ turn.T
    for matrix in (np.eye(3), turn, twice, turn @ np.diag([1, 1, 1, 0, 0]) @ turn.T):
        assert {(mode.power, mode.at_most) for mode in modes(matrix)} == {(0, False)}


def test_blur_counts_with_the_condition_of_an_eigenvalue():
    """Balancing hides how far an entry of the size of the blur moves it."""
    matrix = np.array([[1.0, 1e4], [1e-6, 0.5]])
    size = np.linalg.norm(matrix, 2)
    values, errors = bounded_eigenvalues(matrix, blur=1e-12)
    moved = np.linalg.eigvals(matrix + np.array([[0.0, 0.0], [1e-12 * size, 0.0]]))
    distance = np.abs(np.sort(moved) - np.sort(values)).max()
    assert 0.1 * errors.max() < distance < 1.1 * errors.max()
    assert bounded_eigenvalues(matrix)[1].max() < 1e-14


def test_the_longest_chain_of_components():
    edges = ([0, 1, 0, 2], [1, 3, 2, 3])  # 0 -> 1 -> 3 and 0 -> 2 -> 3
    labels = np.arange(4)
    assert longest_chain(labels, edges, np.array([1, 2, 5, 1])) == 7
    assert longest_chain(labels, edges, np.array([0, 1, 1, 0])) == 1
    assert longest_chain(np.zeros(4, int), edges, np.array([3])) == 3


# --- lambda_2 -------------------------------------------------------------------------------------


def test_the_window_that_looks_one_way():
    found = lambda_2(masks.causal_local(5, 1))
    assert (found.value, found.power, found.at_most) == (0.5, 3, False)
    assert lambda_2(masks.causal_local(9, 2)).power == 0  # 1/2 once; 1/3 is the defective one
    (_, third) = transversal_modes(masks.causal_local(9, 2))
    assert (third.power, third.at_most) == (6, False)
    assert lambda_2(masks.causal_local(3000, 1)).power == 2998


def test_a_chain_of_blocks():
    """Blocks of two tokens that attend to their own block and to the one before: 1/2 each."""
    block = np.arange(8) // 2
    mask = (block[:, None] - block >= 0) & (block[:, None] - block <= 1)
    found = lambda_2(masks.from_array(mask))
    assert (found.value, found.power, found.at_most) == (0.5, 2, False)
    assert largest_block(exact_walk(masks.from_array(mask)), sympy.Rational(1, 2)) == 3


@given(st.integers(2, 6), st.integers(0, 2**16), st.floats(0.1, 0.7), st.booleans())
def test_the_power_of_lambda_2_against_exact_blocks(n, seed, density, loops):
    rng = np.random.default_rng(seed)
    mask = np.tril(rng.random((n, n)) < density) | (loops * np.eye(n, dtype=bool))
    mask[~mask.any(axis=1), 0] = True
    graph = masks.from_array(mask)
    found = lambda_2(graph)
    if found.value in (0.0, 1.0):
        assert found.power == 0
        return
    value = sympy.nsimplify(found.value, rational=True, tolerance=1e-12)
    size = largest_block(exact_walk(graph), value)
    assert size - 1 <= found.power
    assert found.at_most or size - 1 == found.power


def test_a_defective_eigenvalue_behind_a_simple_one_of_the_same_modulus():
    """(1 + i sqrt 3) / 4 is simple, -1/2 has one block of three, which it must not hide."""
    attended = [[1, 2], [3, 5], [3], [1, 5], [0, 5], [3, 4]]
    mask = np.array([np.isin(np.arange(6), row) for row in attended])
    graph = masks.from_array(mask)
    assert largest_block(exact_walk(graph), -sympy.Rational(1, 2)) == 3
    found = lambda_2(graph)
    assert found.value == pytest.approx(0.5, abs=1e-4)
    assert (found.power, found.at_most) == (2, True)
    assert found.error > 1e-6


def test_equal_rows_are_exact_wherever_the_tokens_stand():
    mask = np.zeros((5, 5), bool)
    mask[:, [0, 3]] = True
    found = lambda_2(masks.from_array(mask))
    assert (found.value, found.method) == (0.0, "exact")


def test_parts_that_never_meet_and_periodic_walks_have_no_powers():
    apart = np.kron(np.eye(2), np.ones((2, 2))).astype(bool)
    cycle = np.roll(np.eye(4, dtype=bool), 1, axis=1)
    for mask in (apart, cycle):
        found = lambda_2(masks.from_array(mask))
        assert found.value == pytest.approx(1.0, abs=1e-14)
        assert (found.power, found.at_most) == (0, False)


@pytest.mark.parametrize("graph", [masks.local(9, 2), masks.causal_local(7, 2), masks.sinks(8)])
def test_transversal_modes_are_the_transversal_eigenvalues(graph):
    found = transversal_modes(graph)
    moduli = np.sort(np.abs(transversal_eigenvalues(graph)))[::-1]
    assert sum(mode.count for mode in found) == len(moduli)
    assert abs(found[0].value) == pytest.approx(moduli[0], abs=1e-9)
    with pytest.raises(ValueError, match="2000 tokens at most"):
        transversal_modes(masks.causal(2001))
