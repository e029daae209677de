"""Symbolic checks of what dynsim computes, in sympy, one lemma per file.

Nothing here imports dynsim: agreement between the two is then evidence. ``python -m theory`` checks
all lemmas and ``--latex FILE`` writes them; ``python -m theory list`` names them and ``show NAME``
prints one with its steps, as LaTeX with ``--latex``. That is from a checkout, with the extra
"theory": lemmas are no part of what ``pip install dynsim`` installs.

A lemma is a module of a subpackage with `statement`, `check` and `WRONG` (see `theory.lemma`); it
is found by being there. Its name is that of its file.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import walk_packages
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from theory.lemma import Lemma

__all__ = ["lemmas"]


def lemmas() -> dict[str, Lemma]:
    """All lemmas by name, room by room."""
    from theory.lemma import Lemma  # sympy: the command says so itself where it is missing

    found = {}
    for entry in walk_packages(__path__, "theory."):
        if entry.name.count(".") == 2:
            module = import_module(entry.name)
            if hasattr(module, "statement"):
                name = entry.name.rpartition(".")[2].replace("_", "-")
                found[name] = Lemma(name, module.statement, module.check, module.WRONG)
    return found
