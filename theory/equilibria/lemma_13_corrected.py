"""WU's Lemma 13 with a hypothesis under which it holds for every d: log-concave tokens.

Token 1 is at e_d, and a_j = -x_j >= 0 for j < d are the first coordinates of token 2. One layer
turns a_j into a_j + w a_{j-1} (a_0 = 0), up to a common factor: the coefficients of a polynomial
times 1 + w z. So log-concavity, a_j^2 >= a_{j-1} a_{j+1} without zeros between positive a_j, is
kept. Under it a_{j-1} / a_j grows with j, hence a_j / a_{d-1} falls for every j < d - 1, and so
does f = (a_1^2 + ... + a_{d-2}^2) / a_{d-1}^2: what the paper's proof needs. For d <= 3 every token
with a_j >= 0 is log-concave, and there the lemma is sound as it stands.

Let q = x_d / x_{d-1} and h = 1 / a_{d-1} = sqrt(1 + f + q^2). Then a_{d-1} >= 1/w means h <= w,
that is |q| <= Q with Q^2 = w^2 - 1 - f. The layer takes q to q' = (q + w - h) / (1 + w a_{d-2} /
a_{d-1}), and |q'| <= Q. As f did not grow, a_{d-1} >= 1/w again. So token 2 stays at a distance of
1/w from the line of token 1, and the rank stays 2.

In (41) the paper prints f <= sqrt(w^2 - 1). What x_{d-1} <= -1/w implies, and needs, is f <= w^2 -
1: for w^2 > 2 the printed bound excludes starts that are sound, and for w^2 < 2 it admits f that no
token with x_{d-1} <= -1/w has.
"""

import itertools

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="x_1, ..., x_{d-1} <= 0 with log-concave moduli and x_{d-1} <= -1/w: after every "
        "layer the same holds, and f = (x_1^2 + ... + x_{d-2}^2) / x_{d-1}^2 has not grown; for d "
        "<= 3 all x_j <= 0 are log-concave; x_{d-1} <= -1/w implies f <= w^2 - 1, as (41) should "
        "read",
        source="dynsim; WU, arXiv 2405.18781, App. F.3, Lemma 13 and (41), corrected",
        hypotheses="causal, M = 0, unit norm, W_V = I + w * superdiagonal, w > 1, token 1 at e_d, "
        "x is token 2; log-concave: x_j^2 >= x_{j-1} x_{j+1} for 1 < j < d - 1, and no zero "
        "between others; any d >= 2",
        latex=r"x_1,\dots,x_{d-1}\le0,\ x_j^2\ge x_{j-1}x_{j+1}\ (1<j<d-1),\ x_{d-1}\le-\tfrac1w\ "
        r"\Rightarrow\ \text{the same of }x',\ f(x')\le f(x)\le w^2-1,\quad f(x)=\frac{x_1^2+"
        r"\dots+x_{d-2}^2}{x_{d-1}^2};\quad d\le3:\text{ always log-concave}",
        how="proved for every d and w; the layer's map written out for d <= 5",
    )


def check(ratios=lambda u, s, t: (u, u + s, u + s + t), least=1, power=2):
    proof = Proof()
    w, c, e, g, s, t, u, z = sympy.symbols("w c e g s t u z", nonnegative=True)
    for d in (2, 3, 4, 5):
        a = sympy.symbols(f"a_1:{d}", positive=True)
        q = sympy.Symbol("q", real=True)
        x = sympy.Matrix([[*(-entry for entry in a), -q * a[-1]]])
        W = sympy.Matrix(d, d, lambda i, j: {0: 1, 1: w}.get(int(j - i), 0))
        y = (sympy.Matrix([[0] * (d - 1) + [1]]) + x) * W
        b = [entry + w * before for entry, before in zip(a, (0, *a), strict=False)]
        claim = f"d = {d}: the layer takes a_j to b_j = a_j + w a_{{j-1}}, up to a common factor"
        shown = "-(e_d + x)*W", sympy.Matrix([b])
        proof.equal(claim, -y[:, : d - 1], sympy.Matrix([b]), shown)
        claim = f"d = {d}: and q to (q + w - h) / (b_{{d-1}} / a_{{d-1}}), h = 1 / a_{{d-1}}"
        proof.equal(claim, y[d - 1] / y[d - 2], (q + w - 1 / a[-1]) / (b[-1] / a[-1]))
    proof.words("log-concave: the ratios a_{j-1} / a_j grow with j, as u, u + s, u + s + t")
    low, middle, high = ratios(u, s, t)
    row = c * low * middle * high, c * middle * high, c * high, c  # a_(j-2), ..., a_(j+1)
    new = [after + w * before for before, after in itertools.pairwise(row)]
    claim = "so are b: b_j^2 >= b_{j-1} b_{j+1}, with a_{j+1} = c, divided by c^2"
    proof.at_least(claim, new[1] ** 2 / c**2, new[0] * new[2] / c**2, (w, u, s, t))
    claim = "a_j / a_{d-1} does not grow: a_j b_{d-1} >= b_j a_{d-1}, with e = a_j, g = a_{d-1}"
    sides = e * (g + w * g * middle), (e + w * e * low) * g
    proof.at_least(claim, *sides, (w, e, g, u, s, t))
    proof.words("so f, the sum of the squares of a_j / a_{d-1}, does not grow")
    f, h, q, Q = sympy.symbols("f h q Q", real=True)
    claim = "h^2 = 1 + f + q^2 (unit length), w^2 = 1 + f + Q^2 (Q's definition)"
    proof.equal(
        f"{claim}: w^2 - h^2",
        (1 + f + Q**2) - (1 + f + q**2),
        Q**2 - q**2,
        ("(1 + f + Q^2) - (1 + f + q^2)", "Q^2 - q^2"),
    )
    proof.words("a_{d-1} >= 1/w is h <= w, hence |q| <= Q; and w > Q, h > q, as 1 + f > 0")
    claim = "upper: (w + h) (Q - (q + w - h)) is a sum of products of terms >= 0"
    difference = (Q - q) * (w + h) - (Q**2 - q**2)
    shown = "(Q - q)*(w + h) - (Q^2 - q^2)", "(Q - q)*((w - Q) + (h - q))"
    proof.equal(claim, difference, (Q - q) * ((w - Q) + (h - q)), shown)
    proof.words("lower: q + w - h >= q >= -Q. Dividing by b_{d-1} / a_{d-1} >= 1: |q'| <= Q")
    claim = "h'^2 = 1 + f' + q'^2 <= 1 + f + Q^2 = w^2, with f = f' + s and Q = |q'| + t"
    proof.at_least(claim, 1 + (e + s) + (g + t) ** 2, 1 + e + g**2, (e, g, s, t))
    claim = "(41): f <= w^2 - 1 follows from w^2 = 1 + f + q^2 + z, z >= 0"
    shown = f"(1 + f + q^2 + z) - {least}", "f"
    proof.at_least(claim, (1 + e + g**2 + z) - least, e, (e, g, z), shown)
    root = sympy.Rational(1, power)
    claim = "as printed it is too weak for w = 5/4: f = 5/8 is below"
    five = sympy.Rational(5, 4)
    printed = (five**2 - 1) ** root
    proof.less(claim, "5/8", printed, ("5/8", "sqrt((5/4)^2 - 1)"))
    proof.less("but then x_{d-1}^2 <= 1 / (1 + f) < 1/w^2", "1/(1 + 5/8)", "1/(5/4)^2")
    printed = sympy.Integer(15) ** root
    claim = "and too strong for w = 4, x = (-3, -1, 0) / sqrt(10): f = 9 is above"
    proof.less(claim, printed, 9, ("sqrt(4^2 - 1)", "9"))
    proof.less("whereas x_2 = -1/sqrt(10) <= -1/4", "-1/sqrt(10)", "-1/4")
    return proof


WRONG = {
    "ratios that fall": {"ratios": lambda u, s, t: (u + s + t, u + s, u)},
    "f <= w^2 - 2": {"least": 2},
    "(41) printed as w^2 - 1": {"power": 1},
}
