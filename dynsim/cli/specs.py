"""NAME[:param...] on the command line to an object from a registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from dynsim._files import SUFFIXES

__all__ = ["build", "is_file", "usage"]


def is_file(text: str) -> bool:
    """True when a value names a file of arrays rather than an entry of a registry."""
    return text.lower().endswith(SUFFIXES) or Path(text).is_file()


def usage(registry: Mapping[str, Callable], given=()) -> str:
    """The entries of a registry with their parameters, for --help."""

    def entry(name):
        needed = inspect.Parameter.empty
        known = inspect.signature(registry[name]).parameters
        words = [(p, known[p].default is needed) for p in known if p not in given]
        return name + "".join(f":{p.upper()}" if must else f"[:{p}]" for p, must in words)

    return ", ".join(entry(name) for name in registry)


def build(kind: str, registry: Mapping[str, Callable], text: str, *args, given: Mapping = {}):
    """The object that `text`, NAME[:value or :name=value ...], stands for.

    `args` come first; `given` are keywords passed where the constructor has them and the text
    does not set them. Raises ValueError that lists what is known.
    """
    name, *words = text.split(":")
    if name not in registry:
        raise ValueError(f"unknown {kind} {name!r}; known are {', '.join(registry)}")
    constructor = registry[name]
    signature = inspect.signature(constructor).parameters
    names = sorted(list(signature)[len(args) :], key=lambda key: key == "window")  # an option, too
    keywords = {key: value for key, value in given.items() if key in names}
    for position, word in enumerate(words):
        key, equals, value = word.rpartition("=")
        if not equals:
            if position >= len(names):
                raise ValueError(
                    f"{kind} {name!r} takes {len(names)} parameters ({usage_of(names)})"
                )
            key = names[position]
        if key not in names:
            raise ValueError(f"{kind} {name!r} has no parameter {key!r} ({usage_of(names)})")
        keywords[key] = _convert(kind, name, key, value, str(signature[key].annotation))
    missing = [
        key
        for key in names
        if signature[key].default is inspect.Parameter.empty and key not in keywords
    ]
    if missing:
        raise ValueError(f"{kind} {name!r} needs {missing[0]}: write {name}:{missing[0].upper()}")
    return constructor(*args, **keywords)


def usage_of(names) -> str:
    return f"it has: {', '.join(names)}" if names else "it has none"


def _convert(kind: str, name: str, key: str, text: str, annotation: str):
    """`text` as the annotation wants it: int, float, list of numbers or string."""
    wanted = annotation.split("|")[0].strip()
    try:
        if wanted == "int":
            return int(text)
        if wanted == "float":
            numbers = [float(cell) for cell in text.split(",")]
            if len(numbers) == 1:
                return numbers[0]
            if "ndarray" in annotation:
                return tuple(numbers)
            raise ValueError
    except ValueError:
        words = "a whole number" if wanted == "int" else "a number"
        words += " or a list A,B,..." if "ndarray" in annotation else ""
        raise ValueError(f"{key} of {kind} {name!r} is {words}; got {text!r}") from None
    return text
