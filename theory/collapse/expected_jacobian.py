"""The mean squared Jacobian of random layers with uniform attention: a recursion of N x N matrices.

One layer is X' = s X + P X W: J = s I + P (x) W^T on stacked tokens. For a random direction V, and
fresh W with E W = 0, the expectation of V' V'^T / d is s^2 V V^T / d + sigma^2 P (V V^T / d) P^T:
the cross terms have the factor E W = 0. Summed over all directions V V^T is d I at first, and
||J||_F^2 is the trace.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="fresh W of mean 0 and entries of variance sigma^2/d: E ||d X_t/d X_0||_F^2 = d tr "
        "B_t, B_0 = I, B' = s^2 B + sigma^2 P B P^T; complete mask, s = 0: sigma^(2t) d for t >= 1",
        source="dynsim.sensitivity",
        hypotheses="uniform attention P, no norm, skip s, entries of W uncorrelated, and "
        "independent from layer to layer",
        latex=r"\mathbf{E}\Bigl\lVert\frac{\partial X_t}{\partial X_0}\Bigr\rVert_F^2="
        r"d\,\mathrm{tr}B_t,\qquad B_{t+1}=s^2B_t+\sigma^2PB_tP^{\top},\quad B_0=I",
        how="proved for N = d = 2 and two layers, symbolic P, s and sigma",
    )


def check(step=lambda B, P, s, sigma: s**2 * B + sigma**2 * P * B * P.T):
    proof = Proof()
    s, sigma, p, q = sympy.symbols("s sigma p q", positive=True)
    P = sympy.Matrix([[1 - p, p], [q, 1 - q]])
    layers = [sympy.Matrix(2, 2, sympy.symbols(f"{name}_1:5")) for name in "uv"]
    J = sympy.eye(4)
    for W in layers:
        J = (s * sympy.eye(4) + sympy.kronecker_product(P, W.T)) * J
    B = sympy.eye(2)
    for _ in layers:
        B = step(B, P, s, sigma)
    squares = sum(entry**2 for entry in J.applyfunc(sympy.expand))
    entries = [w for W in layers for w in W]
    found = 0
    for powers, coefficient in sympy.Poly(sympy.expand(squares), *entries).terms():
        moments = [(1, 0, sigma**2 / 2)[power] for power in powers]
        found += coefficient * sympy.prod(moments)
    proof.equal(
        "two layers: E of the sum of all squares, term by term, against d tr B_2",
        found,
        2 * B.trace(),
        ("E_J", "2*tr(B_2)"),
    )
    for size in (2, 3):
        walk = sympy.ones(size, size) / size
        B = sympy.eye(size)
        for t in (1, 2):
            B = step(B, walk, sympy.Integer(0), sigma)
            claim = f"complete mask, N = {size}, no skip, layer {t}"
            proof.equal(claim, B.trace(), sigma ** (2 * t), ("tr(B_t)", sigma ** (2 * t)))
    proof.words("P = P^2 = P^T is a projection of trace 1 for every N")
    return proof


WRONG = {
    "the skip not squared": {"step": lambda B, P, s, sigma: s * B + sigma**2 * P * B * P.T},
    "P without its transpose": {"step": lambda B, P, s, sigma: s**2 * B + sigma**2 * P * B},
}
