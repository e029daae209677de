"""Equiangular tokens on the complete mask stay equiangular: one number tells the whole dynamics.

Let n unit tokens have all cosines rho, M = beta I, W_V = I. A token gives itself the weight a =
e^beta / D and each other b = e^(beta rho) / D, a + (n-1) b = 1. With the Gram matrix rho 1 1^T + (1
- rho) I, <y, y'> is rho + (1 - rho) times the sum of products of weights: a^2 + (n-1) b^2 for a
token and itself, 2 a b + (n-2) b^2 for two. In continuous time x_i' = y_i - <x_i, y_i> x_i. Near
rho = 1, a - b is about beta (1 - rho) / n: the cubic law, 1 - rho being the square of a distance.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="cosine rho of n equiangular tokens: flow rho' = 2 e^(beta rho) (1-rho)((n-1) rho + "
        "1) / D; layer with unit norm 1 - rho_1 = (1-rho)(a-b)^2 / <y_1, y_1> ~ (beta/n)^2 "
        "(1-rho)^3",
        source="Geshkovski et al., arXiv 2312.10794 (the flow); the layer is dynsim's",
        hypotheses="complete mask, M = beta I, W_V = I, unit tokens, D = e^beta + (n-1) e^(beta "
        "rho), a = e^beta / D, b = e^(beta rho) / D",
        latex=r"\dot\rho="
        r"\frac{2e^{\beta\rho}(1-\rho)((n-1)\rho+1)}{e^\beta+(n-1)e^{\beta\rho}},\qquad1-\rho_1="
        r"\frac{(1-\rho)(a-b)^2}{\rho+(1-\rho)(a^2+(n-1)b^2)}\sim\frac{\beta^2}{n^2}(1-\rho)^3",
        how="proved for every n, beta and rho; inner products written out for n = 4 too",
    )


def flow(n, rho, a, b):
    """The cosine's speed, from the weights a = e^beta / D and b = e^(beta rho) / D."""
    return 2 * b * (1 - rho) * ((n - 1) * rho + 1)


def layer(n, rho, a, b):
    """The next cosine."""
    return 1 - (1 - rho) * (a - b) ** 2 / (rho + (1 - rho) * (a**2 + (n - 1) * b**2))


def check(flow=flow, layer=layer):
    proof = Proof()
    n = sympy.Symbol("n", positive=True, integer=True)
    beta, e = sympy.symbols("beta e", positive=True)
    rho, a, b = sympy.symbols("rho a b", real=True)
    k = sympy.Symbol("k", integer=True)
    total = a + sympy.summation(b, (k, 2, n))
    shown = "a + sum_(b, k, 2, n)", "a + (n - 1)*b"
    claim = "the weights of y_1, a and then n - 1 times b; their sum, which is 1"
    proof.equal(claim, total, a + (n - 1) * b, shown)
    own = a**2 + sympy.summation(b**2, (k, 2, n))
    shared = 2 * a * b + sympy.summation(b**2, (k, 3, n))
    shown = "a^2 + sum_(b^2, k, 2, n)", "a^2 + (n - 1)*b^2"
    proof.equal("sum of their squares", own, a**2 + (n - 1) * b**2, shown)
    shown = "a*b + b*a + sum_(b^2, k, 3, n)", "2*a*b + (n - 2)*b^2"
    proof.equal(
        "sum of products of those of y_1 and y_2", shared, 2 * a * b + (n - 2) * b**2, shown
    )
    proof.words("G = rho 1 1^T + (1 - rho) I: <y, y'> = rho (sum y)(sum y') + (1 - rho) y.y'")
    one = {a: 1 - (n - 1) * b}
    alike, apart = (rho + (1 - rho) * product for product in (own, shared))
    gram = rho * sympy.ones(4, 4) + (1 - rho) * sympy.eye(4)
    four = {n: 4, a: 1 - 3 * b}
    y_1, y_2 = (sympy.Matrix([[a, b, b, b]]), sympy.Matrix([[b, a, b, b]]))
    for name, other, stated in (("y_1", y_1, alike), ("y_2", y_2, apart)):
        written_out = (y_1 * gram * other.T)[0].subs(a, 1 - 3 * b)
        shown = f"y_1*G*{name}^T", stated.subs(n, 4)
        proof.equal(f"n = 4, a = 1 - 3 b: <y_1, {name}>", written_out, stated.subs(four), shown)
    proof.equal("<y_1, y_1> - <y_1, y_2>", alike - apart, (1 - rho) * (a - b) ** 2)
    claim = "the cosine after a layer, <y_1, y_2> / <y_1, y_1>"
    next_cosine = layer(n, rho, a, b)
    proof.equal(claim, (apart / alike).subs(one), next_cosine.subs(one), ("c_12/c_11", next_cosine))
    onto_x_1, onto_x_2 = a + (n - 1) * b * rho, a * rho + b * (1 + (n - 2) * rho)
    speed = 2 * (onto_x_2 - rho * onto_x_1)  # <x_1', x_2> + <x_1, x_2'>
    proof.equal(
        "the flow", speed.subs(one), flow(n, rho, a, b).subs(one), (speed, flow(n, rho, a, b))
    )
    a_less_b = (1 - sympy.exp(-beta * e)) / (1 + (n - 1) * sympy.exp(-beta * e))
    share = 1 / (1 + (n - 1) * sympy.exp(-beta * e))  # a at rho = 1 - e
    after = 1 - layer(n, 1 - e, share, share - a_less_b)
    cubic = sympy.series(sympy.simplify(after / e**3), e, 0, 1).removeO()
    shown = "lim((1 - rho_1)/(1 - rho)^3)", "(beta/n)^2"
    proof.equal("near rho = 1", cubic, beta**2 / n**2, shown)
    return proof


WRONG = {
    "half the flow": {"flow": lambda n, *rest: flow(n, *rest) / 2},
    "n in place of n - 1 in the flow": {"flow": lambda n, *rest: flow(n + 1, *rest)},
    "the layer of n + 1 tokens": {"layer": lambda n, *rest: layer(n + 1, *rest)},
}
