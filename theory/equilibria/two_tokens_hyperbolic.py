"""A variant with exponential rates: W_V = [[a, c], [0, 1]], 0 < a < 1.

Token 1 goes to (0, +-1), x_11/x_12 shrinking by a. With token 1 at (0, 1) a fixed (x, y), x != 0,
needs (a x, c x + 1 + y) = a (x, y), a line; it cuts the unit circle twice iff its distance to the
origin, 1 / sqrt(c^2 + (1 - a)^2), is below 1. The ratio y/x has slope (1 + y) / a. With D = c^2 +
(1 - a)^2 the two points have y = (-(1 - a) +- |c| sqrt(D - 1)) / D, on either side of y = a - 1,
where the slope is 1: one attracts, the other repels.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="token 2 has full-rank fixed points iff c^2 + (1-a)^2 > 1, on c x + (1-a) y = -1, "
        "with multiplier (1+y)/a; of the two, one attracts (y < a - 1) and one repels",
        source="dynsim; after WU, arXiv 2405.18781, section 4.3.1",
        hypotheses="causal, N = d = 2, M = 0, W_V = [[a, c], [0, 1]], 0 < a < 1, token 1 at (0, 1)",
        latex=r"c\,x+(1-a)\,y=-1,\quad x^2+y^2=1,\qquad\text{multiplier }\frac{1+y}a;\quad"
        r"\text{full rank iff }c^2+(1-a)^2>1,\ \text{attracting iff }y<a-1",
        how="proved for every a and c",
    )


def check(line=lambda x, y, a, c: c * x + (1 - a) * y + 1, slope=lambda y, a: (1 + y) / a):
    proof = Proof()
    a, g, E = sympy.symbols("a g E", positive=True)  # g = |c|, E = D - 1
    x, y, c, q, u = sympy.symbols("x y c q u", real=True)
    W = sympy.Matrix([[a, c], [0, 1]])
    first = sympy.Matrix([[u, 1]]) * W
    multiplier = (first[0] / first[1]).diff(u).subs(u, 0)
    proof.equal(
        "token 1: multiplier of u = x_11/x_12 at 0",
        multiplier,
        a,
        shown=("d(a*u/(c*u + 1))/du", "a"),
    )
    total = sympy.Matrix([[x, 1 + y]]) * W
    proof.equal(
        "token 2: first coordinate, so the length is a",
        total[0],
        a * x,
        shown=("x*a + (1 + y)*0", "a*x"),
    )
    proof.equal(
        "second coordinate",
        total[1] - a * y,
        line(x, y, a, c),
        shown=("(x*c + 1 + y) - a*y", line(x, y, a, c)),
    )
    proof.words("at x = 0 the line has y = -1/(1 - a) < -1, off the circle: x is not 0")
    for sign in (1, -1):
        root = sign * sympy.sqrt(1 + q**2)  # 1 / x
        image = (c + q + root) / a
        claim = f"the slope of q = y/x, x of sign {sign}, with y = q x"
        proof.equal(
            claim, image.diff(q), slope(q / root, a), shown=("d((c + q + 1/x)/a)/dq", "(1 + y)/a")
        )
    D = 1 + E
    h = sympy.sqrt(D - g**2)  # 1 - a
    for sign in (1, -1):
        py = (-h + sign * g * sympy.sqrt(E)) / D
        px = (-1 - h * py) / g
        proof.equal("on the circle (c = g > 0)", px**2 + py**2, 1, shown=("x^2 + y^2", "1"))
        gap = sympy.expand(D * (py + h))  # y - (a - 1), times D
        proof.equal(
            "y - (a - 1), times D",
            gap,
            sympy.sqrt(E) * (h * sympy.sqrt(E) + sign * g),
            shown=("(1 + E)*(y + h)", sympy.sqrt(E) * (h * sympy.sqrt(E) + sign * g)),
        )
    claim = (
        "its sign is the chosen one, as h^2 E < g^2: g^2 - h^2 E = D (1 - h^2) and h = 1 - a < 1"
    )
    proof.equal(claim, g**2 - h**2 * E, D * (1 - h**2), shown=("g^2 - h^2*E", "(1 + E)*(1 - h^2)"))
    proof.equal("at y = a - 1 the slope is 1", slope(a - 1, a), 1, shown=("(1 + (a - 1))/a", "1"))
    return proof


WRONG = {
    "c x + (1 + a) y = -1": {"line": lambda x, y, a, c: c * x + (1 + a) * y + 1},
    "slope 1 + y": {"slope": lambda y, a: 1 + y},
}
