"""GPUs: workers take turns, by a made-up count; without one the same cells run on the CPU."""

import numpy as np
import pytest
from small_sweep import SMALL

import dynsim
from dynsim.cli.main import main
from dynsim.sweeps import Specification, devices
from dynsim.sweeps.cells import compute
from dynsim.sweeps.execution import Local

torch = pytest.importorskip("torch")
pytest.importorskip("zarr")

GPU = {"engine": "torch", "device": "cuda", "beta": 1, "seeds": 1, "mask": "causal"}


@pytest.fixture
def gpus(monkeypatch):
    """Callable(count): torch finds so many."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "found"),
    [
        (0, ["cpu"] * 5),
        (1, ["cuda:0"] * 5),
        (3, ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]),
    ],
)
def test_workers_take_the_gpus_in_turn(gpus, monkeypatch, count, found):
    gpus(count)
    seen = []
    for number in range(5):
        monkeypatch.setattr(devices, "_number", number)
        seen.append(devices.device_of("cuda"))
    assert seen == found
    assert [devices.device_of(name) for name in ("cpu", "cuda:7", None)] == ["cpu", "cuda:7", None]


def test_a_dask_worker_has_the_number_in_its_name(gpus, monkeypatch):
    distributed = pytest.importorskip("distributed")
    gpus(4)
    for name, device in (("gpus-6", "cuda:2"), ("tcp://10.0.0.1:4000", "cuda:1"), (3, "cuda:1")):
        worker = type("Worker", (), {"name": name})
        monkeypatch.setattr(distributed, "get_worker", lambda worker=worker: worker)
        monkeypatch.setattr(devices, "_number", 1)
        assert devices.device_of("cuda") == device


def number_here(barrier_seconds):
    import time

    time.sleep(barrier_seconds)  # so that no worker takes two
    return devices._number


def test_processes_are_numbered_one_by_one():
    with Local(3).executor() as pool:
        futures = [pool.submit(number_here, 0.5) for _ in range(3)]
        assert sorted(future.result() for future in futures) == [0, 1, 2]


def test_without_a_gpu_the_same_cells_run_on_the_cpu_and_say_so(
    gpus, tmp_path, monkeypatch, capsys
):
    gpus(0)
    keep = ["ends", "states", "device"]
    one = SMALL | GPU | {"value": "orthogonal"}
    (gpu,), (cpu,) = (
        compute([Specification.of(one | {"device": device}, keep=keep).settings((0,))], keep)
        for device in ("cuda", "cpu")
    )
    np.testing.assert_array_equal(gpu["state"], cpu["state"])
    assert gpu["computed_on"] == "cpu"
    with pytest.warns(UserWarning, match="no CUDA GPU here"):
        dynsim.sweep(tmp_path / "store", SMALL | GPU, workers=1)
    monkeypatch.chdir(tmp_path)
    words = [f"{name}={value}" for name, value in (SMALL | GPU).items()]
    assert main(["sweep", "--grid", *words, "--explain"]) == 0
    assert "torch finds no CUDA GPU here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"engine": "auto"}, "device=cuda is for engine=torch"),
        ({"engine": "numba"}, "runs on the CPU; use engine='torch'"),
        ({"device": "cuda:9"}, "there is no device 'cuda:9' here"),
    ],
)
def test_a_device_that_cannot_be_is_refused(gpus, given, error):
    gpus(0)
    with pytest.raises(ValueError, match=error):
        Specification.of(SMALL | GPU | given)
