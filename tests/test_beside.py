"""Kernels compiled by other processes: waited for, never twice, and the same as ever."""

import os
import subprocess
import sys
import time

import pytest

from dynsim.kernels import beside
from dynsim.kernels.table import KERNELS


@pytest.fixture
def jobs(monkeypatch):
    """A table of jobs of our own."""
    monkeypatch.setattr(beside, "_jobs", {})


def test_what_a_process_makes_is_waited_for(jobs, tmp_path, monkeypatch):
    made = []

    def run(command, **options):
        time.sleep(0.1)
        made.append(command[-1])

    monkeypatch.setattr(beside.subprocess, "run", run)
    monkeypatch.setattr(beside.os, "cpu_count", lambda: 2)
    places = {tmp_path / name: name for name in ("a", "b")}
    beside.begin(places)
    beside.begin(places)  # again: nothing more
    while not made:
        time.sleep(0.01)
    for place in places:
        beside.claim(place)
    assert made == ["a", "b"][: len(made)]
    beside.claim(tmp_path / "another")


def test_what_is_claimed_first_is_left_alone(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(beside.os, "cpu_count", lambda: 1)
    beside.begin({tmp_path / "a": "a"})
    beside.claim(tmp_path / "a")
    monkeypatch.setattr(beside.subprocess, "run", lambda *_, **__: pytest.fail("made twice"))
    beside._work(list(beside._jobs.values()))


def test_a_process_that_cannot_start_holds_nobody_up(jobs, tmp_path, monkeypatch):
    def run(*_, **__):
        raise OSError("no memory")

    monkeypatch.setattr(beside.subprocess, "run", run)
    beside.begin({tmp_path / "a": "a"})
    beside._work(list(beside._jobs.values()))
    beside.claim(tmp_path / "a")


def test_without_an_interpreter_nothing_is_begun(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(beside.sys, "executable", "")
    beside.begin({tmp_path / "a": "a"})
    assert not beside._jobs
    beside.claim(tmp_path / "a")


def test_a_process_makes_the_code_that_is_looked_for(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    name = KERNELS["cosines.advance"].usual.name
    subprocess.run(
        [sys.executable, "-m", "dynsim.kernels.beside", "cosines.advance"], check=True,
        env=environment,
    )  # fmt: skip
    assert [file.name for file in (tmp_path / "dynsim").iterdir()] == [name]
