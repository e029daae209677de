"""Compiled kernels: found on disk, or compiled by Numba and kept there; called without it.

A `Kernel` is a function of arrays and numbers that Numba has compiled to take pointers and
numbers. Its machine code is kept between processes, so that only the first use ever needs Numba:
loading that takes longer than most simulations. The code is found again if every file of this
package, the versions of the compiler and the processor are the same; where it cannot be kept,
kernels are compiled anew and one warning says so. Kept code is run, so it is only taken from
folders and files that belong to the user and that nobody else can write to.

A kernel that is called long enough with the same integers, marked as `Fixed`, is compiled once more
for these alone: that is faster, with the same bits.
"""

import ctypes
import gc
import hashlib
import os
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import llvmlite.binding as llvm
import numpy as np

from dynsim.kernels import processor, ready
from dynsim.kernels.special import special

__all__ = ["Fixed", "Kernel", "Prepared"]

_lock = Lock()
#: Seconds in a kernel after which code for its fixed arguments, which takes about half a second to
#: make, has good prospects to pay off.
_WORTH_IT = 2.0


class Prepared:
    """An argument of many calls: what is passed for it is worked out once, which takes longer than
    the smallest kernels."""

    def __init__(self, value):
        self.value, self.argument = value, _argument(value)


class Fixed(Prepared):
    """An integer, or an array of integers, with which a kernel will be called again and again."""

    def __init__(self, value: int | np.ndarray):
        super().__init__(value)
        self.key = _hash(value.tobytes()) if isinstance(value, np.ndarray) else int(value)


def _hash(value) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:24]


class Kernel:
    """The function `name` of the module dynsim.kernels.`module`, compiled.

    Arrays are passed as pointers and must be contiguous; bool and int become int64, float float64;
    None stays None. The function returns nothing.
    """

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name
        self._functions = {}  # by kinds of all arguments and keys of the fixed
        self._general = set()  # those whose fixed arguments have no code of their own
        self._seconds = {}  # what they have taken

    def __call__(self, *args) -> None:
        kinds, passed = zip(*map(_argument, args), strict=True)
        fixed = {k: a for k, a in enumerate(args) if type(a) is Fixed}
        what = kinds, tuple(a.key for a in fixed.values())
        function = self._functions.get(what)
        if function is None:
            with _lock:  # the first of several threads; the others find what it made
                function = self._functions.get(what) or self._function(what)
                self._functions[what] = function
        begun = time.perf_counter()
        out, error = ctypes.c_void_p(), ctypes.c_void_p()
        status = function(ctypes.byref(out), ctypes.byref(error), *passed)
        if status not in (0, -2):  # Numba's codes for a result and for None
            raise SystemError(f"the kernel {self.name} ended with status {status}")
        if what in self._general:
            spent = self._seconds.get(what, 0.0) + time.perf_counter() - begun
            self._seconds[what] = spent
            if spent > _WORTH_IT:
                self._specialise(what, {k: a.value for k, a in fixed.items()})

    def _function(self, what):
        """The code for the fixed arguments if there is, or else that for all."""
        kinds, fixed = what
        place = self._place(what)
        code = _read(place)
        if code is None and fixed:
            self._general.add(what)
            general = kinds, ()
            if general not in self._functions:
                self._functions[general] = self._function(general)
            return self._functions[general]
        if code is None:
            code, source = self._made(kinds)
            _write(place, code)
            _write(place and place.with_suffix(".source"), source)
        return _loaded(code)

    def _specialise(self, what, fixed: dict) -> None:
        """Have code for these fixed arguments from now on."""
        with _lock:
            if what not in self._general:  # another thread was first
                return
            kinds, _ = what
            general, place = self._place((kinds, ())), self._place(what)
            source = _read(general and general.with_suffix(".source"))
            if source is None:
                _, source = self._made(kinds)
            code = special(source, kinds, fixed, _machine(), name=f"special_{_hash(what)}")
            _write(place, code)
            self._functions[what] = _loaded(code)
            self._general.discard(what)

    def _place(self, what) -> Path | None:
        folder = _folder()
        name = _hash((_environment(), self.name, what))
        return folder and folder / f"{self.module}-{name}.kernel"

    def _source(self):
        return getattr(import_module(f"dynsim.kernels.{self.module}"), self.name)

    def _made(self, kinds) -> tuple[bytes, bytes]:
        """The symbol of the function, a zero byte, and its machine code, or LLVM's source."""
        source = ready.source(self.module, self.name, kinds)
        if source is not None:
            try:
                source = _targeted(source)
                return _machine_code(source), source
            except RuntimeError:  # written for a newer LLVM than the one here
                pass
        source = self._compile(kinds)
        return _machine_code(source), source

    def _compile(self, kinds) -> bytes:
        """LLVM's source after its symbol and a zero byte, as Numba makes it."""
        from dynsim.kernels.compiler import compiled

        function = self._source()
        collecting = gc.isenabled()
        gc.disable()  # a compiler makes a million objects and no garbage: an eighth of its time
        try:
            symbol, source = compiled(function, kinds)
        finally:
            if collecting:
                gc.enable()
        return f"{symbol}\0{source}".encode()


def _argument(value) -> tuple[str, object]:
    """What a value is to the compiler, for an array numpy's letter for its type; and to ctypes."""
    if isinstance(value, Prepared):
        return value.argument
    if isinstance(value, np.ndarray):
        if not value.flags.c_contiguous:
            raise ValueError("kernels take contiguous arrays")
        return value.dtype.char, ctypes.c_void_p(value.__array_interface__["data"][0])
    if isinstance(value, float):
        return "number", ctypes.c_double(value)
    if value is None:
        return "none", ctypes.c_void_p()
    return "integer", ctypes.c_int64(value)


# --- machine code ---------------------------------------------------------------------------------


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


def _machine_code(source: bytes) -> bytes:
    """What `_loaded` takes, from LLVM's source after its symbol and a zero byte."""
    symbol, _, source = source.partition(b"\0")
    return symbol + b"\0" + _machine().emit_object(llvm.parse_assembly(source.decode()))


def _targeted(source: bytes) -> bytes:
    """LLVM's source, after its symbol and a zero byte, with the system here as its target."""
    symbol, _, source = source.partition(b"\0")
    layout, triple = _machine().target_data, llvm.get_process_triple()
    head = f'target datalayout = "{layout}"\ntarget triple = "{triple}"\n'
    return b"\0".join([symbol, head.encode() + source])


@lru_cache
def _engine():
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())


def _loaded(code: bytes):
    symbol, _, machine_code = code.partition(b"\0")
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    return ctypes.CFUNCTYPE(ctypes.c_int32)(engine.get_function_address(symbol.decode()))


# --- on disk --------------------------------------------------------------------------------------


@lru_cache
def _environment() -> tuple[str, ...]:
    """All that machine code depends on, beside the kernel and its types."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    sources = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    versions = (version("numba"), version("llvmlite"), *map(str, sys.version_info[:2]))
    return (sources, *versions, llvm.get_process_triple(), processor.NAME, processor.FEATURES)


@lru_cache
def _folder() -> Path | None:
    """The first folder of ours that can be written: NUMBA_CACHE_DIR alone if it is set."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        places = [Path(os.environ["NUMBA_CACHE_DIR"]) / "dynsim"]
    else:
        mac = Path.home() / "Library/Caches" if sys.platform == "darwin" else None
        shared = os.environ.get("XDG_CACHE_HOME") or mac or Path.home() / ".cache"
        places = [Path(__file__).parent / "__pycache__", Path(shared) / "dynsim"]
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                place.mkdir(mode=0o700)  # a umask can only take from that
            _require_ours(place, place.stat())
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            reason = error
        else:
            return place
    _warn_unkept(reason)
    return None


def _require_ours(place: Path, status: os.stat_result) -> None:
    """Raise PermissionError where another user could have put code: machine code is run."""
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{place} belongs to another user, whose code is not run")
    if status.st_mode & 0o022:
        raise PermissionError(f"{place} can be written by other users, whose code is not run")


def _read(place: Path | None) -> bytes | None:
    """What `_write` wrote there; None if nothing is there, or it is damaged or not ours."""
    if place is None:
        return None
    try:
        with open(place, "rb") as file:
            _require_ours(place, os.fstat(file.fileno()))
            content = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn("a kept kernel is not used but made anew", error)
        return None
    digest, code = content[:32], content[32:]
    if hashlib.sha256(code).digest() != digest:
        _warn("a kept kernel is damaged and made anew", place)
        return None
    return code


def _write(place: Path | None, code: bytes) -> None:
    if place is None:
        return
    name = None
    try:
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
            name = file.name
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(name, place)
    except BaseException as error:
        if name is not None:
            os.unlink(name)
        if not isinstance(error, OSError):
            raise
        _warn_unkept(error)


def _warn_unkept(error: OSError) -> None:
    _warn(
        "compiled kernels cannot be kept, so they are compiled anew (seconds); set "
        "NUMBA_CACHE_DIR to a folder of yours that others cannot write to",
        error,
    )


_warned = set()


def _warn(words: str, reason) -> None:
    """Once a process for all reasons."""
    if words not in _warned:
        _warned.add(words)
        warnings.warn(f"{words} ({' '.join(str(reason).split())})", RuntimeWarning, stacklevel=2)
