"""Sweeps on a Dask cluster: a real scheduler and workers, started from the command line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from small_sweep import GRID, SMALL, Threads, computed, content, small

import dynsim
from dynsim.cli.main import main
from dynsim.sweeps import Store
from dynsim.sweeps.store import state
from dynsim.sweeps.sweep import complete

pytest.importorskip("zarr")
pytest.importorskip("distributed")

#: A worker with this on its path has another version of numba.
OTHER_VERSION = """
import importlib.metadata as metadata
version = metadata.version
metadata.version = lambda name: "0.0" if name == "numba" else version(name)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return computed(tmp_path_factory.mktemp("sweep") / "store")


@pytest.fixture
def dask(tmp_path):
    """Callable(words of `dask`, environment) -> the process, ended after the test."""
    started = []

    def start(*words, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words, "--dashboard-address", ":0"],
            cwd=tmp_path,
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(dask, tmp_path):
    """A scheduler that blames a worker's death on the task at once, and its address."""
    file = tmp_path / "scheduler.json"
    process = dask(
        *("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)),
        DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0",
    )
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process, json.loads(file.read_text())["address"]


def worker(dask, address, **environment):
    return dask("worker", address, "--nthreads", "1", "--no-nanny", **environment)


def begin(out, address):
    return subprocess.Popen(
        [sys.executable, "-m", "dynsim", "sweep", *GRID, "--out", out, "--scheduler", address],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_batches(out, sweep, number):
    while sweep.poll() is None and len([*out.glob("status/c/*/*/*/*")]) < number:
        time.sleep(0.005)


def test_two_workers_of_which_one_is_killed_leave_the_same_bytes(
    dask, scheduler, tmp_path, undisturbed
):
    _, address = scheduler
    first, _ = worker(dask, address), worker(dask, address)
    sweep = begin(tmp_path / "store", address)
    wait_for_batches(tmp_path / "store", sweep, 2)
    first.send_signal(signal.SIGKILL)
    _, errors = sweep.communicate(timeout=120)
    assert (sweep.returncode, errors) == (0, "")
    assert content(tmp_path / "store") == undisturbed


def test_a_scheduler_that_goes_away_is_one_line_and_loses_nothing(
    dask, scheduler, tmp_path, undisturbed
):
    process, address = scheduler
    worker(dask, address)
    out = tmp_path / "store"
    sweep = begin(out, address)
    wait_for_batches(out, sweep, 2)
    process.send_signal(signal.SIGKILL)
    _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 2
    assert errors.count("\n") == 1
    assert "the scheduler went away; finished batches are kept" in errors
    assert 0 < state(out).remaining < 24
    complete(Store(out, small()), Threads(1))
    assert content(out) == undisturbed


def test_a_worker_of_another_version_is_refused(dask, scheduler, tmp_path):
    _, address = scheduler
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(OTHER_VERSION)
    path = os.pathsep.join([str(tmp_path / "path"), os.environ.get("PYTHONPATH", "")])
    worker(dask, address, PYTHONPATH=path)
    with pytest.raises(ValueError, match=r"a worker has other versions: numba 0\.0 there"):
        dynsim.sweep(tmp_path / "store", SMALL, scheduler=address)
    assert state(tmp_path / "store").done == 0


def test_no_scheduler_is_one_line_and_nothing_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dynsim.sweeps.execution._ANSWER_SECONDS", 0.3)
    assert main(["sweep", *GRID, "--out", "store", "--scheduler", "127.0.0.1:1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "no scheduler answers at 127.0.0.1:1" in err
    assert os.listdir(tmp_path) == []
    assert main(["sweep", *GRID, "--out", "s", "--scheduler", "x", "--workers", "2"]) == 2
    assert "leave one out" in capsys.readouterr().err
