"""What a lemma is: a statement with its source, a check that shows its steps, and wrong variants.

A lemma is a module with three names:

    statement() -> Statement    what is claimed, by whom, under what, and how it is checked
    check(...) -> Proof         carries out the check; the claim's constants are keyword arguments
    WRONG                       {words: arguments}, variants of the claim that `check` must reject
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import sympy
from sympy.parsing.sympy_parser import convert_xor, parse_expr, standard_transformations

__all__ = ["KINDS", "Lemma", "Proof", "Statement", "Step", "written"]

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
    """A formula in plain text and in LaTeX, both sides as they were before rewriting.

    `holds` is None for a step that is argued in words alone. A step that has words and no formula
    is decided too, by a search that the words describe.
    """

    reason: str
    plain: str
    latex: str
    holds: bool | None


@dataclass
class Proof:
    """The steps of a check, in order. It holds when at least one was decided and none is false.

    A side is an expression, a matrix, or words for `written` (of numbers alone). `shown` is a pair
    of such sides for the reader, where what is decided is long, or is rewritten on its way here.
    Of these only numbers are compared with what is decided.
    """

    steps: list[Step] = field(default_factory=list)

    def equal(self, reason: str, left, right, shown=None) -> None:
        """left = right, expressions or matrices, by rewriting left - right to zero."""
        sides = _value(left), _value(right)
        holds = _vanishes(_minus(*sides)) and _numbers_agree(shown or (), sides)
        self._add(reason, shown or (left, right), ("=", "="), holds)

    def less(self, reason: str, left, right, shown=None) -> None:
        """left < right, numbers or expressions of symbols with a sign: right - left is positive."""
        sides = _value(left), _value(right)
        gap = sympy.factor(sides[1] - sides[0])
        holds = bool(gap.is_positive) and _numbers_agree(shown or (), sides)
        self._add(reason, shown or (left, right), ("<", "<"), holds)

    def at_least(self, reason: str, left, right, nonnegative, shown=None) -> None:
        """left >= right: the difference has coefficients >= 0 in symbols >= 0, as a polynomial, or
        as a fraction above and below. (Where such a denominator is 0, nothing is claimed.)"""
        fraction = sympy.cancel(_value(left) - _value(right)).as_numer_denom()
        holds = all(_has_coefficients_of_one_sign(part, nonnegative) for part in fraction)
        self._add(reason, shown or (left, right), (">=", r"\ge"), holds)

    def true(self, reason: str, fact) -> None:
        """What `reason` says, decided by Python or sympy; what sympy leaves open is not true."""
        self.steps.append(Step(reason, "", "", sympy.sympify(fact) is sympy.true))

    def words(self, reason: str) -> None:
        """A step that the reader checks: it joins others and decides nothing."""
        self.steps.append(Step(reason, "", "", None))

    def _add(self, reason: str, sides, signs, holds: bool) -> None:
        printed = [_printed(side) for side in sides]
        plain, latex = (
            f" {sign} ".join(pair)
            for sign, pair in zip(signs, zip(*printed, strict=True), strict=True)
        )
        self.steps.append(Step(reason, plain, latex, holds))

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


#: Names that `written` takes for sympy's own; all others are symbols, or functions where called.
_OWN = ("sqrt", "exp", "log", "sin", "cos", "tan", "acos", "atan", "tanh", "pi")


def written(text: str) -> sympy.Basic:
    """A formula as it is written: nothing is rewritten, not even 1/2 - 1/3. `.doit()` does that.

    Names are symbols, whatever stands for matrices included, or functions where a bracket follows.

    >>> written("2*(1/2 - 1/3)").doit()
    1/3
    """
    names = {}
    for name, bracket in re.findall(r"([A-Za-z]\w*)(\s*\()?", text):
        if name not in _OWN:
            names[name] = sympy.Function(name) if bracket else sympy.Symbol(name)
    transformations = (*standard_transformations, convert_xor)
    return _tidy(parse_expr(text, names, transformations=transformations, evaluate=False))


def _printed(side) -> tuple[str, str]:
    """In plain text and in LaTeX; what was written keeps its order."""
    order = "none" if isinstance(side, str) else None
    side = written(side) if isinstance(side, str) else side
    plain = " ".join(sympy.sstr(side, order=order).replace("**", "^").split())
    return plain, sympy.latex(side, order=order)


def _tidy(expression):
    """Without the factors 1 that sympy's parser makes of - and /, and with fractions as numbers."""
    if not expression.args:
        return expression
    args = [_tidy(arg) for arg in expression.args]
    if expression.is_Mul:
        args = [arg for arg in args if arg != 1] or [sympy.Integer(1)]
        if len(args) == 1:
            return args[0]
        whole = [arg for arg in args if arg.is_Integer]
        fraction = all(arg.is_Number or _is_unit_fraction(arg) for arg in args)
        if fraction and (len(whole) == 1 or -1 in whole):
            return sympy.Mul(*args)
    return expression.func(*args, evaluate=False)


def _is_unit_fraction(arg) -> bool:
    return arg.is_Pow and arg.base.is_Integer and arg.exp == -1


def _numbers_agree(shown, decided) -> bool:
    """Numbers that are shown are those that were decided; other formulas are for the reader."""
    pairs = zip(shown, decided, strict=False)
    values = ((written(words).doit(), value) for words, value in pairs if isinstance(words, str))
    return all(
        _vanishes(a - b) for a, b in values if a.is_number and not isinstance(b, sympy.MatrixBase)
    )


def _minus(left, right):
    if isinstance(left, sympy.MatrixBase):
        return left.as_immutable() - sympy.ImmutableMatrix(right)
    return left - right


def _has_coefficients_of_one_sign(expression, symbols) -> bool:
    polynomial = sympy.expand(expression).as_poly(*symbols)  # None when it is none
    return polynomial is not None and all(c.is_nonnegative for c in polynomial.coeffs())


def _value(side):
    """Words that are decided hold numbers alone: symbols in them would have no signs or orders."""
    if not isinstance(side, str):
        return sympy.sympify(side)
    number = written(side).doit()
    if not number.is_number:
        raise ValueError(f"a formula in words that is decided holds numbers alone; got {side!r}")
    return number


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
