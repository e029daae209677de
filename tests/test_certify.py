"""Certificates: what is proved, what is not, and that tampering shows."""

import copy
import json

import flint
import numpy as np
import pytest

from dynsim import AttentionDynamics, masks, norms, weights
from dynsim.cli import verify
from dynsim.equilibria import (
    certify,
    check,
    complete_pair,
    complete_pair_dynamics,
    hyperbolic_dynamics,
    hyperbolic_pair,
    jordan_dynamics,
    jordan_family,
    load_certificate,
    save_certificate,
)
from dynsim.equilibria.certify import _Proof
from dynsim.jacobian import linearise
from dynsim.weights import Fixed


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
    given = {"allowed": dynamics.allowed().astype(int).tolist(), "M": M.tolist(),
             "W_V": W_V.tolist(), "tokens": x.tolist()}  # fmt: skip
    out, slope = _Proof(flint, given)._linearised(flint.arb_mat(x.reshape(-1, 1).tolist()))
    expected, derivative = linearise(dynamics, x)
    assert np.allclose(np.array(out.tolist(), float).ravel(), expected.ravel(), atol=1e-14)
    assert np.allclose(np.array(slope.tolist(), float), derivative.reshape(12, 12), atol=1e-12)


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


def test_what_has_no_proof_is_refused():
    with pytest.raises(ValueError, match="too close to 1"):
        certify(jordan_dynamics(3, 4.0), jordan_family(3, 4.0, 3)[0])
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
    assert sum(json.loads(capsys.readouterr().out)[str(path)].values()) == 2


@pytest.mark.parametrize("text", ["{", "{}", '{"format": "dynsim equilibrium certificate 1"}'])
def test_what_is_no_certificate_is_refused(text, tmp_path, capsys):
    path = tmp_path / "c.json"
    path.write_text(text)
    assert verify.main([str(path)]) == 2
    assert capsys.readouterr().err.startswith("dynsim verify: error:")
    assert verify.main([str(tmp_path / "none.json")]) == 2


def test_arrays_that_do_not_fit_are_refused(certificate):
    with pytest.raises(ValueError, match="do not fit"):
        check(certificate | {"tokens": [[1.0, 0.0, 0.0]] * 2})
    with pytest.raises(ValueError, match="rank lies"):
        check(certificate | {"rank": 3})
