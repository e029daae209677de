"""The form of certificate files: JSON of known fields, checked one by one before any proof.

Standard library only: whoever checks certificates needs nothing of how they are made.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from reprlib import repr as brief
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LARGEST_FILE",
    "check_field",
    "check_fields",
    "check_mask",
    "check_matrix",
    "check_rank",
    "check_sign",
    "is_number",
    "length",
    "read",
    "sizes",
]

#: Anything that JSON can hold: which form it has is what the checks here find out.
Json = Any

#: A file's bytes, at most.
LARGEST_FILE = 2**24


def read(path: str | Path) -> object:
    """What JSON a file holds. Raises ValueError unless it is one of numbers and distinct names."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{path}: a certificate has at most {LARGEST_FILE} bytes; this has more")
    try:
        return json.loads(
            content.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number
        )
    except (ValueError, RecursionError):
        raise ValueError(
            f"{path}: not a JSON file of numbers and distinct names; write it anew with --certify"
        ) from None


def _distinct(pairs: list) -> dict:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def check_fields(certificate: Json, form: str, fields: set[str]) -> None:
    """It is of this format, every field is there, and no other but made_by is."""
    if not isinstance(certificate, dict) or certificate.get("format") != form:
        raise ValueError(f"not a certificate: its format is not {form!r}")
    if missing := fields - set(certificate):
        raise ValueError(f"the certificate lacks {', '.join(sorted(missing))}")
    if unknown := set(certificate) - fields - {"made_by"}:
        raise ValueError(
            f"the certificate has a field that no proof covers, {brief(min(unknown, key=str))}; "
            f"take it out"
        )
    if "made_by" in certificate:
        check_field(certificate, "made_by", lambda v: isinstance(v, str), "a text")


def check_field(certificate: dict, name: str, is_right: Callable[[Json], bool], rule: str) -> None:
    if not is_right(certificate[name]):
        raise ValueError(f"the certificate's {name} is {rule}; got {brief(certificate[name])}")


def length(name: str, value: Json) -> int:
    if not isinstance(value, list) or not value:
        raise ValueError(f"the certificate's {name}: a list that is not empty; got {brief(value)}")
    return len(value)


def check_matrix(
    name: str,
    value: Json,
    rows: int,
    columns: int,
    is_entry: Callable[[Json], bool],
    entries: str,
) -> None:
    rule = f"the certificate's {name}: {rows} rows of {columns} entries, {entries}"
    if length(name, value) != rows:
        raise ValueError(f"{rule}; got {len(value)} rows")
    for i, row in enumerate(value):
        if length(f"{name}, row {i}", row) != columns:
            raise ValueError(f"{rule}; row {i} has {len(row)}")
        for j, entry in enumerate(row):
            if not is_entry(entry):
                raise ValueError(f"{rule}; got {brief(entry)} in row {i}, column {j}")


def sizes(tokens: Json, largest: int) -> tuple[int, int]:
    """N and d of the tokens, N d being at most `largest`."""
    n = length("tokens", tokens)
    d = length("tokens' rows", tokens[0])
    if n * d > largest:
        raise ValueError(f"N d is at most {largest} in a certificate; got {n} x {d} tokens")
    return n, d


def check_mask(allowed: Json, n: int) -> None:
    check_matrix("allowed", allowed, n, n, lambda v: is_whole(v) and v in (0, 1), "0 or 1")
    for i, row in enumerate(allowed):
        if not any(row):
            raise ValueError(f"every token attends to something; row {i} of allowed is all 0")


def check_sign(certificate: dict) -> None:
    check_field(certificate, "sign", lambda v: is_whole(v) and v in (1, -1), "1 or -1")


def check_rank(certificate: dict, n: int, d: int) -> None:
    ranks = f"a whole number from 1 to {min(n, d)}"
    check_field(certificate, "rank", lambda v: is_whole(v) and 1 <= v <= min(n, d), ranks)


def is_whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Json) -> bool:
    """A float, or an integer that is one: what is proved is proved of these very numbers."""
    try:
        return (is_whole(value) or isinstance(value, float)) and math.isfinite(value) and (
            float(value) == value)  # fmt: skip
    except OverflowError:  # an integer beyond all floats
        return False
