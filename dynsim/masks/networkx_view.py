"""From networkx graphs to layouts and back, the one place that touches networkx's own fields.

A graph over a layout stores no edge: its adjacency (`_adj`, `_pred`, `_node` of networkx.DiGraph)
is computed when it is looked at. tests/test_masks.py tries that with the networkx installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from dynsim.masks.layout import Layout, rows_from_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["compile_layout", "graph_from_layout"]


class _Neighbours(Mapping):
    """A networkx adjacency {node: {neighbour: {}}} computed from a layout when it is looked at."""

    def __init__(self, layout: Layout) -> None:
        self._source = layout

    @property
    def layout(self) -> Layout:
        return self._source

    def __getitem__(self, node: object) -> dict[int, dict]:
        if not (isinstance(node, (int, np.integer)) and 0 <= node < self.layout.n_tokens):
            raise KeyError(node)
        return {int(j): {} for j in self.layout.row(int(node))}

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.layout.n_tokens))

    def __len__(self) -> int:
        return self.layout.n_tokens


class _Successors(_Neighbours):
    @property
    def layout(self) -> Layout:
        return self._source.attended_by


def graph_from_layout(layout: Layout, name: str) -> nx.DiGraph:
    """A read-only networkx graph over `layout`: every networkx algorithm works, no edge is stored.

    ``graph.copy()`` gives an ordinary graph that may be changed.

    >>> from dynsim.masks.layout import Ranges
    >>> sorted(graph_from_layout(Ranges([0, 0], [1, 2]), "two").edges)
    [(0, 0), (0, 1), (1, 1)]
    """
    graph = nx.DiGraph(name=name)
    graph._node = {i: {} for i in range(layout.n_tokens)}
    graph._adj = _Successors(layout)
    graph._pred = _Neighbours(layout)
    return nx.freeze(graph)


def compile_layout(graph: nx.DiGraph) -> Layout:
    """The cheapest layout of a mask graph: complete, causal or banded ranges, else CSR rows.

    Raises ValueError for what is no DiGraph, when the nodes are not 0..N-1, and when a token
    attends to nothing.

    >>> compile_layout(nx.DiGraph([(0, 0), (0, 1), (1, 1)])).kind
    'causal'
    """
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise ValueError(
            f"a mask is a networkx.DiGraph with edges j -> i ('i attends to j'); "
            f"got {type(graph).__name__}; convert it with networkx.DiGraph(graph)"
        )
    if isinstance(graph._pred, _Neighbours):
        return graph._pred.layout
    n = graph.number_of_nodes()
    if n == 0:
        raise ValueError("a mask needs at least one token; the graph has no nodes")
    strays = [node for node in graph if not (isinstance(node, (int, np.integer)) and 0 <= node < n)]
    if strays:
        raise ValueError(
            f"the nodes of a mask are the tokens 0..{n - 1}; found node {strays[0]!r}; "
            f"relabel with networkx.convert_node_labels_to_integers(graph)"
        )
    pairs = np.fromiter(chain.from_iterable(graph.edges()), np.int64).reshape(-1, 2)
    return rows_from_pairs(n, attending=pairs[:, 1], attended=pairs[:, 0])
