"""Near consensus attention acts as the uniform walk, whatever M: the late rate is lambda_2.

At X = 1 c all scores of a row are equal, so A is uniform over the neighbours. Let A(s) be attention
on 1 c + s Z. Its rows sum to 1 for every s, so the derivative of A multiplies the constant 1 c to
nothing, and only A_uniform Z W_V is left at first order. The eigenvalues of Z -> P Z W are the
products of those of P and W; on the deviations the largest is |lambda_2| rho(W_V).

That is a rate of the run as long as attention stays near the uniform walk. For M = 0 it is the
uniform walk, and the deviation after t layers is P^t Z W^t. For rho(W_V) <= 1 (with ||W_V|| <= 1,
so that Theorem 1 applies) tokens and scores stay bounded, deviations fall exponentially, and A
tends to the walk as fast: the exponent of the product is at most that of P and W_V. For rho(W_V) >
1 scores may grow faster than deviations fall (lemma late-rate-drifts).
"""

import sympy

from theory.graphs.small_masks import band, walk
from theory.lemma import Proof, Statement

MASKS = {"complete": band(3, 3, 3), "causal": band(3, 3, 0), "local": band(3, 1, 1)}


def statement():
    return Statement(
        claim="X = 1 c + s Z: d/ds A(s) X W_V at s = 0 is A_uniform Z W_V, whatever M and W_V; for "
        "M = 0 the deviation after t layers is that of A_uniform^t Z W_V^t, of rate |lambda_2| "
        "rho(W_V)",
        source="dynsim; compare WU, arXiv 2405.18781, Theorem 1",
        hypotheses="no norm; W_V the same in every layer; as a rate: M = 0, or rho(W_V) <= 1 "
        "(argued in the file's head, with ||W_V|| <= 1), and not in general; N = 3, d = 2, three "
        "masks (the argument for all is in the file's head)",
        latex=r"\frac{d}{ds}\Big|_{s=0}A(\mathbf1c+sZ)(\mathbf1c+sZ)W_V=A_{\mathrm{uniform}}ZW_V;"
        r"\qquad M=0:\ X_t-\mathbf1c_t=A_{\mathrm{uniform}}^t\,s\,Z\,W_V^t,\text{ of rate }|"
        r"\lambda_2|\rho(W_V)",
        how="proved for N = 3, d = 2, symbolic c, Z, M and W_V; M = 0 by induction over layers",
    )


def check(walk_of=walk):
    proof = Proof()
    s = sympy.Symbol("s", real=True)
    c = sympy.Matrix([sympy.symbols("c_1 c_2", real=True)])
    Z = sympy.Matrix(3, 2, sympy.symbols("z_1:7", real=True))
    M = sympy.Matrix(2, 2, sympy.symbols("m_1:5", real=True))
    W = sympy.Matrix(2, 2, sympy.symbols("w_1:5", real=True))
    ones = sympy.ones(3, 1)
    X = ones * c + s * Z
    scores = X * M * X.T
    for name, mask in MASKS.items():
        A = sympy.zeros(3, 3)
        for row in range(3):
            allowed = [k for k in range(3) if mask[row, k]]
            for k in allowed:  # exp(R_k) / sum exp(R_l), written in differences
                A[row, k] = 1 / sum(sympy.exp(scores[row, m] - scores[row, k]) for m in allowed)
        P = walk_of(mask)
        shown = "d(A(s)*X(s)*W_V)/ds", "A_uniform*Z*W_V"
        proof.equal(f"{name} mask, at s = 0", (A * X * W).diff(s).subs(s, 0), P * Z * W, shown)
        still = dict.fromkeys(M, 0)
        proof.equal(f"{name} mask, M = 0: the layer", A.subs(still), walk_of(mask), ("A", P))
        claim = "and a layer on 1 c + s Z is one on c and one on Z"
        shown = "A_uniform*(1*c + s*Z)*W_V", "1*c*W_V + s*A_uniform*Z*W_V"
        proof.equal(claim, P * X * W, ones * c * W + s * P * Z * W, shown)
    proof.words("so for M = 0, by induction, X_t is consensus plus s P^t Z W^t, P the uniform walk")
    proof.words("P u = lambda u and f W = omega f give P (u f) W = lambda omega (u f)")
    return proof


WRONG = {
    "the transposed walk": {"walk_of": lambda mask: walk(mask).T},
    "sums, not averages": {"walk_of": lambda mask: mask},
}
