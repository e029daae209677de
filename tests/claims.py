"""Claims of experiments in several sentences: as they are found, and on data that say otherwise."""

import numpy as np

from experiments import experiments


def put(array, where, value):
    """The array, as floats, with this value there."""
    array = np.array(array, float)
    array[where] = value
    return array


def check_claims_hold(name, data, changes, only_with):
    """All claims of an experiment are tried, and hold, some of them with what they do not say.

    changes : by (experiment, number of the claim). only_with : words by the same.
    """
    verdicts = experiments()[name].claims(data)
    assert len(verdicts) == sum(one == name for one, _ in changes)
    for k, verdict in enumerate(verdicts):
        words = only_with.get((name, k), "")
        assert words in verdict.only_with
        assert verdict.reproduced != bool(words)


def changed_verdict(claim, data, change):
    """The verdict on a claim, (experiment, number), with some arrays of its data changed."""
    name, k = claim
    return experiments()[name].claims(data | change(data))[k]
