"""Attention below the rounding floor: the common part cancels exactly, before it is lost.

X = 1 c + s Z leaves scores a_j, common to all rows, plus b_ij = s^2 z_i M z_j^T. With p =
softmax(a) the row's difference from p needs only e_ij = exp(b_ij) - 1, which is small and computed
as such.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="p = softmax(a), e_ij = expm1(b_ij), E_i = sum_k p_k e_ik: "
        "softmax(a + b_i)_j - p_j = p_j (e_ij - E_i) / (1 + E_i)",
        source="dynsim (the log-scale engine)",
        hypotheses="any scores; rows that share their neighbours; any N",
        latex=r"A_{ij}-p_j=p_j\,\frac{e_{ij}-E_i}{1+E_i},\qquad p=\operatorname{softmax}(a),\ "
        r"e_{ij}=e^{b_{ij}}-1,\ E_i=\sum_kp_ke_{ik}",
        how="proved for every N; the sum in the denominator written out for N = 3",
    )


def check(denominator=lambda E: 1 + E):
    proof = Proof()
    p = sympy.symbols("p_1:4", positive=True)
    e = sympy.symbols("e_1:4", real=True)
    total = sympy.Symbol("T", positive=True)
    proof.words("exp(a_j) = p_j T with T the sum over exp(a_k), and exp(b_ij) = 1 + e_ij")
    weights = [total * share * (1 + small) for share, small in zip(p, e, strict=True)]
    E = sum(share * small for share, small in zip(p, e, strict=True))
    sums_to_one = {p[2]: 1 - p[0] - p[1]}
    claim = "the denominator, with sum p = 1"
    proof.equal(claim, sum(weights).subs(sums_to_one), (total * (1 + E)).subs(sums_to_one))
    p_j, e_j, E_i = sympy.symbols("p_j e_ij E_i", real=True)
    change = total * p_j * (1 + e_j) / (total * (1 + E_i)) - p_j
    proof.equal("an entry less p_j", change, p_j * (e_j - E_i) / denominator(E_i))
    return proof


WRONG = {
    "no denominator": {"denominator": lambda E: 1},
    "1 - E_i": {"denominator": lambda E: 1 - E},
}
