"""Equiangular tokens on the complete mask stay equiangular: one number tells the whole dynamics.

Let n unit tokens have all cosines rho, M = beta I, W_V = I. A token gives itself the weight
a = e^beta / D and each other b = e^(beta rho) / D, a + (n-1) b = 1. So Y has inner products
<y_1, y_2> = rho + (1 - rho)(2 a b + (n-2) b^2) and <y_1, y_1> = rho + (1 - rho)(a^2 + (n-1) b^2).
In continuous time x_i' = y_i - <x_i, y_i> x_i. Near rho = 1, a - b is about beta (1 - rho) / n: the
cubic law, 1 - rho being the square of a distance.
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
        "rho)",
        latex=r"\dot\rho="
        r"\frac{2e^{\beta\rho}(1-\rho)((n-1)\rho+1)}{e^\beta+(n-1)e^{\beta\rho}},\qquad1-\rho_1="
        r"\frac{(1-\rho)(a-b)^2}{\rho+(1-\rho)(a^2+(n-1)b^2)}",
        how="proved for every n, beta and rho; inner products written out for n = 4",
    )


def flow(n, rho, a, b):
    """The cosine's speed, from the weights a = e^beta / D and b = e^(beta rho) / D."""
    return 2 * b * (1 - rho) * ((n - 1) * rho + 1)


def layer(n, rho, a, b):
    """The next cosine."""
    return 1 - (1 - rho) * (a - b) ** 2 / (rho + (1 - rho) * (a**2 + (n - 1) * b**2))


def check(flow=flow, layer=layer):
    proof = Proof()
    n, beta = sympy.symbols("n beta", positive=True)
    rho, b = sympy.symbols("rho b", real=True)
    a = 1 - (n - 1) * b
    alike = rho + (1 - rho) * (a**2 + (n - 1) * b**2)
    apart = rho + (1 - rho) * (2 * a * b + (n - 2) * b**2)
    gram = rho * sympy.ones(4, 4) + (1 - rho) * sympy.eye(4)
    y_1, y_2 = (sympy.Matrix([[a, b, b, b]]), sympy.Matrix([[b, a, b, b]]))
    for claim, other, stated in (("<y_1, y_1>", y_1, alike), ("<y_1, y_2>", y_2, apart)):
        proof.equal(f"{claim} for n = 4", (y_1 * gram * other.T)[0].subs(n, 4), stated.subs(n, 4))
    proof.equal("<y_1, y_1> - <y_1, y_2>", alike - apart, (1 - rho) * (a - b) ** 2)
    proof.equal("the cosine after a layer", apart / alike, layer(n, rho, a, b))
    onto_x_1, onto_x_2 = a + (n - 1) * b * rho, a * rho + b * (1 + (n - 2) * rho)
    speed = 2 * (onto_x_2 - rho * onto_x_1)  # <x_1', x_2> + <x_1, x_2'>
    proof.equal("the flow", speed, flow(n, rho, a, b))
    e = sympy.Symbol("e", positive=True)  # 1 - rho
    a_less_b = (1 - sympy.exp(-beta * e)) / (1 + (n - 1) * sympy.exp(-beta * e))
    slope = a_less_b.diff(e).subs(e, 0)
    proof.equal(
        "near rho = 1 - e: a - b = beta e / n + O(e^2), <y_1, y_1> = 1 + O(e)", slope, beta / n
    )
    return proof


WRONG = {
    "half the flow": {"flow": lambda n, *rest: flow(n, *rest) / 2},
    "n in place of n - 1 in the flow": {"flow": lambda n, *rest: flow(n + 1, *rest)},
    "the layer of n + 1 tokens": {"layer": lambda n, *rest: layer(n + 1, *rest)},
}
