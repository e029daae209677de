"""How `singular` lays out its memory, known without Numba."""

from dynsim.kernels.processor import vector_width

__all__ = ["CHUNK", "GROUP", "memory"]

#: Rows of a matrix that are taken at once.
CHUNK = 32
#: Matrices that are worked on together: two registers of them, or, where there are only few, two
#: matrices, which takes less time than to work on copies of them.
GROUP, FEW = 2 * vector_width(64), 2


def memory(n: int, d: int) -> int:
    """float64 numbers of memory for matrices n x d, at most."""
    short, tall = min(n, d), max(n, d)
    wide = short + 3
    panels = wide * ((max(tall, wide) | 1) + CHUNK + 1) + CHUNK * short
    vectors = 28 + panels + max(0, 5 * tall + 4 * wide - wide * (CHUNK + 1))
    return (6 + 4 * short) * GROUP + vectors * GROUP // 2
