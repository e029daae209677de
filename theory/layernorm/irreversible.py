"""LayerNorm cannot be undone: exactly the a' = s a + t 1, s > 0, are mapped to where a is.

One direction: Pi kills t 1, and s > 0 cancels against the length. The other: equal images mean Pi
a' / ||Pi a'|| = Pi a / ||Pi a||, so a' = Pi a' + mean(a') 1 has the form with s = ||Pi a'|| / ||Pi
a||.
"""

import sympy

from theory.lemma import Proof, Statement

SIZES = (2, 3, 4)


def statement():
    return Statement(
        claim="LN(a') = LN(a) iff a' = s a + t 1 with s > 0 (eps = 0); s < 0 turns the image round",
        source="GUPTA, arXiv 2409.12951, irreversibility",
        hypotheses="a, a' not along 1; any gain without zeros and any bias",
        latex=r"\operatorname{LN}(a')=\operatorname{LN}(a)\iff a'=s\,a+t\,\mathbf1,\ s>0;\qquad s<0"
        r"\text{ turns the image round}",
        how=f"proved for d = {', '.join(map(str, SIZES))}; the argument in the head is for every d",
    )


def check(turned=-1, shift=lambda means, s: means[1] - s * means[0]):
    proof = Proof()
    t = sympy.Symbol("t", real=True)
    s = sympy.Symbol("s", positive=True)
    for d in SIZES:
        a = sympy.Matrix(sympy.symbols(f"a_1:{d + 1}", real=True))
        z, ones = _centred(a), sympy.ones(d, 1)
        proof.equal(
            f"d = {d}: Pi (s a + t 1)",
            _centred(s * a + t * ones),
            s * z,
            shown=("Pi*(s*a + t*ones)", "s*Pi*a"),
        )
        proof.equal(
            "its length over that of Pi a, squared",
            (s * z).dot(s * z),
            s**2 * z.dot(z),
            shown=("norm(s*Pi*a)^2", "s^2*norm(Pi*a)^2"),
        )
        proof.equal(
            "so for s < 0 the unit vector",
            _centred(-s * a + t * ones) / s,
            turned * z,
            shown=("Pi*(-s*a + t*ones)/s", "-Pi*a"),
        )
        b = s * z + sympy.Symbol("m") * ones  # Pi b = s Pi a: any b with the same image
        mean_a, mean_b = sum(a) / d, sympy.Symbol("m")
        back = s * a + shift((mean_a, mean_b), s) * ones
        proof.equal(
            "conversely b with Pi b = s Pi a is s a + t 1, t = mean b - s mean a",
            b,
            back,
            shown=("b", "s*a + (mean(b) - s*mean(a))*ones"),
        )
    return proof


def _centred(v):
    return v - sympy.ones(v.rows, v.rows) * v / v.rows


WRONG = {
    "s < 0 keeps the image": {"turned": 1},
    "t = mean b - mean a": {"shift": lambda means, s: means[1] - means[0]},
}
