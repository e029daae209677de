"""Where the norm stands decides how fast tokens come together: exponentials and powers of time.

W_V = w I and a norm to length 1. At consensus 1 c let a deviation Z lie across c and on an
eigenvector of the uniform walk with eigenvalue lambda. The derivative of the norm at c is the
projection across c over ||c|| (lemma jacobian-unit), and attention acts as the walk (late-rate).
Post: c has length 1, the sum s c + w c the length s + w, so Z' = (s + lambda w) Z / (s + w). Pre
and peri with skip 1: c grows by w (or 1) a layer, and Z' = Z + lambda w Z / ||c||. For two tokens
with directions that differ by a small z, 1 - cos is ||z||^2 / 2, z = Z / ||c||.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="late 1 - cos: post, step h = 1/s, ((1 + lambda w h)/(1 + w h))^2 a layer, e^(-2 w "
        "(1 - lambda) t) as h to 0; pre and peri, skip 1, C t^(-2 (1 - lambda)); for lambda = 0 "
        "the speeds are C e^(-2 w t) and C / t^3",
        source="arXiv 2510.22026 has lambda = 0, continuous time; here layers, and any mask",
        hypotheses="W_V = w I, w > 0; lambda real, 0 <= lambda < 1; to first order",
        latex=r"1-\cos\sim\Bigl(\frac{1+\lambda wh}{1+wh}\Bigr)^{2t/h}\to Ce^{-2w(1-\lambda)t}"
        r"\quad\text{(post)},\qquad 1-\cos\sim C\,t^{-2(1-\lambda)}\quad\text{(pre, peri)}",
        how="proved for symbolic lambda, w and h; the algebraic law for lambda = 0 and 1/2",
    )


def check(post=lambda s, lam, w: (s + lam * w) / (s + w), power=lambda lam: -2 * (1 - lam)):
    proof = Proof()
    h, w, t, r, s = sympy.symbols("h w t r s", positive=True)
    lam, z = sympy.symbols("lambda z", real=True)
    c = sympy.Matrix([[1, 0]])
    token = s * (c + sympy.Matrix([[0, z]])) + w * (c + sympy.Matrix([[0, lam * z]]))
    direction = token[1] / sympy.sqrt(token.dot(token))
    slope = sympy.diff(direction, z).subs(z, 0)
    claim = "post: derivative of the direction after s (c + Z) + w (c + lambda Z), Z across c"
    proof.equal(claim, slope, post(s, lam, w), ("dy/dz", post(s, lam, w)))
    rate = -2 * sympy.log(post(1 / h, lam, w)) / h
    claim = "s = 1/h: the rate of 1 - cos in units of time t = h * layers, as h to 0"
    found = sympy.limit(rate, h, 0)
    proof.equal(claim, found, 2 * w * (1 - lam), ("lim(rate)", 2 * w * (1 - lam)))
    x = sympy.Matrix([[r, z]])
    seen = x / sympy.sqrt(x.dot(x))
    slope = sympy.diff(seen[1], z).subs(z, 0)
    proof.equal("pre: the norm of c + Z, ||c|| = r, turns by Z / r", slope, 1 / r, ("dy/dZ", 1 / r))
    branch = sympy.Matrix([[w, lam * w * z / r]])
    twice = branch / sympy.sqrt(branch.dot(branch))
    slope = sympy.diff(twice[1], z).subs(z, 0)
    claim = "peri: and the norm of the branch w c + lambda w Z / r makes it lambda Z / r"
    proof.equal(claim, slope, lam / r, ("dy/dZ", lam / r))
    proof.words("pre: ||c|| = r_0 + w t, Z grows by 1 + lambda w / ||c||; in units of w, t layers")
    k = sympy.Symbol("k", integer=True, nonnegative=True)
    for value in (sympy.Integer(0), sympy.Rational(1, 2)):
        grown = sympy.gamma(t + r + value) / sympy.gamma(t + r)  # prod (1 + lambda / (r + k))
        factor = sympy.expand_func(grown.subs(t, k + 1)) / grown.subs(t, k)
        claim = f"lambda = {value}: gamma(t + r + lambda)/gamma(t + r) grows by 1 + lambda/(r + t)"
        proof.equal(claim, factor, 1 + value / (r + k), ("Z_(k + 1)/Z_k", 1 + value / (r + k)))
        found = sympy.limit(_stirling(t + r, value) / t**value, t, sympy.oo)
        proof.equal("and like t^p, p = lambda", found, 1, ("lim(Z_t/t^p)", 1))
        fall = t**value / t
        claim = f"lambda = {value}: 1 - cos goes like (Z / ||c||)^2"
        proof.equal(claim, fall**2, t ** power(value), ("(t^p/t)^2", t ** power(value)))
    speed = sympy.diff(t ** power(0), t)
    claim = "lambda = 0: the speed of the cosine, -d(1 - cos)/dt"
    proof.equal(claim, -speed, 2 / t**3, ("speed", 2 / t**3))
    return proof


def _stirling(x, value):
    """gamma(x + lambda)/gamma(x) for large x, by Stirling's formula x^x e^(-x) sqrt(2 pi / x)."""
    if value == 0:
        return sympy.Integer(1)
    log = (x + value) * sympy.log(x + value) - (x + value) - sympy.log(x + value) / 2
    log -= x * sympy.log(x) - x - sympy.log(x) / 2
    return sympy.exp(log)


WRONG = {
    "the walk on the skip, too": {"post": lambda s, lam, w: lam},
    "1/t^2": {"power": lambda lam: -(1 - lam)},
}
