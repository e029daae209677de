"""What a lemma is: a statement with its source, and a check that shows its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import sympy

__all__ = ["Lemma", "Proof"]


@dataclass
class Proof:
    """The steps of a check. A step is a claim in words and an expression that must be zero."""

    steps: list[tuple[str, sympy.Basic]] = field(default_factory=list)

    def zero(self, claim: str, expression) -> None:
        """Add a step: `expression` simplifies to zero."""
        self.steps.append((claim, sympy.simplify(sympy.expand(expression))))

    @property
    def holds(self) -> bool:
        return bool(self.steps) and all(rest == 0 for _, rest in self.steps)


@dataclass(frozen=True)
class Lemma:
    """`method` says how far the check goes: "proved symbolically", "proved for d <= k", ..."""

    name: str
    source: str
    statement: str
    hypotheses: str
    latex: str
    method: str
    check: Callable[[], Proof]
