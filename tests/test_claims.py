"""Every experiment's claim is made to fail: by data that say otherwise, one change at a time.

Those of experiments that train are tried in `tests/test_training.py`, for seconds are too short.
"""

import numpy as np
import pytest

from experiments import experiments
from experiments.layernorm_ellipsoid import LARGEST
from experiments.radius_does_not_order_rates import DEFECTIVE


def put(array, where, value):
    array = np.array(array)
    array[where] = value
    return array


def moved(share, where):
    """A tenth of the starts moved from rank 1 to rank 2."""
    share = np.array(share)
    share[where] = share[where] - 0.1 * np.array([0.0, 1.0, -1.0, 0.0])
    return share


def cut_rank(data, rank):
    return data["w"][data["w"][:, 1] != rank]


def moved_fold(data):
    events = [str(e) for e in data["c_0_events"]]
    return np.array(
        [f"fold at {float(e.split()[-1]) + 2e-3}" if "fold" in e else e for e in events]
    )


#: By experiment: what is changed, and the arrays that take the place of those found.
CHANGES = {
    "bifurcations": {
        "no equilibria of rank 2": lambda data: {"w": cut_rank(data, 2)},
        "a fold elsewhere": lambda data: {"c_0_events": moved_fold(data)},
        "no fold": lambda data: {"c_0_events": np.array([], "U64")},
        "not stable at first": lambda data: {"beta_up_radius": put(data["beta_up_radius"], 0, 1.1)},
    },
    "dong_cubic_law": {
        "another coefficient": lambda data: {"predicted": data["predicted"] + 1e-5},
        "another exponent": lambda data: {"exponent": data["exponent"] - 0.01},
        "not deep": lambda data: {key: data[key] / 10 for key in ("log_s", "predicted")},
    },
    "layernorm_ellipsoid": {
        "off the hyperplane": lambda data: {"off_plane": data["off_plane"] + 1e-9},
        "off the surface": lambda data: {"level": data["level"] * 0.999},
        "an input along 1": lambda data: {
            "offset": put(data["offset"], 3, 1.01 * LARGEST * data["baseline"][3])
        },
    },
    "log_scale_accuracy": {
        "a case that is wrong by 1e-8": lambda data: {
            "logscale": put(data["logscale"], 0, data["exact"][0] * (1 + 1e-8) + 1e-8)
        },
        "another cubic law": lambda data: {"cubic_expected": data["cubic_expected"] + 1e-5},
        "not deep": lambda data: {
            key: data[key][data["cubic"] > -1e4] for key in ("cubic", "cubic_expected")
        },
    },
    "radius_does_not_order_rates": {
        "the largest radius is the slowest": lambda data: {
            key: put(data[key], DEFECTIVE, 0.99999) for key in ("lambda_2", "rate")
        },
        "rates that are not lambda_2": lambda data: {"rate": data["rate"] - 1e-3},
        "one rate for one radius": lambda data: {
            "lambda_2": put(data["lambda_2"], data["radius"] == 1, 0.5),
            "rate": put(data["rate"], data["radius"] == 1, 0.5),
        },
    },
    "real_layer_limits": {
        "rank 3 once": lambda data: {"rank": put(data["rank"], (-1, 0, 0), 3)},
        "no consensus": lambda data: {"relative_mu": data["relative_mu"] + 1e-5},
        "consensus everywhere": lambda data: {
            "rank": np.ones_like(data["rank"]), "relative_mu": 0.0 * data["relative_mu"],
        },
        "more clusters": lambda data: {"clusters": data["clusters"] + 1},
        "clusters that meet": lambda data: {"relative_mu": 0.1 * data["relative_mu"]},
    },
    "two_token_arcs": {
        "one that ends elsewhere": lambda data: {
            "second": put(data["second"], (1, 3, -1), (0.0, 1.0))
        },
        "one that leaves its arc on the way": lambda data: {
            "second": put(data["second"], (2, 3, 1), (1.0, 0.0))
        },
        "another rate": lambda data: {"second": data["second"][:, :, ::2]},
        "token 1 that moves": lambda data: {"first": data["first"] + 1e-6},
    },
    "two_token_circle": {
        "two that do not meet without a norm": lambda data: {
            "mu": put(data["mu"], (0, 3, -1), 1e-3)
        },
        "one outside the arc that stays apart": lambda data: {
            "mu": put(data["mu"], (1, 0, -1), 1.0)
        },
        "another end than B": lambda data: {"second": data["second"] + 1e-6},
        "one inside the arc that meets": lambda data: {
            "mu": put(data["mu"], (1, 20, -1), 0.0)
        },
    },
    "masks_and_values": {
        "an orthogonal matrix that keeps rank 2": lambda data: {
            "share": moved(data["share"], (slice(None), data["value"] == "orthogonal"))
        },
        "rank 2 under the complete mask": lambda data: {
            "share": moved(data["share"], data["mask"] == "complete")
        },
        "no rank 2": lambda data: {"share": np.eye(4)[1] * np.ones_like(data["share"])},
        "shares that are none": lambda data: {"share": 0.9 * data["share"]},
    },
    "skip_and_placement": {
        "pre-norm rates of post-norm": lambda data: {"rate": data["rate"][[1, 1, 2]]},
        "post-norm rates of pre-norm": lambda data: {"rate": data["rate"][[0, 0, 2]]},
        "post-norm that stays": lambda data: {"share": data["share"][[1, 1, 2]]},
        "pre-norm that collapses above 1": lambda data: {"share": data["share"][[0, 0, 2]]},
        "pre-norm that stays below 1": lambda data: {
            "share": np.maximum(data["share"], put(0.0 * data["share"], 1, 0.1))
        },
        "rates that were not measured": lambda data: {"rate": np.nan * data["rate"]},
    },
    "window_and_temperature": {
        "rates a little off": lambda data: {"rate": data["rate"] + 0.3 * (1 - data["rate"])},
        "one temperature that is off": lambda data: {
            "rate": put(data["rate"], (0, 0, -1), data["rate"][0, 0, -1] - 0.01)
        },
        "the power of t left out": lambda data: {
            "rate": put(data["rate"], (1, 0), 0.5 * (1 + 1 / 150.0) ** data["power"][1, 0])
        },
        "far from consensus": lambda data: {"share": np.ones_like(data["share"])},
        "rates that were not measured": lambda data: {"rate": np.nan * data["rate"]},
        "wider windows that are slower": lambda data: {
            name: data[name][:, ::-1] for name in ("rate", "lambda_2", "share", "power")
        },
    },
    "unselectable_keys": {
        "one after LayerNorm": lambda data: {"counts": put(data["counts"], (1, 0, 0, 0), 1)},
        "twice the expectation": lambda data: {"expected": 2 * data["expected"]},
        "a front that moves left": lambda data: {
            "counts": data["counts"][:, ::-1], "expected": data["expected"][::-1],
        },
    },
}  # fmt: skip
#: Whose claims have tests of their own, and where.
ELSEWHERE = {
    "tests/test_architect_claims.py": {
        "elementwise_norms",
        "single_changes",
        "sinks_and_rank",
    },
    "tests/test_attention_claims.py": {
        "critical_scale",
        "norm_placements",
        "phases_at_initialisation",
        "position_bias",
    },
    "tests/test_training.py": {
        "layernorm_and_rmsnorm_twins",
        "majority_keys_and_queries",
        "majority_task",
        "unselectable_in_a_classifier",
        "unselectable_in_language_models",
    },
    "tests/test_masks_and_layernorm.py": {"masks_and_layernorm"},
    "tests/test_real_models.py": {
        "orthogonality_in_real_models",
        "spectra_of_real_models",
        "temperature_of_attention",
        "unselectable_in_real_models",
    },
    "tests/test_equilibria_claims.py": {
        "jordan_family",
        "jordan_starts",
        "stable_every_rank",
        "stable_full_rank",
        "two_token_basins",
    },
}


def test_every_claim_is_tried():
    assert set(CHANGES) | set.union(*ELSEWHERE.values()) == set(experiments())


@pytest.mark.parametrize("name", CHANGES)
def test_a_claim_holds_as_found(name, smoke):
    assert experiments()[name].claim(smoke(name).data).reproduced


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name, changes in CHANGES.items() for change in changes]
)
def test_a_claim_fails_on_data_that_say_otherwise(name, change, smoke):
    data = smoke(name).data
    verdict = experiments()[name].claim(data | CHANGES[name][change](data))
    assert verdict.reproduced is False
