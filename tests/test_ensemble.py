"""Systems simulated in one batch have the bits that each has alone."""

from dataclasses import replace

import numpy as np
import pytest

from dynsim import AttentionDynamics, Record, masks, mlp, norms, simulate, tokens
from dynsim.engines.lanes import _Places
from dynsim.network.ensemble import Ensemble, by_system
from dynsim.network.weights import Fixed, Gaussian, Orthogonal, Weights, Zero

CASES = {
    "pure attention": {},
    "unit norm, strong scores": {"norm": norms.Unit(), "weights": {"beta": 20.0}},
    "LayerNorm before, skip": {"norm": norms.LayerNorm(), "placement": "pre", "skip": 0.7},
    "two heads": {"norm": norms.RMSNorm(), "weights": {"n_heads": 2}},
    "one draw for all layers": {"norm": norms.Unit(), "weights": {"shared": True}},
    "causal window": {"mask": masks.causal_local(6, 1), "weights": {"value": Orthogonal()}},
    "star": {"mask": masks.star(6), "norm": norms.Unit()},
}


def systems_of(case, count=5):
    parts = {"mask": masks.complete(6)} | CASES[case]
    families = {"value": Gaussian()} | parts.pop("weights", {})
    weights = [Weights(**(families | {"seed": seed})) for seed in range(count)]
    return [AttentionDynamics(weights=one, **parts) for one in weights]


def at_once(alone, each):
    members = tuple(dynamics.weights for dynamics in alone)
    return replace(alone[0], weights=Ensemble(members, each))


@pytest.mark.parametrize("engine", ["numba", "logscale"])
@pytest.mark.parametrize("each", [1, 3, 11])
@pytest.mark.parametrize("case", CASES)
def test_every_system_has_the_bits_it_has_alone(case, each, engine):
    alone = systems_of(case)
    x0 = tokens.gaussian(5 * each, 6, 4, seed=1)
    record = Record(measures=("attention_entropy", "rank"), stride=7)
    whole = simulate(at_once(alone, each), x0, 40, engine=engine, record=record, threads=2)
    for k, dynamics in enumerate(alone):
        mine = slice(k * each, (k + 1) * each)
        one = simulate(dynamics, x0[mine], 40, engine=engine, record=record, threads=1)
        assert np.array_equal(whole.final[mine], one.final)
        for name, values in one.measures.items():
            assert np.array_equal(whole[name][mine], values, equal_nan=True), name


def test_float32_and_a_later_start():
    alone = systems_of("unit norm, strong scores")
    x0 = tokens.gaussian(10, 6, 4).astype(np.float32)
    whole = simulate(at_once(alone, 2), x0, 5, start=3)
    one = simulate(alone[4], x0[8:], 5, start=3)
    assert whole.final.dtype == np.float32
    assert np.array_equal(whole.final[8:], one.final)


def test_no_vector_holds_samples_of_two_systems():
    systems = np.array([0, 0, 0, 2, 3, 3, 3, 3, 3])
    places = _Places.of(systems, 4, 4)
    assert np.array_equal(places.system, [0, 2, 3, 3])
    assert np.array_equal(systems[places.order].reshape(-1, 4), places.system[:, None].repeat(4, 1))
    assert np.array_equal(places.back(places.spread(systems)), systems)
    assert np.array_equal(places.order[places.first], np.arange(9))
    for bad in ([0, 4], [-1, 0], [1, 0]):
        with pytest.raises(ValueError, match="numbers from 0 to 3 that never fall"):
            _Places.of(np.array(bad), 4, 4)


def test_matrices_by_system():
    members = tuple(Fixed(k * np.eye(2), np.eye(2)) for k in range(3))
    found = list(by_system(Ensemble(members, 2), 0, 2, np.array([0, 1, 5])))
    assert [float(layer.M[0, 0, 0]) for layer, _ in found] == [0.0, 2.0]
    assert [mine.tolist() for _, mine in found] == [[True, True, False], [False, False, True]]


def test_what_cannot_be_an_ensemble_is_refused():
    one, other = Weights(seed=1), Weights(seed=1, n_heads=2)
    with pytest.raises(ValueError, match="one number of heads"):
        Ensemble((one, other), 1)
    with pytest.raises(ValueError, match="the same matrices in all layers"):
        Ensemble((one, Weights(Zero(), Orthogonal(), shared=True)), 1)
    ensemble = Ensemble((one, Weights(seed=2)), 1)
    x0 = tokens.gaussian(2, 6, 4)
    with_mlp = AttentionDynamics(masks.complete(6), ensemble, mlp=mlp.GaussianMLP())
    with pytest.raises(ValueError, match="attention, norm and skip alone"):
        simulate(with_mlp, x0, 3)
    plain = AttentionDynamics(masks.complete(6), ensemble)
    with pytest.raises(ValueError, match="tokens of up to 2048 numbers; got 99 x 44"):
        simulate(AttentionDynamics(masks.complete(99), ensemble), tokens.gaussian(2, 99, 44), 3)
    with pytest.raises(ValueError, match="an ensemble of 2 systems of 1 samples each has 2; got 3"):
        simulate(plain, tokens.gaussian(3, 6, 4), 3)
    with pytest.raises(ValueError, match="ask its members"):
        simulate(plain, x0, 3, engine="reference")
