"""Words that stand for values: NAME[:param...] for an object from a registry, ranges of numbers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TypeVar

from dynsim._values import unknown

__all__ = ["build", "values"]

T = TypeVar("T")

#: The most values that a range stands for.
_LONGEST_RANGE = 1000


def values(text: str) -> list[str]:
    """The values of A,B,... (of A;B;... where they hold commas), ranges A..B and A..B..STEP
    written out, each once.

    >>> values("1..3,8"), values("0..1..0.5")
    (['1', '2', '3', '8'], ['0', '0.5', '1'])

    Raises ValueError for a range that is empty or too long.
    """
    words = [word.strip() for word in text.split(";" if ";" in text else ",")]
    return list(dict.fromkeys(value for word in words if word for value in _range(word)))


_NUMBER = r"([+-]?\d*\.?\d+(?:e[+-]?\d+)?)"
_RANGE = re.compile(rf"{_NUMBER}\.\.{_NUMBER}(?:\.\.{_NUMBER})?", re.IGNORECASE)


def _range(word: str) -> list[str]:
    match = _RANGE.fullmatch(word)
    if not match:
        return [word]
    first, last = Decimal(match[1]), Decimal(match[2])
    step = None if match[3] is None else Decimal(match[3])
    whole = first == first.to_integral_value() and last == last.to_integral_value()
    if step is None and whole:
        step = Decimal(1)
    if step is None or step <= 0 or last < first:
        raise ValueError(
            f"a range is A..B of whole numbers or A..B..STEP, upwards in a positive STEP; "
            f"got {word!r}"
        )
    count = int((last - first) / step) + 1
    if count > _LONGEST_RANGE:
        raise ValueError(
            f"a range has at most {_LONGEST_RANGE} values; {word!r} has {count}; take a larger STEP"
        )
    return [f"{(first + k * step).normalize():f}" for k in range(count)]


def build(
    kind: str,
    registry: Mapping[str, Callable[..., T]],
    text: str,
    *args: object,
    given: Mapping = {},
) -> T:
    """The object that `text`, NAME[:value or :name=value ...], stands for.

    `args` come first; `given` are keywords passed where the constructor has them and the text
    does not set them. Raises ValueError that lists what is known.
    """
    name, *words = text.split(":")
    if name not in registry:
        raise ValueError(unknown(kind, name, registry))
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


def usage_of(names: list[str]) -> str:
    return f"it has: {', '.join(names)}" if names else "it has none"


def _convert(
    kind: str, name: str, key: str, text: str, annotation: str
) -> int | float | tuple[float, ...] | str:
    """`text` as the annotation wants it: int, float, list of numbers or string."""
    wanted = annotation.split("|")[0].strip()
    several = "ndarray" in annotation or "tuple" in annotation
    try:
        if wanted == "int":
            return int(text)
        if wanted == "float":
            numbers = [float(cell) for cell in text.split(",")]
            if len(numbers) == 1:
                return numbers[0]
            if several:
                return tuple(numbers)
            raise ValueError
    except ValueError:
        words = "a whole number" if wanted == "int" else "a number"
        words += " or a list A,B,..." if several else ""
        raise ValueError(f"{key} of {kind} {name!r} is {words}; got {text!r}") from None
    return text
