"""Every sentence about WU's Fig. 2 and 6 has a verdict that data can turn."""

import numpy as np
import pytest

from experiments import bert
from experiments import masks_and_layernorm as experiment
from experiments.masks_and_layernorm import (
    FULL,
    HIDDEN,
    LN,
    NONE,
    SAN,
    SKIP,
    SKIP_LN,
    VARIANTS,
)  # fmt: skip

DEPTH = 128
CLAIMS = ("collapse", "local", "layernorm", "pretrained", "skip", "whole", "level")


def agreeing() -> dict[str, np.ndarray]:
    """Data in which every sentence of the paper holds without dropout."""
    shape = (5, 4, 4, 2, 1, DEPTH + 1)
    t = np.arange(DEPTH + 1)
    mu = np.full(shape, 100.0)
    factors = np.array([0.2, 0.3, 0.4, 0.45])[:, None, None, None, None]
    mu[SAN] = 100.0 * factors**t
    mu[SKIP] = 100.0 * 1.05**t
    trained = np.full((5, 4, 3, 7), 10.0)
    trained[LN], trained[SKIP_LN], trained[FULL] = 20.0, 30.0, 40.0
    return {
        "mu": mu, "frobenius_norm": np.full(shape, 300.0), "shape": np.array([128, 768]),
        "predicted": np.full((2, *shape[1:4], DEPTH + 1), 100.0), "pretrained_mu": trained,
        "pretrained_norm": np.full(trained.shape, 50.0),
    }  # fmt: skip


def verdicts(data):
    return dict(zip(CLAIMS, experiment.claims(data), strict=True))


def test_agreeing_data_reproduce_every_claim():
    for name, verdict in verdicts(agreeing()).items():
        assert verdict.reproduced, name
        assert verdict.outcome == "reproduced"


def sans_stay(data):
    data["mu"][SAN, 2] = 100.0


def sans_fall_by_a_power(data):
    data["mu"][SAN] = 100.0 / (1.0 + np.arange(DEPTH + 1)) ** 9


def causal_is_slowest(data):
    data["mu"][SAN, 1] = 100.0 * 0.9 ** np.arange(DEPTH + 1)


def layernorm_collapses(data):
    data["mu"][LN, 0] *= 0.9 ** np.arange(DEPTH + 1)


def layernorm_falls_slowly(data):
    data["mu"][LN, 3] *= 0.99 ** np.arange(DEPTH + 1)


def pretrained_layernorm_is_enough(data):
    data["pretrained_mu"][LN, 0] = 45.0


def pretrained_parts_harm(data):
    data["pretrained_mu"][FULL, 2] = 15.0


def skip_stays(data):
    data["mu"][SKIP, 0] = 100.0


def whole_collapses(data):
    data["mu"][FULL] *= 0.95 ** np.arange(DEPTH + 1)


def level_is_off(data):
    data["mu"][LN, 1, HIDDEN] *= 1.03


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (sans_stay, "collapse"), (sans_fall_by_a_power, "collapse"), (causal_is_slowest, "local"),
        (layernorm_collapses, "layernorm"), (layernorm_falls_slowly, "layernorm"),
        (pretrained_layernorm_is_enough, "pretrained"), (pretrained_parts_harm, "pretrained"),
        (skip_stays, "skip"), (whole_collapses, "whole"), (level_is_off, "level"),
    ],
)  # fmt: skip
def test_a_claim_fails_on_data_against_it(spoil, name):
    data = agreeing()
    spoil(data)
    found = verdicts(data)
    assert not found[name].reproduced
    assert found[name].outcome == "NOT reproduced"


@pytest.mark.parametrize(("variant", "name"), [(LN, "layernorm"), (FULL, "whole")])
def test_what_holds_with_dropout_alone_is_called_so(variant, name):
    data = agreeing()
    data["mu"][variant, :, NONE] *= 0.9 ** np.arange(DEPTH + 1)
    data["mu"][variant, :2, experiment.ATTENTION] *= 0.9 ** np.arange(DEPTH + 1)
    verdict = verdicts(data)[name]
    assert not verdict.reproduced
    assert verdict.outcome == "reproduced only with dropout (hidden, both)"


def test_the_network_is_that_of_bert_at_initialisation():
    """Against the definition in transformers' configuration: N(0, .02^2), biases 0."""
    d, heads = 768, 12
    layer = bert.Attention(d, heads, 3).layer(5, d)
    width = d // heads
    for matrix, sd in ((layer.query, 0.02 / width**0.5), (layer.key, 0.02), (layer.value, 0.02),
                       (layer.output, 0.02)):  # fmt: skip
        assert matrix.dtype == np.float32
        assert matrix.std() == pytest.approx(sd, rel=0.01)
        assert abs(matrix.mean()) < 0.01 * sd
    assert not layer.query_bias.any() | layer.output_bias.any()
    W_1, b_1, W_2, b_2 = bert.Perceptron(3).layer(5, d)
    assert W_1.shape == (768, 3072)
    assert (W_1.std(), W_2.std()) == pytest.approx((0.02, 0.02), rel=0.01)
    assert not b_1.any() | b_2.any()
    other = bert.Attention(d, heads, 3).layer(6, d)
    assert not np.array_equal(other.value, layer.value)


def test_the_excerpts_are_english_word_pieces():
    ids = bert.word_pieces(4, 128)
    assert ids.shape == (4, 128)
    x = bert.embedding(ids, 96, 0)
    assert x.dtype == np.float32
    assert np.allclose((x.astype(float) ** 2).sum(axis=-1), 96, rtol=1e-4)


def test_the_variants_are_those_of_the_paper():
    assert list(VARIANTS) == ["SAN", "SAN + skip", "SAN + LN", "SAN + skip + LN", "transformer"]
    paper = experiment.SETTINGS["paper"]
    assert paper["networks"] * paper["excerpts"] == 3000
