"""Windows closed into a circle: the walk is a circulant, and waves are its eigenvectors.

On the wave e^(i theta j), theta = 2 pi k / N, the walk averages e^(i theta m) over -w <= m <= w.
The sum is the Dirichlet kernel; both sides grow by 2 cos(w theta) with w.
"""

import sympy

from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="window +-w on a circle of N: eigenvalues sin((2w+1) pi k/N) / ((2w+1) sin(pi k/N)), "
        "and 1 for k = 0; ring w = 1, N >= 4: lambda_2 = (1 + 2 cos(2 pi/N)) / 3",
        source="classical (circulant matrices)",
        hypotheses="2 w + 1 <= N; k = 0, ..., N - 1",
        latex=r"\lambda_k=\frac{1+2\sum_{m=1}^w\cos(2\pi km/N)}{2w+1}=\frac{\sin((2w+1)\pi "
        r"k/N)}{(2w+1)\sin(\pi k/N)},\qquad w=1,\ N\ge4:\ \lambda_2=\tfrac13\bigl(1+2\cos"
        r"\tfrac{2\pi}N\bigr)",
        how="proved for every N and w by induction over w; written out for N = 4, 6",
    )


def check(kernel=lambda w, theta: sympy.sin((2 * w + 1) * theta / 2)):
    proof = Proof()
    theta = sympy.Symbol("theta", real=True)
    w, j = sympy.symbols("w j", integer=True, positive=True)
    wave = sympy.exp(sympy.I * theta * (j + w)) + sympy.exp(sympy.I * theta * (j - w))
    sent = 2 * sympy.cos(w * theta) * sympy.exp(sympy.I * theta * j)
    proof.equal(
        "tokens w places away add 2 cos(w theta)",
        *map(_waves, (wave, sent)),
        shown=("exp(i*theta*(j + w)) + exp(i*theta*(j - w))", "2*cos(w*theta)*exp(i*theta*j)"),
    )
    growth = kernel(w, theta) - kernel(w - 1, theta)
    claim = "and so does the kernel"
    proof.equal(
        claim,
        *map(_waves, (growth, 2 * sympy.cos(w * theta) * sympy.sin(theta / 2))),
        shown=("sin((2*w + 1)*theta/2) - sin((2*w - 1)*theta/2)", "2*cos(w*theta)*sin(theta/2)"),
    )
    proof.equal(
        "which starts with 1, times sin(theta/2)",
        kernel(0, theta),
        sympy.sin(theta / 2),
        shown=("sin((2*0 + 1)*theta/2)", "sin(theta/2)"),
    )
    proof.words(
        "c = cos(2 pi k/N) lies in [-1, cos(2 pi/N)] for k >= 1, and cos(2 pi/N) >= 0, N >= 4"
    )
    c = sympy.Symbol("c", real=True)
    proof.equal(
        "ring: from -1/3 at c = -1",
        ((1 + 2 * c) / 3).subs(c, -1),
        -sympy.Rational(1, 3),
        shown=("(1 + 2*(-1))/3", "-1/3"),
    )
    for n in (4, 6):
        second = (1 + 2 * sympy.cos(2 * sympy.pi / n)) / 3
        shown = f"(1 + 2*cos(2*pi/{n}))/3", "1/3"
        proof.at_least(f"N = {n}: lambda_2 >= 1/3", second, sympy.Rational(1, 3), (theta,), shown)
        P = sympy.Matrix(n, n, lambda a, b, n=n: int(int(a - b) % n in (0, 1, n - 1))) / 3
        angles = [2 * sympy.pi * k / n for k in range(1, n)]
        waves = [kernel(1, angle) / sympy.sin(angle / 2) / 3 for angle in angles]
        t = sympy.Symbol("lambda")
        product = (t - 1) * sympy.prod(t - value for value in waves)
        proof.equal(
            f"N = {n}: characteristic polynomial",
            P.charpoly(t).as_expr(),
            product,
            shown=("det(t*I - P)", product),
        )
    return proof


def _waves(expression):
    return sympy.expand(sympy.expand(expression.rewrite(sympy.exp)), power_exp=True)


WRONG = {"sin(w theta)": {"kernel": lambda w, theta: sympy.sin(w * theta)}}
