"""The checker of certificates: proofs in ball arithmetic, from the numbers of a file alone.

It knows nothing of how certificates are made, and imports the form of their files, the standard
library and python-flint (Arb, the extra `certify`) only. The layer is F(x)_i = y_i / ||y_i||, y =
sum_h A_h x W_V^h, with A_h the softmax of x M_h x^T over the tokens that the mask allows; s is the
certificate's sign and G(x) = F(x) - s x. Balls hold every value that rounding or a box can give;
whatever choice below is made from midpoints (C, c, pivots) decides how much can be proved, never
whether a proof is right.

**Krawczyk's step.** Let the box X hold the point c, let G be continuously differentiable on X, C be
any matrix, and

    K = c - C G(c) + (I - C DG(X)) (X - c).

For x in X the segment from c to x lies in X, as X is convex, so G(x) = G(c) + B (x - c), where B,
the mean of DG along the segment, lies in DG(X), entry by entry. Hence x - C G(x) =
c - C G(c) + (I - C B) (x - c) lies in K. On a box without c the segment leaves the box, B need not
lie in DG(X), and all that follows is false (theory: `krawczyk`).

1. *Existence.* X is the tokens x0 plus or minus a radius R, not below the one claimed, r; c = x0.
   If K lies within x0 -+ r in every entry, strictly, then x -> x - C G(x) maps X into its interior
   and has a fixed point x* there (Brouwer): C G(x*) = 0.
2. *Uniqueness.* K holds x0 - C G(x0) + (I - C B) u for all u with |u_j| <= R, so strictness gives
   |C G(x0)|_i + R sum_j |I - C B|_ij < r <= R for every B in DG(X): ||I - C B|| < 1 in the maximum
   norm, C and B are regular, and G(x*) = 0. For two zeros in X, 0 = G(x) - G(x') = B (x - x') with
   B in DG(X), so x = x'.
3. *Narrowing.* If X is any box that holds the zero x*, then x* lies in K too, as x* - C G(x*) = x*.
   So X is replaced by its intersection with K, with its own midpoint for c and a new C.

**Rank at least k.** Gaussian elimination of all matrices in X at once finds k pivots that are not
0; their product is, up to sign, a minor of size k.

**Spectral radius** of J = DF(x*), for all J in DF(X): below 1 if ||J^m||_F < 1 for some m, as the
spectral radius to the power m is at most that; above 1 if |trace J^m| > N d, as the trace is the
sum of N d powers of multipliers. F is odd, thus DF even: where F(x*) = -x*, two layers have the
derivative J^2 at x*, and the same multipliers decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dynsim.equilibria.schema import (
    check_field,
    check_fields,
    check_mask,
    check_matrix,
    check_rank,
    check_sign,
    is_number,
    length,
    sizes,
)

try:
    import flint as flint  # `exact` takes it from here
except ImportError:  # an extra; the form of a certificate is checked without it
    flint = None  # type: ignore[assignment]

__all__ = ["FORMAT", "check", "check_form", "has_rank", "is_on_side", "precision"]

FORMAT = "dynsim equilibrium certificate 1"
#: What N d and heads times d may be at most, so that a check takes minutes.
LARGEST_SIZE = 256
#: Bits of the balls' midpoints; times a box is narrowed; powers of J tried, as powers of two.
_BITS, _NARROWINGS, _SQUARINGS = 256, 3, 16


def check(certificate: dict) -> dict[str, bool]:
    """{claim in words: proved} of a certificate, from its numbers alone.

    Claims: a zero x* of F(x) - sign x, and only one, within `radius` of `tokens` in every entry;
    rank x* >= `rank`; the side of 1 on which the spectral radius of DF(x*) lies. A claim that is
    not proved may be true or false. The argument is at the head of this module.

    Raises
    ------
    ValueError
        When it is not a certificate: a field lacks, is unknown, or holds what it cannot hold.
    ImportError
        Without python-flint.
    """
    check_form(certificate)
    with precision(_BITS):
        return dict(zip(_claims(certificate), _proofs(certificate), strict=True))


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Balls of so many bits inside. Raises ImportError without python-flint."""
    if flint is None:
        raise ImportError("certificates need python-flint; pip install 'dynsim[certify]'")
    with flint.ctx.workprec(bits):
        yield


# --- the form -----------------------------------------------------------------------------------


def check_form(certificate: dict) -> None:
    """Raise ValueError unless every field is there, of its type, shape and range, and no other."""
    check_fields(certificate, FORMAT, _FIELDS)
    tokens = certificate["tokens"]
    n, d = sizes(tokens, LARGEST_SIZE)
    check_matrix("tokens", tokens, n, d, is_number, "finite numbers")
    check_mask(certificate["allowed"], n)
    heads, values = (length(name, certificate[name]) for name in ("M", "W_V"))
    if heads != values:
        raise ValueError(f"M and W_V have one matrix a head; got {heads} and {values}")
    if heads * d > LARGEST_SIZE:
        raise ValueError(f"heads x d is at most {LARGEST_SIZE} in a certificate; got {heads} x {d}")
    for name in ("M", "W_V"):
        for head, matrix in enumerate(certificate[name]):
            check_matrix(f"{name}[{head}]", matrix, d, d, is_number, "finite numbers")
    check_sign(certificate)
    check_field(certificate, "radius", lambda v: is_number(v) and 0 < v < 1, "between 0 and 1")
    check_rank(certificate, n, d)
    check_field(certificate, "spectral_radius", lambda v: v in ("< 1", "> 1"), "'< 1' or '> 1'")


_FIELDS = {"format", "allowed", "M", "W_V", "tokens", "sign", "radius", "rank", "spectral_radius"}


# --- the proofs ---------------------------------------------------------------------------------


def _claims(certificate: dict) -> tuple[str, str, str]:
    what = "equilibrium" if certificate["sign"] == 1 else "state with x' = -x"
    return (
        f"exactly one {what} within {certificate['radius']!r} of the tokens in every entry",
        f"its rank is at least {certificate['rank']}",
        f"its spectral radius is {certificate['spectral_radius']}",
    )


def _proofs(certificate: dict) -> tuple[bool, bool, bool]:
    """What is proved of existence, rank and spectral radius."""
    layer, sign = _Layer(certificate), certificate["sign"]
    centre = flint.arb_mat([[v] for row in certificate["tokens"] for v in row])
    radius = flint.arb(certificate["radius"])
    # A ball's own radius is rounded up: the box may be larger than claimed, what counts is K.
    around = flint.arb_mat([[flint.arb(0, radius)]] * centre.nrows())
    try:
        slope = layer.slope(centre + around)
        image = _krawczyk(layer, sign, centre, around, slope)
    except ArithmeticError:
        return False, False, False
    if not all(abs(entry) < radius for entry in image.entries()):
        return False, False, False
    box, ranked, sided = centre + image, False, False
    for _ in range(_NARROWINGS):
        ranked = ranked or has_rank(layer.tokens(box).tolist(), certificate["rank"])
        try:
            slope = layer.slope(box)
            sided = sided or is_on_side(slope, certificate["spectral_radius"])
            if ranked and sided:
                break
            centre = box.mid()
            image = centre + _krawczyk(layer, sign, centre, box - centre, slope)
        except ArithmeticError:
            break
        both = zip(box.entries(), image.entries(), strict=True)
        box = flint.arb_mat([[old.intersection(new)] for old, new in both])
    return True, ranked, sided


def _krawczyk(
    layer: _Layer, sign: int, centre: flint.arb_mat, around: flint.arb_mat, slope: flint.arb_mat
) -> flint.arb_mat:
    """K - c, with X = c + around, 0 in around, slope = DF(X). ArithmeticError when there is none.

    C is the inverse of the midpoint of DG(X), up to rounding.
    """
    identity = _identity(centre.nrows())
    slope = slope - sign * identity
    C = slope.mid().inv().mid()
    return (identity - C * slope) * around - C * (layer.value(centre) - sign * centre)


def _identity(size: int) -> flint.arb_mat:
    return flint.arb_mat([[int(i == j) for j in range(size)] for i in range(size)])


class _Layer:
    """F and DF on boxes of tokens, columns of N d balls, token after token."""

    def __init__(self, certificate: dict):
        self.n, self.d = len(certificate["tokens"]), len(certificate["tokens"][0])
        self.attended = [[j for j in range(self.n) if row[j]] for row in certificate["allowed"]]
        pairs = zip(certificate["M"], certificate["W_V"], strict=True)
        self.heads = [(flint.arb_mat(M), flint.arb_mat(W)) for M, W in pairs]

    def tokens(self, box: flint.arb_mat) -> flint.arb_mat:
        return flint.arb_mat(self.n, self.d, box.entries())

    def value(self, box: flint.arb_mat) -> flint.arb_mat:
        """F on a box, (N d, 1). ArithmeticError where a row of y may be 0."""
        X = self.tokens(box)
        Y = flint.arb_mat(self.n, self.d)
        for M, W in self.heads:
            Y += self._attention(X * M, X) * (X * W)
        return flint.arb_mat([[entry] for y in Y.tolist() for entry in _unit(y)[0]])

    def slope(self, box: flint.arb_mat) -> flint.arb_mat:
        """DF on a box, (N d, N d). ArithmeticError where a row of y may be 0, or without bounds.

        d y_i / d x_j = sum_h A_ij W^T + T_j (x_i M) + [i = j] T^T (x M^T), T_l = A_il (v_l - y_i).
        """
        X, n, d = self.tokens(box), self.n, self.d
        Y = flint.arb_mat(n, d)
        slopes = [[[flint.arb(0)] * (n * d) for _ in range(d)] for _ in range(n)]
        for M, W in self.heads:
            keyed, V = X * M, X * W
            A = self._attention(keyed, X)
            y = A * V
            Y += y
            turned = X * M.transpose()
            keys, values, weights, means = (matrix.tolist() for matrix in (keyed, V, A, y))
            turned_W = W.transpose().tolist()
            for i, attended in enumerate(self.attended):
                rows = [
                    [weights[i][j] * (v - m) for v, m in zip(values[j], means[i], strict=True)]
                    for j in range(n)
                ]
                T = flint.arb_mat(rows)
                own, moved = (T.transpose() * turned).tolist(), T.tolist()
                for b, row in enumerate(slopes[i]):
                    for j in attended:
                        for a in range(d):
                            row[j * d + a] += (
                                weights[i][j] * turned_W[b][a] + moved[j][b] * keys[i][a]
                            )
                    for a in range(d):
                        row[i * d + a] += own[b][a]
        rows = []
        for total, inner in zip(Y.tolist(), slopes, strict=True):
            unit, size = _unit(total)
            projector = [[((a == b) - u * v) / size for b, v in enumerate(unit)]
                         for a, u in enumerate(unit)]  # fmt: skip
            rows += (flint.arb_mat(projector) * flint.arb_mat(inner)).tolist()
        if not all(entry.is_finite() for row in rows for entry in row):
            raise ArithmeticError("the derivative has no bounds over the box")
        return flint.arb_mat(rows)

    def _attention(self, keyed: flint.arb_mat, X: flint.arb_mat) -> flint.arb_mat:
        """A of one head from x M and x: exp(s_ij - m_i), any real m_i, over its sum."""
        scores = (keyed * X.transpose()).tolist()
        A = flint.arb_mat(self.n, self.n)
        for i, attended in enumerate(self.attended):
            top = max((scores[i][j].mid() for j in attended), default=flint.arb(0))
            weights = [(scores[i][j] - top).exp() for j in attended]
            total = sum(weights, flint.arb(0))
            for j, weight in zip(attended, weights, strict=True):
                A[i, j] = weight / total
        return A


def _unit(y: list[flint.arb]) -> tuple[list[flint.arb], flint.arb]:
    """y / ||y|| and ||y||, balls. ArithmeticError where y may be 0 and has no direction."""
    square = sum((v * v for v in y), flint.arb(0))
    if not square > 0:
        raise ArithmeticError("the values of a token may cancel, where F has no derivative")
    size = square.sqrt()
    return [v / size for v in y], size


def has_rank(rows: list[list[flint.arb]], rank: int) -> bool:
    """True when elimination of all matrices in these balls finds `rank` pivots that are not 0."""
    for _ in range(rank):
        places = [(i, j) for i, row in enumerate(rows) for j in range(len(row))]
        i, j = max(places, key=lambda place: rows[place[0]][place[1]].abs_lower())
        pivots = rows.pop(i)
        pivot = pivots.pop(j)
        if not pivot.abs_lower() > 0:
            return False
        for k, row in enumerate(rows):
            factor = row.pop(j) / pivot
            rows[k] = [v - factor * p for v, p in zip(row, pivots, strict=True)]
    return True


def is_on_side(slope: flint.arb_mat, side: str) -> bool:
    """Whether one of J, J^2, J^4, ... proves the spectral radius "< 1" or "> 1"."""
    power, size = slope, slope.nrows()
    for _ in range(_SQUARINGS):
        if side == "< 1":
            if sum((v * v for v in power.entries()), flint.arb(0)) < 1:
                return True
        elif (trace := power.trace()).is_finite() and abs(trace) > size:
            return True
        power = power * power
    return False
