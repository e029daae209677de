"""Masks written out for small N, searched by networkx: what the formulas are compared with.

A mask is a matrix of 0 and 1; entry [i, j] is 1 when token i attends to token j, which makes an
edge j -> i of the mask graph.
"""

from __future__ import annotations

import networkx as nx
import sympy

__all__ = ["band", "centers_and_radius", "walk"]


def band(n: int, before: int, after: int) -> sympy.Matrix:
    """Token i attends to i - before, ..., i + after, as far as there are tokens."""
    return sympy.Matrix(n, n, lambda i, j: int(-before <= int(j - i) <= after))


def walk(mask: sympy.Matrix) -> sympy.Matrix:
    """The uniform walk D^-1 Adj: every token attends equally to all that it may attend to."""
    return sympy.Matrix(mask.rows, mask.cols, lambda i, j: mask[i, j] / sum(mask.row(i)))


def centers_and_radius(mask: sympy.Matrix) -> tuple[list[int], int]:
    """Center nodes (from 1), and the longest distance from one, smallest over the center nodes."""
    n = mask.rows
    graph = nx.DiGraph([(j, i) for i in range(n) for j in range(n) if mask[i, j]])
    distances = dict(nx.all_pairs_shortest_path_length(graph))
    centers = [node for node in range(n) if len(distances[node]) == n]
    return [c + 1 for c in centers], min(max(distances[c].values()) for c in centers)
