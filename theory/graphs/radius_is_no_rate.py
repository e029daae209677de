"""A smaller radius does not mean a faster collapse: WU's bound has the radius, the rate has not.

The rate near consensus is lambda_2 of the uniform walk. The window +-1 on four tokens has radius 2
and a lambda_2 above 1/2; the uni-directional window 1 has radius 3 and lambda_2 = 1/2. On three
tokens the two rates are equal, so that four are the fewest for these two masks.
"""

import sympy

from theory.graphs.small_masks import band, centers_and_radius, walk
from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="'a smaller radius collapses faster' is false: N = 4, window +-1 against "
        "uni-directional window 1 (r = 2 < 3, but lambda_2 > 1/2)",
        source="a reading of WU, arXiv 2405.18781, Theorem 1, whose bound is (1 - eps^r)^(t/r)",
        hypotheses="M = 0 and W_V = I, so that the rate is lambda_2 of the uniform walk",
        latex=r"r=2,\ \lambda_2=\frac14+\frac{\sqrt{33}}{12}\quad\text{against}\quad r=3,\ "
        r"\lambda_2=\frac12",
        how="counterexample found, exact",
    )


def check(slow=sympy.Rational(1, 4) + sympy.sqrt(33) / 12, n=4):
    proof = Proof()
    half = sympy.Rational(1, 2)
    two_sided, one_sided = band(n, 1, 1), band(n, 1, 0)
    radii = [centers_and_radius(mask)[1] for mask in (two_sided, one_sided)]
    proof.less("the radii", *radii)
    for name, mask, value in (("two-sided", two_sided, slow), ("uni-directional", one_sided, half)):
        moduli = [
            abs(z) for z, count in sympy.roots(_polynomial(mask)).items() for _ in range(count)
        ]
        second = sorted(moduli, reverse=True)[1]
        proof.equal(f"lambda_2 of the {name} window", second, value, shown=("lambda_2(P)", value))
    proof.less("the mask of the smaller radius is slower", half, slow)
    return proof


def _polynomial(mask):
    return walk(mask).charpoly(sympy.Symbol("lambda")).as_expr()


WRONG = {
    "already on three tokens": {"n": 3, "slow": sympy.Rational(1, 2)},
    "lambda_2 = 1/4 + sqrt(33)/24": {"slow": sympy.Rational(1, 4) + sympy.sqrt(33) / 24},
}
