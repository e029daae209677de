"""The benchmark's machinery on tiny sizes. Nothing here depends on how long anything takes."""

import json
import sys
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from experiments import experiments
from experiments.benchmarks import __main__ as command
from experiments.benchmarks import (
    accuracy,
    cases,
    compare,
    measures,
    peaks,
    report,
    rivals,
    scaling,
    selectability,
    timing,
)
from experiments.benchmarks.cases import Case

TINY = {
    case.name: case
    for case in (
        Case("complete", "small", 8, 4, 6, layers=6, quick=True, target={"jax": 2.0}),
        Case("chunked causal", "medium", 160, 8, 12, "causal", layers=4, quick=True),
        Case("local", "local", 128, 8, 1, "local", 5, layers=4, quick=True),
        Case("random", "local", 100, 8, 1, "random", 7, layers=4, quick=True),
        Case("long", "long", 4, 3, layers=20, serial=True, quick=True),
        Case("float32", "float32", 96, 8, 2, "causal", layers=4, quick=True, dtype="float32"),
    )
}
SETTING = rivals.Setting(threads=2, patience=5.0)
PEAKS = peaks.Peaks(2, (1e10, 2e10), (1e9, 2e9), (1e10, 1e10))
EFFORT = compare.Effort(0.001, 2)


def silent(message):
    pass


def shown(case):
    console = Console(width=250, file=StringIO())
    report.print_report({"cases": [case], "complete": True}, console)
    return console.file.getvalue()


def shown_measures(found):
    console = Console(width=250, file=StringIO())
    report.print_report({"cases": [], "complete": True, "measures": found}, console)
    return console.file.getvalue()


@pytest.mark.parametrize("name", ["loop", "numpy", "torch", "sdpa", "jax"])
@pytest.mark.parametrize("case", TINY.values(), ids=TINY)
def test_rivals_do_the_same_work(name, case):
    if name == "jax":
        pytest.importorskip("jax")
    problem = case.build()
    expected = rivals.ours(problem, SETTING)(3)
    for run in rivals.forms_of(name, problem, SETTING).values():
        found = run(3)
        assert found.mu.shape == found.cosine.shape == (case.samples, 3)
        assert found.distance(expected) < compare.TOLERANCE[case.dtype]


@pytest.mark.parametrize("case", TINY.values(), ids=TINY)
def test_work_is_counted_on_the_mask(case):
    problem = case.build()
    allowed = problem.allowed()
    pairs = case.n**2 if allowed is None else int(allowed.sum())
    n, d = case.n, case.d
    assert problem.counts["exps"] == pairs
    assert problem.counts["flops"] == 4 * pairs * d + 4 * n * d**2 + 8 * n * d
    if case.mask != "random":
        assert case.pairs == pairs


def test_sizes_and_targets_name_what_exists():
    assert {case.regime for case in cases.CASES.values() if case.quick} == {
        case.regime for case in cases.CASES.values()
    }
    for case in cases.CASES.values():
        assert set(case.target) <= set(rivals.RIVALS)


def test_what_is_not_installed_is_listed_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "experiments.benchmarks.rivals_jax", raising=False)
    found = compare.compare(TINY["complete"], SETTING, EFFORT, PEAKS, ("numpy", "jax"), silent)
    assert "jax is not installed" in found["variants"]["jax"]["absent"]
    assert found["variants"]["numpy"]["ratio"] > 0
    assert "absent: JAX scan in complete: jax is not installed" in shown(found)


def test_what_takes_too_long_or_too_much_is_listed_with_the_reason():
    problem = cases.CASES["local-65536-w32"].build()
    with pytest.raises(rivals.Absent, match="longer than 5 s"):
        rivals.forms_of("loop", problem, SETTING)
    with pytest.raises(timing.TooSlow, match="longer than 0"):
        timing.sized(lambda layers: None, 10, 0.1, patience=0.0)


def test_a_rival_that_disagrees_or_fails_does_not_count(monkeypatch):
    def wrong(name, problem, setting):
        ours = rivals.ours(problem, setting)

        def fail(layers):
            raise MemoryError("no room\nfor this")

        if name == "loop":
            return {"fails": fail}
        return {"wrong": lambda layers: ours(layers)._replace(x=problem.x0)}

    monkeypatch.setattr(rivals, "forms_of", wrong)
    variants = compare.compare(TINY["complete"], SETTING, EFFORT, PEAKS, ("loop", "numpy"), silent)[
        "variants"
    ]
    assert "MemoryError: no room" in variants["loop"]["absent"]
    assert "DISAGREES" in variants["numpy"]["absent"]


def test_variants_take_turns_in_alternating_order(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    called = []

    def timer(name):
        called.append(name)
        return len(called)

    found = timing.in_turns({name: lambda name=name: timer(name) for name in "abc"}, 3)
    assert "".join(called) == "abccbaabc"
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_a_timing_is_long_enough_within_the_layers_there_are():
    load = timing.sized(lambda layers: None, most=5, seconds=1e-4)
    assert load.layers == 5
    assert load.calls > 1


def test_slope_and_spread():
    sizes = np.array([100, 200, 400, 800])
    assert timing.slope(sizes, 3e-7 * sizes**1.5) == pytest.approx(1.5)
    assert timing.spread([1.0, 2.0, 3.0]) == pytest.approx(0.25)


def test_peaks_bound_time_from_below():
    found = peaks.measured_peaks(2, rounds=1, megabytes=1)
    assert min(*found.flops, *found.exps, *found.bytes) > 0
    work = {"flops": 4e9, "exps": 1e9, "bytes": 0}
    assert PEAKS.least_seconds(work, threads=1) == pytest.approx(1.4)
    assert PEAKS.least_seconds(work, threads=2) == pytest.approx(0.7)
    assert PEAKS.least_seconds(work | {"bytes": 1e11}, threads=2) == pytest.approx(10)


def test_scaling_fits_slopes(monkeypatch):
    series = {"time against N, complete": (2, [Case("", "", n, 4, layers=2) for n in (8, 16, 32)])}
    monkeypatch.setattr(scaling, "SERIES", series)
    monkeypatch.setattr(scaling, "THREADS", ("tiny",))
    monkeypatch.setattr(scaling, "CASES", {"tiny": TINY["complete"]})
    monkeypatch.setattr(scaling, "_memory", lambda n: 1000 * n)
    for threads in (1, 2):
        setting = rivals.Setting(threads=threads, patience=5.0)
        found = scaling.measured_scaling(setting, EFFORT, quick=False, say=silent)
        assert report._scaling_table(found).row_count == 3
    assert np.isfinite(found["series"]["time against N, complete"]["slope"])
    assert found["series"][scaling.MEMORY]["slope"] == pytest.approx(1)
    assert set(found["threads"]["tiny"]) == {"1", "2"}


def test_errors_are_those_of_rounding(monkeypatch):
    pytest.importorskip("mpmath")
    found = accuracy.measured_accuracy(SETTING, ("numpy",), silent)
    assert len(found) == len(accuracy.CASES)
    for case in found.values():
        assert "absent" in case or max(case["errors"]["dynsim"].values()) < 1e-11
        assert "absent" in case or max(case["errors"]["numpy"].values()) < 1e-11


def test_keys_are_decided_as_highs_does(monkeypatch):
    monkeypatch.setattr(selectability, "SIZES", [(12, 2, True), (5, 4, True)])
    monkeypatch.setattr(selectability, "SETS", 20)
    found = selectability.measured_selectability(EFFORT, quick=True, say=silent)
    assert list(found) == ["n=12 d=2", "n=5 d=4"]
    for row in found.values():
        assert row["decisions"] == "same"
        assert row["ratio"] > 0
    assert report._selectability_table(found).row_count == 2


def test_measures_are_timed_beside_numpy_and_torch(monkeypatch):
    monkeypatch.setattr(measures, "SIZES", [(5, 3, 20, True), (3, 4, 2, True), (9, 2, 2, False)])
    monkeypatch.setattr(measures, "CALLS", [("complete", 4), ("local", 3)])
    monkeypatch.setattr(measures, "CASES", TINY)
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    found = measures.measured_measures(EFFORT, quick=True, say=silent)
    assert list(found["values"]) == ["5 x 3", "3 x 4"]
    for row in found["values"].values():
        assert row["values"] == "same"
        assert row["ratios"]["numpy"] > 0
    assert [row["records"] for row in found["calls"].values()] == [5, 4]
    assert report._values_table(found["values"]).row_count == 2
    assert report._calls_table(found["calls"]).row_count == 2
    printed = shown_measures(found)
    assert "torch svdvals" in printed
    assert "N=8 d=4 B=6 complete T=4" in printed


def test_singular_values_that_differ_are_said_to(monkeypatch):
    monkeypatch.setattr(measures, "AGREE", 0.0)
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    assert "DISAGREES" in measures._values(6, 4, 9, EFFORT)["values"]


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def tiny_command(monkeypatch):
    """main(arguments) on tiny cases and two rivals, leaving this process's cores alone."""
    monkeypatch.setattr(command, "claim", lambda threads: None)
    monkeypatch.setattr(cases, "CASES", TINY)
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    monkeypatch.setattr(peaks, "measured_peaks", lambda *arguments: PEAKS)
    few = {name: rivals.RIVALS[name] for name in ("loop", "numpy")}
    monkeypatch.setattr(rivals, "RIVALS", few)
    return command.main


def test_everything_measured_is_written(tiny_command, tmp_path, capsys):
    arguments = ["small", "local", "--quick", "--threads", "1", "--out", str(tmp_path)]
    assert tiny_command(arguments) == 0
    printed = capsys.readouterr()
    assert "N=8 d=4 B=6 complete" in printed.out
    assert "roofline" in printed.out
    assert "JAX" not in printed.err
    found = json.loads((tmp_path / "benchmarks.json").read_text())
    assert found["complete"] is True
    assert [case["name"] for case in found["cases"]] == ["complete", "local", "random"]
    assert {"peaks", "versions", "machine", "commit", "date", "settings"} <= set(found)
    for case in found["cases"]:
        assert set(case["variants"]) == {"dynsim", "loop", "numpy"}
        for variant in case["variants"].values():
            assert len(variant["layer_seconds"]) == 3
            assert variant["difference"] < 1e-10
    assert (tmp_path / "benchmarks.png").stat().st_size > 10_000


def test_json_alone_on_standard_output(tiny_command, tmp_path, capsys):
    assert tiny_command(["small", "--quick", "--json", "--out", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True


def test_an_interruption_keeps_what_was_measured(tiny_command, tmp_path, monkeypatch, capsys):
    whole = compare.compare

    def interrupted(case, *arguments, **options):
        if case.name == "local":
            raise KeyboardInterrupt
        return whole(case, *arguments, **options)

    monkeypatch.setattr(compare, "compare", interrupted)
    assert tiny_command(["small", "local", "--quick", "--out", str(tmp_path)]) == 130
    assert {p.name for p in tmp_path.iterdir()} == {
        "benchmarks-incomplete.json",
        "benchmarks-incomplete.png",
    }
    found = json.loads((tmp_path / "benchmarks-incomplete.json").read_text())
    assert found["complete"] is False
    assert [case["name"] for case in found["cases"]] == ["complete"]
    assert "INCOMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["--threads", "0"], ["--threads", "many"], ["--patience", "-1"], ["--what"]],
)
def test_bad_input_is_one_line(tiny_command, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        tiny_command(arguments)
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_names_are_listed_and_benchmarks_are_no_experiment(tiny_command, capsys):
    assert tiny_command(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "chunked causal" in printed
    assert "accuracy" in printed
    assert "benchmarks" not in experiments()
