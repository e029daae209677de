"""Near consensus attention acts as the uniform walk, whatever M: the late rate is lambda_2.

At X = 1 c all scores of a row are equal, so A is uniform over the neighbours. Let A(s) be attention
on 1 c + s Z. Its rows sum to 1 for every s, so the derivative of A multiplies the constant 1 c to
nothing, and only A_uniform Z W_V is left at first order. The eigenvalues of Z -> P Z W are the
products of those of P and W; on the deviations the largest is |lambda_2| rho(W_V).
"""

import sympy

from theory.graphs.small_masks import band, walk
from theory.lemma import Proof, Statement

MASKS = {"complete": band(3, 3, 3), "causal": band(3, 3, 0), "local": band(3, 1, 1)}


def statement():
    return Statement(
        claim="X = 1 c + s Z: d/ds A(s) X W_V at s = 0 is A_uniform Z W_V, whatever M; rate "
        "|lambda_2| rho(W_V)",
        source="dynsim; compare WU, arXiv 2405.18781, Theorem 1",
        hypotheses="no norm; W_V the same in every layer; N = 3, d = 2, three masks (the general "
        "argument is in the file's head)",
        latex=r"\frac{d}{ds}\Big|_{s=0}A(\mathbf1c+sZ)(\mathbf1c+sZ)W_V=A_{\mathrm{uniform}}ZW_V",
        how="proved for N = 3, d = 2, symbolic c, Z, M and W_V",
    )


def check(walk_of=walk):
    proof = Proof()
    s = sympy.Symbol("s", real=True)
    c = sympy.Matrix([sympy.symbols("c_1 c_2", real=True)])
    Z = sympy.Matrix(3, 2, sympy.symbols("z_1:7", real=True))
    M = sympy.Matrix(2, 2, sympy.symbols("m_1:5", real=True))
    W = sympy.Matrix(2, 2, sympy.symbols("w_1:5", real=True))
    X = sympy.ones(3, 1) * c + s * Z
    scores = X * M * X.T
    for name, mask in MASKS.items():
        A = sympy.zeros(3, 3)
        for row in range(3):
            allowed = [k for k in range(3) if mask[row, k]]
            for k in allowed:  # exp(R_k) / sum exp(R_l), written in differences
                A[row, k] = 1 / sum(sympy.exp(scores[row, m] - scores[row, k]) for m in allowed)
        slope = (A * X * W).diff(s).subs(s, 0)
        proof.equal(f"{name} mask", slope, walk_of(mask) * Z * W)
    proof.words("P u = lambda u and f W = omega f give P (u f) W = lambda omega (u f)")
    return proof


WRONG = {
    "the transposed walk": {"walk_of": lambda mask: walk(mask).T},
    "sums, not averages": {"walk_of": lambda mask: mask},
}
