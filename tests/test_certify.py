"""Certificates: what is proved, what is not, and that tampering shows."""

import copy
import json
import subprocess
import sys

import flint
import numpy as np
import pytest

from dynsim import AttentionDynamics, masks, norms, weights
from dynsim.cli import verify
from dynsim.equilibria import (
    balls,
    certify,
    check,
    complete_pair,
    complete_pair_dynamics,
    exact,
    find_equilibria,
    hyperbolic_dynamics,
    hyperbolic_pair,
    jordan_dynamics,
    jordan_family,
    jordan_member,
    load_certificate,
    save_certificate,
    schema,
)
from dynsim.network.jacobian import linearise
from dynsim.network.weights import Fixed


@pytest.fixture
def certificate():
    return certify(hyperbolic_dynamics(0.3, 2.0), hyperbolic_pair(0.3, 2.0)[0])


def test_a_stable_and_an_unstable_equilibrium_are_proved():
    for x, side in zip(hyperbolic_pair(0.3, 2.0), ("< 1", "> 1"), strict=True):
        made = certify(hyperbolic_dynamics(0.3, 2.0), x)
        assert made["spectral_radius"] == side
        assert made["rank"] == 2
        assert all(check(made).values())


def test_the_full_rank_equilibrium_of_the_complete_mask_is_proved():
    made = certify(complete_pair_dynamics(3.0, 1.5), complete_pair(3.0, 1.5))
    assert (made["rank"], made["spectral_radius"]) == (2, "> 1")


def test_balls_contain_the_layer_and_its_derivative(rng):
    M, W_V = rng.standard_normal((2, 2, 3, 3))
    dynamics = AttentionDynamics(masks.local(4), Fixed(M, W_V), norms.Unit())
    x = norms.Unit().apply(rng.standard_normal((4, 3)))
    allowed = dynamics.allowed().astype(int).tolist()
    layer = balls._Layer(
        {"allowed": allowed, "M": M.tolist(), "W_V": W_V.tolist(), "tokens": x.tolist()}
    )
    expected, derivative = linearise(dynamics, x)
    for radius in (0, 1e-6):
        box = flint.arb_mat([[flint.arb(v, radius)] for v in x.ravel().tolist()])
        value, slope = layer.value(box), layer.slope(box)
        assert np.allclose(np.array(value.mid().tolist(), float).ravel(), expected.ravel())
        assert np.allclose(np.array(slope.mid().tolist(), float), derivative.reshape(12, 12))
        assert all(entry.rad() < 1e-3 for entry in slope.entries())
    for _ in range(5):  # points of the box
        y = x + 1e-6 * rng.uniform(-1, 1, x.shape)
        expected, derivative = linearise(dynamics, y)
        for ball, number in zip(value.entries(), expected.ravel(), strict=True):
            assert ball.overlaps(flint.arb(float(number), 1e-13))
        for ball, number in zip(slope.entries(), derivative.ravel(), strict=True):
            assert ball.overlaps(flint.arb(float(number), 1e-12))


def test_a_sign_flip_is_proved():
    W_V = np.diag([-2.0, 1.0])
    dynamics = AttentionDynamics(masks.complete(2), Fixed(np.zeros((2, 2)), W_V), norms.Unit())
    made = certify(dynamics, np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert (made["sign"], made["rank"], made["spectral_radius"]) == (-1, 1, "< 1")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["tokens"][1].__setitem__(0, c["tokens"][1][0] + 1e-6),
        lambda c: c["W_V"][0][0].__setitem__(1, 2.001),
        lambda c: c.__setitem__("spectral_radius", "> 1"),
        lambda c: c.__setitem__("sign", -1),
    ],
)
def test_false_claims_are_not_proved(certificate, change):
    changed = copy.deepcopy(certificate)
    change(changed)
    assert not all(check(changed).values())


def test_a_rank_too_high_is_not_proved():
    x = np.array([[1.0, 0.0], [1.0, 0.0]])
    W_V = np.diag([2.0, 1.0])
    made = certify(
        AttentionDynamics(masks.complete(2), Fixed(np.zeros((2, 2)), W_V), norms.Unit()), x
    )
    assert made["rank"] == 1
    made["rank"] = 2
    assert list(check(made).values()) == [True, False, True]


@pytest.fixture
def consensus():
    """A sign flip of rank 1 whose box holds states of rank 2, among them the tokens."""
    return {
        "format": balls.FORMAT,
        "allowed": [[1, 1], [1, 1]],
        "M": [[[-0.6517911526116896, -0.17471729232577715],
               [1.6637239913911968, 0.659147749832255]]],
        "W_V": [[[-1.6413972945846467, -0.005203264171931977],
                 [-0.6234637409883934, 0.14863152325202633]]],
        "tokens": [[-0.9999957838028868, -0.0029038554457987776],
                   [-0.9999870722365494, -0.005903842797207438]],
        "sign": -1,
        "radius": 0.0036,
        "rank": 2,
        "spectral_radius": "< 1",
    }  # fmt: skip


def test_a_consensus_is_not_proved_to_be_of_rank_two(consensus):
    assert list(check(consensus).values()) == [True, False, True]
    assert all(check(consensus | {"rank": 1}).values())


@pytest.mark.parametrize("radius", [1.5e-64, 1e-40, 1.9e-35, 2e-35])
def test_a_box_beside_the_zero_proves_nothing(radius):
    """The zero is e = (1, 0) for both tokens; the first lies 2e-35 beside it."""
    beside = _consensus_on_e(offset=2e-35, radius=radius)
    assert list(check(beside).values()) == [False, False, False]
    assert all(check(beside | {"radius": 2.1e-35}).values())
    assert list(check(beside | {"radius": 1e-3, "rank": 2}).values()) == [True, False, True]


def _consensus_on_e(offset, radius):
    return {
        "format": balls.FORMAT, "allowed": [[1, 1], [1, 1]], "M": [[[0, 0], [0, 0]]],
        "W_V": [[[2, 0], [1, 1]]], "tokens": [[1, offset], [1, 0]], "sign": 1,
        "radius": radius, "rank": 1, "spectral_radius": "< 1",
    }  # fmt: skip


def test_a_box_with_two_zeros_or_without_a_layer_proves_nothing():
    """W_V = diag(2, 1), one token: zeros (1, 0), (0, 1); between them the box may hold both."""
    alone = {"allowed": [[1]], "M": [[[0, 0], [0, 0]]], "W_V": [[[2, 0], [0, 1]]], "rank": 1}
    alone = _consensus_on_e(0, 0.1) | alone | {"tokens": [[1, 0]]}
    assert all(check(alone).values())
    assert not any(check(alone | {"tokens": [[0.6, 0.6]], "radius": 0.7}).values())
    cancels = alone | {"tokens": [[1.0, 0.0], [-1.0, 0.0]], "allowed": [[1, 1], [1, 1]]}
    assert not any(check(cancels).values())
    assert not any(check(alone | {"W_V": [[[0, 0], [0, 0]]]}).values())
    assert not any(check(alone | {"M": [[[1e308, 0], [0, 0]]], "radius": 0.9}).values())


def test_what_is_claimed_is_said_to_all_digits(certificate):
    said = " ".join(check(certificate | {"radius": 1.23456789012345e-10}))
    assert "within 1.23456789012345e-10 of the tokens" in said


def test_what_has_no_proof_is_refused():
    others = [e for e in find_equilibria(jordan_dynamics(3, 4.0), flips=False).equilibria
              if jordan_member(jordan_dynamics(3, 4.0), e.tokens) is None]  # fmt: skip
    assert others
    with pytest.raises(ValueError, match="too close to 1"):
        certify(jordan_dynamics(3, 4.0), others[0].tokens)
    normed = AttentionDynamics(masks.causal(2), weights.Jordan(2.0), norms.LayerNorm())
    with pytest.raises(ValueError, match="attention and unit norm"):
        certify(normed, np.eye(2))


def test_a_file_is_checked_alone(certificate, tmp_path, capsys):
    path = save_certificate(certificate, tmp_path / "c.json")
    assert load_certificate(path) == certificate
    assert verify.main([str(path)]) == 0
    assert capsys.readouterr().out.count("  proved:") == 3
    path.write_text(json.dumps(certificate | {"spectral_radius": "> 1"}))
    assert verify.main([str(path), "--json"]) == 1
    assert sum(json.loads(capsys.readouterr().out)["certificates"][str(path)].values()) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[]",
        "null",
        '{"format": "dynsim equilibrium certificate 1"}',
        '{"format": "dynsim equilibrium certificate 1", "format": 2}',
        "[" * 100_000,
        "9" * 5000,
        "\ufeff{}",
    ],
)
def test_what_is_no_certificate_is_refused(text, tmp_path, capsys):
    path = tmp_path / "c.json"
    path.write_text(text)
    _is_refused(path, capsys)


def _is_refused(path, capsys):
    assert verify.main([str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"dynsim verify: error: {path}: ")
    assert err.count("\n") == 1
    assert len(err) < 500
    return err


_TWO = [[1, 0], [1, 1]]
_DEEP = json.loads("[" * 500 + "]" * 500)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("rank", v) for v in (1.5, 2.0, "1", True, None, [1], 0, 3, -1, 10**400)),
        *(("radius", v) for v in ("1e-10", None, 0, 1, -1e-3, True, float("nan"), [1e-3], 10**400)),
        *(("sign", v) for v in (0, 2, True, 1.0, "1", None, [1])),
        *(("spectral_radius", v) for v in ("<1", "= 1", None, 1, ["< 1"], {})),
        *(("format", v) for v in ("dynsim equilibrium certificate 2", None, 1, ["a"])),
        *(("made_by", v) for v in (1, None, ["dynsim"])),
        *(("unknown", v) for v in (None, True)),
        *(("allowed", v) for v in (None, [], "11", 1, {}, _DEEP, [[], []], [[1, 1]], [[1], [1]],
            [[1, 0], [0, 0]], [["1", "0"], ["1", "1"]], [[1, 0], [1, float("nan")]],
            [[1, 0], [2, 1]], [[True, False], [True, True]], [[1.0, 0], [1, 1]], [[1, 0], None],
            [[1, 0], [1, 1], [1, 1]], [[1, 0, 0], [1, 1, 0]], [[1, 0], [1]])),
        *((name, v) for name in ("M", "W_V") for v in (None, [], 0, "M", _TWO, [[]], [[[]]], _DEEP,
            [_TWO, _TWO], [[[1, None], [0, 1]]], [[["1", 0], [0, 1]]], [[[1, True], [0, 1]]],
            [[[1, float("inf")], [0, 1]]], [[[1, 10**400], [0, 1]]], [[[1, 2**53 + 1], [0, 1]]],
            [[[1, 0], [0]]], [[[1, 0, 0]] * 3], [[[1, 0]]])),
        *(("tokens", v) for v in (None, [], [[], []], [0.0, 1.0], "x", [["0", "1"], ["1", "0"]],
            [[0.0, 1.0], [1.0]], [[0.0, 1.0]], [[0.0, 1.0]] * 3, [[0.0, 1.0], [None, 1.0]],
            [[0.0, 1.0], [float("-inf"), 1.0]], [[0.0, 1.0, 0.0]] * 2, [[0.0] * 200] * 2,
            [[[0.0, 1.0]], [[0.0, 1.0]]], {"0": [0.0, 1.0]})),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_in_one_line(certificate, field, value, tmp_path, capsys):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(certificate | {field: value}))
    _is_refused(path, capsys)
    with pytest.raises(ValueError):
        check(certificate | {field: value})


@pytest.mark.parametrize("field", ["allowed", "M", "W_V", "tokens", "sign", "radius", "rank"])
def test_a_field_that_lacks_is_named(certificate, field, tmp_path, capsys):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({k: v for k, v in certificate.items() if k != field}))
    assert f"lacks {field}" in _is_refused(path, capsys)


def test_what_would_take_hours_is_refused(certificate, tmp_path, capsys):
    path = tmp_path / "c.json"
    heads = certificate["M"] * 129
    path.write_text(json.dumps(certificate | {"M": heads, "W_V": heads}))
    assert "heads x d is at most 256" in _is_refused(path, capsys)
    path.write_text(json.dumps(certificate | {"tokens": [[0.0, 1.0]] * 129}))
    assert "N d is at most 256" in _is_refused(path, capsys)
    path.write_text(" " * (schema.LARGEST_FILE + 1))
    assert "bytes" in _is_refused(path, capsys)


def test_a_bad_file_among_good_ones_is_refused_before_any_work(
    certificate, tmp_path, capsys, monkeypatch
):
    good, bad = save_certificate(certificate, tmp_path / "a.json"), tmp_path / "b.json"
    monkeypatch.setattr(balls, "_proofs", lambda certificate: pytest.fail("worked"))
    assert verify.main([str(good), str(bad)]) == 2
    assert f"{bad}: cannot be read" in capsys.readouterr().err
    monkeypatch.setattr(balls, "flint", None)
    assert verify.main([str(good)]) == 2
    assert "pip install 'dynsim[certify]'" in capsys.readouterr().err


def test_without_python_flint_all_but_proofs_is_there():
    code = (
        "import sys; sys.modules['flint'] = None\n"
        "from dynsim.equilibria import check, find_equilibria\n"
        "check({})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("ValueError: not a certificate")


def test_arrays_that_do_not_fit_are_refused(certificate):
    with pytest.raises(ValueError, match=r"M\[0\]: 3 rows of 3 entries"):
        check(certificate | {"tokens": [[1.0, 0.0, 0.0]] * 2})
    with pytest.raises(ValueError, match="rank is a whole number from 1 to 2; got 3"):
        check(certificate | {"rank": 3})


def test_balls_hold_the_radius_claimed():
    """Arb rounds a ball's radius up, and takes its midpoint as it is."""
    for radius in (1e-10, 1.5e-64, 0.1, 0.0036):
        ball = flint.arb(0.3) + flint.arb(0, flint.arb(radius))
        assert ball.mid() == flint.arb(0.3)
        assert ball.rad() >= flint.arb(radius)


# --- exact certificates ---------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "w"), [(2, 2.0), (3, 4.0), (4, 4.5), (3, -3.1)])
def test_wus_family_is_proved_exactly(n, w):
    """All 2^k of every rank k: rank and spectral radius too, against numpy."""
    dynamics = jordan_dynamics(n, w)
    for rank in range(1, n + 1):
        for x in jordan_family(n, w, rank):
            made = certify(dynamics, x)
            assert made["format"] == exact.FORMAT
            assert made["rank"] == rank == np.linalg.matrix_rank(x, tol=1e-6)
            assert all(check(made).values())
            assert not all(check(made | {"rank": rank % n + 1}).values())
            for side in {"< 1", "= 1", "> 1"} - {made["spectral_radius"]}:
                assert list(check(made | {"spectral_radius": side}).values()) == [True, True, False]


def test_the_family_is_told_from_other_equilibria():
    dynamics = jordan_dynamics(3, 4.0)
    family = jordan_family(3, 4.0, 2)
    assert jordan_member(dynamics, family[0]) == (1, 1)
    assert jordan_member(dynamics, family[1]) == (1, -1)
    assert jordan_member(dynamics, family[0] + 1e-5) is None
    assert jordan_member(jordan_dynamics(3, 4.1), family[0]) is None
    other = AttentionDynamics(masks.complete(3), weights.Jordan(4.0), norms.Unit())
    assert jordan_member(other, family[0]) is None
    assert jordan_member(hyperbolic_dynamics(0.3, 2.0), hyperbolic_pair(0.3, 2.0)[0]) is None
    found = find_equilibria(dynamics, flips=False).equilibria
    assert sum(len(e.orbit) for e in found if jordan_member(dynamics, e.tokens)) == 2 + 4 + 8


@pytest.fixture
def exactly():
    return certify(jordan_dynamics(2, 2.0), jordan_family(2, 2.0, 2)[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["tokens"][1][0].__setitem__(0, "-500000000000000000001/1000000000000000000000"),
        lambda c: c["tokens"][1][1].__setitem__(1, "2"),
        lambda c: c["tokens"][0][1].__setitem__(0, "0"),
        lambda c: c["radicands"].__setitem__(0, "3/5"),
        lambda c: c["W_V"][0].__setitem__(1, "3"),
        lambda c: c["allowed"][0].__setitem__(1, 1),
        lambda c: c.__setitem__("sign", -1),
    ],
)
def test_a_changed_exact_certificate_proves_nothing(exactly, change):
    assert all(check(exactly).values())
    change(exactly)
    assert not any(check(exactly).values())


def test_square_roots_may_depend_on_each_other():
    """sqrt 4 is 2: what is 0 as a number but not as a polynomial stays unproved, never wrong."""
    alone = {"format": exact.FORMAT, "allowed": [[1]], "W_V": [["2", "0"], ["0", "1"]], "sign": 1,
             "radicands": ["4"], "tokens": [[["0", "1/2"], ["0", "0"]]], "rank": 1,
             "spectral_radius": "< 1"}  # fmt: skip
    assert all(check(alone).values())
    assert not any(check(alone | {"tokens": [[["-1", "1"], ["0", "0"]]]}).values())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("radicands", v) for v in (None, ["0"], ["-1"], [1], ["1/2"] * 4, "1/2", [])),
        *(("tokens", v) for v in (None, [], [[["0"], ["1"]]] * 2, [[0, 1], [1, 0]], [["0", "1"]])),
        *(("W_V", v) for v in (None, [["1", "2"]], [["1", "x"], ["0", "1"]],
            [["1", "1/0"], ["0", "1"]], [[1, 2], [0, 1]], [["1e5", "2"], ["0", "1"]],
            [["9" * 2000, "2"], ["0", "1"]], [["1", "2\n"], ["0", "1"]])),
        *(("rank", v) for v in (0, 3, True, "1")),
        *(("spectral_radius", v) for v in ("<= 1", None, ["= 1"])),
        *(("sign", v) for v in (0, 1.0, "1")),
        *(("allowed", v) for v in ([[1, 0], [0, 0]], [[1, 0]], [[True, 0], [1, 1]])),
        *(("radius", v) for v in (1e-10,)),
        *(("format", v) for v in (["a"], 1, "dynsim exact equilibrium certificate 2")),
    ],
)  # fmt: skip
def test_a_malformed_exact_file_is_refused_in_one_line(exactly, field, value, tmp_path, capsys):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(exactly | {field: value}))
    _is_refused(path, capsys)
    with pytest.raises(ValueError):
        check(exactly | {field: value})


def test_an_exact_file_is_checked_alone(exactly, tmp_path, capsys):
    path = save_certificate(exactly, tmp_path / "c.json")
    assert load_certificate(path) == exactly
    assert verify.main([str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("  proved: ") == 3
    assert "the tokens are exactly an equilibrium" in out
