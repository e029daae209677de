"""Claims of the experiments about equilibria fail on data that contradict them."""

import numpy as np
import pytest

from dynsim import basins
from experiments import (
    jordan_family,
    jordan_starts,
    stable_every_rank,
    stable_full_rank,
    two_token_basins,
)


@pytest.fixture
def starts():
    counts = np.zeros((2, 4, len(basins.TYPES)), int)
    counts[:, 1, 0], counts[:, 2, 0] = 1900, 100
    return {"tokens": np.array([2, 3]), "counts": counts, "kept": np.full((2, 3, 2), 50)}


def test_random_starts_of_jordan_layers(starts):
    said = jordan_starts.claim(starts)
    assert said.reproduced
    share = said.measured["N = 2"]["share above rank 1, 95% interval"]
    assert share == pytest.approx([0.05, 0.0409, 0.0605], abs=1e-4)
    none = {k: v.copy() for k, v in starts.items()}
    none["counts"][1, 1, 0], none["counts"][1, 2, 0] = 2000, 0
    assert not jordan_starts.claim(none).reproduced
    lost = {k: v.copy() for k, v in starts.items()}
    lost["kept"][1, 1, 0] = 49
    assert not jordan_starts.claim(lost).reproduced


@pytest.mark.parametrize("name", jordan_starts.SETS)
def test_starts_of_lemma_13(name):
    x0 = jordan_starts.starts(5, 200, name, seed=3)
    assert np.allclose(np.linalg.norm(x0, axis=2), 1)
    assert np.all(x0[:, 1, :-1] <= 0)
    assert np.all(x0[:, 1, -2] <= -1 / 5.5)
    a = np.abs(x0[:, 1, :-1])
    concave = np.all(a[:, 1:-1] ** 2 >= a[:, :-2] * a[:, 2:], axis=1)
    assert concave.all() == name.startswith("log-concave")
    assert np.array_equal(x0[:, 0], np.tile(np.eye(5)[-1], (200, 1))) == name.endswith("held")


def test_shares_of_two_tokens():
    w = np.array([1.5, 2.0])
    share = two_token_basins.exact(w)
    data = {"strengths": w, "held": np.stack([share, share - 0.002, share + 0.002], axis=1),
            "free": np.array([0.5, 0.4, 0.6]), "settled": np.array([64])}  # fmt: skip
    assert two_token_basins.claim(data).reproduced
    assert not two_token_basins.claim(data | {"held": data["held"] + 0.01}).reproduced


def full_rank(**changed):
    names = ["radius", "out", "marginal", "smallest", "residual", "growth", "kreiss", "basin"]
    row = dict(zip(names, (0.9, 0, 0, 0.3, 1e-15, 3.0, 2.0, 1e-2), strict=True)) | changed
    return {"cases": np.array(["complete N=2"]), "rows": np.array([[row[n] for n in names]]),
            "ends_0": np.array([0.0, 0.99, 0.01]), "certificate_0": np.array("{}")}  # fmt: skip


def test_stable_full_rank():
    said = stable_full_rank.claim(full_rank())
    assert said.reproduced
    assert "0.01 to 0.01 ends at the highest rank" in said.statement
    for changed in ({"out": 1}, {"marginal": 1}, {"residual": 1e-9}, {"smallest": 0.01},
                    {"basin": 1e-8}):  # fmt: skip
        assert not stable_full_rank.claim(full_rank(**changed)).reproduced, changed
    unproved = full_rank() | {"certificate_0": np.array("")}
    assert not stable_full_rank.claim(unproved).reproduced


def test_stable_every_rank():
    data = {"table": np.full((3, 3, 6), 0.5), "W_V_2": np.eye(2),
            "certificate_2_1": np.array("{}"), "certificate_2_2": np.array("{}")}  # fmt: skip
    said = stable_every_rank.claim(data)
    assert said.reproduced
    assert said.measured["N = 2, rank 1"]["rank certified"] == "from below"
    assert said.measured["N = 2, rank 2"]["rank certified"] == "exactly"
    assert not stable_every_rank.claim(data | {"certificate_2_1": np.array("")}).reproduced


def test_the_jordan_family():
    shape = (5, 5)
    family = np.full(shape, -1)
    for n in range(2, 5):
        family[n, 1 : n + 1] = 2 ** np.arange(1, n + 1)
    data = {"family": family, "residual": np.zeros(shape), "fewest_expanding": np.ones(shape),
            "searched": family, "strengths": np.array([10.0]),
            "largest_multiplier": np.array([[1, 1, 1, 2**0.5]])}  # fmt: skip
    assert jordan_family.claim(data).reproduced
    fewer = family.copy()
    fewer[4, 3] = 7
    for changed in ({"family": fewer}, {"residual": np.full(shape, 1e-9)},
                    {"fewest_expanding": np.zeros(shape)},
                    {"largest_multiplier": np.ones((1, 4))}):  # fmt: skip
        assert not jordan_family.claim(data | changed).reproduced
