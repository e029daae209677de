"""Symbolic checks of what dynsim computes, in sympy, one lemma per file.

Nothing here imports dynsim: agreement between the two is then evidence. ``python -m theory`` checks
all lemmas; ``python -m theory show NAME`` prints one with its steps.

A lemma is a module of this package with a `LEMMA`; it is found by being there.
"""

from importlib import import_module
from pkgutil import iter_modules

from theory.lemma import Lemma

__all__ = ["lemmas"]


def lemmas() -> dict[str, Lemma]:
    """All lemmas by name, in the order of their file names."""
    found = {}
    for module in iter_modules(__path__):
        lemma = getattr(import_module(f"theory.{module.name}"), "LEMMA", None)
        if lemma is not None:
            found[lemma.name] = lemma
    return found
