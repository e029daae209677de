"""WU conjecture (App. F.4) that undirected masks allow no full-rank equilibrium: they do.

Complete mask, two mirrored tokens (c, s) and (c, -s), W_V = diag(1, v), M = diag(0, m). Scores are
+-m s^2, so attention gives (c, T s) with T = tanh(m s^2), and v = 1/T restores the token. Perturb
the tokens' angles by alpha and gamma; mirror-symmetric (gamma = -alpha) and antisymmetric (gamma =
alpha) modes separate. With a = m s^2 the first has a multiplier above 1 for every choice of
numbers.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'no full-rank equilibrium on undirected masks' is false: complete mask, N = d = 2; "
        "the multipliers are 1 + 2 a c^2 (1-T^2)/T > 1 and c^2/T + s^2 T + a c^2 (1-T^2)/T",
        source="WU, arXiv 2405.18781, App. F.4 (a conjecture)",
        hypotheses="unit norm, c^2 + s^2 = 1, c, s > 0, a = m s^2 = artanh T, v = 1/T, 0 < T < 1; "
        "N = d = 2 is the smallest case of rank above 1",
        latex=r"X=\begin{pmatrix}c&s\\c&-s\end{pmatrix},\ W_V=\operatorname{diag}(1,v),\ M="
        r"\operatorname{diag}(0,m),\ \tanh(ms^2)=\frac1v:\quad\text{multipliers }1+"
        r"\tfrac{2ac^2(1-T^2)}T>1,\ \tfrac{c^2}T+s^2T+\tfrac{ac^2(1-T^2)}T",
        how="counterexample found, for every c, s and T",
    )


def check(symmetric=lambda a, c, T: 1 + 2 * a * c**2 * (1 - T**2) / T, value=lambda T: 1 / T):
    proof = Proof()
    c, s, a, T = sympy.symbols("c s a T", positive=True)
    alpha, gamma = sympy.symbols("alpha gamma", real=True)
    m, v, half = a / s**2, value(T), (1 + T) / 2
    X = sympy.Matrix([[c, s], [c, -s]])
    scores = X * sympy.diag(0, m) * X.T
    proof.equal(
        "score differences are 2 a, in both rows",
        scores[0, 0] - scores[0, 1],
        2 * a,
        shown=("m*s^2 - (-m*s^2)", "2*a"),
    )
    logistic = 1 / (1 + sympy.exp(-2 * a))
    proof.equal(
        "so A_11 = (1 + tanh a) / 2",
        logistic,
        ((1 + sympy.tanh(a)) / 2).rewrite(sympy.exp),
        shown=("1/(1 + exp(-2*a))", "(1 + tanh(a))/2"),
    )
    A = sympy.Matrix([[half, 1 - half], [1 - half, half]])
    proof.equal(
        "X is an equilibrium: A X W_V = X", A * X * sympy.diag(1, v), X, shown=("A*X*W_V", "X")
    )
    proof.equal(
        "of rank 2: its determinant, not 0", X.det(), -2 * c * s, shown=("c*(-s) - s*c", "-2*c*s")
    )
    u_1, u_2 = sympy.symbols("u_1 u_2", real=True)  # second coordinates of both tokens
    difference = m * u_1 * (u_1 - u_2)  # R_11 - R_12
    slope = half * (1 - half)  # of the logistic function
    dA = slope * (difference.diff(u_1) * c * alpha + difference.diff(u_2) * c * gamma)
    dA = dA.subs({u_1: s, u_2: -s})
    proof.equal(
        "d A_11 for angles alpha, gamma", dA, (1 - T**2) / 4 * a * c / s * (3 * alpha - gamma)
    )
    d_first = half * (-s * alpha) + (1 - half) * (s * gamma)
    d_second = v * (half * c * alpha + (1 - half) * c * gamma + 2 * s * dA)
    d_angle = sympy.expand(c * d_second - s * d_first)  # along the unit tangent (-s, c)
    circle = {s: sympy.sqrt(1 - c**2)}
    growing = (d_angle.subs(gamma, -alpha) / alpha).subs(circle)
    proof.equal("the mirror-symmetric multiplier", growing, symmetric(a, c, T))
    inside = 1 / (1 + sympy.Symbol("e", positive=True))  # T, between 0 and 1
    claim = "which is above 1 for every c, a > 0 and T = 1/(1 + e)"
    proof.less(claim, 1, symmetric(a, c, inside))
    other = (d_angle.subs(gamma, alpha) / alpha).subs(circle)
    stated = c**2 / T + (1 - c**2) * T + a * c**2 * (1 - T**2) / T
    proof.equal("the antisymmetric multiplier", other, stated)
    edge = T / ((1 + T) * (1 + a))
    claim = "the second is 1 at c^2 = T / ((1 + T)(1 + a)): below a saddle, above a repeller"
    proof.equal(claim, stated.subs(c, sympy.sqrt(edge)), 1)
    numbers = {T: sympy.Rational(1, 2), a: sympy.log(3) / 2}
    proof.equal(
        "for instance v = 2: a = artanh(1/2)",
        sympy.tanh(numbers[a]).rewrite(sympy.exp),
        numbers[T],
        shown=("tanh(log(3)/2)", "1/2"),
    )
    return proof


WRONG = {
    "without the factor 2": {"symmetric": lambda a, c, T: 1 + a * c**2 * (1 - T**2) / T},
    "v = T": {"value": lambda T: T},
}
