"""What a lemma is: a statement with its source, a check that shows its steps, and wrong variants.

A lemma is a module with three names:

    statement() -> Statement    what is claimed, by whom, under what, and how it is checked
    check(...) -> Proof         carries out the check; the claim's constants are keyword arguments
    WRONG                       {words: arguments}, variants of the claim that `check` must reject
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import sympy

__all__ = ["KINDS", "Lemma", "Proof", "Statement", "Step"]

#: How far a check goes; `Statement.how` begins with one of these and says the rest in words.
#: "proved" alone is for all sizes that the statement names; "proved for d <= 3" is just that.
KINDS = ("proved", "checked in exact arithmetic", "counterexample found")


@dataclass(frozen=True)
class Statement:
    claim: str
    source: str
    hypotheses: str
    latex: str
    how: str

    def __post_init__(self):
        if not self.how.startswith(KINDS):
            raise ValueError(f"`how` begins with one of {', '.join(KINDS)}; got {self.how!r}")


@dataclass(frozen=True)
class Step:
    """`formula` is what was decided; `holds` is None for a step that is argued in words alone."""

    reason: str
    formula: sympy.Basic | None
    holds: bool | None


@dataclass
class Proof:
    """The steps of a check, in order. It holds when at least one was decided and none is false."""

    steps: list[Step] = field(default_factory=list)

    def equal(self, reason: str, left, right) -> None:
        """left = right, expressions or matrices, by rewriting left - right to zero."""
        left, right = (sympy.sympify(side) for side in (left, right))
        if isinstance(left, sympy.MatrixBase):
            left, right = left.as_immutable(), sympy.ImmutableMatrix(right)
        formula = sympy.Eq(left, right, evaluate=False)
        self.steps.append(Step(reason, formula, _vanishes(left - right)))

    def true(self, reason: str, fact, formula=None) -> None:
        """A fact that Python or sympy decides exactly; one that sympy leaves open is not true."""
        shown = fact if formula is None and isinstance(fact, sympy.Basic) else formula
        self.steps.append(Step(reason, shown, sympy.sympify(fact) is sympy.true))

    def at_least(self, reason: str, left, right, nonnegative) -> None:
        """left >= right: the difference is a polynomial with coefficients >= 0 in symbols >= 0."""
        coefficients = sympy.Poly(sympy.expand(left - right), *nonnegative).coeffs()
        formula = sympy.Ge(left, right, evaluate=False)
        self.steps.append(Step(reason, formula, all(c.is_nonnegative for c in coefficients)))

    def words(self, reason: str) -> None:
        """A step that the reader checks: it joins others and decides nothing."""
        self.steps.append(Step(reason, None, None))

    @property
    def holds(self) -> bool:
        decided = [step.holds for step in self.steps if step.holds is not None]
        return bool(decided) and all(decided)


@dataclass(frozen=True)
class Lemma:
    """A lemma's module under its name."""

    name: str
    statement: Callable[[], Statement]
    check: Callable[..., Proof]
    wrong: Mapping[str, Mapping]


def _vanishes(expression) -> bool:
    if isinstance(expression, sympy.MatrixBase):
        return all(_vanishes(entry) for entry in expression)
    expanded = sympy.expand(expression)
    if expanded == 0:
        return True
    fraction = sympy.cancel(sympy.together(expanded))
    if fraction == 0 or _is_rational(fraction):  # a fraction of polynomials in lowest terms
        return fraction == 0
    return sympy.simplify(fraction) == 0


def _is_rational(expression) -> bool:
    """A fraction of polynomials with rational coefficients, without roots or functions."""
    powers = expression.atoms(sympy.Pow)
    special = expression.atoms(sympy.Function, sympy.NumberSymbol)
    return not special and all(power.exp.is_Integer for power in powers)
