"""What kernels do with whole arrays, a vector at a time; `size` numbers, the same as y in place."""

from dynsim.kernels.compiler import inner
from dynsim.kernels.simd import absolute, compact, fma, load, maximum, splat, store, width

__all__ = ["add", "combine", "copy", "divide", "fill", "largest_entry", "scale", "squares"]


@inner
def fill(y, number, size):
    """y = a number."""
    compact()
    z = splat(y, number)
    for e in range(0, size, width(y)):
        store(y, e, z)


@inner
def copy(y, x, size):
    """y = x"""
    compact()
    for e in range(0, size, width(y)):
        store(y, e, load(x, e))


@inner
def add(y, x, size):
    """y += x"""
    compact()
    for e in range(0, size, width(y)):
        store(y, e, load(y, e) + load(x, e))


@inner
def scale(y, x, factor, size):
    """y = factor x for a vector `factor`."""
    compact()
    for e in range(0, size, width(y)):
        store(y, e, load(x, e) * factor)


@inner
def divide(y, x, unit, size):
    """y = x / unit for a vector `unit`."""
    compact()
    for e in range(0, size, width(y)):
        store(y, e, load(x, e) / unit)


@inner
def combine(y, a, x, b, size):
    """y = a x + b y for vectors a and b."""
    compact()
    for e in range(0, size, width(y)):
        store(y, e, fma(a, load(x, e), load(y, e) * b))


@inner
def squares(x, size):
    """The sum of x^2 in every lane."""
    compact()
    z = splat(x, 0.0)
    for e in range(0, size, width(x)):
        z = fma(load(x, e), load(x, e), z)
    return z


@inner
def largest_entry(x, size):
    """The largest |x| in every lane."""
    compact()
    most = splat(x, 0.0)
    for e in range(0, size, width(x)):
        most = maximum(most, absolute(load(x, e)))
    return most
