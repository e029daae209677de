"""Unit norm below the rounding floor: the change of 1/||c + s z|| without subtracting.

||c + s z||^2 = ||c||^2 (1 + eta) with a small eta, so the inverse changes by a factor
(1 + eta)^(-1/2) - 1 = expm1(-log1p(eta) / 2).
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="1/||c + s z|| - 1/||c|| = expm1(-log1p(eta)/2) / ||c||, eta = (2 s c.z + s^2 z.z) "
        "/ c.c",
        source="dynsim (the log-scale engine)",
        hypotheses="c and c + s z not 0; any d (written with the inner products c.c, c.z, z.z)",
        latex=r"\frac1{\lVert c+sz\rVert}-\frac1{\lVert c\rVert}=\frac{(1+\eta)^{-1/2}-1}"
        r"{\lVert c\rVert},\quad\eta=\frac{2s\,c\cdot z+s^2\lVert z\rVert^2}{\lVert c\rVert^2}",
        how="proved for every d",
    )


def check(cross=2):
    proof = Proof()
    s, cz = sympy.symbols("s c_z", real=True)
    size, zz, positive = sympy.symbols("n z_z q", positive=True)
    eta = (cross * s * cz + s**2 * zz) / size**2
    proof.equal("||c + s z||^2", size**2 * (1 + eta), size**2 + 2 * s * cz + s**2 * zz)
    change = sympy.exp(-sympy.log(positive) / 2) - 1  # expm1(-log1p(eta) / 2) with q = 1 + eta
    claim = "1/||c + s z|| - 1/||c|| with ||c + s z|| = ||c|| sqrt(q)"
    proof.equal(claim, 1 / (size * sympy.sqrt(positive)) - 1 / size, change / size)
    return proof


WRONG = {"eta with c.z once": {"cross": 1}}
