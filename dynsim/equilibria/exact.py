"""The checker of exact certificates: equilibria whose coordinates are rationals and square roots.

For equilibria that no enclosure can prove, as those of WU's Jordan family, whose first token has
multipliers of exactly 1. Attention is uniform (M = 0): F(x)_i = y_i / ||y_i||, y_i the mean of the
x_j W_V that token i attends to. It knows nothing of how certificates are made, and imports the
other checker, the form of files, the standard library and python-flint only.

**Numbers.** A coordinate is sum_S q_S prod_{k in S} sqrt(p_k), with rational q_S and p_k > 0. They
are computed with as polynomials in t_1, ..., t_m modulo t_k^2 = p_k. Putting t_k = sqrt(p_k) is a
homomorphism to the real numbers: what is 0, or an inverse, as a polynomial is so as a number,
whether or not the square roots are independent. (The converse is not needed: what is 0 as a number
alone stays unproved.) Signs and sizes are decided in balls.

1. *Equilibrium.* <x_i, x_i> = 1, y_i = n_i s x_i for n_i = s <y_i, x_i>, and n_i > 0.
2. *Rank, exactly k.* Elimination without division: k pivots that are not 0, then rows that are 0.
3. *Spectral radius* of DF(x), whose blocks are those of the mask's strong components: of each, the
   characteristic polynomial (Faddeev and LeVerrier), without its factors z, z - 1 and z + 1. "= 1":
   there is a factor z - 1 or z + 1, and the companion matrices of what is left have a spectral
   radius below 1. "< 1": the same without such factors. "> 1": |trace J^m| > size for a block J.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from dynsim.equilibria import balls
from dynsim.equilibria.schema import (
    check_field,
    check_fields,
    check_mask,
    check_matrix,
    check_rank,
    check_sign,
    sizes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import flint

__all__ = ["FORMAT", "check", "check_form"]

FORMAT = "dynsim exact equilibrium certificate 1"
#: What N d, the number of square roots, and the letters of a rational number may be at most.
LARGEST_SIZE, MOST_ROOTS, LONGEST = 64, 3, 1000
_BITS = 256
_FIELDS = {"format", "allowed", "W_V", "radicands", "tokens", "sign", "rank", "spectral_radius"}


def check(certificate: dict) -> dict[str, bool]:
    """{claim in words: proved} of an exact certificate, from its numbers alone.

    Claims: x' = sign x exactly, for the tokens x; their rank is exactly `rank`; the spectral radius
    of DF(x) is < 1, = 1 or > 1. A claim that is not proved may be true or false.

    Raises
    ------
    ValueError
        When it is not a certificate: a field lacks, is unknown, or holds what it cannot hold.
    ImportError
        Without python-flint.
    """
    check_form(certificate)
    what = "an equilibrium" if certificate["sign"] == 1 else "a state with x' = -x"
    claims = (
        f"the tokens are exactly {what}",
        f"their rank is exactly {certificate['rank']}",
        f"their spectral radius is {certificate['spectral_radius']}",
    )
    with balls.precision(_BITS):
        return dict(zip(claims, _proofs(certificate), strict=True))


# --- the form -----------------------------------------------------------------------------------


def check_form(certificate: dict) -> None:
    """Raise ValueError unless every field is there, of its type, shape and range, and no other."""
    check_fields(certificate, FORMAT, _FIELDS)
    tokens, roots = certificate["tokens"], certificate["radicands"]
    n, d = sizes(tokens, LARGEST_SIZE)
    rule = f"at most {MOST_ROOTS} rational numbers above 0, as texts"
    is_list = isinstance(roots, list) and len(roots) <= MOST_ROOTS
    if not (is_list and all(_is_rational(p) and Fraction(p) > 0 for p in roots)):
        raise ValueError(f"the certificate's radicands: {rule}")
    terms = 2 ** len(roots)

    def is_sum(entry: object) -> bool:
        return isinstance(entry, list) and len(entry) == terms and all(map(_is_rational, entry))

    check_matrix("tokens", tokens, n, d, is_sum, f"lists of {terms} rational numbers, as texts")
    check_matrix("W_V", certificate["W_V"], d, d, _is_rational, "rational numbers, as texts")
    check_mask(certificate["allowed"], n)
    check_sign(certificate)
    check_rank(certificate, n, d)
    sides = "'< 1', '= 1' or '> 1'"
    check_field(certificate, "spectral_radius", lambda v: v in ("< 1", "= 1", "> 1"), sides)


def _is_rational(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= LONGEST
        and re.fullmatch(r"-?[0-9]+(/0*[1-9][0-9]*)?", value) is not None
    )


# --- the numbers --------------------------------------------------------------------------------


class _Number:
    """A polynomial in t_1 .. t_m modulo t_k^2 = p_k: {the bits of S: q_S}, without zeros."""

    def __init__(self, terms: dict[int, Fraction], squares: tuple[Fraction, ...]):
        self.terms = {S: q for S, q in terms.items() if q}
        self.squares = squares

    def __add__(self, other: _Number) -> _Number:
        terms = dict(self.terms)
        for S, q in other.terms.items():
            terms[S] = terms.get(S, 0) + q
        return _Number(terms, self.squares)

    def __sub__(self, other: _Number) -> _Number:
        return self + other * Fraction(-1)

    def __mul__(self, other: _Number | Fraction) -> _Number:
        if isinstance(other, Fraction):
            return _Number({S: q * other for S, q in self.terms.items()}, self.squares)
        terms: dict[int, Fraction] = {}
        for S, q in self.terms.items():
            for T, r in other.terms.items():
                value = q * r
                for k, p in enumerate(self.squares):
                    if S & T & (1 << k):
                        value *= p
                terms[S ^ T] = terms.get(S ^ T, 0) + value
        return _Number(terms, self.squares)

    @property
    def is_zero(self) -> bool:
        return not self.terms

    def inverse(self) -> _Number:
        """By conjugation, root after root. ArithmeticError where that meets 0."""
        if self.is_zero:
            raise ArithmeticError("0 has no inverse")
        top = max(self.terms).bit_length()
        if not top:
            return _Number({0: 1 / self.terms[0]}, self.squares)
        root = 1 << (top - 1)
        conjugate = _Number({S: -q if S & root else q for S, q in self.terms.items()}, self.squares)
        return conjugate * (self * conjugate).inverse()

    def ball(self) -> flint.arb:
        """A ball that holds the number."""
        total = balls.flint.arb(0)
        for S, q in self.terms.items():
            term = _ball(q)
            for k, p in enumerate(self.squares):
                if S & (1 << k):
                    term *= _ball(p).sqrt()
            total += term
        return total


#: Rows of numbers.
Matrix = list[list[_Number]]


def _ball(q: Fraction) -> flint.arb:
    return balls.flint.arb(balls.flint.fmpq(q.numerator, q.denominator))


# --- the proofs ---------------------------------------------------------------------------------


def _proofs(c: dict) -> tuple[bool, bool, bool]:
    """What is proved of equilibrium, rank and spectral radius."""
    squares = tuple(Fraction(p) for p in c["radicands"])
    x = [[_Number({S: Fraction(q) for S, q in enumerate(entry)}, squares) for entry in row]
         for row in c["tokens"]]  # fmt: skip
    W = [[Fraction(entry) for entry in row] for row in c["W_V"]]
    attended = [[j for j, v in enumerate(row) if v] for row in c["allowed"]]
    norms = _norms(x, W, attended, Fraction(c["sign"]))
    if norms is None:
        return False, False, False
    try:
        blocks = [_block(x, W, attended, norms, part) for part in _components(attended)]
        sided = _has_radius(blocks, c["spectral_radius"])
    except ArithmeticError:
        sided = False
    return True, _has_rank(x, c["rank"]), sided


def _sum(numbers: Iterable[_Number]) -> _Number:
    first, *rest = numbers
    for number in rest:
        first = first + number
    return first


def _norms(
    x: list[list[_Number]], W: list[list[Fraction]], attended: list[list[int]], sign: Fraction
) -> list[_Number] | None:
    """The n_i > 0 of y_i = n_i sign x_i, or None unless the tokens are proved to be of length 1 and
    to have such."""
    d, norms = len(W), []
    one = _Number({0: Fraction(1)}, x[0][0].squares)
    for row, js in zip(x, attended, strict=True):
        mean = [_sum(x[j][a] for j in js) * Fraction(1, len(js)) for a in range(d)]
        y = [_sum(mean[a] * W[a][b] for a in range(d)) for b in range(d)]
        norm = _sum(u * v for u, v in zip(y, row, strict=True)) * sign
        apart = [u - norm * v * sign for u, v in zip(y, row, strict=True)]
        apart.append(_sum(v * v for v in row) - one)
        if not (all(a.is_zero for a in apart) and norm.ball() > 0):
            return None
        norms.append(norm)
    return norms


def _has_rank(x: list[list[_Number]], rank: int) -> bool:
    rows = [list(row) for row in x]
    for _ in range(rank):
        places = [(i, j) for i, row in enumerate(rows) for j in range(len(row))]
        i, j = max(places, key=lambda place: rows[place[0]][place[1]].ball().abs_lower())
        pivots = rows.pop(i)
        pivot = pivots.pop(j)
        if not pivot.ball().abs_lower() > 0:
            return False
        for k, row in enumerate(rows):
            factor = row.pop(j)
            rows[k] = [v * pivot - factor * p for v, p in zip(row, pivots, strict=True)]
    return all(v.is_zero for row in rows for v in row)


def _components(attended: list[list[int]]) -> list[list[int]]:
    """The strong components of the mask."""
    n = len(attended)
    reached = [{i, *js} for i, js in enumerate(attended)]
    for k in range(n):
        for i in range(n):
            if k in reached[i]:
                reached[i] |= reached[k]
    parts = {tuple(j for j in range(n) if j in reached[i] and i in reached[j]) for i in range(n)}
    return [list(part) for part in sorted(parts)]


def _block(
    x: list[list[_Number]],
    W: list[list[Fraction]],
    attended: list[list[int]],
    norms: list[_Number],
    part: list[int],
) -> list[list[_Number]]:
    """dx -> A dx W (1 - x_i^T x_i) / n_i on the tokens of a component, as a matrix for rows."""
    d = len(W)
    squares = x[0][0].squares
    zero = _Number({}, squares)
    matrix = [[zero] * (len(part) * d) for _ in range(len(part) * d)]
    for p, i in enumerate(part):
        share = norms[i].inverse() * Fraction(1, len(attended[i]))
        along = [_sum(x[i][b] * w for b, w in enumerate(row)) for row in W]  # W x_i^T
        for q, j in enumerate(part):
            if j in attended[i]:
                for a in range(d):
                    for b in range(d):
                        plain = _Number({0: W[a][b]}, squares)
                        matrix[q * d + a][p * d + b] = (plain - along[a] * x[i][b]) * share
    return matrix


def _has_radius(blocks: list[Matrix], side: str) -> bool:
    if side == "> 1":
        return any(balls.is_on_side(_balls(block), side) for block in blocks)
    on_circle = False
    for block in blocks:
        coefficients, has_unit = _without_units(_characteristic(block))
        on_circle = on_circle or has_unit
        size = len(coefficients) - 1
        if size:
            companion = [[_Number({0: Fraction(r == c + 1)}, block[0][0].squares)
                          for c in range(size - 1)] + [coefficients[size - r] * Fraction(-1)]
                         for r in range(size)]  # fmt: skip
            if not balls.is_on_side(_balls(companion), "< 1"):
                return False
    return on_circle == (side == "= 1")


def _balls(matrix: Matrix) -> flint.arb_mat:
    return balls.flint.arb_mat([[v.ball() for v in row] for row in matrix])


def _characteristic(A: Matrix) -> list[_Number]:
    """Coefficients of det(z - A), that of the highest power, 1, first."""
    size = len(A)
    one = _Number({0: Fraction(1)}, A[0][0].squares)
    coefficients, M = [one], [[_Number({}, one.squares)] * size for _ in range(size)]
    for k in range(1, size + 1):
        M = [[_sum(A[r][s] * M[s][c] for s in range(size)) for c in range(size)]
             for r in range(size)]  # fmt: skip
        for r in range(size):
            M[r][r] = M[r][r] + coefficients[-1]
        trace = _sum(A[r][s] * M[s][r] for r in range(size) for s in range(size))
        coefficients.append(trace * Fraction(-1, k))
    return coefficients


def _without_units(coefficients: list[_Number]) -> tuple[list[_Number], bool]:
    """The polynomial without its factors z, z - 1, z + 1; whether there was one of the latter."""
    while len(coefficients) > 1 and coefficients[-1].is_zero:
        coefficients = coefficients[:-1]
    has_unit = False
    for root in (Fraction(1), Fraction(-1)):
        while len(coefficients) > 1:
            quotient = [coefficients[0]]
            for c in coefficients[1:]:
                quotient.append(quotient[-1] * root + c)
            if not quotient[-1].is_zero:
                break
            coefficients, has_unit = quotient[:-1], True
    return coefficients, has_unit
