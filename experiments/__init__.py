"""One file per figure or table. ``python -m experiments list | run NAME | draw | all | report``.

An experiment is a module of this package with

    PAPER       the paper and item it reproduces or extends
    SETTINGS    {"smoke": ..., "default": ..., "paper": ...}: seconds, minutes, as published;
                  without "paper" where nothing of the kind is published, or it cannot be had here
    compute(settings, seed, progress) -> {name: array}; long ones take `checkpoints` too, a folder
                  for what they need to go on after an interruption
    draw(data) -> matplotlib Figure, made inside `dynsim.results.style.context`
    claim(data) -> Verdict, or claims(data) -> [Verdict, ...]
    EXTRAS      names of the optional dependencies of dynsim that it needs, where it needs any

and is found by being there. Experiments use the public names of dynsim only. They run from a
checkout: they are no part of what ``pip install dynsim`` installs.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

__all__ = ["did_you_mean", "experiments", "extras"]


def experiments() -> dict[str, ModuleType]:
    """All experiments by name."""
    modules = (import_module(f"experiments.{m.name}") for m in iter_modules(__path__)
               if not m.name.startswith("__"))  # fmt: skip
    return {m.__name__.split(".")[1]: m for m in modules if hasattr(m, "SETTINGS")}


def extras(experiment: ModuleType) -> tuple[str, ...]:
    """The optional dependencies of dynsim that an experiment needs."""
    return tuple(getattr(experiment, "EXTRAS", ()))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the nearest known name and a space after it; "" where none is near.

    >>> did_you_mean("bouns", ["bounds", "measures"])
    "did you mean 'bounds'? "
    """
    nearest = get_close_matches(name, list(known), n=1)
    return f"did you mean {nearest[0]!r}? " if nearest else ""
