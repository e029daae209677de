"""A kernel made again for given integers: its loops have their lengths, its branches are decided.

The code does the same operations in the same order, so its results have the same bits.
"""

import re

import llvmlite.binding as llvm
import numpy as np

__all__ = ["special"]

_PASSED = {"integer": "i64", "number": "double"}  # arrays and None are pointers
_INTEGERS = {"i": "i32", "l": "i64", "q": "i64"}


def special(source: bytes, kinds: tuple[str, ...], fixed: dict, machine, name: str) -> bytes:
    """A kernel's LLVM source made machine code for arguments that are `fixed`.

    Source and code begin with the symbol of their function, `name` of the latter, and a zero byte.
    The function takes all arguments of the kernel; fixed maps the numbers of some to what they are,
    int or 1-d array of integers.
    """
    symbol, source = source.decode().split("\0")
    constants, passed = [], ["ptr %result", "ptr %error"]
    arguments = list(passed)
    for k, kind in enumerate(kinds):
        type_ = _PASSED.get(kind, "ptr")
        passed.append(f"{type_} %a{k}")
        value = fixed.get(k)
        if isinstance(value, np.ndarray):
            item = _INTEGERS[value.dtype.char]
            items = ", ".join(f"{item} {v}" for v in value.tolist())
            constants.append(f"@fixed{k} = internal constant [{value.size} x {item}] [{items}]")
            arguments.append(f"ptr @fixed{k}")
        else:
            arguments.append(passed[-1] if value is None else f"{type_} {int(value)}")
    # written out where it is called, and no longer kept small: `simd.compact`
    source = re.sub(r"^define (linkonce_odr )?", "define internal ", source, flags=re.MULTILINE)
    source = source.replace(" optsize", " alwaysinline")
    called = f"  %status = call i32 @{symbol}({', '.join(arguments)})"
    function = [f"define i32 @{name}({', '.join(passed)}) {{", called, "  ret i32 %status", "}"]
    module = llvm.parse_assembly("\n".join([source, *constants, *function]))
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return name.encode() + b"\0" + machine.emit_object(module)
