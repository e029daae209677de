"""Token 1 of WU's planar example: algebraic, not exponential, with multiplier exactly 1.

Under x -> x W_V / ||.|| the ratio x_12 / x_11 grows by w in every layer. So x_11 = 1 / sqrt(1 +
(r_0 + w t)^2), up to its sign, falls as 1 / (w t), and in the chart u = x_11 / x_12 the map u / (1
+ w u) has slope 1 at its fixed point 0.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="token 1 tends to (0, +-1) with x_12/x_11 = r_0 + w t, so t |x_11| -> 1/w: algebraic",
        source="WU, arXiv 2405.18781, section 4.3.1 and App. E",
        hypotheses="causal, N = d = 2, M = 0, W_V = [[1, w], [0, 1]], w > 0, x_11 not 0",
        latex=r"\frac{x_{12}(t)}{x_{11}(t)}=r_0+wt,\qquad|x_{11}(t)|\sim\frac1{wt}",
        how="proved for every w and start",
    )


def check(gain=lambda w: w, power=1):
    proof = Proof()
    w, t = sympy.symbols("w t", positive=True)
    x, y, r, u = sympy.symbols("x_11 x_12 r_0 u", real=True)
    image = sympy.Matrix([[x, y]]) * sympy.Matrix([[1, w], [0, 1]])
    proof.equal(
        "the ratio after one layer",
        image[1] / image[0],
        y / x + gain(w),
        shown=("(w*x_11 + x_12)/x_11", y / x + gain(w)),
    )
    size = 1 / sympy.sqrt(1 + (r + gain(w) * t) ** 2)  # |x_11| of a unit vector with this ratio
    proof.equal(
        "t |x_11| in the limit",
        sympy.limit(t**power * size, t, sympy.oo),
        1 / w,
        shown=("lim(t/sqrt(1 + (r_0 + w*t)^2))", 1 / w),
    )
    chart = 1 / (1 / u + gain(w))
    proof.equal(
        "the chart u = x_11 / x_12", chart, u / (1 + w * u), shown=("1/(1/u + w)", "u/(1 + w*u)")
    )
    slope = sympy.cancel(chart).diff(u)
    proof.equal(
        "its multiplier at the fixed point u = 0",
        slope.subs(u, 0),
        1,
        shown=("d(u/(1 + w*u))/du", "1"),
    )
    return proof


WRONG = {
    "the ratio grows by w^2": {"gain": lambda w: w**2},
    "1 / t^2": {"power": 2},
}
