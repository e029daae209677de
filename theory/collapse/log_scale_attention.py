"""Attention below the rounding floor: the common part cancels exactly, before it is lost.

X = 1 c + s Z leaves scores a_j, common to all rows, plus b_ij = s^2 z_i M z_j^T. With p = softmax(a)
the row's difference from p needs only e_ij = exp(b_ij) - 1, which is small and computed as such.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="p = softmax(a), e_ij = expm1(b_ij), E_i = sum_k p_k e_ik: "
        "softmax(a + b_i)_j - p_j = p_j (e_ij - E_i) / (1 + E_i)",
        source="dynsim (the log-scale engine)",
        hypotheses="any scores; rows that share their neighbours; any N",
        latex=r"A_{ij}-p_j=p_j\,\frac{e_{ij}-E_i}{1+E_i}",
        how="proved for every N",
    )


def check(denominator=lambda E: 1 + E):
    proof = Proof()
    p, e, E, total = sympy.symbols("p_j e_ij E_i T", positive=True)
    proof.words("exp(a_j) = p_j T with T the sum over exp(a_k), and exp(b_ij) = 1 + e_ij")
    softmax = p * T_times(total, 1 + e) / T_times(total, 1 + E)
    proof.equal("sum_k p_k (1 + e_ik) = 1 + E_i, as sum p = 1", softmax - p, p * (e - E) / denominator(E))
    a, b = sympy.symbols("a:3", real=True), sympy.symbols("b:3", real=True)
    weights = [sympy.exp(value) for value in a]
    shares = [weight / sum(weights) for weight in weights]
    small = [sympy.exp(value) - 1 for value in b]
    mean = sum(share * value for share, value in zip(shares, small, strict=True))
    row = [sympy.exp(a[k] + b[k]) for k in range(3)]
    left = row[0] / sum(row) - shares[0]
    right = shares[0] * (small[0] - mean) / denominator(mean)
    proof.equal("written out for N = 3", left, right)
    return proof


def T_times(total, value):
    return total * value


WRONG = {
    "no denominator": {"denominator": lambda E: 1},
    "1 - E_i": {"denominator": lambda E: 1 - E},
}
