"""Settings as a table of names and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["rows"]

#: Characters of a value that stand in the table.
_LONGEST = 300


def rows(settings: Mapping[str, Any], parent: str = "") -> list[tuple[str, str]]:
    """(name, value) of all that is set, with the names of what is nested joined.

    >>> rows({"norm": {"type": "Unit"}, "seed": 0, "mlp": None})
    [('norm', 'Unit'), ('seed', '0')]
    """
    table: list[tuple[str, str]] = []
    for name, value in settings.items():
        whole = parent if name == "type" and parent else f"{parent} {name}".strip()
        if isinstance(value, Mapping):
            table += rows(value, whole)
        elif value is not None and value is not False and value != "" and value != []:
            text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            table.append((whole, text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."))
    return table
