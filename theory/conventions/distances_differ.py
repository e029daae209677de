"""The distance to consensus is not the distance to rank one: antipodal tokens.

A consensus has rank one, so the distance to rank one never exceeds mu; two tokens v and -v show
that it can be smaller. One token is always a consensus, so two tokens are the fewest.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="mu(X) = distance to rank one is false: tokens +-v are rank one with mu = sqrt 2 "
        "||v||",
        source="WU, arXiv 2405.18781, section 3, where mu measures rank collapse",
        hypotheses="N = 2 tokens v and -v, the fewest possible, v not 0; d = 2 stands for every d",
        latex=r"X=\begin{pmatrix}v\\-v\end{pmatrix}:\quad\operatorname{rank}X=1,\;"
        r"\mu(X)=\sqrt2\,\lVert v\rVert",
        how="counterexample found, for every v",
    )


def check(mu_over_size=sympy.sqrt(2)):
    proof = Proof()
    a, b = sympy.symbols("a b", real=True)
    X = sympy.Matrix([[a, b], [-a, -b]])
    proof.equal("every 2 x 2 minor vanishes: rank one", X.det(), 0, shown=("a*(-b) - b*(-a)", "0"))
    deviation = X - sympy.ones(2, 2) * X / 2
    mu_squared = (deviation.T * deviation).trace()
    proof.equal(
        "mu^2 by its definition",
        mu_squared,
        mu_over_size**2 * (a**2 + b**2),
        shown=("(a^2 + b^2) + (a^2 + b^2)", mu_over_size**2 * (a**2 + b**2)),
    )
    consensus = sympy.Matrix([[a, b], [a, b]])
    proof.equal(
        "whereas a consensus always has rank one", consensus.det(), 0, shown=("a*b - b*a", "0")
    )
    return proof


WRONG = {"mu = ||v||": {"mu_over_size": 1}, "mu = 0": {"mu_over_size": 0}}
