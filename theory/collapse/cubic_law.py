"""Complete mask: the deviation is cubed, DONG's double exponential, with its leading coefficient.

Write X = 1 c + s Z with 1^T Z = 0. In a row, what all its scores share cancels, which leaves s a_j
+ s^2 g_ij with a_j = c M z_j^T and g_ij = z_i M z_j^T. Both have sum 0 over j. To second order A_ij
= (1 + s a_j + s^2 (g_ij + a_j^2 / 2 - mean(a^2) / 2)) / N, in which only s^2 g_ij depends on i. So
the tokens' deviations after the layer are those of s^3 sum_j g_ij z_j / N = s^3 (Z M Z^T Z)_i / N.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="complete mask, X = 1 c + s Z, 1^T Z = 0: deviation' = s^3 Z M Z^T Z W_V / N + "
        "O(s^4)",
        source="dynsim; the exponent 3 is DONG, arXiv 2103.03404, Theorem 2.2",
        hypotheses="no norm; any M, W_V, c",
        latex=r"(I-\tfrac1N\mathbf1\mathbf1^{\top})X'=\frac{s^3}{N}\,ZMZ^{\top}Z\,W_V+O(s^4)",
        how="proved for every N and d to this order; written out for N = 2, 3 and d = 1, 2",
    )


def check(leading=lambda Z, M: Z * M * Z.T * Z / Z.rows, order=3):
    proof = Proof()
    s, a, g, Q = sympy.symbols("s a_j g_ij Q", real=True)
    N = sympy.Symbol("N", positive=True, integer=True)
    claim = "the softmax to second order; its denominator is N + s^2 Q / 2 with Q = sum a^2"
    entry = (1 + s * a + s**2 * (g + a**2 / 2)) / (N + s**2 * Q / 2)
    second = (1 + s * a + s**2 * (g + a**2 / 2 - Q / (2 * N))) / N
    proof.equal(claim, sympy.series(entry, s, 0, 3).removeO(), second)
    coefficient = sympy.expand(second).coeff(g)
    proof.equal("its part that depends on the row", coefficient, s**2 / N, shown=(second, s**2 / N))
    for n, d in ((2, 1), (2, 2), (3, 1), (3, 2)):
        free = sympy.Matrix(n - 1, d, sympy.symbols(f"z:{(n - 1) * d}", real=True))
        Z = free.col_join(-sympy.ones(1, n - 1) * free)
        M = sympy.Matrix(d, d, sympy.symbols(f"m:{d * d}", real=True))
        c = sympy.Matrix([sympy.symbols(f"c:{d}", real=True)])
        ones = sympy.ones(n, 1)
        first = ones * c * M * Z.T + Z * M * c.T * ones.T  # the scores' coefficients of s and s^2
        orders = _softmax_orders(first, Z * M * Z.T)
        centre = sympy.eye(n) - ones * ones.T / n
        for k, A_k in enumerate(orders, 1):  # tokens 1 c + s Z: attention's s^(k-1) makes s^k
            expected = leading(Z, M) if k == order else sympy.zeros(n, d)
            claim = f"N = {n}, d = {d}: the deviation's coefficient of s^{k}"
            proof.equal(
                claim,
                centre * A_k * Z,
                expected,
                shown=(f"(I - J)*(A_{k - 1}*Z)", "Z*M*Z^T*Z/N" if k == order else "0"),
            )
    return proof


def _softmax_orders(first, second):
    """Coefficients of 1, s, s^2 in the softmax of the rows of s first + s^2 second."""
    n = first.rows
    orders = [sympy.ones(n, n) / n, sympy.zeros(n, n), sympy.zeros(n, n)]
    for i in range(n):
        for j in range(n):  # 1 / A_ij = sum_k exp(R_ik - R_ij) = n (1 + s p + s^2 q + ...)
            a = [first[i, k] - first[i, j] for k in range(n)]
            b = [second[i, k] - second[i, j] for k in range(n)]
            p = sum(a) / n
            q = sum(b[k] + a[k] ** 2 / 2 for k in range(n)) / n
            orders[1][i, j], orders[2][i, j] = -p / n, (p**2 - q) / n
    return orders


WRONG = {
    "M transposed": {"leading": lambda Z, M: Z * M.T * Z.T * Z / Z.rows},
    "1 / N^2": {"leading": lambda Z, M: Z * M * Z.T * Z / Z.rows**2},
    "quadratic": {"order": 2},
}
