"""Single changes, element-wise norms, sinks and rank: each verdict is turned by data that say
otherwise."""

import numpy as np
import pytest
from claims import changed_verdict, check_claims_hold, put

from experiments import elementwise_norms, single_changes, sinks_and_rank


def having(start, value, *names):
    """log10(mu / ||X||) of these changes of a network is this number instead."""

    def change(data):
        key = f"{start}_share"
        rows = np.isin(data[f"{start}_names"], names)
        assert rows.sum() == len(names)
        return {key: put(data[key], rows, value)}

    return change


def both(one, other):
    """Two changes of different arrays."""
    return lambda data: one(data) | other(data)


WEIGHT, NOCI = "skip 4 = DeepNorm's weight", "branch / √L"
DEEP, POST, PRE = (getattr(elementwise_norms, name) for name in ("DEEPNORM", "POST", "PRE"))
DYT, RMS = (list(elementwise_norms.NORMS).index(name) for name in ("DyT", "RMSNorm"))
WHOLE, OTHERS = sinks_and_rank.WHOLE, sinks_and_rank.OTHERS
STABLE, ENTROPY, SHARE = range(3)

#: By experiment and number of the claim: what is changed, and the arrays that take their place.
CHANGES = {
    ("single_changes", 0): {
        "no smaller branch helps": having("alone", -9.0, WEIGHT, NOCI, "skip 1, LayerNorm before"),
    },
    ("single_changes", 1): {
        "LayerNorm saves": having("alone", -0.1, "LayerNorm after"),
        "DyT saves": having("alone", -1.9, "DyT after"),
    },
    ("single_changes", 2): {
        "not attention alone": having("alone", -0.5, NOCI),
        "not the block": having("block", -0.5, NOCI),
    },
    ("single_changes", 3): {
        "a sink saves": having("alone", -1.0, "sink, logit 4"),
        "QK-norm saves": having("alone", -1.0, "QK-norm, gain 16"),
    },
    ("single_changes", 4): {
        "the block is lost": having("block", -3.0, "as it is"),
        "it needs no skip": having("block", -1.0, "no skip"),
        "another change ruins it": having("block", -3.0, "RoPE"),
        "a smaller branch keeps less": having("block", -1.5, NOCI),
    },
    ("single_changes", 5): {
        "dropout does not keep it": having("alone", -5.0, "hidden dropout .1"),
        "equal tokens stay nearer": lambda data: {"alone_equal": data["alone_equal"] - 0.2},
        "equal tokens stay equal": lambda data: {"alone_equal": -np.inf * data["alone_equal"] ** 2},
    },
    ("single_changes", 6): {
        "causal as fast": having("alone", -1e61, "causal mask"),
        "a window as fast": having("alone", -60.0, "one-way window 1"),
    },
    ("elementwise_norms", 0): {
        "unlike under pre-norm": lambda data: {
            "by_layer": put(data["by_layer"], (PRE, DYT, slice(None), -1), -3.0)
        },
    },
    ("elementwise_norms", 1): {
        "twice as fast": lambda data: {"by_layer": 2.0 * data["by_layer"]},
        "one norm slower": lambda data: {
            "by_layer": put(data["by_layer"], (POST, RMS), 0.5 * data["by_layer"][POST, RMS])
        },
    },
    ("elementwise_norms", 2): {
        "DyT loses it": lambda data: {
            "by_layer": put(data["by_layer"], (DEEP, DYT, slice(None), -1), -1.0)
        },
        "RMSNorm keeps it": lambda data: {
            "by_layer": put(data["by_layer"], (DEEP, RMS, slice(None), -1), -0.01)
        },
        "signs change": lambda data: {"signs": 0.5 * data["signs"]},
        "all signs stay": lambda data: {"signs": np.ones_like(data["signs"])},
    },
    ("sinks_and_rank", 0): {
        "no compression": lambda data: {
            "massive": put(data["massive"], np.s_[-1, :, WHOLE, STABLE], 1.5)
        },
        "above the bound": lambda data: {"bound": 0.99 * data["bound"]},
        "the others lose rank": lambda data: {
            "massive": put(data["massive"], np.s_[-1, :, OTHERS, STABLE], 1.0)
        },
        "the others collapse": lambda data: {
            "massive": put(data["massive"], np.s_[-1, :, OTHERS, SHARE], -1.0)
        },
    },
    ("sinks_and_rank", 1): {
        "no valley": lambda data: {"valley": data["valley"][:, :, [OTHERS, OTHERS]]},
        "a valley of all tokens": lambda data: {"valley": data["valley"][:, :, [WHOLE, WHOLE]]},
        "no way back": lambda data: {
            "valley": put(data["valley"], np.s_[:, len(data["valley"][0]) // 2 :, WHOLE], 0.01)
        },
    },
    ("sinks_and_rank", 2): {
        "a sink behind RMSNorm": lambda data: {"first": data["first"][[1, 1]]},
        "no sink without": lambda data: {"first": data["first"][[0, 0]]},
    },
    ("sinks_and_rank", 3): {
        "no gain beside a skip": lambda data: {"sinks": data["sinks"][[2, 1, 2]]},
        "no gain with several heads": lambda data: {"sinks": data["sinks"][[0, 2, 2]]},
        "a gain with one head": lambda data: {"sinks": data["sinks"][[0, 1, 1]]},
    },
}
#: Claims of the papers that hold with something they do not say.
ONLY_WITH = {
    ("single_changes", 0): "a smaller branch",
    ("elementwise_norms", 0): "pre, skip 1",
}
NAMES = sorted({name for name, _ in CHANGES})


@pytest.mark.parametrize("name", NAMES)
def test_claims_hold_as_found(name, smoke):
    check_claims_hold(name, smoke(name).data, CHANGES, ONLY_WITH)


@pytest.mark.parametrize(
    ("claim", "change"), [(claim, words) for claim, many in CHANGES.items() for words in many]
)
def test_a_claim_fails_on_data_that_say_otherwise(claim, change, smoke):
    assert changed_verdict(claim, smoke(claim[0]).data, CHANGES[claim][change]).failed


def test_skips_and_mlps_that_save_would_reproduce_the_claim(smoke):
    data = smoke("single_changes").data
    verdict = single_changes.claims(data | having("alone", -1.0, "skip 1", "MLP")(data))[0]
    assert verdict.reproduced
    assert not verdict.only_with


def test_the_same_everywhere_would_reproduce_the_replacement(smoke):
    data = smoke("elementwise_norms").data
    alike = data["by_layer"][:, [RMS] * len(elementwise_norms.NORMS)]
    verdict = elementwise_norms.claims(data | {"by_layer": alike})[0]
    assert verdict.reproduced
    assert not verdict.only_with


def test_every_change_is_one_that_a_network_has():
    settings = single_changes.SETTINGS["smoke"]
    for start, rows in single_changes.changes(settings["tokens"], settings["depth"]).items():
        plain = single_changes.network(settings, start, rows["as it is"], 0)
        for name, change in rows.items():
            changed = single_changes.network(settings, start, change, 0)
            assert (changed == plain) == (name == "as it is"), (start, name)


def test_the_bound_on_the_stable_rank_is_rayleighs(rng):
    for _ in range(20):
        x = rng.standard_normal((7, 5)) * np.exp(rng.standard_normal((7, 1)))
        M, R = np.sum(x[0] ** 2), np.sum(x[1:] ** 2)
        alpha = np.sum((x[1:] @ x[0]) ** 2) / (M * R)
        bound = sinks_and_rank.stable_rank_bound(x)
        assert bound == pytest.approx((M + R) / (M + alpha * R))
        assert np.sum(x * x) / np.linalg.norm(x, 2) ** 2 <= bound * (1 + 1e-12)


def test_the_share_of_a_sink_among_equal_scores():
    from dynsim import attention

    n, b = 5, 1.3
    mask = np.tril(np.ones((n, n), bool))
    A = attention.Softmax(sink=b).weights(np.zeros((1, n, n)), mask)
    assert sinks_and_rank.uniform_sink(np.array([b]), n)[0] == pytest.approx(1 - A.sum() / n)
