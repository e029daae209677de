"""With rho(W_V) > 1 the late rate need not be |lambda_2| rho(W_V): scores outgrow the deviations.

Causal mask, N = 2, d = 1, M = 1, W_V = w. Token 1 attends to itself, x_1' = w x_1, and D = x_2 -
x_1 becomes w A D with A = A_22 = 1 / (1 + e^(-x_2 D)). For x_1, D > 0 this is at least 1/2, so x_1
D grows by w^2 / 2 or more in every layer. For w^2 > 2 it grows without bound, A tends to 1, and the
rate of D tends to w, not to w / 2, however near to consensus the run begins.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'near consensus the deviation falls by |lambda_2| rho(W_V) a layer, whatever M' is "
        "false: causal, N = 2, d = 1, M = 1, W_V = 3/2: from x_2 > x_1 > 0 its rate tends to 3/2, "
        "not to 3/4",
        source="a reading of the linearisation (lemma late-rate), and of dynsim before it said so",
        hypotheses="no norm; d = 1 and two tokens are the fewest; any w with w^2 > 2 does",
        latex=r"x_1'=wx_1,\ D'=\frac{w}{1+e^{-x_2D}}D\ (D=x_2-x_1):\quad "
        r"x_1'D'\ge\tfrac{w^2}2x_1D,\quad\frac{D'}D\to w\quad(w^2>2)",
        how="counterexample found, for every start x_2 > x_1 > 0",
    )


def check(w=sympy.Rational(3, 2)):
    proof = Proof()
    x, D, A, s, y = sympy.symbols("x_1 D A s y", positive=True)
    other = w * ((1 - A) * x + A * (x + D))
    shown = "w*((1 - A)*x_1 + A*x_2) - w*x_1", "w*A*D"
    proof.equal("D after a layer", other - w * x, w * A * D, shown)
    weight = sympy.exp((x + D) ** 2) / (sympy.exp((x + D) * x) + sympy.exp((x + D) ** 2))
    stated = 1 / (1 + sympy.exp(-(x + D) * D))
    shown = "exp(x_2^2)/(exp(x_2*x_1) + exp(x_2^2))", "1/(1 + exp(-x_2*D))"
    proof.equal("the weight A of token 2 on itself", weight, stated, shown)
    claim = "A >= 1/2, with exp(-x_2 D) = 1/(1 + s)"
    proof.at_least(claim, 1 / (1 + 1 / (1 + s)), sympy.Rational(1, 2), (s,))
    claim = "so x_1 D grows by w^2/2 or more, with A = 1/2 + s"
    grown = w * x * w * (sympy.Rational(1, 2) + s) * D
    shown = "x_1_new*D_new", "w^2/2*x_1*D"
    proof.at_least(claim, grown, w**2 / 2 * x * D, (x, D, s), shown)
    proof.less("without bound", 1, w**2 / 2, ("1", f"({w})^2/2"))
    proof.words("so x_2 D, which is more than x_1 D, tends to infinity")
    limit = sympy.limit(w / (1 + sympy.exp(-y)), y, sympy.oo)
    proof.equal("and the rate of D to", limit, w, ("lim(w/(1 + exp(-y)))", w))
    proof.less("whereas lambda_2 rho(W_V) is", w / 2, limit, (f"1/2*({w})", w))
    return proof


WRONG = {"w = 1": {"w": sympy.Integer(1)}, "w = 4/3": {"w": sympy.Rational(4, 3)}}
