"""The multipliers of token k at a full-rank equilibrium of Theorem 3, for every w.

Causality makes the Jacobian block triangular; token k's block is delta -> delta W P, P = I - x^T x,
for the average's factor 1/k cancels against the length. In coordinates counted from the last,
x_{k,N-a} = (-1/w)^a t_{k-a}, with t_i token i's last coordinate (0 for i <= 0). Scaling coordinate
N - a by w^a turns W into I + U and keeps everything polynomial in 1/w. With zeta = lambda - 1,

    det(lambda - W P) = zeta^N + sum_m (B_m + B_{m+1}) zeta^{N-1-m},
    B_m = w^m x U^m x^T = (-1)^m sum_a w^(-2a) t_{k-a-m} t_{k-a},

and since B_0 = ||x||^2 = 1 this is (1 + zeta) zeta^(N-k) sum_{m<k} B_m zeta^(k-1-m): the radial
multiplier 0, the multiplier 1 exactly N - k times (in a Jordan block), and k - 1 others.
"""

import sympy

from theory.equilibria.jordan import W_V, family, r, w
from theory.lemma import Proof, Statement

LARGEST = 4


def statement():
    return Statement(
        claim="token k's multipliers are 0, 1 (N - k times) and 1 + zeta with sum_{m<k} B_m "
        "zeta^(k-1-m) = 0, B_m = w^m x_k U^m x_k^T",
        source="dynsim; for the equilibria of WU, arXiv 2405.18781, Theorem 3",
        hypotheses="as for jordan-family, k = N there (full rank); any w > 1, any signs; U = the "
        "ones of the superdiagonal",
        latex=r"\det(\lambda I-W_VP_k)=(1+\zeta)\,\zeta^{N-k}\sum_{m=0}^{k-1}B_m\zeta^{k-1-m},\quad"
        r"\lambda=1+\zeta,\quad B_m=w^mx_kU^mx_k^{\top}",
        how=f"proved for N <= {LARGEST}, every token, symbolic w and signs",
    )


def check(alternate=-1):
    proof = Proof()
    zeta = sympy.Symbol("zeta")
    for n in range(2, LARGEST + 1):
        X = family(n, n).subs(sympy.Symbol("rho", positive=True), r)  # one token is no block
        for k in range(1, n + 1):
            t = dict(enumerate(sympy.symbols(f"t_1:{k + 1}"), 1))
            x = sympy.zeros(1, n)
            for a in range(k):
                x[n - 1 - a] = (-1 / w) ** a * t[k - a]
            last = {t[i]: X[i - 1, n - 1] for i in t}
            proof.equal(
                f"N = {n}, token {k} in terms of last coordinates",
                x.subs(last),
                X.row(k - 1),
                shown=("x", X.row(k - 1)),
            )
            B = [
                alternate**m * sum(t.get(k - a - m, 0) * t[k - a] / w ** (2 * a) for a in range(k))
                for m in range(n + 1)
            ]
            scale = sympy.diag(*[w ** -sympy.Integer(n - 1 - j) for j in range(n)])
            block = scale.inv() * W_V(n) * (sympy.eye(n) - x.T * x) * scale
            found = (zeta * sympy.eye(n) + sympy.eye(n) - block).det(method="berkowitz")
            stated = zeta**n + sum((B[m] + B[m + 1]) * zeta ** (n - 1 - m) for m in range(n))
            proof.equal(
                f"N = {n}, token {k}: det(lambda - W P), before the length is 1",
                found,
                stated,
                shown=("det((1 + zeta)*I - W*P)", "zeta^N + sum_m((B_m + B_n)*zeta^(N - 1 - m))"),
            )
            product = (1 + zeta) * sum(B[m] * zeta ** (n - 1 - m) for m in range(n))
            claim = "which differs from the product only by B_0 - 1 = 0"
            proof.equal(
                claim,
                product - stated,
                (B[0] - 1) * zeta**n,
                shown=(
                    "(1 + zeta)*sum_m(B_m*zeta^(N - 1 - m)) - det((1 + zeta)*I - W*P)",
                    "(B_0 - 1)*zeta^N",
                ),
            )
    return proof


WRONG = {"B_m without alternating signs": {"alternate": 1}}
