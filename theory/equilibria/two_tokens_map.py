"""Token 2 of WU's planar example, token 1 held at (0, 1): fixed points and slopes.

The average of (0, 1) and (x, y), times W_V, is (x, w x + 1 + y) / 2: the sign of x stays, and the
ratio q = y / x becomes q + w + 1/x with 1/x = +-sqrt(1 + q^2). So fixed points have x = -1/w. Since
d(1/x)/dq = q x = y, the slope is 1 + y: the second coordinate of token 2, X_22.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="q = x_22/x_21 -> q + w + 1/x_21; fixed points A, B = (-1/w, +-sqrt(1 - 1/w^2)); "
        "slope 1 + x_22, so A repels and B attracts",
        source="WU, arXiv 2405.18781, section 4.3.1 and App. E",
        hypotheses="causal, N = d = 2, M = 0, W_V = [[1, w], [0, 1]], w > 1, token 1 at (0, 1)",
        latex=r"q'=q+w+\frac1{x_{21}},\qquad\frac{dq'}{dq}=1+x_{22};\qquad A,B=\Bigl(-\tfrac1w,\pm"
        r"\sqrt{1-\tfrac1{w^2}}\Bigr):\ A\text{ repels, }B\text{ attracts}",
        how="proved for every w > 1",
    )


def check(first=lambda w: -1 / w, slope=lambda x, y: 1 + y):
    proof = Proof()
    w, q = sympy.symbols("w q", real=True)
    token = sympy.symbols("x y", real=True)
    total = (sympy.Matrix([[0, 1]]) + sympy.Matrix([token])) * sympy.Matrix([[1, w], [0, 1]])
    proof.equal(
        "the new ratio",
        total[1] / total[0],
        token[1] / token[0] + w + 1 / token[0],
        shown=("(w*x + 1 + y)/x", "y/x + w + 1/x"),
    )
    for sign in (1, -1):
        x = sign / sympy.sqrt(1 + q**2)  # of the unit vector with this ratio and sign of x
        proof.equal(
            f"x of sign {sign}: (x, q x) is on the circle",
            x**2 + (q * x) ** 2,
            1,
            shown=("x^2 + (q*x)^2", "1"),
        )
        claim = f"x of sign {sign}: the slope of q + w + 1/x, with y = q x"
        proof.equal(
            claim, (q + w + 1 / x).diff(q), slope(x, q * x), shown=("d(q + w + 1/x)/dq", "1 + y")
        )
    e = sympy.Symbol("e", positive=True)
    w = 1 + e
    height = sympy.sqrt(e * (e + 2)) / w
    proof.equal("w = 1 + e: 1 - 1/w^2 is the square of", height**2, 1 - 1 / w**2)
    for name, sign in (("A", 1), ("B", -1)):
        point = sympy.Matrix([[first(w), sign * height]])
        proof.equal(
            f"{name} is on the circle", point.dot(point), 1, shown=("(1/w)^2 + (1 - 1/w^2)", "1")
        )
        sent = (sympy.Matrix([[0, 1]]) + point) * sympy.Matrix([[1, w], [0, 1]])
        proof.equal(
            f"{name} is fixed: its image is {name} again",
            sent,
            point,
            shown=(f"(e_2 + {name})*W_V", point),
        )
        distance = sympy.simplify(sign * (slope(*point) - 1))
        side = "above" if sign > 0 else "below"
        claim = f"the slope at {name} is {side} 1 by"
        proof.less(claim, 0, distance)
    return proof


WRONG = {
    "x = 1/w": {"first": lambda w: 1 / w},
    "slope 1 - x_22": {"slope": lambda x, y: 1 - y},
    "slope 1 + x_21": {"slope": lambda x, y: 1 + x},
}
