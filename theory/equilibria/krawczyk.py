"""Krawczyk's step proves that a zero exists, and narrows a box about it, from a point of the box.

Let the box X hold c, and K = c - C G(c) + (I - C DG(X)) (X - c), C any matrix. The segment from c
to any x in X lies in X, so G(x) = G(c) + B (x - c) with B, the mean of DG on it, in DG(X), and
x - C G(x) lies in K. If K is strictly inside X, that map has a fixed point there (Brouwer), C is
regular, and the fixed point is the only zero of G in X. A zero in X, however it was proved to be
there, lies in K too, so X may be replaced by its intersection with K, again and again, if every
step expands about a point of its own box: about one outside, a step loses the zero.
"""

from sympy import Matrix, Rational, eye, symbols

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="x in X implies x - C G(x) in K: K strictly inside X proves exactly one zero in X, "
        "and a zero in X lies in K",
        source="KRAWCZYK 1969; MOORE, KEARFOTT and CLOUD, Introduction to Interval Analysis (2009)",
        hypotheses="c in the box X, all its radii alike for uniqueness; G continuously "
        "differentiable on X; C any matrix",
        latex=r"K=c-C\,G(c)+\bigl(I-C\,DG(X)\bigr)(X-c),\quad G(x)-G(c)=\int_0^1DG\bigl(c+t(x-c)"
        r"\bigr)\,dt\,(x-c):\quad x\in X\Rightarrow x-C\,G(x)\in K,\quad K\subset"
        r"\operatorname{int}X\Rightarrow\text{exactly one zero in }X,\text{ it lies in }K",
        how="proved for two unknowns; the mean value form written out for polynomials of degree 3",
    )


def check(
    centre=lambda low, high: (low + high) / 2,
    is_inside=lambda inner, outer: outer[0] < inner[0] and inner[1] < outer[1],
    at_zero=0,
):
    proof = Proof()
    x, c = Matrix(symbols("x_1:3", real=True)), Matrix(symbols("c_1:3", real=True))
    u, v, t = symbols("u v t", real=True)
    powers = [u**i * v**j for i in range(4) for j in range(4 - i)]
    terms = [symbols(f"{name}_1:{len(powers) + 1}", real=True) for name in "ab"]
    G = Matrix([sum(a * p for a, p in zip(row, powers, strict=True)) for row in terms])
    along = dict(zip((u, v), c + t * (x - c), strict=True))
    slope = G.jacobian([u, v]).subs(along, simultaneous=True)
    B = slope.applyfunc(lambda entry: entry.expand().integrate((t, 0, 1)))
    at_x, at_c = (G.subs(dict(zip((u, v), p, strict=True)), simultaneous=True) for p in (x, c))
    proof.equal(
        "G(x) - G(c) = B (x - c), B the mean of DG on the segment",
        at_x - at_c,
        B * (x - c),
        shown=("G(x) - G(c)", "B*(x - c)"),
    )
    proof.words("the segment lies in X, as c and x do, so B lies in DG(X), entry by entry")
    C, B = (Matrix(2, 2, symbols(f"{name}_1:5", real=True)) for name in "CB")
    g = Matrix(symbols("g_1:3", real=True))
    mapped = x - C * (g + B * (x - c))
    form = c - C * g + (eye(2) - C * B) * (x - c)
    proof.equal(
        "x - C G(x) is of the form of K",
        mapped,
        form,
        shown=("x - C*(G(c) + B*(x - c))", "c - C*G(c) + (I - C*B)*(x - c)"),
    )
    proof.words("K inside X: x -> x - C G(x) maps X into X and has a fixed point (Brouwer)")
    proof.words(
        "K strictly inside: its extremes over |x_j - c_j| <= r give r sum_j |I - C B|_ij < r for "
        "every B in DG(X), so C B is regular (C B w = 0 would give |w| = |w - C B w| < |w|), G is "
        "0 at the fixed point, and 0 = B (x - x') for another zero x' gives x' = x"
    )
    proof.equal(
        "a zero is its own image: it lies in K",
        x - C * Matrix([at_zero, at_zero]),
        x,
        shown=(f"x - C*{at_zero}", "x"),
    )
    root, first, box = Rational(1, 2), Rational(1), (Rational(2, 5), Rational(3, 5))
    C = 1 / (2 * first)  # of y^2 - 1/4, about 1
    point = centre(*box)
    proof.true(
        "y^2 - 1/4 on [2/5, 3/5], C = 1/2: K holds the zero 1/2",
        _holds(_image(lambda y: y**2 - Rational(1, 4), _twice, point, C, box), root),
    )
    box = (Rational(7, 5), Rational(143, 100))
    K = _image(lambda y: y**2 - 2, _twice, centre(*box), Rational(5, 14), box)
    proof.true("y^2 - 2 on [1.4, 1.43]: K is strictly inside, a zero is proved", is_inside(K, box))
    K = _image(lambda y: y**2 + 1, _twice, centre(*box), Rational(0), box)
    proof.true("y^2 + 1, C = 0: K is X itself, and no zero is proved", not is_inside(K, box))
    return proof


def _twice(box):
    """The slope of y^2 + constant on a box."""
    return 2 * box[0], 2 * box[1]


def _image(G, slope, point, C, box):
    """K in one unknown, in exact interval arithmetic."""
    factor = sorted(1 - C * end for end in slope(box))
    products = [a * (end - point) for a in factor for end in box]
    start = point - C * G(point)
    return start + min(products), start + max(products)


def _holds(box, value) -> bool:
    return box[0] <= value <= box[1]


WRONG = {
    "expanded about 1, a point outside the narrowed box": {"centre": lambda low, high: Rational(1)},
    "an inclusion that need not be strict": {
        "is_inside": lambda inner, outer: outer[0] <= inner[0] and inner[1] <= outer[1]
    },
    "a zero where G is 1": {"at_zero": 1},
}
