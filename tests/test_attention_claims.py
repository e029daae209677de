"""Position bias, critical scale, phases and placements: each verdict is turned by data that say
otherwise."""

import numpy as np
import pytest
from claims import changed_verdict, check_claims_hold, put

from experiments import experiments


def exponential(rate):
    return lambda data: {
        f"post_{h:g}": np.exp(-rate * h * np.arange(data[f"post_{h:g}"].shape[1]))[None]
        for h in (1.0, 0.5, 0.1)
    }


def flat(data):
    return {"measured": np.full_like(data["measured"], 1.0 / data["measured"].shape[-1])}


#: By experiment and number of the claim: what is changed, and the arrays that take their place.
CHANGES = {
    ("critical_scale", 0): {
        "a line elsewhere": lambda data: {"gamma": 1.2 * data["gamma"]},
        "another closed form": lambda data: {"simplex": data["simplex"] * (1 + 1e-6)},
        "no nearer with more tokens": lambda data: {"simplex": data["simplex"][::-1]},
        "never crossed": lambda data: {"simplex": 0.0 * data["simplex"]},
    },
    ("critical_scale", 1): {
        "as wide for many tokens": lambda data: {"simplex": data["simplex"][[0, 0]]},
        "a width that falls otherwise": lambda data: {"tokens": np.array([16, 256])},
    },
    ("critical_scale", 2): {
        "far from it in every dimension": lambda data: {"random": 0.5 * data["random"]},
        "never crossed": lambda data: {"random": 0.0 * data["random"]},
    },
    ("position_bias", 0): {
        "the middle keeps its share": flat,
        "twice as slow": lambda data: {"depths": 2 * data["depths"]},
        "above the bound": lambda data: {"least": np.full_like(data["least"], 1 / 32)},
    },
    ("position_bias", 1): {
        "flat": flat,
        "a U without skip, too": lambda data: {
            "measured": np.concatenate([data["measured"][[1]], data["measured"][1:]])
        },
        "no U for uniform attention": lambda data: {"uniform": data["uniform"][[0, 0, 0]]},
        "the last token forgotten": lambda data: {
            "measured": put(data["measured"], np.s_[..., -1], 1e-9)
        },
    },
    ("position_bias", 2): {
        "a growing skip does not": lambda data: {"first": put(data["first"], (4, -1), 0.9)},
        "a skip that grows like the layer prevents it": lambda data: {
            "first": put(data["first"], 3, 0.3)
        },
    },
    ("norm_placements", 0): {
        "exponentials of rate 2 at every step": exponential(2.0),
        "rate 1": exponential(1.0),
        "no fall": exponential(0.0),
        "another prediction": lambda data: {"rates": 1.01 * data["rates"]},
    },
    ("norm_placements", 1): {
        "1/t": lambda data: {"growing": data["growing"] ** 0.5},
        "exponential": lambda data: {
            "growing": np.broadcast_to(np.exp(-0.02 * data["depths"]), data["growing"].shape)
        },
        "another prediction": lambda data: {"law": data["law"] + 1.0},
    },
    ("norm_placements", 2): {
        "peri as fast as pre": lambda data: {"initial": data["initial"][[0, 1, 1]]},
        "pre twice as fast": lambda data: {"initial": put(data["initial"], 1, 2.0)},
    },
    ("phases_at_initialisation", 0): {
        "tokens apart at small variance": lambda data: {
            "cosine": put(data["cosine"], np.s_[:, 0, 0], 0.1)
        },
        "alike at large variance": lambda data: {"cosine": put(data["cosine"], np.s_[0], 0.99)},
        "attention concentrated everywhere": lambda data: {"entropy": 0.1 * data["entropy"]},
        "attention spread everywhere": lambda data: {"entropy": data["entropy"] ** 0.1},
    },
    ("phases_at_initialisation", 1): {
        "agreement with any skip": lambda data: {"cosine": put(data["cosine"], np.s_[1], 0.99)},
        "no agreement without": lambda data: {"cosine": put(data["cosine"], np.s_[1], 0.1)},
        "another prediction": lambda data: {"wide": 0.5 * data["wide"]},
        "no prediction": lambda data: {"wide": np.nan * data["wide"]},
    },
    ("phases_at_initialisation", 2): {
        "farther with more tokens": lambda data: {"first": data["first"][::-1]},
        "the same for all sizes": lambda data: {"first": data["first"][[0, 0]]},
    },
}
#: Claims of the papers that hold with something they do not say.
ONLY_WITH = {
    ("position_bias", 2): "sum of 1 / (s_l + 1) is finite",
    ("phases_at_initialisation", 0): "few layers",
    ("phases_at_initialisation", 1): "a depth that is given",
}
NAMES = sorted({name for name, _ in CHANGES})


@pytest.mark.parametrize("name", NAMES)
def test_claims_hold_as_found(name, smoke):
    check_claims_hold(name, smoke(name).data, CHANGES, ONLY_WITH)


@pytest.mark.parametrize(
    ("claim", "change"), [(claim, words) for claim, many in CHANGES.items() for words in many]
)
def test_a_claim_fails_on_data_that_say_otherwise(claim, change, smoke):
    verdict = changed_verdict(claim, smoke(claim[0]).data, CHANGES[claim][change])
    assert verdict.reproduced is False
    assert claim not in ONLY_WITH or not verdict.only_with


def test_a_constant_skip_that_prevented_the_collapse_would_reproduce_the_claim(smoke):
    data = smoke("position_bias").data
    verdict = experiments()["position_bias"].claims(data | {"first": put(data["first"], 1, 0.3)})[2]
    assert verdict.reproduced
    assert not verdict.only_with


def test_random_tokens_of_few_dimensions_may_miss_the_line(smoke):
    data = smoke("critical_scale").data
    left = data["random"].copy()
    left[0] = np.interp(1.3 * data["gamma"], data["gamma"], left[0])
    verdict = experiments()["critical_scale"].claims(data | {"random": left})[2]
    assert "d of" in verdict.only_with


def test_the_figures_are_legible(smoke):
    from pictures import problems

    from dynsim.results import style

    for name in NAMES:
        with style.context():
            assert problems(style.fit(experiments()[name].draw(smoke(name).data))) == [], name
