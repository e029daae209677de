"""Every kernel by name: the module and the function it is in, and the record it takes."""

from dynsim.kernels.fields import COSINES, HULL, LANES, ROWS, SEARCH, SINGULAR
from dynsim.kernels.library import Kernel

__all__ = ["KERNELS"]

#: What changes from call to call of a small state.
_VARYING = "layers start samples wanted"

_TOKENS = Kernel("lanes", "advance", LANES, varying=_VARYING)
_MEASURES = (
    Kernel("singular", "advance", SINGULAR, with_=(_TOKENS,)),
    Kernel("cosines", "advance", COSINES),
)

KERNELS = {
    f"{kernel.module}.{kernel.name}": kernel
    for kernel in (
        _TOKENS,
        *_MEASURES,
        Kernel("lanes", "advance_with_parts", LANES, varying=_VARYING),
        Kernel("lanes", "follow", LANES, with_=_MEASURES),
        Kernel("rows", "advance", ROWS),
        Kernel("rows", "advance_with_parts", ROWS),
        Kernel("rows", "follow", ROWS, with_=_MEASURES),
        Kernel("singular", "advance_few", SINGULAR),
        Kernel("cosines", "advance_few", COSINES),
        Kernel("hull", "nearest", HULL),
        Kernel("graphs", "distances_from", SEARCH),
    )
}
