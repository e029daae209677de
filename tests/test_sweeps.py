"""Sweeps: designs by their definitions, cells by `dynsim run`, a store that loses nothing."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from small_sweep import GRID, SMALL, Threads, computed, content, small

import dynsim
from dynsim.cli import options as cli_options
from dynsim.cli.main import main
from dynsim.cli.run import COMMAND as RUN
from dynsim.sweeps import Specification, Store, cells, from_toml, results, runs
from dynsim.sweeps.execution import DIED, Local, OtherVersion, compute_batch
from dynsim.sweeps.parameters import read_axis
from dynsim.sweeps.settings import make_dynamics
from dynsim.sweeps.store import FAILED, state, versions
from dynsim.sweeps.sweep import complete

pytest.importorskip("zarr")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return computed(tmp_path_factory.mktemp("sweep") / "store")


# --- words for values -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "values"),
    [
        ("window", "1..4", (1, 2, 3, 4)),
        ("window", "1:64:log4", (1, 4, 16, 64)),
        ("window", "1:4:log8", (1, 2, 3, 4)),  # rounded, each once
        ("beta", "0:1:lin3,7", (0.0, 0.5, 1.0, 7.0)),
        ("beta", "0..1..0.5", (0.0, 0.5, 1.0)),
        ("beta", 2, (2.0,)),
        ("value", "orthogonal,gaussian:1.1", ("orthogonal", "gaussian:1.1")),
        ("value", "diagonal:1,2;identity", ("diagonal:1,2", "identity")),
        ("mask", ["causal", "local"], ("causal", "local")),
        ("shared", "on,off", (True, False)),
        ("seeds", "3", (0, 1, 2)),
    ],
)
def test_words_stand_for_values(name, words, values):
    axis = read_axis(name, words)
    assert axis.values == values
    assert [type(v) for v in axis.values] == [type(v) for v in values]


def test_the_ends_of_an_interval_are_exact():
    beta = read_axis("beta", "0.1:10:log9").values
    assert (beta[0], beta[-1], len(beta)) == (0.1, 10.0, 9)
    np.testing.assert_allclose(np.diff(np.log(beta)), np.log(100) / 8, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "words", "error"),
    [
        ("windo", "1", "did you mean 'window'"),
        ("window", "1.5", "window is a whole number; got '1.5'"),
        ("window", "", "window needs at least one value"),
        ("beta", "x", "beta is a finite number; got 'x'"),
        ("beta", "nan", "beta is a finite number"),
        ("beta", True, "beta is a finite number"),
        ("beta", "0:1:log3", "an interval is A:B, positive and upwards"),
        ("beta", "3:1:lin3", "an interval is A:B, upwards"),
        ("beta", "1:3,4", "has a number of values"),
        ("shared", "yes", "shared is on or off"),
        ("mask", 3, "mask is a name; got 3"),
        ("seeds", 0, "seeds is the number of seeds"),
    ],
)
def test_other_words_are_refused(name, words, error):
    with pytest.raises(ValueError, match=error):
        read_axis(name, words)


# --- designs --------------------------------------------------------------------------------------


def test_a_grid_has_all_combinations_and_the_last_parameter_varies_fastest():
    sweep = small()
    seen = [sweep.settings(index) for index in np.ndindex(*sweep.dims.values())]
    wanted = product(("local", "causal"), read_axis("beta", "0.1:10:log3").values,
                     ("identity", "orthogonal"), (0, 1))  # fmt: skip
    assert [(c["mask"], c["beta"], c["value"], c["seed"]) for c in seen] == list(wanted)


def test_a_zip_takes_lists_side_by_side():
    sweep = Specification.of({"beta": [1, 2, 3], "skip": [0, 0.5, 1], "seeds": 2}, "zip")
    assert sweep.dims == {"point": 3, "seed": 2}
    assert [sweep.settings((k, 1))["skip"] for k in range(3)] == [0, 0.5, 1]
    with pytest.raises(ValueError, match="equal length; beta has 2, skip has 3"):
        Specification.of({"beta": [1, 2], "skip": [0, 0.5, 1]}, "zip")


@pytest.mark.parametrize("design", ["sobol", "latin"])
def test_every_part_of_an_interval_has_its_point(design):
    """A Latin hypercube has one point in each of P parts of an axis; so have 2^k Sobol points."""
    given = {"beta": "0.01:100:log", "skip": "0:2", "mask": "causal,complete"}
    sweep = Specification.of(given, design, points=16, design_seed=3)
    cell = [sweep.settings((k,)) for k in range(16)]
    shares = np.log10([c["beta"] for c in cell]) / 4 + 0.5
    assert sorted(np.floor(16 * shares)) == list(range(16))
    assert sorted(np.floor(8 * np.array([c["skip"] for c in cell]))) == list(range(16))
    assert [c["mask"] for c in cell].count("causal") == 8
    assert sweep == Specification.of(given, design, points=16, design_seed=3)
    other = Specification.of(given, design, points=16, design_seed=4)
    assert other.columns != sweep.columns


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"parameters": {"beta": "0:1"}}, "beta: a grid needs values, not an interval"),
        ({"parameters": {"beta": "0:1"}, "design": "sobol"}, "needs a number of points"),
        ({"parameters": {"beta": "0:1"}, "design": "sobol", "points": 6}, "power of two"),
        ({"parameters": {"beta": "1,2"}, "points": 6}, "leave it out of a grid"),
        ({"parameters": {}, "design": "gird"}, "did you mean 'grid'"),
        ({"parameters": {}, "keep": ["end"]}, "did you mean 'ends'"),
        ({"parameters": {"seed": "1,2", "seeds": 2}}, "leave seed out"),
        ({"parameters": {"samples": "1,2"}}, "samples is a dimension of the results"),
        ({"parameters": {"depth": "1,2"}, "keep": ["curves"]}, "depth is what curves need"),
        ({"parameters": {"window": "1,8", "mask": "local", "tokens": 8}}, "the cell window=8: "),
        (
            {"parameters": {"mask": "causal,local", "window": "2"}},
            "'causal' has no window",
        ),
        ({"parameters": {"norm": "layernom"}}, "did you mean 'layernorm'"),
        ({"parameters": {"heads": "3", "dim": 8}}, "does not divide"),
        ({"parameters": {"start": "cube"}}, "unknown start"),
        ({"parameters": {"engine": "nmba"}}, "did you mean 'numba'"),
        ({"parameters": {"depth": 0}}, "depth is at least 1"),
        ({"parameters": {"beta": "-1"}}, "not negative"),
        (
            {"parameters": {"mask": "causal,local", "beta": "1,2,-3"}},
            "mask=causal, beta=-3",
        ),
        ({"parameters": {"tokens": "9,4", "beta": "1,2", "mask": "local:6"}}, "tokens=4, beta=1.0"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_any_work(given, error):
    with pytest.raises(ValueError, match=error):
        Specification.of(**given)


def test_batches_are_whole_trailing_dimensions_and_cover_every_cell_once():
    for sweep in (small(), small(seeds=5, tokens=64), small(beta="0.1:10:log50", seeds=40)):
        counted = np.zeros(tuple(sweep.dims.values()), int)
        for batch in sweep.batches:
            counted[sweep.region(batch)] += 1
        assert (counted == 1).all()
        assert len(list(sweep.batches)) == sweep.n_batches
        full = [b == n for b, n in zip(sweep.batch, sweep.dims.values(), strict=True)]
        assert sum(1 < b < n for b, n in zip(sweep.batch, sweep.dims.values(), strict=True)) <= 1
        assert full == sorted(full)


def test_a_toml_file_is_a_specification(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text('design = "zip"\n[parameters]\nbeta = [1, 2]\nskip = "0,1"\nshared = true\n')
    sweep = Specification.of(**from_toml(path))
    assert sweep == Specification.of({"beta": [1, 2], "skip": [0, 1], "shared": True}, "zip")
    for words, error in (
        ("x", "not a TOML file"),
        ('desing = "zip"', "did you mean 'design'"),
        ('design = "zip"', r"table \[parameters\]"),
    ):
        path.write_text(words)
        with pytest.raises(ValueError, match=error):
            from_toml(path)
    with pytest.raises(ValueError, match="no specification at"):
        from_toml(tmp_path / "none.toml")


def test_skip_takes_numbers_intervals_or_names():
    numbers = Specification.of({"skip": "0,0.5,1"}).columns["skip"].values
    assert tuple(numbers) == (0.0, 0.5, 1.0)
    names = Specification.of({"skip": "0.5,lerp:0.1,deepnorm", "depth": 4})
    assert tuple(names.columns["skip"].values) == ("0.5", "lerp:0.1", "deepnorm")
    skips = [make_dynamics(names.settings((k,))).skip for k in range(3)]
    assert skips == [0.5, dynsim.residual.lerp(0.1), dynsim.residual.deepnorm(4)]
    gated = Specification.of({"gate": "headwise:2", "seed": 3}).settings((0,))
    gate = dynsim.gates.GaussianGate(2.0, headwise=True, seed=3)
    assert make_dynamics(gated).gate == gate
    gated = Specification.of({"gate": "headwise:2", "seed": 3}).settings((0,))
    gate = dynsim.gates.GaussianGate(2.0, headwise=True, seed=3)
    assert make_dynamics(gated).gate == gate
    for given, words in (
        ({"skip": "deepnrm"}, "did you mean 'deepnorm'"),
        ({"skip": "1,2;1", "depth": 4}, "depth is 4, and there are weights for 2 layers"),
        ({"gate": "gausian"}, "did you mean 'gaussian'"),
        ({"ln_scaling": True}, "NoNorm has none"),
    ):
        with pytest.raises(ValueError, match=words):
            Specification.of(given)


# --- cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"mask": "local", "window": 2, "beta": 3.0, "norm": "layernorm", "skip": 1.0, "seed": 5},
        {"heads": 2, "mlp": "gaussian", "shared": True, "placement": "pre", "start": "sphere"},
        {"mask": "sinks:2", "value": ["diagonal:1,2,1,1"], "scores": "identity", "d_qk": 4.0},
        {"dropout": 0.1, "attention_dropout": 0.2, "norm": "rms", "seed": 2},
        {"norm": "dyt:0.7", "skip": "layerscale:0.2", "seed": 3},
        {"norm": "rms", "skip": "deepnorm", "placement": "mix-ln:0.5"},
        {"position": "alibi:0.5", "sink": 0.5, "qk_norm": "rms:2", "heads": 2, "mask": "causal"},
        {"attention": "sigmoid", "position": "rope:50", "norm": "unit", "skip": 1.0},
    ],
)
def test_a_cell_is_the_run_with_these_options(given):
    given = {"tokens": 6, "dim": 4, "samples": 2, "depth": 12} | given
    cell = Specification.of(given).settings((0,))
    given |= {"value": cell["value"]}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()
             if name != "shared"]  # fmt: skip
    options = RUN.parser().parse_args([*words, *["--shared"] * given.get("shared", False)])
    weights = cli_options.make_weights(options)
    mask = cli_options.make_mask(options, options.tokens)
    dropout = cli_options.make_dropout(options)
    dynamics = cli_options.make_dynamics(options, mask, weights, dropout, layers=12)
    assert make_dynamics(cell) == dynamics
    x0 = cli_options.make_tokens(options, None, weights)
    engine, _ = dynsim.engines.preferred(dynamics, x0.dtype)
    run = dynsim.simulate(dynamics, x0, 12, engine=engine, record=dynsim.Record(stride=1))
    (kept,) = cells.compute([cell], ["ends", "verdict", "rate", "rank", "curves", "states"])
    names = dynsim.measures.DEFAULT
    np.testing.assert_array_equal(kept["end"][names.index("mu")], run["mu"][:, -1])
    np.testing.assert_array_equal(kept["end"][names.index("rank")], run["rank"][:, -1])
    np.testing.assert_array_equal(kept["curve"][0], run["mu"])
    np.testing.assert_array_equal(kept["state"], run.final)
    assert kept["verdict"] == dynsim.verdict(run).kind
    rate = dynsim.collapse_rate(run)
    assert kept["law"] == rate.kind
    wanted = {"exponential": rate.value, "none": 1.0 if rate.value else np.nan}
    np.testing.assert_equal(kept["late_rate"], wanted.get(rate.kind, np.nan))
    sigma = np.linalg.svd(run.final, compute_uv=False)
    np.testing.assert_array_equal(kept["limit_rank"], (sigma > 0.01 * sigma[:, :1]).sum(axis=1))


@pytest.mark.parametrize(
    ("engine", "value", "calls_made"),
    [
        ("auto", "identity", 2),  # scores; betas are systems of an ensemble
        ("numba", "identity", 2),
        ("reference", "identity", 6),  # betas as well
        ("auto", "gaussian", 2),  # drawn anew for each seed
        ("numba", "orthogonal", 2),
        ("reference", "gaussian", 60),
    ],
)
def test_cells_are_simulated_at_once_and_have_the_bits_of_each_alone(
    engine, value, calls_made, monkeypatch
):
    given = {"value": value, "scores": "zero,identity", "mask": "causal", "seeds": 5,
             "start": "gaussian,sphere", "engine": engine}  # fmt: skip
    sweep = Specification.of(SMALL | given)
    together = [sweep.settings(index) for index in np.ndindex(*sweep.dims.values())]
    calls = []

    def simulate(*args, **more):
        calls.append(1)
        return dynsim.simulate(*args, **more)

    monkeypatch.setattr(runs, "simulate", simulate)
    keep = ["ends", "verdict", "rate", "rank", "curves", "states"]
    found = cells.compute(together, keep)
    assert len(calls) == calls_made
    for cell, kept in zip(together, found, strict=True):
        (alone,) = cells.compute([cell], keep)
        for name, value in alone.items():
            np.testing.assert_array_equal(kept[name], value)


def test_a_cell_that_fails_leaves_the_others_alone():
    good, bad = (Specification.of(SMALL | {"value": value, "norm": "none", "mask": "causal",
                                           "beta": 1, "seeds": 1}).settings((0,))
                 for value in ("identity", "diagonal:1e200"))  # fmt: skip
    one, error = cells.compute([good, bad], ["verdict"])
    assert [one] == cells.compute([good], ["verdict"])
    assert error.startswith("Overflow: ")


# --- the store ------------------------------------------------------------------------------------


def test_results_are_labelled_and_those_of_the_cells(tmp_path):
    sweep = small()
    data = dynsim.sweep(tmp_path / "store", SMALL, workers=2)
    assert dict(data["verdict"].sizes) == {"mask": 2, "beta": 3, "value": 2, "seed": 2}
    at = {"mask": "causal", "beta": 10.0, "value": "orthogonal", "seed": 1}
    (kept,) = cells.compute([sweep.settings((1, 2, 1, 1))], sweep.keep)
    cell = data.sel(at)
    np.testing.assert_array_equal(cell["end"], kept["end"])
    np.testing.assert_array_equal(cell["end"].sel(measure="mu"), kept["end"][0])
    assert cell["verdict"] == kept["verdict"]
    assert cell["late_rate"] == kept["late_rate"]
    assert data["status"].values.all()
    assert not data["error"].values.any()


def test_points_carry_their_parameters(tmp_path):
    given = SMALL | {"mask": "causal,local", "beta": "0.1:10:log", "value": "orthogonal"}
    store = Store(tmp_path / "store", Specification.of(given, "latin", points=3))
    complete(store, Threads(1))
    data = results(store.path)
    assert set(data["late_rate"].coords) == {"mask", "beta", "seed"}
    assert data["beta"].dims == ("point",)


def test_workers_order_and_resumption_leave_the_same_bytes(tmp_path, undisturbed):
    store = Store(tmp_path / "two", small())
    complete(store, Threads(4))
    assert content(store.path) == undisturbed
    part = Store(tmp_path / "part", small())

    def stop(share):
        if share > 0.4:
            raise KeyboardInterrupt

    with pytest.raises(dynsim.sweeps.Interrupted, match="of 24 cells are in the store"):
        complete(part, Threads(2), progress=stop)
    halfway = state(part.path)
    assert 0 < halfway.remaining < 24
    assert halfway.seconds_left > 0
    complete(Store(part.path, small()), Threads(2))
    assert content(part.path) == undisturbed


def test_two_processes_on_one_store_are_refused(tmp_path):
    store = Store(tmp_path / "store", small())
    with store.locked(), pytest.raises(ValueError, match="another process computes into"):
        complete(Store(store.path, small()), Threads(1))
    complete(Store(store.path, small()), Threads(1))


def test_a_store_of_another_sweep_or_version_is_refused_with_the_difference(tmp_path):
    path = tmp_path / "store"
    Store(path, small())
    with pytest.raises(ValueError, match="parameters depth is 20 there and 30 here"):
        Store(path, small(depth=30))
    with pytest.raises(ValueError, match=r"defaults skip is 0\.0 there and None here"):
        Store(path, small(skip=0.5))
    written = json.loads((path / "zarr.json").read_text())
    written["attributes"]["versions"]["numpy"] = "1.0"
    (path / "zarr.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"numpy is '1\.0' there"):
        Store(path, small())


def test_what_is_no_store_of_a_sweep_is_refused_and_left_alone(tmp_path):
    import zarr

    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="no store of a sweep"):
        Store(tmp_path / "folder", small())
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(ValueError, match="not of a sweep"):
        Store(tmp_path / "other.zarr", small())
    (tmp_path / "file").write_text("")
    with pytest.raises((ValueError, OSError), match="file"):
        Store(tmp_path / "file" / "store", small())


def test_failed_cells_are_told_and_computed_again_alone(tmp_path, monkeypatch, undisturbed):
    store = Store(tmp_path / "store", small())
    computed = []

    def fails(seen, keep):
        found = cells.compute(seen, keep)
        return [f"{c['beta']:g} is bad" if c["beta"] == 10 and c["seed"] == 1 else one
                for c, one in zip(seen, found, strict=True)]  # fmt: skip

    monkeypatch.setattr("dynsim.sweeps.execution.compute", fails)
    complete(store, Threads(1))
    told = state(store.path)
    assert (told.done, told.remaining, len(told.failed)) == (20, 0, 4)
    assert told.failed[0] == (
        {"mask": "local", "beta": 10.0, "value": "identity", "seed": 1}, "10 is bad"
    )  # fmt: skip
    monkeypatch.setattr(
        "dynsim.sweeps.execution.compute",
        lambda seen, keep: computed.extend(seen) or cells.compute(seen, keep),
    )
    complete(store, Threads(1))
    assert not computed
    complete(store, Threads(1), retry=True)
    assert len(computed) == 4
    assert content(store.path) == undisturbed


# --- what may go wrong ----------------------------------------------------------------------------


class Dying(Threads):
    """Workers of which one dies, with all others, whenever it gets a cell of this beta."""

    def __init__(self, beta, times):
        super().__init__(2)
        self.beta, self.left = beta, times

    @contextmanager
    def executor(self):
        machine = self

        class Pool:
            broken = False

            def submit(self, function, batch, *more):
                if machine.left and any(cell["beta"] == machine.beta for cell in batch):
                    self.broken, machine.left = True, machine.left - 1
                future = Future()
                if self.broken:
                    future.set_exception(BrokenProcessPool("died"))
                else:
                    future.set_result(function(batch, *more))
                return future

        yield Pool()


def test_batches_of_a_worker_that_died_are_computed_again(tmp_path, undisturbed):
    store = Store(tmp_path / "store", small())
    complete(store, Dying(1.0, times=2))
    assert content(store.path) == undisturbed


def test_a_cell_that_kills_its_worker_fails_and_takes_no_other_with_it(tmp_path):
    store = Store(tmp_path / "store", small())
    complete(store, Dying(1.0, times=10**6))
    status = results(store.path)["status"]
    assert (status.sel(beta=1.0) == FAILED).all()
    assert (status.sel(beta=[0.1, 10.0]) == 1).all()
    assert {error for _, error in state(store.path).failed} == {DIED}


def test_killed_workers_take_nothing_with_them(tmp_path, undisturbed):
    killed = []

    def kill(share):
        if not killed:
            for child in multiprocessing.active_children():
                killed.append(child.pid)
                child.kill()

    store = Store(tmp_path / "store", small())
    complete(store, Local(1), progress=kill)
    assert killed
    assert content(store.path) == undisturbed


def begin(out, *more, **settings):
    return subprocess.Popen(
        [sys.executable, "-m", "dynsim", "sweep", *GRID, "--out", out, *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings,
    )  # fmt: skip


def test_a_killed_sweep_goes_on_and_its_workers_end(tmp_path, undisturbed):
    out = tmp_path / "store"
    sweep = begin(out, "--workers", "1")
    while sweep.poll() is None and len([*out.glob("status/c/*/*/*/*")]) < 3:
        time.sleep(0.005)
    children = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split()
    sweep.send_signal(signal.SIGKILL)
    sweep.communicate()
    assert sweep.returncode == -signal.SIGKILL
    assert 0 < state(out).remaining < 24
    (out / "end" / "c" / "x.123.partial").write_text("half")  # as a killed write leaves it
    complete(Store(out, small()), Threads(1))
    assert content(out) == undisturbed
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    out = tmp_path / "store"
    given = ["mask=local,causal", "seeds=4", "tokens=96", "dim=32", "samples=2", "depth=2"]
    given += ["engine=reference"]  # which compiles nothing that the limit would keep from the disk
    words = [sys.executable, "-m", "dynsim", "sweep", "--grid", *given, "--keep", "verdict,states",
             "--workers", "1", "--out", str(out)]  # fmt: skip
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    words_limited = [sys.executable, "-c", limited, *words]
    full = subprocess.run(words_limited, capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1
    assert "File too large; finished batches are kept" in full.stderr
    assert not [*out.rglob("*.partial")]
    assert not [*out.glob("status/c")]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    assert state(out).done == 8


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_store_that_cannot_be_written_is_one_line_before_work(tmp_path, monkeypatch, number):
    store = Store(tmp_path / "store", small())

    def refuses(*args):
        raise OSError(number, os.strerror(number), "zarr.json")

    monkeypatch.setattr("dynsim.sweeps.store.fcntl.flock", refuses)
    with pytest.raises(ValueError, match=r"cannot write there .*; make it writable"):
        complete(store, Threads(1))


def test_a_worker_of_another_version_is_refused():
    with pytest.raises(OtherVersion, match=r"dynsim .* there and 0\.0 here; install the same"):
        compute_batch([], [], versions() | {"dynsim": "0.0"})


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def said(capsys, tmp_path, monkeypatch):
    """Callable(words) -> exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def say(*words):
        try:
            status = main(["sweep", *words])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return say


def test_explain_says_what_it_takes_and_does_nothing(said, tmp_path):
    status, out, _ = said(*GRID, "--explain")
    assert status == 0
    assert "24 (mask 2 x beta 3 x value 2 x seed 2)" in out
    for word in ("batches", "time", "disk", "memory"):
        assert word in out
    numbers = json.loads(said(*GRID, "--explain", "--json")[1])
    assert numbers["cells"] == 24
    # verdict, law and status 17, the rates 3, limit ranks 2, end values 15 by 2 samples
    assert numbers["bytes"] == 24 * (17 + 8 * (3 + 2 + 30))
    assert os.listdir(tmp_path) == []


def test_a_sweep_and_its_status(said, tmp_path, undisturbed):
    status, out, _ = said(*GRID, "--workers", "1", "--out", "store")
    assert status == 0
    assert "24 of 24 cells are done" in out
    assert content(tmp_path / "store") == undisturbed
    told = json.loads(said("status", "store", "--json")[1])
    assert (told["cells"], told["done"], told["failed"], told["remaining"]) == (24, 24, [], 0)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "one of the two"),
        (["--grid", "beta=1"], "needs a place for its results: --out STORE"),
        (["--grid", "beta"], "--grid wants NAME=VALUES; got 'beta'"),
        (["--grid", "beta=1", "beta=2", "--explain"], "given twice"),
        (["--grid", "bta=1", "--explain"], "did you mean 'beta'"),
        (["--grid", "beta=", "--explain"], "needs at least one value"),
        (["--grid", "mask=local", "window=64", "--out", "x"], "a window is smaller"),
        (["--grid", "beta=1", "--out", "/proc/x"], "another folder"),
        (["spec.toml", "--grid", "beta=1"], "one of the two"),
        (["status"], "takes one store"),
        (["status", "none"], "no store of a sweep at none"),
        (["--grid", "beta=1", "--workers", "0", "--out", "x"], "--workers is at least 1"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_made(said, tmp_path, words, error):
    status, out, err = said(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert error in err
    assert os.listdir(tmp_path) == []
