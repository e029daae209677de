import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("dynsim", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("dynsim")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def eight_cores(monkeypatch):
    """As many threads as a test asks for, on a machine with fewer cores too."""
    monkeypatch.setattr("dynsim._threads.available", lambda: 8)
