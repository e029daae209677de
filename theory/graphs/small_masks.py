"""Masks written out for small N, searched by networkx: what the formulas are compared with.

A mask is a matrix of 0 and 1; entry [i, j] is 1 when token i attends to token j, which makes an
edge j -> i of the mask graph.
"""

from __future__ import annotations

import networkx as nx
import sympy

__all__ = ["band", "centers_and_radius", "eccentricities", "last_row_factor", "walk"]


def band(n: int, before: int, after: int) -> sympy.Matrix:
    """Token i attends to i - before, ..., i + after, as far as there are tokens."""
    return sympy.Matrix(n, n, lambda i, j: int(-before <= int(j - i) <= after))


def walk(mask: sympy.Matrix) -> sympy.Matrix:
    """The uniform walk D^-1 Adj: every token attends equally to all that it may attend to."""
    return sympy.Matrix(mask.rows, mask.cols, lambda i, j: mask[i, j] / sum(mask.row(i)))


def eccentricities(mask: sympy.Matrix) -> dict[int, int]:
    """{center node: its longest distance to a token}, tokens counted from 1."""
    n = mask.rows
    graph = nx.DiGraph([(j, i) for i in range(n) for j in range(n) if mask[i, j]])
    distances = dict(nx.all_pairs_shortest_path_length(graph))
    return {v + 1: max(distances[v].values()) for v in range(n) if len(distances[v]) == n}


def centers_and_radius(mask: sympy.Matrix) -> tuple[list[int], int]:
    """Center nodes, and the smallest of their eccentricities."""
    found = eccentricities(mask)
    return list(found), min(found.values())


def last_row_factor(t, corner):
    """det(t - P) over that without the last row and column; the last column is 0 but `corner`.

    The rest of P, here 3 x 3, and of its last row is symbolic.
    """
    rest = t * sympy.eye(3) - sympy.Matrix(3, 3, sympy.symbols("p_1:10"))
    row = -sympy.Matrix([sympy.symbols("p_a p_b p_c")])
    whole = rest.row_join(sympy.zeros(3, 1)).col_join(row.row_join(sympy.Matrix([[t - corner]])))
    return sympy.cancel(whole.det() / rest.det())
