"""Compiled kernels: found on disk, or compiled by Numba and kept there; called without it.

A `Kernel` is a function of one record (`record`) that Numba has compiled, as a C function of the
record's address. Its machine code is kept between processes (`cache`), so that only the first use
ever needs Numba: loading that takes longer than most simulations.
"""

import ctypes
import gc
import sys
from functools import lru_cache
from importlib import import_module
from threading import Lock

import llvmlite.binding as llvm

from dynsim.kernels import cache, guards, processor
from dynsim.kernels.record import Arguments, Record

__all__ = ["Kernel"]

_lock = Lock()


class Kernel:
    """The function `name` of the module dynsim.kernels.`module`, of one record."""

    def __init__(self, module: str, name: str, record: Record):
        self.module, self.name, self.record = module, name, record
        self._functions = {}  # by the type of real numbers, and how many are taken at once

    def __call__(self, given: Arguments) -> None:
        """Raises ValueError when an array is missing or too small for the sizes of the record."""
        given.check()
        what = given.real, given.w
        function = self._functions.get(what)
        if function is None:
            with _lock:  # the first of several threads; the others find what it made
                function = self._functions.get(what) or self._function(*what)
                self._functions[what] = function
        if guards.wanted():
            with guards.around(given) as moved:
                function(moved.address)
        else:
            function(given.address)

    def _function(self, real, w):
        place = self._place(real, w)
        code = cache.read(place)
        if code is None:
            symbol, source = self._compiled(real, w)
            code = symbol.encode() + b"\0" + _machine().emit_object(llvm.parse_assembly(source))
            cache.write(place, code)
        return _loaded(code)

    def _place(self, real, w):
        return cache.place_of(f"{self.module}-{self.name}", real.name, w)

    def _source(self):
        return getattr(import_module(f"dynsim.kernels.{self.module}"), self.name)

    def _compiled(self, real, w) -> tuple[str, str]:
        """The symbol of the function and LLVM's source."""
        _say_once()
        from dynsim.kernels.compiler import compiled

        function = self._source()
        collecting = gc.isenabled()
        gc.disable()  # a compiler makes a million objects and no garbage: an eighth of its time
        try:
            return compiled(function, self.record, real, w)
        finally:
            if collecting:
                gc.enable()


@lru_cache
def _say_once() -> None:
    """On a terminal, why the first run takes longer."""
    if sys.stderr is not None and sys.stderr.isatty():
        print("compiling kernels, once, some seconds", file=sys.stderr)


@lru_cache
def _machine():
    """The target machine, as Numba sets it up."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    x86 = target.name.startswith("x86")
    return target.create_target_machine(
        cpu=processor.NAME, features=processor.FEATURES, opt=3,
        reloc="static" if x86 else "default", codemodel="jitdefault", jit=True,
    )  # fmt: skip


#: What C functions of Numba call to report an exception, which no kernel raises.
_NEVER_CALLED = (
    "NRT_Free", "numba_do_raise", "numba_gil_ensure", "numba_gil_release",
    "numba_runtime_build_excinfo_struct", "numba_unpickle",
)  # fmt: skip


@lru_cache
def _engine():
    abort = ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value
    for symbol in _NEVER_CALLED:
        if llvm.address_of_symbol(symbol) is None:
            llvm.add_symbol(symbol, abort)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())


def _loaded(code: bytes):
    symbol, _, machine_code = code.partition(b"\0")
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    address = engine.get_function_address(symbol.decode())
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
