"""Frozen objects that are compared, hashed and printed by what they contain."""

from __future__ import annotations

import dataclasses
import hashlib
import operator
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "Value",
    "check_instance",
    "check_name",
    "check_switch",
    "describe",
    "entry_of_layer",
    "evenly",
    "real_array",
    "real_number",
    "shown",
    "unknown",
    "whole",
]


def describe(value: object) -> object:
    """A JSON-ready description of `value`; an array becomes its shape, type and SHA-256.

    >>> describe((np.float64(0.5), None)), describe(np.zeros(2))["shape"]
    ([0.5, None], [2])
    """
    if isinstance(value, Value):
        return value.description
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": digest}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value


class Value:
    """Base of frozen dataclasses (declared with ``eq=False, repr=False``) that may hold arrays.

    Two values are equal when they are of one class and every field has the same content, bit for
    bit. Arrays given to a field are copied once and made read-only.
    """

    def _freeze_array(self, field: str, dtype: type[np.generic] = np.float64) -> np.ndarray:
        content = getattr(self, field)
        if dtype == np.float64:
            content = real_array(f"{field} of {type(self).__name__}", content)
        array = np.array(content, dtype=dtype)
        array.setflags(write=False)
        object.__setattr__(self, field, array)
        return array

    @cached_property
    def description(self) -> dict:
        fields = {f.name: describe(getattr(self, f.name)) for f in _fields(self)}
        return {"type": type(self).__name__, **fields}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.description == other.description

    def __hash__(self) -> int:
        return hash(repr(self.description))

    def __repr__(self) -> str:
        def show(value: object) -> str:
            if isinstance(value, np.ndarray) and value.ndim:
                return f"array{value.shape}"
            return repr(value.item() if isinstance(value, np.ndarray) else value)

        shown = (f"{f.name}={show(getattr(self, f.name))}" for f in _fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"


def _fields(value: Any) -> tuple[dataclasses.Field, ...]:
    """Of any `Value`: all are dataclasses, which the base alone is not."""
    return dataclasses.fields(value)


#: What to do instead, by numpy's letter for the kind of an array.
_REMEDIES = {
    "c": "give the real part if that is meant",
    "b": "write 1.0 and 0.0 if numbers are meant",
    "f": "round to float64 with astype(numpy.float64)",
}


def real_array(name: str, value: ArrayLike, *, own: tuple = (), axes: int = 0) -> np.ndarray:
    """`value` as an array of float64; one of a floating-point type in `own` stays as it is.

    Raises ValueError unless it holds real numbers, integers or floating-point numbers of at most 64
    bits or of those types, has at least so many axes, and no entry is masked out. Nothing is
    rounded but integers above 2^53. A torch tensor is taken without its gradient, from any device.
    """
    value = _without_gradient(value)
    if isinstance(value, np.ndarray) and hasattr(value, "filled"):  # numpy.ma, not imported for it
        raise ValueError(f"{name} must hold real numbers; got a masked array; use its filled()")
    try:
        array = np.asarray(value)
    except ValueError:  # numpy's words for lists of different lengths
        raise ValueError(f"{name} must be an array; got lists of different lengths") from None
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.dtype not in own and (kind not in "iuf" or (kind == "f" and size > 8)):
        remedy = _REMEDIES.get(kind, "give integers or floating-point numbers")
        raise ValueError(f"{name} must hold real numbers; got {array.dtype}; {remedy}")
    if array.ndim < axes:
        raise ValueError(f"{name} must have at least {axes} axes; got shape {array.shape}")
    return array if array.dtype in own else array.astype(np.float64, copy=False)


def _without_gradient(value: Any) -> Any:
    """A torch tensor as numpy takes it, bfloat16 in float32; all else as it is. Torch is not
    imported for it."""
    if not (hasattr(value, "detach") and hasattr(value, "is_floating_point")):
        return value
    value = value.detach().cpu()
    return value.float() if str(value.dtype) == "torch.bfloat16" else value


def real_number(name: str, value: ArrayLike) -> float:
    """`value` as a float. Raises ValueError unless it is one real number, as `real_array`."""
    array = real_array(name, value)
    if array.ndim:
        raise ValueError(f"{name} is one number; got an array of shape {array.shape}")
    return float(array)


def whole(name: str, value: object, least: int, most: float = 2**63 - 1) -> int:
    """`value` as an int. Raises ValueError unless it is a whole number from `least` to `most`.

    Nothing that is counted exceeds an int64; a seed may, with ``most=inf``.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not least <= number <= most:
        limit = f" and at most {most}" if number is not None and number > most else ""
        raise ValueError(
            f"the {name} is a whole number, at least {least}{limit}; got {shown(value)}"
        )
    return number


def entry_of_layer(what: str, entries: tuple, t: int) -> Any:
    """Entry t, or the single one, which serves all layers; ValueError where there is none."""
    t = whole("number of a layer", t, least=0)
    if len(entries) == 1:
        return entries[0]
    if t >= len(entries):
        raise ValueError(
            f"there are {what} for {len(entries)} layers, the first of them layer 0; asked for "
            f"layer {t}"
        )
    return entries[t]


def check_switch(name: str, value: object) -> None:
    """Raise ValueError unless `value` is True or False: "no" and 0.5 are true to Python."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is True or False; got {shown(value)}")


def check_instance(name: str, value: object, kind: Any, example: str) -> None:
    """Raise ValueError unless `value` is an object of class `kind`, or of one of several."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is an object such as {example}; got {shown(value)}")


def check_name(kind: str, name: object, known: Iterable[str]) -> None:
    """Raise ValueError unless `name` is one of `known`, the names of a registry."""
    if not isinstance(name, str) or name not in known:
        raise ValueError(unknown(kind, name, known))


def shown(value: object) -> str:
    """`value` as an error shows it: in one line of 80 characters at most.

    >>> shown(np.zeros((2, 2)))
    'array([[0., 0.], [0., 0.]])'
    """
    try:
        words = " ".join(repr(value).split())
    except ValueError:  # an int of more digits than Python prints
        if not isinstance(value, int):
            return f"a {type(value).__name__} with a number too long to print"
        return f"a number of {value.bit_length()} bits"
    return words if len(words) <= 80 else f"{words[:77]}..."


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The words of an error about a name that is not in a registry, with the nearest one that is.

    >>> unknown("mask", "casual", ["complete", "causal"])
    "unknown mask 'casual'; did you mean 'causal'? known are complete, causal"
    """
    from difflib import get_close_matches

    known = list(known)
    nearest = get_close_matches(str(name), known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {kind} {shown(name)}; {hint}known are {', '.join(known)}"


def evenly(last: int, most: int) -> np.ndarray:
    """The whole numbers 0 to `last`, at most `most` of them, evenly, the ends among them.

    >>> evenly(4, 33).tolist(), evenly(1000, 5).tolist()
    ([0, 1, 2, 3, 4], [0, 250, 500, 750, 1000])
    """
    return np.linspace(0, last, min(last + 1, most)).round().astype(int)
