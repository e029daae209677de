"""Kernels touch nothing but what they are given, alone and in teams of threads (`guarded.py`)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def guarded(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tests.guarded", *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


def test_no_kernel_touches_what_lies_beside_its_arrays():
    done = guarded(300, 1)
    assert done.returncode == 0, done.stderr
    arrays, with_threads = map(int, re.findall(r"\d+", done.stdout)[:2])
    assert arrays > 10_000
    assert with_threads > 150
    for kind in ("Lanes", "Lanes followed", "Rows", "Rows followed"):
        assert f"{kind}: " in done.stdout


@pytest.mark.parametrize("array", ["LANES.mixed", "LANES.next", "ROWS.mixed", "ROWS.values"])
def test_memory_that_is_one_number_too_small_is_found(array):
    done = guarded(20, 0, array)
    assert done.returncode != 0
    assert "wrote beside" in done.stderr or "Segmentation fault" in done.stderr
