from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

# Most matrices here are small: threads of BLAS and torch cost more time than they save, five times
# as much where others share the cores. Set before numpy and torch are loaded, which read it then.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("dynsim", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("dynsim")


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture
def eight_cores(monkeypatch):
    """As many threads as a test asks for, on a machine with fewer cores too."""
    monkeypatch.setattr("dynsim._threads.available", lambda: 8)


@dataclass(frozen=True)
class Smoke:
    """What ``python -m experiments run NAME --settings smoke`` gave."""

    folder: Path
    status: int
    output: str
    data: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Callable(name of an experiment) -> `Smoke`; each experiment runs once a session."""
    import numpy as np

    from experiments.__main__ import main

    @cache
    def run(name):
        folder, output = tmp_path_factory.mktemp(name), io.StringIO()
        with contextlib.redirect_stdout(output):
            status = main(["run", name, "--settings", "smoke", "--out", str(folder)])
        with np.load(folder / f"{name}.npz", allow_pickle=False) as archive:
            return Smoke(folder, status, output.getvalue(), dict(archive))

    return run
