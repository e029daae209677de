"""WU's step for LayerNorm: r layers close a share eps^2r of the gap between a cosine and 1.

With unit rows after every layer and W_V orthogonal, ||A_i X|| <= 1, so scaling only enlarges:
x'_i = u_i X W with u_i >= 0, and after r layers u_ic >= eps^r at each of n centers c. Now
cos(x'_i, x'_k) = u_i G u_k^T, where G = X X^T has diagonal 1 and other entries >= phi >= 0.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="phi_{t+r} >= n eps^2r + (1 - n eps^2r) phi_t for the smallest cosine phi >= 0, n "
        "centers at distance <= r; and mu^2 <= (N - 1)(1 - phi)",
        source="WU, arXiv 2405.18781, Theorem 2 and Corollary 1 (one center: n = 1)",
        hypotheses="unit rows, W_V orthogonal in every layer, entries on edges >= eps, phi_t >= 0",
        latex=r"\phi_{t+r}\ge n\epsilon^{2r}+(1-n\epsilon^{2r})\,\phi_t",
        how="proved for every N, with sums over tokens written out for N = 3, n = 2",
    )


def check(power=2, pairs=2):
    proof = Proof()
    n_tokens, centers = 3, 2
    u = sympy.symbols("u_1:4", nonnegative=True)
    v = sympy.symbols("v_1:4", nonnegative=True)
    phi, psi = sympy.symbols("phi psi", nonnegative=True)  # psi = 1 - phi
    slack = sympy.Matrix(
        n_tokens, n_tokens, lambda i, j: sympy.Symbol(f"g_{i}{j}", nonnegative=True)
    )
    gram = phi * sympy.ones(n_tokens, n_tokens) + psi * sympy.eye(n_tokens)
    both = [sympy.Matrix([row]) for row in (u, v)]
    cosine = (both[0] * gram * both[1].T)[0]
    alike = sum(a * b for a, b in zip(u, v, strict=True))
    proof.equal("u G v^T when all cosines are phi", cosine, phi * sum(u) * sum(v) + psi * alike)
    more = (both[0] * slack * both[1].T)[0]
    proof.at_least("larger cosines only add", more, 0, (*u, *v, *slack))
    spread = sympy.expand(sum(u) ** 2 - (both[0] * gram * both[0].T)[0]).subs(psi, 1 - phi)
    less = (1 - phi) * sum(u[i] * u[j] for i in range(3) for j in range(3) if i != j)
    claim = "1 = ||u X||^2 falls short of (sum u)^2 by terms >= 0, so sum u >= 1"
    proof.equal(claim, spread, less)
    eps_r = sympy.Symbol("epsilon_r", nonnegative=True)  # eps^r
    b, c, rest = sympy.symbols("b c rest", nonnegative=True)
    a = sympy.symbols("a_1:5", nonnegative=True)
    through = sum((eps_r + a[2 * k]) * (eps_r + a[2 * k + 1]) for k in range(centers))
    cosine = phi * (1 + b) * (1 + c) + psi * (through + rest)
    claim = "with sums 1 + b, 1 + c and entries eps^r + a at the centers"
    nonnegative = (phi, psi, b, c, rest, eps_r, *a)
    proof.at_least(claim, cosine, phi + psi * centers * eps_r**power, nonnegative)
    step = centers * eps_r**power + (1 - centers * eps_r**power) * phi
    bound = (phi + psi * centers * eps_r**power).subs(psi, 1 - phi)
    proof.equal("which is the step", bound, step)
    N = sympy.Symbol("N", positive=True)
    mu_squared = N * (N - 1) * pairs * (1 - phi) / (2 * N)
    claim = "mu^2 = sum of ||x_i - x_j||^2 = 2 - 2 cos over pairs, over 2 N, at the smallest cosine"
    proof.equal(claim, mu_squared, (N - 1) * (1 - phi))
    return proof


WRONG = {"eps^r in place of eps^2r": {"power": 1}, "||x_i - x_j||^2 = 1 - cos": {"pairs": 1}}
