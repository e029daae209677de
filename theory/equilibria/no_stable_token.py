"""From k = 4 on every sign pattern leaves token k a multiplier of modulus above 1: for every k.

Let q(lambda) = p(lambda - 1), p(zeta) = zeta^(k-1) + b_1 zeta^(k-2) + ... + b_{k-1} with b = +-1,
and suppose that no root of q has modulus above 1. By Kronecker's theorem the roots of the monic
integer polynomial q are 0 or roots of unity: q = lambda^a times cyclotomic polynomials Phi_n. Now
q(1) = p(0) = +-1. Phi_1(1) = 0, Phi_n(1) is a prime for a prime power n, and 1 else; so every n has
two prime factors, n >= 6, and its phi(n) >= 2 roots sum to the Moebius function mu(n) <= 1. The
roots of q sum to k - 1 - b_1 >= k - 2, and to at most 1 for each factor, of which there are at most
(k - 1) / 2. Hence k - 2 <= (k - 1) / 2, that is k <= 3.
"""

import sympy

from theory.lemma import Proof, Statement

LARGEST = 60


def statement():
    return Statement(
        claim="limit multipliers 1 + zeta: for k >= 4 and any signs one has modulus > 1, so for N "
        ">= 4 every full-rank equilibrium of the family is unstable for large w",
        source="dynsim; for the equilibria of WU, arXiv 2405.18781, Theorem 3",
        hypotheses="as for multiplier-limit; Kronecker's theorem on integer polynomials",
        latex=r"\max_{p_b(\zeta)=0}|1+\zeta|>1\quad\text{for every }b\in\{\pm1\}^{k-1},\ k\ge4:"
        r"\quad\text{unstable for large }w",
        how=f"proved for every k >= 4; cyclotomic polynomials recomputed for n <= {LARGEST}",
    )


def check(smallest_k=4, value_at_one=lambda p: p):
    proof = Proof()
    t = sympy.Symbol("lambda")
    for n in range(2, LARGEST + 1):
        phi = sympy.Poly(sympy.cyclotomic_poly(n, t), t)
        primes = sympy.primefactors(n)
        at_one = value_at_one(primes[0]) if len(primes) == 1 else 1
        total = -phi.all_coeffs()[1]
        moebius = 0 if max(sympy.factorint(n).values()) > 1 else (-1) ** len(primes)
        facts = phi.eval(1) == at_one and total == moebius and (n < 3 or phi.degree() >= 2)
        proof.true(f"n = {n}: Phi_n(1) = {at_one}, its roots sum to {moebius}", facts)
    zeta = sympy.Symbol("zeta")
    k = sympy.Symbol("k", integer=True)
    for size in (3, 4, 5):
        b = sympy.symbols(f"b_1:{size}")
        p = zeta ** (size - 1) + sum(b[m - 1] * zeta ** (size - 1 - m) for m in range(1, size))
        q = sympy.Poly(sympy.expand(p.subs(zeta, t - 1)), t)
        proof.equal(
            f"k = {size}: q(1) = p(0) = b_{size - 1}", q.eval(1), b[-1], shown=("p(1 - 1)", b[-1])
        )
        proof.equal(
            f"k = {size}: the roots of q sum to k - 1 - b_1",
            -q.all_coeffs()[1],
            size - 1 - b[0],
            shown=("-coefficient(q)", f"{size} - 1 - b_1"),
        )
    spare = sympy.Symbol("spare", nonnegative=True)
    gap = (k - 2) - (k - 1) / sympy.Integer(2)
    claim = f"k - 2 exceeds (k - 1) / 2 for every k >= {smallest_k}"
    proof.less(claim, 0, gap.subs(k, smallest_k + spare))
    return proof


WRONG = {
    "from k = 3 on": {"smallest_k": 3},
    "Phi_n(1) = p^2 for prime powers": {"value_at_one": lambda p: p**2},
}
