"""Which keys can win: against HiGHS, exact rational arithmetic and closed forms."""

from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from dynsim import norms, selectability, set_threads
from dynsim.geometry.selectability import (
    margins,
    selectable,
    undecided,
    unselectable_fraction,
    witness,
)


def by_highs(keys, biases=None, gap=0.0, bound=None):
    """The largest t with q.(k_i - k_j) + b_i - b_j - gap >= t > 0 for all j, key by key."""
    n, d = keys.shape
    biases = np.zeros(n) if biases is None else biases
    free = bound is None
    found = []
    for i in range(n):
        others = np.delete(np.arange(n), i)
        slopes = np.column_stack([keys[others] - keys[i], np.ones(n - 1)])
        sides = biases[i] - biases[others] - gap
        limits = [(-1, 1) if free and gap == 0 and not biases.any() else (-bound, bound)] * d
        best = linprog(
            np.append(np.zeros(d), -1.0), A_ub=slopes, b_ub=sides, bounds=[*limits, (None, None)]
        )
        found.append(-best.fun)
    return np.array(found)


def corners(points):
    """Corners of the convex hull of distinct integer points in the plane, by Andrew's chain."""
    points = sorted(map(tuple, points.tolist()))

    def half(ordered):
        chain = []
        for p in ordered:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], p) <= 0:
                chain.pop()
            chain.append(p)
        return chain

    return set(half(points)) | set(half(points[::-1]))


def _turn(o, a, b):
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def exact_margin(keys, found):
    """`Witness.margin` in rational arithmetic; for weights the squared distance, their sum."""
    rational = [[Fraction(float(v)) for v in row] for row in keys]
    own = rational[found.key]
    if found.query is not None:
        q = [Fraction(float(v)) for v in found.query]
        return min(
            sum(a * (b - c) for a, b, c in zip(q, own, row, strict=True))
            for j, row in enumerate(rational)
            if j != found.key
        )
    w = [Fraction(float(v)) for v in found.weights]
    assert min(w) >= 0
    assert w[found.key] == 0
    off = [sum(a * row[c] for a, row in zip(w, rational, strict=True)) - own[c]
           for c in range(len(own))]  # fmt: skip
    return sum(v * v for v in off), sum(w)


@given(st.integers(1, 9), st.integers(2, 30), st.integers(0, 2**16))
def test_decisions_are_those_of_highs(d, n, seed):
    keys = np.random.default_rng(seed).standard_normal((n, d))
    assert np.array_equal(selectable(keys), by_highs(keys) > 1e-9)


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 2**16))
def test_lattice_keys_in_the_plane_are_decided_exactly(n, size, seed):
    """Many on edges, many equal: corners of the hull that occur once, and no others."""
    keys = np.random.default_rng(seed).integers(-size, size + 1, (n, 2))
    distinct, place, count = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    corner = corners(distinct)
    expected = [tuple(k.tolist()) in corner and count[place[i]] == 1 for i, k in enumerate(keys)]
    assert selectable(keys).tolist() == expected


@given(st.integers(1, 6), st.integers(2, 25), st.integers(0, 2**16), st.booleans())
def test_witnesses_hold_in_rational_arithmetic(d, n, seed, lattice):
    rng = np.random.default_rng(seed)
    keys = rng.integers(-2, 3, (n, d)) * 1.0 if lattice else rng.standard_normal((n, d))
    said = selectable(keys)
    for i in range(n):
        found = witness(keys, i)
        assert (found.query is not None) == said[i]
        assert (found.weights is None) == said[i]
        if said[i]:
            assert exact_margin(keys, found) > 0
        else:
            squared, total = exact_margin(keys, found)
            assert squared <= Fraction(1e-12 * np.abs(keys).max() * d) ** 2
            assert abs(total - 1) < Fraction(1e-14)
            assert np.count_nonzero(found.weights) <= d + 1


@given(st.integers(1, 5), st.integers(3, 15), st.integers(0, 2**16))
def test_biases_gaps_and_bounds_are_those_of_highs(d, n, seed):
    rng = np.random.default_rng(seed)
    keys, biases = rng.standard_normal((n, d)), rng.standard_normal(n)
    gap, bound = rng.uniform(0, 0.5), rng.uniform(0.1, 3)
    expected = by_highs(keys, biases, gap, bound) > 1e-9
    assert np.array_equal(selectable(keys, biases, gap=gap, bound=bound), expected)
    expected = by_highs(keys, biases, bound=1e6) > 1e-9
    assert np.array_equal(selectable(keys, biases), expected)
    assert np.array_equal(selectable(keys, np.ones(n)), selectable(keys))
    assert np.array_equal(selectable(keys, gap=5.0), selectable(keys))  # a long query


def test_a_large_bias_makes_one_key_win_and_a_small_bound_all_others_lose(rng):
    keys = rng.standard_normal((30, 3))
    biases = np.where(np.arange(30) == 7, 1.0, 0.0)
    assert selectable(keys, biases)[7]
    alone = selectable(keys, biases, bound=1e-3)
    assert alone.tolist() == [i == 7 for i in range(30)]


@given(st.integers(1, 7), st.integers(2, 25), st.integers(0, 2**16))
def test_margins_are_distances_to_the_hull(d, n, seed):
    """The query's margin bounds the distance from below; the weights' point bounds it from above,
    so equality proves both."""
    keys = np.random.default_rng(seed).standard_normal((n, d))
    system = selectability._system(keys)
    found = system.decide(early=False)
    everyone = np.argwhere(np.ones((1, n), bool))
    distance = system.distance(system.rows, everyone, found.support, found.weights)
    won = found.margin > system.tolerance
    assert np.allclose(distance[won], found.margin[won], rtol=0, atol=1e-14 * (d + 1))
    assert np.allclose(margins(keys)[won], (found.margin * system.unit[0])[won], rtol=1e-14)


@given(st.integers(1, 3), st.integers(2, 8), st.integers(0, 2**16), st.booleans())
def test_the_kernel_finds_the_naive_distance(d, n, seed, lattice):
    rng = np.random.default_rng(seed)
    keys = rng.integers(-2, 3, (n, d)) * 1.0 if lattice else rng.standard_normal((n, d))
    expected = [naive.distance_to_hull(keys[i], np.delete(keys, i, axis=0)) for i in range(n)]
    assert np.allclose(np.maximum(margins(keys), 0), expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("d", range(1, 8))
def test_margins_in_closed_form(d):
    """Corners of a simplex are sqrt(1 + 1/(n - 1)) from the opposite face; the middle of a
    cross-polytope is 1/sqrt(d) below its facets, and its corners are 1 from the middle."""
    n = d + 1
    assert np.allclose(margins(np.eye(n)), np.sqrt(n / (n - 1)), rtol=1e-14)
    cross = np.vstack([np.eye(d), -np.eye(d), np.zeros((1, d))])
    expected = [*[1.0] * (2 * d), -(d**-0.5)]
    assert np.allclose(margins(7.0 * cross + 3.0), 7.0 * np.array(expected), rtol=1e-13)


def test_a_key_moved_out_by_its_depth_becomes_selectable(rng):
    from scipy.spatial import ConvexHull

    keys = rng.standard_normal((40, 3))
    inside = int(np.argmin(margins(keys)))
    facets = ConvexHull(keys).equations
    nearest = facets[np.argmax(facets[:, :3] @ keys[inside] + facets[:, 3]), :3]
    for share, expected in ((0.999, False), (1.001, True)):
        moved = keys.copy()
        moved[inside] -= share * margins(keys)[inside] * nearest
        assert selectable(moved)[inside] == expected


def test_keys_in_a_plane_of_space_are_decided_in_the_plane(rng):
    flat = np.column_stack([rng.standard_normal((30, 2)), np.zeros(30)])
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    said = selectable(flat[:, :2])
    assert not said.all()
    assert np.array_equal(selectable(flat @ turn + 1e3), said)
    assert np.all(margins(flat)[~said] == 0)  # a step out of the plane is enough


@given(st.integers(0, 2**16), st.sampled_from([1e-200, 1e-8, 1.0, 1e8, 1e300]))
def test_scale_and_shift_do_not_matter(seed, scale):
    keys = np.random.default_rng(seed).integers(-5, 6, (20, 3)) * 1.0
    assert np.array_equal(selectable(keys * scale), selectable(keys))
    assert np.array_equal(selectable(keys + 2.0**30), selectable(keys))


def test_equal_and_single_keys(rng):
    assert selectable(np.ones((1, 4))).tolist() == [True]
    assert not selectable(np.ones((5, 4))).any()
    twice = rng.standard_normal((6, 9))
    twice[3] = twice[1]
    assert selectable(twice).tolist() == [i not in (1, 3) for i in range(6)]


@given(st.integers(2, 12), st.integers(2, 30), st.integers(0, 2**16))
def test_after_layernorm_all_keys_are_selectable(d, n, seed):
    """BRODY: with scaling, on a common sphere (d = 2 leaves two points, so d > 2)."""
    tokens = np.random.default_rng(seed).standard_normal((n, d + 1))
    assert selectable(norms.LayerNorm(eps=0.0).apply(tokens)).all()
    assert selectable(norms.Unit().apply(tokens)).all()


def test_single_precision_is_decided_to_its_own_rounding(rng):
    keys = rng.standard_normal((50, 4)).astype(np.float32)
    keys[7] = 0.5 * (keys[1] + keys[2])
    assert not selectable(keys)[7]
    assert np.array_equal(selectable(keys), selectable(keys.astype(float), tolerance=1e-6))


def test_highs_decides_the_same_when_the_kernel_finds_nothing(rng, monkeypatch):
    keys = np.concatenate([rng.standard_normal((2, 15, 3)), rng.integers(-2, 3, (2, 15, 3))])
    biases, said = rng.standard_normal((4, 15)), selectable(keys)
    biased = selectable(keys, biases, bound=2.0)
    monkeypatch.setattr(selectability, "_nearest", lambda *args: None)
    assert np.array_equal(selectable(keys), said)
    assert np.array_equal(selectable(keys, biases, bound=2.0), biased)
    weights = witness(keys[0], int(np.argmin(said[0]))).weights
    assert weights.sum() == pytest.approx(1)


def test_axes_threads_and_shares(rng):
    keys = rng.standard_normal((2, 300, 20, 3))
    said = selectable(keys)
    assert said.shape == (2, 300, 20)
    assert np.array_equal(said[1, 5], selectable(keys[1, 5]))
    set_threads(1)
    try:
        assert np.array_equal(selectable(keys), said)
    finally:
        set_threads(None)
    assert np.allclose(unselectable_fraction(keys), (~said).mean(axis=-1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: selectable(np.ones(3)), r"\(\.\.\., n, d\)"),
        (lambda: selectable(np.ones((0, 3, 2))), r"\(\.\.\., n, d\)"),
        (lambda: selectable([["a"]]), "keys must hold real numbers"),
        (lambda: selectable([[0.0], [np.nan]]), r"found nan at index \(1, 0\)"),
        (lambda: selectable([[0.0], [1.0]], tolerance=0.0), "tolerance"),
        (lambda: selectable([[0.0], [1.0]], [1.0]), "one for each key"),
        (lambda: selectable([[0.0], [1.0]], bound=0.0), "bound a positive one"),
        (lambda: witness(np.ones((2, 3, 4)), 0), "about keys"),
        (lambda: witness(np.ones((1, 4)), 0), "n > 1"),
        (lambda: witness(np.ones((3, 4)), 3), r"keys 0\.\.2"),
        (lambda: margins(np.ones((3, 9))), "up to 8 dimensions"),
        (lambda: margins([[1.7e308] * 3, [-1.7e308] * 3]), "overflow"),
        (lambda: selectable([[2**53 + 1], [0]]), r"2\^53"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.integers(2, 6), st.integers(0, 2**16), st.floats(1e-11, 1e-3))
def test_keys_just_outside_the_hull_are_selectable_down_to_the_tolerance(d, seed, height):
    """A key `height` above a facet among 20 others; below 1e-12 it counts as in the hull."""
    rng = np.random.default_rng(seed)
    below = np.column_stack([rng.standard_normal((20, d - 1)), -np.abs(rng.standard_normal(20))])
    facet = np.column_stack([rng.standard_normal((d, d - 1)), np.zeros(d)])
    turn = np.linalg.qr(rng.standard_normal((d, d)))[0]
    middle = rng.dirichlet(np.ones(d)) @ facet
    for above, expected in ((height, True), (-height, False)):
        keys = np.vstack([middle, below, facet])
        keys[0, -1] += above * selectability._scaled(keys[None])[1][0]
        assert selectable(keys @ turn)[0] == expected


# --- where rounding decides -----------------------------------------------------------------------


def test_a_key_outside_by_less_than_the_tolerance_is_undecided():
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    for place, expected in ((0.5, False), (1.0, False), (1 + 2.0**-50, True)):  # in, on, out
        keys = np.vstack([square, [[place, 0.5]]])
        assert not selectable(keys)[-1]
        assert undecided(keys).tolist() == [False] * 4 + [expected]
    out = np.vstack([square, [[1 + 2.0**-30, 0.5]]])
    assert selectable(out).all()
    assert not undecided(out).any()


def test_undecided_answers_the_question_that_was_asked():
    keys = [[0.0], [1.0], [2.0]]
    for biases, said, open_ in (
        ([0.0, 0.5, 1.0], False, False),
        ([0.0, 0.5 + 2.0**-45, 1.0], False, True),  # wins by next to nothing
        ([0.0, 1.0, 0.0], True, False),
    ):
        assert selectable(keys, biases)[1] == said
        assert undecided(keys, biases)[1] == open_
    assert not undecided(keys, gap=1.0, bound=1e200).any()


def test_a_bound_that_decides_by_next_to_nothing_leaves_keys_undecided():
    """0 and 2 win over 1 by more than the gap 1 for |q| > 1, within a bound above 1."""
    keys = [[0.0], [1.0], [2.0]]
    for bound, said, open_ in ((1.0, False, False), (1 + 2.0**-50, False, True), (2, True, False)):
        assert selectable(keys, gap=1.0, bound=bound).tolist() == [said, False, said]
        assert undecided(keys, gap=1.0, bound=bound).tolist() == [open_, False, open_]


def test_random_keys_are_decided_and_too_many_numbers_for_integers_are_not(rng):
    keys = rng.standard_normal((3, 40, 3))
    assert undecided(keys).shape == (3, 40)
    assert not undecided(keys).any()
    lattice = np.zeros((6000, 1))  # all equal: no weights that are positive under all rounding
    assert undecided(lattice).all()
    assert not undecided(lattice[:100]).any()


@pytest.mark.parametrize("shift", [0.0, 1e8, -1e14])
def test_keys_far_from_the_origin_keep_their_digits(shift):
    """An offset of 10^14 leaves steps of 1/64 exact; dividing by it would not."""
    steps = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5 + 2.0**-6]])
    assert selectable(steps + shift).tolist() == [True, True, True, False, True]
    assert not undecided(steps + shift).any()


def test_scale_of_one_set_does_not_matter_for_the_biases_of_another():
    keys = np.tile([[0.0], [1.0], [2.0]], (2, 1, 1))
    biases = np.array([[0.0, 1e-20, 0.0], [0.0, 1e20, 0.0]])
    assert selectable(keys, biases).all()


def test_a_small_margin_in_a_thin_hull():
    """The kernel's query reaches 8.2e-9 of the size there; the distance is 1.17e-8."""
    keys = np.array([[-2e-4, -2e4], [1e-4, 1e4], [-1e-4, 0], [1e-4, 0], [0, -2e4], [-2e-4, 0],
                     [1e-4, 1e4]])  # fmt: skip
    expected = naive.distance_to_hull(keys[4], np.delete(keys, 4, axis=0))
    assert margins(keys)[4] == pytest.approx(expected, rel=1e-6)


def test_a_witness_reproduces_the_key_where_highs_cannot():
    keys = np.array([[2e8, 0, 2e-3], [0, 1e3, 2e-3], [-1e8, 2e3, 2e-3], [-1e8, -2e3, 0],
                     [0, -1e3, 0], [-2e8, -2e3, 2e-3], [-1e8, 0, 1e-3], [-2e8, 2e3, -2e-3],
                     [2e8, 0, -1e-3], [-1e8, -1e3, 0], [2e8, 1e3, 0]])  # fmt: skip
    assert not undecided(keys)[4]
    found = witness(keys, 4)
    assert -found.margin(keys) < 1e-12 * 2e8
    assert np.count_nonzero(found.weights) <= 4
