"""On which device a worker computes: with device=cuda the GPUs of a machine take turns."""

from __future__ import annotations

import re
import sys

__all__ = ["device_of", "number_worker", "without_gpu"]

#: The device that stands for one of the GPUs of a machine, another one for every worker.
_EACH = "cuda"
#: The number of this process among the workers of its machine.
_number = 0


def number_worker(number: int) -> None:
    """This process is the worker of that number."""
    global _number
    _number = number


def device_of(device: str | None) -> str | None:
    """The device that the engine "torch" is given in this process.

    "cuda" is GPU number k modulo their count for worker number k, and the CPU where there is no
    GPU; everything else is itself. The number of a Dask worker is that at the end of its name,
    "NAME-k", as ``dask worker --nworkers 4 --name NAME`` gives them.
    """
    if device != _EACH:
        return device
    import torch

    count = torch.cuda.device_count()
    return f"{_EACH}:{_number_here() % count}" if count else "cpu"


def _number_here() -> int:
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            match = re.search(r"-(\d+)$", str(get_worker().name))
        except ValueError:  # this is no worker of Dask
            match = None
        if match:
            return int(match[1])
    return _number


def without_gpu(device: str | None) -> str:
    """What to say where `device` means a GPU and this machine has none; else nothing."""
    if device != _EACH or device_of(device) != "cpu":
        return ""
    return "torch finds no CUDA GPU here; with device=cuda the same code runs on the CPU"
