"""Every kernel by name: the module and the function it is in, and the record it takes."""

from dynsim.kernels.fields import COSINES, HULL, LANES, ROWS, SEARCH, SINGULAR
from dynsim.kernels.library import Kernel

__all__ = ["KERNELS"]

#: What changes from call to call of a small state.
_VARYING = "layers start samples wanted"

KERNELS = {
    f"{kernel.module}.{kernel.name}": kernel
    for kernel in (
        Kernel("lanes", "follow", LANES, first=True),
        Kernel("lanes", "advance", LANES, varying=_VARYING, first=True),
        Kernel("lanes", "advance_with_parts", LANES, varying=_VARYING),
        Kernel("rows", "advance", ROWS),
        Kernel("rows", "advance_with_parts", ROWS),
        Kernel("rows", "follow", ROWS),
        Kernel("singular", "advance", SINGULAR, first=True),
        Kernel("singular", "advance_few", SINGULAR),
        Kernel("cosines", "advance", COSINES, first=True),
        Kernel("cosines", "advance_few", COSINES),
        Kernel("hull", "nearest", HULL),
        Kernel("graphs", "distances_from", SEARCH),
    )
}
