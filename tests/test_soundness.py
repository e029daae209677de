"""Storms in a short form, and that a storm can fail."""

import json

import pytest

from experiments.__main__ import main
from experiments.soundness import storm
from experiments.soundness.storm import Outcome, Report


@pytest.mark.parametrize("name", storm.storms())
def test_nothing_is_violated(name):
    module = storm.storms()[name]
    report = storm.run(name, systems=max(20, module.SYSTEMS // 1000), seed=1)
    assert not report.violations, str(report)
    assert report.kinds["holds"] > 0, str(report)


@pytest.mark.parametrize("index", [1071, 3670, 3746, 4159, 5369])
def test_rounding_that_later_layers_make_large_is_flagged(index):
    """Systems in which single layers lose little, and log10 mu is wrong by up to 0.1 at the end."""
    log_scale = storm.storms()["log_scale"]
    assert log_scale.trial(storm.stream("log_scale", 0, index)).kind == "flagged"


@pytest.mark.parametrize(("index", "kind"), [(7056, "holds"), (27910, "flagged")])
def test_attention_to_nearly_one_key_alone_is_seen(index, kind):
    """Where scores between deviations are small all the same, and where a norm takes away most
    directions in which rounding may have moved the other tokens."""
    log_scale = storm.storms()["log_scale"]
    assert log_scale.trial(storm.stream("log_scale", 0, index)).kind == kind


def test_a_violation_is_counted_and_named():
    report = Report("s", "never", "nobody", seed=0)
    report.add(0, Outcome("holds", error=1e-3))
    report.add(1, Outcome("violated", "star", "mu above its bound"))
    assert (report.systems, report.worst) == (2, 1e-3)
    assert "1 holds, 0 flagged, 1 violated" in str(report)
    assert "VIOLATED, trial 1: mu above its bound" in str(report)
    assert report.to_dict()["groups"] == {"holds": 1, "star: violated": 1}
    with pytest.raises(ValueError, match="a trial ends as one of"):
        Outcome("fine")


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["no_such"], "unknown storm 'no_such'; known are"),
        (["--share", "0"], "--share is a number above 0"),
        (["--workers", "0"], "--workers is at least 1"),
    ],
)
def test_bad_input_is_refused(arguments, rule, capsys):
    assert main(["soundness", *arguments]) == 2
    assert rule in capsys.readouterr().err


def test_the_number_of_workers_decides_nothing(tmp_path):
    for workers in ("1", "2"):
        command = ["soundness", "ellipsoid", "--share", "1e-9", "--workers", workers]
        assert main([*command, "--out", str(tmp_path / workers)]) == 0
    one, two = (json.loads((tmp_path / w / "soundness.json").read_text()) for w in "12")
    for found in (one, two):
        found["storms"]["ellipsoid"].pop("seconds")
    assert one["storms"] == two["storms"]
