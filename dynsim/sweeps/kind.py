"""What a cell may be: its parameters, what is kept of it, and how it is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dynsim.sweeps.settings import Settings

__all__ = ["Computed", "Kept", "Kind", "in_one_line", "one_by_one"]

#: What is kept of a cell by name, or why it failed, in one line.
Computed = dict[str, Any] | str


@dataclass(frozen=True)
class Kept:
    """Something that is kept of every cell.

    arrays : by name, the dimensions beside those of the cells, and the type
    of : callable(what the cell found) -> the arrays of one cell
    """

    arrays: Mapping[str, tuple[tuple[str, ...], str]]
    of: Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Kind:
    """A kind of cell.

    about : what a cell is, in a few words
    defaults : its parameters, and what holds where a sweep does not set them
    keep : what may be kept, by name
    kept : what is kept unless asked otherwise
    dims : callable(values) -> dimensions beside those of the cells, each with its size or its
        labels; values(name) are the values of a parameter in the sweep
    single : parameters that have one value in a sweep, by what is kept; under "" whatever is
    check : callable(settings), which raises ValueError or MemoryError for a cell that cannot be
    cost : callable(settings) -> seconds that a cell takes one core, right to a factor of a few
    compute : callable(cells, keep) -> what is kept of each cell, or why it failed
    inputs : callable(settings) -> what the files are that a cell reads, by name, ready for JSON
    packages : those that it needs besides dynsim's own
    """

    about: str
    defaults: Mapping[str, Any]
    keep: Mapping[str, Kept]
    kept: tuple[str, ...]
    dims: Callable[[Callable[[str], Sequence]], Mapping[str, int | Sequence]]
    single: Mapping[str, tuple[str, ...]]
    check: Callable[[Settings], None]
    cost: Callable[[Settings], float]
    compute: Callable[[Sequence[Settings], Sequence[str]], list[Computed]]
    inputs: Callable[[Settings], Mapping[str, Any]] | None = None
    packages: tuple[str, ...] = ()


def in_one_line(error: Exception) -> str:
    """A cell's failure, which is a result of the sweep."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def one_by_one(
    found: Callable[[Settings], Any], table: Mapping[str, Kept]
) -> Callable[[Sequence[Settings], Sequence[str]], list[Computed]]:
    """The `compute` of a kind whose cells are computed each by itself, as found(settings)."""

    def kept(settings: Settings, keep: Sequence[str]) -> Computed:
        try:
            one = found(settings)
            return {k: v for name in keep for k, v in table[name].of(one).items()}
        except Exception as error:
            return in_one_line(error)

    return lambda cells, keep: [kept(settings, keep) for settings in cells]
