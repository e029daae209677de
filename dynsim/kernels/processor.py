"""What the vectors of this processor hold, known without Numba."""

import os

import llvmlite.binding as llvm

__all__ = ["FEATURES", "NAME", "REGISTER_BYTES", "TILE_COLUMNS", "TILE_ROWS", "vector_width"]

#: As Numba compiles for: its two variables may name another processor.
NAME = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
FEATURES = os.environ.get("NUMBA_CPU_FEATURES")
if FEATURES is None:
    known_here = llvm.get_host_cpu_name() == NAME
    FEATURES = llvm.get_host_cpu_features().flatten() if known_here else ""

_HAS = set(FEATURES.split(","))
REGISTER_BYTES = 64 if "+avx512f" in _HAS else 32 if "+avx" in _HAS else 16
#: A tile of sums that stays in registers, in vectors: half the registers of the processor.
TILE_ROWS, TILE_COLUMNS = (4, 2) if REGISTER_BYTES == 32 else (8, 2)


def vector_width(bits: int) -> int:
    """How many numbers of so many bits a vector holds."""
    return REGISTER_BYTES * 8 // bits
