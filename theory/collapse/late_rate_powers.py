"""Powers of t beside the late rate: the longest chain of components that share lambda.

Let Q be a matrix without negative entries, block triangular over its strong components, lambda > 0
its spectral radius. Its largest Jordan block at lambda has the size of the longest path through
components with spectral radius lambda (Rothblum, Linear Algebra Appl. 12 (1975) 281). For single
tokens: let S be those with P_ii = lambda, R the others, all with P_ii < lambda. Eliminating R from
(z - P)^-1 leaves ((z - lambda) I - N(z))^-1 on S, N(z) = P_SS less its diagonal + P_SR (z -
P_RR)^-1 P_RS, which is nilpotent, so this is the sum of N(z)^k / (z - lambda)^(k + 1). At z =
lambda every path from S to S adds a positive number to N, none cancels, and the order of the pole,
which is the size of the largest block, is one more than the largest k with N(lambda)^k not 0: the
number of tokens of S on the longest path.

The uniform walk has the eigenvalue 1 too, in a component that attends to no other. So it lies
between no two others: P is [[C, 0], [B, Q]] with lambda no eigenvalue of C, and
P - [[C, 0], [0, Q]] is removed by a similarity (Sylvester), which leaves the blocks of Q. The
check counts blocks by ranks of (P - lambda)^k, in rational numbers, for every mask of few tokens.

Z -> P Z W is the Kronecker product of P and W^T: on Jordan blocks of sizes a and b at lambda w != 0
its largest block has size a + b - 1. So the powers of t add up.
"""

import itertools

import sympy

from theory.graphs.small_masks import walk
from theory.lemma import Proof, Statement

TOKENS, SIZES = 5, 4


def statement():
    return Statement(
        claim="one component with eigenvalue 1 and lambda_2 the largest spectral radius of the "
        "others: mu is of order t^(k - 1) lambda_2^t, k the largest number of components with "
        "lambda_2 on a path; a Jordan block of size b in W_V adds t^(b - 1)",
        source="dynsim; U. G. Rothblum, Linear Algebra Appl. 12 (1975) 281, theorem 3.1",
        hypotheses="token 1 attends to itself alone, the others to themselves and to any before "
        "them; the general argument is in the file's head",
        latex=r"\|P^tZW_V^t\|\sim t^{(k-1)+(b-1)}|\lambda_2w|^t,\quad k\text{ components with }"
        r"\lambda_2\text{ on a path, a Jordan block of size }b",
        how=f"checked in exact arithmetic for every such mask of up to {TOKENS} tokens, and for "
        f"a, b <= {SIZES} with symbolic lambda and w",
    )


def check(chain=lambda mask, alike: longest(mask, alike), size=lambda a, b: a + b - 1):
    proof = Proof()
    for n in range(2, TOKENS + 1):
        wrong = [mask for mask in triangles(n) if block(walk(mask)) != chain(mask, leading(mask))]
        proof.equal(
            f"N = {n}: masks whose largest block is not the longest chain",
            len(wrong),
            0,
            shown=("number(masks)", "0"),
        )
    two = sympy.symbols("lambda w", nonzero=True)
    for a, b in itertools.product(range(1, SIZES + 1), repeat=2):
        left, right = (jordan(value, n) for value, n in zip(two, (a, b), strict=True))
        nilpotent = sympy.kronecker_product(left, right) - two[0] * two[1] * sympy.eye(a * b)
        power = size(a, b)
        below, whole = (_expanded(nilpotent, k).is_zero_matrix for k in (power - 1, power))
        claim = (
            f"blocks of sizes {a} and {b}: of what is nilpotent the power {power} is the first 0"
        )
        proof.true(claim, whole and not below)
    return proof


def triangles(n: int):
    """Every mask under which token 1 attends to itself and the others to themselves and any before
    them, at least one."""
    pairs = [(i, j) for i in range(n) for j in range(i)]
    for entries in itertools.product((0, 1), repeat=len(pairs)):
        chosen = {pair for pair, entry in zip(pairs, entries, strict=True) if entry}
        if all(any((i, j) in chosen for j in range(i)) for i in range(1, n)):
            yield sympy.Matrix(n, n, lambda i, j, chosen=chosen: int(i == j or (i, j) in chosen))


def leading(mask) -> list[int]:
    """The tokens but the first that attend to the fewest, so that P_ii = lambda_2."""
    degrees = [sum(mask.row(i)) for i in range(mask.rows)]
    return [i for i in range(1, mask.rows) if degrees[i] == min(degrees[1:])]


def longest(mask, alike) -> int:
    """The largest number of tokens of `alike` on one path from token to attended token."""
    best = []
    for i in range(mask.rows):
        best.append(max([best[j] for j in range(i) if mask[i, j]], default=0) + (i in alike))
    return max(best)


def block(P) -> int:
    """The size of the largest Jordan block of P at its second eigenvalue."""
    second = max(P[i, i] for i in range(1, P.rows))
    base = P - second * sympy.eye(P.rows)
    power, ranks = base, [P.rows, base.rank()]
    while ranks[-1] != ranks[-2]:
        power = power * base
        ranks.append(power.rank())
    return len(ranks) - 2


def _expanded(matrix, power: int):
    return (matrix**power).applyfunc(sympy.expand)


def jordan(value, n: int):
    return sympy.Matrix(n, n, lambda i, j: value if i == j else int(j == i + 1))


WRONG = {
    "how often lambda_2 occurs": {"chain": lambda mask, alike: len(alike)},
    "never defective": {"chain": lambda mask, alike: 1},
    "the larger block alone": {"size": lambda a, b: max(a, b)},
}
