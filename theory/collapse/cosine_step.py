"""WU's step for LayerNorm: r layers close a share n eps^2r of the gap between a cosine and 1.

With unit rows after every layer and W_V orthogonal, ||A_i X|| <= 1, so scaling only enlarges:
x'_i = sum_j u_j x_j W with u_j >= 0, and after r layers u_c >= eps^r at each of n centers c that
reach all tokens within r steps. Two tokens with weights u and v then have the cosine sum_jl u_j v_l
G_jl, where G = X X^T has 1 on the diagonal and other entries between phi and 1. Every step below is
a term of such a sum, so that N and the mask do not matter.

With r the radius that is n = 1 center for sure. All n = N tokens of a strongly connected mask are
seen only when r is the diameter: with the radius, as WU's Theorem 2 has it, the step is false
(lemma cosine-step-needs-diameter).
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="phi_{t+r} >= n eps^2r + (1 - n eps^2r) phi_t for the smallest cosine phi >= 0, n "
        "centers that reach all tokens within r steps; and mu^2 <= (N - 1)(1 - phi)",
        source="WU, arXiv 2405.18781, Theorem 2 and Corollary 1 (n = 1, r the radius; n = N needs "
        "r the diameter)",
        hypotheses="unit rows, W_V orthogonal in every layer, entries on edges >= eps, phi_t >= 0, "
        "self-loops",
        latex=r"\phi_{t+r}\ge n\epsilon^{2r}+(1-n\epsilon^{2r})\,\phi_t,\qquad"
        r"\mu(X)^2\le(N-1)(1-\phi)",
        how="proved for every N, term by term; the sums written out for N = 3, n = 2",
    )


def check(power=2, pairs=2, largest=1):
    proof = Proof()
    u, v, phi, g, s = sympy.symbols("u_j v_l phi g s", nonnegative=True)
    claim = "||A_i X||^2 <= 1: term A_ij A_il G_jl, with 1 - G_jl = s >= 0, is at most A_ij A_il"
    proof.at_least(claim, u * v, u * v * (largest - s), (u, v, s), ("u_j*v_l", "u_j*v_l*G_jl"))
    proof.words("these sum to (sum_j A_ij)^2 = 1. So u >= the product of the r matrices A >= eps^r")
    proof.words("1 = ||u X||^2 <= (sum u)^2, by the same terms: sum u >= 1, sum v >= 1")
    claim = "off the diagonal G_jl = phi + g: the term is at least phi u_j v_l"
    proof.at_least(
        claim, u * v * (phi + g), phi * u * v, (u, v, phi, g), ("u_j*v_l*G_jl", "phi*u_j*v_l")
    )
    claim = "on it G_jj = 1 = phi + (1 - phi): the term is phi u_j v_j + (1 - phi) u_j v_j"
    proof.equal(claim, u * v, phi * u * v + (1 - phi) * u * v)
    proof.words("so the cosine is at least phi (sum u)(sum v) + (1 - phi) sum_j u_j v_j")
    n, eps, a, b, psi, rest = sympy.symbols("n epsilon_r a b psi rest", nonnegative=True)
    claim = "at a center u_c v_c >= eps^2r, with u_c = eps^r + a and v_c = eps^r + b"
    shown = "u_c*v_c", f"(eps^r)^{power}"
    proof.at_least(claim, (eps + a) * (eps + b), eps**power, (eps, a, b), shown)
    claim = "with sum u = 1 + a, sum v = 1 + b, sum u_j v_j = n eps^2r + rest, psi = 1 - phi >= 0"
    cosine = phi * (1 + a) * (1 + b) + psi * (n * eps**2 + rest)
    proof.at_least(claim, cosine, phi + psi * n * eps**2, (phi, psi, a, b, n, eps, rest))
    claim = "which is the step"
    step = n * eps**power + (1 - n * eps**power) * phi
    shown = "phi + (1 - phi)*n*eps_r^2", f"n*eps_r^{power} + (1 - n*eps_r^{power})*phi"
    proof.equal(claim, phi + (1 - phi) * n * eps**2, step, shown)
    _written_out(proof)
    m = sympy.Symbol("m", nonnegative=True)  # N - 1
    claim = "mu^2: N (N - 1) pairs with ||x_i - x_j||^2 = 2 - 2 cos <= 2 (1 - phi), over 2 N"
    mu_squared = (m + 1) * m * (pairs * psi - s) / (2 * (m + 1))
    shown = "(N - 1)*(1 - phi)", f"N*(N - 1)*{pairs}*(1 - phi - g)/(2*N)"
    proof.at_least(claim, m * psi, mu_squared, (m, psi, s), shown)
    shown = "(N - 1)*(1 - phi)", f"N*(N - 1)*{pairs}*(1 - phi)/(2*N)"
    proof.equal("attained by equal cosines", m * psi, mu_squared.subs(s, 0), shown)
    return proof


def _written_out(proof):
    """The whole sum at once, for three tokens of which two are centers, any G."""
    eps, phi, psi = sympy.symbols("epsilon_r phi psi", nonnegative=True)
    a, b = sympy.symbols("a_1:3", nonnegative=True), sympy.symbols("b_1:3", nonnegative=True)
    u_3, v_3 = sympy.symbols("u_3 v_3", nonnegative=True)
    above = {
        (j, k): sympy.Symbol(f"g_{j + 1}{k + 1}", nonnegative=True)
        for j in range(3)
        for k in range(j)
    }
    G = sympy.Matrix(3, 3, lambda j, k: phi + (psi if j == k else above[max(j, k), min(j, k)]))
    u, v = (sympy.Matrix([[eps + w[0], eps + w[1], end]]) for w, end in ((a, u_3), (b, v_3)))
    bound = phi * sum(u) * sum(v) + 2 * eps**2 * psi
    symbols = (eps, phi, psi, *a, *b, u_3, v_3, *above.values())
    shown = "u*G*v^T", "phi*sum(u)*sum(v) + (1 - phi)*2*eps_r^2"
    proof.at_least("N = 3, n = 2, any cosines", (u * G * v.T)[0], bound, symbols, shown)
    slack = {
        (j, k): sympy.Symbol(f"s_{j + 1}{k + 1}", nonnegative=True)
        for j in range(3)
        for k in range(j)
    }
    G = sympy.Matrix(3, 3, lambda j, k: 1 - (0 if j == k else slack[max(j, k), min(j, k)]))
    u = sympy.Matrix([sympy.symbols("u_1:4", nonnegative=True)])
    shown = "sum(u)^2", "u*G*u^T"
    claim = "N = 3, with 1 - G_jl >= 0"
    proof.at_least(claim, sum(u) ** 2, (u * G * u.T)[0], (*u, *slack.values()), shown)


WRONG = {
    "eps^r in place of eps^2r": {"power": 1},
    "||x_i - x_j||^2 = 1 - cos": {"pairs": 1},
    "cosines up to 2": {"largest": 2},
}
