"""The step with N eps^2r needs the diameter: with r the radius it is false, on three tokens.

On a strongly connected mask every token is a center, and after r layers a center that reaches all
tokens within r steps is seen by all with eps^r. Within the radius some center does; within the
diameter all N do. Window +-1, N = 3: the radius is 1, the diameter 2, and in one layer tokens 1 and
3 share token 2 alone, so that the sum over shared centers is eps^2, not 3 eps^2. Two tokens of a
strongly connected mask attend to each other, so N = 3 is the smallest example.

This refutes the step, not the bound of the theorem, whose constant C is not explicit.
"""

import sympy

from theory.graphs.small_masks import band, centers_and_radius, eccentricities
from theory.lemma import Proof, Statement


def statement():
    return Statement(
        claim="phi_{t+r} >= N eps^2r + (1 - N eps^2r) phi_t with r the radius is false: window "
        "+-1, N = d = 3, X_0 = I, eps = 1/3, phi_0 = 0, phi_1 = 1/5 < 3 eps^2 = 1/3; with one "
        "center in place of three, eps^2 = 1/9, it holds here",
        source="WU, arXiv 2405.18781, Theorem 2, whose rate is (1 - N eps^2r)^(1/2r)",
        hypotheses="strongly connected mask, unit norm, W_V = I, M = diag(log 2, 0, log 2), X_0 of "
        "full rank",
        latex=r"A=\frac13\begin{pmatrix}2&1&0\\1&1&1\\0&1&2\end{pmatrix},\ X_0=I:\quad"
        r"\phi_0=0,\quad\phi_1=\tfrac15<3\epsilon^{2}=\tfrac13\qquad(r=1,\ \epsilon=\tfrac13)",
        how="counterexample found, exact and of least N",
    )


def check(weight=2, centers=3):
    proof = Proof()
    mask = band(3, 1, 1)
    reach = eccentricities(mask)
    proof.equal("the radius, by search", centers_and_radius(mask)[1], 1, ("r", "1"))
    proof.equal("the diameter, by search", max(reach.values()), 2, ("max(r_1, r_2, r_3)", "2"))
    scores = sympy.diag(sympy.log(weight), 0, sympy.log(weight))  # X M X^T for X = I
    weights = scores.applyfunc(sympy.exp).multiply_elementwise(mask)
    A = sympy.Matrix(3, 3, lambda i, j: sympy.simplify(weights[i, j] / sum(weights.row(i))))
    proof.equal("the layer", A, sympy.Matrix([[2, 1, 0], [1, 1, 1], [0, 1, 2]]) / 3, ("A", A))
    eps = min(entry for entry in A if entry != 0)
    lengths = [sympy.sqrt(A.row(i).dot(A.row(i))) for i in range(3)]
    cosines = {
        (i, j): A.row(i).dot(A.row(j)) / lengths[i] / lengths[j] for i in range(3) for j in range(i)
    }
    phi = min(cosines.values())
    shown = "(0*2 + 1*1 + 2*0)/(2^2 + 1^2)", sympy.Rational(1, 5)
    proof.equal("the smallest cosine after it, of tokens 1 and 3", phi, sympy.Rational(1, 5), shown)
    proof.less("is less than promised", phi, centers * eps**2, (phi, f"{centers}*(1/3)^2"))
    proof.less("one center's share is there", eps**2, phi, ("(1/3)^2", phi))
    return proof


WRONG = {
    "with one center": {"centers": 1},
    "scores 0": {"weight": 1},
}
