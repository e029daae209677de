"""Alternating signs: the multipliers are 1 + the k-th roots of unity other than 1.

With s_i = (-1)^i s all coefficients (-1)^m s_{k-m} s_k are 1, and zeta^(k-1) + ... + 1 = (zeta^k -
1) / (zeta - 1). |1 + e^(i theta)| = 2 |cos(theta / 2)| is largest at the root nearest to 1.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="alternating signs: in the limit token k's largest multiplier has modulus 2 "
        "cos(pi/k): 0, 1, sqrt 2, the golden ratio, sqrt 3, ... for k = 2, 3, 4, 5, 6",
        source="dynsim; for the equilibria of WU, arXiv 2405.18781, Theorem 3",
        hypotheses="as for multiplier-limit, s_i = (-1)^i s_0",
        latex=r"\max_{\zeta^k=1,\zeta\ne1}|1+\zeta|=2\cos\frac\pi k:\quad0,\ 1,\ \sqrt2,\ \tfrac{1+"
        r"\sqrt5}2,\ \sqrt3\quad(k=2,\dots,6)",
        how="proved for every k",
    )


def check(largest=lambda k: 2 * sympy.cos(sympy.pi / k)):
    proof = Proof()
    s, theta = sympy.symbols("s theta", real=True)
    k, m, j = sympy.symbols("k m j", integer=True, positive=True)
    zeta = sympy.Symbol("zeta")
    coefficient = (-1) ** m * ((-1) ** (k - m) * s) * ((-1) ** k * s)
    proof.equal(
        "every coefficient is s^2 = 1",
        sympy.powsimp(coefficient),
        s**2,
        shown=("(-1)^m*((-1)^(k - m)*s)*((-1)^k*s)", "s^2"),
    )
    ratio = sympy.summation(zeta**m, (m, 0, k - 1)).args[-1][0]
    proof.equal("the geometric sum, times zeta - 1", ratio * (zeta - 1), zeta**k - 1)
    square = (1 + sympy.cos(theta)) ** 2 + sympy.sin(theta) ** 2
    proof.equal("|1 + e^(i theta)|^2", square, (2 * sympy.cos(theta / 2)) ** 2)
    proof.words("theta = 2 pi j/k, j = 1..k-1: |cos(pi j/k)| is largest at j = 1 and k - 1")
    modulus = (2 * sympy.cos(theta / 2)).subs(theta, 2 * sympy.pi * j / k).subs(j, 1)
    proof.equal("its value there", modulus, largest(k), shown=("2*cos(theta/2)", largest(k)))
    golden = (1 + sympy.sqrt(5)) / 2
    named = {
        2: sympy.Integer(0),
        3: sympy.Integer(1),
        4: sympy.sqrt(2),
        5: golden,
        6: sympy.sqrt(3),
    }
    for size, value in named.items():
        proof.equal(f"k = {size}", largest(size), value, shown=(f"2*cos(pi/{size})", value))
    return proof


WRONG = {
    "2 cos(2 pi/k)": {"largest": lambda k: 2 * sympy.cos(2 * sympy.pi / k)},
    "2 cos(pi/(k+1))": {"largest": lambda k: 2 * sympy.cos(sympy.pi / (k + 1))},
}
