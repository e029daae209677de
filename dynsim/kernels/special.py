"""A kernel made again for given sizes and settings: loops have their lengths, branches are decided.

The code does the same operations in the same order, so its results have the same bits.
"""

import re
import struct

import llvmlite.binding as llvm

from dynsim.kernels.record import Record

__all__ = ["special"]


def special(symbol: str, source: str, record: Record, fixed: dict[str, int | float], machine):
    """(symbol, module) of the kernel for records whose fields `fixed` have these values.

    It copies the record, with the values in their places, and the kernel is written out in it.
    """
    name, lines = f"special.{symbol}", [f"%copy = alloca [{len(record.places)} x i64]"]
    for field, place in record.places.items():
        kind = "i64" if field in record.integers else "double" if field in record.numbers else "ptr"
        lines.append(f"%to{place} = getelementptr i64, ptr %copy, i64 {place}")
        value = f"%value{place}"
        if field not in fixed:
            lines.append(f"%from{place} = getelementptr i64, ptr %given, i64 {place}")
            lines.append(f"{value} = load {kind}, ptr %from{place}")
        elif kind == "i64":
            value = f"{int(fixed[field])}"
        else:
            value = f"0x{_bits(fixed[field]):016x}"
        lines.append(f"store {kind} {value}, ptr %to{place}")
    lines += [f'%result = call ptr @"{symbol}"(ptr %copy)', "ret void"]
    # written out where they are called, no longer kept small (`simd.compact`), and read from a copy
    source = re.sub(" (optsize|noinline)", " alwaysinline", source)
    inner = r"define internal \1 alwaysinline {"
    source = re.sub(r"^define (?:linkonce_odr )?(.*) {$", inner, source, flags=re.MULTILINE)
    source = re.sub(r", !invariant\.load !\d+", "", source)
    body = "\n".join(["", f'define void @"{name}"(ptr %given) {{', *lines, "}"])
    module = llvm.parse_assembly(source + body)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return name, module


def _bits(number: float) -> int:
    """How LLVM writes a double."""
    return struct.unpack("<Q", struct.pack("<d", number))[0]
