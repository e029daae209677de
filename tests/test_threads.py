"""One knob for threads."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import dynsim
from dynsim import _threads as threads
from dynsim import engines
from dynsim._threads import blas_alone
from dynsim.engines.base import TokenEngine
from dynsim.engines.workers import Workers


@pytest.fixture(autouse=True)
def _all_cores_again():
    with threadpool_limits(2, user_api="blas"):
        yield
    dynsim.set_threads(None)


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_no_more_threads_than_cores():
    assert threads.threads(100_000) == threads.threads() == threads.available() >= 1
    dynsim.set_threads(100_000)
    assert threads.threads() == threads.available()


def test_threads_that_cannot_be_started_are_an_error(monkeypatch):
    """Once those that could were left waiting for the others."""
    start, begun = threading.Thread.start, []

    def third_fails(thread):
        begun.append(thread)
        if len(begun) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", third_fails)
    with pytest.raises(ValueError, match=r"4 threads cannot be started .* use fewer"):
        Workers(4)
    for thread in begun[:2]:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.mark.usefixtures("eight_cores")
def test_what_is_asked_for_comes_before_what_was_set(monkeypatch):
    assert threads.threads() == 8
    dynsim.set_threads(3)
    assert threads.threads() == 3
    assert threads.threads(2) == 2
    made = []
    monkeypatch.setitem(
        engines.ENGINES, "spy", lambda device: lambda dynamics, n: made.append(n) or Spy()
    )
    dynamics = dynsim.AttentionDynamics(dynsim.masks.complete(3), dynsim.weights.Identity())
    record = dynsim.Record(measures=())
    dynsim.simulate(dynamics, np.eye(3), 1, engine="spy", record=record)
    dynsim.simulate(dynamics, np.eye(3), 1, engine="spy", record=record, threads=5)
    assert made == [3, 5]


class Spy(TokenEngine):
    """An engine that looks at BLAS while it works."""

    def advance(self, x, start, stop, entropy=False):
        assert blas_threads() == {1}
        return x, np.ones((5, len(x), stop - start)), None


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "two"])
def test_bad_numbers_of_threads(number):
    with pytest.raises(ValueError, match="threads is a whole number, at least 1"):
        dynsim.set_threads(number)


def test_blas_gets_its_threads_back():
    before = threadpool_info()
    assert 2 in blas_threads()
    with blas_alone():
        assert blas_threads() == {1}
    assert threadpool_info() == before


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize("failing", [1, 3, 4, 5])
def test_a_simulation_whose_threads_cannot_be_started_says_so_and_waits_for_nobody(
    monkeypatch, failing
):
    """Whichever thread it is: one of the team, or the leader, which is the fifth."""
    start, begun = threading.Thread.start, []

    def one_fails(thread):
        begun.append(thread)
        if len(begun) == failing:
            raise RuntimeError("can't start new thread")
        start(thread)

    dynamics = dynsim.AttentionDynamics(dynsim.masks.complete(256), dynsim.weights.Weights())
    x0 = dynsim.tokens.sphere(1, 256, 64)
    expected = dynsim.simulate(dynamics, x0, 4, threads=1)
    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", one_fails)
        with pytest.raises(ValueError, match=r"threads cannot be started .* use fewer"):
            dynsim.simulate(dynamics, x0, 4, threads=4)
    for thread in begun:
        if thread.ident is not None:
            thread.join(timeout=10)
            assert not thread.is_alive()
    assert dynsim.simulate(dynamics, x0, 4, threads=4) == expected
