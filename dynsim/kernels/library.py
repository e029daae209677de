"""Compiled kernels: found on disk, or compiled by Numba and kept there; called without it.

A `Kernel` is a function of one record (`record`) that Numba has compiled, as a C function of the
record's address. Its machine code is kept between processes (`cache`), so that only the first use
ever needs Numba: loading that takes longer than most simulations.
"""

import ctypes
import gc
import sys
import time
from functools import lru_cache
from importlib import import_module
from threading import Lock

import llvmlite.binding as llvm
import numpy as np

from dynsim.kernels import beside, cache, guards, processor
from dynsim.kernels.record import Arguments, Record
from dynsim.kernels.special import special

__all__ = ["Kernel"]

_lock = Lock()
#: What kernels are compiled for most often: float64, in whole vectors.
_USUAL = np.dtype(np.float64), processor.vector_width(64)

#: Seconds in a kernel after which it pays to look whether there is code for its fixed fields, and
#: after which making that, which takes about half a second, has good prospects to pay off.
_WORTH_A_LOOK, _WORTH_IT = 0.02, 2.0


class Kernel:
    """The function `name` of the module dynsim.kernels.`module`, of one record.

    with_ : kernels that most runs need soon after this one: where it has to be compiled, so may
        they, meanwhile (`beside`), for float64
    varying : names of the integers that change from call to call, for a kernel of small states: if
        it is called long enough with all others and all numbers the same, it is made once more for
        these alone (`special`), which is faster, with the same bits. By default it never is.
    """

    def __init__(
        self,
        module: str,
        name: str,
        record: Record,
        varying: str | None = None,
        with_: tuple["Kernel", ...] = (),
    ):
        self.module, self.name, self.record, self._with = module, name, record, with_
        self.fixed = () if varying is None else tuple(
            field for field in (*record.integers, *record.numbers) if field not in varying.split()
        )  # fmt: skip
        self._functions = {}  # by type of real numbers, how many at once, and fixed fields
        self._seconds = {}  # that those for any fields have taken

    def __call__(self, given: Arguments) -> None:
        """Raises ValueError when an array is missing or too small for the sizes of the record."""
        given.check()
        general = given.real, given.w
        what = (*general, *(getattr(given.sizes, field) for field in self.fixed))
        function = self._functions.get(what) or self._ready(*general)
        if guards.wanted():
            with guards.around(given) as moved:
                function(moved.address)
            return
        begun = time.perf_counter()
        function(given.address)
        if self.fixed and what not in self._functions:
            before = self._seconds.get(what, 0.0)
            now = self._seconds[what] = before + time.perf_counter() - begun
            if now > _WORTH_IT or before <= _WORTH_A_LOOK < now:
                self._specialise(general, what, make=now > _WORTH_IT)

    def prepare(self) -> None:
        """Have it loaded or compiled for float64 and whole vectors, before other kernels are."""
        self._ready(*_USUAL)

    def _ready(self, *general):
        function = self._functions.get(general)
        if function is None:
            with _lock:  # the first of several threads; the others find what it made
                function = self._functions.get(general) or self._function(*general)
                self._functions[general] = function
        return function

    def _function(self, real, w):
        place = self._place(real, w)
        code = cache.read(place)
        if code is None and place is not None:
            beside.begin({kernel.usual: f"{kernel.module}.{kernel.name}" for kernel in self._with
                          if not kernel.usual.exists()})  # fmt: skip
            beside.claim(place)
            code = cache.read(place)
        return _loaded(self.make(real, w) if code is None else code)

    @property
    def usual(self):
        """Where the code for float64 and whole vectors lies."""
        return self._place(*_USUAL)

    def make_usual(self) -> None:
        """Have it compiled and kept there."""
        self.make(*_USUAL)

    def make(self, real, w) -> bytes:
        """The machine code, compiled and kept."""
        place = self._place(real, w)
        symbol, source = self._compiled(real, w)
        code = _code(symbol, _alone(symbol, llvm.parse_assembly(source)))
        cache.write(place, code)
        if self.fixed:
            cache.write(_source_of(place), f"{symbol}\0{source}".encode())
        return code

    def _specialise(self, general, what, make: bool) -> None:
        """Have code for these fixed fields from now on; unless it is to be made, only what an
        earlier process has kept."""
        with _lock:
            if what in self._functions:  # another thread was first
                return
            place = self._place(*what)
            code = cache.read(place)
            if code is None and not make:
                return
            if code is None:
                source = cache.read(_source_of(self._place(*general)))
                symbol, source = (
                    self._compiled(*general) if source is None else source.decode().split("\0")
                )
                fixed = dict(zip(self.fixed, what[len(general) :], strict=True))
                code = _code(*special(symbol, source, self.record, fixed, _machine()))
                cache.write(place, code)
            self._functions[what] = _loaded(code)

    def _place(self, real, w, *fixed):
        return cache.place_of(f"{self.module}-{self.name}", real.name, w, *fixed)

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


def _alone(symbol: str, module):
    """The module with none of its functions to be seen from outside but the kernel.

    Two kernels may be made of functions of one name that differ, as one is with parts and one
    without; the loader would take one for the other.
    """
    for function in module.functions:
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
    return module


def _source_of(place):
    """Where LLVM's source of the code there is kept."""
    return place and place.with_suffix(".source")


def _code(symbol: str, module) -> bytes:
    """What `_loaded` takes."""
    return symbol.encode() + b"\0" + _machine().emit_object(module)


def _loaded(code: bytes):
    symbol, _, machine_code = code.partition(b"\0")
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    address = engine.get_function_address(symbol.decode())
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
