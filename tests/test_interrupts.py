"""Ctrl-C: what an interrupted run returns is what a run that ends there returns, bit for bit."""

import gc
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from dynsim import AttentionDynamics, masks, norms, simulate, tokens
from dynsim.engines.workers import Workers
from dynsim.measures import MEASURES
from dynsim.network.weights import Gaussian, Orthogonal, Weights
from dynsim.simulation import Record, Stopped

#: Long enough for the main thread to go on while jobs are still to come.
_LATE = 0.2


def make(n=48, d=48, skip=0.0, shared=True):
    weights = Weights(Gaussian(), Orthogonal(), shared=shared, seed=3)
    return AttentionDynamics(masks.causal(n), weights, norms.Unit(), skip=skip)


@pytest.fixture
def late_jobs(monkeypatch):
    """arm(times): the first job of the next call of `Workers.every` interrupts the main thread so
    many times, and all its jobs do their work when the main thread has long gone on. done: they."""
    every, armed, done = Workers.every, [], []

    def late(self, work, jobs):
        times = armed.pop() if armed else 0

        def slow(job):
            for _ in range(times):
                time.sleep(_LATE)  # the main thread waits by now
                if job == jobs[0]:
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(_LATE)
            try:
                yield from work(job)
            finally:
                done.append(job)

        every(self, slow if times else work, jobs)

    monkeypatch.setattr(Workers, "every", late)
    return armed.append, done


@pytest.mark.parametrize("engine", ["numba", "logscale"])
@pytest.mark.parametrize("samples", [2, 1], ids=["a sample each", "a team"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.usefixtures("eight_cores")
def test_jobs_left_at_work_write_into_nothing_that_is_read(engine, samples, times, late_jobs):
    arm, done = late_jobs
    dynamics, x0 = make(n=256, d=64), tokens.sphere(samples, 256, 64)
    record = Record(measures=tuple(MEASURES), stride=4, states=4)

    def progress(depth):
        if depth == 8:
            arm(times)  # the second time falls into the measurement of the last state

    with pytest.raises(Stopped) as caught:
        simulate(dynamics, x0, 400, record=record, engine=engine, threads=2, progress=progress)
    stopped = caught.value.trajectory
    whole = simulate(dynamics, x0, stopped.depth, record=record, engine=engine, threads=1)
    assert stopped.depth == 8
    assert times == 2 or len(done) == 2, "the run is too small for two threads"
    assert_same_run(stopped, whole, missing={"attention_entropy"} if times == 2 else set())


def test_an_interrupted_call_ends_with_the_parts_that_it_is_at():
    workers, parts = Workers(2), []

    def work(job):
        for k in range(10_000):
            parts.append(job)
            if job == k == 3:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.002)
            yield

    with pytest.raises(KeyboardInterrupt):
        workers.every(work, (2, 3))
    workers.settle()
    assert len(parts) < 10_000
    workers.every(lambda job: iter([parts.clear()]), (0,))  # the next call is carried out whole
    assert not parts


def assert_same_run(stopped, whole, missing=()):
    """All measures at the last depth but those missing, and at depths that both recorded; tokens;
    deviation."""
    for name, values in stopped.measures.items():
        if name in missing:
            assert np.isnan(values[:, -1]).all()
        else:
            assert np.array_equal(values[:, -1], whole[name][:, -1]), name
        both = ~np.isnan(values) & ~np.isnan(whole[name])
        assert np.array_equal(values[both], whole[name][both]), name
    assert np.array_equal(stopped.final, whole.final)
    assert stopped.deviation == whole.deviation
    assert np.array_equal(stopped.states[:, -1], whole.final)
    assert stopped.dynamics == whole.dynamics


@pytest.mark.parametrize("engine", ["numba", "logscale", "reference", "torch"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("samples", "n", "d"), [(24, 16, 8), (1, 8, 8), (3, 96, 32)], ids=["lanes", "single", "rows"]
)
def test_a_run_interrupted_at_any_time_is_a_run_that_ends_there(engine, threads, samples, n, d):
    if engine == "torch":
        pytest.importorskip("torch")
    dynamics, x0 = make(n, d, skip=0.5), tokens.sphere(samples, n, d)
    record = Record(measures=tuple(MEASURES), stride=5, states=7)
    options = {"record": record, "engine": engine, "threads": threads}
    for delay in (0.001, 0.02, 0.1):
        with interrupt_after(delay) as timer, pytest.raises(Stopped) as caught:
            simulate(dynamics, x0, 5000, progress=timer, **options)
        stopped = caught.value.trajectory
        assert_same_run(stopped, simulate(dynamics, x0, stopped.depth, **options))


@contextmanager
def interrupt_after(seconds):
    """Yields a function for `progress` from whose first call on the time counts until a signal's
    handler raises KeyboardInterrupt.

    No garbage is collected meanwhile: Python drops what is raised in callbacks of the collector,
    and hypothesis has one, so that an interrupt that falls into it is lost to the run."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    started = []

    def progress(depth):
        if not started:
            started.append(signal.setitimer(signal.ITIMER_REAL, seconds))

    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()
    try:
        yield progress
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_amid_the_measures_of_a_depth_leaves_none_of_them_out(monkeypatch):
    dynamics, x0 = make(6, 4), tokens.sphere(2, 6, 4)
    record, calls = Record(measures=("stable_rank", "min_cosine"), stride=10, states=10), []

    def min_cosine(x):
        calls.append(x)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return MEASURES["min_cosine"].function(x)

    patched = dict(MEASURES) | {"min_cosine": replace(MEASURES["min_cosine"], function=min_cosine)}
    monkeypatch.setattr("dynsim.simulation.MEASURES", patched)
    with pytest.raises(Stopped) as caught:
        simulate(dynamics, x0, 30, record=record)
    stopped = caught.value.trajectory
    assert stopped.depth == 10
    assert_same_run(stopped, simulate(dynamics, x0, 10, record=record))


def test_what_a_job_raises_is_raised_when_all_jobs_are_done():
    workers, done = Workers(2), []

    def work(job):
        if job == 1:
            raise MemoryError("job 1")
        time.sleep(0.05)
        done.append(job)
        yield

    with pytest.raises(MemoryError, match="job 1"):
        workers.every(work, range(3))
    assert sorted(done) == [0, 2]
    workers.settle()
    workers.every(lambda job: iter([done.append(job)]), range(3))
    assert len(done) == 5
